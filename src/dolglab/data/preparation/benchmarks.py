"""Benchmarks whose files are fetched or asked for by hand: what is missing is said, and what is there is checked."""

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

# Below a root, a file for each archive that was unpacked and deleted.
DONE = "unpacked"


@dataclass(frozen=True)
class Published:
    """A file to fetch.

    Args:
        url: its address; one without a host is relative to `base_url`.
        to: where it goes below the root, a file, or the folder into which an archive is unpacked.
        unpack: whether it is an archive, which is deleted once it is unpacked.
        digest: its sum, `md5:HEX` or `sha256:HEX`, where it is known.
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
    """Fetch what of a benchmark can be fetched, and check that it is there as a whole, as an evaluation reads it.

    Args:
        root: the folder it lies in.
        benchmark: makes it, or says what is missing.
        licence: of its images, as far as that is known; it is said first.
        by_hand: what is to be fetched by hand, from where, and where it must lie.
        files: what is fetched, in `mode` "run".
        base_url: where files without an address of their own are.
        mode, parallel: as for `fetch`; what is there already is not asked for again.

    Raises UserError as `fetch` and `benchmark` do, with what is to be done by hand.
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
    """Whether it is there, which is said."""
    try:
        found = benchmark()
    except UserError:
        return False
    report(found)
    return True


def report(found: Benchmark) -> None:
    """Print what a benchmark has, and its protocol."""
    print(f"{found.name}: {len(found.queries):,} queries, {found.num_gallery:,} gallery images, digest {found.digest}")
    for topic, rule in found.protocol.items():
        print(f"  {topic}: {rule}")


def _name(file: Published) -> str:
    return file.url.rpartition("/")[2]


def _remote(file: Published, root: Path, base_url: str) -> RemoteFile:
    url = file.url if "://" in file.url else f"{base_url.rstrip('/')}/{file.url}"
    return RemoteFile(url, root / (_name(file) if file.unpack else file.to), digest=file.digest)
