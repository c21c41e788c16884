"""Names written by people: lists of files in any Unicode encoding, and ends of paths with similar spelling."""

from __future__ import annotations

import codecs
import posixpath
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from dolglab.data.image_errors import reason
from dolglab.errors import UserError

# Number of bytes of a list that are read at a time.
CHUNK = 1 << 20
# Byte order marks and their encodings; that of UTF-32 comes first because it begins like that of UTF-16.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# In a NUL-separated list: consecutive names of one character, or a line break next to NUL.
WIDE_TEXT = re.compile(r"(?<![^\0])\0*[^\0]\0+[^\0]\0|[\r\n]\0|\0[\r\n]")


def marked_encoding(beginning: bytes) -> str:
    """The encoding according to a text's byte order mark; UTF-8 without one.

    >>> marked_encoding("\\ufeffa.jpg".encode("utf-16-le")), marked_encoding(b"a.jpg")
    ('utf-16', 'utf-8')
    """
    return next((encoding for mark, encoding in MARKS.items() if beginning.startswith(mark)), "utf-8")


def read_list(path: str, chunk: int = CHUNK) -> Iterator[str]:
    """Paths and addresses in a text file, or in standard input for "-", as `find` and PowerShell's `>` write them.

    There is one per line or, if the file contains NUL (`find -print0`), they are separated by NUL. The file is read
    `chunk` bytes at a time. Raises UserError for a file that cannot be read, and for a chunk that looks like UTF-16
    without its mark, or like a mixture of both kinds, before any of its names.
    """
    try:
        with sys.stdin.buffer if path == "-" else Path(path).open("rb") as file:
            yield from filter(None, _split(_texts(file, chunk), path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid {error.encoding.upper()}: save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error


def _texts(file: IO[bytes], chunk: int) -> Iterator[str]:
    """A file's text; bytes that are not UTF-8 become lone surrogates, as in names from the system."""
    data = file.read(chunk)
    encoding = marked_encoding(data)
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape" if encoding.startswith("utf-8") else "strict")
    while data:
        yield decoder.decode(data)
        data = file.read(chunk)
    yield decoder.decode(b"", final=True)


def mixed_list(path: str) -> UserError:
    """The error for a list with both NUL and line breaks between names, or in UTF-16 without a mark."""
    return UserError(
        f"{path} has both NUL and line breaks, or is UTF-16 without a byte order mark: save it as UTF-8 with one name "
        "per line, or separate names by NUL only (./a for a)"
    )


def _split(texts: Iterable[str], path: str) -> Iterator[str]:
    rest, lines = "", None
    for text in texts:
        lines = "\0" not in text if lines is None else lines
        whole = rest + text
        if "\0" in whole and (lines or WIDE_TEXT.search(whole)):
            raise mixed_list(path)
        *names, rest = whole.split("\n" if lines else "\0")
        yield from (name.removesuffix("\r") for name in names) if lines else names
    if not lines and rest.endswith(("\n", "\r")):
        raise mixed_list(path)
    yield rest.removesuffix("\r")


def printable(text: str) -> str:
    """A name with control characters and invalid Unicode as escapes.

    >>> printable("a\\n\\udce9")
    'a\\\\n\\\\udce9'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def fold(name: str) -> str:
    """A name for comparison regardless of letter case and Unicode form (NFC, or NFD as on a Mac)."""
    return unicodedata.normalize("NFC", name.casefold())


def last_part(name: str) -> str:
    """The folded name of a file, without its folders."""
    return fold(name.rpartition("/")[2])


def spellings(name: str) -> set[str]:
    """A normalised path, as given and with Windows' separators replaced.

    >>> sorted(spellings("./opera//000.jpg")), spellings("a\\\\b.jpg") == {"a\\\\b.jpg", "a/b.jpg"}
    (['opera/000.jpg'], True)
    """
    both = {name, name.replace("\\", "/")}
    return {each if "://" in each else posixpath.normpath(each).strip("/") for each in both if each}


def matching(name: str, paths: Iterable[str]) -> list[str]:
    """The paths that end with a name, in whole parts.

    Paths with this exact spelling are preferred to those in another Unicode form, and these to other letter case.
    """
    paths = list(paths)
    for form in (str, lambda text: unicodedata.normalize("NFC", text), fold):
        ends = tuple(f"/{form(each)}" for each in spellings(name))
        if found := [path for path in paths if f"/{form(path).lstrip('/')}".endswith(ends)]:
            return found
    return []
