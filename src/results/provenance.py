"""Where figures come from: the commit, the versions of what made them, and checksums of files."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import src

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


def commit(folder: Path) -> str | None:
    """The git commit of the checkout rooted at `folder`, "+changes" when dirty; None outside of one."""
    try:
        root, head = _git(folder, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        if not folder.samefile(root):
            return None
        return head + ("+changes" if _git(folder, "status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str | None]:
    """Versions of python, of what the figures depend on, and of this project; None when not installed."""
    installed = {name: _version(package) for name, package in PACKAGES.items()}
    return {"python": platform.python_version(), **installed, "dolg-lab": src.__version__}


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
