"""The commands of `dolglab library`, run in this process, and without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dolglab.commands.library import app
from dolglab.library.contents import Photo
from photo_library.made import library_of, table, unit

SRC = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def library(tmp_path: Path) -> str:
    """Two nearly equal photos of each of two places, and one without a place."""
    rows = unit(2, 8)[[0, 0, 1, 1, 0]]
    places = [{"place": "x"}, {"place": "x"}, {"place": "y"}, {"place": "y"}, {}]
    photos = [Photo(f"/{row}", 1, 1, (1, 1), metadata=place) for row, place in enumerate(places)]
    library_of(tmp_path / "a library", photos, rows)
    return str(tmp_path / "a library")


# Runs the commands, and a search by descriptors.
WITHOUT_TORCH = """
import sys
from dolglab.library.duplicates import write_duplicates
from dolglab.library.labelling import label
from dolglab.library.library import Library
from dolglab.library.maintenance import merge, print_info, remove

folder, out = sys.argv[1:]
library = Library(folder)
(answers,) = library.search(library.descriptors(library.keys()[:1]), 2)
assert len(answers) == 2
print_info(library)
write_duplicates(library, out, 0.98)
label(library, out, column="place", neighbours=1)
remove(library, ["/4"])
merge([folder], folder + " merged")
assert "torch" not in sys.modules
"""


@pytest.mark.process
def test_no_command_needs_torch(library: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, library, str(tmp_path / "out.csv")], cwd=SRC, check=True)


@pytest.mark.process
def test_torch_is_imported_when_a_network_runs() -> None:
    """Errors and help are printed and images are scanned without it."""
    modules = ["library.ingest", "library.search_engine", "library.search_results", "server.app", "server.service"]
    modules += ["sharing.loading", "retrieval.ranking", "data.preparation.scan", "data.preparation.pack"]
    code = f"import sys, {', '.join(f'dolglab.{module}' for module in modules)}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=SRC, check=True)


def say(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_every_command_works(library: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out.csv")
    assert "photos: 5" in say("info", "--library", library)
    found = say("duplicates", "--library", library, "--out", out, "--least", "0.99")
    assert "2 clusters of near-duplicates with 5 photos" in found
    assert [row["photo"] for row in table(tmp_path / "out.csv")] == ["/0", "/1", "/4", "/2", "/3"]
    said = say("label", "--library", library, "--column", "place", "--neighbours", "1", "--out", out, "--write")
    assert "on 4 photos with a known name:\n  named by the other photos: 100.0 % correctly" in said
    assert [(row["photo"], row["label"]) for row in table(tmp_path / "out.csv")] == [("/4", "x")]
    assert "columns: place, place score" in say("info", "--library", library)
    assert "1 photo removed: 4 in" in say("remove", "--library", library, "/4")
    other = str(tmp_path / "other")
    assert f"4 photos in {other}" in say("merge", library, "--library", other)
