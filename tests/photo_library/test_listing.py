"""Which photos there are: below folders, and in lists of files."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from dolglab.errors import UserError
from dolglab.library.listing import Listing, read_list


def names(*places: str, listed: str | None = None) -> tuple[list[str], list[str]]:
    """The photos, and what is not there."""
    with closing(Listing(places, listed=listed)) as listing:
        return [file.name for file in listing], [error.filename for error in listing.unreadable]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_a_list_names_files_and_folders_and_what_is_gone_is_left_out(folder: Path, tmp_path: Path, end: str) -> None:
    listed = tmp_path / "list.txt"
    wanted = [str(folder / "a" / "0.jpg"), str(tmp_path / "gone.jpg"), str(folder / "b c")]
    listed.write_bytes(end.join([*wanted, wanted[0]]).encode())
    for chunk in (1 << 20, len(wanted[0]) + len(end)):
        assert list(read_list(str(listed), chunk)) == [*wanted, wanted[0]]
    found, gone = names(str(folder / "a" / "1.jpg"), listed=str(listed))
    assert found == [str(folder / name) for name in ("a/0.jpg", "a/1.jpg", "b c/3.jpg", "b c/4.jpg", "b c/5.jpg")]
    assert gone == [wanted[1]]


def test_names_with_newlines_are_told_apart_by_nul(folder: Path, tmp_path: Path) -> None:
    (odd,) = folder.glob("a/photo*")
    assert "\n" in odd.name
    (tmp_path / "list.txt").write_text(f"{odd}\0")
    assert names(listed=str(tmp_path / "list.txt")) == ([str(odd)], [])


@pytest.mark.parametrize(("text", "said"), [(None, r"list\.txt"), ("", r"list\.txt"), ("s3x://a", r"s3x://a")])
def test_a_list_of_nothing_is_a_mistake(tmp_path: Path, text: str | None, said: str) -> None:
    listed = tmp_path / "list.txt"
    if text is not None:
        listed.write_text(text)
    with pytest.raises(UserError, match=said):
        names(listed=str(listed))
