"""Processes and ports of this machine."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def children(parent: int) -> list[int]:
    """The children of a process."""
    return [number for number, stat in _of_each("stat") if int(stat.rpartition(") ")[2].split()[1]) == parent]


def processes_of(*words: str) -> list[int]:
    """Processes whose command line contains all of these words."""
    return [number for number, line in _of_each("cmdline") if all(word in line.replace("\0", " ") for word in words)]


def processes_in(folder: Path) -> list[int]:
    """Processes that work in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if path.readlink() == folder:
                found.append(int(path.parent.name))
    return found


def _of_each(file: str) -> Iterator[tuple[int, str]]:
    for path in Path("/proc").glob(f"[0-9]*/{file}"):
        with contextlib.suppress(OSError):
            yield int(path.parent.name), path.read_text()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; the test's own time limit applies."""
    while not condition():
        time.sleep(0.2)


def free_port() -> int:
    """A free port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
