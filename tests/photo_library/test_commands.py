"""Output of the commands, and continuing after a kill."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from pathlib import Path

import pytest

from dolglab.library.library import Library
from photo_library.conftest import save
from warm_python import run_python, started

pytestmark = pytest.mark.process

MODEL = ["--model", "efficientnet_lite0", "--max-side", "64"]


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python(["-m", f"src.{module}", *arguments], timeout=120)


def test_a_folder_is_embedded_and_searched_with_its_catalogue(folder: Path, tmp_path: Path) -> None:
    library = str(tmp_path / "a library")
    table = tmp_path / "catalogue.csv"
    table.write_text("file,year\na/0.jpg,1900\n1.jpg,1901\nnobody.jpg,1902\n", encoding="utf-8-sig")
    (folder / "broken.jpg").write_text("text")
    planned = run("embed", str(folder), "--library", library, *MODEL, "--plan")
    assert "7 photos" in planned.stdout
    assert "7 of them to be described" in planned.stdout
    assert not Path(library).exists()

    done = run("embed", str(folder), "--library", library, *MODEL, "--metadata", str(table))
    assert done.returncode == 0, done.stderr
    assert "1 row without a photo here: 'nobody.jpg'" in done.stdout
    assert "broken.jpg': not an image" in done.stdout
    assert f"6 photos described, 0 already there, 1 could not be read: 6 in {library}" in done.stdout
    again = run("embed", str(folder), "--library", library, "--max-side", "64")
    assert f"0 photos described, 7 already there: 6 in {library}" in again.stdout
    anew = run("embed", str(folder), "--library", library, "--max-side", "64", "--again", "--exclude", "a")
    assert f"3 photos described, 0 already there, 1 could not be read: 6 in {library}" in anew.stdout

    (odd,) = folder.glob("a/photo*")
    found = run("search", str(odd), "--library", library, "--json", "--top", "2")
    assert found.returncode == 0, found.stderr
    (result,) = json.loads(found.stdout)
    assert result["query"] == result["answers"][0]["photo"] == str(odd)
    assert result["answers"][0]["cosine"] == pytest.approx(1, abs=1e-5)
    shown = run("search", str(folder / "a" / "0.jpg"), "--library", library, "--where", "year=1901")
    assert "1901" in shown.stdout
    assert "a/0.jpg" in shown.stdout.splitlines()[0]
    assert "1900" not in shown.stdout


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        ("embed", ["NOTHING", "--library", "LIBRARY"], "no such file or folder"),
        ("embed", ["FOLDER", "--library", "LIBRARY", "--model", "nothing"], "no such file, none of dinov2"),
        ("embed", ["FOLDER", "--library", "LIBRARY", "--scales", "a"], "--scales must be numbers"),
        ("embed", ["FOLDER", "--library", "LIBRARY", *MODEL, "--backend", "tpu"], "--backend is auto, torch or onnx"),
        ("embed", ["FOLDER", "--library", "LIBRARY", "--metadata", "NOTHING"], "cannot be read as a table"),
        ("search", ["FOLDER", "--library", "LIBRARY"], "no library in"),
        ("library", ["duplicates", "--library", "LIBRARY"], "no library in"),
    ],
)
def test_a_mistake_gives_one_line(folder: Path, tmp_path: Path, module: str, arguments: list[str], said: str) -> None:
    places = {"FOLDER": str(folder), "LIBRARY": str(tmp_path / "library"), "NOTHING": str(tmp_path / "nothing")}
    done = run(module, *(places.get(word, word) for word in arguments))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_a_killed_embedding_continues(tmp_path: Path) -> None:
    photos, library = tmp_path / "photos", tmp_path / "library"
    for number in range(1200):
        save(photos / f"{number:04d}.jpg", number, cell=32)
    large = ["--model", "efficientnet_lite0", "--max-side", "192"]
    with started(["-m", "src.embed", str(photos), "--library", str(library), *large]) as process:
        while process.poll() is None and not count(library):
            time.sleep(0.05)
        assert process.poll() is None, "it ended before it could be killed"
    kept = count(library)
    assert 0 < kept < 1200
    done = run("embed", str(photos), "--library", str(library), *large)
    assert f"{1200 - kept} photos described, {kept} already there: 1200 in" in done.stdout


def count(library: Path) -> int:
    with contextlib.suppress(Exception):
        return len(Library(library))
    return 0
