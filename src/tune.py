"""`python -m src.tune`: `dolglab tune` of this checkout."""

from dolglab.__main__ import run

if __name__ == "__main__":
    run("tune")
