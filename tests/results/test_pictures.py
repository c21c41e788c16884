"""Titled pictures in a run's folder."""

import pytest

from dolglab.errors import UserError
from dolglab.results.pictures import read_pictures, write_pictures


def test_pictures_keep_their_titles_and_their_order(tmp_path):
    pictures = [(f"query {number}: façade", bytes([number])) for number in range(11)]
    write_pictures(tmp_path, pictures)
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir())[:2] == ["01.jpg", "02.jpg"]
    assert read_pictures(tmp_path) == pictures


def test_without_pictures_nothing_is_written(tmp_path):
    write_pictures(tmp_path, [])
    assert list(tmp_path.iterdir()) == []
    assert read_pictures(tmp_path) == []


def test_a_picture_without_a_title_has_its_file_name(tmp_path):
    write_pictures(tmp_path, [("first", b"1")])
    (tmp_path / "pictures" / "own.jpg").write_bytes(b"2")
    assert read_pictures(tmp_path) == [("first", b"1"), ("own", b"2")]


@pytest.mark.parametrize("text", ["{", '["a"]'])
def test_unreadable_titles_are_a_user_error(tmp_path, text):
    write_pictures(tmp_path, [("first", b"1")])
    (tmp_path / "pictures" / "titles.json").write_text(text)
    with pytest.raises(UserError, match=r"titles\.json"):
        read_pictures(tmp_path)
