"""Benchmarks are downloaded as far as possible and checked; what must be done manually is listed."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
from functools import partial
from pathlib import Path

import pytest

from archives import tar
from data.benchmarks import layouts
from dolglab.data.benchmarks.ilias import ilias_benchmark
from dolglab.data.benchmarks.instre import instre_benchmark
from dolglab.data.benchmarks.products import products_benchmark
from dolglab.data.preparation.benchmarks import Published, prepare_benchmark
from dolglab.data.preparation.ilias import fetch_ilias
from dolglab.errors import UserError


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def test_an_archive_is_downloaded_checked_and_unpacked_once(server, tmp_path: Path, capsys) -> None:
    packed = zipped({f"SOP/{n}": data for n, data in contents(layouts.products(tmp_path / "made")).items()})
    server.add("/sop.zip", packed)
    server.faults["/sop.zip"] += ["garbled"]
    root = tmp_path / "root"
    digest = f"md5:{hashlib.md5(packed).hexdigest()}"
    make = partial(products_benchmark, root / "SOP")
    prepare = partial(prepare_benchmark, root, make, "none", "unzip it", base_url=server.url)
    prepare([Published("sop.zip", ".", unpack=True, digest=digest)])
    assert contents(root / "SOP") == contents(tmp_path / "made")
    assert not (root / "sop.zip").exists()
    said = capsys.readouterr().out
    assert said.startswith("licence: none\n")
    assert "6 queries, 6 gallery images" in said
    assert make().protocol["ties"] in said
    server.asked.clear()
    prepare([Published("sop.zip", ".", unpack=True, digest=digest)])
    assert server.asked == []
    with pytest.raises(UserError, match="wrong sha256 sum"):
        prepare_benchmark(
            tmp_path / "other",
            partial(products_benchmark, tmp_path / "other"),
            "none",
            files=[Published(f"{server.url}/sop.zip", ".", unpack=True, digest=f"sha256:{'0' * 64}")],
        )


def test_files_to_obtain_by_hand_are_named_in_one_line(server, tmp_path: Path, capsys) -> None:
    """The ground truth is downloaded anyway; once the images exist, no network is needed."""
    made = layouts.instre(tmp_path / "made")
    server.add("/gnd_instre.mat", (made / "gnd_instre.mat").read_bytes())
    root = tmp_path / "root"
    files = [Published("gnd_instre.mat", "gnd_instre.mat")]
    prepare = partial(
        prepare_benchmark, root, partial(instre_benchmark, root), "unknown", "images by FTP", files, server.url
    )
    with pytest.raises(UserError, match="by hand: images by FTP") as error:
        prepare()
    assert "\n" not in str(error.value)
    assert (root / "gnd_instre.mat").exists()
    for name, data in contents(made).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    server.asked.clear()
    prepare()
    prepare(mode="status")
    prepare(mode="verify")
    assert server.asked == []
    assert "3 queries, 6 gallery images" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt"])
def test_a_zip_archive_with_names_outside_the_folder_is_refused(name: str, server, tmp_path: Path) -> None:
    server.add("/bad.zip", zipped({name: b"x"}))
    root = tmp_path / "root"
    with pytest.raises(UserError, match="refused"):
        prepare_benchmark(
            root,
            partial(products_benchmark, root),
            "none",
            files=[Published(f"{server.url}/bad.zip", "in", unpack=True)],
        )
    assert not list(tmp_path.rglob("out.txt"))


def publish_ilias(server, made: Path) -> None:
    """The files on the server: lists, checksums, the core, and shards with more images than are listed."""
    for path in (made / "image_ids").iterdir():
        server.add(f"/image_ids/{path.name}", path.read_bytes())
    server.add("/taxonomy.json", (made / "taxonomy.json").read_bytes())
    files = contents(made)
    archives = {"/ilias_core.tar": tar({name: data for name, data in files.items() if name.startswith("ilias_core/")})}
    for shard in ("yfcc100m_0000", "yfcc100m_0001"):
        own = {Path(name).name: data for name, data in files.items() if shard in name}
        archives[f"/yfcc100m/{shard}.tar"] = tar({**own, "ffffffffff.jpg": b"broken", "ffffffffff.json": b"{}"})
    for name, data in archives.items():
        server.add(name, data)
    sums = [f"{hashlib.sha256(data).hexdigest()} {server.url}{name}" for name, data in archives.items()]
    server.add("/checksums.txt", "\n".join(sums).encode())


def test_distractors_of_a_variant_of_ilias_are_kept(server, tmp_path: Path, capsys) -> None:
    made = layouts.ilias(tmp_path / "made")
    publish_ilias(server, made)
    server.faults["/yfcc100m/yfcc100m_0001.tar"] += [404]
    root = tmp_path / "root"

    def prepare(variant: str, **options) -> None:
        url = f"{server.url}/taxonomy.json"
        make = partial(ilias_benchmark, root, variant)
        fetch_ilias(root, make, "CC BY 4.0", variant, base_url=server.url, taxonomy_url=url, parallel=1, **options)

    with pytest.raises(UserError, match="1 of 1 files"):
        prepare("mini")
    prepare("mini")
    assert len(list((root / "yfcc100m").rglob("*.jpg"))) == 4
    assert not list(root.glob("*.tar"))
    assert "ilias_mini: 4 queries, 9 gallery images" in capsys.readouterr().out
    server.asked.clear()
    prepare("mini")
    assert server.asked == []
    prepare("full")
    assert [name for name, _ in server.asked if "core" in name] == []
    assert contents(root / "yfcc100m") == contents(made / "yfcc100m")
    prepare("full", mode="status")


def test_wrong_lists_of_ilias_are_named(server, tmp_path: Path) -> None:
    publish_ilias(server, layouts.ilias(tmp_path / "made"))
    prepare = partial(fetch_ilias, base_url=server.url, taxonomy_url=f"{server.url}/taxonomy.json")
    root = tmp_path / "root"
    server.add("/checksums.txt", b"abc ilias_core.zip\n")
    with pytest.raises(UserError, match="another version"):
        prepare(root, partial(ilias_benchmark, root), "CC BY 4.0")
    (root / "checksums.txt").unlink()
    server.add("/checksums.txt", f"{'0' * 64} {server.url}/other.tar\n".encode())
    with pytest.raises(UserError, match=r"has no ilias_core\.tar"):
        prepare(root, partial(ilias_benchmark, root), "CC BY 4.0")
    (root / "image_ids" / "distractor_ids.txt.gz").write_bytes(gzip.compress(b"x\n"))
    with pytest.raises(UserError, match=r"SHARD\.tar/KEY"):
        prepare(root, partial(ilias_benchmark, root, "full"), "CC BY 4.0", "full")
