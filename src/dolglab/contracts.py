"""The data types that packages exchange; the only module that every package may import."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypedDict, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError

if TYPE_CHECKING:
    # Packages that run no network import this module, and need no torch.
    import torch
    from jaxtyping import Float, Int, UInt8
    from torch import Tensor

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Crop = Literal["pil", "trunc", "none"]
Resize = Literal["released", "antialias"]
ScalePooling = Literal["mean", "max"]
Orientation = Literal["exif", "ignore"]
Colour = Literal["srgb", "ignore"]
Decoding = Literal["full", "scaled"]
# Default size in pixels to which the longer side of photos is shrunk.
DEFAULT_SIDE = 1024
# Identifies an image as it is described: the size of its file, and a hash of its bytes and its crop.
IMAGE_KEY = np.dtype([("bytes", "<i8"), ("hash", "<u8")])
# Where photos of a library are described: on this machine, or on the nodes of a Ray cluster.
Engine = Literal["local", "ray"]
# A benchmark's sets of figures: the difficulties of Revisited Oxford and Paris, the parts of GLDv2's solutions, or
# groups of queries and names of figures; "all" is not printed.
Difficulty = str
DIFFICULTIES: tuple[Difficulty, ...] = ("easy", "medium", "hard")
USAGES: tuple[Difficulty, ...] = ("public", "private")
# The stage of a ranking, among `Ranking.stages`, whose descriptors were computed elsewhere; it names their origin.
EXTERNAL = "descriptors"


@dataclass(frozen=True)
class ExtractionProtocol:
    """The default way to describe images with a network: how it was published or tested.

    Attributes:
        scales, resize, scale_pooling: see `Extractor`.
        max_side: the size in pixels to which an image's longer side is shrunk first; None does not shrink.
        note: origin and input of the network, on one line for result cards.
    """

    scales: tuple[float, ...]
    resize: Resize = "released"
    scale_pooling: ScalePooling = "mean"
    max_side: int | None = None
    note: str | None = None


class BadImage(NamedTuple):
    """An image that could not be read, and why."""

    name: str
    reason: str


@runtime_checkable
class ImageSource(Protocol):
    """Encoded images addressed by position."""

    def __len__(self) -> int: ...

    def name(self, position: int) -> str:
        """The image's name: a path relative to the root."""
        ...

    def size(self, position: int) -> int:
        """The size of the encoded image in bytes; 0 if it is missing."""
        ...

    def read(self, position: int) -> bytes:
        """The encoded bytes. Raises OSError if they cannot be read."""
        ...


@dataclass(frozen=True)
class Features:
    """The local and the global feature map of a batch.

    `token` is the class token of a transformer, or None.
    """

    local: Float[Tensor, "b c1 h1 w1"]
    global_: Float[Tensor, "b c2 h2 w2"]
    token: Float[Tensor, "b c2"] | None = None


@dataclass(frozen=True)
class LocalMaps:
    """Local features of one batch on a grid: L2-normalised features, and attention scores from 0."""

    features: Float[Tensor, "b d h w"]
    scores: Float[Tensor, "b 1 h w"]


@dataclass(frozen=True)
class LocalFeatures:
    """Local features of one image, strongest first.

    `keypoints` are x, y in pixels of the described image (cropped and shrunk, but not rescaled), whose height and width
    are `shape`; `sizes` are the sides of the patches in the same pixels; `descriptors` are L2-normalised.
    """

    keypoints: FloatArray
    sizes: FloatArray
    scores: FloatArray
    descriptors: NDArray[np.floating]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.keypoints)


def no_features(position: int) -> LocalFeatures:
    """Used in place of `features` if no local features were requested."""
    raise RuntimeError(f"the local features of image {position} were not requested")


@dataclass(frozen=True)
class ExtractedFeatures:
    """The features of a set of images: which are available, which could not be read, and the cost per image.

    `descriptors` are (images, D) if there are any; `features` returns the local features of the image at a position;
    `seconds` and `bytes` are means over images, and `stages` is the description for result cards.
    """

    available: BoolArray
    bad: tuple[BadImage, ...] = ()
    seconds: float = 0.0
    bytes: float = 0.0
    descriptors: FloatArray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    features: Callable[[int], LocalFeatures] = field(default=no_features)
    stages: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Shortlist:
    """A query's first answers, for a re-ranker: gallery positions, best first, and their scores, (k,) each.

    `query_descriptor` is (D,) and `descriptors` are those of the answers, (k, D). `local` returns the local features of
    the image at a position of the benchmark's images; the query's position is `query_image`.
    """

    query_image: int
    positions: IntArray
    scores: FloatArray
    query_descriptor: FloatArray
    descriptors: FloatArray
    local: Callable[[int], LocalFeatures]

    def __len__(self) -> int:
        return len(self.positions)


@runtime_checkable
class Reranker(Protocol):
    """Reorders the first `depth` answers of a query; `local` says whether it needs local features."""

    depth: int
    local: bool

    def __call__(self, shortlist: Shortlist) -> IntArray:
        """The new order: a permutation of 0..k-1, best first."""
        ...

    def config(self) -> dict[str, object]:
        """Everything that affects the order, as plain values."""
        ...


@dataclass(frozen=True)
class TrainingSet:
    """Labelled images: `labels[i]` in 0..N-1 is the class of image i, `classes[label]` its landmark."""

    source: ImageSource
    ids: NDArray[np.uint64]
    labels: IntArray
    classes: NDArray[np.str_]

    def __post_init__(self) -> None:
        """Raise UserError for a label that is no class."""
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise UserError(
                f"labels {self.labels.min()} to {self.labels.max()} do not fit {len(self.classes)} classes, from 0"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def names(self, ids: NDArray[np.uint64]) -> list[str]:
        """The names of the images with these ids, in their order."""
        found = np.flatnonzero(np.isin(self.ids, ids))
        position = dict(zip(self.ids[found].tolist(), found.tolist(), strict=True))
        return [self.source.name(position[key]) for key in ids.tolist()]


@dataclass(frozen=True)
class Batch:
    """A training batch: crops as uint8, labels, sample ids, and each sample's uniform draws in [0, 1)."""

    images: UInt8[Tensor, "b h w 3"]
    labels: Int[Tensor, " b"]
    ids: NDArray[np.uint64]
    draws: Float[Tensor, "b n"]
    bad: tuple[BadImage, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch with its tensors on `device`."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch with its tensors in page-locked memory."""
        return self._with(lambda tensor: tensor.pin_memory())

    def _with(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(self, images=change(self.images), labels=change(self.labels), draws=change(self.draws))


@dataclass(frozen=True)
class ImageBatch:
    """Whole images of any shape for extraction, with their positions in the benchmark's image list.

    `skipped` are the positions of images that could not be read, named in `bad`; `keys` are the `IMAGE_KEY` of each
    image, (b,).
    """

    images: tuple[UInt8[Tensor, "_ _ 3"], ...]
    positions: Int[Tensor, " b"]
    skipped: Int[Tensor, " s"]
    keys: np.ndarray
    bad: tuple[BadImage, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ImageBatch:
        """The batch with its tensors on `device`."""
        return replace(
            self,
            images=tuple(image.to(device, non_blocking=non_blocking) for image in self.images),
            positions=self.positions.to(device, non_blocking=non_blocking),
            skipped=self.skipped.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> ImageBatch:
        """The batch with its images in page-locked memory."""
        return replace(self, images=tuple(image.pin_memory() for image in self.images))


@dataclass(frozen=True)
class GroundTruth:
    """Gallery positions of each query's easy positives, hard positives and junk (Radenovic et al., 2018)."""

    easy: tuple[IntArray, ...]
    hard: tuple[IntArray, ...]
    junk: tuple[IntArray, ...]

    def __len__(self) -> int:
        return len(self.easy)


@dataclass(frozen=True)
class Ranked:
    """The parts of the gallery's rankings, one per query, that are kept; whole rankings would be too long.

    Attributes:
        top_k: (Q, k) gallery positions, best first; -1 if there are no more images.
        scores: (Q, k) float32; -inf if there are no more images.
        ground_truth_ids: for each query, the gallery positions in its ground truth.
        ranks: for each of `ground_truth_ids` its 0-based rank in the whole ranking, or -1 if it is not ranked.
    """

    top_k: IntArray
    scores: FloatArray
    ground_truth_ids: tuple[IntArray, ...]
    ranks: tuple[IntArray, ...]

    def __len__(self) -> int:
        return len(self.top_k)


class Scores(TypedDict):
    """One difficulty's figures: mean AP, AP per query (NaN if left out), mean precision at each k."""

    map: float
    ap: NDArray[np.float64]
    mp_at_k: NDArray[np.float64]


Evaluation = dict[Difficulty, Scores]


@dataclass(frozen=True)
class Figures:
    """The figures of a benchmark's rankings.

    `answers` are those of recognition: (query, landmark, score), for the queries that have one. `curves` are the mean
    interpolated precision at recall 0, 0.01, ..., 1, if the measure has it. `notes` describe choices that affect the
    figures; they are printed beside them.
    """

    evaluation: Evaluation
    kappas: Sequence[int] = ()
    answers: tuple[tuple[int, int, float], ...] = ()
    curves: Mapping[Difficulty, NDArray[np.float64]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@runtime_checkable
class Measure(Protocol):
    """Computes the figures of a benchmark's rankings; each benchmark brings its own measure."""

    # The name of its figures; empty if the benchmark's `difficulties` are names of figures, such as recall@1.
    name: str
    # The number of first answers of a query that it uses.
    depth: int

    def ground_truth_ids(self, truth: GroundTruth) -> tuple[IntArray, ...]:
        """For each query the gallery positions whose ranks in the whole ranking `figures` needs."""
        ...

    def figures(self, truth: GroundTruth, rankings: Mapping[Difficulty, Ranked]) -> Figures:
        """The figures of a benchmark's rankings; there may be a different ranking for each difficulty."""
        ...

    def submission(self, ranking: Ranking) -> str | None:
        """The text of the submission file for the benchmark's organisers, or None."""
        ...

    def settings(self) -> Mapping[str, object]:
        """Its constructor's arguments as arrays or values that numpy converts; stored with rankings to verify figures.

        The constructor must also accept them as arrays.
        """
        ...


@dataclass(frozen=True)
class Benchmark:
    """Images with queries and ground truth.

    The first `num_gallery` images of `source` are the gallery; `queries` are the positions of the query
    images, which may be in the gallery (then each query is junk to itself). `boxes` are the queries' crop boxes x1, y1,
    x2, y2 in pixels, NaN if there is none. `difficulties` are those that are defined; `release` names the release of
    the photographs, if known; `notes` describe differences from the published benchmark and are printed beside every
    figure. `measure` computes its figures; `gallery_is_training` says that the gallery is the training set, as in
    GLDv2's recognition. `protocol` describes the rules in words, by topic (measure, images, ties, what is left out); it
    is printed and kept with the figures. `orientation` is how photographs are turned, if the benchmark defines it.
    """

    name: str
    source: ImageSource
    num_gallery: int
    queries: IntArray
    boxes: NDArray[np.float64]
    ground_truth: GroundTruth
    crop: Crop
    digest: str
    measure: Measure
    difficulties: tuple[Difficulty, ...] = DIFFICULTIES
    release: str | None = None
    families: NDArray[np.str_] | None = None
    notes: tuple[str, ...] = ()
    gallery_is_training: bool = False
    protocol: Mapping[str, str] = field(default_factory=dict)
    orientation: Orientation | None = None


@dataclass(frozen=True, kw_only=True)
class Ranking(Figures):
    """The result of a benchmark run: its figures and the first answers of each query.

    `notes` also describe what distinguishes the figures from others of the benchmark; `stages` describe the computation
    and ranking of descriptors; `costs` are seconds per image and query, bytes per image, and the descriptors' length;
    `before` are the answers before re-ranking. `rankings` are those from which the measure computed the figures.
    """

    benchmark: Benchmark
    top: IntArray
    bad: tuple[BadImage, ...] = ()
    seconds: float = field(default=0.0, compare=False)
    stages: Mapping[str, object] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict, compare=False)
    before: IntArray | None = None
    rankings: Mapping[Difficulty, Ranked] = field(default_factory=dict, compare=False)
