"""ONNX files of networks in the user's cache, each with a record of its versions and speed. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dolglab.errors import UserError
from dolglab.extraction.describer import Session
from dolglab.io import sha256_of, write_bytes, write_text

if TYPE_CHECKING:
    # Running an ONNX file needs no torch.
    from dolglab.models.dolg import DescriptorModel

# Incremented when graphs are exported differently.
GRAPH_VERSION = 2
# onnxruntime is used from this many times torch's speed on: at equal speed, a transformer needs ten times the memory.
FASTER = 1.05


@dataclass
class Record:
    """The record of a cached ONNX file.

    Attributes:
        versions: versions of the export and of onnxruntime.
        sha256: digest of its bytes.
        speedups: its speed relative to torch, by machine and size of photos.
    """

    versions: str
    sha256: str
    speedups: dict[str, float] = field(default_factory=dict)


class KeptGraph:
    """The ONNX file of a network in the user's cache, if there is one.

    Args:
        fingerprint: fingerprint of the network's weights.
        source: its address, which covers properties that are not visible in the weights, such as the fusion.

    Raises UserError if platformdirs is missing.
    """

    def __init__(self, fingerprint: str, source: str) -> None:
        try:
            from platformdirs import user_cache_path
        except ModuleNotFoundError:
            raise UserError("--backend onnx needs platformdirs: pip install 'dolglab[onnx]'") from None
        self._fingerprint = fingerprint
        digest = hashlib.blake2b(source.encode(errors="surrogateescape"), digest_size=6).hexdigest()
        self.path: Path = user_cache_path("dolglab") / "onnx" / f"{fingerprint}-{digest}.onnx"
        self._record = self.path.with_suffix(".json")

    def session(self, threads: int) -> Session | None:
        """The file, ready to run; a damaged or outdated one is removed, and a line says so."""
        if not self.path.is_file():
            return None
        try:
            if self._read().sha256 != sha256_of(self.path):
                raise UserError("damaged")
            session = Session(self.path, threads)
            if session.about["fingerprint"] != self._fingerprint:
                raise UserError("it belongs to another network")
            return session
        except UserError as error:
            why = error
        self.remove()
        print(
            f"the network's ONNX file was removed from the cache ({why}); it is exported again if that pays off",
            file=sys.stderr,
        )
        return None

    def speedup(self, size: str) -> float | None:
        """Its speed relative to torch on this machine for photos of a size; None if not measured."""
        try:
            return self._read().speedups.get(_here(size)) if self.path.is_file() else None
        except UserError:
            return None

    def write(self, network: DescriptorModel) -> None:
        """Export the network. Raises UserError like `write_onnx`, and OSError if the cache cannot be written."""
        from dolglab.sharing.onnx_export import write_onnx

        write_onnx(network, self.path)
        self._write(Record(_versions(), sha256_of(self.path)))

    def copy(self, exported: Path) -> None:
        """Keep a copy of the file of an exported folder. Raises OSError if the cache cannot be written."""
        write_bytes(self.path, exported.read_bytes())
        self._write(Record(_versions(), sha256_of(self.path)))

    def note(self, size: str, speedup: float) -> None:
        """Store its speed relative to torch on this machine for photos of a size."""
        record = self._read()
        record.speedups[_here(size)] = speedup
        self._write(record)

    def remove(self) -> None:
        """Remove the file from the cache."""
        self._record.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _read(self) -> Record:
        try:
            record = Record(**json.loads(self._record.read_bytes()))
            record.speedups = {str(size): float(speedup) for size, speedup in record.speedups.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UserError("damaged") from error
        if record.versions != _versions():
            raise UserError(f"it has other versions: {record.versions}")
        return record

    def _write(self, record: Record) -> None:
        write_text(self._record, json.dumps(asdict(record), indent=1) + "\n")


def _here(size: str) -> str:
    """The key of a size of photos on this machine: several machines may share a home folder."""
    return f"{platform.node()}: {size}"


def _versions() -> str:
    return f"graph {GRAPH_VERSION}, onnxruntime {version('onnxruntime')}"
