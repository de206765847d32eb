"""What must be true of two nodes at every moment, whatever happens to them.

The first two are the promises themselves: never two nodes that acknowledge, never old data served. The others are what each node owes to
whoever relies on it, and what rfsmount or the kernel would refuse if it came to that: the core must not order it in the first place. A
status is a moment old when it is acted upon, so what was so within RECENT_S counts.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from orchestrator.core import actions as act
from orchestrator.core import events as ev
from orchestrator.core.detector import Detector
from orchestrator.core.rules_language import ResourceState
from orchestrator.core.states import Lane
from tests.sim.resources import OWN

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.machine import Machine

RECENT_S: Final = 2.5
SHARED_ADDRESS_S: Final = 6.0  # on two nodes that clients reach
STOLEN_ADDRESS_S: Final = 20.0  # on two nodes that live
BARE_SERVICES_S: Final = 20.0
STOPPED_S: Final = 45.0
STORM_S, STORM_MAX = 10.0, 25
SCRIPTS_MAX: Final = 80  # each way down and up again has some twelve of them
SLACK: Final = 2  # failures that were on their way when the limit was reached
ADMINISTRATOR: Final = "an administrator said so"


class Seen:
    """When something was last so on one machine."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        most = {Lane.SCRIPTS: SCRIPTS_MAX}
        self.orders: dict[Lane, deque[float]] = {lane: deque(maxlen=most.get(lane, STORM_MAX)) for lane in Lane}
        self.failures = 0
        self.failbacks = 0
        self.rules_followed = 0
        self.barred_since: float | None = None
        self.stopped_at: float | None = None
        self.heard_at = 0.0
        self.bare_since: float | None = None


class Oracle:
    """Looks after every event and at every order; AssertionError with the trace when something is not as it must be."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.seen = {name: Seen() for name in cluster.machines}
        self.answered: set[int] = set()
        self.both_addresses_since: float | None = None
        self.shared_since: float | None = None

    def must(self, holds: bool, sentence: str) -> None:
        """The one way to say no."""
        if not holds:
            raise AssertionError(f"{sentence} at {self.cluster.now:.2f}\n" + "\n".join(self.cluster.trace[-80:]))

    def recently(self, machine: Machine, what: str) -> bool:
        """Was this so a moment ago?"""
        return self.cluster.now - self.seen[machine.name].at.get(what, -1e9) <= RECENT_S

    # ---- after every event ------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Everything that can be seen from outside."""
        self._promises()
        for machine in self.cluster.machines.values():
            self._note(machine)
            self._services(machine)
        self._addresses()

    def _promises(self) -> None:
        cluster = self.cluster
        writers = [machine for machine in cluster.machines.values() if cluster.acknowledges(machine)]
        self.must(len(writers) <= 1, "two nodes acknowledge")
        for machine in writers:
            record = machine.rfs.record
            assert record is not None
            if cluster.forgive_old_data:  # an administrator wanted it
                record.content += 1
                continue
            self.must(record.content == cluster.acknowledged, f"{machine.name} serves old data")
            record.content = cluster.acknowledged = cluster.acknowledged + 1
            if machine.rfs.mode == "paired":
                peer = cluster.other(machine).rfs.record
                assert peer is not None
                peer.content = cluster.acknowledged

    def _note(self, machine: Machine) -> None:
        rfs, at, now = machine.rfs, self.seen[machine.name].at, self.cluster.now
        if not rfs.alive or rfs.record is None:
            return
        facts = {
            "serves": rfs.serves,
            "secondary": rfs.role == "secondary",
            "frozen": rfs.role == "primary" and rfs.mode == "frozen",
            "complete": rfs.record.data == "UPTODATE" and (rfs.paired_this_run or not rfs.record.peer_may_fit),
            "apart": not rfs.linked,
            "consent": rfs.consent,
            "paired": rfs.link == "paired",
        }
        for what, holds in facts.items():
            if holds:
                at[what] = now

    def _services(self, machine: Machine) -> None:
        seen, now = self.seen[machine.name], self.cluster.now
        lives = machine.powered and machine.hactld and not machine.frozen
        bare = lives and machine.services and machine.rfs.serves and machine.address_until <= now
        seen.bare_since = (seen.bare_since if seen.bare_since is not None else now) if bare else None
        self.must(seen.bare_since is None or now - seen.bare_since < BARE_SERVICES_S, f"{machine.name} serves without the address")
        barred = lives and machine.services and self._must_not_serve(machine)
        seen.barred_since = (seen.barred_since if seen.barred_since is not None else now) if barred else None
        self.must(seen.barred_since is None or now - seen.barred_since < STOPPED_S, f"{machine.name} must not serve, knows it, and serves")
        if not lives:
            seen.stopped_at = None
        stays = seen.stopped_at is not None and now - seen.stopped_at > STOPPED_S and (machine.services or machine.rfs.alive)
        self.must(not stays, f"{machine.name} was stopped and does not stop")

    @staticmethod
    def _must_not_serve(machine: Machine) -> bool:
        """Is something of the node's own down, does it know that, and do its rules say that it waits then?"""
        assert machine.core is not None
        module = machine.core.modules["pg"]
        waits = any(rule.action == "wait" and rule.name == OWN for rule in module.rules)
        known = module.resources.get(OWN)
        return waits and known is not None and known.state is ResourceState.DOWN and OWN in machine.down and not module.unchecked

    def _addresses(self) -> None:
        cluster, now = self.cluster, self.cluster.now
        machines = list(cluster.machines.values())
        both = all(m.powered and m.hactld and not m.frozen and m.address_until > now for m in machines)
        shared = both and cluster.networks.connects("lan")
        self.both_addresses_since = (self.both_addresses_since if self.both_addresses_since is not None else now) if both else None
        self.shared_since = (self.shared_since if self.shared_since is not None else now) if shared else None
        self.must(
            self.both_addresses_since is None or now - self.both_addresses_since < STOLEN_ADDRESS_S, "two living nodes keep the address"
        )
        self.must(self.shared_since is None or now - self.shared_since < SHARED_ADDRESS_S, "clients find the address on two nodes")

    # ---- at every order ---------------------------------------------------------------------------------------------------

    def ordered(self, machine: Machine, action: act.Ticketed) -> None:
        """Would that be an honest order?"""
        name, now, seen = machine.name, self.cluster.now, self.seen[machine.name]
        bare = not machine.services and machine.address_until <= now
        lane = act.LANE_OF[type(action)]
        assert machine.core is not None
        module = machine.core.modules[action.module]
        if isinstance(action, act.VipUp | act.PromoteRfs | act.DemoteRfs | act.GrantRfs | act.OutdateRfs):
            self.must(module.rfs_session == machine.session, f"{name} believes a status of an rfsmount that is gone")
        match action:
            case act.StartServices():
                held = machine.address_until > now - RECENT_S or now - machine.thawed_at < RECENT_S
                self.must(held, f"{name} starts the services before the address")
                self.must(seen.failures <= machine.max_restarts + SLACK, f"{name} starts the services again and again")
            case act.VipUp():
                self.must(self.recently(machine, "serves"), f"{name} takes the address and does not serve")
            case act.StartRfs():
                self.must(seen.failures <= machine.max_restarts + SLACK, f"{name} starts rfsmount again and again")
            case act.DemoteRfs():
                self.must(bare, f"{name} gives the role up before services and address")
            case act.StopRfs():
                self.must(bare, f"{name} stops rfsmount before services and address")
            case act.PromoteRfs() if action.reason != ADMINISTRATOR and not action.force:
                self.must(not action.granted or not self._must_not_serve(machine), f"{name} takes the role by itself and must not serve")
                self.must(self.recently(machine, "complete"), f"{name} promotes a copy that is not whole")
                fair = self.recently(machine, "apart") or self.recently(machine, "consent")
                self.must(fair, f"{name} promotes within a session without the peer's consent")
            case act.GrantRfs():
                self.must(self.recently(machine, "frozen"), f"{name} grants what nobody waits for")
            case act.OutdateRfs():
                self.must(self.recently(machine, "secondary"), f"{name} outdates a primary")
        seen.orders[lane].append(now)
        storm = len(seen.orders[lane]) == seen.orders[lane].maxlen and now - seen.orders[lane][0] < STORM_S
        self.must(not storm, f"{name} orders again and again: {action}")

    def decided(self, machine: Machine, notice: act.Notify) -> None:
        """Is that decision allowed?"""
        name, seen = machine.name, self.seen[machine.name]
        silent = "is silent on every network" in notice.text
        if notice.kind in ("takeover", "grant") and silent:
            self.must(self.cluster.now - seen.heard_at >= 2.9, f"{name} takes for silent whom it heard a moment ago")
        match notice.kind:
            case "takeover":
                allowed = not self.cluster.told(machine).paused or notice.text == ADMINISTRATOR
                self.must(allowed, f"{name} takes over although failover is paused")
                by_policy = self.cluster.policy == "consistency" and self.cluster.witness is None
                self.must(not (silent and by_policy), f"{name} takes over on silence under consistency")
            case "rule" if ": wait, because" not in notice.text:
                seen.rules_followed += 1
                self.must(seen.rules_followed <= machine.max_restarts + 1 + SLACK, f"{name} follows its rules again and again")
            case "failback":
                seen.failbacks += 1
                self.must(not self.cluster.told(machine).paused, f"{name} gives the role back although failover is paused")
                self.must(seen.failbacks <= max(machine.max_restarts, 1), f"{name} gives the role back again and again")

    def replied(self, machine: Machine, reply: act.Reply) -> None:
        """One answer for each question."""
        self.must(reply.request not in self.answered, f"{machine.name} answers twice")
        self.answered.add(reply.request)

    def forgive(self, machine: Machine, command: ev.Command) -> None:
        """A person's command was accepted: what failed before does not count any more."""
        if not isinstance(command, ev.Switch):
            seen = self.seen[machine.name]
            seen.failures = seen.failbacks = seen.rules_followed = 0
            seen.stopped_at = self.cluster.now if isinstance(command, ev.Stop) else None

    def commanded(self, machine: Machine, command: ev.Command, code: int | None, was_paired: bool) -> None:
        """A person's command was taken: the answer is there, and what was promised is written down."""
        name = machine.name
        self.must(code is not None, f"{name} does not answer to {type(command).__name__}")
        if code != 0:
            return
        wanted = {ev.Start: True, ev.StopStart: True, ev.Stop: False}.get(type(command))
        self.must(wanted in (None, machine.memory.wanted), f"{name} would have forgotten {type(command).__name__} after a crash")
        if isinstance(command, ev.Switch) and command.switch == "failover":
            self.must(machine.memory.paused is (command.value == "off"), f"{name} would have forgotten the switch after a crash")
        if isinstance(command, ev.Swap) and not command.nosync:
            self.must(was_paired, f"{name} promises a swap with a peer that is not in sync")

    def heard(self, machine: Machine, before: Detector) -> None:
        """A heartbeat came in: nobody who was replaced is believed again, and no counter goes back."""
        assert machine.core is not None
        now, order = machine.core.detector, self.cluster.incarnations
        self.must(order.get(now.incarnation, 0) >= order.get(before.incarnation, 0), f"{machine.name} hears a hactld that was replaced")
        if now.incarnation == before.incarnation:
            back = [name for name, heard in now.networks.items() if heard.counter < before.networks[name].counter]
            self.must(not back, f"{machine.name} takes a late heartbeat for a new one")

    def at_peace(self) -> None:
        """Nothing more is broken, and all is well: what the nodes show is so."""
        for machine in self.cluster.machines.values():
            if self.cluster.shown(machine.name) == "PRIM Ready":
                whole = machine.rfs.serves and machine.services and machine.address_until > self.cluster.now
                self.must(whole, f"{machine.name} shows PRIM Ready and does not serve")
            else:
                self.must(not machine.services and machine.address_until <= self.cluster.now, f"{machine.name} holds what is the primary's")
