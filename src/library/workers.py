"""Groups of photos described side by side: on a CPU, a thread each is faster than all threads for one after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from src.extraction.buckets import Group
from src.extraction.onnx_extractor import OnnxExtractor
from src.library.model import Ready

Done = tuple[Group, Tensor]


def described(ready: Ready, group: Group) -> Tensor:
    """Descriptors of images of one shape, (n, dim)."""
    with torch.inference_mode():
        return ready.extractor.together([image for _, image in group])


class Workers:
    """As many threads as torch has, each of which runs the network in one; onnxruntime has threads of its own."""

    def __init__(self, ready: Ready) -> None:
        self._ready = ready
        self._count = 1 if isinstance(ready.extractor, OnnxExtractor) else torch.get_num_threads()
        each = torch.get_num_threads() // self._count
        self._pool = ThreadPoolExecutor(self._count, initializer=torch.set_num_threads, initargs=(each,))
        self._running: deque[tuple[Group, Future[Tensor]]] = deque()

    def take(self, group: Group) -> Iterator[Done]:
        """Have a group described, and give what is done where enough are under way."""
        self._running.append((group, self._pool.submit(described, self._ready, group)))
        while len(self._running) > self._count + 1:
            yield self._next()

    def rest(self) -> Iterator[Done]:
        """What is still under way, as it was taken."""
        while self._running:
            yield self._next()

    def close(self) -> None:
        """End the threads; what nobody asked for is dropped."""
        self._pool.shutdown(cancel_futures=True)

    def _next(self) -> Done:
        group, future = self._running.popleft()
        return group, future.result()
