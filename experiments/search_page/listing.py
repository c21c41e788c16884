"""Time to list photos of a large library: python experiments/search_page/listing.py LIBRARY [PHOTOS]

Makes a catalogue like LIBRARY's of PHOTOS synthetic photos in random order, without descriptors.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dolglab.library.catalogue import Catalogue
from dolglab.library.contents import Photo
from dolglab.library.library import Library
from dolglab.server.folders import Folders

ROUNDS, PAGE = 9, 60
# The number of distinct values of each column.
VALUES = {"year": 30, "person": 10_000, "kind": 1}


def main(library: str, photos: str = "200000") -> None:
    """Make the catalogue, query it as the server does, and print medians."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), Path(library), int(photos))
        made = Library(folder)
        catalogue, folders = made.catalogue, Folders(made.catalogue)
        last = int(photos) - PAGE
        path = folders.path("1995")
        tell("the first page", lambda: (len(made), catalogue.page(0, PAGE, {})))
        tell("the page in the middle", lambda: (len(made), catalogue.page(last // 2, PAGE, {})))
        tell("the last page", lambda: (len(made), catalogue.page(last, PAGE, {})))
        tell("a folder of a thirtieth", lambda: (catalogue.count({}, path), catalogue.page(0, PAGE, {}, path)))
        for column, value in (("person", "07770"), ("year", "5"), ("kind", "0")):
            chosen = {column: value}
            count = catalogue.count(chosen)
            tell(
                f"{column}, {count} photos",
                lambda chosen=chosen: (catalogue.count(chosen), catalogue.page(0, PAGE, chosen)),
            )
        tell("20 of 10,000 values that contain 77", lambda: catalogue.values("person", 20, "77"))
        tell("folders, after a change", lambda: Folders(catalogue).find("", PAGE))
        tell("folders", lambda: folders.find("album 07", PAGE))


def make(folder: Path, like: Path, count: int) -> None:
    """Make a catalogue of `count` photos."""
    source = Catalogue(like)
    Catalogue.create(folder, {"identity": source.identity(), "store": source.store()})
    with Catalogue(folder).change() as change:
        keys = change.add_segment(count, lambda number: "flat")
        names = (
            f"/srv/photos/{1990 + i % 30}/album {i % 97:03d}/{i:07d}.jpg"
            for i in np.random.default_rng(0).permutation(count)
        )
        photos = [
            Photo(
                name,
                1,
                1,
                (768, 1024),
                metadata={column: f"{i % many:05d}" if many > 30 else str(i % many) for column, many in VALUES.items()},
            )
            for i, name in enumerate(names)
        ]
        change.put(photos, keys.tolist())


def tell(title: str, work: Callable[[], object]) -> None:
    """Print the median duration of `work`."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    print(f"{title}: {statistics.median(seconds) * 1e3:.1f} ms")


if __name__ == "__main__":
    main(*sys.argv[1:])
