"""`python -m src.export`: `dolglab export` of this checkout."""

from dolglab.__main__ import run

if __name__ == "__main__":
    run("export")
