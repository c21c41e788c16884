"""Pictures beside a run, such as matches and attention maps, with their titles."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from src.errors import InputError
from src.files import write_bytes, write_text

FOLDER, TITLES = "pictures", "titles.json"


def write_pictures(run: Path, pictures: Sequence[tuple[str, bytes]]) -> None:
    """Write titles and JPEGs as `pictures/01.jpg`, ... and `pictures/titles.json`; nothing where there is none."""
    if not pictures:
        return
    digits = max(2, len(str(len(pictures))))
    names = [f"{number:0{digits}}.jpg" for number in range(1, len(pictures) + 1)]
    for name, (_, image) in zip(names, pictures, strict=True):
        write_bytes(run / FOLDER / name, image)
    titles = {name: title for name, (title, _) in zip(names, pictures, strict=True)}
    write_text(run / FOLDER / TITLES, json.dumps(titles, indent=1, ensure_ascii=False) + "\n")


def read_pictures(run: Path) -> list[tuple[str, bytes]]:
    """The pictures beside a run with their titles; one without a title goes by its name.

    Raises InputError when the titles cannot be read.
    """
    file = run / FOLDER / TITLES
    try:
        titles = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except ValueError as error:
        raise InputError(f"titles of pictures are not JSON: {file} ({error})") from error
    if not isinstance(titles, dict):
        raise InputError(f"titles of pictures are no object of names and titles: {file}")
    return [(str(titles.get(path.name, path.stem)), path.read_bytes()) for path in sorted((run / FOLDER).glob("*.jpg"))]
