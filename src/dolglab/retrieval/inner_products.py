"""Inner products of queries with the rows of a gallery: exact, or quick with a bound on the error."""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from jaxtyping import Float32, Float64
from numpy.typing import NDArray

from dolglab.contracts import FloatArray, IntArray
from dolglab.errors import UserError
from dolglab.retrieval.large_arrays import memory_map_of, take_rows

if TYPE_CHECKING:
    import torch

Floating = TypeVar("Floating", bound=np.floating)
# Gallery values that are processed at a time: 2 MB fit into the cache of a core.
VALUES_AT_ONCE = 2**18
# Values per sum in float32: the error grows with this number, the time with the number of sums. A small error pays off
# if every score is compared with those of labelled images, few sums if only the best answers are needed.
BLOCK, BLOCK_OF_HEADS = 64, 512


@dataclass(frozen=True)
class Queries:
    """Queries in the form that `InnerProducts` needs.

    Attributes:
        exact: (Q, D) on the grid of `round_to_grid`.
        blocks: (B, Q, S) the same in float32, divided into blocks of equal size, the last one padded with zeros.
        norms: (Q,) lengths.
    """

    exact: Float64[np.ndarray, "q d"]
    blocks: Float32[np.ndarray, "b q s"]
    norms: Float64[np.ndarray, " q"]

    @classmethod
    def of(cls, descriptors: FloatArray, block: int = BLOCK) -> Queries:
        """Prepare descriptors, (Q, D), in blocks of at most this size. Raises UserError for NaN or infinite values."""
        if not np.isfinite(descriptors).all():
            raise UserError("a query descriptor is not finite: the network returned NaN or infinity")
        exact = round_to_grid(descriptors.astype(np.float64))
        count, dim = exact.shape
        blocks = max(1, math.ceil(dim / block))
        size = max(1, math.ceil(dim / blocks))
        single = np.zeros((count, blocks * size), np.float32)
        with np.errstate(over="ignore"):
            single[:, :dim] = exact
        cut = np.ascontiguousarray(single.reshape(count, blocks, size).transpose(1, 0, 2))
        return cls(exact, cut, np.linalg.norm(exact, axis=1))

    def __len__(self) -> int:
        return len(self.exact)


class InnerProducts:
    """Inner products with the rows of a gallery, without rounding before the conversion to float32.

    The order of additions in a BLAS depends on the position of a row and on the number of threads (with MKL's AVX2
    kernels, two equal columns of one product can differ), so equal descriptors would not tie. Here values are first
    rounded to a grid (`round_to_grid`), on which float64 represents every sum of products exactly, in any order: scores
    depend on the two descriptors only.

    It can be used from several threads. A gallery row with NaN or infinity raises UserError.

    Args:
        gallery: (N, D), any floating type; pages of a memory-mapped file are released after reading.
        values_at_once: gallery values that are read together.
    """

    def __init__(self, gallery: NDArray[np.floating], values_at_once: int = VALUES_AT_ONCE) -> None:
        self.gallery = gallery
        self.rows_at_once = max(1, values_at_once // max(1, gallery.shape[1]))
        self._mapping = memory_map_of(gallery)

    def exact(self, queries: Queries, positions: IntArray) -> Float32[np.ndarray, "q n"]:
        """Products of all queries with the rows at n positions."""
        import torch

        asked = torch.from_numpy(queries.exact)
        buffer = np.empty((min(len(positions), self.rows_at_once), asked.shape[1]))
        products = torch.empty(len(queries), len(positions))
        for start in range(0, len(positions), self.rows_at_once):
            part = slice(start, start + self.rows_at_once)
            rows = round_to_grid(self._read(positions[part], buffer))
            products[:, part] = asked @ torch.from_numpy(rows).T
        return _finite(products)

    def exact_pairs(self, queries: Queries, asked: IntArray, positions: IntArray) -> Float32[np.ndarray, " n"]:
        """Products of n single pairs, of the queries `asked`, (n,), with the rows at `positions`, (n,)."""
        import torch

        buffer = np.empty((min(len(positions), self.rows_at_once), queries.exact.shape[1]))
        products = torch.empty(len(positions))
        for start in range(0, len(positions), self.rows_at_once):
            part = slice(start, start + self.rows_at_once)
            rows = round_to_grid(self._read(positions[part], buffer))
            products[part] = torch.linalg.vecdot(torch.from_numpy(queries.exact[asked[part]]), torch.from_numpy(rows))
        return _finite(products)

    def quick(
        self, queries: Queries, positions: IntArray
    ) -> tuple[Float32[np.ndarray, "q n"], Float64[np.ndarray, " q"]]:
        """Products in float32, and for each query the largest possible distance from the exact ones.

        If float32 might overflow, or torch might use a lower precision, the products are exact and the error is 0.
        """
        import torch

        if not _full_float32():
            return self.exact(queries, positions), np.zeros(len(queries))
        blocks, dim = torch.from_numpy(queries.blocks), queries.exact.shape[1]
        count, _, size = blocks.shape
        buffer = np.zeros((min(len(positions), self.rows_at_once), count * size), np.float32)
        products, longest = torch.empty(len(queries), len(positions)), torch.zeros(())
        for start in range(0, len(positions), self.rows_at_once):
            part = positions[start : start + self.rows_at_once]
            self._read(part, buffer[:, :dim])
            rows = torch.from_numpy(buffer[: len(part)])
            longest = torch.maximum(longest, torch.linalg.vector_norm(rows, dim=1).max())
            found = products[:, start : start + len(part)]
            if count == 1:
                torch.mm(blocks[0], rows.T, out=found)
            else:
                torch.sum(torch.bmm(blocks, rows.unflatten(1, (count, size)).permute(1, 2, 0)), 0, out=found)
        error = quick_error(queries.norms, float(longest), dim, size)
        # NaN and infinity are not valid bounds.
        if not (error < 2.0**40).all():
            return self.exact(queries, positions), np.zeros_like(error)
        return products.numpy(), error

    def _read(self, positions: IntArray, buffer: NDArray[Floating]) -> NDArray[Floating]:
        """Copy the gallery's rows at these positions to the first rows of the buffer."""
        rows = buffer[: len(positions)]
        with np.errstate(over="ignore"):
            rows[:] = take_rows(self.gallery, positions)
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_DONTNEED)
        return rows


def quick_error(norms: Float64[np.ndarray, " q"], longest: float, dim: int, size: int) -> Float64[np.ndarray, " q"]:
    """The largest difference between `InnerProducts.quick`, with this block size, and `InnerProducts.exact`.

    It holds for any order of additions. With u = 2^-24 and lengths |q| and |g|, every sum of |q_i g_i| is at most
    |q||g| (Cauchy and Schwarz), and:

    - n roundings change a value by n u and a little more (Higham, Accuracy and Stability of Numerical Algorithms, 2002,
      section 3.1). The product of a block has as many roundings as values, in any order, fused or not; the sum of the
      blocks has one fewer than there are blocks.
    - Rounding the query and a float64 row to float32, and rounding the exact product: one u each.
    - The grid, which is used for the row in the exact product only: its step is at most 3 * 2^-27 |g|, so each value
      moves by up to 3/16 u |g|, and the row by sqrt(D) times as much.

    2^-40 for each length is far more than the loss from values, products and squares that are too small for a normal
    float32, flushed to zero or not. The rest of the sum covers terms of second order and `longest`, a length that was
    computed in float32.
    """
    roundings = size + math.ceil(dim / size) + 3 + 3 / 16 * math.sqrt(dim)
    return 2.0**-24 * 1.01 * roundings * (norms + 2.0**-40) * ((1 + dim * 2.0**-24) * longest + 2.0**-40)


def _full_float32() -> bool:
    """Whether torch multiplies in full float32: it can be configured to round to bfloat16 or TF32 first."""
    import torch

    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if matmul is None:  # before torch 2.9
        return torch.get_float32_matmul_precision() == "highest"
    return matmul.fp32_precision in ("none", "ieee")


def _finite(products: torch.Tensor) -> NDArray[np.float32]:
    # A value that is not finite makes every product and sum not finite.
    if not products.sum().isfinite():
        raise UserError("a gallery descriptor is not finite: the network returned NaN or infinity")
    return products.numpy()


def round_to_grid(rows: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """Round rows, in place, so that sums of products of two rows are exact in float64.

    Each row becomes multiples of its own step, a power of two; the row's length is less than 2^27 / 1.5 steps. Products
    of two rows are then multiples of the product of their steps and, by Cauchy and Schwarz, no sum exceeds 2^53 of
    them. For an L2-normalised row the step is 2^-26, and a cosine changes by less than in a float32 product.
    """
    import torch

    values = torch.from_numpy(rows)
    # The factor keeps lengths of about 1 away from the values at which the step doubles.
    exponents = np.frexp(1.5 * torch.linalg.vector_norm(values, dim=1).numpy())[1]
    # A float64 has 53 bits: adding this number rounds away everything finer than the step.
    ballast = torch.from_numpy(np.ldexp(1.5, exponents + 25))[:, None]
    values.add_(ballast).sub_(ballast)
    return rows
