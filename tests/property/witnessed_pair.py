"""The pair of pair_model.py with a witness: a register that answers, is out of reach, or answers late; rules.py, decide.py, witness.py.

What is new against the walk without one: any whole copy may ask, also one that was restarted; a node may die between a won
compare-and-swap and its durable mint; a request may be carried out after its sender gave up; a node may be cut off from the witness. And
the promises are the full ones, though anybody may lose sight of the other: a partition gives one grant.

I-c  acknowledgements form one lineage: who serves has every name under which anything was ever acknowledged alone
I-g  once everything is healed the two pair again; and if then either is gone for good the other one goes on

The witness knows who is alive and intact (a lease in the code, perfect knowledge here, as in the model that the rules come from).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rfs import rules, witness
from rfs.record import DataState, Record, Role
from rfs.witness import Held, Standing
from tests.property.pair_model import SERVING, Node, NodeLost, Op, Pair, Phase, Violation


@dataclass(frozen=True)
class Late:
    """A request that is on its way although nobody waits for it any more."""

    revision: int
    name: int
    owner: int


class WitnessedPair(Pair):
    """See the module's text."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, accurate=True)
        self.revision = 1
        self.held = Held(1, 1, 1)  # the first primary has created the register: its generation is the first name
        self.late: list[Late] = []
        self.reach = [True, True]
        self.lone_names: list[int] = []  # under which something was acknowledged without the peer
        for node in self.nodes:
            if node.record.role is Role.PRIMARY:
                node.on_disk = node.record = rules.arm(rules.try_own_name(node.record))

    # ---- the register -----------------------------------------------------------------------------------------------------------------

    def compare_and_swap(self, revision: int, held: Held) -> bool:
        if revision != self.revision:
            return False
        self.revision, self.held = revision + 1, held
        return True

    def is_in_the_way(self, node: Node) -> bool:
        other = self.other(node)
        goes_first = witness.must_find_absent(node.record)
        return goes_first == other.node_id and other.phase is not Phase.DOWN and witness.is_intact(other.record)

    def may_grant(self, node: Node) -> bool:
        """Whoever is whole and sees no peer may ask; what comes of it the register says."""
        if self.session is not None or node.record.data is not DataState.UPTODATE or node.phase not in (Phase.FROZEN, Phase.WAIT):
            return False
        sees_peer = self.link and self.other(node).phase is not Phase.DOWN
        return not sees_peer and (self.reach[self.nodes.index(node)] or not node.record.peer_may_fit)

    def grant(self, node: Node) -> None:
        if not node.record.peer_may_fit:
            super().grant(node)
            return
        standing = witness.standing(node.record, self.held)
        if standing is not Standing.MAY_START:
            self.note(f"fenced: {node.name} by {self.held}")
            if node.record.role is Role.PRIMARY:
                self.commit(node, rules.step_down(node.record))
            node.phase, node.op = Phase.WAIT, None
            return
        self.ask(node)

    def ask(self, node: Node) -> None:
        revision, seen, name = self.revision, self.held, next(self.names)
        self.commit(node, rules.try_name(node.record, name, seen.generation))
        if len(self.late) < 2 and not self.careful and self.random.random() < 0.25:
            self.note(f"late: {node.name} asks for {name} and gives up")
            self.late.append(Late(revision, name, node.node_id))
            return
        if self.is_in_the_way(node):
            self.note(f"in the way: {node.name} is rewound, its peer is intact")
            return
        won = self.compare_and_swap(revision, Held(name, node.record.term, node.node_id))
        assert won, "nothing else happens in between"
        self.note(f"won: {node.name} {seen.generation} -> {name}")
        if not self.careful and self.random.random() < 0.1:
            self.note("died before the mint")
            self.fail(node)
            raise NodeLost
        self.names = _first_then(name, self.names)
        super().grant(node)

    def arrive(self) -> None:
        late = self.late.pop(self.random.randrange(len(self.late)))
        won = self.compare_and_swap(late.revision, Held(late.name, 0, late.owner))
        self.note(f"arrives: {late.name} {'wins' if won else 'is void'}")
        if won:
            self.seen["late win"] += 1

    # ---- the oracle -------------------------------------------------------------------------------------------------------------------

    def _gone(self, node: Node) -> None:
        """I-b speaks of one failure: if both nodes that held a write have gone since, killed, without power or in order, the rewound one
        may go on as soon as the other one is seen to be gone, though a page cache may still hold what it lacks."""
        self._notes_failure(node)
        for place, failed in enumerate(self.failed):
            if failed == {0, 1}:
                self.acked[place] = self.synced[place]
        super()._gone(node)

    def _notes_failure(self, node: Node) -> None:
        index = self.nodes.index(node)
        for holders, failed in zip(self.holders, self.failed, strict=True):
            if index in holders:
                failed.add(index)

    def power_cut(self, node: Node) -> None:
        self._notes_failure(node)
        super().power_cut(node)

    def go_alone(self, node: Node, *, granted: bool) -> None:
        if node.record.peer_may_fit and granted:
            self.failed = [set(), set()]
        super().go_alone(node, granted=granted)

    # ---- the world --------------------------------------------------------------------------------------------------------------------

    def _acknowledge(self, node: Node, op: Op, holders: list[Node]) -> None:
        if (
            node.phase is Phase.SOURCE and op.there and self.other(node).record.data is DataState.UPTODATE
        ):  # it has adopted; only its answer is under way
            holders = [*self.nodes]
        super()._acknowledge(node, op, holders)
        self.failed[op.place] = set()
        if len(holders) == 1 and node.record.generation not in self.lone_names:
            self.lone_names.append(node.record.generation)

    def _reach_changes(self) -> None:
        index = self.random.randrange(2)
        self.reach[index] = not self.reach[index]
        self.note(f"witness {'reached' if self.reach[index] else 'out of reach'}: {self.nodes[index].name}")

    def possible(self) -> list[tuple[int, Callable[[], None]]]:
        found = super().possible()
        found.append((2, self._reach_changes))
        if self.late:
            found.append((5, self.arrive))
        return found

    def check(self) -> None:
        super().check()
        for node in self.nodes:
            if node.phase in SERVING and not set(self.lone_names) <= set(node.record.lineage):
                raise Violation(f"I-c {node.name} serves under {node.record.lineage} without {self.lone_names}")

    def heal(self) -> None:
        self.reach = [True, True]
        super().heal()
        while self.late:
            self.arrive()

    def survive(self) -> None:
        """One of the healed pair is gone for good: the other goes on."""
        while self.session is not None:
            self.step_session()
        gone = self.random.choice(self.nodes)
        left = self.other(gone)
        self.kill(gone)
        for _ in range(3):
            if self.may_grant(left):
                self.grant(left)
        if left.phase not in SERVING:
            raise Violation(f"I-g {left.name} is left over and cannot go on: the witness holds {self.held}, it knows {known(left.record)}")
        self.check()


def known(record: Record) -> set[int]:
    return {*record.lineage, *record.tried}


def _first_then(name: int, names: Iterator[int]) -> Iterator[int]:
    """The name that was won is the one that is minted."""
    yield name
    yield from names


def walk(seed: int, steps: int) -> Counter[str]:
    """One life of a pair with a witness."""
    pair = WitnessedPair(seed)
    try:
        for _ in range(steps):
            pair.step()
        pair.heal()
        pair.survive()
    except (Violation, AssertionError) as violation:
        raise Violation(f"seed {seed}: {violation!r}\n  " + "\n  ".join(pair.trace[-40:])) from None
    return pair.seen
