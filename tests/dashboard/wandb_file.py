"""Reads a `.wandb` file of an offline run: records in blocks of 32 KiB, as in LevelDB's log."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as protocol

HEADER, BLOCK, PREFIX = 7, 32768, 7
WHOLE, LAST = 1, 4


def payloads(path: Path) -> Iterator[bytes]:
    data, place, parts = path.read_bytes(), HEADER, b""
    assert data[:4] == b":W&B"
    while place + PREFIX <= len(data):
        if BLOCK - place % BLOCK < PREFIX:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + PREFIX])
        parts += data[place + PREFIX : place + PREFIX + length]
        place += PREFIX + length
        if kind in (WHOLE, LAST):
            yield parts
            parts = b""


def records(path: Path) -> list[Any]:
    return [protocol.Record.FromString(payload) for payload in payloads(path)]


def history(path: Path) -> list[dict[str, Any]]:
    """The rows that were logged."""
    rows = [record.history.item for record in records(path) if record.WhichOneof("record_type") == "history"]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]
