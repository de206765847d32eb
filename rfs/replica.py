"""One node's copy of a module: its record, its engine, its layers, its role. The session and the commands change it through here.

Two rules keep this small. A change of state is a *transition*: it holds `changing` from the first look at the record to the last durable
write, so a grant never meets a handshake half-way. And the record is written by `commit` alone, durably, before anything that relies on it:
the engine is told afterwards.

What a person sees (link, code, reason) is derived in status.py from what stands here; nothing is kept twice.
"""

import errno
import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from rfs.divergence import Asked
from rfs import exit_codes, rules
from rfs.decide import Outcome
from rfs.engine import Engine, EngineEvent, EventKind, Mode, Space
from rfs.errors import NotGranted, SaidNo
from rfs.grants import Arbitration, Won
from rfs.handshake import Hello
from rfs.mount import Layers
from rfs.record import DataState, Record, Role
from rfs.record_file import RecordFile
from rfs.removals import Removal, find_removals
from rfs.second_try import SecondTry
from rfs.security import Security
from rfs.session_state import PeerView, SessionSlot, Stage
from rfs.settings import OnPeerLoss, Settings
from rfs.state_directory import Directories, write_directories
from rfs.steps import reached

log = logging.getLogger("rfs.replica")

RESET_GRACE_S = 1.0  # the connection was closed under us: the peer may be back at once, and resuming is cheaper than going alone
SILENCE_GRACE_S = 1.0  # the progress timeout has passed; a process that was only paused finds out here that its peer went on
RESUMED_IN_VAIN_MAX = 3


@dataclass(slots=True)
class Refused:
    """Why the last handshake made no pair: what `link` and `code` show until the next one."""

    code: str
    reason: str

    @property
    def is_diverged(self) -> bool:
        return self.code == Outcome.DIVERGED.name


@dataclass(slots=True)
class Unfinished:
    """The last directory, which is recorded and known to the engine, and not mounted yet: something failed on the way. `marked`: what is in
    it is copied by the next session; before that there must be none."""

    position: int
    marked: bool = False


class Replica:
    """See the module's text."""

    def __init__(
        self,
        settings: Settings,
        layers: Layers,
        record_file: RecordFile,
        record: Record,
        identity: rules.Identity,
        make_engine: Callable[[Settings], Engine],
        security: Security,
    ) -> None:
        self.settings = settings
        self.security = security
        self.identity = identity
        self.pid = os.getpid()
        self.layers = layers
        self.record = record
        self.engine = make_engine(settings)
        self.changing = trio.Lock()
        self.session: SessionSlot | None = None
        self.refused: Refused | None = None
        self.asked: Asked | None = None  # what to do about a divergence, at the next meeting with the peer
        self.peer = PeerView()
        self.arbiter: Arbitration | None = None  # with a witness: nothing else grants
        self.consent = False  # the peer has demoted itself durably and agrees that we promote
        self.needs_grant = False
        self.paired_in_run = False  # this process' copy has been complete beside the peer's
        self.served = False  # as primary, in this process
        self.scope = ""  # of the last session: nothing, marks or everything
        self.broken_off = 0  # sessions in a row that did not come to a whole pair
        self.resumable = 0  # the session whose window could still be shipped again
        self.peer_faults = 0  # data links that were ended because what came over them was not the protocol
        self._resumed_in_vain = self._acked_at_loss = 0
        self.note = ""  # why we are as we are, when the state itself does not tell: "the peer left: its disk is full"
        self.mismatch = ""  # the wish of the command line against the record
        self.replaces_data = settings.replace_data  # the word to give this node's data up; it is good for one copy
        self.unprotected: list[str] = []  # rights that this process would have given up, and could not (privileges.py)
        self.pending_directories = 0  # so many, at the end, were added and have not been part of a whole pair
        self.unfinished: Unfinished | None = None  # asked for once more, it is finished
        self.second_try = SecondTry()  # a copy that failed to keep up does not try again at once
        self.removals: tuple[Removal, ...] = ()  # what a resync took away, and nobody has confirmed
        self.stopping = False
        self.keeps_guards = False
        self.finished = trio.Event()
        self.is_live = trio.Event()
        self.changed_at = trio.current_time()
        self._make_engine = make_engine
        self._record_file = record_file
        self._changed = trio.Event()
        self._engine_scope = trio.CancelScope()
        self._relay_scope = trio.CancelScope()
        self._relay_ended = trio.Event()
        self._nursery: trio.Nursery | None = None

    # ---- what is so -------------------------------------------------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        return Mode(self.engine.statistics().mode)

    @property
    def is_primary(self) -> bool:
        return self.record.role is Role.PRIMARY

    @property
    def nursery(self) -> trio.Nursery:
        assert self._nursery is not None, "the replica is not running"
        return self._nursery

    def hello(self) -> Hello:
        """Who we are, for a connection to the peer."""
        record, identity = self.record, self.identity
        return Hello(record.cluster, record.module, record.node, record.node_id, identity.boot, identity.incarnation)

    def touch(self) -> None:
        """Something that status shows has changed."""
        self.changed_at = trio.current_time()
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Wait for the next touch."""
        await self._changed.wait()

    def peer_refused(self, code: str, sentence: str) -> None:
        """Whoever is at the peer's address is not our peer, or does not take us for its."""
        if self.refused is None or self.refused.reason != sentence:
            log.warning("refused code=%s cause=%s", code, sentence)
        self.refused = Refused(code, sentence)
        self.touch()

    # ---- writing the record -----------------------------------------------------------------------------------------------------------

    async def commit(self, changed: Record | rules.Refusal, cause: str) -> Record:
        """Make `changed` the record, durably. A rule's refusal is raised as what it says."""
        if isinstance(changed, rules.Refusal):
            raise SaidNo(changed.reason, exit_codes.REFUSED)
        if changed == self.record:
            return changed
        before = self.record
        with trio.CancelScope(shield=True):
            try:
                self.record = await trio.to_thread.run_sync(self._record_file.write, changed)
            except OSError as failure:
                log.critical("the record cannot be written path=%s cause=%s wanted=%s", self._record_file.path, failure.strerror, cause)
                raise
        now = self.record
        log.info(
            "record number=%d data=%s role=%s generation=%016x term=%d peer_may_fit=%d shared=%d used=%d rewound=%d cause=%s",
            *(now.number, now.data.name, now.role.name, now.generation, now.term),
            *(now.peer_may_fit, now.shared, now.used, now.rewound, cause),
        )
        assert now.number > before.number, "a record number must go up with every write"
        self.touch()
        return now

    # ---- running ----------------------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Pump the engine's events until cancelled; frees the engine at the end."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._start_engine()
                task_status.started()
                await trio.sleep_forever()
        finally:  # nobody pumps or relays any more
            with trio.CancelScope(shield=True):
                await self.engine.free()

    async def _start_engine(self) -> None:
        self._engine_scope = await self.nursery.start(self._pump, self.engine)
        if not await self.engine.open_marks(self.settings.state_directory):
            log.info("everything is marked: there is no intent log yet, or it cannot be trusted")
        if self.layers.unguarded:
            await self.engine.mark_everything()  # what anybody may have changed behind our back is compared, never assumed equal
            self.layers.trust()
        for position in range(len(self.layers.paths) - self.pending_directories, len(self.layers.paths)):
            await self.engine.mark_directory(position)
        if self.unfinished is not None:
            self.unfinished.marked = True
        if self.record.data is not DataState.INCONSISTENT:
            await self._forget_what_was_before()
        await self.look_for_removals()

    async def look_for_removals(self) -> None:
        """What the brake has set aside, here and in earlier runs."""
        self.removals = await trio.to_thread.run_sync(find_removals, tuple(self.layers.paths), tuple(self.layers.trees))
        self.touch()

    async def purge_holding(self, *, confirmed: bool = False) -> None:
        """What a resync has put away is gone for good, or set aside where it is much and nobody has asked for it. What cannot be removed
        (somebody is in it) waits for the end of the next one."""
        try:
            if braked := await self.engine.purge_holding(confirmed=confirmed):
                log.warning("more was taken away than is left, in %d directories: it is set aside until somebody confirms", braked)
        except OSError as failure:
            log.warning("cannot remove what was put away: %s", failure.strerror)
        await self.look_for_removals()

    async def settle_directories(self) -> None:
        """The pair is whole: what was added to it belongs to it."""
        async with self.changing:
            if self.pending_directories:
                known = Directories(tuple(self.layers.paths))
                await trio.to_thread.run_sync(write_directories, self.settings.state_directory, known)
                self.pending_directories = 0
                self.touch()

    async def _forget_what_was_before(self) -> None:
        """The process ended after the copy had become whole, and before its snapshot of before was thrown away."""
        try:
            await self.engine.end_before()
        except OSError as failure:
            log.warning("cannot remove the snapshot of before: %s", failure)

    async def _pump(self, engine: Engine, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await engine.run(self._on_event)

    async def renew_engine(self) -> None:
        """After a fence nothing of the old engine can be used: a fresh one takes its place."""
        assert not self.layers.mounted
        with trio.CancelScope(shield=True):  # the session that needs it may end meanwhile
            self._engine_scope.cancel()
            old, self.engine = self.engine, self._make_engine(self.settings)
            await old.free()
            self.resumable = 0
            self.served = False
            await self._start_engine()

    def _on_event(self, event: EngineEvent) -> None:
        """An engine event: those of a session go to it, the others are ours."""
        log.info("engine event=%s result=%d text=%s", event.kind.name, event.result, event.text)
        if event.kind is EventKind.NEED_USED:
            self.nursery.start_soon(self._make_used)
        elif event.kind is EventKind.LOCAL_FAILED:
            self.nursery.start_soon(self.disk_failed, event.text or "a write to this copy's disk failed")
        elif event.kind is EventKind.TREE_CHANGED:
            log.warning("%s; all of it is compared again. Who writes to the plain directory?", event.text)
        elif event.kind in (EventKind.KERNEL_GONE, EventKind.RELAY_LOST, EventKind.VERIFIED, EventKind.BEFORE_LOST):
            pass  # the first is the end of what we ended; the second is seen by pyfuse3 itself; the others by who waits for a touch
        elif self.session is not None:
            self.session.on_event(event)
        self.touch()

    async def _make_used(self) -> None:
        async with self.changing:
            if self.mode is Mode.UNUSED:
                await self.commit(rules.use(self.record), "the first operation without the peer")
                await self.engine.set_used()
                self.touch()

    # ---- transitions; the caller holds `changing` -------------------------------------------------------------------------------------

    async def become_primary(self, peer_term: int, cause: str) -> None:
        """Raise the term, be primary on record, and frozen in the engine. Nothing is mounted yet."""
        self._assert_changing()
        await self.commit(rules.start_primary(self.record, peer_term, self.identity), cause)
        reached("primary-durable")
        await self.engine.become_primary(self.record.term, self.record.node_bit)
        reached("primary-frozen")
        try:
            await self.engine.purge_holding(arriving=True)  # what was on its way when the peer was lost: a file at most
        except OSError as failure:
            log.warning("cannot remove what was half-way: %s", failure.strerror)
        self.consent = False
        log.info("transition to=PRIMARY term=%d cause=%s", self.record.term, cause)

    async def mount(self) -> None:
        """The FUSE layers on, with pyfuse3 beside them."""
        if not self.layers.mounted:
            with trio.CancelScope(shield=True):
                await self.layers.mount(self.engine)
            self._relay_scope, self._relay_ended = trio.CancelScope(), trio.Event()
            self.nursery.start_soon(self._run_relay, self.engine, self._relay_scope)
            self.touch()

    async def _run_relay(self, engine: Engine, scope: trio.CancelScope) -> None:
        from rfs import relay  # late: a secondary never needs pyfuse3

        try:
            with scope:
                await relay.run(engine)
        finally:
            self._relay_ended.set()

    async def unmount(self, *, abort: bool) -> None:
        """The FUSE layers off; the guards show."""
        if self.layers.mounted:
            self._relay_scope.cancel()
            with trio.CancelScope(shield=True):
                await self._relay_ended.wait()
                await self.layers.unmount(self.engine, abort=abort)
            self.touch()

    async def win(self, cause: str) -> Won | None:
        """The witness's grant, where one is needed and there is a witness. The name is minted under the same lock, or never."""
        self._assert_changing()
        return await self.arbiter.win(cause) if self.arbiter is not None and self.record.peer_may_fit else None

    async def go_alone_or_step_down(self, cause: str) -> None:
        """A frozen primary goes on, by the witness's grant where there is one; fenced by the witness it steps down, and says so."""
        try:
            await self.go_alone(cause, granted=self.record.peer_may_fit)
        except NotGranted as no:
            if no.fenced:
                self.note = no.sentence
                await self.step_down(no.sentence)
            raise

    async def go_alone(self, cause: str, *, granted: bool, won: Won | None = None) -> None:
        """A frozen primary goes on without its peer, under the rules. With a witness `granted` is a wish: see `win`."""
        self._assert_changing()
        if self.engine.statistics().failed:  # its event waits for the lock that is held here: no copy that lied becomes the only one
            raise SaidNo("this copy's disk failed: it cannot go on alone")
        if granted and won is None:
            won = await self.win(cause)
        name = won.name if won is not None else secrets.randbits(64) or 1
        waiting = self.engine.statistics().waiting_ops > 0
        reached("alone-before-mint")
        await self.commit(rules.go_alone(self.record, name, granted=granted, op_waiting=waiting), cause)
        reached("alone-minted")
        if won is not None:
            self.note = ""  # why it was not granted before
        came = "an operation came while the generation was minted"
        if not self.record.used and self.engine.statistics().waiting_ops > 0:
            await self.commit(rules.use(self.record), came)
        try:
            await self.engine.grant(self.record.generation, used=self.record.used)
        except BlockingIOError:  # the engine looks once more, under its own lock
            await self.commit(rules.use(self.record), came)
            await self.engine.grant(self.record.generation, used=True)
        reached("alone-thawed")
        self.resumable = 0
        self.needs_grant = False
        self.served = True
        self.is_live.set()
        log.info("transition to=ALONE generation=%016x cause=%s", self.record.generation, cause)
        self.touch()
        self.nursery.start_soon(self._sync_soon)

    async def _sync_soon(self) -> None:
        """From now on this is the only copy: shorten the time in which a power cut costs what is not on the disk yet."""
        try:
            await self.engine.sync()
        except OSError as failure:
            log.warning("sync after going alone failed cause=%s", failure)

    async def step_down(self, cause: str) -> None:
        """The peer owns the data: fence this primary, and stay as secondary beneath the guard."""
        self._assert_changing()
        if not self.is_primary:
            return
        log.info("transition to=SECONDARY by=fence cause=%s", cause)
        with trio.CancelScope(shield=True):  # the session that makes us step down may end meanwhile; half a step is none
            await self.engine.fence()
            reached("fenced")
            await self.unmount(abort=True)
            await self.commit(rules.step_down(self.record), cause)
            reached("stepped-down")
            self.needs_grant = False
            await self.idle_engine()
        self.touch()

    async def idle_engine(self) -> None:
        """An engine that can be a target: one that has been primary cannot, unless its session was turned."""
        if self.mode is not Mode.IDLE:
            await self.unmount(abort=True)
            await self.renew_engine()

    def _assert_changing(self) -> None:
        assert self.changing.locked(), "a transition without the lock"

    # ---- losing the peer --------------------------------------------------------------------------------------------------------------

    async def session_ended(self, ended: SessionSlot) -> None:
        """The session is closed in the engine; a primary is frozen now. What next?"""
        stage = ended.stage
        self.session = None
        if stage is Stage.PAIRED and not ended.left_with_consent:
            self.consent = False  # a swap that was cut short is a doubt: it needs a grant like any other
        if self.resumable and self.is_primary:
            self._resume_no_more_in_vain()
        self.touch()
        if not self.is_primary and self.mode is Mode.FROZEN and not self.stopping:
            self.nursery.start_soon(self._forget_demoted)
        frozen = self.served and self.mode is Mode.FROZEN  # also after a handshake that came to nothing while the loss was being judged
        if not self.is_primary or self.stopping or not (frozen or stage in (Stage.RESYNCING_SOURCE, Stage.PAIRED)):
            return
        self.nursery.start_soon(self._after_loss, RESET_GRACE_S if ended.was_reset else SILENCE_GRACE_S)

    def _resume_no_more_in_vain(self) -> None:
        """A link that breaks again before anything is acknowledged would keep the application waiting for ever. The copies are compared
        then: in a resync nothing waits for the peer."""
        acked_seq = self.engine.statistics().acked_seq
        self._resumed_in_vain = self._resumed_in_vain + 1 if acked_seq == self._acked_at_loss else 0
        self._acked_at_loss = acked_seq
        if self._resumed_in_vain >= RESUMED_IN_VAIN_MAX:
            log.warning("the link breaks again and again before anything is acknowledged: the session is not resumed")
            self.resumable = self._resumed_in_vain = 0

    async def _forget_demoted(self) -> None:
        """A session that ended between a demotion and the turn leaves an engine that still thinks it was primary."""
        async with self.changing:
            if not self.is_primary and self.session is None:
                await self.idle_engine()
                self.touch()

    async def _after_loss(self, grace_s: float) -> None:
        """Before END, or when the peer left in order, no grant is needed. Else the policy decides, after a moment to resume."""
        if self.record.peer_may_fit:
            await trio.sleep(grace_s)
        async with self.changing:
            if not self.is_primary or self.session is not None or self.mode is not Mode.FROZEN or self.stopping:
                return
            try:
                if not self.record.peer_may_fit:
                    await self.go_alone(self.note or "the peer was lost while it had no complete copy", granted=False)
                elif self.settings.on_peer_loss is OnPeerLoss.ALONE and self.arbiter is None:
                    await self.go_alone("the peer was lost, and --on-peer-loss alone", granted=True)
                else:
                    self.needs_grant = True
                    log.info("frozen: waiting for a grant")
                    self.touch()
            except SaidNo as refusal:
                self.needs_grant = True
                self.note = refusal.sentence
                log.warning("frozen: %s", refusal.sentence)
                self.touch()

    async def disk_failed(self, what: str) -> None:
        """This copy's disk lied: say so durably, and let the peer's copy go on."""
        async with self.changing:
            if self.record.data is DataState.FAILED:
                return
            log.error("this copy failed cause=%s", what)
            self.note = f"this copy's disk failed ({what}); repair it, then resync from the peer"
            session = self.session
            was_primary = self.is_primary
            self.second_try.failed(errno.EIO, (), None)
            try:
                await self.commit(rules.fail(self.record), what)
            except OSError:  # the record's disk has failed as well: this process ends, and its peer may go on
                if session is not None and was_primary:
                    await session.leave(self.note, consent=True)
                raise
            reached("fail-durable")
            if session is not None:
                await session.leave(self.note, consent=was_primary)
                reached("fail-told")
                await self.end_session(session)  # it still uses the engine that goes now
            if was_primary:
                await self.step_down(what)
            await self.renew_engine()  # an engine that has seen its disk lie calls nothing a success any more
            self.touch()

    async def end_session(self, session: SessionSlot) -> None:
        """Hang up, and wait until nothing of the session runs any more. It is not in a transition: the caller holds the lock."""
        self._assert_changing()
        await session.hang_up()
        while self.session is session:
            await self.changed()

    def spaces(self) -> list[Space]:
        """Of every directory's file system."""
        return [_space(tree) for tree in self.layers.trees]


def _space(tree: int) -> Space:
    found = os.fstatvfs(tree)
    unit = found.f_frsize
    return Space(found.f_blocks * unit, found.f_bfree * unit, found.f_bavail * unit, found.f_files, found.f_ffree)
