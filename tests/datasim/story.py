"""A world that does only what a test says: steps run in a fixed order, and stop where the test holds them."""

import random
from collections.abc import Callable

from tests.datasim import native, ops
from tests.datasim.modes import Mode
from tests.datasim.ops import Body, Op
from tests.datasim.process import Process
from tests.datasim.world import Node, World


class Fixed(random.Random):
    """For power cuts: 0 loses all that was not synced, 0.9 keeps it."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value = value

    def random(self) -> float:
        return self.value

    def randint(self, a: int, b: int) -> int:
        return a if self.value < 0.5 else b


class Story(World):
    """Two nodes; a is primary. Nothing fails and nobody asks for a grant but by word of the test."""

    def __init__(self, *, policy: str = "witness", breaks: frozenset[str] = frozenset()) -> None:
        super().__init__(0, policy=policy, breaks=breaks)
        self.random = Fixed(0.9)  # links lose nothing that was sent
        self.meets = True
        self.connects_left = 0
        self.a, self.b = self.nodes

    # ---- what happens -----------------------------------------------------------------------------------------------------------------

    def settle(self, until: Callable[[], bool] = lambda: False, limit: int = 3000) -> None:
        """Go on until nothing more happens, or that is so."""
        self.connects_left = 3  # who is refused tries again for ever
        for _ in range(limit):
            if until() or not self._one():
                return
            self.oracle.check()
        raise AssertionError("no end: " + "\n".join(self.trace[-20:]))

    def _one(self) -> bool:
        for task in self.tasks:
            if self.is_runnable(task):
                self.run(task)
                return True
        for session in self.sessions_of():
            if self.deliverable(session):
                self.deliver(session)
                return True
            if session.connection.has_ended(session.me) and not session.ended and not session.process.node.paused:
                session.notice()
                return True
        if self.meets and self.connects_left and self.may_connect():
            self.connects_left -= 1
            self.connect()
            return True
        return False

    def begin(self) -> None:
        """Both up, and paired: a is primary."""
        for node in self.nodes:
            self.start(node)
        self.settle()
        assert self.primary(self.a).mode is Mode.PAIRED

    def restart(self, node: Node) -> None:
        self.start(node)
        self.settle()

    def lose_power(self, node: Node) -> None:
        """All that was not synced is gone."""
        self.random = Fixed(0)
        self.power_cut(node)
        self.random = Fixed(0.9)
        self.oracle.check()

    def part(self) -> None:
        """The link is cut, and both have noticed."""
        self.break_link()
        self.settle()

    def meet(self) -> None:
        self.link_up = True
        self.settle()

    def ask(self, node: Node) -> None:
        """The node asks for a grant, if it may."""
        process = self.primary(node)
        if process.may_ask():
            self.spawn(process, process.ask(), "grant")
        self.settle()

    def spawn_force(self, node: Node) -> None:
        """The administrator's word, to a node that serves already."""
        process = self.primary(node)
        process.mode = Mode.FROZEN
        self.spawn(process, process.force(), "force")
        self.settle()

    # ---- what is asked ----------------------------------------------------------------------------------------------------------------

    @staticmethod
    def primary(node: Node) -> Process:
        assert node.process is not None
        return node.process

    def write(self, node: Node, fid: int = 10, chunk: int = 0) -> Op:
        return self.do(node, Body("write", fid, pieces=((chunk, 0),)))

    def fsync(self, node: Node, fid: int = 10) -> Op:
        return self.do(node, Body("fsync", fid))

    def do(self, node: Node, body: Body) -> Op:
        op = self.submit(self.primary(node), body)
        self.settle()
        return op

    def marks(self, node: Node) -> set[native.Mark]:
        return set(self.primary(node).log.marks.each())


__all__ = ["Body", "Story", "ops"]
