"""One run of a data side: its record, its marks, its role. The order of the steps is that of rfs/replica.py and rfs/commands.py.

Every task is a generator. It yields a word at each step that is durable or seen by others, where it may be stopped for ever by a fault; or a
test, and goes on when that is true.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rfs import rules
from rfs.record import SLOT_BYTES, DataState, Record, Role, choose, decode, encode
from tests.datasim import arbiter
from tests.datasim.disk import DiskError
from tests.datasim.modes import SERVING, Mode, SaidNo
from tests.datasim.node_log import NodeLog, Steps
from tests.datasim.ops import Op
from tests.datasim.primary import Primary

if TYPE_CHECKING:
    from tests.datasim.session import Session
    from tests.datasim.world import Node, World


class Process(Primary):
    """See the module's text."""

    def __init__(self, world: World, node: Node) -> None:
        self.world, self.node, self.disk = world, node, node.disk
        slots = [bytes(self.disk.record.now[at : at + SLOT_BYTES]) for at in (0, SLOT_BYTES)]
        found = choose(*slots)
        assert found is not None, "S15: a power cut has cost the record"
        self._newest = 1 if decode(slots[1]) == found else 0
        node.incarnations += 1
        self.identity = rules.Identity(f"{node.name} boot {node.boots}", node.incarnations, "disk")
        self.record: Record = rules.start(found, self.identity)
        self.log = NodeLog(self.disk, world.random.getrandbits(60) | 1, world.breaks)
        self.mode = Mode.IDLE
        self.session: Session | None = None
        self.is_started = False
        self.served = self.paired_in_run = self.consent = self.needs_grant = False
        self.resumable = 0
        self.seq = self.applied_seq = 0
        self.fids, self._fids_of = 0, -1
        self.ops: list[Op] = []
        self.draining = self.stopping = False
        self.is_failing = False  # its disk lied, and the record does not say so yet
        self.is_target_of: int = 0  # the session whose frames are applied
        self.made_here: set[int] = set()
        self.whole: set[int] = set()
        self.directories_left: set[int] = set()
        self.listings_under_way = 0
        self.checkpoint_runs = False
        self._locked_by = ""

    # ---- small things -----------------------------------------------------------------------------------------------------------------

    @property
    def is_primary(self) -> bool:
        return self.record.role is Role.PRIMARY

    def has(self, broken: str) -> bool:
        return broken in self.world.breaks

    def lock(self, who: str) -> Steps:
        while self._locked_by:
            yield lambda: not self._locked_by
        self._locked_by = who

    def unlock(self) -> None:
        self._locked_by = ""

    @property
    def is_changing(self) -> bool:
        return bool(self._locked_by)

    @contextmanager
    def unlocking(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.unlock()

    def commit(self, changed: Record | rules.Refusal, cause: str) -> Steps:
        if isinstance(changed, rules.Refusal):
            raise SaidNo(changed.reason)
        if changed == self.record:
            return
        numbered = replace(changed, number=max(changed.number, self.record.number) + 1)
        index = 1 - self._newest
        self.disk.record.write(index * SLOT_BYTES, encode(numbered))
        yield f"record written: {cause}"
        self.disk.record.sync()
        self._newest, self.record = index, numbered
        yield f"record durable: {cause}"

    def next_fid(self) -> int:
        """The term in the high bits, so that fids only grow and none is given twice."""
        if self._fids_of != self.record.term:
            self.fids, self._fids_of = 0, self.record.term
        return self.record.term << 40 | self.node.index << 38 | self.fids

    # ---- life -------------------------------------------------------------------------------------------------------------------------

    def start(self) -> Steps:
        yield from self.lock("start")
        with self.unlocking():
            yield from self.log.open()
            if self.record.generation == 0:
                yield from self.log.everything()
            self.is_started = True
            if self.record.is_sole_owner:
                yield from self.become_primary(0, "sole owner")
                yield from self.go_alone(self.world.new_name(self.record), granted=False)
                self.world.saw("sole owner resumes")

    def become_primary(self, peer_term: int, cause: str) -> Steps:
        yield from self.commit(rules.start_primary(self.record, peer_term, self.identity), cause)
        yield from self.lower_born()
        self.mode, self.consent = Mode.FROZEN, False

    def lower_born(self) -> Steps:
        """What is made from now on needs no mark of its own, if the log says from which fid on."""
        if self.log.marks.born <= self.next_fid() or self.has("born is not lowered"):
            return
        if not (yield from self.log.compact(before=lambda: self.log.marks.set_born(self.next_fid()))):
            yield from self.log.everything()

    def go_alone(self, name: int, *, granted: bool) -> Steps:
        """Go on without the peer, under the rules. A disk that has lied ends it, also while the record does not say so yet."""
        self.be_well()
        waiting = bool(self.ops)
        if self.has("alone under the shared name"):
            changed: Record | rules.Refusal = replace(self.record, peer_may_fit=False, rewound=False, used=True, shared=False)
        else:
            changed = rules.go_alone(self.record, name, granted=granted, op_waiting=waiting)
        if isinstance(changed, Record) and self.record.peer_may_fit:
            self.world.oracle.only_holder(self.node.index)
        yield from self.commit(changed, "alone")
        if not self.record.used and self.ops:
            yield from self.commit(rules.use(self.record), "used at once")
        self.be_well()
        self.mode, self.resumable, self.needs_grant = Mode.ALONE, 0, False
        self.served = True
        for op in self.ops:
            op.lone = op.applied
        self.world.saw("alone, granted" if granted else "alone, no grant needed")
        self.world.spawn(self, self.sync_soon(), "sync soon")

    def sync_soon(self) -> Steps:
        yield "sync soon"
        yield from self.sync()

    def sync(self, fid: int | None = None) -> Steps:
        """True: durable. A disk that lied makes this copy FAILED."""
        yield "sync"
        try:
            self.disk.sync_data(fid)
        except DiskError:
            self.world.saw("fault fsync error")
            if self.has("an error becomes success"):
                return True
            yield from self.local_failed()
            return False
        yield "synced"
        return True

    def local_failed(self) -> Steps:
        """This copy's disk lied: nothing is acknowledged or applied any more from this instant, then the record says so."""
        if self.record.data is DataState.FAILED:
            return
        self.world.oracle.node_failed(self.node.index, power=True)
        self.is_failing = True
        self.stop_serving()
        yield "failed"
        session = self.session
        self.world.spawn(self, self._record_failure(session), "record failure")

    def be_well(self) -> None:
        if self.is_failing or self.record.data is DataState.FAILED:
            raise SaidNo("this copy's disk has failed")

    def stop_serving(self) -> None:
        if self.mode in SERVING:
            self.mode = Mode.FROZEN
        self.is_target_of = 0

    def _record_failure(self, session: Session | None) -> Steps:
        was_primary = self.is_primary
        yield from self.lock("failed")
        with self.unlocking():
            yield from self.commit(rules.fail(self.record), "failed")
            self.world.saw("failed")
            if session is not None and self.session is session:
                session.send("leaving", outdated=not was_primary, consent=was_primary)
                yield "failed: said goodbye"
                session.hang_up()
            yield from self.step_down("failed")
            self.is_failing = False

    def step_down(self, cause: str) -> Steps:
        """The peer owns the data: what waits fails, and this node is secondary on record."""
        if self.is_primary:
            self.mode = Mode.IDLE
            self.drop_ops()
            yield from self.commit(rules.step_down(self.record), f"step down: {cause}")
        self.become_idle()
        self.needs_grant = False

    def become_idle(self) -> None:
        if self.mode is not Mode.IDLE or self.ops:
            self.resumable, self.served = 0, False
        self.mode = Mode.IDLE
        self.drop_ops()

    def drop_ops(self) -> None:
        for op in self.ops:
            op.dropped = True
        self.ops.clear()

    # ---- losing the peer --------------------------------------------------------------------------------------------------------------

    def session_ended(self, was_paired: bool, left_with_consent: bool) -> None:
        self.session = None
        self.is_target_of = 0
        self.whole, self.directories_left, self.listings_under_way = set(), set(), 0
        if was_paired and not left_with_consent:
            self.consent = False
        if self.mode in (Mode.SOURCE, Mode.PAIRED):
            self.mode = Mode.FROZEN
        elif self.mode is Mode.TARGET:
            self.mode = Mode.IDLE
        if not self.is_primary and self.mode is Mode.FROZEN:
            self.become_idle()
        if self.is_primary and self.mode is Mode.FROZEN:
            self.world.spawn(self, self._after_loss(), "after loss")

    def _after_loss(self) -> Steps:
        yield from self.lock("after loss")
        with self.unlocking():
            if not self.is_primary or self.session is not None or self.mode is not Mode.FROZEN or self.record.data is not DataState.UPTODATE:
                return
            if self.record.peer_may_fit:
                self.needs_grant = True
                return
            yield from self.go_alone(self.world.new_name(self.record), granted=False)

    def stop(self) -> Steps:
        """In order: what waits fails, all is durable, and the log's last word is exact."""
        self.stopping = self.draining = True
        session = self.session
        if session is not None and session.stage.name == "PAIRED" and not self.is_primary:
            yield from session.leave("stops")
        if self.session is not None:
            self.session.hang_up()
        while self.session is not None:
            yield lambda: self.session is None
        yield from self.lock("stop")
        with self.unlocking():
            self.mode = Mode.IDLE
            self.drop_ops()
            if not (yield from self.sync()):
                self.stopping = self.draining = False
                return
            yield from self.log.compact(clean=True)
            yield from self.commit(rules.end(self.record), "end")
            self.world.stopped(self.node)

    # ---- grants -----------------------------------------------------------------------------------------------------------------------

    def may_ask(self) -> bool:
        """UPTODATE, without a peer; one that was rewound waits for an intact peer that is alive."""
        if self.session is not None or self.is_changing or not self.is_started or self.record.data is not DataState.UPTODATE:
            return False
        if self.mode not in (Mode.FROZEN, Mode.IDLE) or not self.record.peer_may_fit:
            return False
        return self.world.peer_is_silent(self) and not (
            self.record.rewound and self.world.peer_is_alive(self) and not self.has("a rewound node does not wait")
        )

    def ask(self) -> Steps:
        """A takeover, or going on: the name is durable before the request, and only a win that this process hears of counts."""
        yield from self.lock("grant")
        with self.unlocking():
            if self.session is not None or self.mode not in (Mode.FROZEN, Mode.IDLE) or self.record.data is not DataState.UPTODATE:
                return
            if not self.record.peer_may_fit:
                return
            name = self.world.new_name(self.record)
            if self.has("going on needs no witness"):
                won: bool | None = True
            elif self.world.policy == "witness":
                won = yield from self._ask_witness(name)
            else:
                won = self.paired_in_run or self.served or self.has("a restarted node goes on")
            if not won:
                return
            yield "grant won"
            if not self.is_primary or self.mode is not Mode.FROZEN:
                yield from self.become_primary(0, "takeover")
                self.world.saw("takeover")
            yield from self.go_alone(name, granted=True)

    def _ask_witness(self, name: int) -> Iterator[Any]:
        witness, index = self.world.witness, self.node.index
        if not witness.reachable[index] or witness.register is None:
            return False
        expected = witness.register
        if not arbiter.may_start_from(self.record, expected):
            self.world.saw("fenced by the witness")
            yield from self.step_down("fenced by the witness")
            return False
        if not self.has("names are not noted as tried"):
            yield from self.commit(arbiter.with_tried(self.record, name), "tried")
        new = arbiter.Register(name, self.record.term, self.node.index)
        fate = self.world.fate_of_request()
        yield "request leaves"
        if fate == "late":
            witness.late.append((expected, new))
            return False
        won = witness.reachable[index] and witness.compare_and_swap(expected, new)
        yield "register swapped" if won else "register not swapped"
        return won and fate != "answer lost"

    def force(self) -> Steps:
        """The administrator's word."""
        yield from self.lock("force")
        with self.unlocking():
            if self.session is not None:
                return
            changed = rules.force(self.record, self.world.new_name(self.record))
            if isinstance(changed, rules.Refusal):
                return
            self.world.oracle.forced = True
            self.world.saw("forced")
            if self.world.witness.register is not None and self.world.witness.reachable[self.node.index]:
                self.world.witness.register = arbiter.Register(changed.generation, changed.term, self.node.index)
            yield from self.commit(changed, "forced")
            if not self.is_primary or self.mode is not Mode.FROZEN:
                yield from self.become_primary(0, "forced")
            yield from self.go_alone(self.world.new_name(self.record), granted=True)
