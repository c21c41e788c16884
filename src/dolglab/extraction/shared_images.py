"""Reuse the features of images that were described for another benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dolglab.contracts import IMAGE_KEY, IntArray
from dolglab.data.datasets import BenchmarkImages
from dolglab.errors import UserError
from dolglab.extraction.descriptor_store import ABOUT, KEYS, FeatureTarget

# The number of threads that read files, and the number of files at a time.
THREADS, BATCH = 8, 4096


def adopt_shared(target: FeatureTarget, images: BenchmarkImages) -> int:
    """Copy features that `target` is missing from neighbouring folders; returns the number of images.

    Images are the same if their files have the same bytes and they are cropped alike, whatever their names and folders.
    Only files with a size that occurs there are read. The time recorded for these images is copied too. Called only in
    the main process, after `target.create`.
    """
    adopted = 0
    # Sizes of the missing images' files, and their keys as far as they were needed.
    sizes: IntArray | None = None
    keys = np.zeros(target.images, IMAGE_KEY)
    for folder in _alike(target):
        try:
            known: np.ndarray = np.load(folder / KEYS, allow_pickle=False).astype(IMAGE_KEY, casting="no")
            known[~target.available_in(folder)] = 0
            described, seconds = target.time_spent(folder)
        except (OSError, ValueError, TypeError, IndexError, UserError):
            # From an earlier version, damaged, or just being written: the images are described instead.
            continue
        missing = target.missing()
        if sizes is None:
            sizes = np.zeros(target.images, np.int64)
            sizes[missing] = [images.source.size(position) for position in missing.tolist()]
        candidates = missing[(sizes[missing] > 0) & np.isin(sizes[missing], known["bytes"])]
        hashes, first = np.unique(known["hash"], return_index=True)
        for start in range(0, len(candidates), BATCH):
            positions = candidates[start : start + BATCH]
            unread = positions[keys["bytes"][positions] == 0]
            keys[unread] = _keys(images, unread)
            rows = first[np.minimum(np.searchsorted(hashes, keys["hash"][positions]), len(hashes) - 1)]
            same = (known[rows] == keys[positions]) & (keys["bytes"][positions] > 0)
            target.adopt(folder, rows[same], positions[same])
            target.keys[positions[same]] = known[rows[same]]
            if described and same.any():
                target.record_time(int(same.sum()), same.sum() * seconds / described)
            adopted += int(same.sum())
    return adopted


def _alike(target: FeatureTarget) -> Iterator[Path]:
    """The neighbouring folders with features computed like the target's, of other sets of images."""
    for file in sorted(target.folder.parent.glob(f"*/{ABOUT}")):
        if file.parent != target.folder:
            try:
                alike = target.like(json.loads(file.read_text(encoding="utf-8")))
            except (OSError, ValueError, AttributeError):
                continue
            if alike:
                yield file.parent


def _keys(images: BenchmarkImages, positions: IntArray) -> np.ndarray:
    """The keys of images, (n,); zeros for images that cannot be read."""

    def key(position: int) -> tuple[int, int]:
        try:
            return images.key(position, images.source.read(position))
        except OSError:
            return 0, 0

    with ThreadPoolExecutor(THREADS) as pool:
        return np.array(list(pool.map(key, positions.tolist())), IMAGE_KEY)
