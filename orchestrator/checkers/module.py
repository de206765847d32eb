"""Does another module serve, on this node, on a certain one, or on any?

A module that was stopped and started again between two looks looks as it did before: that is why each run of it has a number, and a
number that has changed is one look down (`when_restarted`). What depends on it then waits, and starts anew with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import trio

from orchestrator.checkers.checker import Finding

LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class OtherModule:
    """What is known of another module on a node."""

    node: str
    state: str  # PRIM, ALONE …
    ready: bool
    run: object = None  # another one each time its services are started; None: not known


StatesOf = Callable[[str], Collection[OtherModule]]  # by the module's name: on every node of which something is known


class ModuleChecker:
    """Up while the module is Ready in one of the states. `node`: here, any, or a name."""

    def __init__(
        self,
        module: str,
        here: str,
        states_of: StatesOf,
        node: str = "here",
        states: tuple[str, ...] = ("ALONE", "PRIM", "UP"),
        when_restarted: Literal["down", "ignore"] = "down",
    ) -> None:
        self.module, self.node, self.states = module, here if node == "here" else node, states
        self.states_of, self.when_restarted = states_of, when_restarted
        self._run: object = None

    async def look(self) -> Finding:
        """What hactld knows of it."""
        finding, run = self._judge()
        restarted = finding.up and None not in (self._run, run) and run != self._run
        if finding.up:
            self._run = run
        if restarted and self.when_restarted == "down":
            return Finding(False, f"{self.module} was started anew")
        return finding

    async def changed(self) -> None:
        """When it serves no more, or again, or anew: that is known here, and is looked at often."""
        was_up, was_run = (before := self._judge())[0].up, before[1]
        while True:
            await trio.sleep(LOOK_EVERY_S)
            finding, run = self._judge()
            if finding.up != was_up or run != was_run:
                return

    def _judge(self) -> tuple[Finding, object]:
        known = [each for each in self.states_of(self.module) if self.node in ("any", each.node)]
        for each in known:
            if each.ready and each.state in self.states:
                return Finding(True, f"{self.module} is {each.state} on {each.node}"), each.run
        seen = ", ".join(f"{each.state}{'' if each.ready else ' (not ready)'} on {each.node}" for each in known)
        where = "" if self.node == "any" else f" on {self.node}"
        return Finding(False, f"{self.module} is {seen}" if seen else f"nothing is known of {self.module}{where}"), None
