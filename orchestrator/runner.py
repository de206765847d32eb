"""One loop: event -> core.step -> actions -> effects -> events.

The loop is the only place where the core's state changes, so nothing in it needs a lock. Actions of one lane of a module run one
after the other: a newer order cancels the older one, waits until that has put things in order, and only then begins. The loop
watches its own pulse: if it was not scheduled for longer than a tick and a second, the process stood still, and the core hears that
before it hears anything else. What brings nothing new is noted and not stepped through.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import trio

from orchestrator.core import actions as act
from orchestrator.core import events as ev
from orchestrator.core.machine import observe, step
from orchestrator.core.states import Lane, Memory
from orchestrator.core.turn import Node
from orchestrator.effects import EffectFailed

TICK_S = 0.25
LATE_S = 1.0
AT_ONCE_S = 0.001  # rounding must not make it a moment too early
KEEP_EVERY_S = 1.0  # an address is looked at so often; it lives 15 s
KEEP_OFTEN_S = 0.2  # and so often while it is new: its first announcements may be lost
NEW_FOR_S = 2.0
REPLY_DEADLINE_S = 90.0
QUIET = (ev.Heartbeat, ev.PingVerdict)  # what mostly says only that all is as it was


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a command."""

    code: int
    message: str


class Effects(Protocol):
    """What the runner needs of the world."""

    async def perform(self, action: act.Ticketed) -> None:
        """Carry it out; EffectFailed says no."""
        ...

    async def keep_address(self, module: str) -> None:
        """Renew the lifetime of the address."""
        ...

    async def probe_address(self, module: str) -> None:
        """Ask whether a foreign machine has the addresses."""
        ...

    async def refresh_rfs(self, module: str) -> None:
        """Ask rfsmount for its status."""
        ...

    def remember(self, module: str, memory: Memory) -> None:
        """To be written down."""
        ...

    async def write_down(self) -> None:
        """What is remembered now is durable when it returns."""
        ...

    def notify(self, module: str, kind: str, text: str, inputs: Mapping[str, Any] | None) -> None:
        """A line for people."""
        ...

    def pulse_now(self) -> None:
        """Send heartbeats at once."""
        ...

    async def tell_peer(self) -> None:
        """Say the same over the call channel."""
        ...

    def pulses(self) -> int:
        """Our newest heartbeat counter."""
        ...


@dataclass(slots=True)
class LaneWork:
    """What runs in a lane."""

    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    over: trio.Event = field(default_factory=trio.Event)


def says_nothing_new(before: Node, after: Node) -> bool:
    """Did an event only move the clocks? What follows from those, the next tick finds: with 32 modules a dozen heartbeats come in a second,
    and each would settle all of them."""
    as_before = replace(before.around, now=after.around.now, peer_heard_at=after.around.peer_heard_at)
    return after.peer_modules == before.peer_modules and after.around == as_before


class Runner:
    """Owns the core's state."""

    def __init__(self, node: Node, effects: Effects) -> None:
        self.node, self.effects = node, effects
        self._events_in, self._events_out = trio.open_memory_channel[ev.Event](math.inf)
        self._lanes: dict[tuple[str, Lane], LaneWork] = {}
        self._unwritten: Counter[str] = Counter()  # by module: what it remembers and is not on the disk yet
        self._keeping: set[str] = set()
        self._taken_at: dict[str, float] = {}  # the address
        self._keep_at: dict[str, float] = {}
        self._requests = 0
        self._waiting: dict[int, tuple[trio.Event, list[Answer]]] = {}
        self._changed = trio.Event()
        self._alive_at = trio.current_time()

    def deliver(self, event: ev.Event) -> None:
        """An event for the core; never waits."""
        self._events_in.send_nowait(event)

    async def ask(self, make: Callable[[float, int], ev.Command]) -> Answer:
        """A command, and its answer."""
        self._requests += 1
        number, done, box = self._requests, trio.Event(), list[Answer]()
        self._waiting[number] = (done, box)
        try:
            self.deliver(make(trio.current_time(), number))
            with trio.move_on_after(REPLY_DEADLINE_S):
                await done.wait()
        finally:
            self._waiting.pop(number, None)
        return box[0] if box else Answer(7, f"no answer after {REPLY_DEADLINE_S:.0f} s; see 'hactl status'")

    @property
    def is_late(self) -> bool:
        """No step was taken for longer than a tick and a second: this process stood still, and the core does not know it yet."""
        return trio.current_time() - self._alive_at > TICK_S + LATE_S

    @property
    def is_busy(self) -> bool:
        """An order of the core's is being carried out."""
        return any(not work.over.is_set() for work in self._lanes.values())

    async def changed(self) -> None:
        """Until something is known of a module that was not, here or of the peer's."""
        await self._changed.wait()

    async def run(self) -> None:
        """Until cancelled."""
        self._alive_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tick)
            async for event in self._events_out:
                now = trio.current_time()
                late_s = now - self._alive_at - TICK_S
                self._alive_at = now
                if late_s > LATE_S:
                    self._step(nursery, ev.Paused(now, late_s, self.effects.pulses()))
                self._step(nursery, event)

    async def _tick(self) -> None:
        """A pulse, and one more at the moment in which the peer's silence has lasted long enough."""
        while True:
            now = trio.current_time()
            silent_at = self.node.detector.falls_silent_at()
            await trio.sleep_until(silent_at + AT_ONCE_S if now < silent_at < now + TICK_S else now + TICK_S)
            self.deliver(ev.Tick(trio.current_time()))

    def _step(self, nursery: trio.Nursery, event: ev.Event) -> None:
        noted = observe(self.node, event) if isinstance(event, QUIET) else None
        if noted is not None and says_nothing_new(self.node, noted):
            self.node = noted
            return
        before = self.node
        self.node, actions = step(before, event)
        for action in actions:
            self._perform(nursery, action)
        if self.node.modules is not before.modules or self.node.peer_modules is not before.peer_modules:  # else only time has passed
            changed, self._changed = self._changed, trio.Event()
            changed.set()

    def _perform(self, nursery: trio.Nursery, action: act.Action) -> None:
        match action:
            case act.Ticketed():
                if isinstance(action, act.VipUp):
                    self._taken_at[action.module] = self._keep_at[action.module] = trio.current_time()
                key = (action.module, act.LANE_OF[type(action)])
                before, work = self._lanes.get(key), LaneWork()
                self._lanes[key] = work
                if before is not None:
                    before.scope.cancel()
                nursery.start_soon(self._work, action, key, work, before)
            case act.KeepVip():
                now = trio.current_time()
                if action.module not in self._keeping and now >= self._keep_at.get(action.module, now):
                    is_new = now - self._taken_at.get(action.module, -math.inf) < NEW_FOR_S
                    self._keep_at[action.module] = now + (KEEP_OFTEN_S if is_new else KEEP_EVERY_S)
                    self._keeping.add(action.module)
                    nursery.start_soon(self._keep, action.module)
            case act.ProbeVip():
                nursery.start_soon(self.effects.probe_address, action.module)
            case act.RefreshRfs():
                nursery.start_soon(self.effects.refresh_rfs, action.module)
            case act.Remember():
                self.effects.remember(action.module, action.memory)
                self._unwritten[action.module] += 1
                nursery.start_soon(self._write_down, action.module)
            case act.Reply():
                if self._unwritten[action.module]:
                    nursery.start_soon(self._reply_when_written, action)
                else:
                    self._reply(action)
            case act.TellPeer():
                self.effects.pulse_now()
                if action.call:
                    nursery.start_soon(self.effects.tell_peer)
            case act.Notify():
                self.effects.notify(action.module, action.kind, action.text, action.inputs)
            case _:
                raise AssertionError(f"nobody performs {type(action).__name__}")

    async def _write_down(self, module: str) -> None:
        await self.effects.write_down()
        self._unwritten[module] -= 1

    async def _reply_when_written(self, reply: act.Reply) -> None:
        """Who is told that something will be so must find it so after a crash. Nobody else waits for the disk."""
        await self.effects.write_down()
        self._reply(reply)

    def _reply(self, reply: act.Reply) -> None:
        if (waiting := self._waiting.get(reply.request)) is not None:
            waiting[1].append(Answer(reply.code, reply.message))
            waiting[0].set()

    async def _work(self, action: act.Ticketed, key: tuple[str, Lane], work: LaneWork, before: LaneWork | None) -> None:
        try:
            if before is not None:
                await before.over.wait()
            with work.scope:
                try:
                    await self.effects.perform(action)
                except EffectFailed as failure:
                    failed = ev.Failed(trio.current_time(), action.module, key[1], action.ticket, str(failure), failure.refused)
                    self.deliver(failed)
                except OSError as error:
                    self.deliver(ev.Failed(trio.current_time(), action.module, key[1], action.ticket, f"{type(action).__name__}: {error}"))
                else:
                    self.deliver(ev.Done(trio.current_time(), action.module, key[1], action.ticket))
        finally:
            work.over.set()

    async def _keep(self, module: str) -> None:
        """Renewing takes its turn behind the address's own actions: a renewal must not overtake a removal."""
        try:
            work = self._lanes.get((module, Lane.ADDRESS))
            if work is None or work.over.is_set():
                await self.effects.keep_address(module)
        except EffectFailed as failure:
            self.deliver(ev.AddressLost(trio.current_time(), module, str(failure)))
        finally:
            self._keeping.discard(module)
