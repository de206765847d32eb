"""Two nodes, their disks and the link between them, driven by nothing but rules.py and decide.py.

A random walk: at every step one thing happens that may happen — an operation goes on by one step, a session does, a node is killed or
loses power, the link breaks or heals, somebody is granted to go on, the roles are swapped. Every commit of a record may be the last thing
a node does. After each step the invariants are checked against what applications were told:

I-a  who serves holds every write whose fsync was acknowledged
I-b  ... and every acknowledged write, unless all that held it have lost power since
I-d  paired and quiet: equal
I-e  who serves is UPTODATE
I-f  no handshake makes a target of a node that holds lone acknowledged writes which the other one lacks
I-g  once everything is healed the two pair again

Two places stand for all data; a place is one version number, and versions only grow. Everything is marked after an absence.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from rfs import decide as deciding
from rfs import rules
from rfs.decide import Decision, Outcome, Source
from rfs.record import DataState, Record, Role
from rfs.rules import Identity, Refusal

PLACES = (0, 1)


class Violation(AssertionError):
    """A promise was broken."""


class NodeLost(Exception):
    """The node died in the middle of what it was doing."""


class Phase(Enum):
    DOWN = auto()
    WAIT = auto()  # secondary, or a primary of before that waits for its peer
    FROZEN = auto()
    ALONE = auto()
    SOURCE = auto()  # of a resync
    PAIRED = auto()  # as primary
    TARGET = auto()  # of a resync, or paired as secondary


SERVING = (Phase.ALONE, Phase.SOURCE, Phase.PAIRED)


@dataclass
class Op:
    """One write under way: applied here, perhaps there, then acknowledged."""

    place: int
    version: int
    there: bool = False


@dataclass
class Node:
    name: str
    node_id: int
    on_disk: Record
    record: Record
    phase: Phase = Phase.DOWN
    memory: list[int] = field(default_factory=lambda: [0, 0])
    disk: list[int] = field(default_factory=lambda: [0, 0])
    boot: int = 1
    incarnation: int = 0
    op: Op | None = None
    resumable: int = 0
    in_run: bool = False  # paired, or serving, since its start
    lone: set[int] = field(default_factory=set)  # versions acknowledged here alone that no other copy has

    @property
    def identity(self) -> Identity:
        return Identity(f"{self.name} boot {self.boot}", self.incarnation, "disk")


class Pair:
    """The whole world of the model."""

    def __init__(self, seed: int, *, accurate: bool) -> None:
        self.random = random.Random(seed)
        self.accurate = accurate  # a grant is given only when the peer is really down
        self.names = iter(range(1, 1 << 60))
        self.seen: Counter[str] = Counter()
        self.trace: list[str] = []
        self.link = True
        self.session: Iterator[None] | None = None
        self.number = 0
        self.marked: set[int] = set()
        self.version = 0
        self.acked, self.synced = [0, 0], [0, 0]
        self.holders: list[set[int]] = [{0}, {0}]
        self.failed: list[set[int]] = [set(), set()]  # holders that died since, by place
        self.careful = False  # healing: nothing dies any more
        identity = Identity("a boot 1", 0, "disk")
        one = rules.first_primary(cluster="c", module="m", node="a", node_id=1, generation=next(self.names), identity=identity)
        two = rules.first_secondary(cluster="c", module="m", node="b", node_id=2, identity=identity)
        self.nodes = [Node("a", 1, one, one), Node("b", 2, two, two)]

    # ---- small things -----------------------------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        self.seen[text.partition(":")[0]] += 1
        self.trace.append(text)

    def other(self, node: Node) -> Node:
        return self.nodes[1 - self.nodes.index(node)]

    def commit(self, node: Node, changed: Record | Refusal) -> None:
        """Durable, and perhaps the last thing this node did: what the oracle must know is told to it before."""
        assert isinstance(changed, Record), changed
        if changed != node.record or changed != node.on_disk:
            node.on_disk = node.record = replace(changed, number=node.on_disk.number + 1)
        if not self.careful and self.random.random() < 0.01:
            self.fail(node)
            raise NodeLost

    def fail(self, node: Node) -> None:
        (self.kill if self.random.random() < 0.4 else self.power_cut)(node)

    def sync(self, node: Node) -> None:
        node.disk = list(node.memory)

    # ---- faults -----------------------------------------------------------------------------------------------------------------------

    def kill(self, node: Node) -> None:
        self.note(f"kill: {node.name}")
        self._gone(node)

    def power_cut(self, node: Node) -> None:
        """Of what was only in memory some was written back, some was not."""
        node.disk = [self.random.choice(both) for both in zip(node.memory, node.disk, strict=True)]
        node.memory = list(node.disk)
        node.boot += 1
        self.note(f"power: {node.name} disk={node.disk}")
        index = self.nodes.index(node)
        for place in PLACES:
            self.holders[place].discard(index)
            if not self.holders[place]:
                self.acked[place] = self.synced[place]
        self._gone(node)

    def _gone(self, node: Node) -> None:
        node.phase, node.op, node.resumable, node.in_run = Phase.DOWN, None, 0, False
        node.record = node.on_disk
        self.end_session()

    def break_link(self) -> None:
        self.note("link breaks")
        self.link = False
        self.end_session()

    def end_session(self) -> None:
        """Both notice: a primary freezes, a secondary waits."""
        self.session = None
        for node in self.nodes:
            if node.phase in (Phase.SOURCE, Phase.PAIRED):
                node.phase = Phase.FROZEN
            elif node.phase is Phase.TARGET:
                node.phase = Phase.WAIT

    # ---- starting, going on ------------------------------------------------------------------------------------------------------------

    def start(self, node: Node) -> None:
        node.incarnation += 1
        node.record = rules.start(node.on_disk, node.identity)
        node.phase = Phase.WAIT
        self.note(f"start: {node.name} rewound={node.record.rewound}")
        if node.record.is_sole_owner:
            self.commit(node, rules.start_primary(node.record, 0, node.identity))
            node.phase = Phase.FROZEN
            self.go_alone(node, granted=False)

    def go_alone(self, node: Node, *, granted: bool) -> None:
        minted = node.record.peer_may_fit
        changed = rules.go_alone(node.record, next(self.names), granted=granted, op_waiting=node.op is not None)
        if isinstance(changed, Refusal):
            return
        if minted:  # from here on it is the only holder
            self.holders = [{self.nodes.index(node)} for _ in PLACES]
        self.commit(node, changed)
        node.phase, node.resumable, node.in_run = Phase.ALONE, 0, True
        self.note(f"alone: {node.name} granted={granted}")

    def may_grant(self, node: Node) -> bool:
        """No witness: never a node that was restarted, unless it is the sole owner."""
        if self.session is not None or node.record.data is not DataState.UPTODATE or not (node.in_run or not node.record.peer_may_fit):
            return False
        if node.phase is Phase.WAIT and node.record.role is Role.PRIMARY:
            return False
        other = self.other(node)
        return node.phase in (Phase.FROZEN, Phase.WAIT) and (other.phase is Phase.DOWN if self.accurate else not self.link)

    def grant(self, node: Node) -> None:
        if node.phase is Phase.WAIT:
            self.note(f"takeover: {node.name}")
            self.commit(node, rules.start_primary(node.record, 0, node.identity))
            node.phase = Phase.FROZEN
        self.go_alone(node, granted=node.record.peer_may_fit)

    def outdate(self, node: Node) -> None:
        """The link is lost, the orchestrators still talk: the secondary steps back, then the primary goes on."""
        other = self.other(node)
        self.sync(other)
        other.resumable = 0
        self.commit(other, rules.secondary_leaves(other.record))
        self._hear_leave(node, other)
        self.note("outdated")

    def _hear_leave(self, node: Node, other: Node) -> None:
        heard = rules.primary_hears_leave(node.record)
        if isinstance(heard, Refusal):
            return
        for holders in self.holders:
            holders.discard(self.nodes.index(other))
        self.commit(node, heard)
        if node.phase in (Phase.PAIRED, Phase.FROZEN):
            node.phase = Phase.FROZEN
            self.go_alone(node, granted=False)

    # ---- operations ---------------------------------------------------------------------------------------------------------------------

    def step_op(self, node: Node) -> None:
        """Begin a write, ship it, or acknowledge it."""
        if node.op is None:
            self.version += 1
            node.op = Op(self.random.choice(PLACES), self.version)
            node.memory[node.op.place] = self.version
            return
        op, other = node.op, self.other(node)
        mirrored = node.phase is Phase.PAIRED or (node.phase is Phase.SOURCE and op.place not in self.marked)
        if mirrored and not op.there:
            other.memory[op.place], op.there = op.version, True
        elif mirrored:
            self._acknowledge(node, op, [node, other] if node.phase is Phase.PAIRED else [node])
        else:
            self._acknowledge_alone(node, op)

    def _acknowledge_alone(self, node: Node, op: Op) -> None:
        if not node.record.used:
            if self.session is not None:
                return  # what the peer was told in a handshake stays so until it is over: the op waits
            self.commit(node, rules.use(node.record))
        if not rules.may_acknowledge_alone(node.record, granted=False, mark_durable=True):
            raise Violation(f"{node.name} serves and may not acknowledge: {node.record}")
        node.lone.add(op.version)
        self._acknowledge(node, op, [node])

    def _acknowledge(self, node: Node, op: Op, holders: list[Node]) -> None:
        self.acked[op.place] = op.version
        self.holders[op.place] = {self.nodes.index(holder) for holder in holders}
        node.op = None
        self.seen["acked"] += 1

    def fsync(self, node: Node) -> None:
        self.sync(node)
        if node.phase is not Phase.ALONE:
            self.sync(self.other(node))
        if node.op is None:
            self.synced = list(self.acked)

    # ---- sessions -----------------------------------------------------------------------------------------------------------------------

    def begin_session(self) -> None:
        a, b = self.nodes
        running = [node.in_run and node.record.role is Role.PRIMARY for node in self.nodes]
        verdict = deciding.decide(
            a.record, b.record, mine_running=running[0], theirs_running=running[1], mine_empty=False, theirs_empty=False
        )
        self.note(f"decided: {verdict.outcome.name} {verdict.source} {verdict.reason}")
        if verdict.outcome is not Outcome.PAIR:
            if self.accurate:
                raise Violation(f"I-g no pair, and nobody went on without the other: {verdict}")
            return
        source, target = (a, b) if verdict.source is Source.MINE else (b, a)
        if target.lone:
            raise Violation(f"I-f {target.name} would lose {target.lone}: {verdict}")
        self.session = self._session(source, target, verdict)

    def _session(self, source: Node, target: Node, verdict: Decision) -> Iterator[None]:
        resumes = source.phase is Phase.FROZEN and rules.may_resume_link(
            source.record, target.record, source_session=source.resumable, target_session=target.resumable
        )
        peer = target.record
        self.commit(source, rules.enter_session(source.record, source.identity, peer, source=True))
        if source.phase is Phase.WAIT:
            self.commit(source, rules.start_primary(source.record, peer.term, source.identity))
            source.phase = Phase.FROZEN
        yield
        if target.record.role is Role.PRIMARY:
            self.commit(target, rules.step_down(target.record))
        target.op, target.phase = None, Phase.TARGET
        self.commit(target, rules.enter_session(target.record, target.identity, source.record, source=False))
        self.commit(target, rules.learn_term(target.record, source.record.term, source.record.owner))
        yield
        if resumes:
            if source.op is not None:
                target.memory[source.op.place], source.op.there = source.op.version, True
            self.note("resumed")
            source.phase = Phase.PAIRED
            return
        yield from self._resync(source, target, verdict)

    def _resync(self, source: Node, target: Node, verdict: Decision) -> Iterator[None]:
        self.sync(source)
        yield
        target.resumable = 0
        for holders in self.holders:
            holders.discard(self.nodes.index(target))
        self.commit(target, rules.target_begins(target.record, verdict.fork_point))
        yield
        source.resumable = 0
        self.marked = set(PLACES)
        self.commit(source, rules.source_begins(source.record, next(self.names)))
        source.phase, source.in_run = Phase.SOURCE, True
        yield
        for place in self.random.sample(PLACES, len(PLACES)):
            while source.op is not None and source.op.place == place:
                yield
            target.memory[place] = source.memory[place]
            self.marked.discard(place)
            yield
        self.commit(source, rules.source_before_end(source.record))
        ending = source.record
        yield
        while source.op is not None and not source.op.there:  # frames before END in the one order
            yield
        self.sync(target)
        yield
        self.sync(target)
        self.number += 1
        source.lone.clear()
        for holders in self.holders:
            holders.add(self.nodes.index(target))
        self.failed = [set(), set()]
        self.commit(target, rules.target_adopts(target.record, ending, self.number))
        target.resumable, target.in_run = self.number, True
        yield
        self.commit(source, rules.source_after_end(source.record, self.number))
        source.resumable, source.phase = self.number, Phase.PAIRED
        self.note("adopted")

    def step_session(self) -> None:
        assert self.session is not None
        try:
            next(self.session)
        except StopIteration:
            self.session = None

    # ---- the administrator --------------------------------------------------------------------------------------------------------------

    def swap(self, source: Node) -> None:
        target = self.other(source)
        self.sync(source)
        self.sync(target)
        self.commit(source, rules.demote(source.record))
        source.phase = Phase.TARGET
        if self.random.random() < 0.3 and not self.careful:
            return self.break_link()
        self.commit(target, rules.promote(target.record, source.record.term))
        self.commit(source, rules.learn_term(source.record, target.record.term, target.record.owner))
        target.phase = Phase.PAIRED
        self.note("swapped")
        return None

    def leave(self, source: Node) -> None:
        target = self.other(source)
        self.sync(target)
        self.commit(target, rules.secondary_leaves(target.record))
        self.end_session()
        target.resumable = 0
        if self.random.random() < 0.7:
            self._hear_leave(source, target)
        self.note("left")
        if self.random.random() < 0.5:
            self.sync(target)
            self.commit(target, rules.end(target.record))
            self._gone(target)

    # ---- the walk -----------------------------------------------------------------------------------------------------------------------

    def possible(self) -> list[tuple[int, Callable[[], None]]]:
        """What may happen now, with weights."""
        found: list[tuple[int, Callable[[], None]]] = []
        for node in self.nodes:
            found += self._possible_for(node, self.other(node))
        if self.session is not None:
            found.append((60, self.step_session))
        elif self.link and self._are_free():
            found.append((30, self.begin_session))
        found.append((3, self.break_link) if self.link else (15, self._heal_link))
        return found

    def _are_free(self) -> bool:
        return all(node.phase in (Phase.WAIT, Phase.FROZEN, Phase.ALONE) for node in self.nodes)

    def _possible_for(self, node: Node, other: Node) -> Iterator[tuple[int, Callable[[], None]]]:
        if node.phase is Phase.DOWN:
            yield 8, lambda: self.start(node)
            return
        yield 1, lambda: self.kill(node)
        yield 2, lambda: self.power_cut(node)
        if node.phase in SERVING:
            yield 30, lambda: self.step_op(node)
            if node.op is None:
                yield 4, lambda: self.fsync(node)
        if self.may_grant(node):
            yield 6, lambda: self.grant(node)
        if node.phase is Phase.PAIRED and node.op is None:
            yield 2, lambda: self.swap(node)
            yield 1, lambda: self.leave(node)
        waits = self.session is None and node.phase is Phase.FROZEN and other.phase is Phase.WAIT
        if waits and node.in_run and other.record.role is Role.SECONDARY and other.record.data is DataState.UPTODATE:
            yield 4, lambda: self.outdate(node)

    def _heal_link(self) -> None:
        self.link = True
        self.note("link heals")

    def step(self) -> None:
        weights, actions = zip(*self.possible(), strict=True)
        try:
            self.random.choices(actions, weights)[0]()
        except NodeLost:
            pass
        self.check()

    def heal(self) -> None:
        """Everything comes back and nothing fails: the two must be a pair again."""
        self.careful = True
        for node in self.nodes:
            if node.phase is Phase.DOWN:
                self.start(node)
        self.link = True
        for _ in range(200):
            if any(node.phase is Phase.PAIRED for node in self.nodes):
                return
            for node in self.nodes:
                if node.phase in SERVING:
                    self.step_op(node)
            if self.session is not None:
                self.step_session()
            elif self._are_free():
                self.begin_session()
            else:
                self.end_session()
            self.check()
        raise Violation("I-g healed, and no pair")

    def check(self) -> None:
        serving = [node for node in self.nodes if node.phase in SERVING]
        for node in serving:
            if node.record.data is not DataState.UPTODATE or node.record.role is not Role.PRIMARY:
                raise Violation(f"I-e {node.name} serves as {node.record.data.name} {node.record.role.name}")
            if self.accurate and any(node.memory[place] < self.synced[place] for place in PLACES):
                raise Violation(f"I-a {node.name} serves {node.memory} without {self.synced}, which was fsynced")
            if self.accurate and any(node.memory[place] < self.acked[place] for place in PLACES):
                raise Violation(f"I-b {node.name} serves {node.memory} without {self.acked}")
            if node.phase is Phase.PAIRED and node.op is None and node.memory != self.other(node).memory:
                raise Violation(f"I-d paired and quiet, and not equal: {[one.memory for one in self.nodes]}")
        if self.accurate and len(serving) > 1:
            raise Violation("two nodes serve")


def walk(seed: int, steps: int, *, accurate: bool) -> Counter[str]:
    """One life of a pair. Raises Violation with the way that led there."""
    pair = Pair(seed, accurate=accurate)
    try:
        for _ in range(steps):
            pair.step()
        if accurate:
            pair.heal()
    except Violation as violation:
        raise Violation(f"seed {seed}: {violation}\n  " + "\n  ".join(pair.trace[-30:])) from None
    return pair.seen
