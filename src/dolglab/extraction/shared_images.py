"""Features of images that were described for one benchmark serve every other that has the same images."""

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

# Files are read by so many threads, so many at a time.
THREADS, BATCH = 8, 4096


def adopt_shared(target: FeatureTarget, images: BenchmarkImages) -> int:
    """Take what `target` is missing from the folders beside its own; how many images that were.

    An image is the same where its file has the same bytes and it is cropped alike, whatever it is called and wherever
    it lies. Only files of a size that occurs there are read. What the images took there counts as taken here. Called in
    the main process alone, after `target.create`.
    """
    adopted = 0
    # Of the images that are missing: bytes on disk, and their keys as far as anything asked for them.
    sizes: IntArray | None = None
    keys = np.zeros(target.images, IMAGE_KEY)
    for folder in _alike(target):
        try:
            known: np.ndarray = np.load(folder / KEYS, allow_pickle=False).astype(IMAGE_KEY, casting="no")
            known[~target.available_in(folder)] = 0
            described, seconds = target.time_spent(folder)
        except (OSError, ValueError, TypeError, IndexError, UserError):
            # Of an earlier version, damaged, or being made just now: the images are described instead.
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
    """The folders beside the target's that hold features made as its own, of other sets of images."""
    for file in sorted(target.folder.parent.glob(f"*/{ABOUT}")):
        if file.parent != target.folder:
            try:
                alike = target.like(json.loads(file.read_text(encoding="utf-8")))
            except (OSError, ValueError, AttributeError):
                continue
            if alike:
                yield file.parent


def _keys(images: BenchmarkImages, positions: IntArray) -> np.ndarray:
    """The keys of some images, (n,); zeros of those that cannot be read."""

    def key(position: int) -> tuple[int, int]:
        try:
            return images.key(position, images.source.read(position))
        except OSError:
            return 0, 0

    with ThreadPoolExecutor(THREADS) as pool:
        return np.array(list(pool.map(key, positions.tolist())), IMAGE_KEY)
