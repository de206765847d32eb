"""Two nodes, the link between them, a witness, and whatever may go wrong, in one deterministic walk.

Each step does one thing that may happen now: a task goes on by one step, a message arrives, one side notices that the link is gone, an
application calls, a fault strikes. All choices come from one seed. After each step the oracle looks.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from rfs import rules
from rfs.decide import Decision, Outcome
from rfs.record import SLOT_BYTES, Record, choose, encode
from rfs.witness import is_intact
from tests.datasim import arbiter, ops
from tests.datasim.base import Base
from tests.datasim.disk import Disk
from tests.datasim.modes import SERVING, Mode, SaidNo
from tests.datasim.native import Log, Marks
from tests.datasim.network import Connection, Message
from tests.datasim.node_log import read
from tests.datasim.oracle import Oracle, Violation
from tests.datasim.places import Covered
from tests.datasim.process import Process
from tests.datasim.session import Session
from tests.datasim.tree import DIRECTORIES, Key

POLICIES = ("witness", "accurate", "availability")
MOST_OPS = 4


@dataclass
class Task:
    process: Base
    steps: Generator[Any, None, Any]
    name: str
    waits: Callable[[], bool] | None = None
    at: str = ""


@dataclass
class Node:
    index: int
    name: str
    disk: Disk = field(default_factory=Disk)
    boots: int = 1
    incarnations: int = 0
    process: Process | None = None
    paused: bool = False
    snapshot: Disk | None = None
    _record: tuple[object, Record] | None = None
    _marks: tuple[object, Covered] | None = None

    def stamp(self) -> tuple[object, ...]:
        """Changes whenever something durable does, or the tree."""
        files = (self.disk.record, *self.disk.logs)
        return (self.disk.tree.edits, *(file.edits for file in files))

    def durable_record(self) -> Record:
        stamp = self.disk.record.edits
        if self._record is None or self._record[0] != stamp:
            image = bytes(self.disk.record.durable)
            found = choose(image[:SLOT_BYTES], image[SLOT_BYTES:])
            assert found is not None
            self._record = stamp, found
        return self._record[1]

    def durable_marks(self) -> Covered:
        stamp = tuple(log.edits for log in self.disk.logs)
        if self._marks is None or self._marks[0] != stamp:
            self._marks = stamp, read(*(bytes(log.durable) for log in self.disk.logs))
        return self._marks[1]


class World:
    """See the module's text."""

    def __init__(self, seed: int, *, policy: str = "witness", breaks: frozenset[str] = frozenset(), fresh: bool = False) -> None:
        self.random = random.Random(seed)
        self.policy, self.breaks = policy, breaks
        self.seen: Counter[str] = Counter()
        self.trace: list[str] = []
        self.nodes = [Node(0, "a"), Node(1, "b")]
        self.tasks: list[Task] = []
        self.oracle = Oracle(self)
        self.link_up = True
        self.names, self.sessions, self.versions, self.calls, self.faults = 1, 0, 0, 0, 0
        self.old_frames: list[Message] = []
        self.witness = arbiter.Witness(arbiter.Register(1, 1, 0))
        self.now: Task | None = None
        self.holds: set[str] = set()  # steps at which a scripted test stops tasks: "a: step"
        self.fate = "answered"
        self._first_disks(fresh)

    def _first_disks(self, fresh: bool) -> None:
        """A pair in sync, both stopped in order: three files in three directories. `fresh`: the second node is new, and empty."""
        identity = rules.Identity("before", 0, "disk")
        one = rules.first_primary(cluster="c", module="m", node="a", node_id=1, generation=1, identity=identity)
        two = rules.first_secondary(cluster="c", module="m", node="b", node_id=2, identity=identity)
        if not fresh:
            one = rules.source_before_end(rules.enter_session(one, identity, two, source=True))
            two = rules.target_adopts(rules.target_begins(rules.enter_session(two, identity, one, source=False), None), one, 1)
            one = rules.source_after_end(one, 1)
        for node, record in zip(self.nodes, (rules.end(one), rules.end(two)), strict=True):
            node.disk.record.write(0, encode(record).ljust(2 * SLOT_BYTES, b"\0"))
            node.disk.record.sync()
            if fresh and node is self.nodes[1]:
                continue
            file, offset, data = Log(7).compact(Marks(), clean=True)
            node.disk.logs[file].write(offset, data)
            node.disk.logs[file].sync()
            for number, directory in enumerate(DIRECTORIES):
                body = ops.Body("create", fid=10 + number, directory=directory, name=1, version=1)
                ops.apply(node.disk.tree, body, hold=False)
            node.disk.tree.sync()

    # ---- what nodes ask of the world -----------------------------------------------------------------------------------------------------

    def broken(self, what: str) -> bool:
        return what in self.breaks

    def saw(self, what: str) -> None:
        self.seen[what] += 1

    def note(self, text: str) -> None:
        self.trace.append(text)

    def require(self, holds: bool, text: str) -> None:
        self.oracle.require(holds, text)

    def spawn(self, process: Base, steps: Generator[Any, None, Any], name: str) -> None:
        self.tasks.append(Task(process, steps, name))

    def new_name(self, record: Record) -> int:
        self.names += 1
        self.oracle.parents[self.names] = record.generation
        return self.names

    def next_version(self) -> int:
        self.versions += 1
        return self.versions + 1

    def peer_is_alive(self, process: Process) -> bool:
        """Its lease: perfect knowledge stands for it. An INCONSISTENT or rewound peer is no better."""
        peer = self.nodes[1 - process.node.index].process
        return peer is not None and is_intact(peer.record)

    def peer_is_silent(self, process: Process) -> bool:
        peer = self.nodes[1 - process.node.index]
        if self.policy == "accurate":
            return peer.process is None
        return peer.process is None or not self.link_up or peer.paused

    def fate_of_request(self) -> str:
        return self.fate

    def no_pair(self, decision: Decision) -> None:
        self.saw(f"no pair: {decision.outcome.name}")
        strange = self.oracle.forced or self.oracle.disk_was_rolled_back or self.oracle.copy_has_failed
        if decision.outcome is Outcome.DIVERGED and not strange:
            used = [node.durable_record().used for node in self.nodes]
            self.require(all(used), f"I-g DIVERGED, and one of them has acknowledged nothing: {decision}")
        excused = self.policy == "availability" or self.oracle.forced or self.oracle.disk_was_rolled_back
        if decision.outcome is Outcome.NO_SOURCE and self.oracle.copy_has_failed:
            return
        self.require(excused, f"I-g no pair although nobody went on without the other: {decision}")

    # ---- steps ------------------------------------------------------------------------------------------------------------------------

    def is_runnable(self, task: Task) -> bool:
        if task.process.node.paused or f"{task.process.node.name}: {task.at}" in self.holds:
            return False
        return task.waits is None or task.waits()

    def run(self, task: Task) -> None:
        self.now = task
        try:
            said = next(task.steps)
        except (StopIteration, SaidNo):
            if task in self.tasks:
                self.tasks.remove(task)
            return
        finally:
            self.now = None
        if callable(said):
            task.waits = said
        else:
            task.waits, task.at = None, said
            self.seen[f"step {said.partition(':')[0] if said.startswith('step down') else said}"] += 1
            self.trace.append(f"{task.process.node.name}: {said}")

    def sessions_of(self) -> list[Session]:
        return [node.process.session for node in self.nodes if node.process is not None and node.process.session is not None]

    def deliverable(self, session: Session) -> bool:
        queue = session.connection.queues[session.me]
        return bool(queue) and not session.process.node.paused and session.may_deliver(queue[0])

    def deliver(self, session: Session) -> None:
        message = session.connection.queues[session.me].pop(0)
        body = message.body
        self.trace.append(f"{session.process.node.name}: receives {message.kind} {body.get('seq', '')} {body.get('place', '')}")
        session.deliver(message)

    def may_connect(self) -> bool:
        return self.link_up and all(self._is_free(node) for node in self.nodes)

    @staticmethod
    def _is_free(node: Node) -> bool:
        process = node.process
        return process is not None and process.session is None and process.is_started and not process.stopping and not node.paused

    def connect(self) -> None:
        self.sessions += 1
        connection = Connection(self.sessions)
        for node in self.nodes:
            assert node.process is not None
            node.process.session = Session(node.process, connection, 100 + self.sessions)
            self.spawn(node.process, node.process.session.run(), "session")
        self.trace.append("connected")

    def submit(self, process: Process, body: ops.Body) -> ops.Op:
        self.calls += 1
        op = ops.Op(body, self.calls)
        self.spawn(process, process.run_op(op), f"op {self.calls}")
        self.trace.append(f"{process.node.name}: {body.kind} called")
        return op

    # ---- faults -----------------------------------------------------------------------------------------------------------------------

    def start(self, node: Node) -> None:
        node.process = Process(self, node)
        self.trace.append(f"{node.name}: starts, rewound={node.process.record.rewound}")
        self.spawn(node.process, node.process.start(), "start")

    def _gone(self, node: Node) -> None:
        process, node.process, node.paused = node.process, None, False
        self.faults += 1
        if process is None:
            return
        self.tasks = [task for task in self.tasks if task.process is not process]
        process.ops.clear()
        if process.session is not None:
            self.cut(process.session.connection)

    def cut(self, connection: Connection) -> None:
        connection.cut(self.random)
        self.old_frames = [message for message in connection.lost if message.kind == "frame"] or self.old_frames

    def kill(self, node: Node) -> None:
        """Between an fsync that failed and the record that says so a kill is one fault too many: the node has to boot again."""
        if node.process is not None and node.process.is_failing:
            return self.power_cut(node)
        self.trace.append(f"{node.name}: KILLED")
        self._gone(node)
        self.oracle.node_failed(node.index, power=False)
        return None

    def power_cut(self, node: Node) -> None:
        self._gone(node)
        node.disk.power_cut(self.random)
        node.boots += 1
        self.trace.append(f"{node.name}: POWER CUT")
        self.oracle.node_failed(node.index, power=True)

    def stopped(self, node: Node) -> None:
        """In order."""
        self._gone(node)
        self.oracle.node_failed(node.index, power=False)
        self.saw("stopped in order")

    def break_link(self) -> None:
        self.trace.append("link BREAKS")
        self.link_up = False
        self.faults += 1
        for session in self.sessions_of():
            self.cut(session.connection)

    def roll_back(self, node: Node) -> None:
        """A restored snapshot: a whole disk of before."""
        assert node.process is None and node.snapshot is not None
        self.trace.append(f"{node.name}: ROLLED BACK")
        self.oracle.disk_was_rolled_back = True
        self.oracle.lone[node.index].clear()
        node.disk, node.snapshot = node.snapshot, None
        node.boots += 1
        self.faults += 1
        for other in self.nodes:
            other.disk.tree.changed |= {key[:4] for one in self.nodes for key in one.disk.tree.now.cells}

    def lag(self) -> None:
        """A frame of an old session turns up in the new one."""
        for session in self.sessions_of():
            if self.old_frames and not session.connection.is_cut:
                session.connection.queues[session.me].insert(0, self.old_frames[-1])
                self.saw("fault late frame")
                return

    def cell_keys(self) -> set[Key]:
        return {key[:4] for node in self.nodes for key in node.disk.tree.now.cells}

    def is_paired(self) -> bool:
        return any(node.process is not None and node.process.mode is Mode.PAIRED for node in self.nodes)

    def is_quiet(self) -> bool:
        sessions = self.sessions_of()
        if not self.is_paired() or len(sessions) != 2 or any(one.stage.name != "PAIRED" or any(one.connection.queues) for one in sessions):
            return False
        busy = any(node.process.ops for node in self.nodes if node.process is not None)
        return not busy and not any(self.is_runnable(task) for task in self.tasks)

    def serving(self) -> list[Process]:
        return [node.process for node in self.nodes if node.process is not None and node.process.mode in SERVING]


__all__ = ["Node", "Task", "Violation", "World"]
