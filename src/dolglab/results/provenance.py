"""What made a result: the git commit and the versions of packages."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from dolglab.version import __version__

PACKAGES = {
    "torch": "torch",
    "lightning": "lightning",
    "timm": "timm",
    "faiss": "faiss-cpu",
    "numpy": "numpy",
    "simplejpeg": "simplejpeg",
    "opencv": "opencv-python-headless",
    "pillow": "pillow",
}
# The git checkout from which the package runs, if it does.
CHECKOUT = Path(__file__).parents[3]
# Where new files change what runs.
CODE = ("src", "conf")


def commit(folder: Path) -> str | None:
    """The git commit of the checkout rooted at `folder`; None outside of one.

    "+changes" is appended if tracked files have changed, or if there are new files in the folders of `CODE`.
    """
    try:
        root, head = _git(folder, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        if not folder.samefile(root):
            return None
        # Other untracked files, such as libraries and lists, do not affect results.
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
        added = _git(folder, "status", "--porcelain", "--", *CODE)
        return head + ("+changes" if changed or added else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def versions() -> dict[str, str | None]:
    """Versions of python, of what the figures depend on, and of this project; None when not installed."""
    installed: dict[str, str | None] = {}
    for name, package in PACKAGES.items():
        try:
            installed[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[name] = None
    return {"python": platform.python_version(), **installed, "dolglab": __version__}
