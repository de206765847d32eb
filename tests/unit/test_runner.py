"""The loop: lanes, answers, and the pulse that it feels at its own wrist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import trio
import trio.testing

from orchestrator.core import actions as act
from orchestrator.core import events as ev
from orchestrator.core.detector import Detector
from orchestrator.core.states import Hold, Lane, Memory, Module, Point, Readiness, RfsView, State, Summary, Surroundings
from orchestrator.core.turn import Node
from orchestrator.effects import EffectFailed
from orchestrator.runner import Runner

SERVING = RfsView(role="primary", link="alone", mode="alone", data="UPTODATE", term=1)


class FakeEffects:
    """Does nothing, remembers everything."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.notes: list[str] = []
        self.wanted: list[bool] = []
        self.written: list[bool] = []
        self.disk = trio.Event()
        self.disk.set()
        self.kept = 0
        self.block: set[str] = set()
        self.fail: set[str] = set()

    async def perform(self, action: act.Ticketed) -> None:
        name = type(action).__name__
        self.done.append(f"{name} begins")
        try:
            if name in self.block:
                await trio.sleep_forever()
            if name in self.fail:
                raise EffectFailed("the world says no")
        finally:
            self.done.append(f"{name} ends")

    async def keep_address(self, module: str) -> None:
        self.kept += 1

    async def refresh_rfs(self, module: str) -> None:
        self.done.append("RefreshRfs")

    def remember(self, module: str, memory: Memory) -> None:
        self.wanted.append(memory.wanted)

    async def write_down(self) -> None:
        await self.disk.wait()
        self.written = list(self.wanted)

    def notify(self, module: str, kind: str, text: str, inputs: Mapping[str, Any] | None) -> None:
        self.notes.append(f"{kind}: {text}")

    async def probe_address(self, module: str) -> None:
        self.done.append("probe")

    def pulse_now(self) -> None:
        self.done.append("pulse")

    async def tell_peer(self) -> None:
        self.done.append("tell")

    def pulses(self) -> int:
        return 5


def make_runner(effects: FakeEffects, *modules: Module, node: str = "node1", peer: str = "node2") -> Runner:
    now = trio.current_time()
    around = Surroundings(node, peer, now=now)
    return Runner(Node(around, Detector.new(("lan",), 3.0, now), {module.name: module for module in modules}), effects)


def serving() -> Module:
    held = {
        "services": Hold.ON, "address": Hold.ON, "shown": (State.ALONE, Readiness.READY), "announced": State.ALONE,
        "entered": frozenset({Point.MODULE, Point.BOTH, Point.PRIM, Point.SEC}),
    }
    return replace(waiting(), view=SERVING, **held)  # type: ignore[arg-type]


def waiting() -> Module:
    shown = (State.WAIT, Readiness.TRANSIENT)
    entered = frozenset({Point.MODULE})
    return Module(
        "pg", found=True, wanted=True, has_record=True, rfs=Hold.ON, rfs_session=1, shown=shown, entered=entered, announced=State.WAIT
    )


async def test_a_newer_order_waits_until_the_older_has_put_things_in_order(autojump_clock: trio.testing.MockClock) -> None:
    effects = FakeEffects()
    effects.block.add("StopServices")
    runner = make_runner(effects, serving())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run)
        answer = await runner.ask(lambda now, request: ev.Restart(now, "pg", request))
        assert answer.code == 0
        await trio.sleep(1)
        assert effects.done[-1] == "StopServices begins"
        effects.block.clear()
        lost = RfsView(role="secondary", link="connecting", data="UPTODATE", term=1)
        runner.deliver(ev.RfsStatus(trio.current_time(), "pg", 1, lost))
        await trio.sleep(1)
        stops = [line for line in effects.done if "StopServices" in line]
        assert stops == ["StopServices begins", "StopServices ends"] * 2
        assert runner.node.modules["pg"].services is Hold.OFF
        nursery.cancel_scope.cancel()


async def test_a_failure_is_an_event(autojump_clock: trio.testing.MockClock) -> None:
    effects = FakeEffects()
    effects.fail.add("VipUp")
    runner = make_runner(effects, waiting())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run)
        runner.deliver(ev.RfsStatus(trio.current_time(), "pg", 1, SERVING))
        await trio.sleep(1)
        assert runner.node.modules["pg"].problem == "the world says no"
        effects.fail.clear()
        await trio.sleep(5)
        assert runner.node.modules["pg"].services is Hold.ON
        nursery.cancel_scope.cancel()


async def test_standing_still_is_the_first_thing_the_core_hears(autojump_clock: trio.testing.MockClock) -> None:
    effects = FakeEffects()
    runner = make_runner(effects, serving())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run)
        await trio.sleep(2)
        kept = effects.kept
        assert kept > 0
        autojump_clock.jump(30.0)
        runner.deliver(ev.Tick(trio.current_time()))
        await trio.testing.wait_all_tasks_blocked()
        assert any(note.startswith("paused: this process stood still") for note in effects.notes)
        assert runner.node.modules["pg"].view is None
        assert "RefreshRfs" in effects.done
        assert effects.kept == kept, "an address is not renewed on a doubt"
        nursery.cancel_scope.cancel()


async def test_commands_are_remembered_before_they_are_answered(autojump_clock: trio.testing.MockClock) -> None:
    effects = FakeEffects()
    runner = make_runner(effects, serving())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run)
        assert (await runner.ask(lambda now, request: ev.Stop(now, "pg", request))).code == 0
        assert effects.written == [False]
        assert (await runner.ask(lambda now, request: ev.Stop(now, "web", request))).code == 1
        nursery.cancel_scope.cancel()


async def test_a_disk_that_hangs_holds_up_an_answer_and_nothing_else(autojump_clock: trio.testing.MockClock) -> None:
    effects = FakeEffects()
    effects.disk = trio.Event()
    runner = make_runner(effects, serving())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run)
        answers: list[int] = []

        async def stop() -> None:
            answers.append((await runner.ask(lambda now, request: ev.Stop(now, "pg", request))).code)

        nursery.start_soon(stop)
        await trio.sleep(20)
        assert "StopServices ends" in effects.done and "VipDown ends" in effects.done
        assert effects.written == [] and answers == []
        effects.disk.set()
        await trio.sleep(0.1)
        assert effects.written == [False] and answers == [0]
        nursery.cancel_scope.cancel()


async def test_heartbeats_that_say_nothing_new_are_only_noted(autojump_clock: trio.testing.MockClock) -> None:
    effects = FakeEffects()
    runner = make_runner(effects, serving())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run)
        await trio.sleep(0.1)
        peer = {"pg": Summary(state=State.WAIT)}
        for counter in range(1, 12):
            changed = runner.changed
            with trio.move_on_after(0.01) as unchanged:
                nursery.start_soon(changed)
                runner.deliver(ev.Heartbeat(trio.current_time(), "lan", 7, counter, counter, peer))
                await changed()
            assert unchanged.cancelled_caught is (counter > 1), "the first brings a peer and its modules"
        assert runner.node.detector.networks["lan"].counter == 11
        assert not runner.node.around.peer_silent
        await trio.sleep(4)
        assert runner.node.around.peer_silent, "silence is found by the ticks"
        nursery.cancel_scope.cancel()


async def test_an_address_is_kept_often_only_while_it_is_new(autojump_clock: trio.testing.MockClock) -> None:
    effects = FakeEffects()
    runner = make_runner(effects, serving())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run)
        await trio.sleep(10)
        assert 9 <= effects.kept <= 11
        runner.deliver(ev.AddressLost(trio.current_time(), "pg", "it is gone"))
        await trio.sleep(2.5)  # put back after a pause
        kept = effects.kept
        await trio.sleep(1)
        assert effects.kept >= kept + 3
        nursery.cancel_scope.cancel()


def test_every_lane_has_its_actions() -> None:
    concrete = {kind for kind in vars(act).values() if isinstance(kind, type) and issubclass(kind, act.Ticketed)}
    assert set(act.LANE_OF) == concrete - {act.Ticketed}
    assert set(act.LANE_OF.values()) == set(Lane)
