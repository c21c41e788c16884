"""A file that one process at a time can lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dolglab.io import acquire, is_held, release

pytestmark = pytest.mark.process

TAKE = (
    "import sys; from pathlib import Path; from dolglab import io; print(io.acquire(Path(sys.argv[1])), flush=True); "
)


def other(path: Path, then: str = "") -> subprocess.Popen[str]:
    """Another process that tries to lock the file, reports the result, and keeps running."""
    return subprocess.Popen([sys.executable, "-c", TAKE + then, str(path)], stdout=subprocess.PIPE, text=True)


def test_another_process_is_refused_until_it_is_released(tmp_path):
    path = tmp_path / "run" / ".lock"
    assert acquire(path)
    assert acquire(path)
    assert other(path).communicate()[0].strip() == "False"
    release(path)
    assert not is_held(path)
    assert other(path).communicate()[0].strip() == "True"


def test_a_killed_process_releases_its_lock_though_its_fork_survives(tmp_path):
    path = tmp_path / ".lock"
    # A reply of the fork shows that it holds no lock.
    fork = "import os, time; os.fork() or print(os.getpid(), flush=True); time.sleep(60)"
    with other(path, fork) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "True"
        child = int(process.stdout.readline())
        assert not acquire(path)
        process.kill()
        process.wait()
        taken = acquire(path)
        os.kill(child, signal.SIGKILL)
        assert taken
        release(path)
