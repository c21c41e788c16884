"""`python -m src.library`: `dolglab library` of this checkout."""

from dolglab.__main__ import run

if __name__ == "__main__":
    run("library")
