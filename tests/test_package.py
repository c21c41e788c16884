"""The package as installed, beside a checkout, and through torch.hub."""

from __future__ import annotations

import importlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import dolglab
from dolglab.__main__ import COMMANDS
from dolglab.__main__ import run as start
from dolglab.models.pooling import gem
from end_to_end.runs import NARROW

ROOT = Path(__file__).resolve().parents[1]
TINY = ["backbone.name=test_efficientnet.r160_in1k", "backbone.pretrained=false", *NARROW]


def run(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the contents of an installed wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    run("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.process
def test_a_wheel_contains_the_configurations_and_every_command(wheel: Path, tmp_path: Path) -> None:
    packed = {path.relative_to(wheel / "dolglab" / "conf") for path in (wheel / "dolglab" / "conf").rglob("*.yaml")}
    assert packed == {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    assert not (wheel / "src").exists()
    listed = run("-m", "dolglab", "--help", cwd=tmp_path, path=wheel)
    for command, what in COMMANDS.items():
        assert any(line.split() == [command, *what.split()] for line in listed.splitlines())
        assert (wheel / "dolglab" / "commands" / f"{command}.py").is_file()
    (wheel / "dolglab" / "conf" / "margin" / "own.yaml").write_text("_target_: torch.nn.Identity\n")
    assert "_target_: torch.nn.Identity" in run(
        "-m", "dolglab", "train", "margin=own", "--cfg", "job", cwd=tmp_path, path=wheel
    )


@pytest.mark.process
def test_the_command_line_trains_over_two_processes_from_any_folder(photos: Path, tmp_path: Path) -> None:
    """Lightning starts the second process with the name and the arguments of the first."""
    options = [
        "data.image_size=64",
        "local.dilations=[1,2,3]",
        "data.batch_size=8",
        "data.workers=0",
        "trainer.max_epochs=1",
        "test_scales=[1.0]",
    ]
    over = ["trainer=cpu", "strategy=ddp_gloo", "trainer.devices=2", "name=two", "store=kept"]
    arguments = ["train", "data=folder", f"data.root={photos}", *TINY, *options, *over]
    run(str(Path(sys.executable).with_name("dolglab")), *arguments, cwd=tmp_path)
    assert (tmp_path / "outputs" / "two" / "card.json").is_file()


@pytest.mark.process
def test_a_checkout_uses_its_own_code_beside_an_installed_package(tmp_path: Path) -> None:
    for folder in ("src", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    package, conf = tmp_path / "src" / "dolglab" / "version.py", tmp_path / "conf" / "train.yaml"
    package.write_text(package.read_text().replace(f'"{dolglab.__version__}"', '"9.9.9"'))
    conf.write_text(conf.read_text().replace("seed: 0", "seed: 99"))
    assert "seed: 99" in run("-m", "src.train", "--cfg", "job", cwd=tmp_path)
    program = (
        "import src, subprocess, sys, dolglab; assert callable(src.load); print(dolglab.__version__, flush=True); "
    )
    program += "subprocess.run([sys.executable, '-c', 'import dolglab; print(dolglab.__version__)'], cwd='/')"
    assert run("-c", program, cwd=tmp_path).split() == ["9.9.9", "9.9.9"]


def test_public_names_are_imported_from_the_root() -> None:
    for name in dolglab.__all__:
        assert callable(getattr(dolglab, name))
    with pytest.raises(AttributeError, match="DOGL"):
        dolglab.DOGL  # noqa: B018


def test_a_wrong_shape_raises(pytestconfig: pytest.Config) -> None:
    """Shape checks that are disabled, for example after a package was renamed, would go unnoticed."""
    checked = str(pytestconfig.getoption("--jaxtyping-packages")).split(",")
    for name in checked[:-1]:
        importlib.import_module(name)
    with pytest.raises(Exception, match="gem") as caught:
        gem(torch.zeros(2, 3), 3.0)
    assert type(caught.value).__module__.startswith("jaxtyping")


def test_torch_hub_finds_the_networks() -> None:
    network = torch.hub.load(str(ROOT), "dolg_r50", source="local", pretrained=False)
    assert isinstance(network, dolglab.DOLG)
    assert network.dim == 512


def test_non_unicode_names_are_printed_as_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, "utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["dolglab", "--help"])
    # Another test may have imported it, about which runpy warns.
    monkeypatch.delitem(sys.modules, "dolglab.commands.library", raising=False)
    with pytest.raises(SystemExit):
        start("library")
    print(os.fsdecode(b"op\xe9ra"), flush=True)
    assert written.getvalue().endswith(b"op\xe9ra\n")
