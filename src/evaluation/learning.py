"""What a method learns from another set of images than the one it is tested on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from src.contracts import Benchmark, InputError
from src.evaluation.method import Method
from src.retrieval.post.whitening import Whitening


def matching_pairs(benchmark: Benchmark) -> NDArray[np.int64]:
    """(P, 2) positions of a query's image and of one of its positives, easy or hard."""
    truth = benchmark.ground_truth
    parts = [
        np.stack([np.full(len(easy) + len(hard), query), np.concatenate([easy, hard])], axis=1)
        for query, easy, hard in zip(benchmark.queries.tolist(), truth.easy, truth.hard, strict=True)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 2), np.int64)


def whitenings(method: Method) -> Iterator[Whitening]:
    """The method's steps that whiten."""
    return (step for step in method.post.values() if isinstance(step, Whitening))


def wants_to_learn(method: Method) -> bool:
    """Whether a part of the method was given no file of what it has to learn."""
    codebook = method.aggregate is not None and method.aggregate.learned_on is None
    return codebook or any(step.learned_on is None for step in whitenings(method))


def learned_here(method: Method, benchmark: Benchmark) -> tuple[str, ...]:
    """A note for each part that was learned on the very set it is tested on."""
    parts = [("whitening", step.learned_on) for step in whitenings(method)]
    if method.aggregate is not None:
        parts.append(("codebook", method.aggregate.learned_on))
    return tuple(f"{part} learned on this set" for part, origin in parts if origin and origin[1] == benchmark.digest)


def check_learning(method: Method, learn_on: Benchmark | None) -> None:
    """Raise InputError where something is to be learned and there is nothing to learn it from."""
    if learn_on is None and wants_to_learn(method):
        name, file = ("codebook", "aggregate.codebook") if method.aggregate else ("whitening", "post.whitening.matrix")
        raise InputError(f"there is no {name} yet: give {file}=FILE, or benchmark@learn_on=NAME to learn one")
