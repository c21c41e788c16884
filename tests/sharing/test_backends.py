"""Choosing a backend: cached ONNX files, and removal of invalid ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from dolglab.extraction.describer import OnnxDescriber, TorchDescriber
from dolglab.models.backbone import Backbone
from dolglab.models.checkpoint import RUN_KEY, describe_run
from dolglab.models.dolg import GlobalDescriptor
from dolglab.models.pooling import RMAC
from dolglab.sharing.backends import choose_backend
from dolglab.sharing.graph_cache import KeptGraph
from dolglab.sharing.loading import LoadedExtractor, kept_graph, load_extractor, size_of
from training.test_checkpoints import DATA

pytestmark = pytest.mark.slow

SIZE = size_of(1024, [1.0])
IMAGE = np.random.default_rng(0).integers(0, 256, (70, 91, 3), np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def by_torch(folder: Path) -> LoadedExtractor:
    return load_extractor(str(folder), backend="torch")


@pytest.fixture
def kept(by_torch: LoadedExtractor, folder: Path) -> KeptGraph:
    """The network's file in the cache."""
    kept = kept_graph(by_torch.identity["model"], by_torch.identity["source"])
    kept.copy(folder / "model.onnx")
    return kept


def chosen(loaded: LoadedExtractor, photos: int = 100) -> LoadedExtractor:
    return choose_backend(loaded, photos, lambda: IMAGE)


def test_an_exported_folders_file_is_measured_once_and_kept(by_torch: LoadedExtractor) -> None:
    found = chosen(by_torch)
    assert found.identity == by_torch.identity
    np.testing.assert_allclose(found.describe([IMAGE]), by_torch.describe([IMAGE]), atol=1e-4)
    speedup = kept_graph(by_torch.identity["model"], by_torch.identity["source"]).speedup(SIZE)
    assert speedup is not None
    assert speedup > 0
    chosen(by_torch)
    assert kept_graph(by_torch.identity["model"], by_torch.identity["source"]).speedup(SIZE) == speedup


@pytest.mark.parametrize(("speedup", "onnx"), [(3.0, True), (0.5, False)])
def test_the_faster_backend_is_used_with_and_without_torch(
    by_torch: LoadedExtractor, kept: KeptGraph, folder: Path, speedup: float, onnx: bool
) -> None:
    kept.note(SIZE, speedup)
    kind = OnnxDescriber if onnx else TorchDescriber
    assert isinstance(chosen(by_torch, photos=1).describer, kind)
    found = load_extractor(str(folder), max_side=by_torch.identity["max_side"], fingerprint=by_torch.identity["model"])
    assert isinstance(found.describer, kind)
    assert found.identity == by_torch.identity
    other_size = load_extractor(str(folder), max_side=96, fingerprint=by_torch.identity["model"])
    assert isinstance(other_size.describer, TorchDescriber)


def test_a_few_photos_and_none_that_can_be_read_are_described_by_torch(by_torch: LoadedExtractor, cache: Path) -> None:
    assert chosen(by_torch, photos=3) is by_torch
    assert choose_backend(by_torch, 1000, lambda: None) is by_torch
    assert not cache.exists()


def test_a_network_is_not_exported_if_torch_takes_less_time(by_torch: LoadedExtractor, cache: Path) -> None:
    elsewhere = replace(by_torch, identity=by_torch.identity | {"source": "gone"})
    assert chosen(elsewhere) is elsewhere
    assert not cache.exists()


def test_a_network_that_cannot_be_exported_is_run_by_torch(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = GlobalDescriptor(Backbone("resnet18.tv_in1k", pretrained=False), RMAC, dim=4)
    model = {
        "_target_": "src.models.dolg.GlobalDescriptor",
        "backbone": {"_target_": "src.models.backbone.Backbone", "name": "resnet18.tv_in1k"},
        "pooling": {"_target_": "src.models.pooling.RMAC", "_partial_": True},
        "dim": 4,
    }
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state, RUN_KEY: describe_run({"model": model}, ["a"], DATA)}, tmp_path / "a.ckpt")
    loaded = load_extractor(str(tmp_path / "a.ckpt"))
    assert chosen(loaded, 10**9) is loaded
    assert "R-MAC" in capsys.readouterr().out
    assert not list(cache.rglob("*.onnx"))


def test_a_file_of_another_network_is_removed(kept: KeptGraph, folder: Path) -> None:
    kept.copy(folder / "model.int8.onnx")
    assert kept.session(1) is None
    assert not kept.path.exists()


def test_a_file_belongs_to_a_network_and_its_address(kept: KeptGraph, by_torch: LoadedExtractor, folder: Path) -> None:
    kept.note(SIZE, 3.0)
    # Networks with the same weights may have different structures.
    elsewhere = kept_graph(by_torch.identity["model"], "hf://another/network")
    assert elsewhere.session(1) is None
    assert elsewhere.speedup(SIZE) is None
    assert kept_graph(by_torch.identity["model"], str(folder / ".." / folder.name)).speedup(SIZE) == 3.0


def test_a_speed_is_of_the_machine_where_it_was_measured(kept: KeptGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.note(SIZE, 3.0)
    monkeypatch.setattr("platform.node", lambda: "another")
    assert kept.speedup(SIZE) is None
    kept.note(SIZE, 0.5)
    monkeypatch.undo()
    assert kept.speedup(SIZE) == 3.0


def test_a_file_with_other_descriptors_is_not_used(
    by_torch: LoadedExtractor, kept: KeptGraph, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = onnx.load(folder / "model.onnx")
    for tensor in graph.graph.initializer:
        if len(tensor.dims) == 2:
            tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor)[::-1], tensor.name))
    onnx.save(graph, tmp_path / "other.onnx")
    kept.copy(tmp_path / "other.onnx")
    kept.note(SIZE, 3.0)
    assert chosen(by_torch) is by_torch
    assert "cosine" in capsys.readouterr().out
    assert not kept.path.exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"versions": 1}', "null", "\xff"])
def test_a_damaged_record_is_reported_and_removed(
    kept: KeptGraph, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.path.with_suffix(".json").write_bytes(text.encode("latin1"))
    assert kept.speedup(SIZE) is None
    assert kept.session(1) is None
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(kept.path.parent.iterdir())


def test_damaged_and_outdated_files_are_reported_and_removed(
    kept: KeptGraph, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kept.session(1) is not None
    data = bytearray(kept.path.read_bytes())
    data[len(data) // 2] ^= 1
    kept.path.write_bytes(data)
    assert kept.session(1) is None
    assert not kept.path.exists()
    kept.copy(folder / "model.onnx")
    record = kept.path.with_suffix(".json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"versions": "another"}))
    assert kept.session(1) is None
    assert not kept.path.exists()
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_without_a_writable_cache_torch_is_used(by_torch: LoadedExtractor, cache: Path) -> None:
    cache.write_text("a file")
    assert chosen(by_torch) is by_torch
