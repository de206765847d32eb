"""Tars of plain files, read by hand: what a stranger may have made goes through no more than this.

Python's `tarfile` knows thirty years of extensions: headers about the next header (a thousand of which end in a RecursionError), links
that are followed within the archive (one to itself, the same), holes (a terabyte of them is made in memory), numbers below zero. Our own
packages have none of that, so whatever is no plain file in a header of its own is refused here, at its first byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

BLOCK_BYTES: Final = 512
USTAR: Final = b"ustar\0"  # only then is there a prefix
PLAIN: Final = (b"0", b"\0")
MAY_EXECUTE: Final = 0o100


class BadTar(ValueError):
    """It is damaged."""


class NotPlain(BadTar):
    """An entry that is no plain file; its name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file."""

    name: str
    executable: bool
    data: bytes


def read(raw: bytes) -> Iterator[Entry]:
    """Its files, in their order."""
    at = 0
    while any(header := raw[at : at + BLOCK_BYTES]):
        if len(header) != BLOCK_BYTES:
            raise BadTar("a header is cut short")
        name = _name(header)
        if header[156:157] not in PLAIN:
            raise NotPlain(name)
        mode, size_bytes = _octal(header[100:108]), _octal(header[124:136])
        data = raw[at + BLOCK_BYTES : at + BLOCK_BYTES + size_bytes]
        if len(data) != size_bytes:
            raise BadTar("a file is cut short")
        yield Entry(name, bool(mode & MAY_EXECUTE), data)
        at += BLOCK_BYTES + -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES
    if len(header) != BLOCK_BYTES:
        raise BadTar("it has no end")


def _name(header: bytes) -> str:
    """Once the header's sum is right."""
    without_sum = header[:148] + b" " * 8 + header[156:]
    if _octal(header[148:156]) != sum(without_sum):
        raise BadTar("a header is damaged")
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == USTAR else b""
    raw = header[:100].partition(b"\0")[0]
    try:
        return (prefix + b"/" + raw if prefix else raw).decode()
    except UnicodeDecodeError:
        raise BadTar("a name is not UTF-8") from None


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if set(digits) - set(b"01234567"):  # `int` takes signs and underscores as well
        raise BadTar("a number is none")
    return int(digits or b"0", 8)
