"""What a library says about itself."""

from __future__ import annotations

from src.library.answers import printable
from src.library.library import Library


def about(library: Library, bad: bool = False) -> None:
    """Print how many photos, the model, the columns, bytes on disk; with `bad` also what could not be read, and why."""
    broken = list(library.catalogue.bad())
    identity = library.identity
    scales = ", ".join(f"{scale:g}" for scale in identity["scales"])
    size = sum(path.stat().st_size for path in library.folder.rglob("*") if path.is_file())
    print(f"photos: {len(library)}")
    print(f"could not be read: {len(broken)}" + ("" if bad or not broken else " (--bad names them)"))
    print(f"model: {printable(identity['title'])}, {identity['dim']} values a photo")
    print(f"scales: {scales}; photos of at most {identity['max_side']} pixels")
    print(f"columns: {', '.join(map(printable, library.catalogue.columns())) or 'none'}")
    print(f"on disk: {size / 1e6:.1f} MB")
    for photo in broken if bad else ():
        print(f"{printable(photo.name)}: {photo.reason}")
