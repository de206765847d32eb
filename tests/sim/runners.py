"""The same world moved by trio's clock: each hactld is a real Runner around its core, with lanes that replace each other, renewals, answers
that wait for the disk, and its own notice of a pause. What the faster simulator (cluster.py) plays by hand, the product's loop does here.

The clock is trio's MockClock, which jumps: a life of minutes takes a part of a second. A hactld that dies is a scope that is cancelled; a
frozen machine is a runner to which nothing is delivered, its own ticks included, so it finds out by itself that it stood still.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Mapping
from typing import Any

import trio
import trio.testing

from orchestrator.core import actions as act
from orchestrator.core import events as ev
from orchestrator.core.states import Memory
from orchestrator.core.turn import Node
from orchestrator.effects import EffectFailed
from orchestrator.runner import Runner
from tests.sim import resources, walk
from tests.sim.cluster import ADDRESS_LIFETIME_S, HANG_S, MODULE, PEOPLE, TICK_S, Cluster
from tests.sim.fake_rfs import Refused
from tests.sim.machine import Machine

ASK_DEADLINE_S = 7.0
OWN_REQUESTS = 1_000_000  # the world's commands are numbered from here on, the runner's own questions below

# What chance may do that does not itself let time pass: that is awaited here.
FAULTS: tuple[walk.Fault, ...] = (
    lambda cluster, chance, name: cluster.power_off(name),
    lambda cluster, chance, name: cluster.freeze(name),
    lambda cluster, chance, name: cluster.kill_hactld(name),
    walk.rfs_dies, walk.rfs_dies, walk.service_dies, walk.cut, walk.isolate, walk.cut_one_way, walk.weather, walk.heal, walk.heal,
    walk.witness_dies, walk.services_hang, walk.services_fail, walk.services_recover, walk.slow_socket, walk.address_is_taken_away,
    walk.told(ev.Stop, ev.Start, ev.Swap, ev.Restart, ev.Start), walk.told(ev.Swap), walk.told(ev.StopStart), walk.switch,
    walk.scripts_fail, walk.counted, walk.checkers, walk.second, walk.prim,
)  # fmt: skip


class WatchedRunner(Runner):
    """The product's loop, with the oracle looking over its shoulder."""

    def __init__(self, node: Node, effects: Effects) -> None:
        super().__init__(node, effects)
        self.cluster, self.machine = effects.cluster, effects.machine
        self._said: list[act.Reply] = []

    def deliver(self, event: ev.Event) -> None:
        if self.machine.frozen:
            self.machine.backlog.append(event)
        else:
            super().deliver(event)

    def _step(self, nursery: trio.Nursery, event: ev.Event) -> None:
        cluster, machine = self.cluster, self.machine
        cluster.visited.add((self.node.modules[MODULE].shown[0].value, type(event).__name__))
        before, self._said = self.node.detector, []
        was_paired = all(cluster.oracle.recently(each, "paired") for each in cluster.machines.values())
        super()._step(nursery, event)
        machine.core = self.node
        if isinstance(event, ev.Heartbeat):
            cluster.oracle.heard(machine, before)
            if self.node.detector != before:
                cluster.oracle.seen[machine.name].heard_at = cluster.now
        if isinstance(event, PEOPLE) and self._said:
            if self._said[0].code == 0:
                cluster.oracle.forgive(machine, event)
            if machine.memory == self.effects.pending:  # type: ignore[attr-defined]
                cluster.oracle.commanded(machine, event, self._said[0].code, was_paired)
        cluster.oracle.look()

    def _perform(self, nursery: trio.Nursery, action: act.Action) -> None:
        self.machine.core = self.node
        if isinstance(action, act.Ticketed):
            self.cluster.note(f"{self.machine.name} {action}")
            self.cluster.oracle.ordered(self.machine, action)
        elif isinstance(action, act.Reply):
            self._said.append(action)
            if action.request >= OWN_REQUESTS:
                self.cluster.oracle.replied(self.machine, action)
                self.cluster.replies.append((action.code, action.message))
        super()._perform(nursery, action)


class Effects:
    """runner.Effects in the world of a RunnerCluster."""

    def __init__(self, cluster: RunnerCluster, machine: Machine) -> None:
        self.cluster, self.machine = cluster, machine
        self.pending = machine.memory

    async def perform(self, action: act.Ticketed) -> None:
        cluster, machine = self.cluster, self.machine
        if isinstance(action, act.AskPeerPromote | act.AskPeerOutdate):
            await self._ask_peer(action)
            return
        slow = isinstance(action, act.StartServices | act.StopServices | act.RestartServices | act.StartRfs)
        hangs = machine.hangs and type(action) in HANG_S and not (isinstance(action, act.StopServices) and action.kill)
        await trio.sleep(HANG_S[type(action)] if hangs else cluster.random.uniform(0.0, 0.8 if slow else 0.2))
        await self._thawed()
        try:
            if hangs and isinstance(action, act.StartServices | act.RestartServices):
                raise Refused("the service was not ready in time")
            cluster.carry_out(machine, action)
        except Refused as refusal:
            if isinstance(action, act.StartServices | act.RestartServices):
                cluster.oracle.seen[machine.name].failures += 1
            raise EffectFailed(str(refusal), refused=True) from refusal
        cluster.publish(machine)
        await trio.sleep(cluster.random.uniform(0.06, cluster.slow_done_s))

    async def _thawed(self) -> None:
        while self.machine.frozen:
            await trio.sleep(0.1)

    async def _ask_peer(self, action: act.AskPeerPromote | act.AskPeerOutdate) -> None:
        cluster, peer = self.cluster, self.cluster.other(self.machine)

        def question(now: float, request: int) -> ev.Command:
            if isinstance(action, act.AskPeerPromote):
                return ev.PeerAskedPromote(now, MODULE, request, action.force)
            return ev.PeerAskedOutdate(now, MODULE, request)

        with trio.move_on_after(ASK_DEADLINE_S):
            await trio.sleep(cluster.random.uniform(0.001, 0.05))
            if cluster.reachable() and peer.hactld and (runner := cluster.runners.get(peer.name)) is not None:
                answer = await runner.ask(question)
                await trio.sleep(cluster.random.uniform(0.001, cluster.answer_within_s))
                if cluster.reachable() and answer.code == 0:
                    return
                if cluster.reachable():
                    raise EffectFailed(answer.message, refused=True)
            await trio.sleep_forever()
        raise EffectFailed("the peer did not answer")

    async def keep_address(self, module: str) -> None:
        if self.machine.address_until <= self.cluster.now:
            raise EffectFailed("it expired")
        self.machine.address_until = self.cluster.now + ADDRESS_LIFETIME_S

    async def probe_address(self, module: str) -> None:
        await trio.sleep(0.3)

    async def refresh_rfs(self, module: str) -> None:
        self.machine.last_view = None

    def remember(self, module: str, memory: Memory) -> None:
        self.pending = memory

    async def write_down(self) -> None:
        memory = self.pending
        await trio.sleep(self.cluster.random.uniform(0.0, 0.3))
        self.machine.memory = memory

    def notify(self, module: str, kind: str, text: str, inputs: Mapping[str, Any] | None) -> None:
        self.cluster.note(f"{self.machine.name} {kind} {text}")
        self.cluster.oracle.decided(self.machine, act.Notify(module, kind, text, inputs))

    def pulse_now(self) -> None:
        self.cluster.send_heartbeats(self.machine)

    async def tell_peer(self) -> None:
        self.cluster.tell_peer(self.machine)

    def pulses(self) -> int:
        return self.machine.counter


class RunnerCluster(Cluster):
    """Both servers; `nursery` is where all of it runs."""

    def __init__(self, nursery: trio.Nursery, seed: int, policy: str = "availability", ping: bool = True, witness: bool = False) -> None:
        self.nursery = nursery
        self.runners: dict[str, WatchedRunner] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._earlier = trio.Event()
        super().__init__(seed, policy, ping, witness)
        self.request_numbers = itertools.count(OWN_REQUESTS)
        nursery.start_soon(self._dispatch)

    @property
    def now(self) -> float:
        return trio.current_time()

    @now.setter
    def now(self, value: float) -> None:
        assert value == 0.0, "the clock is trio's"

    def at(self, when: float, what: Callable[[], None]) -> None:
        """In order also where the times are equal: what goes over one socket does not overtake."""
        super().at(when, what)
        self._earlier.set()

    async def _dispatch(self) -> None:
        while True:
            self._earlier = trio.Event()
            with trio.move_on_at(self.heap[0][0] if self.heap else float("inf")):
                await self._earlier.wait()
            while self.heap and self.heap[0][0] <= self.now:
                heapq.heappop(self.heap)[2]()
                self.oracle.look()

    def run(self, seconds: float) -> None:
        raise AssertionError("time passes by itself here: await it")

    # ---- hactld -----------------------------------------------------------------------------------------------------------

    def start_hactld(self, name: str) -> None:
        self.runners.pop(name, None)
        super().start_hactld(name)

    def deliver(self, machine: Machine, event: ev.Event) -> None:
        """To the runner; the first event of a hactld starts it."""
        if not (machine.powered and machine.hactld):
            return
        if machine.name not in self.runners:
            assert machine.core is not None
            self.runners[machine.name] = WatchedRunner(machine.core, Effects(self, machine))
            self._scopes[machine.name] = trio.CancelScope()
            self.nursery.start_soon(self._live, self.runners[machine.name], self._scopes[machine.name])
        self.runners[machine.name].deliver(event)

    async def _live(self, runner: WatchedRunner, scope: trio.CancelScope) -> None:
        with scope:
            await runner.run()

    def tick(self, machine: Machine, incarnation: int) -> None:
        """The runner ticks by itself; this is the pinger."""
        if machine.hactld and machine.incarnation == incarnation:
            resources.look(self, machine)
            self.deliver(machine, ev.PingVerdict(self.now, machine.reaches_ping))
            self.at(self.now + TICK_S, lambda: self.tick(machine, incarnation))

    def kill_hactld(self, name: str) -> None:
        super().kill_hactld(name)
        self._end(name)

    def power_off(self, name: str) -> None:
        super().power_off(name)
        self._end(name)

    def _end(self, name: str) -> None:
        if self.runners.pop(name, None) is not None:
            self._scopes.pop(name).cancel()

    def told(self, machine: Machine) -> Memory:
        return self.runners[machine.name].effects.pending if machine.name in self.runners else machine.memory  # type: ignore[attr-defined]

    async def until_shown(self, seconds: float, **wanted: str) -> None:
        """As Cluster.wait."""
        with trio.move_on_after(seconds):
            while {name: self.shown(name) for name in wanted} != wanted:
                await trio.sleep(0.1)
            return
        seen = {name: (self.shown(name), self.reason(name)) for name in self.machines}
        raise AssertionError(f"wanted {wanted}, got {seen}\n" + "\n".join(self.trace[-60:]))


async def settle(cluster: RunnerCluster) -> None:
    """The first start, until all is well."""
    for name in cluster.machines:
        cluster.boot(name)
    await trio.sleep(1.0)
    cluster.command("node1", ev.Prim)
    cluster.command("node2", ev.Second)
    await cluster.until_shown(25.0, node1="PRIM Ready", node2="SECOND Ready")


async def make_peace(cluster: RunnerCluster) -> None:
    """Nothing is broken any more, and both are told to run."""
    for name in walk.repair(cluster):
        await trio.sleep(0.3)
        walk.tell_to_run(cluster, name)


async def live(seed: int, witness: bool) -> set[tuple[str, str]]:
    """One life, from the first start to peace; the states and events that it visited."""
    chance = random.Random(seed * 104729)
    async with trio.open_nursery() as nursery:
        policy = chance.choice(("availability", "consistency"))
        cluster = RunnerCluster(nursery, seed, policy, ping=not witness or chance.random() < 0.3, witness=witness)
        cluster.talkative = chance.random() < 0.3
        cluster.default_primary, cluster.max_restarts = chance.choice(("alone", "lastprim", "node1", "node2")), chance.choice((3, 50))
        resources.by_chance(cluster, seed)
        await settle(cluster)
        for _ in range(chance.randrange(2, 14)):
            resources.disturb(cluster)
            walk.disturb(cluster, chance, FAULTS)
            await trio.sleep(chance.choice(walk.PAUSES_S))
        await make_peace(cluster)
        for _ in range(walk.PEACE_STEPS):
            await trio.sleep(0.2)
            if walk.is_well(cluster):
                break
        else:
            states = {name: (cluster.shown(name), cluster.reason(name), vars(machine.rfs)) for name, machine in cluster.machines.items()}
            raise AssertionError(f"no peace: {states}\n" + "\n".join(cluster.trace[-100:]))
        await trio.sleep(0.5)
        if walk.is_well(cluster):
            cluster.oracle.at_peace()
        nursery.cancel_scope.cancel()
    return cluster.visited


def play(seed: int, witness: bool) -> set[tuple[str, str]]:
    """The same on a clock that jumps, and in the same order each time; AssertionError says what went wrong."""
    scheduler: Any = trio._core._run  # trio has no public way to make the order of tasks repeatable; pytest-trio does the same
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    scheduler._r.seed(seed)
    try:
        return trio.run(live, seed, witness, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
