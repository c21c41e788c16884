"""Estimate what an evaluation still has to describe: number of images, time, and space on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dolglab.contracts import Benchmark
from dolglab.errors import UserError
from dolglab.evaluation.evaluator import Evaluator
from dolglab.extraction.descriptor_store import ABOUT
from dolglab.extraction.extract import extract

# The number of images that are tried if the time per image is not known.
TRIED = 8


@dataclass(frozen=True)
class Work:
    """Features of a set of images: how many are needed, how many exist, and the cost of one.

    `tried` says whether `seconds` and `bytes` per image were measured on a few images now, rather than when earlier
    images were described.
    """

    folder: Path
    images: int
    described: int
    seconds: float
    bytes: float
    tried: bool

    @property
    def todo(self) -> int:
        """Images that are still to be described."""
        return self.images - self.described

    def line(self) -> str:
        """The work as one line of text."""
        how = f"{1000 * self.seconds:.3g} ms an image{f' (of {TRIED} that were tried)' if self.tried else ''}"
        cost = f": {_cost([self])}, {how}" if self.todo else ""
        return f"{self.folder.name}: {self.images:,} images, {self.described:,} described{cost}"


def plan(evaluator: Evaluator, benchmark: Benchmark) -> list[Work]:
    """What `evaluator.run(benchmark)` has to describe. Raises UserError like `run`, and for several processes.

    If no image was described before, a few are described in a temporary folder. Images that another benchmark's folder
    already has are counted as work: that they are the same is only known when they are read.
    """
    if evaluator.extractor.trainer.world_size > 1:
        raise UserError("plan=true tries images in one process: set trainer.devices=1, and divide the hours")
    works = []
    with tempfile.TemporaryDirectory() as folder:
        trial = replace(evaluator, extractor=replace(evaluator.extractor, store=Path(folder)))
        pairs = zip(evaluator.targets(benchmark), trial.targets(benchmark), strict=True)
        for (images, target), (_, tried) in pairs:
            todo = target.missing() if (target.folder / ABOUT).exists() else target.wanted
            known = target.seconds_per_image() > 0
            if not known and len(todo):
                tried.wanted = todo[np.linspace(0, len(todo) - 1, min(TRIED, len(todo))).astype(np.int64)]
                extract(evaluator.extractor.trainer, images, tried, evaluator.extractor.images)
            source = target if known else tried
            cost = (source.seconds_per_image(), source.bytes_per_image()) if known or len(todo) else (0.0, 0.0)
            wanted = len(target.wanted)
            works.append(Work(target.folder, wanted, wanted - len(todo), *cost, tried=not known))
    return works


def total(works: Iterable[Work]) -> str:
    """The total work, as one line of text; folders that several evaluations share count once."""
    distinct = list({work.folder: work for work in works}.values())
    return f"in all {sum(work.todo for work in distinct):,} images to describe: {_cost(distinct)}"


def _cost(works: list[Work]) -> str:
    hours = sum(work.todo * work.seconds for work in works) / 3600
    return f"{hours:.2g} hours, {sum(work.todo * work.bytes for work in works) / 1e9:.2g} GB"
