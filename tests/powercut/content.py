"""Contents that say what they are, so that any part of a file shows which version of what it is."""

from __future__ import annotations

import hashlib
import struct

SECTOR = 512
BLOCK = 4096
_HEAD = struct.Struct("<8sIIQ")  # of which file, block, sector, version


def _filler(seed: bytes, size: int) -> bytes:
    digest = hashlib.blake2b(seed, digest_size=64).digest()
    return (digest * (size // len(digest) + 1))[:size]


def sector(name: str, block: int, index: int, version: int) -> bytes:
    """One sector of a block of a file that is overwritten in place."""
    head = _HEAD.pack(hashlib.blake2b(name.encode(), digest_size=8).digest(), block, index, version)
    return head + _filler(head, SECTOR - len(head))


def block_of(name: str, block: int, version: int) -> bytes:
    """All sectors of one version."""
    return b"".join(sector(name, block, index, version) for index in range(BLOCK // SECTOR))


def version_of(found: bytes) -> int:
    """What a sector says of itself; to be checked against `sector`."""
    return int(_HEAD.unpack_from(found)[3]) if len(found) >= _HEAD.size else -1


def piece(name: str, offset: int, length: int) -> bytes:
    """What is appended to a file at an offset."""
    return _filler(f"{name} {offset} {length}".encode(), length)


def whole(name: str, version: int) -> bytes:
    """A file that is only ever replaced as a whole. Its size tells nothing: versions differ in it."""
    seed = f"{name} {version}".encode()
    return seed + b"\n" + _filler(seed, 100 + version * 977 % 20_000)
