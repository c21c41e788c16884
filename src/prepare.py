"""`python -m src.prepare`: `dolglab prepare` of this checkout."""

from dolglab.__main__ import run

if __name__ == "__main__":
    run("prepare")
