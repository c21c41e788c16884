"""The million distractors of Revisited Oxford and Paris, which answer no query (Radenovic et al., CVPR 2018)."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.contracts import Benchmark, InputError
from src.data.presence import file_sizes, require_all
from src.data.sources import FolderSource, JoinedSource
from src.errors import some

LIST = "revisitop1m.txt"
PUBLISHED = 1_001_001


@dataclass(frozen=True)
class Distractors:
    """The distractors that are there, how many were listed, and a fingerprint of names and sizes in bytes."""

    source: FolderSource
    listed: int
    digest: str

    @property
    def published(self) -> bool:
        """Whether as many are listed as were published."""
        return self.listed == PUBLISHED

    @property
    def suffix(self) -> str:
        """What a benchmark's name ends in with them."""
        return "+1M" if self.published else f"+{self.listed}"


def load_distractors(root: str | Path, subset: bool = False) -> Distractors:
    """The images `root/jpg/NAME` that `root/revisitop1m.txt` names, one NAME a line, with folder and extension.

    Results call them `ROOT/jpg/NAME`, which no image of a gallery is called.

    Args:
        root: as `python -m src.prepare task=revisitop1m` makes it.
        subset: leave out those that are not there.

    Raises:
        InputError: no list, an empty one, a name that comes twice, images that are not there.
    """
    root = Path(root).absolute()
    fetch = f"python -m src.prepare task=revisitop1m root={root} fetches them"
    names = read_list(root / LIST, fetch)
    sizes = file_sizes(root / "jpg", names)
    if not subset:
        require_all(root / "jpg", names, sizes, f"{fetch}; subset=true evaluates what is there")
    there = sizes >= 0
    kept = names[there]
    fingerprint = hashlib.sha256(b"\n".join(kept.tolist()))
    fingerprint.update(sizes[there].astype("<i8").tobytes())
    prefix = os.fsencode(f"{root.name}/jpg/")
    return Distractors(FolderSource(root.parent, np.strings.add(prefix, kept)), len(names), fingerprint.hexdigest())


def with_distractors(benchmark: Benchmark, distractors: Distractors) -> Benchmark:
    """The benchmark with further negatives between its gallery and its queries, which lie behind the gallery."""
    count, gallery = len(distractors.source), benchmark.num_gallery
    assert isinstance(benchmark.source, FolderSource)
    rows = np.arange(len(benchmark.source))
    before, behind = benchmark.source.take(rows[:gallery]), benchmark.source.take(rows[gallery:])
    return replace(
        benchmark,
        source=JoinedSource(before, distractors.source, behind),
        num_gallery=gallery + count,
        queries=benchmark.queries + count,
        digest=hashlib.sha256(f"{benchmark.digest} {distractors.digest}".encode()).hexdigest()[:16],
    )


def read_list(path: Path, hint: str) -> NDArray[np.bytes_]:
    """The names in a list, one a line, blank lines aside; in one array of fixed width, since there are a million.

    Raises InputError without a list, without names, or for names that come twice.
    """
    try:
        lines = [line.strip() for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise InputError(f"the list of distractors cannot be read: {path} ({error.strerror}; {hint})") from error
    lines = [line for line in lines if line]
    if not lines:
        raise InputError(f"{path} lists no distractors ({hint})")
    if len(set(lines)) < len(lines):
        twice = [os.fsdecode(name) for name, count in Counter(lines).items() if count > 1]
        raise InputError(f"{path} lists names more than once: {some(twice)}")
    return np.array(lines, dtype=np.bytes_)
