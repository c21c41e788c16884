"""Inner products of queries with a gallery that is read in parts, the same whatever computes them."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Float64
from numpy.typing import NDArray
from torch import Tensor

from dolglab.concurrency import prefetch_map
from dolglab.errors import UserError

Part = TypeVar("Part")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Part], Result], parts: Iterable[Part]) -> Generator[Result]:
    """The results of the parts in their order, of which few are there at a time.

    Small products and element by element work leave most cores idle when one call after another is spread over them;
    here each thread computes its own part by itself.
    """
    threads = torch.get_num_threads()
    try:
        with closing(prefetch_map(work, parts, threads, threads + 1, partial(torch.set_num_threads, 1))) as pairs:
            for _, result in pairs:
                yield result
    finally:
        # MKL knows one number for all threads.
        torch.set_num_threads(threads)


# Gallery values in work at a time: 2 MB stay near a processor core.
VALUES = 2**18


class InnerProducts:
    """Inner products with the rows of a gallery, without rounding until they are made float32.

    A BLAS adds in an order that depends on where a row stands and on the number of threads (of MKL's AVX2 kernels, two
    equal columns of one product differ), so that equal descriptors would not tie. Here values are first rounded to
    `on_grid`, where float64 holds every sum of products and any order of adding gives the same: scores depend on the
    two descriptors, and on nothing else.

    Args:
        gallery: (N, D), any floating type; of a memory-mapped file, pages are held for as long as they are read.
    """

    def __init__(self, gallery: NDArray[np.floating]) -> None:
        self.gallery = gallery
        self._mapping = mapping_of(gallery)

    def __call__(self, queries: Float64[Tensor, "q d"], positions: NDArray[np.int64]) -> Float32[Tensor, "q n"]:
        """Products of `on_grid` queries with the gallery's rows at n positions; several threads may ask at once.

        Raises UserError for a gallery row with NaN or infinity.
        """
        dim = self.gallery.shape[1]
        held = torch.empty((min(len(positions), max(1, VALUES // dim)), dim), dtype=torch.float64)
        products = torch.empty(len(queries), len(positions))
        for start in range(0, len(positions), max(1, len(held))):
            rows = self._load(positions[start : start + len(held)], held)
            products[:, start : start + len(rows)] = queries @ rows.T
        # One value that is not finite leaves no finite product, and no finite sum.
        if not torch.isfinite(products.sum()):
            raise UserError("a gallery descriptor is not finite: the network gave NaN or infinity")
        return products

    def _load(self, positions: NDArray[np.int64], held: Float64[Tensor, "m d"]) -> Float64[Tensor, "n d"]:
        rows = held[: len(positions)]
        rows.numpy()[:] = rows_at(self.gallery, positions)
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_DONTNEED)
        return on_grid(rows)


def exact_queries(queries: NDArray[np.float32]) -> Float64[Tensor, "q d"]:
    """Queries as `InnerProducts` takes them. Raises UserError for NaN or infinite values."""
    if not np.isfinite(queries).all():
        raise UserError("a query descriptor is not finite: the network gave NaN or infinity")
    return on_grid(torch.from_numpy(queries.astype(np.float64)))


def on_grid(rows: Float64[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
    """Round rows, in place, so that no sum of products of two of them rounds.

    Each becomes multiples of a power of two, its own step, of which its length is less than 2^27 / 1.5: so the products
    of two rows are multiples of both steps, and by Cauchy and Schwarz no sum of them exceeds 2^53. Of an L2-normalised
    row the step is 2^-26, and a cosine moves by less than in a product in float32.
    """
    # The factor keeps lengths of 1, give or take a rounding, away from where the step doubles.
    exponents = np.frexp(1.5 * torch.linalg.vector_norm(rows, dim=1).numpy())[1]
    # A float64 has 53 bits: beside this number there is no room for what is finer than the step.
    ballast = torch.from_numpy(np.ldexp(1.5, exponents + 25))[:, None]
    return rows.add_(ballast).sub_(ballast)


def rows_at(table: NDArray[np.floating], positions: NDArray[np.int64]) -> NDArray[np.floating]:
    """The rows at these positions, (n, D): without a copy where the positions are consecutive."""
    if len(positions) and (np.diff(positions) == 1).all():
        return table[positions[0] : positions[0] + len(positions)]
    return table[positions]


def mapping_of(array: NDArray[np.generic]) -> mmap.mmap | None:
    """The memory map that an array is a part of, if its pages can be let go of and read again."""
    base, mode = array, "c"
    while isinstance(base, np.ndarray):
        mode = base.mode if isinstance(base, np.memmap) else mode
        base = base.base
    # Of a copy on write ("c"), changed pages are nowhere else.
    return base if isinstance(base, mmap.mmap) and mode != "c" and hasattr(base, "madvise") else None
