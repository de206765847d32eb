"""A stand-in for the C engine: modes and events as the real one has them, a session that carries no data but breaks like one."""

import errno
import socket

import trio

from rfs.engine import Channel, Engine, EngineEvent, EventHandler, EventKind, Mode, SessionParameters, Snapshot, Space, Statistics

DRAINS = True  # a test that wants a long resync sets it to False


class FakeEngine(Engine):
    """Drained at once; END is one byte on the data link; the end of the link is LINK_LOST."""

    def __init__(self) -> None:
        self.mode = Mode.IDLE
        self.calls: list[str] = []
        self.waiting_ops = 0
        self.peer_space: Space | None = None
        self.seq = 0
        self.marked = 2  # as resync_scope.marked()
        self.target = False
        self.kept = Snapshot.NONE
        self.clones = False
        self._events_in, self._events_out = trio.open_memory_channel[EngineEvent | trio.SocketStream](100)
        self._stream: trio.SocketStream | None = None

    async def free(self) -> None:
        self.calls.append("free")
        await self._hang_up()

    def emit(self, kind: EventKind, text: str = "") -> None:
        """What the test lets happen."""
        self._events_in.send_nowait(EngineEvent(kind, 0, text))

    async def run(self, handler: EventHandler, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        async with trio.open_nursery() as nursery:
            async for event in self._events_out:
                if isinstance(event, EngineEvent):
                    handler(event)
                else:
                    nursery.start_soon(self._read, event)

    async def _read(self, stream: trio.SocketStream) -> None:
        try:
            while await stream.receive_some(1):
                self.emit(EventKind.END_RECEIVED)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        if stream is self._stream:
            self._freeze()
            self.emit(EventKind.LINK_LOST, "connection reset")

    def _freeze(self) -> None:
        if self.mode in (Mode.RESYNCING, Mode.PAIRED):
            self.mode = Mode.FROZEN

    async def _hang_up(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await trio.aclose_forcefully(stream)

    async def cut(self) -> None:
        """The network breaks."""
        assert self._stream is not None
        self._stream.socket.shutdown(socket.SHUT_RDWR)

    def space(self) -> Space:
        return Space(1000, 500, 400, 100, 50)

    def _attach(self, descriptor: int) -> None:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))
        self._stream = stream
        self._events_in.send_nowait(stream)

    def statistics(self) -> Statistics:
        return Statistics(
            mode=self.mode, waiting_ops=self.waiting_ops, seq=self.seq, acked_seq=self.seq, applied_seq=self.seq,
            marked_places=self.marked, marked_everything=int(self.marked == 2),
        )  # fmt: skip

    async def open_marks(self, directory: str) -> bool:
        return False

    async def mark_everything(self) -> None:
        self.calls.append("mark everything")

    async def forget_marks(self) -> None:
        self.marked = 0

    async def begin_before(self, *, whole: bool) -> Snapshot:
        if whole and self.clones:
            self.kept = Snapshot.KEPT
        return self.kept

    async def end_before(self) -> None:
        self.kept = Snapshot.NONE

    async def restore_before(self) -> None:
        self.calls.append("restore")

    def snapshot(self) -> Snapshot:
        return self.kept

    async def begin_checkpoint(self) -> None:
        if self.mode is not Mode.PAIRED or self.target:
            raise BlockingIOError(errno.EAGAIN, "not now")

    async def end_checkpoint(self) -> None:
        self.calls.append("checkpoint")
        self.marked = 0

    async def become_primary(self, term: int, node_bit: int) -> None:
        assert self.mode in (Mode.IDLE, Mode.FROZEN)
        self.mode, self.target = Mode.FROZEN, False

    async def demote(self) -> None:
        self.calls.append("demote")

    async def grant(self, generation: int, *, used: bool) -> None:
        assert self.mode is Mode.FROZEN
        if self.waiting_ops and not used:
            raise BlockingIOError(errno.EAGAIN, "operations wait")
        self.mode = Mode.ALONE if used else Mode.UNUSED
        self.calls.append(f"grant {generation:x}")

    async def set_used(self) -> None:
        self.mode = Mode.ALONE

    async def fence(self) -> None:
        self.mode = Mode.FENCED

    async def sync(self) -> None:
        self.calls.append("sync")

    async def session_source(self, channel: Channel, parameters: SessionParameters) -> None:
        assert self.mode not in (Mode.IDLE, Mode.FENCED)
        self.mode = Mode.PAIRED if parameters.direct else Mode.RESYNCING
        self.calls.append("source")
        self._attach(channel.descriptor)
        if DRAINS and not parameters.direct:
            self.emit(EventKind.DRAINED)

    async def session_resume(self, channel: Channel, parameters: SessionParameters) -> None:
        assert self.mode is Mode.FROZEN
        self.mode = Mode.PAIRED
        self.calls.append("resume")
        self._attach(channel.descriptor)

    async def session_target(self, channel: Channel, parameters: SessionParameters, *, resume: bool) -> None:
        assert self.mode is Mode.IDLE
        self.target = True
        self.calls.append("target again" if resume else "target")
        self._attach(channel.descriptor)

    async def send_end(self) -> bool:
        if self._stream is None or self.mode is not Mode.RESYNCING:
            raise OSError(errno.EINVAL, "the link was lost meanwhile")
        self.mode = Mode.PAIRED
        await self._stream.send_all(b"E")
        return True

    async def purge_holding(self, *, arriving: bool = False, confirmed: bool = False) -> int:
        self.calls += [] if arriving else ["purge what was asked for" if confirmed else "purge"]
        return 0

    async def discard_set_aside(self) -> None:
        self.calls.append("discard")

    async def session_turn(self, *, now_source: bool) -> None:
        self.mode, self.target = (Mode.PAIRED, False) if now_source else (Mode.IDLE, True)

    async def session_close(self) -> None:
        self._freeze()
        self.target = False
        await self._hang_up()
