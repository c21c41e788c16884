"""`python -m src.embed`: `dolglab embed` of this checkout."""

from dolglab.__main__ import run

if __name__ == "__main__":
    run("embed")
