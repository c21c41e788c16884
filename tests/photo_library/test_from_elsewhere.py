"""Libraries from somebody else: addresses, contents and links in them."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import fsspec
import numpy as np
import pytest

from dolglab.data import addresses
from dolglab.errors import UserError
from dolglab.library import stores
from dolglab.library.catalogue import FILE, JOURNAL_MAGIC
from dolglab.library.contents import Photo, key_of
from dolglab.library.duplicates import write_duplicates
from dolglab.library.ingest import embed_places
from dolglab.library.labelling import label
from dolglab.library.library import Library, model_source
from dolglab.library.listing import Listing
from dolglab.library.maintenance import merge, print_info, remove
from dolglab.library.search_results import search_photos
from dolglab.library.stores import SegmentLimits
from dolglab.retrieval.rabitq import FastScanCodes
from dolglab.sharing.loading import LoadedExtractor
from photo_library.made import identity, library_of, unit

DIM = 8


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(addresses.VARIABLE, "")


@pytest.fixture(scope="module")
def true_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of twelve photos in two segments, one of them removed, with a column; tests must not change it."""
    folder = tmp_path_factory.mktemp("true") / "library"
    photos = [Photo(f"/photos/{n}.jpg", 10, 20, (64, 64), metadata={"year": str(n)}) for n in range(12)]
    with closing(library_of(folder, photos, unit(12, DIM), 2)) as library:
        library.remove(["/photos/3.jpg"])
    return folder


@pytest.fixture
def made(true_one: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(true_one, tmp_path / "library"))


def execute(library: Path, script: str) -> None:
    with closing(sqlite3.connect(library / FILE)) as db:
        db.executescript(script)


def use(folder: Path) -> None:
    """Use all functions that read a library without a network."""
    with closing(Library(folder)) as library:
        print_info(library, bad=True)
        for filters in (None, {"year": "1"}):
            library.search(unit(3, DIM, 1), 20, filters)
        with library.writing():
            library.forget_damaged()
        write_duplicates(library, str(folder.parent / "duplicates.csv"), 0.5)
        label(library, folder.parent / "labels.csv", column="year", neighbours=3, write=True)
        list(library.catalogue.find(range(1, 13)))
    merge([str(folder)], str(folder.parent / "merged"))
    with closing(Library(folder)) as library:
        library.compact()
        remove(library, ["/photos/1.jpg"])


def test_an_untampered_catalogue_can_be_used(made: Path) -> None:
    use(made)


LIES = {
    "no dim": """UPDATE about SET value = json_remove(value, '$.dim') WHERE key = 'identity'""",
    "another dim": """UPDATE about SET value = json_set(value, '$.dim', 9) WHERE key = 'identity'""",
    "huge dim": """UPDATE about SET value = json_set(value, '$.dim', 1000000000000) WHERE key = 'identity'""",
    "dim of text": """UPDATE about SET value = json_set(value, '$.dim', '8') WHERE key = 'identity'""",
    "dim true": """UPDATE about SET value = json_set(value, '$.dim', json('true')) WHERE key = 'identity'""",
    "no scales": """UPDATE about SET value = json_set(value, '$.scales', json('[]')) WHERE key = 'identity'""",
    "infinite scale": """UPDATE about SET value = replace(value, '[1.0]', '[Infinity]') WHERE key = 'identity'""",
    "scale beyond numbers": f"""UPDATE about SET value = replace(value, '[1.0]', '[1{"0" * 400}]')
        WHERE key = 'identity'""",
    "scales of text": """UPDATE about SET value = json_set(value, '$.scales', 'all') WHERE key = 'identity'""",
    "title of none": """UPDATE about SET value = json_set(value, '$.title', null) WHERE key = 'identity'""",
    "other colours": """UPDATE about SET value = json_set(value, '$.colour', 'sepia') WHERE key = 'identity'""",
    "identity a list": """UPDATE about SET value = '[1]' WHERE key = 'identity'""",
    "identity no JSON": """UPDATE about SET value = 'model' WHERE key = 'identity'""",
    "identity nested": f"""UPDATE about SET value = '{"[" * 100_000}' WHERE key = 'identity'""",
    "identity bytes": """UPDATE about SET value = x'ff' WHERE key = 'identity'""",
    "no identity": """DELETE FROM about WHERE key = 'identity'""",
    "format a list": """UPDATE about SET value = '[3]' WHERE key = 'format'""",
    "no store": """DELETE FROM about WHERE key = 'store'""",
    "another store": """UPDATE about SET value = '{"kind": "tape"}' WHERE key = 'store'""",
    "store without a kind": """UPDATE about SET value = '{}' WHERE key = 'store'""",
    "store of lists": """UPDATE about SET value = '{"kind": ["flat"]}' WHERE key = 'store'""",
    "store elsewhere": """UPDATE about SET value = '{"kind": "milvus", "uri": "http://127.0.0.1:9", "collection": "c"}'
        WHERE key = 'store'""",
    "store without an address": """UPDATE about SET value = '{"kind": "milvus"}' WHERE key = 'store'""",
    "mounts a text": """INSERT INTO about VALUES ('mounts', '"/"')""",
    "local features of no kind": """INSERT INTO about VALUES ('local', '[1]')""",
    "local features without a name": """INSERT INTO about VALUES ('local', '{"features": 1}')""",
    "mounts of numbers": """INSERT INTO about VALUES ('mounts', '[1]')""",
    "larger segment": """UPDATE segment SET size = size + 1""",
    "huge segment": """UPDATE segment SET size = 1000000000000""",
    "smaller segment": """UPDATE segment SET size = 2""",
    "sizes that cancel out": """UPDATE segment SET size = CASE number WHEN 1 THEN -5 ELSE 17 END""",
    "empty segment": """UPDATE segment SET size = 0""",
    "size of text": """UPDATE segment SET size = 'six'""",
    "negative segment": """UPDATE segment SET number = -1 WHERE number = 1""",
    "segment beyond keys": f"""UPDATE segment SET number = {1 << 40} WHERE number = 1""",
    "another segment": """UPDATE segment SET number = 7 WHERE number = 1""",
    "index elsewhere": """UPDATE segment SET kind = '../../../etc/passwd'""",
    "index of bytes": """UPDATE segment SET kind = x'ff'""",
    "no segments": """DELETE FROM segment""",
    "dead row that is none": f"""INSERT INTO dead VALUES ({key_of(1, 6)}); DELETE FROM photo WHERE id = 1""",
    "dead row of no segment": f"""UPDATE dead SET key = {key_of(9, 1)}""",
    "dead key below": """UPDATE dead SET key = -5""",
    "key beyond": f"""DELETE FROM dead; UPDATE photo SET key = {key_of(1, 6)} WHERE id = 1;
        DELETE FROM dead; INSERT INTO dead VALUES ({key_of(1, 3)})""",
    "key of no segment": f"""UPDATE photo SET key = {key_of(5, 0)} WHERE id = 1; DELETE FROM dead;
        INSERT INTO dead VALUES ({key_of(1, 3)})""",
    "key of text": """UPDATE photo SET key = 'first' WHERE id = 1""",
    "name of text": """UPDATE photo SET name = 'a.jpg' WHERE id = 1""",
    "name with NUL": """UPDATE photo SET name = x'610062' WHERE id = 1""",
    "width of text": """UPDATE photo SET width = 'wide' WHERE id = 1""",
    "width alone": """UPDATE photo SET height = NULL WHERE id = 1""",
    "no width": """UPDATE photo SET height = 0, width = 0 WHERE id = 1""",
    "size of bytes": """UPDATE photo SET size = x'00' WHERE id = 1""",
    "ctime of text": """UPDATE photo SET ctime = 'now' WHERE id = 1""",
    "digest of text": """UPDATE photo SET digest = 'abc' WHERE id = 1""",
    "reason of bytes": """UPDATE photo SET reason = x'00' WHERE id = 1""",
    "metadata a list": """DROP TRIGGER described; UPDATE photo SET metadata = '[1]'""",
    "metadata of numbers": """UPDATE photo SET metadata = '{"year": 1}' WHERE id = 1""",
    "metadata no JSON": """DROP TRIGGER described; UPDATE photo SET metadata = 'x'""",
    "trigger": """CREATE TRIGGER more AFTER INSERT ON photo BEGIN DELETE FROM photo; END""",
    "another trigger": """DROP TRIGGER gone; CREATE TRIGGER gone AFTER DELETE ON photo BEGIN DELETE FROM dead; END""",
    "no trigger": """DROP TRIGGER gone""",
    "view": """ALTER TABLE photo RENAME TO picture; CREATE VIEW photo AS SELECT * FROM picture""",
    "view of what it says": """ALTER TABLE about RENAME TO more; CREATE VIEW about AS SELECT * FROM more""",
    "table named as SQLite's own": """CREATE TABLE more (value TEXT); PRAGMA writable_schema = ON;
        UPDATE sqlite_master SET name = 'sqlite_stat9', tbl_name = 'sqlite_stat9' WHERE name = 'more'""",
    "table without a name": """PRAGMA writable_schema = ON;
        UPDATE sqlite_master SET name = CAST(name AS BLOB) WHERE name = 'field'""",
    "table": """CREATE TABLE more (value TEXT)""",
    "index": """CREATE INDEX more ON photo (hex(name))""",
    "generated column": """ALTER TABLE photo ADD COLUMN more AS (hex(name))""",
    "no table": """DROP TABLE field""",
    "virtual table": """CREATE VIRTUAL TABLE more USING fts5(value)""",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_tampered_catalogue_is_refused_in_one_line(made: Path, lie: str) -> None:
    execute(made, LIES[lie])
    with pytest.raises(UserError) as refused:
        use(made)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0", b"text" * 1000])
def test_files_that_are_not_catalogues_are_refused(made: Path, data: bytes) -> None:
    (made / FILE).write_bytes(data)
    with pytest.raises(UserError):
        use(made)


def test_a_foreign_journal_is_refused_before_it_is_applied(made: Path, tmp_path: Path) -> None:
    journal = made / f"{FILE}-journal"
    # Neither of them is one that SQLite would take for one.
    journal.write_bytes(bytes(100))
    Library(made).close()
    journal.write_bytes(bytes(100) + JOURNAL_MAGIC)
    with pytest.raises(UserError, match="several files"):
        Library(made)
    journal.unlink()
    journal.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        Library(made)


def test_a_foreign_trigger_does_not_run(made: Path) -> None:
    execute(made, "CREATE TRIGGER more AFTER DELETE ON photo BEGIN DELETE FROM photo; END")
    with pytest.raises(UserError, match="trigger more"):
        Library(made)
    with closing(sqlite3.connect(made / FILE)) as db:
        assert db.execute("SELECT COUNT(*) FROM photo").fetchone() == (11,)


CODED = SegmentLimits(coded_from=600, coded_dim=DIM, shortlist=50, scanned_share=0.9)


def swap(flat: Path, codes: Path, packed: Path) -> None:
    shutil.copy(flat, packed)


def other_metric(flat: Path, codes: Path, packed: Path) -> None:
    data = bytearray(flat.read_bytes())
    # Behind its name, two sizes, two places that are not used, and whether it is trained: L2 instead of products.
    data[:4], data[33:37] = b"IxF2", (1).to_bytes(4, "little")
    flat.write_bytes(data)


def fewer_codes(flat: Path, codes: Path, packed: Path) -> None:
    few = FastScanCodes()
    few.build(unit(300, DIM))
    few.save(packed)
    about = packed.with_name(f"{packed.name}.json")
    about.write_text(json.dumps(json.loads(about.read_text()) | {"count": 300}))


@pytest.mark.parametrize("change", [swap, other_metric, fewer_codes])
def test_a_tampered_index_is_refused_in_one_line(tmp_path: Path, change: Callable[[Path, Path, Path], None]) -> None:
    folder, photos = tmp_path / "library", [Photo(f"/photos/{n}.jpg", 10, 20, (64, 64)) for n in range(700)]
    with closing(Library.open(folder, identity(DIM), limits=CODED)) as library:
        library.add(photos, unit(700, DIM))
    paths = [next(folder.glob(f"segments/*.{kind}")) for kind in ("flat", "rabitq_codes", "rabitq_fast_scan")]
    change(*paths)
    for path in paths:
        beside = path.with_name(f"{path.name}.json")
        beside.write_text(json.dumps(json.loads(beside.read_text()) | {"bytes": path.stat().st_size}))
    with (
        closing(Library(folder, limits=CODED)) as library,
        pytest.raises(UserError, match=r"damaged|is not of the 700"),
    ):
        library.search(unit(3, DIM, 1), 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, 5.0])
def test_descriptors_without_unit_length_are_refused_in_one_line(made: Path, value: float) -> None:
    for flat in made.glob("segments/*.flat"):
        data = bytearray(flat.read_bytes())
        data[-4:] = np.float32(value).tobytes()
        flat.write_bytes(data)
    with closing(Library(made)) as library:
        with pytest.raises(UserError, match="L2-normalised"):
            library.descriptors(library.keys())
        if np.isfinite(value):
            with pytest.raises(UserError, match="L2-normalised"):
                library.search(np.eye(DIM, dtype=np.float32)[-1:], 20)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '{"settings": 1}', '{"settings": {}, "kind": ["flat"]}', "\xff"])
def test_files_beside_an_index_may_contain_anything(made: Path, text: str) -> None:
    for beside in made.glob("segments/*.json"):
        beside.write_text(text, encoding="latin-1")
    with closing(Library(made)) as library, pytest.raises(UserError):
        library.search(unit(1, DIM), 5)


@pytest.mark.parametrize("part", ["segments", FILE, ".lock", "added-photos"])
def test_nothing_is_written_or_deleted_through_a_link(made: Path, tmp_path: Path, part: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    if part == FILE:
        shutil.move(made / FILE, elsewhere)
    else:
        elsewhere.mkdir()
        # What a sweep of segments would take for one of theirs.
        (elsewhere / "20190704.jpg").write_bytes(b"photo")
        for path in made.glob("segments/*") if part == "segments" else ():
            shutil.move(path, elsewhere / path.name)
        shutil.rmtree(made / part, ignore_errors=True)
        (made / part).unlink(missing_ok=True)
    (made / part).symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*")) if elsewhere.is_dir() else elsewhere.read_bytes()
    with closing(Library(made)) as library, pytest.raises(UserError, match="is a link"):
        remove(library, ["/photos/1.jpg"])
    assert before == (sorted(elsewhere.rglob("*")) if elsewhere.is_dir() else elsewhere.read_bytes())
    with closing(Library(made)) as library:
        assert len(library.search(unit(1, DIM), 20)[0]) == 11


def named(folder: Path, names: list[str], loaded: LoadedExtractor) -> Path:
    """A library that names photos which it has, by what it says, not described."""
    with closing(Library.open(folder, loaded.identity)) as library, library.change() as change:
        change.put([Photo(name, 1, 1, None, "not an image") for name in names], [None] * len(names))
    return folder


def test_folders_pipes_and_servers_named_by_a_library_are_not_read(
    folder: Path, tmp_path: Path, loaded: LoadedExtractor, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with fsspec.open("memory://elsewhere/a.jpg", "wb") as file:
        file.write((folder / "a" / "0.jpg").read_bytes())  # pyright: ignore[reportAttributeAccessIssue]
    names = [str(folder), "/", str(tmp_path / "pipe.jpg"), "memory://elsewhere/a.jpg", "http://127.0.0.1:9/a.jpg"]
    names += [
        str(folder / "a" / "1.jpg"),
        "memory://elsewhere",
        "/dev/zero",
        "x" * 5000,
        "file:///etc/passwd",
        "zip://a::/b.zip",
    ]
    library = named(tmp_path / "library", names, loaded)
    embed_places([], str(library), again=True)
    printed = capsys.readouterr().out
    assert "1 photo described" in printed
    assert printed.count("left out: ") == len(names) - 1
    assert "--allow memory://elsewhere" in printed
    addresses.allow(["memory"])
    embed_places([], str(library), again=True)
    printed = capsys.readouterr().out
    assert "2 photos described" in printed
    assert printed.count("left out: ") == len(names) - 2


def test_listing_a_library_contacts_only_allowed_servers(tmp_path: Path, loaded: LoadedExtractor) -> None:
    library = named(tmp_path / "library", ["s3://somebody/a.jpg", "s3://somebody/b.jpg"], loaded)
    with pytest.raises(UserError, match="no photos in"):
        Listing([], library=library)


def test_answers_at_addresses_are_opened_only_if_allowed(
    folder: Path, tmp_path: Path, loaded: LoadedExtractor, capsys: pytest.CaptureFixture[str]
) -> None:
    with fsspec.open("memory://elsewhere/a.jpg", "wb") as file:
        file.write((folder / "a" / "0.jpg").read_bytes())  # pyright: ignore[reportAttributeAccessIssue]
    library, page = str(tmp_path / "library"), tmp_path / "page.html"
    embed_places(["memory://elsewhere"], library, model="efficientnet_lite0", max_side=64)
    query = [str(folder / "a" / "0.jpg")]
    search_photos(query, library, html=str(page), rerank="spatial")
    assert "1 photo not opened: memory://elsewhere/a.jpg" in capsys.readouterr().err.replace(":///", "://")
    pictures = page.read_text().count("data:image/jpeg")
    addresses.allow(["memory"])
    search_photos(query, library, html=str(page))
    assert not capsys.readouterr().err
    assert page.read_text().count("data:image/jpeg") == pictures + 1


def test_a_network_on_the_hub_is_downloaded_only_if_allowed() -> None:
    somebody = identity(DIM) | {"source": "hf://somebody/model"}
    with pytest.raises(UserError, match="--allow hf://somebody"):
        model_source(somebody)
    addresses.allow(["hf://somebody"])
    assert model_source(somebody) == "hf://somebody/model"
    assert model_source(identity(DIM)) == "m"


def test_a_milvus_server_named_only_by_a_library_is_not_contacted(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(stores, "open_store", lambda folder, *rest: asked.append(folder))
    # Who names it in the command allows it, here or there.
    Library.open(made.parent / "new", identity(DIM), "http://127.0.0.1:9").catalogue.close()
    addresses.check_allowed("http://127.0.0.1:9")
    monkeypatch.undo()
    assert asked == [made.parent / "new"]
    monkeypatch.setenv(addresses.VARIABLE, "http")
    with pytest.raises(UserError, match="only the library names it"):
        Library(made.parent / "new")
