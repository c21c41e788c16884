"""Which segments are better made one: many small additions would each be searched by themselves for ever."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import accumulate

from src.library.contents import Contents

# Segments of about one size that are left beside each other; a descriptor is written again each time they become one.
BESIDE = 16
# Descriptors of a segment that is joined with no other: making one takes three times as much memory as it has bytes.
LARGEST = 500_000


def crowded(contents: Contents) -> list[int]:
    """Numbers of segments that shall be made one, in their order; none where all is well.

    Those of about one size where there are many, and one of which more than half counts no longer.
    """
    tiers: dict[int, list[int]] = defaultdict(list)
    for number, segment in contents.segments.items():
        live = segment.size - len(contents.dead_rows(number))
        if 2 * live < segment.size:
            return [number]
        tiers[int(math.log(live, BESIDE))].append(number)
    full = [few_enough(contents, numbers) for numbers in tiers.values() if len(numbers) > BESIDE]
    return next((numbers for numbers in full if len(numbers) > 1), [])


def few_enough(contents: Contents, numbers: list[int]) -> list[int]:
    """As many of the segments, from the first on, as together are not too large; one at least, where there is one."""
    totals = accumulate(contents.segments[number].size for number in numbers)
    return numbers[: max(1, sum(total <= LARGEST for total in totals))]
