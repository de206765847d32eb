"""A hostile peer's own encoder: it writes whatever it is told to, right or wrong (docs/wire-format.md is its only source)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

MAGIC, VERSION = 0x4C53, 1
SESSION, GENERATION = 7, 9
ROOT, FIRST_OBJECT = 2, 34  # the first directory; the first id that an object may have
U32, U64 = 2**32 - 1, 2**64 - 1
_HEADER = struct.Struct("<HHHHIIQQQQQQqI")
_BODY = struct.Struct("<QQQqqqIIIIIHH")
HEADER_BYTES = _HEADER.size + 4
BODY_BYTES = _BODY.size


class Type(IntEnum):
    """Of a frame."""

    WRITE = 1
    FSYNC = 2
    CREATE = 3
    MKDIR = 4
    MKNOD = 5
    SYMLINK = 6
    LINK = 7
    UNLINK = 8
    RMDIR = 9
    RENAME = 10
    SET_ATTRIBUTES = 11
    SET_XATTR = 12
    REMOVE_XATTR = 13
    FALLOCATE = 14
    COPY = 15
    PLACE = 16
    BEGIN = 32
    ENTRY = 33
    END_OF_DIRECTORY = 34
    HASHES = 35
    BLOCK = 36
    ATTRIBUTES = 37
    END = 38
    MARKED = 39
    BIND = 40
    SIZE = 41
    SMALL_FILE = 42
    VERIFY_RANGE = 48
    VERIFY_ATTRIBUTES = 49
    VERIFY_ENTRIES = 50
    VERIFY_NAMES = 51
    ACK = 64
    SYNCED = 65
    DIFFERENT = 66
    KEEPALIVE = 67
    ACK_ALONE = 68
    PEER_MARK = 69
    PEER_MARKS = 70
    FRESH = 71
    VERIFIED = 72


class Flag(IntFlag):
    """In a header."""

    DURABLE = 1
    LAST_NAME = 2
    ZERO = 4
    DATA_ONLY = 8
    MORE = 16
    HELD = 32


class Has(IntFlag):
    """In a SET_ATTRIBUTES."""

    MODE = 1
    UID = 2
    GID = 4
    SIZE = 8
    ATIME = 16
    MTIME = 32
    ATIME_NOW = 64


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ 0x82F63B78 if byte & 1 else byte >> 1
        table.append(byte)
    return table


_CRC = _table()


def crc32c(data: bytes) -> int:
    """Castagnoli's."""
    crc = U32
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ U32


@dataclass(slots=True, kw_only=True)
class Header:
    """Every field may be a lie."""

    type: int
    flags: int = 0
    seq: int = 0
    session: int = SESSION
    generation: int = GENERATION
    fid: int = 0
    offset: int = 0
    length: int = 0
    mtime: int = 10**18
    magic: int = MAGIC
    version: int = VERSION
    payload_bytes: int | None = None
    payload_crc: int | None = None
    header_crc: int | None = None

    def encode(self, payload: bytes) -> bytes:
        """The frame."""
        size = len(payload) if self.payload_bytes is None else self.payload_bytes
        checksum = crc32c(payload) if self.payload_crc is None else self.payload_crc
        head = _HEADER.pack(
            *(self.magic, self.version, self.type, self.flags, size, checksum, self.seq, self.session, self.generation),
            *(self.fid, self.offset, self.length, self.mtime, 0),
        )
        return head + struct.pack("<I", crc32c(head) if self.header_crc is None else self.header_crc) + payload


@dataclass(slots=True, kw_only=True)
class Body:
    """Of every op but a WRITE and a BLOCK. The sizes are those of what is there, unless they are lies."""

    name: bytes = b""
    name2: bytes = b""
    data: bytes = b""
    other: int = 0
    child: int = 0
    rdev: int = 0
    child_mtime: int = 10**18
    atime: int = 10**18
    other_mtime: int = 10**18
    flags: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0
    name_bytes: int | None = None
    data_bytes: int | None = None

    def encode(self) -> bytes:
        """The payload."""
        name_bytes = len(self.name) if self.name_bytes is None else self.name_bytes
        data_bytes = len(self.data) if self.data_bytes is None else self.data_bytes
        fixed = _BODY.pack(
            *(self.other, self.child, self.rdev, self.child_mtime, self.atime, self.other_mtime),
            *(self.flags, self.mode, self.uid, self.gid, data_bytes, name_bytes, len(self.name2)),
        )
        return fixed + self.name + self.name2 + self.data


@dataclass(frozen=True, slots=True)
class Heard:
    """A frame of the engine's."""

    type: int
    flags: int
    seq: int
    fid: int
    offset: int
    length: int
    mtime: int
    payload: bytes


def split(stream: bytearray) -> list[Heard]:
    """The whole frames at its beginning, which leave it."""
    found = []
    while len(stream) >= HEADER_BYTES:
        fields = _HEADER.unpack_from(stream)
        size = fields[4]
        if len(stream) < HEADER_BYTES + size:
            break
        found.append(
            Heard(
                fields[2],
                fields[3],
                fields[6],
                fields[9],
                fields[10],
                fields[11],
                fields[12],
                bytes(stream[HEADER_BYTES : HEADER_BYTES + size]),
            )
        )
        del stream[: HEADER_BYTES + size]
    return found


def xattr(name: bytes, value: bytes, *, name_bytes: int | None = None, value_bytes: int | None = None) -> bytes:
    """One of a row."""
    return (
        struct.pack("<HI", len(name) if name_bytes is None else name_bytes, len(value) if value_bytes is None else value_bytes)
        + name
        + value
    )
