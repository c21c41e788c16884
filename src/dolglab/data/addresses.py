"""Places that a library names, and which of them are opened: a library may be somebody else's.

Its paths are read as they stand, since nothing but a picture is made of them. An address on the network is opened only
where the user allows that, so that nobody's library has this machine ask servers, or give tokens to them.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec

from dolglab.errors import UserError

# Where `--allow` is kept, for the processes too that a command starts: entries with commas or blanks between them.
VARIABLE = "DOLG_ALLOW"
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
# Schemes whose addresses begin with the name of a bucket, a container or a repository, not of a host.
WITHOUT_HOST = frozenset({"abfs", "abfss", "adl", "az", "gcs", "gs", "hf", "memory", "oci", "oss", "s3", "s3a"})
GUARDED = ("http", "https")


class NotAllowedError(UserError):
    """An address that only a library names, and that the user does not allow."""


def allow(entries: Iterable[str]) -> None:
    """Have addresses be opened, by this process and those that it starts, also where only a library names them.

    Args:
        entries: schemes, such as s3, and places, such as https://photos.example/2019, for what lies below them.

    Raises UserError for what is neither.
    """
    entries = list(entries)
    for entry in entries:
        scheme, separator, rest = entry.partition("://")
        if not SCHEME.fullmatch(scheme) or (separator and not rest.strip("/")) or re.search(r"[,\s]", entry):
            raise UserError(
                f"--allow takes a scheme such as s3, or a place such as https://photos.example, not {entry}"
            )
    os.environ[VARIABLE] = ",".join(dict.fromkeys([*_entries(), *entries]))


def check_allowed(address: str) -> None:
    """Raise NotAllowedError for an address that only a library names, and that the user does not allow.

    What is allowed by its scheme must not be this machine or its own link; a place that the user wrote may be.
    """
    if is_users_place(address):
        return
    scheme, _, rest = address.partition("://")
    if not SCHEME.fullmatch(scheme):
        raise NotAllowedError(f"{address} is not opened: only a library names it, and it is no plain address")
    if scheme not in _entries():
        raise NotAllowedError(
            f"{address} is not opened, since only a library names it: where you trust that, --allow "
            f"{scheme}://{rest.partition('/')[0]} (or all of {scheme}, or {VARIABLE} in the environment)"
        )
    if scheme not in WITHOUT_HOST:
        _check_host(address)


def read_allowed(address: str) -> bytes:
    """What is at an address that only a library names. Raises NotAllowedError as `check_allowed`, and OSError.

    Of an address that is allowed by its scheme no connection goes to this machine or its own link, whatever its host's
    name stands for and whereto its server redirects.
    """
    return read_address(address, **guard(address))


def guard(address: str) -> dict[str, Any]:
    """Options with which fsspec opens an address that only a library names. Raises as `read_allowed`."""
    check_allowed(address)
    scheme = address.partition("://")[0]
    if is_users_place(address) or scheme in WITHOUT_HOST:
        return {}
    if scheme in GUARDED:
        return {"get_client": guarded_client}
    try:
        for info in socket.getaddrinfo(_host(address), None):
            check_ip(str(info[4][0]))
    except ValueError as error:
        raise OSError(f"{address}: {error}") from error
    return {}


def read_address(address: str, **options: Any) -> bytes:
    """What is at an address, read by fsspec with these options. Raises OSError."""
    with os_errors(), fsspec.open(address, "rb", **options) as file:
        return file.read()  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def os_errors() -> Iterator[None]:
    """Have whatever fsspec's file systems raise, each of which has errors of its own, come as OSError."""
    try:
        yield
    except (OSError, UserError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def check_ip(ip: str) -> None:
    """Raise ConnectionRefusedError for an IP address of this machine or its own link.

    >>> check_ip("192.0.2.1")
    """
    parsed = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or parsed.sixtofour or parsed
    if parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified or parsed.is_multicast:
        raise ConnectionRefusedError(f"{ip} is this machine or its own link, where no library's address leads")


async def guarded_client(**options: Any) -> Any:
    """aiohttp's session for `fsspec`, whose connections pass `check_ip`: also after a redirect."""
    import aiohttp

    def connect(info: Any) -> socket.socket:
        check_ip(info[4][0])
        return socket.socket(*info[:3])

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=connect), **options)


def _entries() -> list[str]:
    return re.findall(r"[^,\s]+", os.environ.get(VARIABLE, ""))


def is_users_place(address: str) -> bool:
    """Whether an address lies below a place that the user wrote."""
    places = (entry.rstrip("/") for entry in _entries() if "://" in entry)
    below = any(address == place or address.startswith(f"{place}/") for place in places)
    # Servers and clients take such parts out, and would leave the place.
    return below and ".." not in re.split(r"[/\\]", unquote(address))


def _check_host(address: str) -> None:
    """Raise UserError for a host that is this machine or its own link by its name alone."""
    host = _host(address).rstrip(".").lower()
    try:
        check_ip(host)
    except ConnectionRefusedError as error:
        raise NotAllowedError(f"{address} is not opened: {error}") from None
    except ValueError:
        if host == "localhost" or host.endswith(".localhost") or not host:
            raise NotAllowedError(f"{address} is not opened: it is this machine's") from None


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
