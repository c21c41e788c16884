"""Decide by measurement whether onnxruntime runs a network instead of torch, and whether an export pays off."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from dolglab.contracts import FloatArray
from dolglab.data.colour import Pixels
from dolglab.errors import UserError, os_error_text
from dolglab.extraction.describer import ONNX_FILE, AdaptedDescriber, Describer, OnnxDescriber, Session
from dolglab.sharing.graph_cache import FASTER, KeptGraph
from dolglab.sharing.loading import LoadedExtractor, can_export, kept_graph, own_session, size_of

# Processor seconds of an export, and the share of torch's time that onnxruntime may save: it was a half for
# EfficientNet-Lite0 and a tenth for ResNet-50 (experiments/benchmarks/onnx_backend.py).
EXPORT_SECONDS, EXPECTED_SAVING = 15.0, 0.4
# Fewer photos never justify an export: the slowest networks take some seconds per photo.
LEAST_PHOTOS = 16
# Seconds for which each backend is tried, with at least one photo.
TRIAL_SECONDS = 0.5
# The smallest cosine between both descriptors of the same photo.
LEAST_COSINE = 0.9999


def choose_backend(loaded: LoadedExtractor, photos: int, sample: Callable[[], Pixels | None]) -> LoadedExtractor:
    """The same network, run by onnxruntime if that is faster for this many photos; prints the chosen backend.

    The speeds are measured once per network and size of photos, and stored beside its ONNX file. Without a file the
    network is exported if that pays off for this many photos. If anything fails, torch is used.

    Args:
        sample: returns one of the photos, or None if none can be read.
    """
    if loaded.loaded is None or not can_export():
        return loaded
    try:
        kept = kept_graph(loaded.identity["model"], loaded.identity["source"])
        size = size_of(loaded.identity["max_side"], loaded.identity["scales"])
        session = kept.session(1)
        speedup = kept.speedup(size) if session else None
        image = sample() if speedup is not None or photos >= LEAST_PHOTOS else None
        if image is None:
            return loaded
        seconds, expected = _try(loaded.describer, image, TRIAL_SECONDS if speedup is None else 0)
        session = session or _make(loaded, kept, photos * seconds)
        if session is None:
            return loaded
        describer: Describer = OnnxDescriber(session, loaded.identity["scales"])
        if loaded.adapter is not None:
            describer = AdaptedDescriber(describer, loaded.adapter)
        onnx_seconds, found = _try(describer, image, TRIAL_SECONDS if speedup is None else 0)
        cosine = float(found @ expected)
        if not cosine >= LEAST_COSINE:
            kept.remove()
            raise UserError(f"the ONNX file computes other descriptors, with a cosine of {cosine:.4f}")
        if speedup is None:
            speedup = seconds / onnx_seconds
            kept.note(size, speedup)
    except (UserError, OSError) as error:
        print(f"backend: torch, because {os_error_text(error) if isinstance(error, OSError) else error}")
        return loaded
    if speedup < FASTER:
        print(f"backend: torch; onnxruntime is {speedup:.2f} times as fast here")
        return loaded
    print(f"backend: onnxruntime, {speedup:.2f} times as fast as torch here")
    return replace(loaded, describer=describer, loaded=None)


def _make(loaded: LoadedExtractor, kept: KeptGraph, seconds: float) -> Session | None:
    """The network's ONNX file, exported if that pays off for photos that take torch this many seconds."""
    folder = Path(loaded.identity["source"])
    if own_session(folder, loaded.identity["model"], 1) is not None:
        kept.copy(folder / ONNX_FILE)
    elif seconds * EXPECTED_SAVING >= EXPORT_SECONDS:
        print("exporting the network to ONNX (only once)")
        kept.write(loaded.network())
    return kept.session(1)


def _try(describer: Describer, image: Pixels, seconds: float) -> tuple[float, FloatArray]:
    """The smallest processor time of a photo in one thread, in seconds, and its descriptor, (dim,)."""

    def measure() -> tuple[float, FloatArray]:
        least, spent = math.inf, 0.0
        while True:
            start = time.thread_time()
            (found,) = describer([image])
            took = time.thread_time() - start
            least, spent = min(least, took), spent + took
            if spent >= seconds:
                return least, found

    # Its threads end with it.
    with ThreadPoolExecutor(1, initializer=describer.share_cores) as pool:
        return pool.submit(measure).result()
