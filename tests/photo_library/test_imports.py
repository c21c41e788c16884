"""Modules that commands import: nothing heavy before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from dolglab.library.ingest import embed
from dolglab.library.library import Library
from dolglab.library.listing import find_photos
from dolglab.library.local_engine import describe_files
from dolglab.retrieval.adapter import Adapter
from dolglab.sharing.loading import LoadedExtractor
from photo_library.made import unit

pytestmark = pytest.mark.process

SRC = Path(__file__).resolve().parents[2] / "src"
HEAVY = {"lightning", "matplotlib", "pandas", "scipy", "timm", "torch", "torchvision", "transformers", "wandb"}
# Runs a command in this process, and prints the imported modules.
RUN = """
import atexit, json, runpy, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
sys.argv = ["dolglab", *sys.argv[1:]]
runpy.run_module("dolglab", run_name="__main__")
"""


@pytest.fixture
def library(loaded: LoadedExtractor, folder: Path, tmp_path: Path) -> str:
    """The folder's photos, described."""
    opened = Library.open(tmp_path / "library", loaded.identity)
    embed(opened, describe_files(loaded, find_photos([str(folder)])))
    return str(opened.folder)


def modules(*command: str) -> tuple[int, str, set[str]]:
    """The exit code, the output, and the modules imported at the end."""
    done = subprocess.run([sys.executable, "-c", RUN, *command], cwd=SRC, capture_output=True, text=True, check=False)
    *said, loaded = done.stderr.splitlines()
    return done.returncode, "\n".join([done.stdout, *said]), set(json.loads(loaded))


@pytest.mark.parametrize(
    "command",
    [
        ("search", "gone.jpg", "--library", "gone"),
        ("serve", "--library", "gone"),
        ("embed", "gone", "--library", "gone"),
        ("library", "info", "--library", "gone"),
        ("library", "remove", "a.jpg", "--library", "gone"),
        ("library", "duplicates", "--library", "gone", "--out", "gone.csv"),
        ("library", "adapt", "--column", "landmark", "--library", "gone"),
    ],
)
def test_a_missing_path_is_reported_before_anything_heavy_is_imported(command: tuple[str, ...]) -> None:
    code, said, loaded = modules(*command)
    assert code == 2
    assert "gone" in said
    assert not loaded & (HEAVY | {"cv2", "faiss", "onnxruntime"})


def test_a_search_by_onnx_loads_what_it_uses(library: str, folder: Path) -> None:
    code, said, loaded = modules("search", str(folder / "a" / "0.jpg"), "--library", library, "--rerank", "spatial")
    assert code == 0
    assert "0.jpg" in said
    assert "onnxruntime" in loaded
    assert not loaded & HEAVY


def test_a_search_of_an_adapted_library_loads_no_more(library: str, loaded: LoadedExtractor, folder: Path) -> None:
    adapter = Adapter(unit(8, loaded.identity["dim"]), np.zeros(8, np.float32), loaded.identity["model"])
    with closing(Library(library)) as opened, opened.writing():
        opened.adapt(adapter)
    code, said, modules_loaded = modules("search", str(folder / "a" / "0.jpg"), "--library", library)
    assert code == 0
    assert "0.jpg" in said
    assert "onnxruntime" in modules_loaded
    assert not modules_loaded & HEAVY


def test_a_missing_query_is_reported_before_the_network_is_loaded(library: str) -> None:
    code, said, loaded = modules("search", "gone.jpg", "--library", library)
    assert code == 2
    assert "gone.jpg" in said
    assert not loaded & (HEAVY | {"onnxruntime"})
