"""How descriptors become rankings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from src.contracts import Benchmark, InputError, Reranker
from src.retrieval.aggregate.asmk import ASMK
from src.retrieval.index import FlatIndex, Index
from src.retrieval.post.whitening import Whitening

# How many of a query's answers are kept, for pictures and files.
KEPT = 100


@runtime_checkable
class Post(Protocol):
    """Descriptors to other descriptors: gallery (N, D), queries (Q, D), and which of the gallery's there are, (N,)."""

    def __call__(
        self, gallery: NDArray[np.float32], queries: NDArray[np.float32], known: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...

    def describe(self) -> dict[str, object]:
        """What a result card says of it."""
        ...


@dataclass(frozen=True)
class Method:
    """What happens between descriptors and figures.

    Args:
        index: makes the gallery's index; an approximate one gives a lower bound of the mAP.
        post: what is done to the descriptors before, in this order.
        rerank: orders each query's first answers anew.
        aggregate: ranks by aggregated local features, instead of by descriptors.
        oracle: a re-ranker gets the first answers that are not junk by the ground truth, as published tables have it.

    Raises:
        InputError: parts that do not go together.
    """

    index: Callable[[], Index] = FlatIndex
    post: Mapping[str, Post] = field(default_factory=dict)
    rerank: Reranker | None = None
    aggregate: ASMK | None = None
    oracle: bool = False

    def __post_init__(self) -> None:
        if self.oracle and self.rerank is None:
            raise InputError("oracle=true is about a re-ranker's answers: give rerank=NAME too")
        if self.aggregate is None:
            return
        if self.post or not self.index().exact:
            raise InputError("aggregate=asmk ranks by local features: post=... and index=... are about descriptors")
        if self.rerank is not None and not self.rerank.local:
            raise InputError("aggregate=asmk has no descriptors to re-rank with: take rerank=spatial, or none")

    @property
    def local(self) -> bool:
        """Whether it asks for local features."""
        return self.aggregate is not None or (self.rerank is not None and self.rerank.local)

    def save(self, folder: Path) -> None:
        """Keep whitening matrices and codebook, learned or given, as `NAME.safetensors` for other evaluations."""
        for name, step in self.post.items():
            if isinstance(step, Whitening):
                step.save(folder / f"{name}.safetensors")
        if self.aggregate is not None:
            self.aggregate.save(folder / "codebook.safetensors")

    def kept(self, benchmark: Benchmark) -> int:
        """How many first answers of each query must be known one by one."""
        depth = self.rerank.depth if self.rerank else 0
        if self.oracle:
            truth = benchmark.ground_truth
            parts = zip(truth.easy, truth.hard, truth.junk, strict=True)
            depth += max((len(easy) + len(hard) + len(junk) for easy, hard, junk in parts), default=0)
        return min(benchmark.num_gallery, max(KEPT, depth))
