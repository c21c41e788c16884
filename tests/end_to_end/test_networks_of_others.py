"""Networks of other projects through evaluation and export."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from dolglab.commands.evaluate import main as evaluate
from dolglab.data.folder import folder_benchmark
from dolglab.sharing.export import export
from end_to_end.runs import card, config, refused

pytestmark = pytest.mark.process

MODULE = """
def thumbnails(broken=False, lengths=False):
    def describe(images):
        import torch.nn.functional as F
        found = F.adaptive_avg_pool2d(images, 4).flatten(1)
        if lengths and images.shape[-1] < 200:
            return found[:, :7]
        # The darkest photo has no descriptor.
        return found / (images.amax((1, 2, 3)) > 0.25)[:, None] if broken else found
    return describe
"""


@pytest.fixture
def asked(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "thumbs", raising=False)
    (tmp_path / "thumbs.py").write_text(MODULE)
    options = [f"output_dir={tmp_path / 'run'}", "model=any", "model.source=python:thumbs:thumbnails"]
    return [*options, "benchmark=folder", f"benchmark.root={photos}", "trainer=cpu", "workers=0", "colour=ignore"]


def test_a_function_gives_the_same_figures_as_its_descriptors(asked: list[str], photos: Path, tmp_path: Path) -> None:
    medium = evaluate(config("evaluate", *asked, "model.trust=true", "model.mean=[0,0,0]", "model.std=[1,1,1]"))
    source = folder_benchmark(photos).source
    rows = []
    for position in range(len(source)):
        pixels = np.asarray(Image.open(photos / source.name(position)), np.float32) / 255
        assert pixels.shape == (96, 112, 3)
        rows.append(pixels.reshape(4, 24, 4, 28, 3).mean((1, 3)).transpose(2, 0, 1).ravel())
    np.save(tmp_path / "theirs.npy", np.stack(rows))
    ready = [f"output_dir={tmp_path / 'ready'}", f"descriptors={tmp_path / 'theirs.npy'}", *asked[3:]]
    assert medium == pytest.approx(evaluate(config("evaluate", *ready)), abs=1e-9)
    protocol = card(tmp_path / "run")["protocol"]
    assert (protocol["scales"], protocol["image_size"]) == ([1.0], None)
    for said in ("python:thumbs:thumbnails", "any size", "48 numbers", "not stated", "runs its author's code"):
        assert said in protocol["network"]
    assert "48 numbers" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "model.trust=true"),
        (["model.trust=true", "model.arguments={broken:true}", "scales=[0.5]"], "NaN or infinity for landmark"),
        (["model.trust=true", "model.arguments={lengths:true}"], "returns 7 numbers for images of 96 x 112"),
        (["model.trust=true", "rerank=spatial"], "no local features"),
        (["model.trust=true", "model.arguments={nonsense:1}"], "unexpected keyword argument 'nonsense'"),
    ],
)
def test_problems_of_a_network_give_one_line(
    asked: list[str], options: list[str], message: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dark = photos / "landmark 0" / "dark.jpg"
    if "model.arguments={broken:true}" in options:
        Image.new("RGB", (112, 96)).save(dark)
    try:
        line = refused(evaluate, config("evaluate", *asked, *options), capsys)
    finally:
        dark.unlink(missing_ok=True)
    assert message in line


def test_released_weights_are_evaluated_by_their_authors_protocol_and_exported(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trunk = torchvision.models.resnet18()
    children = torch.nn.Sequential(*list(trunk.children())[:-2])
    stored = {f"features.{key}": value for key, value in children.state_dict().items()}
    torch.save({"meta": {}, "state_dict": stored | {"pool.p": torch.tensor([3.0])}}, tmp_path / "gem.pth")
    source = f"cirtorch:{tmp_path / 'gem.pth'}"
    asked = ["benchmark=folder", f"benchmark.root={photos}", "trainer=cpu", "workers=0", "pictures=0"]
    first = evaluate(config("evaluate", f"output_dir={tmp_path / 'a'}", "model=any", f"model.source={source}", *asked))
    protocol = card(tmp_path / "a")["protocol"]
    assert (protocol["scales"], protocol["image_size"]) == ([1.0, 1.4142, 0.7071], 1024)
    assert protocol["network"] == "cirtorch:gem.pth: 512 numbers, licence mit"
    export(str(tmp_path / "model"), released=source)
    second = evaluate(config("evaluate", f"output_dir={tmp_path / 'b'}", f"checkpoint={tmp_path / 'model'}", *asked))
    assert first == pytest.approx(second, abs=1e-9)
    assert card(tmp_path / "b")["protocol"] == protocol | {"network": None}
