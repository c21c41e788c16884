"""What an audit leaves in its folder: a table, exclude lists that training takes, contact sheets, how it was made."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dolglab.contracts import Benchmark, TrainingSet
from dolglab.data.sources import GLDv2Source
from dolglab.errors import UserError
from dolglab.io import write_bytes, write_text
from dolglab.results.overlap_sheet import COLUMNS, SheetImage, SheetRow, contact_sheets
from dolglab.results.pictures import query_box

TABLE, LANDMARKS, IMAGES, ABOUT = "overlap.csv", "exclude_landmarks.txt", "exclude_images.txt", "about.json"
SHEET, SHEETS = "contact_sheet.jpg", "contact_sheet*.jpg"
# Rows that a landmark may take on the contact sheet.
ROWS_PER_LANDMARK = 3


@dataclass(frozen=True)
class Overlap:
    """A training image that shows what a probe shows: their positions, cosine, and number of matches that agree."""

    benchmark: int
    probe: int
    image: int
    cosine: float
    inliers: int


@dataclass(frozen=True)
class Audit:
    """Overlaps of training images, `gallery`, with benchmarks; landmarks with so many `images` are to be excluded."""

    training: TrainingSet
    gallery: Benchmark
    benchmarks: tuple[Benchmark, ...]
    overlaps: tuple[Overlap, ...]
    images: int = 1

    @property
    def ids_listed(self) -> bool:
        """Whether training leaves out what lists name: of Google Landmarks v2."""
        return isinstance(self.training.source, GLDv2Source)

    def by_landmark(self) -> dict[int, list[Overlap]]:
        """The overlaps of each landmark to be excluded, by its label, best first; so are the landmarks."""
        found: dict[int, list[Overlap]] = {}
        for overlap in sorted(self.overlaps, key=_rank):
            found.setdefault(int(self.training.labels[overlap.image]), []).append(overlap)
        return {label: group for label, group in found.items() if len(best_per_image(group)) >= self.images}


def best_per_image(overlaps: Iterable[Overlap]) -> dict[int, Overlap]:
    """The best overlap of each training image, best first."""
    best: dict[int, Overlap] = {}
    for overlap in sorted(overlaps, key=_rank):
        best.setdefault(overlap.image, overlap)
    return best


def write_audit(out: Path, audit: Audit, about: Mapping[str, object]) -> None:
    """Write table, lists, contact sheets, and `about` last, so that it stands beside a whole audit alone.

    Sheets of an earlier audit go.

    Raises UserError when the folder cannot be written.
    """
    try:
        for file in (out / ABOUT, *out.glob(SHEETS)):
            file.unlink(missing_ok=True)
        sheets = contact_sheets(sheet_rows(audit), _heading(audit))
        for number, sheet in enumerate(sheets, 1):
            write_bytes(out / (SHEET if number == 1 else SHEET.replace(".", f"_{number}.")), sheet)
        write_text(out / TABLE, overlap_table(audit))
        write_text(out / LANDMARKS, landmark_list(audit))
        write_text(out / IMAGES, image_list(audit))
        write_text(out / ABOUT, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from error


def overlap_table(audit: Audit) -> str:
    """All overlaps as csv, best first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["benchmark", "probe", "training_image", "landmark", "cosine", "inliers"])
    for overlap in sorted(audit.overlaps, key=_rank):
        benchmark = audit.benchmarks[overlap.benchmark]
        image = audit.gallery.source.name(overlap.image)
        probe, landmark = benchmark.source.name(overlap.probe), _landmark(audit, overlap.image)
        writer.writerow([benchmark.name, probe, image, landmark, f"{overlap.cosine:.4f}", overlap.inliers])
    return text.getvalue()


def landmark_list(audit: Audit) -> str:
    """The landmarks to be excluded, a line each, best first, as `data.exclude_landmarks` reads them."""
    lines = []
    for label, overlaps in audit.by_landmark().items():
        count = len(best_per_image(overlaps))
        what = f"{count} image{'s' if count > 1 else ''}, the best: {_why(audit, overlaps[0])}"
        lines.append(f"{audit.training.classes[label]}  # {what}\n")
    return "".join(lines)


def image_list(audit: Audit) -> str:
    """The images with an overlap, a line each, best first, as `data.exclude_images` reads those that have ids."""
    lines = []
    for image, overlap in best_per_image(audit.overlaps).items():
        name = f"{int(audit.training.ids[image]):016x}" if audit.ids_listed else audit.gallery.source.name(image)
        lines.append(f"{name}  # landmark {_landmark(audit, image)}, {_why(audit, overlap)}\n")
    return "".join(lines)


def sheet_rows(audit: Audit) -> list[SheetRow]:
    """The rows of the contact sheets, by landmark, best first.

    Beside a probe stand images that match this very probe: first the probe that most images of the landmark match, then
    the one that most of the others match, up to `ROWS_PER_LANDMARK` rows.
    """
    rows = []
    for label, overlaps in audit.by_landmark().items():
        left = overlaps
        for last in range(ROWS_PER_LANDMARK, 0, -1):
            beside = _best_probe(left)
            drawn = {overlap.image for overlap in beside}
            left = [overlap for overlap in left if overlap.image not in drawn]
            rows.append(_row(audit, label, len(best_per_image(overlaps)), beside, left if last == 1 else ()))
            if not left:
                break
    return rows


def _best_probe(overlaps: Sequence[Overlap]) -> list[Overlap]:
    """Of overlaps, best first, those of the probe with the most of them, as many as a row takes."""
    probes: dict[tuple[int, int], list[Overlap]] = {}
    for overlap in overlaps:
        probes.setdefault((overlap.benchmark, overlap.probe), []).append(overlap)
    return max(probes.values(), key=lambda group: min(len(group), COLUMNS))[:COLUMNS]


def _row(audit: Audit, label: int, total: int, beside: Sequence[Overlap], unseen: Sequence[Overlap]) -> SheetRow:
    benchmark, probe = audit.benchmarks[beside[0].benchmark], beside[0].probe
    query = np.flatnonzero(benchmark.queries == probe)
    name = audit.gallery.source.name
    notes = [benchmark.name, f"{total} of {np.count_nonzero(audit.training.labels == label)} match"]
    if unseen:
        notes.append(f"{len(best_per_image(unseen))} of them not shown")
    return SheetRow(
        title=str(audit.training.classes[label]),
        notes=tuple(notes),
        probe=SheetImage(
            benchmark,
            probe,
            "query" if len(query) else "positive",
            benchmark.source.name(probe),
            query_box(benchmark, int(query[0])) if len(query) else None,
        ),
        images=tuple(SheetImage(audit.gallery, o.image, f"{o.inliers} inliers", name(o.image)) for o in beside),
    )


def _heading(audit: Audit) -> str:
    names = " and ".join(benchmark.name for benchmark in audit.benchmarks)
    return f"Training images that match {names}: a detector's findings, to be judged; it misses some"


def _landmark(audit: Audit, image: int) -> str:
    return str(audit.training.classes[audit.training.labels[image]])


def _why(audit: Audit, overlap: Overlap) -> str:
    benchmark = audit.benchmarks[overlap.benchmark]
    return f"{overlap.inliers} inliers with {benchmark.source.name(overlap.probe)} of {benchmark.name}"


def _rank(overlap: Overlap) -> tuple[float, ...]:
    return -overlap.inliers, -overlap.cosine, overlap.benchmark, overlap.probe, overlap.image
