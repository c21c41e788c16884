"""The command: errors in one line."""

from __future__ import annotations

import json
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dolglab.commands.serve import main
from dolglab.library.catalogue import FILE
from dolglab.library.schema import FORMAT

app = typer.Typer()
app.command()(main)


def serve(*options: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, options)
    return done.exit_code, done.stderr


def test_a_port_in_use_is_reported_before_anything_is_loaded(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, said = serve("--library", str(tmp_path / "nothing"), "--port", port)
    assert code == 2
    assert said.count("\n") == 1
    assert all(part in said for part in (f"127.0.0.1:{port}", "Address already in use", "--port"))


def test_a_missing_library_is_reported(tmp_path: Path) -> None:
    code, said = serve("--library", str(tmp_path), "--port", "0")
    assert code == 2
    assert said.count("\n") == 1
    assert f"dolglab embed PHOTOS --library {tmp_path}" in said


@pytest.mark.parametrize(("options", "warned"), [([], True), (["--token", "x"], False)])
def test_a_public_address_without_a_token_gives_a_warning(tmp_path: Path, options: list[str], warned: bool) -> None:
    _, said = serve("--library", str(tmp_path), "--port", "0", "--host", "0.0.0.0", *options)
    assert ("warning" in said and "--read-only" in said) is warned


def test_a_token_that_a_header_cannot_contain_is_refused(tmp_path: Path) -> None:
    code, said = serve("--library", str(tmp_path), "--token", "été")
    assert code == 2
    assert said.startswith("error: --token")
    assert serve("--library", str(tmp_path), "--host", "no such host", "--port", "0")[0] == 2


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [("format", 1, f"format 1, this version reads {FORMAT}"), ("identity", {"model": "another"}, "(another)")],
)
def test_a_library_of_another_version_or_model_is_reported(own: Path, key: str, value: object, expected: str) -> None:
    with closing(sqlite3.connect(own / FILE)) as db, db:
        (old,) = db.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
        new = json.loads(old) | value if isinstance(value, dict) else value
        db.execute("UPDATE about SET value = ? WHERE key = ?", (json.dumps(new), key))
    code, said = serve("--library", str(own), "--port", "0")
    assert code == 2
    assert expected in said
    assert said.count("\n") == 1
