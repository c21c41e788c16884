"""INSTRE (Wang and Jiang, 2015) with the protocol of Iscen et al. (CVPR 2017): 1,250 queries, 27,293 images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, Crop, IntArray
from dolglab.data.benchmarks.listing import Counts, Rules, check_counts, fingerprint, listed_files, make_benchmark
from dolglab.data.sources import JoinedSource
from dolglab.errors import UserError
from dolglab.measures import GroupedAveragePrecision

SUBSETS = ("INSTRE-S1", "INSTRE-S2", "INSTRE-M")
TRUTH = "gnd_instre.mat"
FETCH = "dolglab prepare task=instre lists what to download"


def instre_benchmark(root: str | Path, crop: Crop = "pil", counts: Counts = None, name: str | None = None) -> Benchmark:
    """The queries, cropped to their boxes, and the gallery of `gnd_instre.mat`.

    Args:
        root: folder with `gnd_instre.mat` and the folders `INSTRE-S1`, `INSTRE-S2` and `INSTRE-M`.
        crop: how queries are cropped to their boxes (see `crop_query`); "none" is another protocol, with another name.
        counts: numbers of gallery images and queries.
        name: the name in results.

    Raises UserError for an invalid ground truth, images that are missing or listed twice, and other numbers.
    """
    root = Path(root)
    if crop not in get_args(Crop):
        raise UserError(f"benchmark.crop must be one of {', '.join(get_args(Crop))}, not {crop}")
    gallery, queries, positives, boxes = read_ground_truth(root / TRUTH)
    name = name or ("instre" if crop != "none" else "instre_uncropped")
    notes = check_counts(name, root, len(gallery), len(queries), counts)
    files = [listed_files(root, names, FETCH) for names in (gallery, queries)]
    subsets = {subset: np.array([query.startswith(f"{subset}/") for query in queries]) for subset in SUBSETS}
    groups = {"all": np.ones(len(queries), np.bool_), **{key: of for key, of in subsets.items() if of.any()}}
    return make_benchmark(
        name,
        source=JoinedSource(*(part.source for part in files)),
        num_gallery=len(gallery),
        queries=np.arange(len(gallery), len(gallery) + len(queries)),
        positives=positives,
        digest=fingerprint(files, positives, boxes.tolist()),
        measure=GroupedAveragePrecision(list(groups), np.stack(list(groups.values()))),
        difficulties=tuple(groups),
        boxes=boxes,
        crop=crop,
        notes=notes,
        rules=Rules(
            "mAP by trapezoids (compute_map.m); positives that are not found have precision 0",
            "as published, at most 1,000 pixels; queries cropped to their boxes"
            if crop != "none"
            else "as published, at most 1,000 pixels; queries not cropped, unlike in papers",
            "nothing",
        ),
    )


def read_ground_truth(path: Path) -> tuple[list[str], list[str], tuple[IntArray, ...], NDArray[np.float64]]:
    """Names of gallery and queries, 0-based gallery positions of each query's positives, boxes x1 y1 x2 y2, (Q, 4).

    Raises UserError for a missing or invalid file.
    """
    import scipy.io

    if not path.is_file():
        raise UserError(f"{path} is missing ({FETCH})")
    try:
        raw = scipy.io.loadmat(path, simplify_cells=True)
    except Exception as error:  # scipy raises almost anything for other files.
        raise UserError(f"{path} is not a MATLAB file of version 5 ({error})") from error
    try:
        gallery, queries = ([str(name) for name in np.atleast_1d(raw[key])] for key in ("imlist", "qimlist"))
        entries: list[dict[str, Any]] = list(np.atleast_1d(raw["gnd"]))
        # The file has unsigned 16 bits, which overflow.
        positives = tuple(np.atleast_1d(entry["ok"]).astype(np.int64) - 1 for entry in entries)
        boxes = np.array([entry["bbx"] for entry in entries], np.float64).reshape(len(entries), 4)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"{path} is not INSTRE's ground truth (imlist, qimlist, gnd.ok and gnd.bbx): {error}"
        ) from error
    if len(entries) != len(queries):
        raise UserError(f"{path}: {len(queries)} queries but {len(entries)} ground truths")
    for query, (own, box) in enumerate(zip(positives, boxes.tolist(), strict=True)):
        if len(own) and not 0 <= int(own.min()) <= int(own.max()) < len(gallery):
            raise UserError(f"{path}: query {queries[query]} names an image outside the gallery of {len(gallery)}")
        if not (box[0] < box[2] and box[1] < box[3]):
            raise UserError(f"{path}: query {queries[query]} has the box {box}, which is not x1 y1 x2 y2")
    return gallery, queries, positives, boxes
