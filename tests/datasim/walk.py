"""A random life of the world, and how it ends: all faults stop, and the pair must be one again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from rfs.decide import Outcome, decide
from rfs.record import SLOT_BYTES, DataState, Role, choose
from tests.datasim import arbiter, ops
from tests.datasim.disk import File
from tests.datasim.modes import Mode
from tests.datasim.oracle import Violation
from tests.datasim.process import Process
from tests.datasim.session import Session
from tests.datasim.world import MOST_OPS, POLICIES, Node, World

STEPS = 500
HEAL_STEPS = 4000
SHOWN = 60
Choice = tuple[float, Callable[[], None]]


class Walk(World):
    """What may happen next, with weights that this seed chose."""

    def __init__(
        self, seed: int, *, policy: str | None = None, breaks: frozenset[str] = frozenset(), bias: dict[str, float] | None = None
    ) -> None:
        """`bias`: weights other than this seed's own, for who looks for one thing."""
        super().__init__(seed, policy=policy or POLICIES[seed % 4 % 3], breaks=breaks, fresh=seed % 13 == 5)
        chance = self.random.random
        self.rate = chance() ** 2 * 1.2 + 0.05  # of faults
        self.may_force, self.may_roll_back = chance() < 0.12, chance() < 0.1
        self.may_fill, self.may_lie, self.may_forget = chance() < 0.25, chance() < 0.2, chance() < 0.15
        self.any_snapshot = False
        self.may_lose_log = chance() < 0.1
        # Each seed likes other things (swarm testing): what all seeds do a little of, none does enough of.
        pick = self.random.choice
        self.likes = {
            "task": pick((4, 10, 10, 25)),
            "deliver": pick((4, 12, 12, 30)),
            "call": pick((2, 7, 7, 15)),
            "connect": pick((2, 6, 12)),
            "checkpoint": pick((0.1, 0.7, 0.7, 6)),
            "power": pick((0.1, 0.35, 0.35, 1)),
            "kill": pick((0.05, 0.25, 0.25, 0.7)),
            "link": pick((0.1, 0.6, 0.6, 2)),
            "heal": pick((0.3, 1.2, 4)),
            "pause": pick((0, 0.1, 0.1, 0.6)),
            "lost": pick((0.2, 1, 4)),
            "ask": 2,
        }
        self.kinds = tuple(pick((0.2, 1, 1, 4)) * weight for weight in ops.WEIGHTS)
        self.leaves_dead = False  # a node that is down stays so
        for name, weight in (bias or {}).items():
            if name in ops.KINDS:
                self.kinds = tuple(weight if kind == name else one for kind, one in zip(ops.KINDS, self.kinds, strict=True))
            elif name == "rate":
                self.rate = weight
            else:
                self.likes[name] = weight

    # ---- choices ----------------------------------------------------------------------------------------------------------------------

    def choices(self, *, faults: bool, calls: bool) -> list[Choice]:
        found: list[Choice] = [(self.likes["task"], lambda task=task: self.run(task)) for task in self.tasks if self.is_runnable(task)]  # type: ignore[misc]
        for session in self.sessions_of():
            if self.deliverable(session):
                found.append((self.likes["deliver"], lambda session=session: self.deliver(session)))  # type: ignore[misc]
            elif session.connection.has_ended(session.me) and not session.ended and not session.process.node.paused:
                found.append((3, session.notice))
        if self.may_connect():
            found.append((self.likes["connect"], self.connect))
        for node in self.nodes:
            found += self._of_node(node, calls)
            if faults:
                found += self._faults_of(node)
        if not found or (faults and self.sessions_of()):
            weight = 0.05 if found else 1
            for session in self.sessions_of():
                if not session.ended:
                    found.append((weight, lambda session=session: self._time_out(session)))  # type: ignore[misc]
        found += self._healing()
        if faults:
            found += self._faults()
        return found

    def _of_node(self, node: Node, calls: bool) -> Iterator[Choice]:
        process = node.process
        if process is None:
            if not self.leaves_dead:
                yield 2, lambda: self.start(node)
            return
        if node.paused:
            yield 1, lambda: self._unpause(node)
            return
        if calls and process.is_primary and process.mode is not Mode.IDLE and len(process.ops) < MOST_OPS and not process.stopping:
            yield self.likes["call"], lambda: self.call(process)
        session = process.session
        if process.mode is Mode.PAIRED and not process.checkpoint_runs and session is not None and not process.draining:
            yield self.likes["checkpoint"], lambda: self.spawn(process, process.checkpoint(), "checkpoint")
        if process.consent and session is not None and not process.is_changing and not session.ended:
            yield 4, lambda: self.spawn(process, session.promote(), "promote")
        if process.may_ask():
            yield self.likes["ask"], lambda: self._ask(node)

    def _ask(self, node: Node) -> None:
        assert node.process is not None
        self.fate = self.random.choices(("answered", "late", "answer lost"), (4, self.likes["lost"], self.likes["lost"]))[0]
        if self.fate != "answered":
            self.saw(f"fault request: {self.fate}")
        self.spawn(node.process, node.process.ask(), "grant")

    def _faults_of(self, node: Node) -> Iterator[Choice]:
        rate, process = self.rate, node.process
        if process is None:
            if node.snapshot is not None and self.may_roll_back:
                yield 0.3 * rate, lambda: self._roll_back(node)
            if self.may_lose_log:
                yield 0.3 * rate, lambda: self._fault("log lost", lambda: self._lose_log(node))
            if node.disk.tree.journal or node.disk.tree.dirty:
                yield 0.2 * rate, lambda: self._fault("power cut", lambda: self.power_cut(node))
            return
        yield self.likes["kill"] * rate, lambda: self._fault("kill", lambda: self.kill(node))
        yield self.likes["power"] * rate, lambda: self._fault("power cut", lambda: self.power_cut(node))
        yield self.likes["pause"] * rate, lambda: self._fault("pause", lambda: setattr(node, "paused", True))
        if self.may_fill and not node.disk.full:
            yield 0.3 * rate, lambda: self._fault("disk full", lambda: setattr(node.disk, "full", True))
        if self.may_lie and not node.disk.lying and node.disk.tree.journal:
            yield 0.2 * rate, lambda: self._lie(node)
        if self.may_roll_back and node.snapshot is None and process.record.data is DataState.UPTODATE and process.record.peer_has:
            yield 0.5, lambda: setattr(node, "snapshot", node.disk.snapshot())
        idle = process.is_started and process.session is None and not process.is_changing and process.mode in (Mode.IDLE, Mode.FROZEN)
        if self.may_force and idle:
            yield 0.2 * rate, lambda: self.spawn(process, process.force(), "force")
        session = process.session
        if process.stopping or process.is_changing:
            return
        if session is not None and session.stage.name == "PAIRED" and not session.ended:
            if process.mode is Mode.PAIRED and not process.checkpoint_runs and not process.draining:
                yield 0.4, lambda: self.spawn(process, session.demote(), "demote")
            elif process.mode is Mode.TARGET and process.is_target_of:
                yield 0.2, lambda: self.spawn(process, session.leave("asked to"), "leave")
        if process.is_started and process.mode is not Mode.SOURCE:
            yield 0.1, lambda: self.spawn(process, process.stop(), "stop")

    def call(self, process: Process) -> None:
        body = ops.choose(process.disk.tree.now, self.random, self.kinds)
        if body is not None:
            self.submit(process, body)

    def _faults(self) -> Iterator[Choice]:
        if self.link_up:
            yield self.likes["link"] * self.rate, lambda: self._fault("link", self.break_link)
        yield 0.06 * self.rate, lambda: self._fault("both lose power", self._both)
        if self.old_frames and self.sessions_of():
            yield 0.5, self.lag
        if self.policy != "witness":
            return
        for index in (0, 1):
            if self.witness.reachable[index]:
                yield 0.15 * self.rate, lambda index=index: self._fault("witness lost", lambda: self._reach(index, False))  # type: ignore[misc]
        if self.may_forget and self.witness.register is not None:
            yield 0.1 * self.rate, lambda: self._fault("witness forgets", self._forget)

    def _healing(self) -> Iterator[Choice]:
        if not self.link_up:
            yield self.likes["heal"], lambda: setattr(self, "link_up", True)
        for index in (0, 1):
            if not self.witness.reachable[index]:
                yield 0.5, lambda index=index: self._reach(index, True)  # type: ignore[misc]
            if self.nodes[index].disk.full:
                yield 0.5, lambda index=index: setattr(self.nodes[index].disk, "full", False)  # type: ignore[misc]
        if self.witness.late:
            yield 0.5, self._late_arrives
        if self.witness.register is None:
            yield 0.3, self._rearm

    def _time_out(self, session: Session) -> None:
        """No progress for long enough, or so it seems to this side."""
        self.saw("fault timeout")
        self.note(f"{session.process.node.name}: times out")
        self.cut(session.connection)
        session.notice()

    # ---- acts -------------------------------------------------------------------------------------------------------------------------

    def _fault(self, name: str, act: Callable[[], None]) -> None:
        self.saw(f"fault {name}")
        self.trace.append(f"fault {name}")
        act()

    def _both(self) -> None:
        for node in self.nodes:
            self.power_cut(node)

    def _unpause(self, node: Node) -> None:
        node.paused = False

    def _lie(self, node: Node) -> None:
        node.disk.lying = True
        self.oracle.copy_has_failed = True

    def _lose_log(self, node: Node) -> None:
        """Gone with its file: everything is marked."""
        node.disk.logs = [File(), File()]

    def _reach(self, index: int, can: bool) -> None:
        self.witness.reachable[index] = can

    def _forget(self) -> None:
        self.witness.register = None
        self.witness.late.clear()

    def _rearm(self) -> None:
        """The administrator: only of a pair in sync. While one is away, or has just won, any name may be the wrong one."""
        primary = next((node.process for node in self.nodes if node.process is not None and node.process.mode is Mode.PAIRED), None)
        if primary is not None and len(self.sessions_of()) == 2 and all(session.stage.name == "PAIRED" for session in self.sessions_of()):
            self.witness.put(arbiter.Register(primary.record.generation, primary.record.term, primary.node.index))
            self.saw("witness armed again")

    def _late_arrives(self) -> None:
        self.witness.compare_and_swap(*self.witness.late.pop(0))
        self.saw("late request arrives")

    def _roll_back(self, node: Node) -> None:
        other = self.nodes[1 - node.index].durable_record()
        assert node.snapshot is not None
        restored = choose(bytes(node.snapshot.record.now[:SLOT_BYTES]), bytes(node.snapshot.record.now[SLOT_BYTES:]))
        if restored is None or (restored.number >= other.peer_confirmed_number and not self.any_snapshot):
            return  # what the peer has not seen confirmed cannot be recognised
        if other.data is DataState.UPTODATE and other.role is Role.PRIMARY:
            self._fault("rolled back", lambda: self.roll_back(node))

    # ---- the walk ---------------------------------------------------------------------------------------------------------------------

    def step(self, *, faults: bool = True, calls: bool = True) -> bool:
        found = self.choices(faults=faults, calls=calls)
        if not found:
            return False
        weights = [weight for weight, _ in found]
        self.random.choices(found, weights)[0][1]()
        self.oracle.check()
        return True

    def live(self, steps: int = STEPS) -> None:
        """From the start of both nodes to the end of all faults, and what must be so then."""
        for node in self.nodes:
            self.start(node)
        for _ in range(steps):
            self.step()
        self.heal()

    def heal(self) -> None:
        """Nothing fails any more: a pair again, or a state that has a name."""
        self.link_up, self.rate = True, 0
        self.likes.update(task=10, deliver=12, connect=6, checkpoint=0.7)
        for node in self.nodes:
            node.paused = node.disk.full = node.disk.lying = False
        for number in range(HEAL_STEPS):
            self.step(faults=False, calls=number < 60)
            if number > 60 and self.is_quiet():
                break
            if self._asks_for_administrator():
                self.saw("an administrator must choose")
                return
        else:
            raise Violation(f"I-g healed, and no pair: {[(n.process and n.process.mode, n.durable_record().data) for n in self.nodes]}")
        self._after_checkpoint()
        self._survivor_serves()

    def _survivor_serves(self) -> None:
        """Paired, one of them dies and never returns: the other goes on, with one fault no human is needed."""
        if self.policy == "witness" and (self.witness.register is None or self.oracle.disk_was_rolled_back):
            return  # with the disk the names that this node had tried are gone, and one of them may be in the register
        dead, survivor = self.random.sample(self.nodes, 2)
        self.kill(dead)
        self.leaves_dead = True
        self.fate = "answered"
        for _ in range(400):
            if survivor.process is not None and survivor.process.mode is Mode.ALONE:
                self.saw("survivor serves")
                return
            self.step(faults=False, calls=False)
        raise Violation(f"I-g paired, {dead.name} died for ever, and {survivor.name} does not serve")

    def _asks_for_administrator(self) -> bool:
        a, b = (node.process for node in self.nodes)
        if a is None or b is None or a.session is not None or b.session is not None or self.tasks:
            return False
        running = [process.served and process.is_primary for process in (a, b)]
        decision = decide(a.record, b.record, mine_running=running[0], theirs_running=running[1], mine_empty=False, theirs_empty=False)
        if decision.outcome is Outcome.PAIR:
            return False
        self.no_pair(decision)
        return True

    def _after_checkpoint(self) -> None:
        """Equal on the disks too, and nothing is marked."""
        source = next(node.process for node in self.nodes if node.process is not None and node.process.mode is Mode.PAIRED)
        self.spawn(source, source.checkpoint(), "checkpoint")
        for _ in range(300):
            if not self.step(faults=False, calls=False) or (not source.checkpoint_runs and self.is_quiet()):
                break
        for node in self.nodes:
            marks = node.durable_marks()
            some = marks.everything or marks.plain or marks.chunks or marks.tails
            self.require(not some, f"I-g {node.name} has marks after a checkpoint in peace")


def walk(
    seed: int, *, steps: int = STEPS, policy: str | None = None, breaks: frozenset[str] = frozenset(), bias: dict[str, float] | None = None
) -> Counter[str]:
    """One life. Raises Violation with the way that led there."""
    world = Walk(seed, policy=policy, breaks=breaks, bias=bias)
    try:
        world.live(steps)
    except Violation as violation:
        raise Violation(f"seed {seed} ({world.policy}): {violation}\n  " + "\n  ".join(world.trace[-SHOWN:])) from None
    return world.seen
