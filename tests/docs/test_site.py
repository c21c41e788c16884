"""The site builds in strict mode, its links and anchors are valid, and the reference is complete."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from dolglab.__main__ import COMMANDS

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"


class Page(HTMLParser):
    """The anchors of a page, and the targets of its links and pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: list[str] = []
        self.sources: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.targets.append(value)
                # Links are followed by people; scripts, styles and pictures are fetched.
                if name == "src" or tag == "link":
                    self.sources.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_links_and_anchors_exist(pages: dict[Path, Page]) -> None:
    assert len(pages) > 40
    broken = []
    for path, page in pages.items():
        # The 404 page is served at any depth, so its links begin at the site's root.
        for target in page.targets if path.name != "404.html" else ():
            where = urlsplit(target)
            if where.scheme or where.netloc:
                continue
            leads = Path(os.path.normpath(path.parent / unquote(where.path))) if where.path else path
            found = leads / "index.html" if leads.is_dir() else leads
            known = pages[found].anchors if found in pages else set()
            if not found.exists() or (where.fragment and unquote(where.fragment) not in known):
                broken.append(f"{path.name}: {target}")
    assert not broken


def test_pages_make_no_external_requests(pages: dict[Path, Page]) -> None:
    """Pages load nothing from other servers, so that the site works in a closed network."""
    assert not [source for page in pages.values() for source in page.sources if urlsplit(source).netloc]


def test_every_group_choice_and_option_is_documented(site: Path, pages: dict[Path, Page]) -> None:
    path = site / "reference" / "configs.html"
    text = path.read_text()
    for file in CONF.glob("*/**/*.yaml"):
        group = file.parent.relative_to(CONF).as_posix()
        anchor = group.replace("/", "-")
        assert {anchor, f"{anchor}-{file.stem}"} <= pages[path].anchors
        content = file.read_text()
        moved = "# @package" in content
        options = yaml.safe_load(content) or {}
        for key, value in options.items():
            if key in ("defaults", "call") or key.startswith("_") or isinstance(value, dict):
                continue
            # Recipes are quoted; options of other groups are listed by their full names.
            given = key if moved else f"{group.replace('/', '.')}.{key}"
            assert (key if group == "experiment" else f"<code>{given}</code>") in text, f"{file}: {key}"
    first = ["max_epochs", "image_size", "batch_size", "optimizer.lr", "workers", "precision"]
    places = [text.index(name) for name in first]
    assert places == sorted(places)
    assert places[-1] < text.index('id="aggregate"')


def test_every_command_is_documented(site: Path, pages: dict[Path, Page]) -> None:
    path = site / "reference" / "commands.html"
    assert pages[path].anchors >= {*COMMANDS, "library-remove", "library-merge"}
    text = path.read_text()
    for option in ("--metadata", "--max-side", "--rerank", "--token", "--onnx", "--gone", "checkpoint_minutes"):
        assert option in text


def test_readme_fits_two_screens() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 160
    assert all((ROOT / target).exists() for line in lines for target in local_links(line))


def local_links(line: str) -> list[str]:
    """Targets of a line's links that are files of the project."""
    targets = [part.split(")")[0].split("#")[0] for part in line.split("](")[1:]]
    return [target for target in targets if "://" not in target]


def test_doctests_of_the_hooks_pass() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "doctest", "docs/hooks.py"], cwd=ROOT, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout
