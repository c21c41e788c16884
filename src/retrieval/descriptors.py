"""What metrics of rankings have in common: descriptors that arrive in any order, from any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from src.contracts import InputError
from src.retrieval.index import FlatIndex

# Queries ranked at a time.
QUERIES_AT_ONCE = 256

# Some queries (rows of `queries`), and for each the gallery positions found, best first, and their cosines.
Found = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


class DescriptorMetric(Metric):
    """Collects a benchmark's descriptors and ranks its gallery; what a ranking is worth is for `compute` to say.

    Positions are those of the benchmark's images: the first `num_gallery` are the gallery, `queries` are the
    positions of the queries. A position that comes again (a sampler's padding) counts once.

    Args:
        num_gallery: images in the gallery.
        queries: (Q,) positions of the query images.
        dim: length of the descriptors.
        index: builds an empty index with `build` and `search`.
        top: how many of each query's answers `compute` keeps.

    `compute()` leaves the heads of the rankings in `ranks`, (Q, top), -1 where there is no further image.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    descriptors: list[Tensor]
    positions: list[Tensor]
    skipped: list[Tensor]

    def __init__(
        self,
        num_gallery: int,
        queries: NDArray[np.int64],
        dim: int,
        index: Callable[[], FlatIndex] = FlatIndex,
        top: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_gallery = num_gallery
        self.queries = queries
        self.dim = dim
        self.index = index
        self.top = min(top, num_gallery)
        self.ranks = np.empty((0, 0), np.int64)
        self.add_state("descriptors", default=[], dist_reduce_fx="cat")
        self.add_state("positions", default=[], dist_reduce_fx="cat")
        self.add_state("skipped", default=[], dist_reduce_fx="cat")
        self._start_lists()

    def reset(self) -> None:
        """Forget every descriptor."""
        super().reset()
        self._start_lists()

    def _start_lists(self) -> None:
        """A process that no image fell to still takes part in the gathering, with lists of the right shape."""
        self.descriptors.append(torch.empty(0, self.dim, device=self.device))
        self.positions.append(torch.empty(0, dtype=torch.int64, device=self.device))
        self.skipped.append(torch.empty(0, dtype=torch.int64, device=self.device))

    def update(self, descriptors: Float[Tensor, "b d"], positions: Int[Tensor, " b"]) -> None:
        """Take a batch of descriptors and their positions in the benchmark's image list."""
        self.descriptors.append(descriptors.detach().float())
        self.positions.append(positions)

    def skip(self, positions: Int[Tensor, " b"]) -> None:
        """Take note of images that could not be read."""
        self.skipped.append(positions)

    def rankings(self, most: int | None = None) -> Iterator[Found]:
        """The first `most` gallery images of every query that could be read, and `ranks` on the way.

        Queries are ranked in chunks, so that memory grows with the gallery and not with its square.
        Raises InputError when images are missing.
        """
        table, known = self._table()
        gallery = np.flatnonzero(known[: self.num_gallery])
        asked = np.flatnonzero(known[self.queries])
        index = self.index()
        # The gallery stands first in the table: where all of it is known, no copy is made.
        index.build(table[: self.num_gallery] if len(gallery) == self.num_gallery else table[gallery])
        self.ranks = np.full((len(self.queries), self.top), -1, np.int64)
        for start in range(0, len(asked), QUERIES_AT_ONCE):
            chunk = asked[start : start + QUERIES_AT_ONCE]
            scores, found = index.search(table[self.queries[chunk]], min(most or len(gallery), len(gallery)))
            ranked = gallery[found]
            head = ranked[:, : self.top]
            self.ranks[chunk, : head.shape[1]] = head
            yield chunk, ranked, scores

    def _table(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Descriptors by position, (images, D), and which of them there are."""
        size = max(self.num_gallery, int(self.queries.max()) + 1)
        positions = _cat(self.positions).cpu().numpy()
        missing = np.setdiff1d(np.arange(size), np.concatenate([positions, _cat(self.skipped).cpu().numpy()]))
        if len(missing):
            raise InputError(f"{len(missing)} of {size} images have no descriptor (first: position {missing[0]})")
        if not len(positions):
            raise InputError(f"none of the {size} images could be read")
        descriptors = _cat(self.descriptors).cpu().numpy()
        table = np.zeros((size, descriptors.shape[1]), np.float32)
        table[positions] = descriptors
        known = np.zeros(size, np.bool_)
        known[positions] = True
        return table, known


def _cat(state: list[Tensor] | Tensor) -> Tensor:
    """A list state is already one tensor after it was gathered from several processes."""
    return state if isinstance(state, Tensor) else torch.cat(state)
