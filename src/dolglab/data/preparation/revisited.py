"""Download Revisited Oxford, Paris and the million distractors, and unpack them into the layout for evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from dolglab.data.preparation.fetch import Mode, archive_numbers, fetch
from dolglab.data.preparation.transfer import RemoteFile
from dolglab.data.preparation.unpacking import unpack
from dolglab.data.revisited import RELEASE
from dolglab.io import atomic_path, write_text

GROUND_TRUTH_URL = "http://cmp.felk.cvut.cz/revisitop/data/datasets/"
DISTRACTORS = 100
# The published archives of each benchmark, and their kind of release.
PHOTOS = {
    "roxford5k": ("https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/", ("oxbuild_images-v1.tgz",)),
    "rparis6k": ("https://www.robots.ox.ac.uk/~vgg/data/parisbuildings/", ("paris_1-v1.tgz", "paris_2-v1.tgz")),
}
PHOTO_RELEASE = "v1, faces blurred (2022)"


def fetch_benchmark(
    root: str | Path,
    name: str,
    base_url: str | None = None,
    ground_truth_url: str = GROUND_TRUTH_URL,
    mode: Mode = "run",
    parallel: int = 2,
) -> None:
    """Download ROxford5k or RParis6k: `root/gnd_NAME.pkl` and `root/jpg/`; archives are deleted after unpacking.

    `root/release.json` names the release of the photographs; result cards keep it.
    Raises UserError like `fetch`, and for an archive that is damaged or has unexpected content.
    """
    root, (published, names) = Path(root), PHOTOS[name]
    base = (base_url or published).rstrip("/")
    truth = RemoteFile(f"{ground_truth_url.rstrip('/')}/{name}/gnd_{name}.pkl", root / f"gnd_{name}.pkl")
    archives = [RemoteFile(f"{base}/{archive}", root / archive) for archive in names]
    home = root / "jpg"

    def finish() -> None:
        if not home.is_dir():
            # Leftovers of a killed process.
            for partial in root.glob(".jpg.*"):
                shutil.rmtree(partial)
            with atomic_path(home) as aside:
                for archive in archives:
                    unpack(archive.path, aside, flat=True)
                about = {"release": PHOTO_RELEASE, "archives": [archive.url for archive in archives]}
                write_text(root / RELEASE, json.dumps(about, indent=1) + "\n")
            print(f"{home}: {sum(1 for _ in home.iterdir())} images")
        for archive in archives:
            archive.path.unlink(missing_ok=True)

    fetch([truth, *([] if home.is_dir() else archives)], root, mode, parallel, finish)


def fetch_distractors(
    root: str | Path,
    archives: object = "all",
    base_url: str = "http://ptak.felk.cvut.cz/revisitop/revisitop1m/",
    mode: Mode = "run",
    parallel: int = 4,
) -> None:
    """Download the distractors: their list `root/revisitop1m.txt`, and `root/jpg/`, archive by archive (1 to 100).

    An unpacked archive is deleted and recorded as `root/unpacked/N`.
    Raises UserError like `fetch`, and for an archive that is damaged or has unexpected content.
    """
    root, base = Path(root), base_url.rstrip("/")
    done = root / "unpacked"
    left = [n for n in archive_numbers(archives, DISTRACTORS, first=1) if not (done / str(n)).exists()]
    tars = {n: RemoteFile(f"{base}/jpg/revisitop1m.{n}.tar.gz", root / f"revisitop1m.{n}.tar.gz") for n in left}
    names = RemoteFile(f"{base}/revisitop1m.txt", root / "revisitop1m.txt")

    def finish() -> None:
        for number, tar in tars.items():
            unpack(tar.path, root / "jpg", flat=False)
            write_text(done / str(number), "")
            tar.path.unlink()

    fetch([names, *tars.values()], root, mode, parallel, finish)
