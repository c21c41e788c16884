"""Every command in README, docs and experiments composes, so no override there is outdated."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

ROOT = Path(__file__).resolve().parents[1]
COMMAND = re.compile(r"(?:-m src\.|dolglab )((?:train|tune|evaluate|report|prepare)\b[^`\n]*(?:\\\n[^`\n]*)*)")
# Commands of docs/extending.md need the files of that page: tests/docs/test_extending.py runs them.
PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name != "extending.md"]
TEXTS = [
    ROOT / "README.md",
    *PAGES,
    *sorted((ROOT / "experiments").glob("*/README.md")),
    *(ROOT / "conf").glob("*.yaml"),
]
SCRIPTS = [path for path in sorted((ROOT / "experiments").glob("*/*.sh")) if path.name != "families.sh"]
# Arguments of scripts, in order.
PHOTOS, CHECKPOINTS = ["photos", "paris", "gnd.pkl"], ["gem.ckpt", "delg.ckpt", "dolg.ckpt"]
ARGUMENTS = dict.fromkeys(["photos", "finetune", "leaderboard", "heads"], PHOTOS)
ARGUMENTS |= {"photos.sh": PHOTOS, "real.sh": CHECKPOINTS}
RECORDER = """#!/bin/sh
line=$(printf '%s\\037' "$@")
printf '%s\\n' "$line" >> "$RECORD"
"""


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


def check(words: list[str]) -> None:
    """Compose one command, given from its name on; for a multirun, each job."""
    name, *rest = words
    if "--" in rest:
        place = rest.index("--")
        check(["train", *rest[place + 1 :]])
        rest = rest[:place]
    overrides = [word for word in rest if not word.startswith("-")]
    jobs = [overrides]
    if "-m" in rest:
        parsed = OverridesParser.create().parse_overrides(overrides)
        jobs = [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
    for job in jobs:
        compose(name, overrides=list(job))


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_the_documentation_composes(text: Path) -> None:
    commands = COMMAND.findall(text.read_text())
    assert commands or text.parent != ROOT
    for command in commands:
        words = shlex.split(command.replace("\\\n", " "), comments=True)
        check([word for word in words if not stands_for_a_choice(word)])


def stands_for_a_choice(word: str) -> bool:
    """Whether it is a placeholder for a choice: benchmark=NAME, entry=NAME,NAME, or dots."""
    key, _, value = word.rpartition("=")
    return bool(re.fullmatch(r"[A-Z]+(,[A-Z]+)*|\.\.\.", value)) and (not key or (ROOT / "conf" / key).is_dir())


def commands_of(script: Path, place: Path) -> list[list[str]]:
    """The Hydra commands of a script, each from its name on.

    It runs in a copy of its folder, with a `python` that notes what it is asked for, and does nothing.
    """
    shutil.copytree(script.parent, place / "experiments" / script.parent.name)
    tools, record = place / "tools", place / "record"
    tools.mkdir()
    for name, content in (("python", RECORDER), ("cp", "#!/bin/sh\n")):
        (tools / name).write_text(content)
        (tools / name).chmod(0o755)
    for landmark in ("opera", "rotonde"):
        (place / "photos" / landmark).mkdir(parents=True)
    folder, name = script.relative_to(ROOT).parts[-2:]
    subprocess.run(
        ["bash", f"experiments/{folder}/{name}", *ARGUMENTS.get(folder, ARGUMENTS.get(name, []))],
        cwd=place,
        env={"PATH": f"{tools}:/usr/bin:/bin", "RECORD": str(record)},
        check=True,
        capture_output=True,
        timeout=60,
    )
    asked = [line.split("\037")[:-1] for line in record.read_text().splitlines()]
    # Commands that take file names are not Hydra commands.
    modules = [(words[1].removeprefix("src."), words[2:]) for words in asked if words[:1] == ["-m"]]
    return [[name, *words] for name, words in modules if name not in ("embed", "library")]


@pytest.mark.process
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_script_composes(script: Path, tmp_path: Path) -> None:
    commands = commands_of(script, tmp_path)
    assert commands
    for words in commands:
        check(words)


@pytest.mark.process
def test_a_failed_demo_keeps_its_exit_code_and_its_output(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "experiments" / "demo", tmp_path / "experiments" / "demo")
    tool = tmp_path / "tools" / "python"
    tool.parent.mkdir()
    # The second of its commands fails.
    tool.write_text('#!/bin/sh\necho asked "$2"\ntest "$2" = src.prepare || { echo gone >&2; exit 7; }\n')
    tool.chmod(0o755)
    path = f"{tool.parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "experiments/demo/run.sh"],
        cwd=tmp_path,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7
    log = (tmp_path / "outputs" / "demo.log").read_text()
    assert [line for line in log.splitlines() if "step" not in line] == [
        "asked src.prepare",
        "asked src.evaluate",
        "gone",
    ]
    assert "outputs/demo.log" in done.stderr


@pytest.mark.process
def test_a_leaderboard_ignores_the_cards_of_an_earlier_page(tmp_path: Path) -> None:
    out = tmp_path / "outputs" / "leaderboard"
    runs = ["provence/lite0/0_entry-gem", "demo/local/0", "demo/local/10"]
    for folder in [*runs, "trained_gem", "page/cards/512_demo_local_0", "demo/local/0/baseline"]:
        (out / folder).mkdir(parents=True)
        (out / folder / "card.json").touch()
    *_, (_, *words) = commands_of(ROOT / "experiments" / "leaderboard" / "run.sh", tmp_path)
    cfg = compose("report", overrides=words)
    assert cfg.leaderboard
    assert cfg.out == "outputs/leaderboard/page"
    assert list(cfg.cards) == [f"outputs/leaderboard/{run}/card.json" for run in runs]


@pytest.mark.parametrize("file", sorted((ROOT / "experiments").glob("wandb_sweep/*.yaml")), ids=lambda path: path.name)
def test_the_command_of_a_wandb_agent_composes(file: Path) -> None:
    sweep = yaml.safe_load(file.read_text())
    assert (ROOT / sweep["program"]).is_file()
    fixed = [word for word in sweep["command"] if "=" in word]
    for end in ("min", "max"):
        check(["train", *fixed, *(f"{key}={range_[end]}" for key, range_ in sweep["parameters"].items())])
