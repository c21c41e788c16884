"""Inner products of queries with a gallery that is read in parts, the same whatever computes them.

torch, whose products these are, is imported only where one is made.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from functools import partial
from typing import TypeVar

import numpy as np
from jaxtyping import Float32, Float64
from numpy.typing import NDArray

from dolglab.concurrency import prefetch_map
from dolglab.contracts import FloatArray, IntArray
from dolglab.errors import UserError
from dolglab.retrieval.large_arrays import memory_map_of, take_rows

Part = TypeVar("Part")
Result = TypeVar("Result")

# Gallery values in work at a time: 2 MB stay near a processor core.
VALUES_AT_ONCE = 2**18


class InnerProducts:
    """Inner products with the rows of a gallery, without rounding until they are made float32.

    A BLAS adds in an order that depends on where a row stands and on the number of threads (of MKL's AVX2 kernels, two
    equal columns of one product differ), so that equal descriptors would not tie. Here values are first put on a grid
    (`round_to_grid`), where float64 holds every sum of products and any order of adding gives the same: scores depend
    on the two descriptors, and on nothing else.

    Args:
        gallery: (N, D), any floating type; of a memory-mapped file, pages are held for as long as they are read.
        values_at_once: gallery values that are read together.
    """

    def __init__(self, gallery: NDArray[np.floating], values_at_once: int = VALUES_AT_ONCE) -> None:
        self.gallery = gallery
        self.rows_at_once = max(1, values_at_once // max(1, gallery.shape[1]))
        self._mapping = memory_map_of(gallery)

    def __call__(self, queries: Float64[np.ndarray, "q d"], positions: IntArray) -> Float32[np.ndarray, "q n"]:
        """Products of `exact_queries` with the gallery's rows at n positions; several threads may ask at once.

        Raises UserError for a gallery row with NaN or infinity.
        """
        import torch

        asked = torch.from_numpy(queries)
        buffer = np.empty((min(len(positions), self.rows_at_once), queries.shape[1]))
        products = torch.empty(len(queries), len(positions))
        for start in range(0, len(positions), self.rows_at_once):
            part = positions[start : start + self.rows_at_once]
            rows = buffer[: len(part)]
            rows[:] = take_rows(self.gallery, part)
            if self._mapping is not None:
                self._mapping.madvise(mmap.MADV_DONTNEED)
            products[:, start : start + len(part)] = asked @ torch.from_numpy(round_to_grid(rows)).T
        # One value that is not finite leaves no finite product, and no finite sum.
        if not torch.isfinite(products.sum()):
            raise UserError("a gallery descriptor is not finite: the network gave NaN or infinity")
        return products.numpy()


def exact_queries(queries: FloatArray) -> Float64[np.ndarray, "q d"]:
    """Queries as `InnerProducts` takes them. Raises UserError for NaN or infinite values."""
    if not np.isfinite(queries).all():
        raise UserError("a query descriptor is not finite: the network gave NaN or infinity")
    return round_to_grid(queries.astype(np.float64))


def round_to_grid(rows: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """Round rows, in place, so that no sum of products of two of them rounds.

    Each becomes multiples of a power of two, its own step, of which its length is less than 2^27 / 1.5: so the products
    of two rows are multiples of both steps, and by Cauchy and Schwarz no sum of them exceeds 2^53. Of an L2-normalised
    row the step is 2^-26, and a cosine moves by less than in a product in float32.
    """
    import torch

    values = torch.from_numpy(rows)
    # The factor keeps lengths of 1, give or take a rounding, away from where the step doubles.
    exponents = np.frexp(1.5 * torch.linalg.vector_norm(values, dim=1).numpy())[1]
    # A float64 has 53 bits: beside this number there is no room for what is finer than the step.
    ballast = torch.from_numpy(np.ldexp(1.5, exponents + 25))[:, None]
    values.add_(ballast).sub_(ballast)
    return rows


def parallel_map(work: Callable[[Part], Result], parts: Iterable[Part]) -> Generator[Result]:
    """The results of the parts in their order, of which few are there at a time; torch has one thread for each.

    Small products and element by element work leave most cores idle when one call after another is spread over them;
    here each thread computes its own part by itself.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        results = prefetch_map(work, parts, threads, threads, partial(torch.set_num_threads, 1))
        with closing(results):  # pyright: ignore[reportArgumentType]
            for _, result in results:
                yield result
    finally:
        # MKL knows one number for all threads.
        torch.set_num_threads(threads)
