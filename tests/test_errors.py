"""The end of a command whose output is no longer read, as in `| head`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dolglab.errors import quiet_broken_pipe
from photo_library.made import library_of, unit
from warm_python import ROOT


@pytest.mark.process
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["dolglab", "--help"],
        ["dolglab", "--version"],
        ["dolglab", "library", "merge", "--help"],
        ["dolglab", "report", "--help"],
        ["src.library", "info", "--library", "LIBRARY"],
    ],
    ids=" ".join,
)
def test_a_command_without_a_reader_ends_silently(arguments: list[str], unbuffered: str, tmp_path: Path) -> None:
    library_of(tmp_path / "library", [], unit(0, 4)).close()
    words = [str(tmp_path / "library") if word == "LIBRARY" else word for word in arguments]
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-W", "ignore", "-m", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_other_broken_pipes_are_not_suppressed() -> None:
    with pytest.raises(BrokenPipeError), quiet_broken_pipe():
        raise BrokenPipeError
