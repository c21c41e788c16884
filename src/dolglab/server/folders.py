"""The folders of a library's photos, named by the shortest unambiguous ends of their paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from fastapi import HTTPException

from dolglab.library.catalogue import Catalogue
from dolglab.library.naming import printable


class Folders:
    """The folders of a catalogue's photos, cached until the catalogue changes."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._known: tuple[int, dict[str, tuple[str, int]]] | None = None

    def find(self, containing: str, limit: int) -> list[tuple[str, int]]:
        """At most `limit` names that contain a text, ignoring case, with the number of photos below each."""
        wanted = containing.casefold()
        found = [(name, count) for name, (_, count) in self._all().items() if wanted in name.casefold()]
        return found[:limit]

    def path(self, name: str) -> str:
        """The path of a folder by its name; "" for "". Raises HTTPException 404 for an unknown name."""
        if not name:
            return ""
        try:
            return self._all()[name][0]
        except KeyError:
            raise HTTPException(404, f"the library has no folder {name}") from None

    def _all(self) -> dict[str, tuple[str, int]]:
        """Path and number of photos by name, sorted by path."""
        known, version = self._known, self._catalogue.version()
        if known is None or known[0] != version:
            below = count_below(self._catalogue.folders())
            names = short_names(below)
            known = self._known = version, {names[path]: (path, below[path]) for path in sorted(below)}
        return known[1]


def count_below(folders: Mapping[str, int]) -> dict[str, int]:
    """The number of photos below each folder worth filtering by, from the number of photos directly in each folder.

    Those are the folders with photos and common parents of several of them, except for one that contains all photos.

    >>> count_below({"/srv/a/1": 1, "/srv/a/2": 2, "/srv/b": 4})
    {'/srv/a': 3, '/srv/a/1': 1, '/srv/a/2': 2, '/srv/b': 4}
    """
    below = Counter[str]()
    for path, count in folders.items():
        for around in accumulate(path.split("/"), "{}/{}".format):
            below[around] += count
    total = sum(folders.values())
    # A parent of a single folder contains the same number of photos as that folder.
    around_one = {path.rpartition("/")[0] for path, count in below.items() if below[path.rpartition("/")[0]] == count}
    return {path: count for path, count in below.items() if path not in around_one and count < total}


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """For each path the shortest end that no other path has, in printable characters.

    >>> short_names(["/srv/paris", "/srv/paris/2019", "/srv/rome/2019"])
    {'/srv/paris': 'paris', '/srv/paris/2019': 'paris/2019', '/srv/rome/2019': 'rome/2019'}
    """
    shown = {path: printable(path) for path in paths}
    ends = Counter(end for path in shown.values() for end in _ends(path))
    return {path: next((end for end in _ends(text) if ends[end] == 1), text) for path, text in shown.items()}


def _ends(path: str) -> Iterator[str]:
    """The last part of a path, the last two, and so on."""
    parts = path.split("/")
    return ("/".join(parts[start:]) for start in range(len(parts) - 1, -1, -1))
