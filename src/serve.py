"""`python -m src.serve`: `dolglab serve` of this checkout."""

from dolglab.__main__ import run

if __name__ == "__main__":
    run("serve")
