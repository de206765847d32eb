"""What a hostile peer meets: the real engine, over a real tree that lies beside things which nobody may touch."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import select
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rfs._engine

from tests.hostile.frames import FIRST_OBJECT, GENERATION, ROOT, SESSION, U64, Body, Header, Heard, Type, split

LIB: Any = rfs._engine.lib
FFI: Any = rfs._engine.ffi
PATIENCE_S = 20.0
FILE, DIRECTORY, LINK, FIFO, INNER = range(FIRST_OBJECT, FIRST_OBJECT + 5)  # what World.furnish() makes
NEW = FIRST_OBJECT + 100


@dataclass(slots=True)
class Event:
    """Of the engine."""

    kind: int
    result: int
    text: str


@dataclass(slots=True)
class Outcome:
    """What became of a session."""

    events: list[Event]
    heard: list[Heard] = field(default_factory=list)
    acknowledged: int = 0
    closed: bool = False

    def event(self, kind: int) -> Event | None:
        """The first of this kind."""
        return next((event for event in self.events if event.kind == kind), None)

    @property
    def failed(self) -> Event | None:
        """This copy says that it cannot follow."""
        return self.event(LIB.RFS_EVENT_APPLY_FAILED)

    @property
    def lost(self) -> Event | None:
        """The link ended."""
        return self.event(LIB.RFS_EVENT_LINK_LOST)


def facts(path: Path) -> str:
    """All that can be seen of a tree but for access times: every name, number, time, byte and attribute."""
    digest = hashlib.sha256()
    for one in sorted([path, *path.rglob("*")]):
        status = one.lstat()
        row: list[object] = [
            str(one),
            status.st_ino,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_nlink,
            status.st_size,
            status.st_rdev,
        ]
        row += [status.st_mtime_ns, status.st_ctime_ns]
        row += [(name, os.getxattr(one, name, follow_symlinks=False)) for name in sorted(os.listxattr(one, follow_symlinks=False))]
        if stat.S_ISLNK(status.st_mode):
            row.append(os.readlink(one))
        elif stat.S_ISREG(status.st_mode):
            row.append(one.read_bytes())
        digest.update(repr(row).encode())
    return digest.hexdigest()


class World:
    """A tree with an engine over it, canaries beside and above it, and one peer."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.tree = base / "above" / "tree"
        self.outside = base / "outside"
        self.state = base / "state"
        for directory in (self.tree, self.outside / "directory", self.state):
            directory.mkdir(parents=True)
        (self.outside / "file").write_text("leave it be\n")
        (self.outside / "file").chmod(0o640)
        (self.outside / "directory" / "below").write_text("and this\n")
        (base / "above" / "neighbour").write_text("and what lies beside the tree\n")
        self.engine: Any = None
        self.peer: socket.socket | None = None
        self.seq = 0
        self.sessions = 0
        self._unread = bytearray()
        self._canaries = ""

    # ---- the engine -------------------------------------------------------------------------------------------------------------------

    def open(self, *, refuses: int = 0, exclude: str = "") -> None:
        """An engine over the tree, and a session in which the peer is its source."""
        error, tree = FFI.new("int *"), LIB.rfs_tree_open(os.fsencode(self.tree))
        assert tree >= 0, os.strerror(-tree)
        self.engine = LIB.rfs_engine_new(FFI.new("int[]", [tree]), 1, error)
        os.close(tree)
        assert self.engine != FFI.NULL
        LIB.rfs_set_policy(self.engine, refuses)
        if exclude:
            assert LIB.rfs_add_pattern(self.engine, 0, exclude.encode(), 0) == 0
        self.watch()

    def watch(self) -> None:
        """From here on nothing outside may change."""
        self._canaries = self.canaries()

    def canaries(self) -> str:
        """Everything but the tree and the state directory."""
        above = (self.base / "above").lstat()
        return (
            facts(self.outside)
            + facts(self.base / "above" / "neighbour")
            + repr((above.st_mtime_ns, above.st_ctime_ns, above.st_nlink, os.listdir(self.base / "above")))
        )

    def session(self, *, everything: bool = True, seq: int = 0, source: bool = False) -> None:
        """A new one: what the peer says is applied, or (source) it has to answer."""
        ours, theirs = socket.socketpair()
        self.sessions += 1
        parameters = FFI.new(
            "rfs_session *",
            {
                "session": SESSION, "generation": GENERATION, "seq": seq, "everything": int(everything), "progress_timeout_us": 20_000_000,
                "fsync_timeout_us": 20_000_000, "keepalive_us": 1_000_000,
            },
        )  # fmt: skip
        channel = LIB.rfs_channel_plain(theirs.detach())
        result = (
            LIB.rfs_session_source(self.engine, channel, parameters)
            if source
            else LIB.rfs_session_target(self.engine, channel, parameters, 0)
        )
        assert result == 0, os.strerror(-result)
        ours.setblocking(False)
        self.peer, self.seq, self._unread = ours, seq, bytearray()

    def become_source(self) -> None:
        """A primary, whose peer lies to it."""
        assert LIB.rfs_become_primary(self.engine, 1, 0) == 0
        assert LIB.rfs_grant(self.engine, GENERATION, 1) == 0
        self.session(source=True)

    def close(self) -> None:
        """Nothing outside was touched."""
        if self.peer is not None:
            self.peer.close()
        if self.engine is not None:
            LIB.rfs_session_close(self.engine)
            LIB.rfs_engine_free(self.engine)
            self.engine = None
        assert self.canaries() == self._canaries, "something outside the tree has changed"

    # ---- the peer ---------------------------------------------------------------------------------------------------------------------

    def furnish(self) -> None:
        """What most cases begin with: a file, a directory, a link that leads out, a FIFO, and a file in the directory."""
        self.op(Type.CREATE, name=b"f", child=FILE, mode=stat.S_IFREG | 0o644)
        self.write(FILE, b"some bytes")
        self.op(Type.MKDIR, name=b"d", child=DIRECTORY, mode=stat.S_IFDIR | 0o755)
        self.op(Type.SYMLINK, name=b"l", child=LINK, mode=stat.S_IFLNK | 0o777, data=os.fsencode(self.outside / "file"))
        self.op(Type.MKNOD, name=b"p", child=FIFO, mode=stat.S_IFIFO | 0o644)
        self.op(Type.CREATE, fid=DIRECTORY, name=b"inner", child=INNER, mode=stat.S_IFREG | 0o644)

    def op(
        self, type: int, *, fid: int = ROOT, header_flags: int = 0, offset: int = 0, length: int = 0, seq: int | None = None, **body: Any
    ) -> None:
        """The next frame, with a body."""
        self.frame(Header(type=type, flags=header_flags, fid=fid, offset=offset, length=length), Body(**body).encode(), seq=seq)

    def write(self, fid: int, data: bytes, *, type: int = Type.WRITE, offset: int = 0, length: int | None = None, flags: int = 0) -> None:
        """The next frame, of bytes."""
        self.frame(Header(type=type, flags=flags, fid=fid, offset=offset, length=len(data) if length is None else length), data)

    def frame(self, header: Header, payload: bytes = b"", *, seq: int | None = None) -> None:
        """Whatever it says; numbered, if it does not number itself."""
        if header.type < Type.ACK and seq is None:
            self.seq += 1
        header.seq = header.seq or (self.seq if seq is None else seq)
        self.send(header.encode(payload))

    def send(self, stream: bytes) -> None:
        """Bytes. Once the other end has had enough the rest is lost."""
        assert self.peer is not None
        left, room = memoryview(stream), select.poll()
        room.register(self.peer, select.POLLOUT)
        while left:
            found = room.poll(PATIENCE_S * 1000)
            assert found, "the engine reads no more"
            if found[0][1] & select.POLLHUP:
                return
            try:
                left = left[self.peer.send(left) :]
            except BlockingIOError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                return

    def next_event(self, timeout_s: float) -> Event | None:
        """Within so long; None: there was none."""
        event, until = FFI.new("rfs_event *"), time.monotonic() + timeout_s
        while not LIB.rfs_next_event(self.engine, event):
            left = until - time.monotonic()
            if left <= 0:
                return None
            select.select([LIB.rfs_event_fd(self.engine)], [], [], left)
        return Event(event.kind, event.result, FFI.string(event.text).decode())

    def listen(self, outcome: Outcome, timeout_s: float) -> None:
        """What the engine has said by now, or says within so long."""
        assert self.peer is not None
        select.select([self.peer], [], [], timeout_s)
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while piece := self.peer.recv(1 << 20):
                self._unread += piece
            outcome.closed = True
        for heard in split(self._unread):
            outcome.heard.append(heard)
            if heard.type == Type.ACK:
                outcome.acknowledged = max(outcome.acknowledged, heard.seq)

    def outcome(self) -> Outcome:
        """Once all that was sent is acknowledged, or the link has ended and been told of."""
        outcome, until = Outcome([]), time.monotonic() + PATIENCE_S
        while not outcome.closed and outcome.acknowledged < self.seq:
            assert time.monotonic() < until, f"no answer: {outcome}"
            self.listen(outcome, 0.5)
        while outcome.closed and outcome.lost is None:
            event = self.next_event(PATIENCE_S)
            assert event is not None, "nobody was told that the link ended"
            outcome.events.append(event)
        while (event := self.next_event(0.0)) is not None:
            outcome.events.append(event)
        return outcome

    def ended(self) -> Outcome:
        """Once the link has ended."""
        outcome, until = Outcome([]), time.monotonic() + PATIENCE_S
        while outcome.lost is None:
            event = self.next_event(max(0.0, until - time.monotonic()))
            assert event is not None, "the link goes on"
            outcome.events.append(event)
        return outcome

    def next_session_works(self) -> None:
        """Whatever was sent: the process lives, and a peer that keeps to the rules is served."""
        if self.peer is not None:
            self.peer.close()
        assert LIB.rfs_session_close(self.engine) == 0
        self.session()
        self.op(Type.BEGIN)
        self.op(Type.ENTRY, name=b"after", child=NEW + 900, mode=stat.S_IFREG | 0o644)
        outcome = self.outcome()
        assert outcome.acknowledged == self.seq, outcome.events
        assert (self.tree / "after").is_file()


def is_possible() -> str:
    """Why it is not; empty: it is."""
    if os.geteuid() != 0:
        return "needs root"
    with tempfile.TemporaryDirectory(dir="/var/tmp") as path:
        tree = LIB.rfs_tree_open(os.fsencode(path))
        if tree < 0:
            return f"no mounts here: {errno.errorcode[-tree]}"
        reason = FFI.new("char[]", LIB.RFS_REASON_BYTES)
        result = LIB.rfs_tree_probe(tree, reason)
        os.close(tree)
        return FFI.string(reason).decode() if result < 0 else ""


@contextlib.contextmanager
def made() -> Iterator[World]:
    """A world of its own."""
    base = Path(tempfile.mkdtemp(prefix="lockstep-hostile-", dir="/var/tmp"))
    world = World(base)
    try:
        yield world
    finally:
        try:
            world.close()
        finally:
            shutil.rmtree(base, ignore_errors=True)


__all__ = ["DIRECTORY", "FIFO", "FILE", "INNER", "LIB", "LINK", "NEW", "ROOT", "U64", "Outcome", "World", "facts", "is_possible", "made"]
