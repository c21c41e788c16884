"""Photos named by their neighbours: those that have a value in a column name those that have none."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError, pluralize
from dolglab.library.change import Change
from dolglab.library.contents import Keys, Photo
from dolglab.library.library import Library
from dolglab.library.maintenance import write_table

UNKNOWN = "unknown"
HEADER = ("photo", "label", "score", "nearest")
# The share of photos of other things that may be given a name, where no threshold is.
STRANGERS = 0.05
# Photos that are asked about at a time.
BATCH = 512
# To learn how far names can be trusted, so many photos are asked about at most; as strangers, of so many names.
MAX_SAMPLE, MAX_NAMES = 10_000, 200


def label(
    library: Library,
    column: str,
    out: str | Path,
    neighbours: int = 5,
    min_cosine: float | None = None,
    write: bool = False,
) -> None:
    """Write a table of the photos that have no name in a column, each with the name that its neighbours give it.

    Prints first how the photos that have one would be named by the others.

    Args:
        library: whose photos name each other.
        column: of the metadata, whose values are the names.
        out: the table: photo, name, the cosine of the nearest photo that has it, and that photo.
        neighbours: how many of the nearest photos that have a name vote, each with its cosine.
        min_cosine: below it a photo is unknown; None finds one that most photos of other things do not reach.
        write: put the names into the library's column too, marked, so that they do not vote and can be made anew.

    Raises UserError where no photo has a name, and for numbers that make no sense.
    """
    if neighbours < 1 or not -1 <= (min_cosine or 0) <= 1:
        raise UserError("--neighbours must be at least 1, and --least a cosine from -1 to 1")
    with library.writing():
        named = NamedPhotos(library, column, neighbours)
        threshold = _threshold(named, min_cosine)
        counts = Counter[bool]()
        with library.change() if write else nullcontext() as change:
            write_table(Path(out), HEADER, _table_rows(named, threshold, change, counts))
    also = f", and the column {column}" if write else ""
    print(f"{pluralize(counts[True], 'photo')} named, {counts[False]} unknown: {out}{also}")


def _threshold(named: NamedPhotos, min_cosine: float | None) -> float:
    """The cosine below which a photo is unknown; prints what it does to the photos that have a name."""
    strangers = named.stranger_scores()
    if not len(strangers):
        if min_cosine is None:
            raise UserError(f"all photos in {named.column} have one name: say with --least what is unlike them")
        return min_cosine
    # Rounded up, so that what is printed does the same.
    learned = math.ceil(1000 * np.quantile(strangers, 1 - STRANGERS)) / 1000
    threshold = learned if min_cosine is None else min_cosine
    right, scores = named.leave_one_out()
    sure = scores >= threshold
    shares = [f"{100 * part.mean():.1f} %" for part in (right & sure, ~right & sure, ~sure)]
    print(
        f"tried with --least {threshold:g} on {pluralize(len(right), 'photo')} whose name is known:\n"
        f"  as if it had none: {shares[0]} get their own name, {shares[1]} another one, {shares[2]} are unknown\n"
        f"  as if no photo had that name: {100 * (strangers >= threshold).mean():.1f} % get another one"
    )
    return threshold


def _table_rows(
    named: NamedPhotos, threshold: float, change: Change | None, counts: Counter[bool]
) -> Iterator[tuple[str, str, str, str]]:
    column, score_column = named.column, score_column_of(named.column)
    for photo, name, score, nearest in named.answers():
        sure = score >= threshold
        counts[sure] += 1
        if change is not None:
            # What was put there before goes.
            others = {key: value for key, value in photo.metadata.items() if key not in (column, score_column)}
            metadata = others | ({column: name, score_column: f"{score:.4f}"} if sure else {})
            if metadata != photo.metadata:
                change.set_metadata(photo.name, metadata)
        yield photo.name, name if sure else UNKNOWN, f"{score:.4f}", nearest.name


def score_column_of(column: str) -> str:
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

    Raises UserError where no photo has one.
    """

    def __init__(self, library: Library, column: str, neighbours: int) -> None:
        self.library, self.column, self.neighbours = library, column, neighbours
        numbers: dict[str, int] = {}
        tables = [np.empty((0, 2), np.int64)]
        for page in library.catalogue.pages():
            rows: list[tuple[int, int]] = []
            for photo, key in page:
                by_hand = score_column_of(column) not in photo.metadata
                name = photo.metadata.get(column) if by_hand else None
                if key is not None:
                    rows.append((key, numbers.setdefault(name, len(numbers)) if name else -1))
            tables.append(np.array(rows, np.int64).reshape(-1, 2))
        table = np.concatenate(tables)
        table = table[np.argsort(table[:, 0])]
        named = table[:, 1] >= 0
        self._words = list(numbers)
        self.keys, self.names = table[named].T.copy()
        self.others = table[~named, 0]
        if not len(self.keys):
            columns = ", ".join(library.catalogue.columns()) or "none"
            raise UserError(
                f"no photo has {column}: the columns are {columns} (dolglab embed --metadata joins a table)"
            )

    def answers(self) -> Iterator[tuple[Photo, str, float, Photo]]:
        """Each photo without a name, its name by neighbours, the cosine of the nearest that has it, and that photo."""
        for start in range(0, len(self.others), BATCH):
            keys = self.others[start : start + BATCH]
            found = self._votes(keys, self.keys, self.names)
            nearest = found.nearest.tolist()
            photos = self.library.catalogue.photos([*keys.tolist(), *nearest])
            for one, name, score, near in zip(keys.tolist(), found.names, found.scores, nearest, strict=True):
                if one in photos and near in photos:
                    yield photos[one], self._words[name], float(score), photos[near]

    def leave_one_out(self) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Of (s,) photos with a name, of many a sample, each asked about as if it had none: is it right, its score."""
        sample = _evenly(np.arange(len(self.keys)), MAX_SAMPLE)
        votes = self._votes(self.keys[sample], self.keys, self.names, among=True)
        return votes.names == self.names[sample], votes.scores

    def stranger_scores(self) -> NDArray[np.float32]:
        """Scores, (s,), of photos with a name, asked about as if no photo had that name; none of a single name."""
        names = _evenly(np.unique(self.names), MAX_NAMES)
        scores = [np.empty(0, np.float32)]
        for name in names.tolist() if len(self._words) > 1 else ():
            own = self.names == name
            keys = _evenly(self.keys[own], min(BATCH, MAX_SAMPLE // len(names)))
            scores.append(self._votes(keys, self.keys[~own], self.names[~own]).scores)
        return np.concatenate(scores)

    def _votes(self, asked: Keys, keys: Keys, names: NDArray[np.int64], among: bool = False) -> Votes:
        """What photos with these keys, (k,), and names say of others, (n,); `among`: of each of their own, the rest."""
        count, contents = min(self.neighbours + among, len(keys)), self.library.contents()
        votes: list[Votes] = []
        for own in (asked[start : start + BATCH] for start in range(0, len(asked), BATCH)):
            cosines, found, _ = self.library.store.search(self.library.descriptors(own), count, contents, keys)
            if among:
                cosines, found = without_itself(own, cosines, found)
            votes.append(vote(cosines, found, names[np.searchsorted(keys, found)]))
        return Votes(*(np.concatenate(parts) for parts in zip(*votes, strict=True)))


def _evenly(values: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most so many of the values, from all over."""
    return values[:: max(1, -(-len(values) // limit))]


class Votes(NamedTuple):
    """What neighbours say: (n,) names, and of each the cosine and the key of the nearest photo that has it."""

    names: NDArray[np.int64]
    scores: NDArray[np.float32]
    nearest: NDArray[np.int64]


def vote(cosines: NDArray[np.float32], keys: Keys, names: NDArray[np.int64]) -> Votes:
    """The name whose cosines, added, are highest; of equals that of the nearest.

    All are (n, k), nearest first: cosines, keys and names of the neighbours. Negative cosines count for nothing.
    """
    same = names[:, :, None] == names[:, None, :]
    totals = (same * np.maximum(cosines, 0)[:, None, :]).sum(2)
    # All photos of one name have the same total, and the nearest of them stands first.
    best = totals.argmax(1)
    rows = np.arange(len(best))
    return Votes(names[rows, best], cosines[rows, best], keys[rows, best])


def without_itself(own: Keys, cosines: NDArray[np.float32], keys: Keys) -> tuple[NDArray[np.float32], Keys]:
    """Neighbours, (n, k - 1), of photos that were found among them, (n, k), by their `own` keys, (n,).

    Instead of one that is not found, behind many equal ones, the last goes.
    """
    itself = keys == own[:, None]
    itself[~itself.any(1), -1] = True
    shape = len(keys), keys.shape[1] - 1
    return cosines[~itself].reshape(shape), keys[~itself].reshape(shape)
