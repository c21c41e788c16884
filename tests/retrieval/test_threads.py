"""Parallel parts: order, few at a time, errors, and torch's settings restored."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from dolglab.retrieval.ranking import parallel_map


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_from_threads_of_one_core_each() -> None:
    together = threading.Barrier(3, timeout=60)

    def work(part: int) -> tuple[int, int]:
        if part < 3:
            together.wait()
        return part, torch.get_num_threads()

    found = list(parallel_map(work, range(20)))
    assert [part for part, _ in found] == list(range(20))
    assert {threads for _, threads in found} == {1}
    assert torch.get_num_threads() == 3


def test_few_parts_are_read_ahead() -> None:
    taken: list[int] = []

    def parts() -> Iterator[int]:
        for part in range(100):
            taken.append(part)
            yield part

    results = parallel_map(lambda part: part, parts())
    assert next(results) == 0
    assert len(taken) <= 5
    results.close()
    assert torch.get_num_threads() == 3


def test_errors_are_raised_where_results_are_read() -> None:
    with pytest.raises(ZeroDivisionError):
        list(parallel_map(lambda part: 1 // part, [1, 0, 1]))
    assert torch.get_num_threads() == 3
    assert list(parallel_map(str, [])) == []
