"""One simulated server: what of it survives what, and what is broken about it."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.core import events as ev
from orchestrator.core.states import Lane, Memory, Point
from orchestrator.core.turn import Node
from tests.sim.fake_rfs import FakeRfs


class Machine:
    """One server."""

    def __init__(self, name: str, mint: Callable[[], int]) -> None:
        self.name = name
        self.rfs = FakeRfs(name, mint)
        self.powered = False
        self.frozen = False
        self.hactld = False
        self.core: Node | None = None
        self.services = False
        self.address_until = -1.0
        self.memory = Memory()
        self.entered: frozenset[Point] = frozenset()
        self.scripts: list[str] = []  # that ran
        self.reaches_ping = True
        self.counter = 0
        self.incarnation = 0
        self.backlog: list[ev.Event] = []
        self.heard: dict[str, tuple[int, int]] = {}
        self.lanes: dict[Lane, int] = {}
        self.session = 0
        self.last_view: object = None
        self.last_step_at = 0.0
        self.published_at = 0.0
        self.thawed_at = -1e9
        self.max_restarts = 50
        self.holds_files = False  # before it ever took part
        self.down: frozenset[str] = frozenset()  # resources that are so, whoever knows it
        self.hangs = False  # its services: neither start nor stop ends before its deadline
