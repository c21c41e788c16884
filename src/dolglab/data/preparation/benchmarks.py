"""Prepare benchmarks whose files are downloaded or obtained by hand: name missing files and check existing ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dolglab.contracts import Benchmark
from dolglab.data.preparation.fetch import Mode, fetch
from dolglab.data.preparation.transfer import RemoteFile
from dolglab.data.preparation.unpacking import unpack
from dolglab.errors import UserError
from dolglab.io import write_text

# A folder below the root with a marker for each archive that was unpacked and deleted.
DONE = "unpacked"


@dataclass(frozen=True)
class Published:
    """A file to download.

    Args:
        url: its address; one without a host is relative to `base_url`.
        to: its path below the root, or the folder into which an archive is unpacked.
        unpack: whether it is an archive, which is deleted after unpacking.
        digest: its checksum, `md5:HEX` or `sha256:HEX`, if known.
    """

    url: str
    to: str
    unpack: bool = False
    digest: str | None = None


def prepare_benchmark(
    root: str | Path,
    benchmark: Callable[[], Benchmark],
    licence: str,
    by_hand: str = "",
    files: Sequence[Published] = (),
    base_url: str = "",
    mode: Mode = "run",
    parallel: int = 2,
) -> None:
    """Download the files of a benchmark that can be downloaded, and check that it is complete by loading it.

    Args:
        root: the benchmark's folder.
        benchmark: constructor of the benchmark; its error says what is missing.
        licence: licence of the images, if known; it is printed first.
        by_hand: the files to obtain by hand, their source, and their place in the folder.
        files: the files that `mode` "run" downloads.
        base_url: base address of files without a host.
        mode, parallel: as for `fetch`; existing files are not requested again.

    Raises UserError like `fetch` and `benchmark`, with the steps to do by hand.
    """
    root = Path(root)
    print(f"licence: {licence}")
    if mode == "run" and complete(benchmark):
        return
    published = {
        file: _remote(file, root, base_url)
        for file in files
        if not (file.unpack and (root / DONE / _name(file)).exists())
    }

    def finish() -> None:
        for file, remote in published.items():
            if file.unpack:
                unpack(remote.path, root / file.to, flat=False)
                write_text(root / DONE / _name(file), "")
                remote.path.unlink()

    try:
        if published:
            fetch(list(published.values()), root, mode, parallel, finish)
        report(benchmark())
    except UserError as error:
        raise UserError(f"{error}; by hand: {by_hand}" if by_hand else str(error)) from error


def complete(benchmark: Callable[[], Benchmark]) -> bool:
    """Whether the benchmark is complete; prints the result."""
    try:
        found = benchmark()
    except UserError:
        return False
    report(found)
    return True


def report(found: Benchmark) -> None:
    """Print a benchmark's contents and protocol."""
    print(f"{found.name}: {len(found.queries):,} queries, {found.num_gallery:,} gallery images, digest {found.digest}")
    for topic, rule in found.protocol.items():
        print(f"  {topic}: {rule}")


def _name(file: Published) -> str:
    return file.url.rpartition("/")[2]


def _remote(file: Published, root: Path, base_url: str) -> RemoteFile:
    url = file.url if "://" in file.url else f"{base_url.rstrip('/')}/{file.url}"
    return RemoteFile(url, root / (_name(file) if file.unpack else file.to), digest=file.digest)
