from dolglab.__main__ import run

if __name__ == "__main__":
    run("prepare")
