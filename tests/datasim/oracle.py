"""What was promised to applications, and whether it still holds. It sees both nodes at once; the nodes never see it.

I-a  who serves holds every write whose fsync was acknowledged
I-b  ... and every acknowledged write, unless all that held it have failed since
I-c  with a witness: acknowledgements form one lineage
I-d  paired and quiet: equal. In any state: a place that nobody has durably marked is equal in both memories and on both disks
I-e  who serves is UPTODATE, and primary on record
I-f  no handshake makes a target of a node that holds lone acknowledged ops which the source lacks
I-g  once healed, the two pair again, or a named state asks for an administrator
I-h  a copy recorded as whole never takes a later op while it lacks an earlier acknowledged one
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rfs import decide as deciding
from rfs.decide import Outcome, Travels
from rfs.record import DataState, Role
from tests.datasim.modes import Mode
from tests.datasim.tree import Key, State

if TYPE_CHECKING:
    from tests.datasim.base import Base
    from tests.datasim.ops import Body, Op
    from tests.datasim.process import Process
    from tests.datasim.world import World

BOTH = 3


class Violation(AssertionError):
    """A promise was broken."""


class Oracle:
    """See the module's text."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.acked: dict[Key, int] = {}
        self.synced: dict[Key, int] = {}
        self.holders: dict[Key, int] = {}
        self.failed: dict[Key, int] = {}
        self.in_resync: set[Key] = set()  # mirrored to a copy that was not whole: a power cut here loses it, and so do two failures
        self.parents: dict[int, int] = {}
        self.last_generation = 0
        self.lone: list[dict[Key, int]] = [{}, {}]
        self.forced = False
        self.disk_was_rolled_back = self.copy_has_failed = False
        self._compared = (-1, -1)
        self._judged: object = None
        self._served: dict[int, object] = {}
        self._acks = 0

    # ---- what is promised ---------------------------------------------------------------------------------------------------------------

    @property
    def content_holds(self) -> bool:
        """With these, loss is the stated price; marks and silent destruction are judged all the same."""
        return self.world.policy != "availability" and not self.forced and not self.disk_was_rolled_back

    def descends(self, old: int, young: int) -> bool:
        while young and young != old:
            young = self.parents.get(young, 0)
        return young == old

    def acknowledged(self, process: Base, op: Op, *, mirrored: bool, both: bool) -> None:
        index, generation = process.node.index, process.record.generation
        self.require(not op.verdict, f"two verdicts for op {op.number}")
        op.verdict = "mirrored" if mirrored else "marked"
        self._acks += 1
        self.world.saw(f"acked {op.verdict}")
        if self.world.policy == "witness" and not self.forced and not self.disk_was_rolled_back:
            self.require(self.descends(self.last_generation, generation), "I-c acknowledgements in two lineages")
        self.last_generation = generation
        if op.body.kind == "fsync":
            self.world.saw("acked fsync")
            for cell, version in op.promised.items():
                self.synced[cell] = max(self.synced.get(cell, 0), version)
                self.acked[cell] = max(self.acked.get(cell, 0), version)
            return
        for cell in op.body.cells():
            self.acked[cell] = max(self.acked.get(cell, 0), op.body.version)
            self.holders[cell] = BOTH if both else 1 << index
            there = not mirrored or (process.session is not None and process.session.peer_runs_on())
            self.failed[cell] = 0 if there else 2 - index  # it applied this, and has failed since
            (self.in_resync.add if mirrored and not both else self.in_resync.discard)(cell)
            if not mirrored:
                self.lone[index][cell] = op.body.version

    def promised_by_fsync(self, index: int, fid: int) -> dict[Key, int]:
        return {cell: version for cell, version in self.acked.items() if cell[0] in ("d", "a") and cell[1] == fid}

    def only_holder(self, index: int) -> None:
        """The peer is lost in this lineage: from here on this node alone answers for what it holds."""
        self.holders = dict.fromkeys(self.acked, 1 << index)
        self.failed = dict.fromkeys(self.acked, 0)

    def node_failed(self, index: int, *, power: bool) -> None:
        """What was not synced is excused when all that held it have failed. Called when the power cut has happened."""
        disk = self.world.nodes[index].disk.tree.disk
        for cell, version in self.acked.items():
            failed = self.failed[cell] = self.failed.get(cell, 0) | 1 << index
            holders = self.holders.get(cell, BOTH)
            lost = power and holders == 1 << index and disk.get(cell)[1] < version
            if (failed == BOTH and (holders == BOTH or cell in self.in_resync)) or lost:
                self.acked[cell] = self.synced.get(cell, 0)

    def adopted(self, source: int, *, target_runs_on: bool) -> None:
        """`target_runs_on`: it has not failed between its adoption and the source's word of it."""
        self.holders = dict.fromkeys(self.acked, BOTH)
        self.failed = dict.fromkeys(self.acked, 0 if target_runs_on else 2 - source)

    def lone_acks_adopted(self, source: int) -> None:
        self.lone[source].clear()

    def paired(self) -> None:
        self.world.saw("paired")

    def handshake(self, source: int, target: int) -> None:
        now = self.world.nodes[source].disk.tree.now
        lone = {cell: version for cell, version in self.lone[target].items() if now.get(cell)[1] < version and self._matters(now, cell)}
        self.require(not lone, f"I-f {'ab'[target]} would lose what it acknowledged alone: {sorted(lone)[:3]}")

    def frame_applied(self, process: Process, body: Body) -> None:
        if process.record.data is not DataState.UPTODATE or not self.content_holds:
            return
        now = process.disk.tree.now
        for cell, version in self.acked.items():
            if now.get(cell)[1] < version < body.version and self._matters(now, cell):
                self.require(False, f"I-h {process.node.name} takes {body.version} and lacks {cell} {version}")

    def old_frame_applied(self) -> None:
        self.world.saw("broken: old frame applied")

    @staticmethod
    def _matters(state: State, cell: Key) -> bool:
        """Content of what was unlinked is gone with it."""
        return cell[0] == "e" or state.is_visible(int(cell[1]))

    # ---- after each step -----------------------------------------------------------------------------------------------------------------

    def require(self, holds: bool, text: str) -> None:
        if not holds:
            raise Violation(text)

    def check(self) -> None:
        for node in self.world.nodes:
            process = node.process
            if process is None or process.mode not in (Mode.ALONE, Mode.SOURCE, Mode.PAIRED):
                continue
            if process.session is not None and process.session.connection.is_cut and process.mode is not Mode.ALONE:
                continue  # it has not noticed: nothing is acknowledged
            self._who_serves(process)
        self._unmarked_is_equal()
        self._paired_and_quiet()

    def _who_serves(self, process: Process) -> None:
        record, now = process.record, process.disk.tree.now
        fit = record.data is DataState.UPTODATE and record.role is Role.PRIMARY
        self.require(fit, f"I-e {process.node.name} serves as {record.data.name} {record.role.name}")
        stamp = (id(process), process.disk.tree.edits, self._acks)
        if not self.content_holds or self._served.get(process.node.index) == stamp:
            return
        self._served[process.node.index] = stamp
        for cell, version in self.synced.items():
            if now.get(cell)[1] < version and self._matters(now, cell):
                self.require(False, f"I-a {process.node.name} serves without {cell} {version}, which was fsynced; it has {now.get(cell)}")
        for cell, version in self.acked.items():
            if now.get(cell)[1] < version and self._matters(now, cell):
                self.require(False, f"I-b {process.node.name} serves without {cell} {version}, which was acknowledged: {now.get(cell)}")

    def _unmarked_is_equal(self) -> None:
        a, b = self.world.nodes
        stamp = (a.stamp(), b.stamp())
        if stamp == self._judged:
            return
        self._judged = stamp
        suspects = a.disk.tree.changed | b.disk.tree.changed
        if not suspects:
            return
        trees = (a.disk.tree, b.disk.tree)
        states = [state for tree in trees for state in (tree.now, tree.disk)]
        marked = born = None
        for cell in suspects:
            values = {state.get(cell) if cell[0] != "i" else (bool(state.get(cell)[0]), 0) for state in states}
            values |= {value for tree in trees for value in tree.unsynced(cell)} if cell[0] != "i" else set()
            if len(values) == 1:
                for tree in trees:
                    tree.changed.discard(cell)
                continue
            if cell[0] == "i" or (cell[0] != "e" and not all(state.is_visible(int(cell[1])) for state in states)):
                continue  # the names behind which it is, or was, differ too
            if marked is None:
                marked = [node.durable_marks() for node in (a, b)]
                born = min(one.born for one in marked)
            assert born is not None
            directories = set()
            if cell[0] in ("d", "a") and int(cell[1]) >= born:
                directories = {int(name[1]) for state in states for name in state.names_of(int(cell[1]))}
            if not any(one.covers(cell, born, directories) for one in marked) and self._relies_on_marks():
                self.require(False, f"I-d {cell} differs and nobody has marked it: {[state.get(cell) for state in states]}")

    def _relies_on_marks(self) -> bool:
        """Would these two be compared by their marks alone, as their records stand on the disks?"""
        a, b = (node.durable_record() for node in self.world.nodes)
        decision = deciding.decide(a, b, mine_running=False, theirs_running=False, mine_empty=False, theirs_empty=False)
        return decision.outcome is Outcome.PAIR and decision.travels is Travels.UNION_OF_MARKS

    def _paired_and_quiet(self) -> None:
        processes = [node.process for node in self.world.nodes]
        for source, target in (processes, processes[::-1]):
            if source is None or target is None or source.mode is not Mode.PAIRED or target.mode is not Mode.TARGET:
                continue
            if source.session is None or target.session is None or source.session.connection is not target.session.connection:
                continue
            connection = source.session.connection
            if connection.is_cut or any(connection.queues) or any(op.applied for op in source.ops):
                continue
            if target.record.data is not DataState.UPTODATE or target.session.stage.name != "PAIRED" or not target.is_target_of:
                continue
            stamp = self.world.versions, self.world.faults
            if stamp == self._compared:
                continue
            self._compared = stamp
            mine, theirs = source.disk.tree.now.visible(), target.disk.tree.now.visible()
            if mine != theirs:
                differing = [key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key)]
                shown = [(key, mine.get(key), theirs.get(key)) for key in differing[:2]]
                self.require(False, f"I-d paired and quiet, and not equal: {shown}")
            self.world.saw("paired and quiet")
