"""Addresses stored in a library, and which of them may be opened: a library may come from someone else.

Local paths are read without restrictions, since the result is only used as a picture. A network address is opened only
if the user allows it, so that a foreign library cannot make this machine contact servers or send tokens to them.
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

# Stores `--allow`, also for child processes: entries separated by commas or blanks.
VARIABLE = "DOLG_ALLOW"
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
# Schemes whose addresses begin with the name of a bucket, a container or a repository, not a host.
WITHOUT_HOST = frozenset({"abfs", "abfss", "adl", "az", "gcs", "gs", "hf", "memory", "oci", "oss", "s3", "s3a"})
GUARDED = ("http", "https")


class NotAllowedError(UserError):
    """An address from a library that the user does not allow."""


def allow(entries: Iterable[str]) -> None:
    """Allow this process and its children to open addresses that come from a library.

    Args:
        entries: schemes, such as s3, and places, such as https://photos.example/2019, with everything below them.

    Raises UserError for an entry that is neither.
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
    """Raise NotAllowedError for an address from a library that the user does not allow.

    An address allowed by its scheme must not be this machine or link-local; a place given by the user may be.
    """
    if is_users_place(address):
        return
    scheme, _, rest = address.partition("://")
    if not SCHEME.fullmatch(scheme):
        raise NotAllowedError(f"{address} is not opened: it comes from a library and is not a valid address")
    if scheme not in _entries():
        raise NotAllowedError(
            f"{address} is not opened, since it comes from a library: if you trust it, use --allow "
            f"{scheme}://{rest.partition('/')[0]} (or --allow {scheme} for all, or {VARIABLE} in the environment)"
        )
    if scheme not in WITHOUT_HOST:
        _check_host(address)


def read_allowed(address: str) -> bytes:
    """Read an address from a library. Raises NotAllowedError like `check_allowed`, and OSError.

    For an address allowed by its scheme, no connection is made to this machine or a link-local address, whatever its
    host name resolves to and wherever its server redirects.
    """
    return read_address(address, **guard(address))


def guard(address: str) -> dict[str, Any]:
    """fsspec options to open an address from a library. Raises like `read_allowed`."""
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
    """Read an address with fsspec and these options. Raises OSError."""
    with os_errors(), fsspec.open(address, "rb", **options) as file:
        return file.read()  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def os_errors() -> Iterator[None]:
    """Convert the errors of fsspec's file systems, which each have their own, to OSError."""
    try:
        yield
    except (OSError, UserError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def check_ip(ip: str) -> None:
    """Raise ConnectionRefusedError for an IP address of this machine or of its local link.

    >>> check_ip("192.0.2.1")
    """
    parsed = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or parsed.sixtofour or parsed
    if parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified or parsed.is_multicast:
        raise ConnectionRefusedError(
            f"{ip} is this machine or link-local, which addresses from a library may not reach"
        )


async def guarded_client(**options: Any) -> Any:
    """An aiohttp session for `fsspec` that passes every connection, also after a redirect, to `check_ip`."""
    import aiohttp

    def connect(info: Any) -> socket.socket:
        check_ip(info[4][0])
        return socket.socket(*info[:3])

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=connect), **options)


def _entries() -> list[str]:
    return re.findall(r"[^,\s]+", os.environ.get(VARIABLE, ""))


def is_users_place(address: str) -> bool:
    """Whether an address is below a place that the user allowed."""
    places = (entry.rstrip("/") for entry in _entries() if "://" in entry)
    below = any(address == place or address.startswith(f"{place}/") for place in places)
    # Servers and clients resolve such parts, which would lead out of the place.
    return below and ".." not in re.split(r"[/\\]", unquote(address))


def _check_host(address: str) -> None:
    """Raise NotAllowedError for a host whose name alone shows that it is this machine or link-local."""
    host = _host(address).rstrip(".").lower()
    try:
        check_ip(host)
    except ConnectionRefusedError as error:
        raise NotAllowedError(f"{address} is not opened: {error}") from None
    except ValueError:
        if host == "localhost" or host.endswith(".localhost") or not host:
            raise NotAllowedError(f"{address} is not opened: its host is this machine") from None


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
