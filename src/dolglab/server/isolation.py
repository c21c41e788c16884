"""Calls in processes that can be ended: what strangers send may keep a decoder busy, or have it take much memory.

Every such process imports this module: nothing large is imported here.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Full
from typing import Any, ParamSpec, TypeVar

from dolglab.concurrency import exit_with_parent

P = ParamSpec("P")
T = TypeVar("T")

CONTEXT = get_context("spawn")
# Added to the niceness of a slow call's process, so that the quick calls of others come first.
NICENESS = 10


class IsolatedExecutor:
    """Runs functions at the top of modules in a few processes, which are started when they are first needed.

    A call that is not done after `quick` seconds goes on beside the others, and another process takes the next one: so
    slow calls do not stop quick ones. That is why this is no pool of a library's, such as Pebble: there a slow call
    keeps its worker until its time limit.

    Args:
        memory: bytes that a call may take besides what its process already has (on Linux).
        quick: seconds after which a call is slow.
        seconds: after which it is ended.
        workers: quick calls at the same time; others wait.
        slow: slow calls at the same time; one more is ended.
        preload: modules that a process imports before its first call, outside the call's memory and time.
    """

    def __init__(
        self, memory: int, quick: float, seconds: float, workers: int = 2, slow: int = 2, preload: Sequence[str] = ()
    ) -> None:
        self._memory = memory
        self._preload = preload
        self._quick = min(quick, seconds)
        self._seconds = seconds
        self._turns = threading.Semaphore(workers)
        self._slow = threading.Semaphore(slow)
        self._idle = deque[_Process]()

    def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns.

        Raises what that raises, without its causes; MemoryError, TimeoutError; BrokenProcessPool where its process came
        to an end of its own, as a fault in a decoder makes it; queue.Full where it is slow, and too many others are.
        """
        with ExitStack() as stack:
            with self._turns:
                process = self._idle_process(work)
                stack.callback(process.end)
                process.send(work, args, kwargs)
                if process.wait(self._quick):
                    value, error = process.receive()
                    stack.pop_all()
                    self._idle.append(process)
                    return _outcome(value, error)
                if not self._slow.acquire(blocking=False):
                    raise Full
                stack.callback(self._slow.release)
            process.lower_priority()
            end = time.monotonic() + self._seconds - self._quick
            # Who is slow waits for the process that takes this one's place, not who comes next.
            self._idle.appendleft(_Process(self._memory, work, self._preload))
            left = end - time.monotonic()
            if left <= 0 or not process.wait(left):
                raise TimeoutError(f"it took longer than {self._seconds:g} s")
            return _outcome(*process.receive())

    def _idle_process(self, work: Callable[..., Any]) -> _Process:
        while self._idle:
            # The one that worked last: the others' memory may be swapped out.
            if (process := self._idle.pop()).alive:
                return process
        return _Process(self._memory, work, self._preload)


def _outcome(value: Any, error: Exception | None) -> Any:
    if error is not None:
        raise error
    return value


class _Process:
    """One of the processes; methods raise BrokenProcessPool where it has ended."""

    def __init__(self, memory: int, work: Callable[..., Any], preload: Sequence[str]) -> None:
        self._connection, theirs = CONTEXT.Pipe()
        # Being handed the function, it imports the function's module before it says that it is ready.
        self._process = CONTEXT.Process(target=_serve, args=(theirs, memory, work, preload), daemon=True)
        self._process.start()
        theirs.close()
        self.receive()

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def send(self, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self._connection.send((work, args, kwargs))
        except OSError:
            raise BrokenProcessPool from None

    def wait(self, seconds: float) -> bool:
        """Whether there is something to receive within so many seconds."""
        return self._connection.poll(seconds)

    def receive(self) -> tuple[Any, Exception | None]:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            raise BrokenProcessPool from None

    def lower_priority(self) -> None:
        # It may have ended just now.
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid or 0, NICENESS)

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection, memory: int, work: Callable[..., Any], preload: Sequence[str]) -> None:
    """In the process: answer calls with (value, None) or (None, error)."""
    for module in preload:
        importlib.import_module(module)
    # Ctrl-C goes to all processes of a terminal, and ends the one that started this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=exit_with_parent, daemon=True).start()
    # The parent is gone, or has no use for this process any more.
    with suppress(EOFError, BrokenPipeError):
        connection.send((None, None))
        while True:
            work, args, kwargs = connection.recv()
            connection.send(_answer(memory, work, args, kwargs))


def _answer(
    memory: int, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Exception | None]:
    try:
        with _limited_memory(memory):
            return work(*args, **kwargs), None
    except Exception as error:
        return None, MemoryError() if _is_of_memory(error) else error


@contextmanager
def _limited_memory(further: int) -> Iterator[None]:
    """Have the system refuse this process more than so many further bytes, where it is Linux."""
    if sys.platform != "linux":
        yield
        return
    # Pages of data, the sixth number, are what RLIMIT_DATA counts: not address space that is only reserved, of which
    # every thread takes much.
    taken = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    usual, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = taken + further
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if usual == resource.RLIM_INFINITY else min(wanted, usual), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (usual, hard))


def _is_of_memory(error: BaseException | None) -> bool:
    """Whether a want of memory is among the causes of an error."""
    return error is not None and (isinstance(error, MemoryError) or _is_of_memory(error.__cause__))
