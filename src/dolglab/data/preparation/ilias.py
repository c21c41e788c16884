"""Download ILIAS: lists, core, and the distractors of a variant, shard by shard."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark
from dolglab.data.benchmarks.ilias import MINI, Variant, distractor_names
from dolglab.data.benchmarks.listing import read_lines
from dolglab.data.preparation.benchmarks import DONE, complete, report
from dolglab.data.preparation.fetch import Mode, archive_numbers, fetch
from dolglab.data.preparation.transfer import RemoteFile
from dolglab.data.preparation.unpacking import unpack
from dolglab.errors import UserError
from dolglab.io import write_text

LISTS = ("image_query_ids.txt", "text_query_ids.txt", "positive_ids.txt", "distractor_ids.txt.gz", MINI)
CHECKSUMS, CORE = "checksums.txt", "ilias_core"


def fetch_ilias(
    root: str | Path,
    benchmark: Callable[[], Benchmark],
    licence: str,
    variant: Variant = "mini",
    archives: object = "all",
    base_url: str = "https://vrg.fel.cvut.cz/ilias_data/",
    taxonomy_url: str = "",
    mode: Mode = "run",
    parallel: int = 2,
) -> None:
    """Download missing files, verify checksums and unpack; then check the benchmark by loading it.

    Args:
        root: the benchmark's folder.
        benchmark: constructor of the benchmark; its error says what is missing.
        licence: licence of the images; it is printed first.
        variant: the variant whose distractors are kept; other images of a shard are deleted.
        archives: numbers of shards (see `archive_numbers`).
        base_url: address of the published files with SHA-256 sums.
        taxonomy_url: address of the taxonomy.
        mode, parallel: as for `fetch`; this many shards are on the disk at a time.

    Raises UserError like `fetch` and `benchmark`.
    """
    root, base = Path(root), base_url.rstrip("/")
    print(f"licence: {licence}")
    if mode == "run" and complete(benchmark):
        return
    lists = [RemoteFile(f"{base}/image_ids/{name}", root / "image_ids" / name) for name in LISTS]
    lists += [RemoteFile(f"{base}/{CHECKSUMS}", root / CHECKSUMS), RemoteFile(taxonomy_url, root / "taxonomy.json")]
    fetch(lists, root, mode, parallel)
    if not all(remote.path.exists() for remote in lists):
        # Without the lists, the other files are not known.
        return
    shards = shards_of(distractor_names(root, variant))
    numbers = archive_numbers(archives, len(shards)) if shards else []
    # Each variant keeps another part of a shard.
    done = {CORE: root / DONE / CORE, **{name: root / DONE / variant / name for name in shards}}
    left = [name for name in (CORE, *(list(shards)[number] for number in numbers)) if not done[name].exists()]
    sums = read_sums(root / CHECKSUMS)
    for start in range(0, len(left), parallel):
        remotes = {name: _archive(sums, name, root) for name in left[start : start + parallel]}

        def finish(remotes: dict[str, RemoteFile] = remotes) -> None:
            for name, remote in remotes.items():
                if name == CORE:
                    unpack(remote.path, root, flat=False)
                else:
                    _unpack_shard(remote.path, root / "yfcc100m" / name, shards[name])
                write_text(done[name], "")
                remote.path.unlink()

        fetch(list(remotes.values()), root, mode, parallel, finish)
    report(benchmark())


def _unpack_shard(archive: Path, folder: Path, names: NDArray[np.bytes_]) -> None:
    """Unpack only the images of a shard that are in its `names`, `SHARD/KEY.jpg`."""
    wanted = {PurePosixPath(os.fsdecode(name)).name for name in names.tolist()}
    unpack(archive, folder, flat=True, keep=lambda path: path.name in wanted)


def shards_of(names: NDArray[np.bytes_]) -> dict[str, NDArray[np.bytes_]]:
    """The files `SHARD/KEY.jpg` of each shard, by its name.

    >>> {name: len(own) for name, own in shards_of(np.array([b"s_1/a.jpg", b"s_0/b.jpg", b"s_1/c.jpg"])).items()}
    {'s_0': 1, 's_1': 2}
    """
    if not len(names):
        return {}
    shards, place = np.unique(np.strings.partition(names, b"/")[0], return_inverse=True)
    order = np.argsort(place, kind="stable")
    parts = np.split(names[order], np.searchsorted(place[order], np.arange(1, len(shards))))
    return dict(zip([shard.decode() for shard in shards.tolist()], parts, strict=True))


def read_sums(path: Path) -> dict[str, tuple[str, str]]:
    """SHA-256 sum and address of each archive, by its name. Raises UserError for lines of another form."""
    found = {}
    for line in read_lines(path, "delete it, and run the command again"):
        digest, _, url = line.partition(" ")
        if len(digest) != 64 or not url.strip().endswith(".tar"):
            raise UserError(f"{path}: {line!r} is not SUM URL.tar: another version")
        found[Path(url.strip()).stem] = f"sha256:{digest}", url.strip()
    return found


def _archive(sums: dict[str, tuple[str, str]], name: str, root: Path) -> RemoteFile:
    if name not in sums:
        raise UserError(f"{root / CHECKSUMS} has no {name}.tar: lists of two versions")
    digest, url = sums[name]
    return RemoteFile(url, root / f"{name}.tar", digest=digest)
