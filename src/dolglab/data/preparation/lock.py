"""One preparation at a time in a folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dolglab.errors import UserError


@contextmanager
def preparing(root: Path) -> Iterator[None]:
    """Hold a folder, made as needed, for this process; the lock goes with the process, however it ends.

    Raises UserError when another process holds it, or when nothing can be written there.
    """
    path = root / ".preparing.lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise UserError(f"cannot write to {root}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is preparing {root}: wait for it, or stop it") from None
        except OSError as error:
            raise UserError(f"{root} cannot be locked ({error.strerror}): take a local disk") from error
        yield
