"""What a server allows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What a server allows.

    Attributes:
        token: asked of everyone; None asks nobody.
        max_upload: bytes of a photo that is sent.
        max_pixels: of such a photo.
        rate: requests a minute of one client that make the server work; the same number may come at once.
        read_only: photos are neither added nor removed.
        names: host names it is reached by, besides localhost, this machine's own and addresses.
    """

    token: str | None = None
    max_upload: int = 20_000_000
    max_pixels: int = 50_000_000
    rate: float = 60.0
    read_only: bool = False
    names: frozenset[str] = frozenset()
