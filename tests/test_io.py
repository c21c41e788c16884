"""Files are written completely or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dolglab.io import aside_of, atomic_path, write_bytes

KILLED = """
import os, signal, sys
from pathlib import Path
from dolglab.io import aside_of, atomic_path
with atomic_path(Path(sys.argv[1])) as aside:
    if sys.argv[2] == "folder":
        (aside / "inside").mkdir(parents=True)
    else:
        aside.write_bytes(b"half")
        aside.with_name(aside.name + "-journal").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def fail_to_write(path: Path, inside: str) -> None:
    with atomic_path(path) as aside:
        write_bytes(aside / inside if inside else aside, b"after")
        raise RuntimeError


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "deep" / "file", b"before")
    for target, inside in ((path, ""), (tmp_path / "folder", "inside")):
        with pytest.raises(RuntimeError):
            fail_to_write(target, inside)
    assert path.read_bytes() == b"before"
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["deep", "file"]


@pytest.mark.process
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_leftovers_of_a_killed_process_are_removed_by_the_next_writer(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "made"
    process = subprocess.run([sys.executable, "-c", KILLED, str(path), kind], check=False)
    assert process.returncode < 0
    assert [left.name for left in tmp_path.iterdir() if left.name.endswith(".part")]
    # Files of running processes, of other machines, and of other programs.
    mine = aside_of(tmp_path / "other")
    kept = [mine, tmp_path / ".made.00000000-1.part", tmp_path / ".download.part", tmp_path / "photo.part"]
    for each in kept:
        each.write_bytes(b"")
    write_bytes(tmp_path / "next", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["next", *(each.name for each in kept)])


def test_a_temporary_name_identifies_its_process(tmp_path: Path) -> None:
    assert aside_of(tmp_path / "file").name.endswith(f"-{os.getpid()}.part")
    assert aside_of(tmp_path / "file").parent == tmp_path
