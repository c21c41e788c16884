"""`docs/extending.md`, followed block by block: its files, commands and tests work."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from warm_python import run_python

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "extending.md"
SECTION = re.compile(r"^## (?P<title>.+?)$(?P<text>.*?)(?=^## |\Z)", re.M | re.S)
FILE = re.compile(r"^`(?P<path>[^`\n]+)`(?P<append>, at the end)?:\n\n```\w+\n(?P<text>.*?)^```$", re.M | re.S)
COMMANDS = re.compile(r"^```bash\n(.*?)^```$", re.M | re.S)
SMALL = {
    "train": [
        "trainer=cpu",
        "trainer.max_epochs=1",
        "data.image_size=64",
        "local.dilations=[1,2,3]",
        "data.batch_size=8",
        "data.workers=0",
        "model.dim=16",
        "model.hidden=16",
        "optim.optimizer.lr=0.01",
        "test_scales=[1.0]",
    ],
    "evaluate": ["trainer=cpu", "workers=0", "pictures=0"],
    "embed": ["--threads", "1"],
    "search": [],
}
# Runs the commands in one process, which imports torch once; then the tests on the page, and the project's tests that
# include every added component.
DRIVER = """
import json, sys
from pathlib import Path
import pytest
import dolglab.__main__

commands, tests, words = json.loads(Path("follow.json").read_text())
assert Path(dolglab.__file__).is_relative_to(Path.cwd()), dolglab.__file__
for command in commands:
    print("$ dolglab", *command, flush=True)
    sys.argv = ["dolglab", *command]
    try:
        dolglab.__main__.main()
    except SystemExit as stop:
        assert not stop.code, stop.code
options = ["-q", "-c", "/dev/null", "--rootdir=.", "--noconftest", "-pno:cacheprovider", "--import-mode=importlib"]
assert pytest.main([*options, *tests]) == 0
assert pytest.main([*options, "-k", words, "tests/test_configs.py", "tests/photo_library/test_stores.py"]) == 0
"""


def sections() -> dict[str, str]:
    return {found["title"]: found["text"] for found in SECTION.finditer(PAGE.read_text())}


def commands_of(text: str) -> list[list[str]]:
    lines = "".join(COMMANDS.findall(text)).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines]


def follow(text: str, checkout: Path) -> list[str]:
    """Write the files of a section into a checkout, and return their paths."""
    paths = []
    for found in FILE.finditer(text):
        path = checkout / found["path"]
        assert path.exists() == bool(found["append"]), f"{found['path']} does not match the page"
        path.parent.mkdir(parents=True, exist_ok=True)
        before = f"{path.read_text()}\n\n" if found["append"] else ""
        path.write_text(before + found["text"])
        paths.append(found["path"])
    return paths


@pytest.fixture
def checkout(photos: Path, tmp_path: Path) -> Path:
    """The project's code and configurations, and a folder of photos."""
    for name in ("src/dolglab", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/test_configs.py", "tests/photo_library/test_stores.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "landmark 0").rename(tmp_path / "photos" / "big ben")
    return tmp_path


def test_the_steps_of_the_page_work(checkout: Path) -> None:
    page = sections()
    paths = [path for text in page.values() for path in follow(text, checkout)]
    code = [str(checkout / path) for path in paths if path.endswith(".py")]
    for check in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, *code], cwd=checkout, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    commands = {title: commands_of(text) for title, text in page.items()}
    assert all(commands.values()), "every section must have commands"
    trained_once = [command for own in commands.values() for command in own if command[0] == "train"]
    assert len(trained_once) == 4
    for command in trained_once:
        with initialize_config_dir(str(checkout / "conf"), version_base="1.3"):
            cfg = compose("train", overrides=command[1:])
        assert (cfg.trainer.max_epochs, cfg.data.image_size) == (1, 192)
    # Pooling, margin and backbone are trained as one network: their runs have the same name on the page.
    parts = ("A pooling", "A margin", "Any other backbone")
    (mobile,) = commands["A backbone of timm"]
    mine = dict.fromkeys(word for part in parts for word in commands[part][0])
    others = [c for own in commands.values() for c in own if c[0] != "train"]
    every = [list(mine), [*mobile, "backbone.pretrained=false"], *others]
    small = [[*command, *SMALL[command[0]]] for command in every]
    tests = [path for path in paths if path.startswith("tests/")]
    names = [Path(path).stem for path in paths if path.startswith("conf/")]
    words = " or ".join([*names, "npy", "(with_every_choice and photos)", "evaluation_builds"])
    (checkout / "follow.json").write_text(json.dumps([small, tests, words]))

    done = run_python(["-c", DRIVER], cwd=checkout, timeout=280, PYTHONPATH=str(checkout / "src"))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    def card(run: str) -> dict:
        return json.loads((checkout / "outputs" / run / "card.json").read_text())

    trained = card("mine")["config"]
    assert trained["pooling"]["r"] == 5
    assert trained["margin"]["cosine_margin"] == 0.1
    assert trained["backbone"]["_target_"].endswith(".ConvMixer")
    assert card("mobile")["config"]["backbone"]["name"].startswith("mobilenetv3")
    (plain,), (fused,) = card("recall")["benchmarks"], card("fused")["benchmarks"]
    assert plain["measure"] == fused["measure"] == "recall@1"
    assert 0 <= plain["map"]["all"] <= 1
    assert "recall@1" in (checkout / "outputs" / "recall" / "report.html").read_text()
    assert "rank fusion" in json.dumps(fused)
    assert len(list((checkout / "library" / "npy").glob("*.npy"))) == 1
    assert json.dumps(str(checkout / "photos" / "big ben" / "01.jpg")) in done.stdout
