"""Bad images are found in advance, and training leaves them out."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from archives import tar
from dolglab.data.archive_source import index_archives
from dolglab.data.gldv2 import load_gldv2, select
from dolglab.data.preparation import scan
from dolglab.data.preparation.scan import scan_gldv2
from dolglab.errors import UserError


def spoil(root: Path) -> list[Path]:
    """An empty file, a truncated one and a missing one."""
    files = sorted((root / "train").rglob("*.jpg"))
    files[3].write_bytes(b"")
    files[11].write_bytes(files[11].read_bytes()[:-200])
    files[20].unlink()
    return [files[3], files[11], files[20]]


@pytest.mark.parametrize("workers", [1, 2])
def test_broken_images_are_listed_and_left_out(gldv2: Path, capsys: pytest.CaptureFixture[str], workers: int) -> None:
    bad = spoil(gldv2)
    # The missing one is among those that are probed when the list is read.
    (gldv2 / "train_clean.csv").write_text((gldv2 / "train_clean.csv").read_text().replace(bad.pop().stem, ""))
    listed = scan_gldv2(gldv2, workers=workers, chunk_size=7)
    assert listed == gldv2 / "train" / "skip_list.txt"
    with (gldv2 / "train" / "bad_images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["name"]).stem for row in rows] == [file.stem for file in bad]
    assert rows[0]["reason"] == "zero bytes"
    assert {row["used"] for row in rows} == {"no"}
    training = load_gldv2(gldv2)
    kept = select(training, exclude_images=[listed])
    assert len(kept) == len(training) - 2
    assert not {f"{int(i):016x}" for i in kept.ids} & {file.stem for file in bad}
    said = capsys.readouterr().out
    assert "29 images read: 2 cannot be used, 0 are odd but used" in said
    assert "1 x zero bytes" in said
    assert not list((gldv2 / "train").glob(".scan-*"))


def test_archives_are_scanned_without_unpacking(gldv2: Path, tmp_path: Path) -> None:
    bad = [f"{file.stem}" for file in spoil(gldv2)[:2]]
    root = tmp_path / "in archives"
    (root / "train").mkdir(parents=True)
    files = {str(file.relative_to(gldv2 / "train")): file.read_bytes() for file in (gldv2 / "train").rglob("*.jpg")}
    (root / "train" / "images_000.tar").write_bytes(tar(files))
    ids = " ".join(Path(name).stem for name in files)
    (root / "train_clean.csv").write_text(f"landmark_id,images\n7,{ids}\n")
    index_archives(root / "train", 1)
    listed = scan_gldv2(root, workers=1).read_text()
    assert [line.split("  # ")[0] for line in listed.splitlines()] == bad


def test_a_stopped_scan_is_resumed(gldv2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    inspect = scan.inspect

    def stopping(*arguments):
        read.append(1)
        if len(read) == 15:
            raise KeyboardInterrupt
        return inspect(*arguments)

    monkeypatch.setattr(scan, "inspect", stopping)
    with pytest.raises(KeyboardInterrupt):
        scan_gldv2(gldv2, workers=1, chunk_size=10)
    scan_gldv2(gldv2, workers=1, chunk_size=10)
    assert len(read) == 15 + 20


def test_the_index_and_test_images_are_scanned_by_their_lists(gldv2: Path) -> None:
    name = sorted((gldv2 / "train").rglob("*.jpg"))[0]
    place = gldv2 / "index" / name.relative_to(gldv2 / "train")
    place.parent.mkdir(parents=True)
    place.write_bytes(b"no image")
    (gldv2 / "index.csv").write_text(f"id\n{name.stem}\n")
    assert scan_gldv2(gldv2, split="index", workers=1).read_text() == f"{name.stem}  # not an image\n"


def test_invalid_options_and_lists_are_reported(gldv2: Path) -> None:
    for options, message in [
        ({"split": "valid"}, "split=valid .*train, index, test"),
        ({"split": "test"}, r"test\.csv"),
        ({"source": "zip"}, "data.source=zip"),
    ]:
        with pytest.raises(UserError, match=message):
            scan_gldv2(gldv2, **options)
    (gldv2 / "index.csv").write_text("image\n00\n")
    with pytest.raises(UserError, match=r"index\.csv.*\bid\b.*\'image\'"):
        scan_gldv2(gldv2, split="index")


def test_a_list_of_index_images_is_refused_for_training_by_its_contents(gldv2: Path) -> None:
    ids = [f"{number:016x}" for number in range(40)]
    (gldv2 / "index.csv").write_text("id\n" + "\n".join(ids) + "\n")
    (gldv2 / "mine.csv").write_text("id,landmark_id\n" + "".join(f"{name},5\n" for name in ids))
    with pytest.raises(UserError, match=r"mine\.csv"):
        load_gldv2(gldv2, "mine.csv")


def test_missing_files_are_findings_and_other_scans_leave_nothing(
    gldv2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted((gldv2 / "train").rglob("*.jpg"))
    files[0].unlink()
    (gldv2 / "train" / ".scan-0123").mkdir()
    assert scan_gldv2(gldv2, workers=1).read_text() == f"{files[0].stem}  # the file is missing\n"
    assert "29 images read: 0 cannot be used, 0 are odd but used, 1 are missing" in capsys.readouterr().out
    assert not list((gldv2 / "train").glob(".scan-*"))
    for options in ({"orientation": "up"}, {"min_side": 0}, {"workers": "many"}):
        ((name, value),) = options.items()
        with pytest.raises(UserError, match=rf"{name}.* {value}"):
            scan_gldv2(gldv2, **options)
