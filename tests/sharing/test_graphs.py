"""The packaged graph of a network, which has no weights, computes the network's descriptors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dolglab.errors import UserError
from dolglab.extraction import describer
from dolglab.extraction.describer import OnnxDescriber, TorchDescriber
from dolglab.extraction.descriptor_store import fingerprint
from dolglab.models.locate import locate
from dolglab.sharing import loading
from dolglab.sharing.loading import GRAPHS, load_extractor
from dolglab.sharing.networks import LITE0_WEIGHTS, load_network

SOURCE = "efficientnet_lite0"


def test_the_graph_gives_torchs_descriptors_under_the_same_identity() -> None:
    scales = (0.7071, 1.0)
    onnx, torch_ = (load_extractor(SOURCE, scales, backend=name) for name in ("onnx", "torch"))
    assert isinstance(onnx.describer, OnnxDescriber)
    assert onnx.identity == torch_.identity
    assert onnx.identity["model"] == fingerprint(load_network(SOURCE))
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (*side, 3), np.uint8) for side in ((64, 90), (201, 75), (64, 90))]
    np.testing.assert_allclose(onnx.describe(photos), torch_.describe(photos), atol=1e-4)


def test_the_graph_contains_no_weights() -> None:
    assert GRAPHS[SOURCE].stat().st_size < locate(LITE0_WEIGHTS).stat().st_size / 50


@pytest.mark.parametrize(("onnx", "gpu", "taken"), [(True, False, True), (True, True, False), (False, False, False)])
def test_the_graph_is_used_without_a_gpu_if_onnxruntime_is_installed(
    onnx: bool, gpu: bool, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(describer.importlib.util, "find_spec", lambda name: object() if onnx else None)
    monkeypatch.setattr(describer.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if gpu else None)
    assert describer.onnx_is_faster() is taken


def test_weights_of_another_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = locate(LITE0_WEIGHTS)
    other = bytearray(weights.read_bytes())
    other[-1] ^= 1
    (tmp_path / weights.name).write_bytes(other)
    monkeypatch.setattr(loading, "locate", lambda source: tmp_path / weights.name)
    with pytest.raises(UserError, match=weights.name):
        load_extractor(SOURCE, backend="onnx")
    (tmp_path / weights.name).write_bytes(b"short")
    with pytest.raises(UserError):
        load_extractor(SOURCE, backend="onnx")


def test_a_network_that_torch_runs_is_not_loaded_again_to_explain() -> None:
    loaded = load_extractor(SOURCE, backend="torch")
    assert isinstance(loaded.describer, TorchDescriber)
    assert loaded.extractor is loaded.describer.extractor
