"""ONNX files give torch's descriptors for all shapes; int8 files have their own identity."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dolglab.errors import UserError
from dolglab.extraction.describer import INPUT, OnnxDescriber, Session, TorchDescriber
from dolglab.extraction.descriptor_store import fingerprint
from dolglab.models.backbone import Backbone
from dolglab.models.boq import BoQ
from dolglab.models.checkpoint import load_model
from dolglab.models.dolg import DOLG, GlobalDescriptor
from dolglab.models.mixvpr import MixVPR
from dolglab.models.netvlad import NetVLAD
from dolglab.models.pooling import RMAC, GeM, RegionalGeM
from dolglab.models.salad import SALAD
from dolglab.sharing import onnx_export
from dolglab.sharing.loading import load_extractor
from dolglab.sharing.onnx_export import check_exportable, write_onnx

pytestmark = pytest.mark.slow

SHAPES = [(1, 3, 33, 64), (3, 3, 97, 131), (1, 3, 160, 160), (2, 3, 201, 75)]


@pytest.fixture(scope="session")
def session(folder: Path) -> Session:
    return Session(folder / "model.onnx")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_gives_torchs_descriptors(folder: Path, session: Session, shape: tuple[int, ...]) -> None:
    network, _ = load_model(folder)
    images = torch.randint(0, 256, shape).float()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (network.backbone.mean, network.backbone.std))
    with torch.no_grad():
        expected = F.normalize(network((images / 255 - mean) / std))
    np.testing.assert_allclose(session(images.numpy()), expected.numpy(), atol=1e-4)


def test_a_file_describes_itself(folder: Path, session: Session) -> None:
    network, _ = load_model(folder)
    assert session.about["fingerprint"] == fingerprint(network)
    assert session.about["dim"] == "8"
    assert session.about["normalisation"] == "inside"
    assert session.about["mean"] == "0.485 0.456 0.406"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "model.int8.onnx", "model.onnx", "model.safetensors",
    ]  # fmt: skip


def test_orthogonal_fusion_and_tensorflows_padding(tmp_path: Path) -> None:
    """The input is normalised outside the graph."""
    backbone = Backbone("tf_mobilenetv3_small_minimal_100", pretrained=False, reductions=(4, 8))
    network = DOLG(backbone, partial(GeM, p=2.5), hidden=8, dim=6).eval()
    worst = write_onnx(network, tmp_path / "a.onnx", normalised=True)
    assert worst <= 1e-4
    session = Session(tmp_path / "a.onnx")
    for shape in SHAPES:
        images = torch.randn(shape)
        with torch.no_grad():
            expected = F.normalize(network(images))
        np.testing.assert_allclose(session(images.numpy()), expected.numpy(), atol=1e-4)
    with pytest.raises(UserError, match="normalised"):
        OnnxDescriber(session)


def test_a_file_that_differs_is_not_written(folder: Path, tmp_path: Path, monkeypatch) -> None:
    network, _ = load_model(folder)
    whole = onnx_export.export_program(onnx_export.ExportableNetwork(network))
    monkeypatch.setattr(onnx_export, "export_program", lambda graph: whole)
    with pytest.raises(UserError, match=r"a\.onnx"):
        write_onnx(network, tmp_path / "a.onnx", tolerance=-1.0)
    assert not list(tmp_path.iterdir())


def test_several_scales_and_shapes_through_either_backend(folder: Path) -> None:
    scales = (0.7071, 1.0, 1.4142)
    torch_, onnx = (load_extractor(str(folder), scales, backend=name) for name in ("torch", "onnx"))
    assert type(torch_.describer) is TorchDescriber
    assert type(onnx.describer) is OnnxDescriber
    assert onnx.identity == torch_.identity
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*side, 3), np.uint8) for side in ((64, 90), (70, 61), (64, 90))]
    np.testing.assert_allclose(onnx.describe(images), torch_.describe(images), atol=1e-4)


def test_a_network_without_a_file_is_exported_once(folder: Path, checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    """It is found by its fingerprint under any name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []

    def write(network: object, path: Path) -> None:
        made.append(path)
        path.parent.mkdir(parents=True)
        path.write_bytes((folder / "model.onnx").read_bytes())

    monkeypatch.setattr(onnx_export, "write_onnx", write)
    for _ in range(2):
        assert load_extractor(str(checkpoint), backend="onnx").identity["dim"] == 8
    assert len(made) == 1
    with pytest.raises(UserError, match=r"--backend.*tensorrt"):
        load_extractor(str(checkpoint), backend="tensorrt")


def test_int8_is_near_smaller_and_another_identity(folder: Path) -> None:
    whole, small = folder / "model.onnx", folder / "model.int8.onnx"
    assert small.stat().st_size < 0.35 * whole.stat().st_size
    small_model, exact = load_extractor(str(small)), load_extractor(str(folder))
    assert small_model.identity["model"] == exact.identity["model"] + "-int8"
    image = [np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)]
    assert float(small_model.describe(image)[0] @ exact.describe(image)[0]) > 0.95
    assert fingerprint(small_model.extractor.model) == exact.identity["model"]


HEADS: dict[str, Callable[[int], nn.Module]] = {
    "netvlad": partial(NetVLAD, clusters=4),
    "mixvpr": partial(MixVPR, map_size=[4, 5], resize=True, dim_channels=8, rows=2, depth=1),
    "boq": partial(BoQ, dim_channels=64, queries=4, blocks=1, rows=2),
    "salad": partial(SALAD, clusters=9, cluster_dim=4, token_dim=5),
    "regional_gem": RegionalGeM,
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_of_images_of_any_shape(name: str, tmp_path: Path) -> None:
    """SALAD over a transformer, for its class token; it counts cells and compares them with its clusters."""
    options: dict[str, object] = {"dynamic_img_size": True, "depth": 3}
    if name == "salad":
        backbone = Backbone("test_vit", False, depths=(1, 2), options=options, final_norm=True)
    else:
        backbone = Backbone("resnet10t", False, reductions=(8, 16))
    network = GlobalDescriptor(backbone, HEADS[name], dim=None).eval()
    assert write_onnx(network, tmp_path / "a.onnx") <= 1e-4
    session = Session(tmp_path / "a.onnx")
    images = torch.randint(0, 256, (2, 3, 97, 131)).float()
    with torch.no_grad():
        expected = network(backbone.normalise(images))
    np.testing.assert_allclose(session(images.numpy()), F.normalize(expected).numpy(), atol=1e-4)


def test_networks_that_cannot_be_exported_are_refused() -> None:
    with pytest.raises(UserError, match="MixVPR"):
        check_exportable(GlobalDescriptor(Backbone("resnet18.tv_in1k", pretrained=False), MixVPR, dim=None))
    with pytest.raises(UserError, match="R-MAC"):
        check_exportable(GlobalDescriptor(Backbone("resnet18.tv_in1k", pretrained=False), RMAC, dim=4))
    options = {"strict_img_size": False}
    swin = Backbone("swin_tiny_patch4_window7_224.ms_in1k", pretrained=False, options=options)
    with pytest.raises(UserError, match="swin_tiny"):
        check_exportable(GlobalDescriptor(swin, dim=4))


def test_a_file_from_another_project_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"a\.onnx"):
        Session(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda graph: setattr(graph.graph.input[0], "name", "x"), "not written by"),
        (lambda graph: graph.graph.output.append(graph.graph.output[0]), "cannot be run|not written by"),
        (lambda graph: set_about(graph, "dim", "eight"), "not written by"),
        (lambda graph: set_about(graph, "dim", "9"), "descriptors of 9 values"),
        (lambda graph: graph.ClearField("metadata_props"), "not written by"),
    ],
)
def test_a_forged_file_is_refused_in_one_line(
    folder: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], object], said: str
) -> None:
    graph = onnx.load(folder / "model.onnx")
    change(graph)
    for node in graph.graph.node:
        node.input[:] = [graph.graph.input[0].name if name == INPUT else name for name in node.input]
    onnx.save(graph, tmp_path / "a.onnx")
    with pytest.raises(UserError, match=said):
        Session(tmp_path / "a.onnx")(np.zeros((1, 3, 64, 64), np.float32))


def set_about(graph: onnx.ModelProto, key: str, value: str) -> None:
    for entry in graph.metadata_props:
        entry.value = value if entry.key == key else entry.value


def test_unsupported_images_are_refused_in_one_line(session: Session) -> None:
    with pytest.raises(UserError, match="cannot describe"):
        session(np.zeros((1, 4, 64, 64), np.float32))
