"""What the two nodes say to each other on the control link: msgpack maps, each of a known type with known fields.

The table below is the whole vocabulary. Everything from the peer is checked against it before anybody looks at it; a message that does not
fit drops the link, never the process. Records travel as maps and are checked once more by their own codec.
"""

import struct
from typing import Any, Final

import msgpack

from rfs.errors import PeerProtocolError
from rfs.foreign import from_msgpack
from rfs.show import printable

HEADER: Final = struct.Struct(">I")
FRAME_BYTES_MAX: Final = 64 * 1024
TEXT_CHARACTERS_MAX: Final = 1024
LIST_MAX: Final = 16
BYTES_MAX: Final = 48 * 1024
U64_MAX: Final = 2**64 - 1
TERM_MAX: Final = 2**22 - 2**10  # a term is a part of every fid, and has to leave room for those to come
DIRECTORIES_MAX: Final = 32
SEQ_MAX: Final = 2**63  # with which a session begins: what is added to it never wraps
BOUNDS: Final = {
    "term": TERM_MAX, "directories": DIRECTORIES_MAX, "directory": DIRECTORIES_MAX, "empty": 2**DIRECTORIES_MAX - 1,
    "fresh": 2**DIRECTORIES_MAX - 1, "offset": 2**63 - 1, "count": 2**32,
}  # fmt: skip

Message = dict[str, Any]

VOCABULARY: Final[dict[str, dict[str, type]]] = {
    # entering a session (session.py tells the order)
    "ready": {},
    "state": {"record": dict, "running": bool, "empty": int, "replace_data": bool, "resumable": int, "applied_seq": int, "proposal": int,
              "directories": int, "patterns": str, "marks": int},
    "verdict": {"outcome": str, "source": str, "travels": str, "obstacle": str, "reason": str},
    "renewed": {"term": int, "owner": int},
    "degrade": {},
    "degraded": {},
    "resume": {"session": int, "applied_seq": int},
    "open": {"session": int, "generation": int, "seq": int, "everything": bool, "direct": bool, "fresh": int},
    # the end of a resync
    "ending": {"record": dict},
    "adopted": {"record": dict},
    "paired": {},
    # within a session
    "ping": {"data": str, "generation": int, "seq": int, "bytes_done": int, "total_bytes": int, "files_done": int, "total_files": int,
             "space": list},
    "sync": {"number": int},
    "synced": {"number": int, "record_number": int},
    "checkpoint": {"session": int, "term": int, "record_number": int},
    "demoted": {"record": dict},
    "turn": {"term": int, "owner": int},
    "turned": {},
    "refused": {"reason": str},
    "leaving": {"outdated": bool, "orderly": bool, "consent": bool, "reason": str},
    "goodbye": {},
    # two nodes that have diverged compare their trees (divergence.py)
    "divergence": {"wish": str},
    "manifest": {},
    "manifest_ready": {"bytes": int},
    "manifest_read": {"offset": int},
    "manifest_part": {"data": bytes},
    "blocks": {"directory": int, "path": bytes, "offset": int, "count": int},
    "block_hashes": {"size": int, "data": bytes},
    "compared": {},
    "resolved": {"kept": str, "places": int, "bytes": int},
    "not_resolved": {"code": int, "reason": str},
}  # fmt: skip


def encode(message: Message) -> bytes:
    """The frame that carries a message of ours."""
    check(message)
    body: bytes = msgpack.packb(message, use_bin_type=True, unicode_errors="replace")
    assert len(body) <= FRAME_BYTES_MAX, "a peer message of ours is larger than the protocol allows"
    return HEADER.pack(len(body)) + body


def decode_length(header: bytes) -> int:
    """The length of the body that follows."""
    length: int = HEADER.unpack(header)[0]
    if not 0 < length <= FRAME_BYTES_MAX:
        raise PeerProtocolError(f"a peer message of {length} bytes")
    return length


def decode(body: bytes) -> Message:
    """The message in `body`, checked against the vocabulary."""
    try:
        message = from_msgpack(body)
    except ValueError as failure:
        raise PeerProtocolError(f"a peer message that is no msgpack: {failure}") from failure
    if not isinstance(message, dict):
        raise PeerProtocolError("a peer message that is no map")
    check(message)
    # Its words stand in logs, a status, a terminal: one line each, and nothing that moves a cursor.
    return {name: printable(value) if isinstance(value, str) else value for name, value in message.items()}


def check(message: Message) -> None:
    """A known type with exactly its fields, of their types and within their bounds. (Unknown extra fields are a newer peer's.)"""
    kind = message.get("type")
    fields = VOCABULARY.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise PeerProtocolError(f"a peer message of unknown type {str(kind)[:40]!r}")
    for name, expected in fields.items():
        value = message.get(name)
        if type(value) is not expected:
            raise PeerProtocolError(f"a peer message '{kind}' whose '{name}' is no {expected.__name__}")
        if isinstance(value, list) and (len(value) > LIST_MAX or not all(type(item) is int and 0 <= item <= U64_MAX for item in value)):
            raise PeerProtocolError(f"a peer message '{kind}' whose '{name}' is no short list of numbers")
        if isinstance(value, str) and len(value) > TEXT_CHARACTERS_MAX:
            raise PeerProtocolError(f"a peer message '{kind}' whose '{name}' is too long")
        if isinstance(value, bytes) and len(value) > BYTES_MAX:
            raise PeerProtocolError(f"a peer message '{kind}' whose '{name}' is too long")
        if isinstance(value, int) and not 0 <= value <= BOUNDS.get(name, U64_MAX):
            raise PeerProtocolError(f"a peer message '{kind}' whose '{name}' is out of range")
