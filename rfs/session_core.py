"""The part of a session that its stages share: the links, the stage, and how it ends.

session.py enters a session, resync.py brings it from the agreed decision to the mirrored pair, in_session.py is what the peer may say
later.
"""

import logging

import trio

from rfs import rules
from rfs.control_link import ControlLink
from rfs.engine import EngineEvent, EventKind, SessionParameters
from rfs.errors import PeerProtocolError, SessionEnded
from rfs.peer_messages import TERM_MAX, Message
from rfs.record import BadRecord, DataState, Record, from_wire
from rfs.replica import Replica
from rfs.session_state import Stage
from rfs.steps import reached

log = logging.getLogger("rfs.session")

LEAVE_SYNC_TIMEOUT_S = 10.0
CHECKPOINT_SYNC = 2  # the number of a 'sync' that is part of a checkpoint; 1: of a demotion
GOODBYE_TIMEOUT_S = 3.0
KEEPALIVE_US = 1_000_000


class SessionCore:
    """The running session, as the replica, the commands and the stages see it."""

    def __init__(self, replica: Replica, link: ControlLink) -> None:
        self.stage = Stage.HANDSHAKING
        self.was_reset = False
        self.began_at = trio.current_time()
        self.dialed = link.dialed
        self.left_with_consent = False  # the peer went in order, and agreed that we may be promoted
        self.attached = False  # the engine has a session of ours
        self.apply_failed = False  # what this copy holds is in doubt
        self.again_s = 0.0  # how long to wait after the end before another session is tried
        self.drained = trio.Event()
        self.end_received = trio.Event()
        self.replica = replica
        self.link = link
        self.failures_in, self.failures_out = trio.open_memory_channel[EngineEvent](16)

    def on_event(self, event: EngineEvent) -> None:
        """Called by the replica, in order."""
        if event.kind is EventKind.DRAINED:
            self.drained.set()
        elif event.kind is EventKind.END_RECEIVED:
            self.end_received.set()
        else:
            self.apply_failed = self.apply_failed or event.kind is EventKind.APPLY_FAILED
            # A link that broke is known at once; one that made no progress has used up the time to wait already.
            self.was_reset = self.was_reset or "progress" not in event.text
            self.failures_in.send_nowait(event)

    def check_record(self, wire: Message) -> Record:
        """The peer's record, and that it is the hello's."""
        try:
            record = from_wire(wire)
        except BadRecord as failure:
            raise PeerProtocolError(str(failure)) from failure
        hello = self.link.theirs
        if (record.cluster, record.module, record.node_id) != (hello.cluster, hello.module, hello.node_id):
            raise PeerProtocolError("a record that is not the record of the node that said hello")
        if record.term > TERM_MAX:
            raise PeerProtocolError("a record with an impossible term")
        if not all(text.isprintable() for text in (record.node, record.boot, record.backing)):
            raise PeerProtocolError("a record with unprintable names")
        return record

    def parameters(self, session: int, **more: int) -> SessionParameters:
        settings = self.replica.settings
        more.setdefault("generation", self.replica.record.generation)
        timeout_us = int(settings.link_timeout_s * 1_000_000)
        return SessionParameters(
            session=session, resync_bytes_per_s=settings.resync_bytes_per_s,
            ack_disk=int(settings.ack_disk), progress_timeout_us=timeout_us, keepalive_us=min(KEEPALIVE_US, timeout_us // 3), **more,
        )  # fmt: skip

    def now_paired(self, session: int) -> None:
        replica = self.replica
        self.stage = Stage.PAIRED
        replica.resumable = session
        replica.paired_in_run = True
        replica.needs_grant = False
        replica.note = ""
        replica.second_try.succeeded()
        replica.replaces_data = False
        if replica.pending_directories:
            replica.nursery.start_soon(replica.settle_directories)
        if replica.is_primary:
            replica.served = True
        replica.is_live.set()
        replica.touch()

    async def ask(self, kind: str, answers: tuple[str, ...], timeout_s: float, **fields: object) -> Message:
        """For the commands: say something, wait for one of these answers. A step that fails ends the session for everybody.

        A demotion and a checkpoint may both wait for a sync: each hears of its own."""
        number = fields.get("number")
        try:
            await self.link.send(kind, **fields)
            return await self.link.expect(*answers, timeout_s=timeout_s, number=number if isinstance(number, int) else None)
        except SessionEnded:
            await self.hang_up()
            raise

    async def hang_up(self) -> None:
        """End the session: the engine freezes, and what follows is judged as after any loss."""
        await self.link.close()

    async def _sync_before_leaving(self) -> None:
        try:
            with trio.move_on_after(LEAVE_SYNC_TIMEOUT_S):
                await self.replica.engine.sync()
        except OSError as failure:
            log.warning("sync before leaving failed cause=%s", failure)

    async def leave(self, reason: str, *, consent: bool, orderly: bool = False) -> None:
        """Say goodbye as well as it can be done; the caller holds the lock. A complete secondary writes OUTDATED first."""
        replica = self.replica
        if not replica.is_primary and replica.record.data is DataState.UPTODATE and not consent and self.stage is Stage.PAIRED:
            if orderly:  # otherwise the primary's application already waits for this word
                await self._sync_before_leaving()
            await replica.commit(rules.secondary_leaves(replica.record), reason)
            reached("leave-durable")
        unfit = not replica.is_primary and replica.record.data is not DataState.UPTODATE
        try:
            with trio.move_on_after(GOODBYE_TIMEOUT_S):
                await self.ask(
                    "leaving", ("goodbye",), GOODBYE_TIMEOUT_S, outdated=unfit, orderly=orderly, consent=consent, reason=reason[:500]
                )
                reached("leave-told")
        except SessionEnded as ended:
            log.info("the peer did not hear that this node leaves cause=%s", ended)
