"""The record: what one node durably knows about its copy and its peer's (docs/protocol.md §1).

A record is kept in two slots that are written in turn, each with a number and a checksum. A write that is torn, or a slot that is
garbled, is recognised and the other slot counts, which is the record as it was before that write: every write of a record is one atomic
step. This module is pure; record_file.py does the writing.
"""

import struct
import zlib
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

import msgpack

from rfs.foreign import from_msgpack

SLOT_BYTES = 4096
MAX_NAMES = 128  # of a history and of the tried names: both fit into a slot beside the longest texts
MAX_TEXT_BYTES = 200
MAX_U64 = (1 << 64) - 1

_MAGIC = b"LSTPREC\x01"
_HEADER = struct.Struct("<8sQII")  # magic and version, number, payload bytes, CRC-32 of number, length and payload


class BadRecord(ValueError):
    """A record that cannot be one: from the peer, bytes to drop the link for."""


class DataState(Enum):
    """Of a copy. (CONSISTENT is shown and never stored: UPTODATE on record, not yet paired in this run.)"""

    UPTODATE = "UPTODATE"
    OUTDATED = "OUTDATED"
    INCONSISTENT = "INCONSISTENT"
    FAILED = "FAILED"


class Role(Enum):
    """What the node was last."""

    PRIMARY = "PRIMARY"
    SECONDARY = "SECONDARY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """See docs/protocol.md §1 for what each field means and which rule needs it."""

    cluster: str
    module: str
    node: str
    node_id: int
    number: int = 0
    generation: int = 0
    base: int = 0
    history: tuple[int, ...] = ()  # oldest first, base up to but without the generation itself
    term: int = 0
    owner: int = 0
    data: DataState = DataState.INCONSISTENT
    role: Role = Role.SECONDARY
    running: bool = False
    clean: bool = True
    boot: str = ""
    incarnation: int = 0
    backing: str = ""
    rewound: bool = False
    peer_may_fit: bool = True
    shared: bool = False
    peer_has: bool = False
    used: bool = False
    peer_id: int = 0  # whom the two below speak of
    peer_confirmed_number: int = 0
    peer_confirmed_seq: int = 0
    tried: tuple[int, ...] = ()
    armed: bool = False
    session: int = 0
    applied_seq: int = 0
    node_bit: int = 1

    @property
    def is_sole_owner(self) -> bool:
        """May serve without asking: UPTODATE, was primary, and no other copy can be as new."""
        return self.data is DataState.UPTODATE and self.role is Role.PRIMARY and not self.peer_may_fit

    @property
    def lineage(self) -> tuple[int, ...]:
        """All names of this copy that are known, oldest first; 0 is the ancestor of everything."""
        return (*self.history, self.generation)

    def continues(self, generation: int) -> bool:
        """Is `generation` this record's, or an ancestor of it?"""
        return generation == 0 or generation in self.lineage


# ---- the wire form: plain values by name, everything checked on the way in ---------------------------------------------------------------

_ENUMS: dict[str, type[DataState] | type[Role]] = {"data": DataState, "role": Role}
_FIELDS = {field.name: field.type for field in fields(Record)}


def to_wire(record: Record) -> dict[str, Any]:
    """For msgpack: enums by name, tuples as lists."""
    return {name: _plain(getattr(record, name)) for name in _FIELDS}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    return list(value) if isinstance(value, tuple) else value


def _is_name(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_U64


def _checked(name: str, value: Any) -> Any:
    if name in _ENUMS:
        if not isinstance(value, str) or value not in _ENUMS[name].__members__:
            raise BadRecord(f"field {name} is {value!r:.40}")
        return _ENUMS[name][value]
    kind = _FIELDS[name]
    if kind is str and isinstance(value, str) and len(value.encode(errors="replace")) <= MAX_TEXT_BYTES:
        return value
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_U64:
        return value
    if name in ("history", "tried") and isinstance(value, list | tuple) and len(value) <= MAX_NAMES and all(map(_is_name, value)):
        return tuple(value)
    raise BadRecord(f"field {name} is {value!r:.40}")


def from_wire(plain: object) -> Record:
    """The inverse. Raises BadRecord for anything that is not exactly a record."""
    if not isinstance(plain, dict) or set(plain) != set(_FIELDS):
        raise BadRecord("a record with other fields than ours")
    record = Record(**{name: _checked(name, value) for name, value in plain.items()})
    if record.node_bit > 1 or not record.node_id:
        raise BadRecord("a record without an identity")
    if len(set(record.lineage)) != len(record.lineage):
        raise BadRecord("a lineage that names a generation twice")
    if record.base and record.base not in record.lineage:
        raise BadRecord("a base outside of its lineage")
    if not record.generation and (record.history or record.data is DataState.UPTODATE):
        raise BadRecord("data without a generation")
    return record


# ---- slots -------------------------------------------------------------------------------------------------------------------------------


def encode(record: Record) -> bytes:
    """One slot, SLOT_BYTES long."""
    payload: bytes = msgpack.packb(to_wire(record))
    assert _HEADER.size + len(payload) <= SLOT_BYTES, "a record has bounded fields"
    checksum = zlib.crc32(struct.pack("<QI", record.number, len(payload)) + payload)
    return (_HEADER.pack(_MAGIC, record.number, len(payload), checksum) + payload).ljust(SLOT_BYTES, b"\0")


def decode(slot: bytes) -> Record | None:
    """The record in a slot; None when it is empty, torn, garbled or of another version."""
    if len(slot) != SLOT_BYTES:
        return None
    magic, number, length, checksum = _HEADER.unpack_from(slot)
    payload = slot[_HEADER.size : _HEADER.size + length]
    if magic != _MAGIC or len(payload) != length or any(slot[_HEADER.size + length :]):
        return None
    if zlib.crc32(struct.pack("<QI", number, length) + payload) != checksum:
        return None
    try:
        record = from_wire(from_msgpack(payload))
    except ValueError:  # a BadRecord is one
        return None
    return record if record.number == number else None


def choose(first: bytes, second: bytes) -> Record | None:
    """The newest of two slots that is whole."""
    found = [record for record in (decode(first), decode(second)) if record is not None]
    return max(found, key=lambda record: record.number, default=None)
