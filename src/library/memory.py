"""Memory that is free and yet held."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Give the system what the C library holds of freed memory, where it is glibc; elsewhere nothing is done.

    Batches of ever other shapes leave holes in its heaps, and a process that runs for days would grow.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
