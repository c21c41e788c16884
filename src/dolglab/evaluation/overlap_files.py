"""The files of an audit: a table, exclude lists for training, contact sheets, and how the audit was made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dolglab.contracts import Benchmark, TrainingSet
from dolglab.data.sources import GLDv2Source
from dolglab.errors import UserError
from dolglab.io import csv_text, write_bytes, write_text
from dolglab.results.pictures import BORDER, Box, Layout, draw_text, jpeg, paste_framed, query_box, thumbnail

TABLE, LANDMARKS, IMAGES, ABOUT = "overlap.csv", "exclude_landmarks.txt", "exclude_images.txt", "about.json"
SHEET, SHEETS = "contact_sheet.jpg", "contact_sheet*.jpg"
# The most rows of one landmark on the contact sheet.
ROWS_PER_LANDMARK = 3
# Images beside a probe, and rows per page.
COLUMNS, ROWS = 6, 6
THUMB, GAP = 160, 10
TEXT_WIDTH, LABEL_HEIGHT, HEADER = 190, 42, 40
SIDE = THUMB + 2 * BORDER
LAYOUT = Layout(THUMB, 1, HEADER - GAP, TEXT_WIDTH, LABEL_HEIGHT, GAP)


@dataclass(frozen=True)
class Overlap:
    """A training image that matches a probe: their positions, cosine, and number of inliers."""

    benchmark: int
    probe: int
    image: int
    cosine: float
    inliers: int


@dataclass(frozen=True)
class Audit:
    """Overlaps of training images (`gallery`) with benchmarks; landmarks with `images` overlaps are to be excluded."""

    training: TrainingSet
    gallery: Benchmark
    benchmarks: tuple[Benchmark, ...]
    overlaps: tuple[Overlap, ...]
    images: int = 1

    @property
    def ids_listed(self) -> bool:
        """Whether training can exclude the listed images by id, as for Google Landmarks v2."""
        return isinstance(self.training.source, GLDv2Source)

    def by_landmark(self) -> dict[int, list[Overlap]]:
        """The overlaps of each excluded landmark, by label; landmarks and overlaps are sorted best first."""
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
    """Write table, lists and contact sheets, and then `about`, so that it exists only beside a complete audit.

    Sheets of an earlier audit are removed.

    Raises UserError if the folder cannot be written.
    """
    try:
        for file in (out / ABOUT, *out.glob(SHEETS)):
            file.unlink(missing_ok=True)
        names = " and ".join(benchmark.name for benchmark in audit.benchmarks)
        heading = f"Training images that match {names}: a detector's findings, to be judged; it misses some"
        sheets = contact_sheets(sheet_rows(audit), heading)
        for number, sheet in enumerate(sheets, 1):
            write_bytes(out / (SHEET if number == 1 else SHEET.replace(".", f"_{number}.")), sheet)
        write_text(out / TABLE, overlap_table(audit))
        write_text(out / LANDMARKS, landmark_list(audit))
        write_text(out / IMAGES, image_list(audit))
        write_text(out / ABOUT, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from error


def overlap_table(audit: Audit) -> str:
    """All overlaps as CSV, best first."""
    rows: list[list[object]] = [["benchmark", "probe", "training_image", "landmark", "cosine", "inliers"]]
    for overlap in sorted(audit.overlaps, key=_rank):
        benchmark = audit.benchmarks[overlap.benchmark]
        image = audit.gallery.source.name(overlap.image)
        probe, landmark = benchmark.source.name(overlap.probe), _landmark(audit, overlap.image)
        rows.append([benchmark.name, probe, image, landmark, f"{overlap.cosine:.4f}", overlap.inliers])
    return csv_text(rows)


def landmark_list(audit: Audit) -> str:
    """The excluded landmarks, one per line, best first, in the format of `data.exclude_landmarks`."""
    lines = []
    for label, overlaps in audit.by_landmark().items():
        count = len(best_per_image(overlaps))
        what = f"{count} image{'s' if count > 1 else ''}, the best: {_why(audit, overlaps[0])}"
        lines.append(f"{audit.training.classes[label]}  # {what}\n")
    return "".join(lines)


def image_list(audit: Audit) -> str:
    """The overlapping images, one per line, best first; those with ids in the format of `data.exclude_images`."""
    lines = []
    for image, overlap in best_per_image(audit.overlaps).items():
        name = f"{int(audit.training.ids[image]):016x}" if audit.ids_listed else audit.gallery.source.name(image)
        lines.append(f"{name}  # landmark {_landmark(audit, image)}, {_why(audit, overlap)}\n")
    return "".join(lines)


@dataclass(frozen=True)
class SheetImage:
    """An image of a benchmark, a caption line above its name, and the box to crop."""

    benchmark: Benchmark
    position: int
    label: str
    box: Box | None = None


@dataclass(frozen=True)
class SheetRow:
    """A probe, up to `COLUMNS` training images that match it, best first, and the notes beside them."""

    title: str
    notes: tuple[str, ...]
    probe: SheetImage
    images: tuple[SheetImage, ...]


def sheet_rows(audit: Audit) -> list[SheetRow]:
    """The rows of the contact sheets, by landmark, best first.

    Each row shows a probe and images that match it: first the probe that most images of the landmark match, then the
    probe that most of the remaining images match, up to `ROWS_PER_LANDMARK` rows.
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
    """The overlaps of the probe with the most, best first, limited to a row."""
    probes: dict[tuple[int, int], list[Overlap]] = {}
    for overlap in overlaps:
        probes.setdefault((overlap.benchmark, overlap.probe), []).append(overlap)
    return max(probes.values(), key=lambda group: min(len(group), COLUMNS))[:COLUMNS]


def _row(audit: Audit, label: int, total: int, beside: Sequence[Overlap], unseen: Sequence[Overlap]) -> SheetRow:
    benchmark, probe = audit.benchmarks[beside[0].benchmark], beside[0].probe
    query = np.flatnonzero(benchmark.queries == probe)
    box = query_box(benchmark, int(query[0])) if len(query) else None
    notes = [benchmark.name, f"{total} of {np.count_nonzero(audit.training.labels == label)} match"]
    if unseen:
        notes.append(f"{len(best_per_image(unseen))} of them not shown")
    return SheetRow(
        title=str(audit.training.classes[label]),
        notes=tuple(notes),
        probe=SheetImage(benchmark, probe, "query" if len(query) else "positive", box),
        images=tuple(SheetImage(audit.gallery, o.image, f"{o.inliers} inliers") for o in beside),
    )


def contact_sheets(rows: Sequence[SheetRow], heading: str) -> list[bytes]:
    """JPEG pages of at most 600 kB with `ROWS` rows each, in order; the page number is added to the heading."""
    pages = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
    return [_page(page, f"{heading} (page {number} of {len(pages)})") for number, page in enumerate(pages, 1)]


def _page(rows: Sequence[SheetRow], heading: str) -> bytes:
    columns = max(len(row.images) for row in rows)
    canvas = Image.new("RGB", (max(900, LAYOUT.corner(0, columns + 1)[0]), LAYOUT.corner(len(rows), 0)[1]), "white")
    draw = ImageDraw.Draw(canvas)
    draw_text(draw, (GAP, HEADER / 2), heading, 17, "#111111", "lm", canvas.width - 2 * GAP)
    for number, row in enumerate(rows):
        top, room = LAYOUT.corner(number, 0)[1], TEXT_WIDTH - 2 * GAP
        draw_text(draw, (GAP, top + BORDER), row.title, 18, "#111111", "lt", room)
        for line, note in enumerate(row.notes):
            draw_text(draw, (GAP, top + 34 + 20 * line), note, 13, "#666666", "lt", room)
        for column, image in enumerate((row.probe, *row.images)):
            x, y = LAYOUT.corner(number, column)
            tile = thumbnail(image.benchmark, image.position, THUMB, image.box)
            paste_framed(canvas, tile, (x, y), "positive" if column else "query")
            draw_text(draw, (x + SIDE / 2, y + SIDE + 11), image.label, 14, "#111111", "mm", SIDE)
            name = image.benchmark.source.name(image.position)
            draw_text(draw, (x + SIDE / 2, y + SIDE + 29), name, 12, "#666666", "mm", SIDE, keep_end=True)
    return jpeg(canvas)


def _landmark(audit: Audit, image: int) -> str:
    return str(audit.training.classes[audit.training.labels[image]])


def _why(audit: Audit, overlap: Overlap) -> str:
    benchmark = audit.benchmarks[overlap.benchmark]
    return f"{overlap.inliers} inliers with {benchmark.source.name(overlap.probe)} of {benchmark.name}"


def _rank(overlap: Overlap) -> tuple[float, ...]:
    return -overlap.inliers, -overlap.cosine, overlap.benchmark, overlap.probe, overlap.image
