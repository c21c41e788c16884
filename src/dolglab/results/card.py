"""Result cards: figures, intervals and the origin of a run, as JSON; and the gain over a baseline."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dolglab.bootstrap import difference, interval
from dolglab.contracts import EXTERNAL, Ranking
from dolglab.errors import UserError
from dolglab.io import sha256_of, write_text
from dolglab.results import stored_rankings
from dolglab.results.provenance import CHECKOUT, commit, versions

FORMAT = 1
LOOKALIKE_ANSWERS = 10
# Query landmarks that are also in GLDv2-clean (RGLDv2-clean, CVPR 2024).
GLDV2_SHARED = {"roxford5k": "36 of the 70", "rparis6k": "38 of the 70"}
# Crop and images of descriptors that were computed elsewhere: a card cannot know them.
UNKNOWN = "unknown"
UNKNOWN_IMAGES = "described elsewhere, with unknown crop, size and scales"
# The key of a card's own digest, over all other keys.
DIGEST = "sha256"

Fields = dict[str, type | tuple[type, ...]]
CARD_FIELDS: Fields = {
    "name": str,
    "method": str,
    "time": str,
    "commit": (str, type(None)),
    "versions": dict,
    "checkpoint": (dict, type(None)),
    "protocol": dict,
    "config": dict,
    "benchmarks": list,
}
BENCHMARK_FIELDS: Fields = {
    "name": str,
    "digest": str,
    "queries": int,
    "boxes": int,
    "gallery": int,
    "crop": str,
    "difficulties": list,
    "map": dict,
    "mp_at_k": dict,
    "ap": dict,
    "bad_images": list,
    "seconds": (int, float),
}
# Optional fields: older cards and many runs lack them.
OPTIONAL_FIELDS: Fields = {
    "protocol": dict,
    "notes": list,
    "stages": dict,
    "costs": dict,
    "precision_recall": dict,
    "map_interval_95": dict,
    "lookalikes": dict,
    # Digest of the stored rankings (see `stored_rankings`).
    "rankings": str,
}


def make_card(
    *,
    name: str,
    method: str,
    rankings: Sequence[Ranking],
    protocol: Mapping[str, object],
    checkpoint: Path | None,
    config: Mapping[str, object],
    training: Mapping[str, object] | None = None,
    validation_map: float | None = None,
) -> dict[str, Any]:
    """The card of a run called `name`, whose table row is headed `method`.

    `protocol` describes how descriptors were computed (scales, resize, image_size; the crop is the benchmark's) and,
    under `selection`, the digests, by name, of the sets on which the checkpoint was selected; `training` is the
    training data (see `trained_on`), `validation_map` the best figure on the benchmark that selected it. Precisions are
    fractions in [0, 1], times are in seconds; numbers that are not finite are null.
    Raises OSError if the checkpoint cannot be read.
    """
    card = {
        "format": FORMAT,
        "name": name,
        "method": method,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(CHECKOUT),
        "versions": versions(),
        "checkpoint": None if checkpoint is None else {"path": str(checkpoint), "sha256": sha256_of(checkpoint)},
        "training": training,
        "validation_map": validation_map,
        "protocol": protocol,
        "config": config,
        "benchmarks": [_benchmark_result(ranking) for ranking in rankings],
    }
    return _to_json(card)


def protocol(
    scales: Sequence[float],
    resize: str | None,
    scale_pooling: str | None,
    max_side: int | None,
    selection: Mapping[str, str],
    precision: str,
    orientation: str = "exif",
    colour: str = "ignore",
    network: str | None = None,
) -> dict[str, object]:
    """How a card's figures were computed; `selection` are the sets that selected the weights.

    For methods that rescale no image, `scales` is empty, and `resize` and `scale_pooling` are None. `network` describes
    the source and input of an external network (`ExtractionProtocol.note`).
    """
    return {
        "scales": list(scales) or None,
        "resize": resize,
        # The default, the mean, is not stated.
        "scale_pooling": None if scale_pooling == "mean" else scale_pooling,
        "image_size": max_side,
        "selection": dict(selection),
        # Nor are float32, upright photographs, and colours as the released code reads them.
        "precision": None if precision == "32-true" else precision,
        "orientation": None if orientation == "exif" else orientation,
        "colour": None if colour == "ignore" else colour,
        "network": network,
    }


def _benchmark_result(ranking: Ranking) -> dict[str, Any]:
    """One benchmark's part of the card, with the figures of its own difficulties only."""
    benchmark = ranking.benchmark
    scores = {d: ranking.evaluation[d] for d in benchmark.difficulties if d in ranking.evaluation}
    result = {
        "name": benchmark.name,
        "digest": benchmark.digest,
        "queries": len(benchmark.queries),
        "boxes": int(np.isfinite(benchmark.boxes).all(axis=1).sum()),
        "gallery": benchmark.num_gallery,
        "crop": benchmark.crop,
        **({"release": benchmark.release} if benchmark.release else {}),
        "measure": benchmark.measure.name,
        "difficulties": list(scores),
        "map": {d: s["map"] for d, s in scores.items()},
        "mp_at_k": {
            d: {str(k): v for k, v in zip(ranking.kappas, s["mp_at_k"], strict=True)} for d, s in scores.items()
        },
        "ap": {d: s["ap"] for d, s in scores.items()},
        "bad_images": ranking.bad,
        "seconds": ranking.seconds,
    }
    optional = {
        "protocol": benchmark.protocol,
        "notes": (*benchmark.notes, *ranking.notes),
        "stages": ranking.stages,
        "costs": ranking.costs,
        "lookalikes": lookalikes(ranking),
        "rankings": stored_rankings.digest_of(arrays) if (arrays := stored_rankings.stored_arrays(ranking)) else None,
        "precision_recall": {d: curve for d, curve in ranking.curves.items() if d in scores},
        "map_interval_95": map_intervals(result),
    }
    stated = result | {key: value for key, value in optional.items() if value not in (None, (), {})}
    rules = {"protocol": rules_of(stated)} if "protocol" in stated else {}
    return stated | {"crop": crop_of(stated)} | rules


def _to_json(value: Any) -> Any:
    """`value` in JSON's own types; a number that is not finite is None."""
    match value:
        case Mapping():
            return {str(key): _to_json(item) for key, item in value.items()}
        case list() | tuple():
            return [_to_json(item) for item in value]
        case np.ndarray() | np.generic():
            return _to_json(value.tolist())
        case float():
            return value if math.isfinite(value) else None
        case Path():
            return str(value)
        case _:
            return value


def map_intervals(benchmark: Mapping[str, Any]) -> dict[str, list[float] | None]:
    """By difficulty, the 95 % interval (low, high) of the figure in `map` (`bootstrap.interval`).

    None for fewer than two queries. GAP is not a mean over queries and has none.
    """
    if benchmark.get("measure") == "GAP":
        return {}
    if "map_interval_95" in benchmark:
        return benchmark["map_interval_95"]
    intervals = {difficulty: interval(ap) for difficulty, ap in benchmark["ap"].items()}
    return {d: [low, high] if math.isfinite(low) else None for d, (low, high) in intervals.items()}


def lookalikes(ranking: Ranking) -> dict[str, float] | None:
    """Wrong answers among a query's first ten, and those that show a landmark of its family, as means over queries.

    An answer is wrong if it is neither positive nor junk. Returns {"wrong", "siblings"}; None if families are unknown.
    """
    benchmark = ranking.benchmark
    families, truth = benchmark.families, benchmark.ground_truth
    if families is None:
        return None
    total, siblings = 0, 0
    for query, image in enumerate(benchmark.queries.tolist()):
        answers = ranking.top[query, :LOOKALIKE_ANSWERS]
        right = np.concatenate([truth.easy[query], truth.hard[query], truth.junk[query], [-1, image]])
        wrong = answers[~np.isin(answers, right)]
        total += len(wrong)
        siblings += int(np.sum(families[wrong] == families[image])) if families[image] else 0
    queries = len(benchmark.queries)
    return {"wrong": total / queries, "siblings": siblings / queries}


def caveats(card: Mapping[str, Any], benchmark: Mapping[str, Any]) -> list[str]:
    """Short notes on what limits the comparison of this card's figures on `benchmark`, one of its benchmarks."""
    notes = []
    if external(benchmark):
        notes.append("descriptors from elsewhere, with unknown crop, size and scales")
    elif benchmark["boxes"] and benchmark["crop"] == "none":
        notes.append("queries not cropped")
    shared = GLDV2_SHARED.get(benchmark["name"].partition("+")[0])
    if shared and _trained_on_all_of_gldv2(card):
        notes.append(f"trained on GLDv2, whose clean version has {shared} landmarks of the queries")
    if skipped := len(benchmark["bad_images"]):
        notes.append(f"{skipped} image{'s' if skipped > 1 else ''} skipped")
    if benchmark["digest"] in card["protocol"].get("selection", {}).values():
        notes.append("selected on this set")
    return list(dict.fromkeys([*notes, *benchmark.get("notes", ())]))


def external(benchmark: Mapping[str, Any]) -> bool:
    """Whether a card's benchmark was measured with descriptors that were computed elsewhere."""
    return EXTERNAL in benchmark.get("stages", {})


def crop_of(benchmark: Mapping[str, Any]) -> str:
    """How a benchmark's queries were cropped; unknown for descriptors from elsewhere, whatever an older card says."""
    return UNKNOWN if external(benchmark) else benchmark["crop"]


def rules_of(benchmark: Mapping[str, Any]) -> dict[str, str]:
    """A benchmark's rules by topic; how images were read is unknown for descriptors from elsewhere, see `crop_of`."""
    rules = benchmark.get("protocol", {})
    return {**rules, "images": UNKNOWN_IMAGES} if "images" in rules and external(benchmark) else dict(rules)


def _trained_on_all_of_gldv2(card: Mapping[str, Any]) -> bool:
    """Whether the weights were trained on GLDv2 without an exclude list."""
    data = training_data(card)
    left_out = any(data.get(key) for key in ("exclude_landmarks", "exclude_images"))
    return is_gldv2(data) and not left_out


def training_data(card: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `data` section of the training configuration of a card's weights; empty without a training."""
    if not card.get("training"):
        return {}
    config = card["config"]
    return (config.get("train") or config).get("data") or {}


def is_gldv2(data: Mapping[str, Any]) -> bool:
    """Whether a `data` section is Google Landmarks v2; other data sets in its layout have a `hint`."""
    return str(data.get("_target_", "")).endswith("from_gldv2") and not data.get("hint")


def brief_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """A short card for experiments: without the configuration, and with only the table's figures of each benchmark."""
    identity = ("name", "digest", "queries", "gallery", "crop", "release", "measure", "protocol", "map", "mp_at_k")
    benchmarks = [
        {
            **{key: benchmark[key] for key in identity if key in benchmark},
            "map_interval_95": map_intervals(benchmark),
            "notes": caveats(card, benchmark),
            **{key: benchmark[key] for key in ("stages", "costs", "lookalikes") if key in benchmark},
        }
        for benchmark in card["benchmarks"]
    ]
    short = {key: card[key] for key in ("name", "method", "time", "commit", "versions", "protocol")}
    return {**short, "checkpoint": (card["checkpoint"] or {}).get("sha256"), "benchmarks": benchmarks}


def write_card(card: Mapping[str, Any], path: Path) -> Path:
    """Write `card` and its digest to `path` atomically. Raises TypeError or ValueError if JSON cannot represent it."""
    text = json.dumps({**card, DIGEST: digest_of(card)}, indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def digest_of(card: Mapping[str, Any]) -> str:
    """SHA-256 of a card's contents in hex, independent of the order and layout of its JSON."""
    text = json.dumps(card, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_card(path: Path, edited: bool = False) -> dict[str, Any]:
    """The card at `path`, without its digest; `edited` accepts one that was edited.

    Cards of earlier versions have no digest. Raises UserError if the card is missing, not JSON, of another format,
    incomplete, or was edited since it was written.
    """
    try:
        card = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise UserError(f"result card cannot be read: {path} ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"result card is not JSON: {path} ({error})") from error
    if not isinstance(card, dict) or "format" not in card:
        raise UserError(f"not a result card: {path} (it has no format number)")
    if card["format"] != FORMAT:
        raise UserError(f"result card of format {card['format']!r}: {path} (this version reads {FORMAT})")
    wrong = _wrong_fields(card, CARD_FIELDS)
    for benchmark in [] if wrong else card["benchmarks"]:
        given = benchmark if isinstance(benchmark, dict) else {}
        optional = {name: kind for name, kind in OPTIONAL_FIELDS.items() if name in given}
        wrong += [f"benchmarks.{name}" for name in _wrong_fields(given, BENCHMARK_FIELDS | optional)]
    if wrong:
        raise UserError(f"result card is incomplete: {path} (missing or of another type: {', '.join(wrong)})")
    stated = card.pop(DIGEST, None)
    if stated is not None and stated != digest_of(card) and not edited:
        raise UserError(f"result card was edited since it was written: {path} (its digest is of other contents)")
    return card


def _wrong_fields(record: Mapping[str, Any], fields: Fields) -> list[str]:
    """The names of `fields` that are missing in `record` or have another type."""
    return [name for name, kind in fields.items() if not isinstance(record.get(name, ...), kind)]


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def in_sentence(name: str) -> str:
    """The name of a data set in a sentence, with quotes if it is of several words.

    >>> in_sentence("roxford5k"), in_sentence("photos test photos")
    ('roxford5k', '"photos test photos"')
    """
    return f'"{name}"' if " " in name else name


def gain_line(baseline: str, before: Ranking, after: Ranking) -> str:
    """A line with the mAP of a baseline and of a run on a benchmark, and the gain with its paired bootstrap interval.

    The figure is Medium mAP for Revisited benchmarks, otherwise the first. Measures without a figure per query have no
    interval.
    """
    benchmark = after.benchmark
    difficulty = "medium" if "medium" in benchmark.difficulties else benchmark.difficulties[0]
    old, new = before.evaluation[difficulty], after.evaluation[difficulty]
    points = 100 * (new["map"] - old["map"])
    _, low, high = (100 * value for value in difference(new["ap"], old["ap"]))
    bounds = "no interval" if math.isnan(low) else f"95 % interval {low:+.2f} to {high:+.2f}"
    verdict = "Better" if low > 0 else "Perhaps better (it may be chance)"
    return (
        f"{verdict if points > 0 else 'Not better'} than {baseline} on {in_sentence(benchmark.name)}: "
        f"{benchmark.measure.name or difficulty} "
        f"{100 * old['map']:.2f} -> {100 * new['map']:.2f} %, {points:+.2f} points ({bounds}, "
        f"{len(benchmark.queries)} queries)"
    )
