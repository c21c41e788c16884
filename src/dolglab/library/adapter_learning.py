"""Linear maps learnt from labelled descriptors; the kind is chosen, and its gain measured, on held-out photos.

Whitening (Jegou and Chum, ECCV 2012), discriminants (Mikolajczyk and Matas, ICCV 2007; Fisher, 1936), both with
shrinkage (Ledoit and Wolf, 2004), and a linear layer initialised with discriminants and trained with a margin loss.
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
from dolglab.errors import UserError, pluralize
from dolglab.losses.margin import ArcFace, CosFace, MarginHead
from dolglab.measures import average_precision
from dolglab.progress import track
from dolglab.retrieval.large_arrays import l2_normalized
from dolglab.retrieval.whitening import moments, pca_projection, supervised_projection

# Longer descriptors are projected to this many directions of largest variance before learning.
MAX_DIM = 512
# The share of each landmark's photos that is held out, its minimum, and the number of photos from which any are.
SHARE, LEAST_HELD, HELD_FROM = 0.2, 2, 3
# Number of groups of landmarks, each of which is left out once.
GROUPS = 4
# The required number of landmarks, and of their photos: photos are held out a second time to choose the kind.
MIN_LANDMARKS, MIN_PHOTOS = 3, 5
# Number of photos on which candidates are compared, at least so many per landmark if it has them, and of test queries.
CHOICE_PHOTOS, CHOICE_SHARE, MAX_QUERIES = 3000, 20, 2000
# Settings of the margin layers.
SCALE, STEPS, BATCH, RATE, START_SHRINK = 30.0, 150, 128, 1e-3, 0.5

Float64Array = NDArray[np.float64]


class Affine(NamedTuple):
    """x -> W x + b: W is (d, D), b (d,)."""

    weight: Float64Array
    bias: Float64Array

    def __call__(self, descriptors: FloatArray) -> FloatArray:
        """(N, D) to (N, d), L2-normalised."""
        return l2_normalized(descriptors @ self.weight.T + self.bias)


# Learns from descriptors, (N, D), and their landmarks, (N,).
Learner = Callable[[FloatArray, IntArray], Affine]


class Gain(NamedTuple):
    """Average precision of held-out photos before and after, (Q,) each; NaN without another photo of the landmark."""

    before: Float64Array
    after: Float64Array

    def figures(self) -> dict[str, float]:
        """mAP before and after, the gain with its paired 95 % bootstrap interval, and the number of queries."""
        gain, low, high = difference(self.after.tolist(), self.before.tolist())
        counted = int(np.isfinite(self.after).sum())
        means = {"before": float(np.nanmean(self.before)), "after": float(np.nanmean(self.after))}
        return {**means, "gain": gain, "low": low, "high": high, "queries": counted}


class Learnt(NamedTuple):
    """A map learnt from all labels, with the chosen kind and its gain on held-out photos.

    Attributes:
        affine: the map.
        kind: its kind, a name in `CANDIDATES`.
        seen: gain on held-out photos when other photos of their landmarks were learnt from.
        unseen: gain on the same photos when no photo of their landmarks was learnt from.
    """

    affine: Affine
    kind: str
    seen: Gain
    unseen: Gain


def whitening(descriptors: FloatArray, labels: IntArray, shrink: float) -> Affine:
    """Whitening: equal variance of all descriptors in every direction. Labels are not used."""
    mean, covariance = moments(descriptors)
    return _scaled(descriptors, mean, pca_projection(covariance, shrink))


def discriminants(descriptors: FloatArray, labels: IntArray, shrink: float) -> Affine:
    """Discriminants with shrinkage: equal variance within landmarks in every direction.

    Raises UserError if no two photos of any landmark differ.
    """
    mean, covariance = moments(descriptors)
    projection = supervised_projection(covariance, within_scatter(descriptors, labels), shrink)
    if projection is None:
        raise UserError("all photos of each landmark have one descriptor: there is nothing to learn from")
    return _scaled(descriptors, mean, projection)


def within_scatter(descriptors: FloatArray, labels: IntArray) -> Float64Array:
    """Covariance, (D, D), of descriptors, (N, D), about the means of their landmarks."""
    members, counts = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    sums = np.zeros((len(counts), descriptors.shape[1]))
    np.add.at(sums, members, descriptors)
    means = (sums / counts[:, None]).astype(np.float32)
    return moments(descriptors - means[members])[1]


def margin_layer(descriptors: FloatArray, labels: IntArray, head: type[MarginHead], margin: float) -> Affine:
    """A linear layer, initialised with discriminants, and a margin head, initialised with means, trained together."""
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
    """Choose a kind of map on one part of the photos, test it on another, and learn it from all of them.

    A share of each landmark's photos is held out for the test. The kind is chosen on the others only, by the mean of
    two mAPs: on photos held out from these whose landmarks were learnt from, and on photos whose landmarks were not.
    Held-out photos are searched for among each other.

    Args:
        descriptors: (N, D), L2-normalised.
        labels: their landmarks, (N,), from 0.
        seed: seed of all splits.

    Raises UserError for too few labels.
    """
    large = int((np.bincount(labels) >= MIN_PHOTOS).sum())
    if large < MIN_LANDMARKS:
        raise UserError(
            f"adapting needs at least {MIN_LANDMARKS} landmarks with {MIN_PHOTOS} photos each, to learn and to test; "
            f"the labels have {large} of these among {pluralize(len(np.unique(labels)), 'landmark')}"
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
    for part in track(range(parts), "testing the adapter", parts, "splits"):
        asked = group[held][queries] == part
        others = group[~held] != part
        adapted = learner(rest[others], own[others])(gallery)
        unseen[asked] = average_precisions(adapted, named, queries[asked])
    return Learnt(learner(descriptors, labels), kind, Gain(before, seen), Gain(before, unseen))


def choose(descriptors: FloatArray, labels: IntArray, seed: int, candidates: Mapping[str, Learner]) -> str:
    """The candidate with the highest mean mAP on held-out photos whose landmarks were, and were not, learnt from.

    In each fold a share of all landmarks' photos is held out and, for the second mAP, all photos of one group of
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
    """Average precision of queries, (Q,) rows, among all others, (N, D); NaN if no other has their label."""
    found = np.full(len(queries), np.nan)
    for place, query in enumerate(queries.tolist()):
        order = np.argsort(-(descriptors @ descriptors[query]), kind="stable")
        ranks = np.flatnonzero(labels[order[order != query]] == labels[query])
        if len(ranks):
            found[place] = average_precision(ranks, len(ranks))
    return found


def split_photos(labels: IntArray, seed: int) -> BoolArray:
    """Which photos, (N,), are held out: a share of each landmark's, none if it has too few."""
    generator = np.random.default_rng(seed)
    held = np.zeros(len(labels), np.bool_)
    for rows in _members(labels):
        if len(rows) >= HELD_FROM:
            held[generator.permutation(rows)[: max(LEAST_HELD, round(SHARE * len(rows)))]] = True
    return held


def split_landmarks(labels: IntArray, seed: int) -> IntArray:
    """The group of each photo's landmark, (N,) from 0; groups have about the same number of landmarks."""
    classes, members = np.unique(labels, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(classes)) % min(GROUPS, len(classes)))[members]


def sample(labels: IntArray, seed: int) -> IntArray:
    """Photos on which candidates are compared, ascending: some of each landmark, or of as many as the limit allows."""
    generator = np.random.default_rng(seed)
    members = _members(labels)
    share = max(CHOICE_SHARE, CHOICE_PHOTOS // len(members))
    parts = [generator.permutation(members[part])[:share] for part in generator.permutation(len(members))]
    kept = np.cumsum([len(part) for part in parts]) <= CHOICE_PHOTOS
    return np.sort(np.concatenate([part for part, keep in zip(parts, kept, strict=True) if keep]))


def compress(descriptors: FloatArray) -> FloatArray:
    """Descriptors projected to their directions of largest variance, (N, d) with d at most `MAX_DIM`."""
    directions = _directions(descriptors)
    return descriptors if directions is None else descriptors @ directions.T.astype(np.float32)


def compressed(learner: Learner) -> Learner:
    """A learner that learns from descriptors projected as by `compress`."""

    def learn_along(descriptors: FloatArray, labels: IntArray) -> Affine:
        directions = _directions(descriptors)
        if directions is None:
            return learner(descriptors, labels)
        learnt = learner(descriptors @ directions.T.astype(np.float32), labels)
        return Affine(learnt.weight @ directions, learnt.bias)

    return learn_along


def _directions(descriptors: FloatArray) -> Float64Array | None:
    """The directions of largest variance, (MAX_DIM, D); None if D is at most that."""
    if descriptors.shape[1] <= MAX_DIM:
        return None
    return np.linalg.eigh(moments(descriptors)[1])[1][:, ::-1][:, :MAX_DIM].T


def _scaled(descriptors: FloatArray, mean: Float64Array, projection: Float64Array) -> Affine:
    """P (x - mean), scaled to a mean squared length of 1, which is the best start for training a layer."""
    lengths = (((descriptors - mean) @ projection.T) ** 2).sum(1)
    weight = projection / np.sqrt(lengths.mean())
    return Affine(weight, -weight @ mean)


def _members(labels: IntArray) -> list[IntArray]:
    """The rows of each landmark, ascending."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
