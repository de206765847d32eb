"""What the peer's rfsmount says, with a key that counts: control messages, hellos, records, manifests. A peer that lies drops the link."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace

import msgpack

from rfs import handshake, manifest, peer_messages, record
from rfs.control_link import ControlLink
from rfs.errors import PeerProtocolError, SessionEnded
from rfs.handshake import Answer, Hello, Kind, Preamble
from rfs.record import BadRecord, DataState, Record, Role
from rfs.session_core import SessionCore
from tests.fuzz.streams import Said, run

RECORD = Record(
    cluster="c",
    module="m",
    node="n",
    node_id=5,
    generation=3,
    history=(1, 2),
    base=1,
    data=DataState.UPTODATE,
    role=Role.PRIMARY,
    tried=(9,),
)
HELLO = Hello("c", "m", "n", 5, "boot", 7)


def message(data: bytes) -> None:
    """One message; what is understood is said again in the same way, and the record in it is a record or is refused."""
    try:
        said = peer_messages.decode(data)
    except PeerProtocolError:
        return
    if len(data) < peer_messages.FRAME_BYTES_MAX // 16:  # others' fields are packed tighter than ours may be
        again = peer_messages.decode(peer_messages.encode(said)[peer_messages.HEADER.size :])
        assert peer_messages.encode(again) == peer_messages.encode(said)
    if isinstance(wire := said.get("record"), dict):
        record_of_peer(wire)


class Linked:
    """As much of a session as judges a record."""

    class link:  # noqa: N801
        theirs = HELLO


def record_of_peer(wire: dict[str, object]) -> None:
    try:
        SessionCore.check_record(Linked, wire)  # type: ignore[arg-type]
    except PeerProtocolError:
        return


def link(data: bytes) -> None:
    """A control link on which somebody says these bytes: the link ends, as an end of a session."""

    async def listen() -> None:
        heard: list[object] = []

        async def handler(said: object) -> None:
            heard.append(said)

        control = ControlLink(Said(data[1:], piece=data[0]), HELLO, dialed=False)
        pulse = {"data": "", "generation": 0, "seq": 0, "bytes_done": 0, "total_bytes": 0, "files_done": 0, "total_files": 0, "space": []}
        try:
            await control.run(lambda: dict(pulse), heard.append, frozenset({"sync", "turn", "leaving"}), handler)
        except* SessionEnded as ended:
            assert all(map(str, ended.exceptions))

    if data:
        run(listen)


def sealed(body: bytes, size: int) -> bytes:
    """Of the right length, with the right sum: else nothing would get past it."""
    body = body[:size].ljust(size, b"\0")
    return body + struct.pack("<I", zlib.crc32(body))


def hello(data: bytes) -> None:
    """Who speaks."""
    for raw in (data, sealed(handshake.MAGIC + data, handshake.HELLO_BYTES - 4)):
        try:
            said = handshake.decode(raw)
        except PeerProtocolError:
            continue
        assert handshake.decode(handshake.encode(said)) == said


def preamble(data: bytes) -> None:
    """What for."""
    for raw in (data, sealed(handshake.MAGIC + data, handshake.PREAMBLE_BYTES - 4)):
        try:
            said = handshake.decode_preamble(raw)
        except PeerProtocolError:
            continue
        assert handshake.decode_preamble(handshake.encode_preamble(said)) == said


def slot(data: bytes) -> None:
    """A record's slot on the disk: as it is; and with the sum that its content should have."""
    record.decode(data.ljust(record.SLOT_BYTES, b"\0"))
    number, payload = int.from_bytes(data[:2], "little"), data[2 : record.SLOT_BYTES - 24]
    checksum = zlib.crc32(struct.pack("<QI", number, len(payload)) + payload)
    whole = (struct.pack("<8sQII", b"LSTPREC\x01", number, len(payload), checksum) + payload).ljust(record.SLOT_BYTES, b"\0")
    found = record.choose(whole, data.ljust(record.SLOT_BYTES, b"\0"))
    if found is not None:
        assert record.decode(record.encode(found)) == found


def wire_record(data: bytes) -> None:
    """A record as plain values."""
    try:
        plain = msgpack.unpackb(data)
    except (ValueError, msgpack.UnpackException):
        return
    try:
        found = record.from_wire(plain)
    except BadRecord:
        return
    assert record.from_wire(record.to_wire(found)) == found


def rows(data: bytes) -> None:
    """A manifest, and the comparison with one of ours. The first byte says where ours ends and theirs begins."""
    if not data:
        return
    mine, theirs = data[1 : 1 + data[0]], data[1 + data[0] :]
    try:
        for difference in manifest.compare(manifest.read(io.BytesIO(mine)), manifest.read(io.BytesIO(theirs))):
            assert difference.entry.path is not None
    except manifest.BadManifest:
        return


PARSERS = {"message": message, "link": link, "hello": hello, "preamble": preamble, "slot": slot, "record": wire_record, "rows": rows}

EXAMPLES = {str: "text", int: 3, bool: True, dict: record.to_wire(RECORD), list: [1, 2], bytes: b"bytes"}


def row(path: bytes, target: bytes = b"", mode: int = 0o100644) -> bytes:
    fields = (0, mode, 1, 2, 3, 0, 10**18, b"c" * 16, b"x" * 16, 0, len(path), len(target))
    body = struct.pack("<HIIIQQq16s16sQHH", *fields) + path + target
    return struct.pack("<I", len(body)) + body


def seeds() -> dict[str, dict[str, bytes]]:
    """By parser."""
    messages = [
        {"type": kind, **{name: EXAMPLES[expected] for name, expected in fields.items()}}
        for kind, fields in peer_messages.VOCABULARY.items()
    ]
    deep = b"\x81\xa4type" + b"\x91" * 600 + b"\xc0"
    deep_record = b"\x82\xa4type\xa6ending\xa6record" + msgpack.packb(record.to_wire(RECORD)).replace(
        b"\xa5tried\x91\x09", b"\xa5tried" + b"\x91" * 700 + b"\x09"
    )
    mine, theirs = row(b"") + row(b"a") + row(b"b", b"t", 0o120777), row(b"") + row(b"b", b"u", 0o120777) + row(b"c/d")
    return {
        "message": {said["type"]: msgpack.packb(said) for said in messages} | {"deep": deep, "deep record": deep_record},
        "link": {
            "all": b"\x07" + b"".join(peer_messages.encode(said) for said in messages[:6]),
            "sync": b"\0" + peer_messages.encode(messages[-3]),
        },
        "hello": {"one": handshake.encode(HELLO)[8:-4], "answer": handshake.encode(replace(HELLO, answer=Answer.ACCEPTED))},
        "preamble": {"one": handshake.encode_preamble(Preamble(Kind.DATA, True, 5, Answer.ACCEPTED))[8:-4]},
        "slot": {"one": b"\3\0" + msgpack.packb(record.to_wire(replace(RECORD, number=3))), "whole": record.encode(RECORD)[:600]},
        "record": {"one": msgpack.packb(record.to_wire(RECORD))},
        "rows": {"two": bytes([len(mine)]) + mine + theirs if len(mine) < 256 else bytes([len(row(b"a"))]) + row(b"a") + theirs},
    }
