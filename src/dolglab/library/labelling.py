"""Name photos by their neighbours: photos with a name from the user vote for the others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError, pluralize
from dolglab.library.change import Change
from dolglab.library.contents import Keys, Photo, score_column_of
from dolglab.library.labelled import Labelled, by_column, by_folder
from dolglab.library.library import Library
from dolglab.library.maintenance import write_table

UNKNOWN = "unknown"
HEADER = ("photo", "label", "score", "nearest")
# The accepted share of photos of other things that get a name, if the user gives no threshold.
STRANGERS = 0.05
# Number of photos that are named at a time.
BATCH = 512
# Limits of the number of photos, and of their names, with which the threshold is determined.
MAX_SAMPLE, MAX_NAMES = 10_000, 200


def label(
    library: Library,
    out: str | Path,
    *,
    column: str | None = None,
    labelled: str | None = None,
    neighbours: int = 5,
    min_cosine: float | None = None,
    write: bool = False,
) -> None:
    """Write a table of the photos without a name, each with the name that its neighbours give it.

    Prints how well this works for the photos whose names are known.

    Args:
        library: the library with both kinds of photos.
        out: the table: photo, name, cosine of the nearest photo with that name, and that photo.
        column: metadata column with the names; empty values are not names.
        labelled: folder with one sub-folder per name.
        neighbours: number of nearest named photos that vote, each weighted by its cosine.
        min_cosine: photos below this cosine stay unknown; None for a threshold that most photos of other things do not
            reach.
        write: write the names to the column too, marked so that they do not vote and can be replaced.

    Exactly one of `column` and `labelled` is given. Raises UserError if no photo has a name, and for invalid numbers.
    """
    if column is not None and labelled is None:
        found = by_column(library, column)
    elif labelled is not None and column is None:
        found = by_folder(library, labelled)
    else:
        raise UserError("which photos have names? give one of --column NAME, --folder FOLDER")
    if write and column is None:
        raise UserError("--write writes to the column of --column, and --folder has none: omit --write")
    if neighbours < 1 or not -1 <= (min_cosine or 0) <= 1:
        raise UserError("--neighbours must be at least 1, and --least a cosine from -1 to 1")
    with library.writing():
        named = NamedPhotos(library, found, neighbours)
        threshold = _threshold(named, min_cosine)
        counts = Counter[bool]()
        with library.change() if write else nullcontext() as change:
            write_table(Path(out), HEADER, _table_rows(named, threshold, counts, change, column))
    also = f", and the column {column}" if write else ""
    print(f"{pluralize(counts[True], 'photo')} named, {counts[False]} unknown: {out}{also}")


def _threshold(named: NamedPhotos, min_cosine: float | None) -> float:
    """The cosine below which a photo is unknown; prints its effect on the photos with known names."""
    strangers = named.stranger_scores()
    if not len(strangers):
        if min_cosine is None:
            raise UserError("all photos with a name have the same one: give a threshold with --least")
        return min_cosine
    # Rounded up, so that the printed threshold has the same effect.
    learned = math.ceil(1000 * np.quantile(strangers, 1 - STRANGERS)) / 1000
    threshold = learned if min_cosine is None else min_cosine
    right, scores = named.leave_one_out()
    sure = scores >= threshold
    shares = [f"{100 * part.mean():.1f} %" for part in (right & sure, ~right & sure, ~sure)]
    print(
        f"tested with --least {threshold:g} on {pluralize(len(right), 'photo')} with a known name:\n"
        f"  named by the other photos: {shares[0]} correctly, {shares[1]} wrongly, {shares[2]} unknown\n"
        f"  named by photos of other names only: {100 * (strangers >= threshold).mean():.1f} % wrongly"
    )
    return threshold


def _table_rows(
    named: NamedPhotos, threshold: float, counts: Counter[bool], change: Change | None, column: str | None
) -> Iterator[tuple[str, str, str, str]]:
    for photo, name, score, nearest in named.answers():
        sure = score >= threshold
        counts[sure] += 1
        if change is not None and column is not None:
            score_column = score_column_of(column)
            # An earlier name by neighbours is replaced, or removed.
            new = {column: name, score_column: f"{score:.4f}"} if sure else {column: "", score_column: ""}
            if any(photo.metadata.get(key, "") != value for key, value in new.items()):
                change.add_metadata(photo.name, new)
        yield photo.name, name if sure else UNKNOWN, f"{score:.4f}", nearest.name


class NamedPhotos:
    """Photos that the user named, as neighbours of others.

    Args:
        library: the library with the photos.
        labelled: the named photos.
        neighbours: number of nearest photos that vote.

    Attributes:
        keys, names: (n,) each: keys of the named photos, ascending, and the numbers of their names.
        others: (m,) keys of the photos without a name, ascending.
    """

    def __init__(self, library: Library, labelled: Iterable[Labelled], neighbours: int) -> None:
        self.library, self.neighbours = library, neighbours
        numbers: dict[str, int] = {}
        rows = ((each.key, numbers.setdefault(each.label, len(numbers))) for each in labelled)
        table = np.fromiter(rows, np.dtype((np.int64, 2))).reshape(-1, 2)
        self.keys, self.names = table[np.argsort(table[:, 0])].T.copy()
        self.others = np.setdiff1d(library.keys(), self.keys, assume_unique=True)
        self._words = list(numbers)

    def answers(self) -> Iterator[tuple[Photo, str, float, Photo]]:
        """Each unnamed photo with its name by neighbours, and the cosine and photo of the nearest that has the name."""
        for start in range(0, len(self.others), BATCH):
            keys = self.others[start : start + BATCH]
            found = self._votes(keys, self.keys, self.names)
            nearest = found.nearest.tolist()
            photos = self.library.catalogue.photos([*keys.tolist(), *nearest])
            for one, name, score, near in zip(keys.tolist(), found.names, found.scores, nearest, strict=True):
                if one in photos and near in photos:
                    yield photos[one], self._words[name], float(score), photos[near]

    def leave_one_out(self) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """For a sample of (s,) named photos, each named by the others: whether the name is right, and its score."""
        sample = _evenly(np.arange(len(self.keys)), MAX_SAMPLE)
        votes = self._votes(self.keys[sample], self.keys, self.names, among=True)
        return votes.names == self.names[sample], votes.scores

    def stranger_scores(self) -> NDArray[np.float32]:
        """Scores, (s,), of named photos, named by photos of other names only; empty if there is one name."""
        names = _evenly(np.unique(self.names), MAX_NAMES)
        scores = [np.empty(0, np.float32)]
        for name in names.tolist() if len(self._words) > 1 else ():
            own = self.names == name
            keys = _evenly(self.keys[own], min(BATCH, MAX_SAMPLE // len(names)))
            scores.append(self._votes(keys, self.keys[~own], self.names[~own]).scores)
        return np.concatenate(scores)

    def _votes(self, asked: Keys, keys: Keys, names: NDArray[np.int64], among: bool = False) -> Votes:
        """The votes of photos with these keys and names, (k,) each, on the `asked`, (n,).

        With `among` these are some of the voters, who do not vote on themselves.
        """
        count, contents = min(self.neighbours + among, len(keys)), self.library.contents()
        votes: list[Votes] = []
        for own in (asked[start : start + BATCH] for start in range(0, len(asked), BATCH)):
            cosines, found, _ = self.library.store.search(self.library.descriptors(own), count, contents, keys)
            if among:
                cosines, found = without_itself(own, cosines, found)
            votes.append(vote(cosines, found, names[np.searchsorted(keys, found)]))
        return Votes(*(np.concatenate(parts) for parts in zip(*votes, strict=True)))


def _evenly(values: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most `limit` of the values, evenly spaced."""
    return values[:: max(1, -(-len(values) // limit))]


class Votes(NamedTuple):
    """Results of votes, (n,) each: names, and cosines and keys of the nearest photos with these names."""

    names: NDArray[np.int64]
    scores: NDArray[np.float32]
    nearest: NDArray[np.int64]


def vote(cosines: NDArray[np.float32], keys: Keys, names: NDArray[np.int64]) -> Votes:
    """The name with the highest sum of cosines; of equal sums the name of the nearest photo.

    Cosines, keys and names of the neighbours are (n, k) each, nearest first. Negative cosines count as 0.
    """
    same = names[:, :, None] == names[:, None, :]
    totals = (same * np.maximum(cosines, 0)[:, None, :]).sum(2)
    # All photos of a name have the same total, and argmax finds the first, which is the nearest.
    best = totals.argmax(1)
    rows = np.arange(len(best))
    return Votes(names[rows, best], cosines[rows, best], keys[rows, best])


def without_itself(own: Keys, cosines: NDArray[np.float32], keys: Keys) -> tuple[NDArray[np.float32], Keys]:
    """Neighbours, (n, k), without the photos with their `own` keys, (n,): (n, k - 1).

    If a photo is not among its neighbours, because many are equal, the last neighbour is removed.
    """
    itself = keys == own[:, None]
    itself[~itself.any(1), -1] = True
    shape = len(keys), keys.shape[1] - 1
    return cosines[~itself].reshape(shape), keys[~itself].reshape(shape)
