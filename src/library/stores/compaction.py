"""Which segments are better made one: many small additions would each be searched by themselves for ever."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import accumulate

from src.library.contents import Contents

# Segments of about one size that are left beside each other; a descriptor is written again each time they become one.
BESIDE = 16
# Bytes of descriptors beyond which segments are not joined: making one takes about twice as much memory.
LARGEST = 1 << 30


def crowded(contents: Contents, dim: int) -> list[int]:
    """Numbers of segments, of descriptors of `dim` values, that shall be made one, in their order; none if all is well.

    Those of about one size where there are many, and one of which more than half counts no longer.
    """
    tiers: dict[int, list[int]] = defaultdict(list)
    for number, segment in contents.segments.items():
        live = segment.size - len(contents.dead_rows(number))
        if 2 * live < segment.size:
            return [number]
        tiers[int(math.log(live, BESIDE))].append(number)
    full = [few_enough(contents, numbers, dim) for numbers in tiers.values() if len(numbers) > BESIDE]
    return next((numbers for numbers in full if len(numbers) > 1), [])


def few_enough(contents: Contents, numbers: list[int], dim: int) -> list[int]:
    """As many of the segments, from the first on, as together are not too large; one at least, where there is one."""
    totals = accumulate(contents.segments[number].size for number in numbers)
    return numbers[: max(1, sum(4 * dim * total <= LARGEST for total in totals))]
