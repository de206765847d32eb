"""When checkers look: windows, interval, deadline, rise and fall, what they notice themselves, and what breaks in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import trio
import trio.testing

from orchestrator.checkers.checker import Finding
from orchestrator.checkers.watch import Verdict, Watch
from orchestrator.config import CheckerConfig
from orchestrator.core.rules_language import ResourceState

DOWN, UP, UNKNOWN = ResourceState.DOWN, ResourceState.UP, ResourceState.UNKNOWN
CONFIG = CheckerConfig("tcp", "db", "pre", "none", interval_s=10.0, timeout_s=3.0)


@dataclass
class FakeChecker:
    """Says what it is told to, and when it looked."""

    sees: Callable[[], Finding] = lambda: Finding(True, "it answers")
    takes_s: float = 0.0
    cleans_up_s: float = 0.0
    looked_at: list[float] = field(default_factory=list)
    cancelled: int = 0
    news: trio.Event = field(default_factory=trio.Event)
    trouble: Exception | None = None

    async def look(self) -> Finding:
        self.looked_at.append(trio.current_time())
        try:
            await trio.sleep(self.takes_s)
        except trio.Cancelled:
            self.cancelled += 1
            with trio.CancelScope(shield=True):
                await trio.sleep(self.cleans_up_s)
            raise
        if self.trouble is not None:
            raise self.trouble
        return self.sees()

    async def changed(self) -> None:
        await self.news.wait()
        self.news = trio.Event()


class Bench:
    """A watch of one checker, and what it said."""

    def __init__(self, nursery: trio.Nursery, checker: FakeChecker, config: CheckerConfig = CONFIG) -> None:
        self.checker, self.began = checker, trio.current_time()
        self.windows: dict[str, int] = {config.resource: 1}
        self.said: list[tuple[float, str, ResourceState, str, int]] = []
        self.logged: list[str] = []
        self.made = 0
        self._changed = trio.Event()
        watch = Watch([config], self._make, lambda: self.windows, self._wait, self._say, lambda kind, text: self.logged.append(text))
        nursery.start_soon(watch.run)

    def _make(self, config: CheckerConfig) -> FakeChecker:
        self.made += 1
        return self.checker

    async def _wait(self) -> None:
        await self._changed.wait()

    def _say(self, resource: str, state: ResourceState, text: str, window: int) -> None:
        self.said.append((trio.current_time() - self.began, resource, state, text, window))

    def open(self, **windows: int) -> None:
        """The core did something."""
        self.windows = {f"tcp.{name}": number for name, number in windows.items()}
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    @property
    def states(self) -> list[ResourceState]:
        return [state for _, _, state, _, _ in self.said]


async def test_it_looks_at_once_and_then_at_intervals(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench(nursery, FakeChecker())
    await trio.sleep(25.0)
    assert [at - bench.began for at in bench.checker.looked_at] == [0.0, 10.0, 20.0]
    assert bench.said == [(0.0, "tcp.db", UP, "it answers", 1)], "what is the same is said once"


async def test_a_window_that_closes_ends_the_look_and_one_that_opens_begins_anew(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    bench = Bench(nursery, FakeChecker(takes_s=2.0))
    await trio.sleep(1.0)
    bench.open()
    await trio.sleep(30.0)
    assert (bench.checker.cancelled, bench.said, len(bench.checker.looked_at)) == (1, [], 1)
    bench.open(db=2)
    await trio.sleep(3.0)
    bench.open(db=3)  # closed and opened between two looks at it
    await trio.sleep(3.0)
    assert [window for *_, window in bench.said] == [2, 3] and bench.made == 3


async def test_a_look_that_hangs_is_down(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench(nursery, FakeChecker(takes_s=1e6))
    await trio.sleep(4.0)
    assert bench.said == [(3.0, "tcp.db", DOWN, "no answer within 3 s", 1)] and bench.checker.cancelled == 1


async def test_what_a_look_leaves_behind_may_take_its_time(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """A program that SIGKILL does not end is waited for after the deadline: it was looked at all the same."""
    checker = FakeChecker(takes_s=1e6, cleans_up_s=5.0)
    bench = Bench(nursery, checker)
    await trio.sleep(9.0)
    assert bench.said == [(8.0, "tcp.db", DOWN, "no answer within 3 s", 1)] and checker.cancelled == 1


async def test_an_error_of_the_system_is_down_with_its_text(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench(nursery, FakeChecker(trouble=ConnectionRefusedError(111, "Connection refused")))
    await trio.sleep(1.0)
    assert bench.said == [(0.0, "tcp.db", DOWN, "Connection refused", 1)]


async def test_a_mistake_of_ours_ends_neither_hactld_nor_the_service(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench(nursery, FakeChecker(trouble=KeyError("address")))
    await trio.sleep(60.0)
    assert bench.states == [UNKNOWN] and len(bench.checker.looked_at) == 1 and "KeyError" in bench.logged[0]
    bench.open(db=2)
    await trio.sleep(1.0)
    assert bench.states == [UNKNOWN, UNKNOWN], "the next window tries again"


async def test_rise_and_fall(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    answers = iter([True, False, True, True, False, False, False, True, True])
    checker = FakeChecker(lambda: Finding(next(answers, True)))
    bench = Bench(nursery, checker, replace(CONFIG, rise=2, fall=3))
    await trio.sleep(85.0)
    assert [(at, state) for at, _, state, _, _ in bench.said] == [(30.0, UP), (60.0, DOWN), (80.0, UP)]


def test_before_enough_looks_nothing_is_said() -> None:
    verdict = Verdict(rise=1, fall=2)
    assert verdict.after(Finding(False)) is ResourceState.INIT
    assert verdict.after(Finding(False)) is DOWN
    assert verdict.after(Finding(True)) is UP


async def test_what_it_notices_is_looked_at_at_once(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    up = [True]
    bench = Bench(nursery, FakeChecker(lambda: Finding(up[0])))
    await trio.sleep(4.0)
    up[0] = False
    bench.checker.news.set()
    await trio.sleep(1.0)
    assert [(at, state) for at, _, state, _, _ in bench.said] == [(0.0, UP), (4.0, DOWN)]


async def test_endless_news_is_no_busy_loop(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    checker = FakeChecker()

    async def always() -> None:
        await trio.lowlevel.checkpoint()

    checker.changed = always  # type: ignore[method-assign]
    bench = Bench(nursery, checker)
    await trio.sleep(1.9)
    assert len(bench.checker.looked_at) == 10


async def test_who_cannot_notice_has_its_interval(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    checker = FakeChecker()

    async def cannot() -> None:
        raise OSError(1, "no netlink here")

    checker.changed = cannot  # type: ignore[method-assign]
    bench = Bench(nursery, checker)
    await trio.sleep(25.0)
    assert len(bench.checker.looked_at) == 3 and bench.states == [UP]


async def test_a_look_during_which_this_process_stood_still_says_nothing(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    stood_still = [True]

    def sees() -> Finding:
        if stood_still.pop() if stood_still else False:
            autojump_clock.jump(60.0)  # the look began before, and ends after
        return Finding(False, "the answer of a minute ago")

    bench = Bench(nursery, FakeChecker(sees))
    await trio.sleep(61.0)
    assert bench.said == [(60.0, "tcp.db", DOWN, "the answer of a minute ago", 1)], "only the look after the pause counts"
    assert len(bench.checker.looked_at) == 2


async def test_what_others_say_is_not_looked_at(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench(nursery, FakeChecker(), replace(CONFIG, type="custom"))
    await trio.sleep(60.0)
    assert bench.made == 0


async def test_what_was_started_a_moment_ago_may_still_come_up(autojump_clock: trio.testing.MockClock) -> None:
    """Down counts nothing until it was up once, or the grace is over; then it counts at once."""
    patient = replace(CONFIG, interval_s=1.0, grace_s=5.0)
    async with trio.open_nursery() as nursery:
        bench = Bench(nursery, FakeChecker(sees=lambda: Finding(2.5 < trio.current_time() - bench.began < 3.5, "")), patient)
        await trio.sleep(4.5)
        assert [(round(at), state) for at, _, state, *_ in bench.said] == [(3, UP), (4, DOWN)]
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        never = Bench(nursery, FakeChecker(sees=lambda: Finding(False, "it refuses")), replace(patient, fall=2))
        await trio.sleep(7.5)
        assert [(round(at), state) for at, _, state, *_ in never.said] == [(6, DOWN)], "the looks of the grace count for no fall"
        nursery.cancel_scope.cancel()
