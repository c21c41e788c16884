"""Images grouped by shape."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from dolglab.extraction.shapes import ShapeBuckets


def image(height: int, width: int) -> torch.Tensor:
    return torch.zeros(height, width, 3, dtype=torch.uint8)


def keys(groups: list) -> list[list[int]]:
    return [[key for key, _ in group] for group in groups]


def test_full_groups_are_released_at_once_and_the_rest_at_the_end() -> None:
    buckets = ShapeBuckets(pixels=2 * 6)
    left = [keys(list(buckets.add(key, image(2, 3 + key % 2)))) for key in range(5)]
    assert left == [[], [[1]], [[0, 2]], [[3]], []]
    assert keys(list(buckets.rest())) == [[4]]
    assert list(buckets.rest()) == []


def test_an_image_above_the_limit_is_processed_alone() -> None:
    assert keys(list(ShapeBuckets(pixels=5).add(7, image(10, 10)))) == [[7]]


def test_above_the_waiting_limit_the_fullest_group_is_released() -> None:
    buckets = ShapeBuckets(pixels=1000, waiting=10)
    assert keys(list(buckets.add(0, image(2, 2)))) == []
    assert keys(list(buckets.add(1, image(1, 3)))) == []
    assert keys(list(buckets.add(2, image(2, 2)))) == [[0, 2]]
    assert keys(list(buckets.rest())) == [[1]]


@given(
    shapes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=30),
    pixels=st.integers(1, 40),
    waiting=st.integers(1, 60),
)
def test_every_image_is_released_once_with_others_of_its_shape(shapes: list, pixels: int, waiting: int) -> None:
    buckets = ShapeBuckets(pixels, waiting)
    groups = [group for key, shape in enumerate(shapes) for group in buckets.add(key, image(*shape))]
    groups += buckets.rest()
    assert sorted(key for group in groups for key, _ in group) == list(range(len(shapes)))
    for group in groups:
        areas = {shapes[key] for key, _ in group}
        assert len(areas) == 1
        height, width = areas.pop()
        assert len(group) == 1 or len(group) * height * width <= pixels
