"""Two real cores in a fake world: time, networks, rfsmount, services and addresses are simulated, everything decided is real.

Node faults: power off and on, freeze and thaw, death of hactld, of rfsmount, of the service, services that hang or do not start. Network
faults: each network cut, both ways or one way, lossy or slow, the node cut off from everything (networks.py). The oracle (oracle.py) looks
after every event and at every order.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import replace

from orchestrator.core import actions as act
from orchestrator.core import events as ev
from orchestrator.core.detector import Detector
from orchestrator.core.machine import step
from orchestrator.core.rules_language import Rule
from orchestrator.core.states import Memory, Module, Point, Surroundings
from orchestrator.core.turn import Node
from tests.sim import resources
from tests.sim.fake_rfs import FakeRfs, FakeWitness, Refused, meet, pair
from tests.sim.machine import Machine
from tests.sim.networks import NETWORKS, Networks
from tests.sim.oracle import Oracle, Seen

MODULE = "pg"
ADDRESS_LIFETIME_S = 15.0
TICK_S = 0.25
HANG_S = {act.StartServices: 15.0, act.RestartServices: 15.0, act.StopServices: 10.0}  # then the runner's deadline has ended it
PEOPLE = (ev.Start, ev.Stop, ev.Restart, ev.StopStart, ev.Switch, ev.Swap, ev.Prim, ev.Second)


class Cluster:
    """Both servers and everything between them."""

    def __init__(self, seed: int, policy: str = "availability", ping: bool = True, witness: bool = False) -> None:
        self.random = random.Random(seed)
        self.witness = FakeWitness() if witness else None
        self.policy, self.ping = policy, ping
        self.now = 0.0
        self.heap: list[tuple[float, int, Callable[[], None]]] = []
        self.sequence = itertools.count()
        names = itertools.count(1)
        self.machines = {name: Machine(name, lambda: next(names)) for name in ("node1", "node2")}
        for machine in self.machines.values():
            machine.rfs.witness = self.witness
        self.networks = Networks(self.random)
        self.incarnations: dict[int, int] = {}  # of all hactld, in the order in which they were started
        self.requests: dict[tuple[str, int], Callable[[int, str], None]] = {}
        self.request_numbers = itertools.count(1)
        self.acknowledged = 0
        self.answer_within_s = 0.05
        self.trace: list[str] = []
        self.service_fails = False
        self.failing_scripts: set[str] = set()
        self.forgive_old_data = False
        self.default_primary = "alone"
        self.max_restarts = 50
        self.rules: tuple[Rule, ...] = ()  # and what they speak of is watched
        self.breakage: random.Random | None = None
        self.blind_until = 0.0  # so long no look of theirs ends
        self.replies: list[tuple[int, str]] = []
        self.visited: set[tuple[str, str]] = set()
        self.talkative = False  # everything is told over the call channel as well
        self.slow_status_s, self.slow_done_s = 0.05, 0.1
        self.oracle = Oracle(self)
        self.at(0.0, self.world_tick)

    # ---- time ---------------------------------------------------------------------------------------------------------

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.heap, (when, next(self.sequence), what))

    def after(self, low: float, high: float, what: Callable[[], None]) -> None:
        self.at(self.now + self.random.uniform(low, high), what)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.heap and self.heap[0][0] <= end:
            self.now, _, what = heapq.heappop(self.heap)
            what()
            self.oracle.look()
        self.now = end

    def other(self, machine: Machine) -> Machine:
        return self.machines["node2" if machine.name == "node1" else "node1"]

    def note(self, text: str) -> None:
        self.trace.append(f"{self.now:8.2f} {text}")

    def acknowledges(self, machine: Machine) -> bool:
        return machine.powered and not machine.frozen and machine.services and machine.rfs.serves

    def told(self, machine: Machine) -> Memory:
        """What people told the node last, be it written down or on its way."""
        return machine.memory

    @property
    def cut(self) -> set[str]:
        return self.networks.cut

    # ---- the world moves ----------------------------------------------------------------------------------------------

    def data_link(self) -> bool:
        return self.networks.connects("repl") and all(m.powered and not m.frozen and m.rfs.alive for m in self.machines.values())

    def world_tick(self) -> None:
        one, two = self.machines.values()
        if not self.data_link():
            one.rfs.lose_link()
            two.rfs.lose_link()
        else:
            if one.rfs.linked != two.rfs.linked:
                one.rfs.lose_link()
                two.rfs.lose_link()
            willing = all(m.rfs.mode != "fenced" and m.rfs.link != "diverged" for m in (one, two))
            if not one.rfs.linked and willing and self.random.random() < 0.3:
                self.settle_old_primary(one.rfs, two.rfs)
                self.settle_old_primary(two.rfs, one.rfs)
                meet(one.rfs, two.rfs, self.now)
            for source, target in ((one, two), (two, one)):
                if source.rfs.resync_until is not None and self.now >= source.rfs.resync_until:
                    pair(source.rfs, target.rfs)
        for machine in (one, two):
            self.publish(machine)
            if machine.services and not machine.rfs.alive and self.random.random() < 0.1:
                self.service_dies(machine)
        self.at(self.now + 0.1, self.world_tick)

    @staticmethod
    def settle_old_primary(rfs: FakeRfs, other: FakeRfs) -> None:
        """A frozen primary that meets a peer with a newer generation is fenced before anything else."""
        assert rfs.record is not None and other.record is not None
        mine, theirs = rfs.record.lineage, other.record.lineage
        newer = len(theirs) > len(mine) and theirs[: len(mine)] == mine
        if newer and rfs.role == "primary" and rfs.mode == "frozen":
            rfs.role, rfs.mode, rfs.link = "secondary", "idle", "connecting"
            rfs.record.role = "secondary"

    def publish(self, machine: Machine) -> None:
        if not (machine.powered and machine.hactld and machine.rfs.alive and machine.session):
            return
        view, session = machine.rfs.view(), machine.session
        if view != machine.last_view:
            machine.last_view = view
            machine.published_at = max(
                machine.published_at, self.now + self.random.uniform(0.0, self.slow_status_s)
            )  # one socket: in order
            self.at(machine.published_at, lambda: self.deliver(machine, ev.RfsStatus(self.now, MODULE, session, view)))

    # ---- hactld -------------------------------------------------------------------------------------------------------

    def boot(self, name: str) -> None:
        machine = self.machines[name]
        assert not machine.powered
        machine.powered, machine.frozen = True, False
        self.note(f"{name} boots")
        self.start_hactld(name)

    def start_hactld(self, name: str) -> None:
        machine = self.machines[name]
        machine.hactld = True
        machine.incarnation = self.random.randrange(1, 2**60)
        machine.max_restarts = self.max_restarts
        self.incarnations[machine.incarnation] = len(self.incarnations) + 1
        self.oracle.seen[name] = Seen()
        machine.counter, machine.heard, machine.backlog, machine.lanes, machine.last_view = 0, {}, [], {}, None
        machine.session = 0
        around = Surroundings(
            node=name, peer=self.other(machine).name, policy=self.policy, timeout_s=3.0,  # type: ignore[arg-type]
            has_ping=self.ping, has_witness=self.witness is not None, now=self.now,
        )  # fmt: skip
        machine.core = Node(
            around,
            Detector.new(NETWORKS, 3.0, self.now),
            {MODULE: self.module()},
        )
        machine.last_step_at = self.now
        rfs, address = machine.rfs, machine.address_until > self.now
        memory = machine.memory
        found = ev.Found(
            self.now, MODULE, memory.wanted, rfs.record is not None, machine.holds_files, rfs.alive, machine.services, address,
            memory.paused, memory.led, memory.boot, memory.unchecked, machine.entered,
        )  # fmt: skip
        self.deliver(machine, found)
        self.tick(machine, machine.incarnation)
        self.pulse(machine, machine.incarnation)

    def module(self) -> Module:
        """The module as it is configured."""
        watched = {name: when for name, when in resources.WATCHED.items() if any(name in str(rule.text) for rule in self.rules)}
        return Module(
            MODULE, max_restarts=self.max_restarts, default_primary=self.default_primary, rules=self.rules, watched=watched
        )

    def tick(self, machine: Machine, incarnation: int) -> None:
        if not machine.hactld or machine.incarnation != incarnation:
            return
        resources.look(self, machine)
        self.deliver(machine, ev.PingVerdict(self.now, machine.reaches_ping))
        self.deliver(machine, ev.Tick(self.now))
        self.at(self.now + TICK_S, lambda: self.tick(machine, incarnation))

    def pulse(self, machine: Machine, incarnation: int) -> None:
        if not machine.hactld or machine.incarnation != incarnation:
            return
        if not machine.frozen:
            self.send_heartbeats(machine)
        self.at(self.now + 0.5, lambda: self.pulse(machine, incarnation))

    def send_heartbeats(self, machine: Machine) -> None:
        assert machine.core is not None
        machine.counter += 1
        peer = self.other(machine)
        for network in NETWORKS:
            if not self.networks.carries(network, machine.name):
                continue
            echo_incarnation, echo = machine.heard.get(network, (0, 0))
            pulse = (network, machine.incarnation, machine.counter, echo_incarnation, echo, machine.core.summaries())
            self.after(*self.networks.delay_s(network), lambda pulse=pulse: self.hear(peer, *pulse))  # type: ignore[misc]

    def tell_peer(self, machine: Machine) -> None:
        """The same over the call channel."""
        assert machine.core is not None
        peer, said = self.other(machine), (machine.incarnation, machine.counter, machine.core.summaries())
        if self.reachable():
            self.after(0.005, 0.1, lambda: self.deliver(peer, ev.PeerTold(self.now, *said)))

    def hear(self, machine: Machine, network: str, incarnation: int, counter: int, echo_incarnation: int, echo: int, modules: dict) -> None:
        if machine.hactld and machine.powered:
            newest = machine.heard.get(network, (0, 0))
            if self.incarnations[incarnation] >= self.incarnations.get(newest[0], 0):
                machine.heard[network] = max((incarnation, counter), newest) if incarnation == newest[0] else (incarnation, counter)
            known = echo if echo_incarnation == machine.incarnation else 0
            self.deliver(machine, ev.Heartbeat(self.now, network, incarnation, counter, known, modules))

    def deliver(self, machine: Machine, event: ev.Event) -> None:
        if not (machine.powered and machine.hactld):
            return
        if machine.frozen:
            machine.backlog.append(event)
            return
        assert machine.core is not None
        if self.now - machine.last_step_at > 1.25:
            self.apply(machine, ev.Paused(self.now, self.now - machine.last_step_at, machine.counter))
        self.apply(machine, event)

    def apply(self, machine: Machine, event: ev.Event) -> None:
        assert machine.core is not None
        machine.last_step_at = self.now
        self.visited.add((machine.core.modules[MODULE].shown[0].value, type(event).__name__))
        before = machine.core.detector
        was_paired = all(self.oracle.recently(each, "paired") for each in self.machines.values())
        machine.core, actions = step(machine.core, replace(event, now=self.now))
        if isinstance(event, ev.Heartbeat):
            self.oracle.heard(machine, before)
            if machine.core.detector != before:  # else it was said before what was heard already
                self.oracle.seen[machine.name].heard_at = self.now
        answers = [action.code for action in actions if isinstance(action, act.Reply)]
        if isinstance(event, PEOPLE) and answers and answers[0] == 0:
            self.oracle.forgive(machine, event)
        for action in actions:
            self.perform(machine, action)
        if isinstance(event, PEOPLE):
            self.oracle.commanded(machine, event, answers[0] if answers else None, was_paired)

    # ---- effects ------------------------------------------------------------------------------------------------------

    def perform(self, machine: Machine, action: act.Action) -> None:
        match action:
            case act.Notify():
                self.note(f"{machine.name} {action.kind} {action.text}")
                self.oracle.decided(machine, action)
            case act.Reply():
                self.oracle.replied(machine, action)
                self.replies.append((action.code, action.message))
                answer = self.requests.pop((machine.name, action.request), None)
                if answer:
                    answer(action.code, action.message)
            case act.Remember():
                machine.memory = action.memory
            case act.TellPeer():
                self.send_heartbeats(machine)
                if action.call or self.talkative:
                    self.tell_peer(machine)
            case act.KeepVip():
                if machine.address_until > self.now:
                    machine.address_until = self.now + ADDRESS_LIFETIME_S
                else:
                    self.deliver_later(machine, ev.AddressLost(self.now, MODULE, "it expired"))
            case act.RefreshRfs():
                machine.last_view = None
            case act.Ticketed():
                self.note(f"{machine.name} {action}")
                self.oracle.ordered(machine, action)
                machine.lanes[act.LANE_OF[type(action)]] = action.ticket
                if isinstance(action, act.AskPeerPromote | act.AskPeerOutdate):
                    self.ask_peer(machine, action)
                else:
                    slow = isinstance(action, act.StartServices | act.StopServices | act.RestartServices | act.StartRfs)
                    least = 0.0 if isinstance(action, act.RunScript) else 0.05
                    incarnation = machine.incarnation
                    if machine.hangs and type(action) in HANG_S and not (isinstance(action, act.StopServices) and action.kill):
                        self.at(self.now + HANG_S[type(action)], lambda: self.complete(machine, incarnation, action, late=True))
                    else:
                        self.after(least, 0.8 if slow else 0.2, lambda: self.complete(machine, incarnation, action))

    def deliver_later(self, machine: Machine, event: ev.Event) -> None:
        self.after(0.0, 0.02, lambda: self.deliver(machine, event))

    def complete(self, machine: Machine, incarnation: int, action: act.Ticketed, *, late: bool = False) -> None:
        lane = act.LANE_OF[type(action)]
        if not (machine.powered and machine.hactld and machine.incarnation == incarnation) or machine.lanes.get(lane) != action.ticket:
            return
        if machine.frozen:
            self.at(self.now + 0.1, lambda: self.complete(machine, incarnation, action, late=late))
            return
        try:
            if late and isinstance(action, act.StartServices | act.RestartServices):
                raise Refused("the service was not ready in time")
            self.carry_out(machine, action)
        except Refused as refusal:
            if isinstance(action, act.StartServices | act.RestartServices):
                self.oracle.seen[machine.name].failures += 1
            failed = ev.Failed(self.now, MODULE, lane, action.ticket, str(refusal), True)
            self.at(self.now + self.slow_done_s - 0.1, lambda: self.deliver(machine, failed))
            return
        self.publish(machine)
        self.after(0.06, self.slow_done_s, lambda: self.deliver(machine, ev.Done(self.now, MODULE, lane, action.ticket)))

    def carry_out(self, machine: Machine, action: act.Ticketed) -> None:
        rfs, other = machine.rfs, self.other(machine).rfs
        match action:
            case act.StartRfs():
                if not rfs.alive:
                    if action.replace_data:
                        rfs.record, machine.holds_files = None, False
                    rfs.start(action.role)
                machine.session, machine.last_view = action.session, None
            case act.StopRfs():
                if rfs.alive:
                    rfs.unmount(other)
            case act.PromoteRfs():
                rfs.promote(action.granted, other, action.force)
            case act.DemoteRfs():
                rfs.demote(other, action.alone)
            case act.RecopyRfs():
                rfs.recopy()
            case act.RunScript():
                self.run_script(machine, action)
            case act.GrantRfs():
                rfs.grant()
            case act.OutdateRfs():
                rfs.outdate()
            case act.FenceRfs():
                rfs.fence()
            case act.VipUp():
                holder = self.other(machine)
                if holder.powered and holder.address_until > self.now and not action.granted and "lan" not in self.cut:
                    raise Refused("the address is in use")
                machine.address_until = self.now + ADDRESS_LIFETIME_S
            case act.VipDown():
                machine.address_until = -1.0
            case act.RestartServices():
                machine.services = False
                if self.service_fails or not rfs.serves:
                    raise Refused("the service does not start")
                machine.services = True
            case act.StartServices():
                assert Point.BOTH in machine.entered, "the services start before start_both has run"
                assert Point.SECOND not in machine.entered, "the services start before stop_second has run"
                if self.service_fails or not rfs.serves:
                    raise Refused("the service does not start")
                machine.services = True
            case act.StopServices():
                machine.services = False

    def run_script(self, machine: Machine, action: act.RunScript) -> None:
        machine.scripts.append(action.script)
        if action.script == "start_prim":
            assert Point.BOTH in machine.entered, "start_prim runs before start_both"
        if action.script == "poststop":
            assert not machine.services, "poststop runs before the services are gone"
            assert not machine.rfs.alive, "poststop runs before rfsmount is gone"
        machine.entered = action.entered
        if action.script in self.failing_scripts:
            raise Refused(f"{action.script} ended with exit code 1")

    def ask_peer(self, machine: Machine, action: act.Ticketed) -> None:
        peer, lane, incarnation = self.other(machine), act.LANE_OF[type(action)], machine.incarnation

        def finish(event: ev.Event) -> None:
            if machine.incarnation == incarnation:
                self.deliver(machine, event)

        def answered(code: int, message: str) -> None:
            done = ev.Done(self.now, MODULE, lane, action.ticket)
            failed = ev.Failed(self.now, MODULE, lane, action.ticket, message, True)
            if self.reachable():
                self.after(0.001, self.answer_within_s, lambda: finish(done if code == 0 else failed))

        def asked() -> None:
            if self.reachable() and peer.hactld:
                number = next(self.request_numbers)
                self.requests[peer.name, number] = answered
                if isinstance(action, act.AskPeerPromote):
                    self.deliver(peer, ev.PeerAskedPromote(self.now, MODULE, number, action.force))
                else:
                    self.deliver(peer, ev.PeerAskedOutdate(self.now, MODULE, number))

        self.after(0.001, 0.05, asked)
        self.at(self.now + 7.0, lambda: finish(ev.Failed(self.now, MODULE, lane, action.ticket, "the peer did not answer")))

    def reachable(self) -> bool:
        return any(self.networks.connects(network) for network in NETWORKS) and all(m.powered for m in self.machines.values())

    # ---- people and faults --------------------------------------------------------------------------------------------

    def command(self, name: str, make: type[ev.Command], **options: bool | str) -> None:
        self.note(f"{name} command {make.__name__}")
        self.deliver(self.machines[name], make(self.now, MODULE, next(self.request_numbers), **options))

    def power_off(self, name: str) -> None:
        machine = self.machines[name]
        self.note(f"{name} loses power")
        machine.powered = machine.hactld = machine.frozen = machine.services = False
        machine.address_until = -1.0
        machine.rfs.die()
        machine.backlog, machine.entered = [], frozenset()

    def kill_hactld(self, name: str) -> None:
        self.note(f"{name} hactld dies")
        self.machines[name].hactld = False

    def kill_rfs(self, name: str) -> None:
        machine = self.machines[name]
        if machine.rfs.alive:
            self.note(f"{name} rfsmount dies")
            machine.rfs.die()
            self.oracle.seen[name].failures += machine.hactld
            gone = ev.RfsGone(self.now, MODULE, machine.session, "rfsmount died", machine.rfs.record is not None, False)
            self.deliver_later(machine, gone)

    def service_dies(self, machine: Machine) -> None:
        if machine.services:
            self.note(f"{machine.name} service dies")
            machine.services = False
            self.oracle.seen[machine.name].failures += machine.hactld
            self.deliver_later(machine, ev.ServiceDied(self.now, MODULE, "postgres", "it ended"))

    def freeze(self, name: str) -> None:
        self.note(f"{name} is frozen")
        self.machines[name].frozen = True

    def thaw(self, name: str) -> None:
        machine = self.machines[name]
        self.note(f"{name} is thawed")
        machine.frozen, machine.thawed_at = False, self.now
        if not self.data_link() or not self.other(machine).rfs.linked:
            machine.rfs.lose_link()
        backlog, machine.backlog = machine.backlog, []
        for event in backlog:
            self.deliver(machine, event)

    def cut_network(self, *networks: str, isolated: str | None = None) -> None:
        self.note(f"cut {networks} isolated={isolated}")
        self.cut.update(networks)
        if isolated:
            self.machines[isolated].reaches_ping = False
            if self.witness is not None:
                self.witness.out_of_reach.add(isolated)

    def heal(self) -> None:
        self.note("healed")
        self.networks.heal()
        if self.witness is not None:
            self.witness.out_of_reach.clear()
        for machine in self.machines.values():
            machine.reaches_ping = True

    # ---- what a test asks ---------------------------------------------------------------------------------------------

    def shown(self, name: str) -> str:
        core = self.machines[name].core
        if core is None or not self.machines[name].hactld:
            return "OFF"
        state, readiness = core.modules[MODULE].shown
        return f"{state.value} {readiness.value}"

    def core(self, name: str) -> Module:
        core = self.machines[name].core
        assert core is not None
        return core.modules[MODULE]

    def reason(self, name: str) -> str:
        core = self.machines[name].core
        return core.reasons.get(MODULE, "") if core else ""

    def wait(self, seconds: float, **wanted: str) -> float:
        """Until the nodes show these states; how long it took."""
        begun = self.now
        while {name: self.shown(name) for name in wanted} != wanted:
            seen = {name: (self.shown(name), self.reason(name)) for name in self.machines}
            assert self.now - begun < seconds, f"wanted {wanted}, got {seen}\n" + "\n".join(self.trace[-60:])
            self.run(0.1)
        return self.now - begun


def paired(
    seed: int = 0, policy: str = "availability", ping: bool = True, witness: bool = False, default_primary: str = "alone"
) -> Cluster:
    """A cluster in its healthy state: node1 PRIM, node2 SECOND (until the default primary, if that is node2, gets the role)."""
    cluster = Cluster(seed, policy, ping, witness)
    cluster.default_primary = default_primary
    settle(cluster)
    return cluster


def settle(cluster: Cluster) -> None:
    """The first start, until all is well."""
    cluster.boot("node1")
    cluster.boot("node2")
    cluster.run(1.0)
    cluster.command("node1", ev.Prim)
    cluster.command("node2", ev.Second)
    cluster.wait(20.0, node1="PRIM Ready", node2="SECOND Ready")
