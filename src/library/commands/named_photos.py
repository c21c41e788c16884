"""The photos of a library that have a name in a column, and what they say of others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from src.contracts import InputError
from src.library.commands.votes import Votes, vote, without_itself
from src.library.contents import Photo
from src.library.library import Library

# Photos that are asked about at a time.
AT_ONCE = 512
# To learn how far names can be trusted, so many photos are asked about at most; as strangers, of so many names.
SAMPLE, NAMES = 10_000, 200


def mark_of(column: str) -> str:
    """The column that says of a name that neighbours gave it, and with which score: such a photo does not vote."""
    return f"{column} score"


class NamedPhotos:
    """Photos that have a name by hand, as neighbours of others.

    Args:
        library: whose photos they are.
        column: of the metadata; any value but an empty one is a name.
        neighbours: how many of the nearest vote.

    Attributes:
        keys, names: (n,) of the photos that have a name: their keys, ascending, and which name.
        others: (m,) keys of the photos that have none.

    Raises InputError where no photo has one.
    """

    def __init__(self, library: Library, column: str, neighbours: int) -> None:
        self.library, self.column, self.neighbours = library, column, neighbours
        self._words: list[str] = []
        places: dict[str, int] = {}
        tables = [np.empty((0, 2), np.int64)]
        for page in library.catalogue.pages():
            rows = [
                (key, places.setdefault(name, len(places)) if (name := self._name(photo)) else -1)
                for photo, key in page
                if key is not None
            ]
            tables.append(np.array(rows, np.int64).reshape(-1, 2))
        table = np.concatenate(tables)
        table = table[np.argsort(table[:, 0])]
        named = table[:, 1] >= 0
        self._words = list(places)
        self.keys, self.names = table[named].T.copy()
        self.others = table[~named, 0]
        if not len(self.keys):
            columns = ", ".join(library.catalogue.columns()) or "none"
            raise InputError(f"no photo has {column}: the columns are {columns} (src.embed --metadata joins a table)")

    def answers(self) -> Iterator[tuple[Photo, str, float, Photo]]:
        """Of each photo without a name: the photo, the name by its neighbours, the cosine of the nearest that has it.

        The last is that nearest one.
        """
        for start in range(0, len(self.others), AT_ONCE):
            keys = self.others[start : start + AT_ONCE]
            found = self._votes(keys, self.keys, self.names)
            nearest = found.nearest.tolist()
            photos = self.library.catalogue.photos([*keys.tolist(), *nearest])
            for one, name, score, near in zip(keys.tolist(), found.names, found.scores, nearest, strict=True):
                if one in photos and near in photos:
                    yield photos[one], self._words[name], float(score), photos[near]

    def left_out(self) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Of the photos with a name, or of many a sample, each asked about as if it had none: is it right, its score.

        Both are (s,).
        """
        sample = _evenly(np.arange(len(self.keys)), SAMPLE)
        right, scores = np.zeros(len(sample), np.bool_), np.zeros(len(sample), np.float32)
        for start in range(0, len(sample), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            votes = self._votes(self.keys[sample[part]], self.keys, self.names, among=True)
            right[part], scores[part] = votes.names == self.names[sample[part]], votes.scores
        return right, scores

    def strangers(self) -> NDArray[np.float32]:
        """Scores, (s,), of photos with a name, asked about as if no photo had that name; none of a single name."""
        names = _evenly(np.unique(self.names), NAMES)
        scores = [np.empty(0, np.float32)]
        for name in names.tolist() if len(self._words) > 1 else ():
            own = self.names == name
            keys = _evenly(self.keys[own], min(AT_ONCE, SAMPLE // len(names)))
            scores.append(self._votes(keys, self.keys[~own], self.names[~own]).scores)
        return np.concatenate(scores)

    def _name(self, photo: Photo) -> str:
        """A photo's name by hand; empty where it has none."""
        return "" if mark_of(self.column) in photo.metadata else photo.metadata.get(self.column, "")

    def _votes(
        self, asked: NDArray[np.int64], keys: NDArray[np.int64], names: NDArray[np.int64], among: bool = False
    ) -> Votes:
        """What photos with these keys, (k,), and names say of others, (n,); `among`: of each of their own, the rest."""
        most = min(self.neighbours + among, len(keys))
        cosines, found = self.library.nearest(self.library.descriptors(asked), most, keys)
        if among:
            cosines, found = without_itself(asked, cosines, found)
        return vote(cosines, found, names[np.searchsorted(keys, found)])


def _evenly(values: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of the values, from all over."""
    return values[:: max(1, -(-len(values) // most))]
