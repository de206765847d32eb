"""One run of a data side: what it is, its record, its disk. process.py says what it does, primary.py how it serves.

Every task is a generator. It yields a word at each step that is durable or seen by others, where it may be stopped for ever by a
fault; or a test, and goes on when that is true.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from rfs import rules
from rfs.record import SLOT_BYTES, DataState, Record, Role, choose, decode, encode
from tests.datasim.disk import DiskError
from tests.datasim.modes import SERVING, Mode, SaidNo
from tests.datasim.node_log import NodeLog, Steps
from tests.datasim.ops import Op

if TYPE_CHECKING:
    from tests.datasim.session import Session
    from tests.datasim.world import Node, World


class Base:
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

    # ---- the disk -----------------------------------------------------------------------------------------------------------------------

    def sync(self, fid: int | None = None) -> Steps:
        """True: durable. A disk that lied makes this copy FAILED."""
        yield "sync"
        if self.is_failing:
            return False  # an error once seen never becomes a success
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
