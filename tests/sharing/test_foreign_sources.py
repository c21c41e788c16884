"""External networks by address: each kind is opened from local files, and refused if invalid."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from onnx import TensorProto, helper

import dolglab
from dolglab.errors import UserError
from dolglab.extraction.descriptor_store import fingerprint
from dolglab.extraction.extractor import Extractor
from dolglab.sharing.networks import address_of, load_network
from end_to_end.runs import config

IMAGE = torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
MODULE = """
import torch

class Net(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, width, 3)

    def forward(self, images):
        return self.conv(images).mean((2, 3))

def build(width=4):
    torch.manual_seed(0)
    return Net(width)

def function():
    return lambda images: images.mean((2, 3))

number = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an external module that is also a repository for torch.hub."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someones_networks.py").write_text(MODULE)
    (tmp_path / "hubconf.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "someones_networks", raising=False)
    return tmp_path


def described(source: str, **options: Any) -> torch.Tensor:
    return Extractor(load_network(source, **options))([IMAGE])[0]


def normalised() -> torch.Tensor:
    return ((IMAGE / 255 - MEAN) / STD).permute(2, 0, 1)[None]


def test_a_function_of_a_module(here: Path) -> None:
    expected = F.normalize(normalised().mean((2, 3)))[0]
    torch.testing.assert_close(described("python:someones_networks:function", trust=True), expected)
    wide = load_network("python:someones_networks:build", trust=True, arguments={"width": 6})
    assert (wide.dim, next(iter(wide.state_dict()))) == (6, "backbone.made_of")
    assert str(here) not in sys.path


def test_an_entry_point_of_a_local_repository(here: Path) -> None:
    by_hub = load_network(f"torchhub:{here}:build", trust=True, arguments={"width": 5})
    by_python = load_network("python:someones_networks:build", trust=True, arguments={"width": 5})
    torch.testing.assert_close(Extractor(by_hub)([IMAGE]), Extractor(by_python)([IMAGE]))
    assert "runs its author's code" in str(by_hub.protocol and by_hub.protocol.note)


@pytest.mark.parametrize("source", ["python:someones_networks:build", "torchhub:OWNER/NAME:build"])
def test_external_code_runs_only_if_trusted(source: str, here: Path) -> None:
    (here / "someones_networks.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(UserError, match=r"model\.trust=true"):
        load_network(source)
    with pytest.raises(UserError, match=r"model\.trust=true"):
        dolglab.load(source)


def test_an_unreachable_hub_is_reported_in_one_line(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(here / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        # Nothing listens on this port.
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"torchhub:a/b:c could not be loaded: .*connection") as caught:
        load_network("torchhub:a/b:c", trust=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("python:someones_networks:none", "no function none"),
        ("python:someones_networks:number", "no function number"),
        ("python:someones_networks", "second colon"),
        ("python:no_such_module:build", "No module named"),
        ("torchhub:build", "torchhub:OWNER/REPOSITORY:ENTRY"),
    ],
)
def test_missing_networks_are_named(source: str, message: str, here: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_network(source, trust=True)


def test_timm_networks_keep_their_own_pooling() -> None:
    import timm

    torch.manual_seed(0)
    network = load_network("timm:resnet18.tv_in1k", arguments={"pretrained": False})
    torch.manual_seed(0)
    net = timm.create_model("resnet18.tv_in1k", num_classes=0).eval()
    with torch.no_grad():
        torch.testing.assert_close(Extractor(network)([IMAGE]), F.normalize(net(normalised())))
    assert network.backbone.licence == "bsd-3-clause"


def test_timm_networks_use_their_fixed_size_or_a_given_one() -> None:
    source, made_up = "timm:vit_tiny_patch16_224.augreg_in21k", {"pretrained": False}
    fixed = load_network(source, arguments=made_up)
    other = load_network(source, arguments=made_up, size=[64, 96])
    assert (fixed.dim, other.dim) == (192, 192)
    assert "224 x 224" in str(fixed.protocol and fixed.protocol.note)
    assert "64 x 96" in str(other.protocol and other.protocol.note)
    assert "mean 0.5, 0.5, 0.5" in str(other.protocol and other.protocol.note)


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("timm:no_such_network", {}, "unknown to timm"),
        ("timm:resnet18.tv_in1k", {"checkpoint_path": "evil.pth"}, "checkpoint_path"),
        ("timm:resnet18.tv_in1k", {"pretrained": False, "nonsense": 1}, "nonsense"),
    ],
)
def test_names_unknown_to_timm_are_reported(source: str, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_network(source, arguments=arguments)


def graph(path: Path, kind: int, shape: list[Any], axes: list[int], outputs: tuple[str, ...] = ("out",)) -> Path:
    """An ONNX file that computes the means of the colours, with several outputs."""
    nodes = [helper.make_node("Cast", ["in"], ["floats"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("ReduceMean", ["floats", "axes"], [name], keepdims=0) for name in outputs]
    made = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("in", kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [shape[0], 3]) for name in outputs],
        [helper.make_tensor("axes", TensorProto.INT64, [2], axes)],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def test_graphs_of_any_layout(tmp_path: Path) -> None:
    free: list[Any] = ["b", 3, "h", "w"]
    first = graph(tmp_path / "a.onnx", TensorProto.FLOAT, free, [2, 3])
    expected = F.normalize(normalised().mean((2, 3)))[0]
    torch.testing.assert_close(described(f"onnx:{first}"), expected, rtol=1e-4, atol=1e-5)
    pixels = F.normalize(IMAGE.float().mean((0, 1)), dim=0)
    last = graph(tmp_path / "b.onnx", TensorProto.UINT8, ["b", "h", "w", 3], [1, 2])
    torch.testing.assert_close(described(f"onnx:{last}"), pixels, rtol=1e-4, atol=1e-5)
    inside = described(f"onnx:{first}", mean=[0, 0, 0], std=[1 / 255] * 3)
    torch.testing.assert_close(inside, pixels, rtol=1e-4, atol=1e-5)


def test_a_graph_with_a_fixed_batch_and_size(tmp_path: Path) -> None:
    path = graph(tmp_path / "a.onnx", TensorProto.FLOAT, [2, 3, 32, 40], [2, 3])
    network = load_network(f"onnx:{path}")
    images = [IMAGE, IMAGE.flip(0), IMAGE // 2]
    found = Extractor(network)(images)
    pixels = torch.stack(images).permute(0, 3, 1, 2).float() / 255
    small = F.interpolate(pixels, size=(32, 40), mode="bilinear", antialias=True)
    expected = F.normalize((small.mean((2, 3)) - MEAN) / STD)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert address_of(f"onnx:{path}") == f"onnx:{path.resolve()}"


def test_graphs_differ_by_their_files(tmp_path: Path) -> None:
    path = graph(tmp_path / "a.onnx", TensorProto.FLOAT, ["b", 3, "h", "w"], [2, 3])
    before = fingerprint(load_network(f"onnx:{path}"))
    graph(path, TensorProto.FLOAT, ["b", 3, "height", "w"], [2, 3])
    assert fingerprint(load_network(f"onnx:{path}")) != before


def test_graphs_with_other_inputs_or_outputs_are_refused(tmp_path: Path) -> None:
    two = graph(tmp_path / "two.onnx", TensorProto.FLOAT, ["b", 3, "h", "w"], [2, 3], ("one", "other"))
    with pytest.raises(UserError, match=r"model\.arguments\.output=one\|other"):
        load_network(f"onnx:{two}")
    assert load_network(f"onnx:{two}", arguments={"output": "other"}).dim == 3
    grey = graph(tmp_path / "grey.onnx", TensorProto.FLOAT, ["b", 1, "h", "w"], [2, 3])
    with pytest.raises(UserError, match=r"\['b', 1, 'h', 'w'\]"):
        load_network(f"onnx:{grey}")
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(UserError, match=r"text\.onnx cannot be run by onnxruntime"):
        load_network(f"onnx:{tmp_path / 'text.onnx'}")
    with pytest.raises(UserError, match="no such file"):
        load_network("onnx:none.onnx")
    own = onnx.load(grey)
    own.metadata_props.add(key="fingerprint", value="1")
    onnx.save(own, tmp_path / "own.onnx")
    with pytest.raises(UserError, match="without onnx:"):
        load_network(f"onnx:{tmp_path / 'own.onnx'}")


def test_an_encoder_of_the_transformers_library(tmp_path: Path) -> None:
    """From a folder written by `save_pretrained`, with random weights."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vit = transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **size)).eval()
    vit.save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    network = load_network(f"transformers:{tmp_path}")
    assert (network.dim, "32 x 32" in str(network.protocol and network.protocol.note)) == (16, True)
    pixels = F.interpolate(IMAGE.permute(2, 0, 1)[None].float(), size=(32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = vit(pixel_values=pixels / 127.5 - 1).pooler_output
    torch.testing.assert_close(Extractor(network)([IMAGE]), F.normalize(expected), rtol=1e-3, atol=1e-4)


def test_the_configuration_opens_external_networks(here: Path) -> None:
    asked = ["model=any", "model.source=python:someones_networks:build", "model.trust=true"]
    cfg = config("evaluate", "output_dir=out", *asked, "model.arguments={width:3}", "model.mean=[0,0,0]")
    network = instantiate(cfg.model)
    assert (network.dim, network.backbone.mean) == (3, (0.0, 0.0, 0.0))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"timm:.*cosplace:"):
        load_network("somewhere:else")
    with pytest.raises(UserError, match=r"model\.source"):
        load_network(None)
    with pytest.raises(UserError, match=r"model\.size is only for timm"):
        load_network("cosplace:a.pth", size=[2, 2])


def test_a_library_loads_external_networks(tmp_path: Path) -> None:
    path = graph(tmp_path / "a.onnx", TensorProto.FLOAT, ["b", 3, "h", "w"], [2, 3])
    found = dolglab.load(f"onnx:{path}")(IMAGE.numpy())
    np.testing.assert_allclose(found, described(f"onnx:{path}").numpy(), rtol=1e-4, atol=1e-5)
