"""What runs a network: torch, or onnxruntime with a file that stands for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch

from src.contracts import InputError
from src.extraction.extractor import Extractor
from src.extraction.folding import for_inference
from src.extraction.onnx_extractor import OnnxExtractor, Session
from src.extraction.store import fingerprint
from src.sharing.named import Named
from src.sharing.onnx_file import FILE, INSIDE, write_onnx

Backend = Literal["torch", "onnx"]
# Counts up when a graph is made otherwise.
CACHED = 1


def make_extractor(found: Named, scales: Sequence[float], backend: str = "torch") -> Extractor:
    """An extractor of a network that was named.

    With "onnx" it runs the exported folder's own file where that is of this network, and otherwise one that is made
    once for each network and kept in the user's cache; both give torch's descriptors within 1e-4.
    torch takes a GPU where there is one (not run on one yet), onnxruntime the CPU.
    Raises InputError for another backend, and as `write_onnx`.
    """
    if found.onnx is not None:
        return OnnxExtractor(found.network, Session(found.onnx), scales)
    if backend not in get_args(Backend):
        raise InputError(f"--backend is {' or '.join(get_args(Backend))}, not {backend}")
    if backend == "torch":
        return Extractor(for_inference(found.network.to(_device())), scales)
    return OnnxExtractor(found.network, _session(found), scales)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _session(found: Named) -> Session:
    made_by = fingerprint(found.network)
    if found.folder is not None and (found.folder / FILE).is_file():
        session = Session(found.folder / FILE)
        if session.about["fingerprint"] == made_by and session.about["normalisation"] == INSIDE:
            return session
    path = _cache() / f"{made_by}-{CACHED}.onnx"
    if not path.is_file():
        print("the network is exported to ONNX, once")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_onnx(found.network, path)
    return Session(path)


def _cache() -> Path:
    try:
        from platformdirs import user_cache_path
    except ModuleNotFoundError:
        raise InputError("--backend onnx wants platformdirs: pip install -e '.[onnx]'") from None
    return user_cache_path("dolg-lab") / "onnx"
