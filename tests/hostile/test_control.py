"""A hostile peer on the control link of a real rfsmount that serves: dropped, told of in printable lines, and nobody else notices."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio

from rfs import handshake
from rfs.handshake import Answer, Hello, Kind, Preamble
from rfs.record import Record, to_wire
from tests.posix.node import Node, free_address, needs_mounts

pytestmark = [pytest.mark.mount, needs_mounts]
EVIL = "\x1b[2J\x07\n2026-11-26 rfs.session INFO paired \u202egnp.exe"
NODE_ID = 1  # the lowest: the hostile node is the one that calls
Message = dict[str, Any]


def packed(message: object) -> bytes:
    """A message that nobody checked."""
    body: bytes = msgpack.packb(message)
    return struct.pack(">I", len(body)) + body


def state(**lies: object) -> bytes:
    """What two nodes tell each other first."""
    record = Record(cluster="standalone", module="pg", node="evil", node_id=NODE_ID, boot="boot", backing="disk")
    honest: Message = {
        "type": "state", "record": to_wire(record), "running": False, "empty": 3, "replace_data": False, "resumable": 0, "applied_seq": 0,
        "proposal": 5, "directories": 2, "patterns": "", "marks": 0,
    }  # fmt: skip
    return packed(honest | lies)


def record(**lies: object) -> Message:
    """A record with lies in it."""
    return to_wire(Record(cluster="standalone", module="pg", node="evil", node_id=NODE_ID)) | lies


READY = packed({"type": "ready"})


@dataclass(frozen=True, slots=True)
class Said:
    """What is sent after the hellos."""

    name: str
    stream: Callable[[], bytes]


SAID = [
    Said("directories-enough-for-all-memory", lambda: READY + state(directories=2**40, empty=2**40)),
    Said("a-term-beyond-the-last", lambda: READY + state(record=record(term=2**63))),
    Said("a-record-of-another-node", lambda: READY + state(record=record(node_id=77))),
    Said("a-record-that-moves-the-cursor", lambda: READY + state(record=record(node=EVIL))),
    Said("a-record-that-is-none", lambda: READY + state(record={"generation": [1] * 1000})),
    Said("a-lineage-in-a-circle", lambda: READY + state(record=record(generation=5, history=[5, 5]))),
    Said("four-gigabytes", lambda: b"\xff\xff\xff\xff"),
    Said("no-bytes-at-all", lambda: struct.pack(">I", 0)),
    Said("no-msgpack", lambda: struct.pack(">I", 9) + b"\xc1" * 9),
    Said("arrays-deeper-than-a-stack", lambda: struct.pack(">I", 60000) + b"\x91" * 60000),
    Said("an-array-of-all-memory", lambda: struct.pack(">I", 5) + b"\xdd\xff\xff\xff\xff"),
    Said("text-that-is-none", lambda: packed({"type": "leaving"})[:-7] + b"\xff" * 7),
    Said("a-type-that-is-none", lambda: packed({"type": EVIL})),
    Said("words-that-forge-the-log", lambda: packed(
        {"type": "leaving", "outdated": False, "orderly": True, "consent": True, "reason": EVIL})),
    Said("a-thousand-syncs", lambda: packed({"type": "sync", "number": 1}) * 1000),
    Said("a-thousand-answers", lambda: packed({"type": "renewed", "term": 1, "owner": 1}) * 1000),
    Said("a-promotion-out-of-place", lambda: packed({"type": "turn", "term": 5, "owner": NODE_ID})),
    Said("a-demotion-out-of-place", lambda: packed({"type": "demoted", "record": record()})),
    Said("a-path-out-of-the-tree", lambda: packed(
        {"type": "blocks", "directory": 0, "path": b"../../etc/shadow", "offset": 0, "count": 1}) * 100),
]  # fmt: skip


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(Path(tmp_path_factory.mktemp("hostile", numbered=True)), "a", free_address(), free_address())
    try:
        mounted = node.mount("primary", "--insecure")
        assert mounted.returncode == 0, mounted.stderr
        yield node
    finally:
        node.clean()


async def _call(serving: Node) -> trio.SocketStream:
    """A control connection behind its hellos; a node that is still at the last one is called again."""
    host, port = serving.options[1].split(":")
    mine = Hello("standalone", "pg", "evil", NODE_ID, "boot", 1)
    with trio.fail_after(20):
        while True:
            stream = await trio.open_tcp_stream(host, int(port))
            try:
                if await handshake.open_connection(stream, Preamble(Kind.CONTROL, secure=False)) is Answer.ACCEPTED:
                    theirs = await handshake.call(stream, mine)
                    assert theirs.answer is Answer.ACCEPTED, theirs
                    return stream
            except (handshake.PeerProtocolError, trio.BrokenResourceError):
                pass
            await stream.aclose()
            await trio.to_thread.run_sync(serving.status)  # it is about to end the last one's session


@pytest.mark.parametrize("said", SAID, ids=lambda said: said.name)
async def test_said(said: Said, serving: Node) -> None:
    log = serving.state / "rfsmount.log"
    before, pid = log.stat().st_size, (serving.state / "rfsmount.pid").read_text()
    stream = await _call(serving)
    with trio.fail_after(15):
        try:
            await stream.send_all(said.stream())
            while await stream.receive_some(65536):
                pass
        except trio.BrokenResourceError:
            pass
    await stream.aclose()
    deadline = time.monotonic() + 10
    while b"session ended" not in (told := log.read_bytes()[before:]):
        assert time.monotonic() < deadline, told
        await trio.to_thread.run_sync(serving.status)
    lines = told.decode().splitlines()
    assert all(line.isprintable() for line in lines) and not any(line.startswith("2026-11-26 rfs.session INFO paired") for line in lines), (
        lines
    )
    assert not any("Traceback" in line for line in lines), lines
    (serving.directories[0] / "file").write_text(said.name)
    status = serving.status()
    assert str(status["reason"]).isprintable() and status["role"] == "primary"
    assert (serving.state / "rfsmount.pid").read_text() == pid
    assert _resident_kib(pid.strip()) < 400 << 10


def _resident_kib(pid: str) -> int:
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(row.split()[1] for row in rows if row.startswith("VmRSS")))
