"""Download published files in parallel and verify them: those of GLDv2, and any list of files."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, get_args

import httpx
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from dolglab.data.archive_source import index_archives
from dolglab.data.preparation.transfer import RemoteFile, Session, digest_of, expected_digest, transfer
from dolglab.data.sources import file_size
from dolglab.errors import UserError, os_error_text, truncate_list
from dolglab.io import folder_lock

Mode = Literal["run", "verify", "status"]
MODES = (*get_args(Mode), "index")
# The number of archives of each split, and its csv files, relative to the published root.
ARCHIVES = {"train": 500, "index": 100, "test": 20}
TABLES = {
    "train": (
        "metadata/train_clean.csv",
        "metadata/train.csv",
        "metadata/train_label_to_category.csv",
        "metadata/train_label_to_hierarchical.csv",
    ),
    "index": ("metadata/index.csv", "metadata/index_image_to_landmark.csv", "metadata/index_label_to_hierarchical.csv"),
    "test": (
        "metadata/test.csv",
        "ground_truth/recognition_solution_v2.1.csv",
        "ground_truth/retrieval_solution_v2.1.csv",
    ),
}
# Space in bytes that must stay free after the download.
SPARE_BYTES = 100_000_000
DAMAGED = ".damaged"


def fetch_gldv2(
    root: str | Path,
    split: str,
    archives: object = "all",
    base_url: str = "https://s3.amazonaws.com/google-landmark/",
    mode: Mode | Literal["index"] = "run",
    parallel: int = 4,
) -> None:
    """Download Google Landmarks v2: a split's csv files to `root`, its archives to `root/SPLIT/images_XXX.tar`.

    The archives are then indexed, so that training reads them directly; `index` does only that.
    Raises UserError for an unknown split or archive, and like `fetch` and `index_archives`.
    """
    if mode not in MODES:
        raise UserError(f"mode={mode} is not one of {', '.join(MODES)}")
    root = Path(root)
    files = gldv2_files(root, split, archives, base_url)
    # The index covers the archives that exist.
    if mode != "index":
        fetch(files, root, mode, parallel)
    if mode == "index" or (mode == "run" and any((root / split).glob("*.tar"))):
        index_archives(root / split, parallel)


def gldv2_files(root: Path, split: str, archives: object, base_url: str) -> list[RemoteFile]:
    """The csv files and archives of a split. Raises UserError for an unknown split or archive."""
    if split not in ARCHIVES:
        raise UserError(f"split={split} is not one of {', '.join(ARCHIVES)}")
    base = base_url.rstrip("/")
    names = [f"images_{number:03}" for number in archive_numbers(archives, ARCHIVES[split])]
    return [
        *(RemoteFile(f"{base}/{table}", root / Path(table).name) for table in TABLES[split]),
        *(
            RemoteFile(
                f"{base}/{split}/{name}.tar", root / split / f"{name}.tar", f"{base}/md5sum/{split}/md5.{name}.txt"
            )
            for name in names
        ),
    ]


def archive_numbers(given: object, count: int, first: int = 0) -> list[int]:
    """The archives given as `all`, `none`, a number, a span such as 0-499, or a list of these.

    Raises UserError for anything else, and for numbers outside the `count` numbers from `first`.

    >>> archive_numbers("0-2,7", 10)
    [0, 1, 2, 7]
    """
    available = range(first, first + count)
    if given == "all":
        return list(available)
    if given is None or given == "none":
        return []
    parts = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else str(given).split(",")
    found: set[int] = set()
    for part in parts:
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", str(part))
        start, end = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if start > end or start not in available or end not in available:
            raise UserError(f"archives={part}: give all, none, numbers or spans within {available[0]}-{available[-1]}")
        found.update(range(start, end + 1))
    return sorted(found)


def fetch(
    remotes: Sequence[RemoteFile],
    root: Path,
    mode: Mode = "run",
    parallel: int = 4,
    finish: Callable[[], None] = lambda: None,
    retries: int = 6,
    pause: float = 1.0,
    spare_bytes: int = SPARE_BYTES,
) -> None:
    """Download published files to `root`, or check the existing ones.

    Args:
        remotes: the files.
        root: the folder, which is locked during the download, and whose disk must have enough space.
        mode: `run` downloads missing files; `verify` compares existing files with the published checksums and renames
            damaged ones, so that the next run downloads them again; `status` lists what exists, without the network.
        parallel: number of transfers at a time.
        finish: called with the files by `run` when all exist, while the folder is still locked.
        retries, pause: number of retries, and seconds before the first (see `Session`).
        spare_bytes: space that must stay free.

    Raises UserError for an unknown mode, too little space, and a folder that cannot be written or that another process
    is preparing; for files that could not be downloaded, after all others were tried; and in `verify` for missing or
    damaged files.
    """
    if mode not in get_args(Mode):
        raise UserError(f"mode={mode} is not one of {', '.join(get_args(Mode))}")
    if parallel < 1:
        raise UserError(f"parallel must be at least 1, not {parallel}")
    if mode == "status":
        missing = [remote.path.name for remote in remotes if not remote.path.exists()]
        parts = [remote for remote in remotes if not remote.path.exists() and remote.part.exists()]
        size = sum(file_size(remote.path) or 0 for remote in remotes)
        print(f"{len(remotes) - len(missing)} of {len(remotes)} files exist, {decimal(size)}")
        if parts:
            size = sum(remote.arrived for remote in parts)
            print(f"{len(parts)} incomplete, {decimal(size)}: {truncate_list([remote.path.name for remote in parts])}")
        if missing:
            print(f"{len(missing)} missing: {truncate_list(missing)}")
        return
    # A silent server must not block an interrupted run; bytes that have arrived are kept, and the rest is requested
    # again.
    timeout, limits = httpx.Timeout(60, connect=20, read=15), httpx.Limits(max_connections=parallel + 1)
    with folder_lock(root), httpx.Client(follow_redirects=True, timeout=timeout, limits=limits) as client:
        session = Session(client, retries, pause)
        if mode == "verify":
            _verify(session, remotes, parallel)
            return
        _run(session, remotes, root, parallel, spare_bytes)
        finish()


def _run(session: Session, remotes: Sequence[RemoteFile], root: Path, parallel: int, spare_bytes: int) -> None:
    wanted = [remote for remote in remotes if not remote.path.exists()]
    if not wanted:
        print(f"all {len(remotes)} files exist already")
        return
    with ThreadPoolExecutor(parallel) as pool:
        sizes = list(pool.map(lambda remote: _size_of(session.client, remote.url), wanted))
    if not any(size is not None for size in sizes):
        host = httpx.URL(wanted[0].url).host
        raise UserError(f"{host or wanted[0].url} cannot be reached: check the network, or base_url=...")
    arrived = [remote.arrived for remote in wanted]
    missing = sum(max(0, (size or 0) - part) for size, part in zip(sizes, arrived, strict=True))
    free = shutil.disk_usage(root).free
    if free < missing + spare_bytes:
        raise UserError(
            f"{root} has {decimal(free)} free, but {decimal(missing)} are needed: free some space, or download less"
        )
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    last = TextColumn("{task.fields[last]}")
    with Progress(*columns, last, disable=not sys.stdout.isatty(), transient=True) as bar:
        task = bar.add_task("", total=sum(size or 0 for size in sizes) or None, completed=sum(arrived), last="")

        def bring(remote: RemoteFile) -> None:
            transfer(session, remote, lambda count: bar.advance(task, count))
            bar.update(task, last=remote.path.name)
            if bar.disable:
                print(remote.path.name, flush=True)

        failed = _for_all(bring, wanted, parallel, session.stop)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(wanted)} files could not be downloaded, the first: {failed[0]}; the same command "
            "downloads the missing ones"
        )
    print(f"{len(wanted)} files downloaded, all {len(remotes)} exist now")


def _verify(session: Session, remotes: Sequence[RemoteFile], parallel: int) -> None:
    missing = [remote.path.name for remote in remotes if not remote.path.exists()]
    wanted = [remote for remote in remotes if (remote.md5_url or remote.digest) and remote.path.exists()]
    damaged: list[str] = []

    def compare(remote: RemoteFile) -> None:
        expected = expected_digest(session, remote)
        if expected is not None and digest_of(remote.path, expected) != expected:
            os.replace(remote.path, f"{remote.path}{DAMAGED}")
            damaged.append(remote.path.name)

    failed = _for_all(compare, wanted, parallel, session.stop)
    if wanted:
        print(f"{len(wanted) - len(damaged) - len(failed)} of {len(wanted)} files have the published checksum")
    else:
        print("no checksums are published for the existing files")
    problems = [
        *([f"{len(missing)} missing ({truncate_list(missing)})"] if missing else []),
        *([f"{len(damaged)} damaged, renamed to NAME{DAMAGED} ({truncate_list(sorted(damaged))})"] if damaged else []),
        *([f"{len(failed)} could not be compared ({failed[0]})"] if failed else []),
    ]
    if problems:
        raise UserError(f"{'; '.join(problems)}; mode=run downloads missing files")


def _for_all(
    work: Callable[[RemoteFile], None], remotes: Sequence[RemoteFile], parallel: int, stop: threading.Event
) -> list[str]:
    """Do `work` on every file and return the errors, continuing after each; a full disk or an interrupt stops all."""
    failed: list[str] = []
    with ThreadPoolExecutor(parallel) as pool:
        jobs = [pool.submit(work, remote) for remote in remotes]
        try:
            for job in jobs:
                try:
                    job.result()
                except UserError as error:
                    failed.append(str(error))
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            advice = "the disk is full: what was downloaded is kept; free some space, then run again"
            raise UserError(advice if full else os_error_text(error)) from error
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    return failed


def _size_of(client: httpx.Client, url: str) -> int | None:
    """The size of a remote file in bytes; 0 if the server does not state it, None if there is no server."""
    try:
        response = client.head(url, headers={"Accept-Encoding": "identity"})
    except httpx.InvalidURL as error:
        raise UserError(f"{url}: {error}; check base_url=...") from error
    except httpx.HTTPError:
        return None
    return int(response.headers.get("content-length", 0)) if response.status_code == 200 else 0
