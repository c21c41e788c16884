"""The network of an adapted library as an exported folder: equal descriptors with torch and ONNX."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

import dolglab
from dolglab.errors import UserError
from dolglab.library.library import Library
from dolglab.library.search_engine import SearchEngine
from dolglab.models.checkpoint import load_model
from dolglab.models.dolg import AdaptedDescriptor
from dolglab.retrieval.adapter import Adapter
from dolglab.sharing.export import export
from dolglab.sharing.loading import load_extractor
from photo_library.made import unit

pytestmark = pytest.mark.slow


def adapted_library(source: str, out: Path, scales: tuple[float, ...] = (1.0,)) -> str:
    """A library of that network without photos, adapted to six values."""
    with closing(Library.open(out, load_extractor(source, scales, max_side=64).identity)) as library:
        bias = unit(1, 6)[0] / 10
        adapter = Adapter(unit(6, library.identity["dim"]), bias, library.identity["model"], {"kind": "made up"})
        with library.writing():
            library.adapt(adapter)
    return str(out)


def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*side, 3), np.uint8) for side in ((64, 48), (51, 64), (64, 64))]


@pytest.mark.parametrize(
    ("kind", "backends"),
    [("checkpoint", ("torch", "onnx")), ("exported", ("torch",)), ("efficientnet_lite0", ("torch",))],
)
def test_an_export_gives_the_descriptors_of_the_library(
    kind: str, backends: tuple[str, ...], checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    source = {"checkpoint": str(checkpoint), "exported": str(folder)}.get(kind, kind)
    library = adapted_library(source, tmp_path / "library")
    expected = SearchEngine(library).loaded.describe(pictures())
    assert expected.shape == (3, 6)
    out = export(str(tmp_path / "model"), library=library, onnx="onnx" in backends)
    for backend in backends:
        loaded = load_extractor(str(out), backend=backend)
        assert loaded.identity["max_side"] == 64
        np.testing.assert_allclose(loaded.describe(pictures()), expected, atol=1e-4)
    assert dolglab.load(out).dim == 6
    card = (out / "README.md").read_text()
    assert "adapter" in card
    network, _ = load_model(out)
    assert isinstance(network, AdaptedDescriptor)
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(network.local_maps(x).scores, network.network.local_maps(x).scores)


def test_an_adapted_export_is_adapted_and_exported_once_more(checkpoint: Path, tmp_path: Path) -> None:
    first = export(str(tmp_path / "first"), library=adapted_library(str(checkpoint), tmp_path / "a"))
    library = adapted_library(str(first), tmp_path / "b")
    again = export(str(tmp_path / "again"), library=library)
    expected = SearchEngine(library).loaded.describe(pictures())
    np.testing.assert_allclose(load_extractor(str(again)).describe(pictures()), expected, atol=1e-4)


def test_a_library_that_is_not_adapted_gives_its_network(checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_extractor(str(checkpoint), max_side=64)
    Library.open(tmp_path / "library", loaded.identity).close()
    out = export(str(tmp_path / "model"), library=str(tmp_path / "library"))
    assert load_extractor(str(out)).identity["model"] == loaded.identity["model"]


def test_several_scales_and_several_sources_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    library = adapted_library(str(checkpoint), tmp_path / "library", (0.7071, 1.0))
    with pytest.raises(UserError, match="several scales"):
        export(str(tmp_path / "model"), library=library)
    with pytest.raises(UserError, match="exactly one of"):
        export(str(tmp_path / "model"), library=library, checkpoint=str(checkpoint))
    assert not (tmp_path / "model").exists()
