"""Linear maps learnt from labelled descriptors: several kinds, of which held-out labels choose one and say its worth.

Whitening (Jegou and Chum, ECCV 2012), discriminants (Mikolajczyk and Matas, ICCV 2007; Fisher, 1936), both with
shrinkage (Ledoit and Wolf, 2004), and a linear layer that begins as the discriminants and is trained with a margin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from dolglab.bootstrap import difference
from dolglab.contracts import BoolArray, FloatArray, IntArray
from dolglab.errors import UserError
from dolglab.losses.margin import ArcFace, CosFace, MarginHead
from dolglab.measures import average_precision
from dolglab.progress import track
from dolglab.retrieval.large_arrays import l2_normalized
from dolglab.retrieval.whitening import moments, pca_projection, supervised_projection

# Directions that are learnt with; of longer descriptors those of largest variance.
MAX_DIM = 512
# The share of each landmark's photos that is held out, two at least, and from how many photos on.
SHARE, LEAST_HELD, HELD_FROM = 0.2, 2, 3
# Groups of landmarks, each of which is left out once.
GROUPS = 4
# What it takes: so many landmarks of so many photos, so that photos are held out of what is left as well.
MIN_LANDMARKS, MIN_PHOTOS = 3, 5
# Photos that candidates are compared on, at least so many of a landmark where it has them; held-out photos that ask.
CHOICE_PHOTOS, CHOICE_SHARE, MAX_QUERIES = 3000, 20, 2000
# Of the margin layers.
SCALE, STEPS, BATCH, RATE, START_SHRINK = 30.0, 150, 128, 1e-3, 0.5

Float64Array = NDArray[np.float64]


class Affine(NamedTuple):
    """x -> W x + b: W is (d, D), b (d,)."""

    weight: Float64Array
    bias: Float64Array

    def __call__(self, descriptors: FloatArray) -> FloatArray:
        """(N, D) to (N, d), L2-normalised."""
        return l2_normalized(descriptors @ self.weight.T + self.bias)


# Learns from descriptors, (N, D), and the landmark of each, (N,).
Learner = Callable[[FloatArray, IntArray], Affine]


class Gain(NamedTuple):
    """Average precision of held-out photos, (Q,) each, before and after; NaN of one whose landmark has no other."""

    before: Float64Array
    after: Float64Array

    def figures(self) -> dict[str, float]:
        """mAP before and after, the gain with its paired 95 % bootstrap interval over the queries, and how many."""
        gain, low, high = difference(self.after.tolist(), self.before.tolist())
        counted = int(np.isfinite(self.after).sum())
        means = {"before": float(np.nanmean(self.before)), "after": float(np.nanmean(self.after))}
        return {**means, "gain": gain, "low": low, "high": high, "queries": counted}


class Learnt(NamedTuple):
    """A map that was learnt from all labels, the kind that was chosen for it, and what held-out labels say of that.

    `seen` is of held-out photos of landmarks that others of were learnt from, `unseen` of the same photos when nothing
    of their landmark was.
    """

    affine: Affine
    kind: str
    seen: Gain
    unseen: Gain


def whitening(descriptors: FloatArray, labels: IntArray, shrink: float) -> Affine:
    """Equal variance in every direction, by all descriptors; the labels say nothing to it."""
    mean, covariance = moments(descriptors)
    return _scaled(descriptors, mean, pca_projection(covariance, shrink))


def discriminants(descriptors: FloatArray, labels: IntArray, shrink: float) -> Affine:
    """Equal variance of a landmark's photos about their mean in every direction, shrunk.

    Raises UserError where no two photos of a landmark differ.
    """
    mean, covariance = moments(descriptors)
    projection = supervised_projection(covariance, within_scatter(descriptors, labels), shrink)
    if projection is None:
        raise UserError("all photos of a landmark have one descriptor: there is nothing to learn from")
    return _scaled(descriptors, mean, projection)


def within_scatter(descriptors: FloatArray, labels: IntArray) -> Float64Array:
    """Covariance of descriptors, (N, D), about the mean of their own landmark, (D, D)."""
    members, counts = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    sums = np.zeros((len(counts), descriptors.shape[1]))
    np.add.at(sums, members, descriptors)
    means = (sums / counts[:, None]).astype(np.float32)
    return moments(descriptors - means[members])[1]


def margin_layer(descriptors: FloatArray, labels: IntArray, head: type[MarginHead], margin: float) -> Affine:
    """A linear layer that begins as shrunk discriminants, trained with a margin head whose centres begin as means."""
    start = discriminants(descriptors, labels, START_SHRINK)
    classes = torch.from_numpy(np.unique(labels, return_inverse=True)[1])
    rows = torch.from_numpy(descriptors)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.Linear(*reversed(start.weight.shape))
        layer.load_state_dict({"weight": torch.from_numpy(start.weight), "bias": torch.from_numpy(start.bias)})
        centres = head(len(start.weight), int(classes.max()) + 1, margin, SCALE)
        with torch.no_grad():
            centres.weight.zero_().index_add_(0, classes, F.normalize(layer(rows)))
            centres.weight.copy_(F.normalize(centres.weight))
        optimizer = torch.optim.Adam([*layer.parameters(), *centres.parameters()], RATE)
        order = torch.cat([torch.randperm(len(rows)) for _ in range(-(-STEPS * BATCH // len(rows)))])
        for batch in order[: STEPS * BATCH].split(BATCH):
            loss = F.cross_entropy(centres(layer(rows[batch]), classes[batch]), classes[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Affine(layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy())


CANDIDATES: Mapping[str, Learner] = {
    **{f"whitening, shrinkage {shrink:g}": partial(whitening, shrink=shrink) for shrink in (0.1, 0.5)},
    **{f"linear discriminants, shrinkage {shrink:g}": partial(discriminants, shrink=shrink) for shrink in (0.3, 0.8)},
    **{
        f"linear layer, {head.__name__} margin {margin:g}": partial(margin_layer, head=head, margin=margin)
        for head, margin in ((CosFace, 0.35), (CosFace, 0.6), (ArcFace, 0.5))
    },
}


def learn(
    descriptors: FloatArray, labels: IntArray, seed: int = 0, candidates: Mapping[str, Learner] = CANDIDATES
) -> Learnt:
    """Choose a kind of map by a part of the labels, test it on another part, and learn it from all of them.

    A share of each landmark's photos is held out for the test. The kind is chosen on the others alone: by the mean of
    mAP on photos held out of these whose landmark was learnt from, and on photos whose landmark was not. Held-out
    photos ask one another.

    Args:
        descriptors: (N, D), L2-normalised.
        labels: the landmark of each, (N,), from 0.
        seed: of all splits, which follow from it and from the labels.

    Raises UserError for labels that are too few to learn and to test.
    """
    large = int((np.bincount(labels) >= MIN_PHOTOS).sum())
    if large < MIN_LANDMARKS:
        raise UserError(
            f"adapting wants {MIN_LANDMARKS} landmarks or more with {MIN_PHOTOS} photos each to learn and to test, and "
            f"the labels name {large} such of {len(np.unique(labels))}"
        )
    held = split_photos(labels, seed)
    rest, own = descriptors[~held], labels[~held]
    kind = choose(rest, own, seed, candidates)
    learner = compressed(candidates[kind])
    gallery, named = descriptors[held], labels[held]
    queries = np.random.default_rng(seed).permutation(len(named))[:MAX_QUERIES]
    before = average_precisions(gallery, named, queries)
    seen = average_precisions(learner(rest, own)(gallery), named, queries)
    unseen = np.full(len(queries), np.nan)
    group = split_landmarks(labels, seed)
    parts = int(group.max()) + 1
    for part in track(range(parts), "testing it", parts, "splits"):
        asked = group[held][queries] == part
        others = group[~held] != part
        adapted = learner(rest[others], own[others])(gallery)
        unseen[asked] = average_precisions(adapted, named, queries[asked])
    return Learnt(learner(descriptors, labels), kind, Gain(before, seen), Gain(before, unseen))


def choose(descriptors: FloatArray, labels: IntArray, seed: int, candidates: Mapping[str, Learner]) -> str:
    """The candidate of the highest mean of mAP on held-out photos, their landmark learnt from and not.

    In turn a share of all landmarks' photos is held out, and with it, for the second figure, all others of a group of
    landmarks.
    """
    rows = sample(labels, seed)
    descriptors, labels = compress(descriptors[rows]), labels[rows]
    group = split_landmarks(labels, seed)
    scores: dict[str, list[float]] = {name: [] for name in candidates}
    folds = int(group.max()) + 1
    for fold in track(range(folds), "choosing an adapter", folds, "splits"):
        held = split_photos(labels, seed + 1 + fold)
        gallery, named = descriptors[held], labels[held]
        everyone, asked = np.arange(len(named)), np.flatnonzero(group[held] == fold)
        others = ~held & (group != fold)
        for name, learner in candidates.items():
            seen = learner(descriptors[~held], labels[~held])(gallery)
            unseen = learner(descriptors[others], labels[others])(gallery)
            aps = average_precisions(seen, named, everyone), average_precisions(unseen, named, asked)
            scores[name].append(float(np.mean([np.nanmean(ap) for ap in aps])))
    return max(scores, key=lambda name: np.mean(scores[name]))


def average_precisions(descriptors: FloatArray, labels: IntArray, queries: IntArray) -> Float64Array:
    """Average precision of some photos, (Q,), that ask all others, (N, D); NaN where no other has their label."""
    found = np.full(len(queries), np.nan)
    for place, query in enumerate(queries.tolist()):
        order = np.argsort(-(descriptors @ descriptors[query]), kind="stable")
        ranks = np.flatnonzero(labels[order[order != query]] == labels[query])
        if len(ranks):
            found[place] = average_precision(ranks, len(ranks))
    return found


def split_photos(labels: IntArray, seed: int) -> BoolArray:
    """Which photos, (N,), are held out: a share of each landmark's, and none of a landmark that has too few."""
    generator = np.random.default_rng(seed)
    held = np.zeros(len(labels), np.bool_)
    for rows in _members(labels):
        if len(rows) >= HELD_FROM:
            held[generator.permutation(rows)[: max(LEAST_HELD, round(SHARE * len(rows)))]] = True
    return held


def split_landmarks(labels: IntArray, seed: int) -> IntArray:
    """The group, (N,) from 0, that each photo's landmark is in: groups of about as many landmarks."""
    classes, members = np.unique(labels, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(classes)) % min(GROUPS, len(classes)))[members]


def sample(labels: IntArray, seed: int) -> IntArray:
    """Photos that candidates are compared on, ascending: some of each of the landmarks, or of as many as there is room
    for."""
    generator = np.random.default_rng(seed)
    members = _members(labels)
    share = max(CHOICE_SHARE, CHOICE_PHOTOS // len(members))
    parts = [generator.permutation(members[part])[:share] for part in generator.permutation(len(members))]
    kept = np.cumsum([len(part) for part in parts]) <= CHOICE_PHOTOS
    return np.sort(np.concatenate([part for part, keep in zip(parts, kept, strict=True) if keep]))


def compress(descriptors: FloatArray) -> FloatArray:
    """Descriptors along their directions of largest variance, (N, d) with d at most `MAX_DIM`."""
    directions = _directions(descriptors)
    return descriptors if directions is None else descriptors @ directions.T.astype(np.float32)


def compressed(learner: Learner) -> Learner:
    """A learner that learns along the directions of `compress`."""

    def learn_along(descriptors: FloatArray, labels: IntArray) -> Affine:
        directions = _directions(descriptors)
        if directions is None:
            return learner(descriptors, labels)
        learnt = learner(descriptors @ directions.T.astype(np.float32), labels)
        return Affine(learnt.weight @ directions, learnt.bias)

    return learn_along


def _directions(descriptors: FloatArray) -> Float64Array | None:
    """The directions of largest variance, (MAX_DIM, D); None where there are no more than that."""
    if descriptors.shape[1] <= MAX_DIM:
        return None
    return np.linalg.eigh(moments(descriptors)[1])[1][:, ::-1][:, :MAX_DIM].T


def _scaled(descriptors: FloatArray, mean: Float64Array, projection: Float64Array) -> Affine:
    """P (x - mean), scaled to a mean squared length of 1 over the descriptors: what a layer is best trained from."""
    lengths = (((descriptors - mean) @ projection.T) ** 2).sum(1)
    weight = projection / np.sqrt(lengths.mean())
    return Affine(weight, -weight @ mean)


def _members(labels: IntArray) -> list[IntArray]:
    """The rows of each landmark that has any, ascending."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
