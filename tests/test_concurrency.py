"""Memory limits of a process."""

from __future__ import annotations

import math
from pathlib import Path

from dolglab.concurrency import available_memory
from dolglab.library.local_engine import passes_side_by_side


def test_memory_is_limited_by_machine_and_container(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == math.inf
    write(tmp_path / "proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:  8000 kB\n")
    assert available_memory(tmp_path) == 8_192_000
    write(tmp_path / "sys/fs/cgroup/memory.max", "max\n")
    write(tmp_path / "sys/fs/cgroup/memory.current", "5000000\n")
    write(tmp_path / "sys/fs/cgroup/memory.stat", "anon 7\ninactive_file 200000\nactive_file 100000\n")
    assert available_memory(tmp_path) == 8_192_000
    write(tmp_path / "sys/fs/cgroup/memory.max", "6000000\n")
    assert available_memory(tmp_path) == 1_300_000


def test_passes_fit_into_memory() -> None:
    assert passes_side_by_side(4, 16) == 4
    assert passes_side_by_side(4, 1e9) == 1


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
