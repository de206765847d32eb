"""When a module's checkers look, and what makes a verdict of what they saw.

The core opens and closes their windows (core/resources.py): a resource that it lists is looked at, under the number of that opening. This
follows: a window that opens starts the checker, one that closes ends it in the middle of whatever it does. Each checker has a task of its
own, so a slow one holds up no other.

A look is over at its deadline, and then says down. `rise` looks in a row must say so before a resource is up, `fall` before it is down. A
service that was started a moment ago may not listen yet: until it was up for the first time, or its `grace` is over, down counts nothing.
Between two looks `interval` passes, or less when the checker itself notices that something changed.

What a look says while this process stood still (a suspended machine, a node that is starved) is not believed: its deadline has passed for
reasons of our own. A checker that breaks by a mistake of ours is unknown from then on, and said so in the history: neither the node's
daemon nor the service it watches is worth less than that mistake.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from orchestrator.checkers.checker import Checker, Finding
from orchestrator.config import CheckerConfig
from orchestrator.core.rules_language import ResourceState

LEAST_GAP_S: Final = 0.2  # between two looks, however often something changes
SAID_BY_OTHERS: Final = "custom"  # a kind that nobody looks at: a loop of the administrator's says how it is
LATE_S: Final = 1.0  # a look that is over so much after its deadline was not looked at by us either

Make = Callable[[CheckerConfig], Checker]
Windows = Callable[[], Mapping[str, int]]  # the resources that are looked at now, and under which number
Say = Callable[[str, ResourceState, str, int], None]  # resource, state, text, window


@dataclass(slots=True)
class Verdict:
    """What the looks so far come to."""

    rise: int
    fall: int
    state: ResourceState = ResourceState.INIT
    _last_up: bool | None = field(default=None)
    _in_a_row: int = field(default=0)

    def after(self, finding: Finding) -> ResourceState:
        """One look more."""
        self._in_a_row = self._in_a_row + 1 if finding.up is self._last_up else 1
        self._last_up = finding.up
        if self._in_a_row >= (self.rise if finding.up else self.fall):
            self.state = ResourceState.UP if finding.up else ResourceState.DOWN
        return self.state


class Watch:
    """The checkers of one module."""

    def __init__(
        self,
        checkers: Sequence[CheckerConfig],
        make: Make,
        windows: Windows,
        changed: Callable[[], Awaitable[None]],
        say: Say,
        log: Callable[[str, str], None],
    ) -> None:
        self._checkers = {checker.resource: checker for checker in checkers if checker.type != SAID_BY_OTHERS}
        self._make, self._windows, self._changed, self._say, self._log = make, windows, changed, say, log
        self._open: dict[str, tuple[int, trio.CancelScope]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        if not self._checkers:
            return
        async with trio.open_nursery() as nursery:
            while True:
                windows = self._windows()
                for resource, (window, scope) in list(self._open.items()):
                    if windows.get(resource) != window:
                        scope.cancel()
                        del self._open[resource]
                for resource, window in windows.items():
                    if resource in self._checkers and resource not in self._open:
                        scope = trio.CancelScope()
                        self._open[resource] = (window, scope)
                        nursery.start_soon(self._watch, self._checkers[resource], window, scope)
                await self._changed()

    async def _watch(self, config: CheckerConfig, window: int, scope: trio.CancelScope) -> None:
        with scope:
            try:
                await self._look_again_and_again(config, window)
            except Exception as mistake:
                self._log("checker", f"{config.resource} cannot be looked at any more: {type(mistake).__name__}: {mistake}")
                self._say(config.resource, ResourceState.UNKNOWN, f"its checker broke: {mistake}", window)

    async def _look_again_and_again(self, config: CheckerConfig, window: int) -> None:
        checker, verdict, opened = self._make(config), Verdict(config.rise, config.fall), trio.current_time()
        said: tuple[ResourceState, str] | None = None
        while True:
            began = trio.current_time()
            finding = await self._look(checker, config)
            may_come_up = verdict.state is ResourceState.INIT and trio.current_time() - opened < config.grace_s
            if finding is not None and (finding.up or not may_come_up):
                state = verdict.after(finding)
                if state is not ResourceState.INIT and said != (state, finding.text) and finding.up is (state is ResourceState.UP):
                    said = (state, finding.text)
                    self._say(config.resource, state, finding.text, window)
            with trio.move_on_at(began + config.interval_s):
                await trio.sleep_until(began + min(LEAST_GAP_S, config.interval_s))
                await _until_changed(checker)

    async def _look(self, checker: Checker, config: CheckerConfig) -> Finding | None:
        """One look, at most as long as it may take; None: it says nothing."""
        deadline = trio.current_time() + config.timeout_s
        look = _Look(Finding(False, f"no answer within {config.timeout_s:g} s"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look.give_up_at, deadline, nursery.cancel_scope)
            await look.run(checker)
            nursery.cancel_scope.cancel()
        if look.mistake is not None:
            raise look.mistake
        return look.finding if look.over_at <= deadline + LATE_S else None


@dataclass(slots=True)
class _Look:
    """When it was over counts, not when what it left behind was cleaned up: a program that SIGKILL does not end takes seconds for that,
    and we did not stand still meanwhile."""

    finding: Finding
    over_at: float = float("inf")
    mistake: Exception | None = None

    async def give_up_at(self, deadline: float, scope: trio.CancelScope) -> None:
        await trio.sleep_until(deadline)
        self.over_at = trio.current_time()
        scope.cancel()

    async def run(self, checker: Checker) -> None:
        try:
            self.finding = await checker.look()
        except OSError as error:
            self.finding = Finding(False, error.strerror or str(error))
        except Exception as mistake:
            self.mistake = mistake  # (out of the nursery it would come as a group)
        self.over_at = min(self.over_at, trio.current_time())


async def _until_changed(checker: Checker) -> None:
    try:
        await checker.changed()
    except OSError:  # it cannot tell: the interval has to do
        await trio.sleep_forever()
