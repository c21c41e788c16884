"""Addresses from a library: which are opened, and that no connection by scheme reaches this machine."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator

import fsspec
import pytest

from dolglab.data import addresses
from dolglab.data.addresses import NotAllowedError, allow, check_allowed, check_ip, read_address, read_allowed
from dolglab.data.photos import stored_photo
from dolglab.errors import UserError
from web_server import Server, server

__all__ = ["server"]


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(addresses.VARIABLE, "")


def test_nothing_is_allowed_by_default() -> None:
    with pytest.raises(NotAllowedError, match=r"--allow s3://bucket \(or --allow s3 for all"):
        check_allowed("s3://bucket/a.jpg")
    allow(["s3"])
    check_allowed("s3://bucket/a.jpg")
    with pytest.raises(NotAllowedError):
        check_allowed("gs://bucket/a.jpg")


@pytest.mark.parametrize(
    ("place", "address", "allowed"),
    [
        ("https://host/2019", "https://host/2019/a.jpg", True),
        ("https://host/2019/", "https://host/2019/b/a.jpg", True),
        ("https://host", "https://host/a.jpg", True),
        ("https://host/2019", "https://host/2019b/a.jpg", False),
        ("https://host/2019", "https://host/2019/../a.jpg", False),
        ("https://host/2019", "https://host/2019/%2e%2E/a.jpg", False),
        ("https://host", "https://host@elsewhere/a.jpg", False),
        ("https://host", "https://host.elsewhere/a.jpg", False),
        ("https://host", "http://host/a.jpg", False),
        # A place allowed by the user may be this machine.
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/a.jpg", True),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9001/a.jpg", False),
    ],
)
def test_a_place_allows_everything_below(place: str, address: str, allowed: bool) -> None:
    allow([place])
    if allowed:
        check_allowed(address)
    else:
        with pytest.raises(NotAllowedError):
            check_allowed(address)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1/a.jpg",
        "http://localhost:8000/a.jpg",
        "http://LOCALHOST./a.jpg",
        "http://photos.localhost/a.jpg",
        "http://me:word@127.0.0.1/a.jpg",
        "http://[::1]/a.jpg",
        "http://[::ffff:127.0.0.1]/a.jpg",
        "http://169.254.0.1/a.jpg",
        "http://[fe80::1]/a.jpg",
        "http://0.0.0.0/a.jpg",
        "http:///a.jpg",
        "http://[/a.jpg",
        "ftp://127.0.0.1/a.jpg",
        "zip://a.jpg::http://host/a.zip",
        "simplecache::http://host/a.jpg",
        "HTTP://host/a.jpg",
        "://host/a.jpg",
    ],
)
def test_a_scheme_allows_neither_this_machine_nor_chains(address: str) -> None:
    allow(["http", "ftp", "simplecache"])
    with pytest.raises(NotAllowedError):
        check_allowed(address)


@pytest.mark.parametrize("entry", ["", "S3", "a b", "http://", "http:///", "s3,gs", "://host"])
def test_invalid_schemes_and_places_are_refused(entry: str) -> None:
    with pytest.raises(UserError, match="--allow takes"):
        allow([entry])


@pytest.mark.parametrize("ip", ["127.8.9.1", "::1", "fe80::1%eth0", "169.254.1.1", "0.0.0.0", "224.0.0.1"])
def test_addresses_of_this_machine_and_its_link_are_recognised(ip: str) -> None:
    with pytest.raises(ConnectionRefusedError):
        check_ip(ip)
    check_ip("192.168.1.2")


def test_a_name_of_this_machine_is_not_contacted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add("/a.jpg", b"bytes")
    asked = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: asked("127.0.0.1", *rest, **more))
    address = f"http://photos.example:{server.url.rpartition(':')[2]}/a.jpg"
    allow(["http", "ftp"])
    check_allowed(address)
    with pytest.raises(ConnectionRefusedError):
        read_allowed(address.replace("http", "ftp"))
    # fsspec's error for a refused connection.
    for read in (read_allowed, stored_photo):
        with pytest.raises(FileNotFoundError):
            read(address)
    assert not server.asked
    # Who named it is not kept from it.
    assert read_address(address) == b"bytes"
    allow([address])
    assert read_allowed(address) == b"bytes"
    assert stored_photo(address).size == 5


@pytest.fixture
def redirecting(server: Server) -> Iterator[str]:
    """A server at 127.0.0.2 that redirects to another one at 127.0.0.1."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", server.url + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

    there = http.server.ThreadingHTTPServer(("127.0.0.2", 0), Handler)
    thread = threading.Thread(target=there.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.2:{there.server_port}"
    there.shutdown()
    thread.join()
    there.server_close()


def test_redirects_to_this_machine_are_refused(
    server: Server, redirecting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add("/a.jpg", b"bytes")
    allow(["http"])
    # As if the first were somewhere else.
    monkeypatch.setattr(addresses, "check_ip", lambda ip: None if ip == "127.0.0.2" else check_ip(ip))
    with pytest.raises(FileNotFoundError):
        read_allowed(f"{redirecting}/a.jpg")
    assert not server.asked
    assert read_address(f"{redirecting}/a.jpg") == b"bytes"


def test_errors_of_file_systems_become_os_errors() -> None:
    with pytest.raises(OSError, match="Error"):
        read_address("nonsense://a")
    with fsspec.open("memory://elsewhere/a", "wb") as file:
        file.write(b"bytes")  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(FileNotFoundError):
        read_address("memory://elsewhere/b")
    allow(["memory"])
    assert read_allowed("memory://elsewhere/a") == b"bytes"
    allow(["sftp"])
    with pytest.raises(OSError, match="sftp"):
        read_allowed(f"sftp://{'a' * 70}.example/a.jpg")
