"""Inner products of queries with the rows of a gallery: exact ones, and quick ones with a bound of their error."""

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
# Gallery values in work at a time: 2 MB stay near a processor core.
VALUES_AT_ONCE = 2**18
# Values that float32 adds up in one go: the error grows with them, the time with the number of sums. Where every score
# is compared with those of labelled images a small error saves more; where only the best are looked for, few sums do.
BLOCK, BLOCK_OF_HEADS = 64, 512


@dataclass(frozen=True)
class Queries:
    """Queries as `InnerProducts` takes them.

    Attributes:
        exact: (Q, D) on the grid of `round_to_grid`.
        blocks: (B, Q, S) the same in float32, cut into blocks of one size, the last one filled up with zeros.
        norms: (Q,) lengths.
    """

    exact: Float64[np.ndarray, "q d"]
    blocks: Float32[np.ndarray, "b q s"]
    norms: Float64[np.ndarray, " q"]

    @classmethod
    def of(cls, descriptors: FloatArray, block: int = BLOCK) -> Queries:
        """Those of descriptors, (Q, D), in blocks of that size at most. Raises UserError for NaN or infinite values."""
        if not np.isfinite(descriptors).all():
            raise UserError("a query descriptor is not finite: the network gave NaN or infinity")
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
    """Inner products with the rows of a gallery, without rounding until they are made float32.

    A BLAS adds in an order that depends on where a row stands and on the number of threads (of MKL's AVX2 kernels, two
    equal columns of one product differ), so that equal descriptors would not tie. Here values are first put on a grid
    (`round_to_grid`), where float64 holds every sum of products and any order of adding gives the same: scores depend
    on the two descriptors, and on nothing else.

    Several threads may ask at once. A gallery row with NaN or infinity raises UserError.

    Args:
        gallery: (N, D), any floating type; of a memory-mapped file, pages are held for as long as they are read.
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
        """Products in float32, and for each query how far they are from the exact ones at most.

        Where float32 may overflow, or torch may round to less than it, they are the exact ones, and the error is 0.
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
        # NaN and infinity are no bound either.
        if not (error < 2.0**40).all():
            return self.exact(queries, positions), np.zeros_like(error)
        return products.numpy(), error

    def _read(self, positions: IntArray, buffer: NDArray[Floating]) -> NDArray[Floating]:
        """The gallery's rows at these positions in the first rows of the buffer."""
        rows = buffer[: len(positions)]
        with np.errstate(over="ignore"):
            rows[:] = take_rows(self.gallery, positions)
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_DONTNEED)
        return rows


def quick_error(norms: Float64[np.ndarray, " q"], longest: float, dim: int, size: int) -> Float64[np.ndarray, " q"]:
    """How far `InnerProducts.quick`, in blocks of a size, is from `InnerProducts.exact` at most, however a BLAS adds.

    With u = 2^-24 and lengths |q| and |g|, to which by Cauchy and Schwarz every sum of |q_i g_i| is at most |q||g|:

    - A value that passes through n roundings is off by n u and a little (Higham, Accuracy and Stability of Numerical
      Algorithms, 2002, section 3.1): the product of a block in any order, fused or not, through its size, the sum of
      the blocks through one fewer than there are.
    - Rounding the query to float32, a float64 row likewise, and the exact product in the end: one u each.
    - The grid, on which the row is in the exact product alone: its step is at most 3 * 2^-27 |g|, so each value moves
      by up to 3/16 u |g|, and the row by sqrt(D) as much.

    2^-40 beside each length is far more than is lost where values, products and squares are too small for a normal
    float32, flushed to zero or not; the rest of what is added is for terms of second order and for `longest`, a length
    that was computed in float32.
    """
    roundings = size + math.ceil(dim / size) + 3 + 3 / 16 * math.sqrt(dim)
    return 2.0**-24 * 1.01 * roundings * (norms + 2.0**-40) * ((1 + dim * 2.0**-24) * longest + 2.0**-40)


def _full_float32() -> bool:
    """Whether torch multiplies float32 as it is: it can be told to round it to bfloat16 or TF32 before."""
    import torch

    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if matmul is None:  # before torch 2.9
        return torch.get_float32_matmul_precision() == "highest"
    return matmul.fp32_precision in ("none", "ieee")


def _finite(products: torch.Tensor) -> NDArray[np.float32]:
    # One value that is not finite leaves no finite product, and no finite sum.
    if not products.sum().isfinite():
        raise UserError("a gallery descriptor is not finite: the network gave NaN or infinity")
    return products.numpy()


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
