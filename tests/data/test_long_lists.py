"""Concatenation equals numpy's, in memory and in files; duplicate names are found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dolglab.data.long_lists import blocks, put_together, repeated_names


@given(st.lists(st.lists(st.binary(max_size=9).filter(lambda name: not name.endswith(b"\0")), max_size=4), max_size=6))
def test_names_of_any_width_are_joined_in_memory_and_in_a_file(parts: list[list[bytes]]) -> None:
    arrays = [np.array(part, "S") for part in parts]
    whole = [name for part in parts for name in part]
    for in_memory in (0, 12, 10**6):
        assert put_together(iter(arrays), "S1", in_memory).tolist() == whole


@pytest.mark.parametrize("in_memory", [0, 10**6])
def test_joined_numbers_are_writable(in_memory: int) -> None:
    found = put_together([np.arange(3), np.arange(0), np.arange(2)], np.int64, in_memory)
    assert found.dtype == np.int64
    found.sort()
    assert found.tolist() == [0, 0, 1, 1, 2]
    assert [part.tolist() for part in blocks(found, 2)] == [[0, 0], [1, 1], [2]]


@given(st.lists(st.sampled_from([b"a/1.jpg", b"a/2.jpg", b"b/0123456789.jpg", b"b/0123456788.jpg", b"c"])))
def test_repeated_names_are_found(names: list[bytes]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    assert repeated_names(np.array(names, "S")) == repeated
