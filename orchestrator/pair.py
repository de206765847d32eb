"""A pair: this node and one peer, with the modules that the two share. hactld has one for each peer, and each has a core of its own.

Every decision about a module is between its two nodes, so a pair needs to know nothing of the others: what its peer is, what its networks
carry, and what of its own modules it holds. A peer that dies, or a network that is cut between two nodes, is an event of one pair. What all
pairs share is the Site: the configuration, the keys, the history, the file in which wishes are remembered, the two doors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from orchestrator.bugs import Bugs, unheard
from orchestrator.checkers.make import Context, make
from orchestrator.checkers.module import OtherModule
from orchestrator.checkers.watch import Make, Watch
from orchestrator.config import ClusterConfig, ModuleConfig
from orchestrator.core import events as ev
from orchestrator.core.detector import Detector
from orchestrator.core.rules_language import ResourceState
from orchestrator.core.states import Lane, Module, Readiness, Summary, Surroundings
from orchestrator.core.turn import Node
from orchestrator.doors import CallDoor, PulseDoor
from orchestrator.effects.network_news import NetworkNews
from orchestrator.effects.notify import History
from orchestrator.effects.world import World
from orchestrator.heartbeat import Heartbeats, Network
from orchestrator.paths import Paths
from orchestrator.peer import Handler, PeerClient, PeerServer
from orchestrator.pulse import resources_to_wire, summary_to_wire
from orchestrator.rules import rules_of
from orchestrator.runner import Runner
from orchestrator.seal import Secrets
from orchestrator.statefile import Memories
from orchestrator.topology import home_of
from rfs.keys import KeyStore


@dataclass(frozen=True, slots=True)
class Site:
    """What is this node's, whoever the peer."""

    cluster: ClusterConfig
    modules: Mapping[str, ModuleConfig]  # this node's
    node: str
    boot: str
    incarnation: int
    paths: Paths
    keys: KeyStore | None
    history: History
    memories: Memories
    pulses: PulseDoor
    calls: CallDoor
    bugs: Bugs = field(default_factory=unheard)
    news: NetworkNews = field(default_factory=NetworkNews)


def networks_of(cluster: ClusterConfig, node: str, peer: str) -> tuple[Network, ...]:
    """The networks on which both nodes have an address."""
    here, there = cluster.nodes[node].addresses, cluster.nodes[peer].addresses
    return tuple(Network(name, here[name], there[name]) for name in cluster.networks((node, peer)))


def first_node(cluster: ClusterConfig, modules: Mapping[str, ModuleConfig], node: str, peer: str, now: float) -> Node:
    """The core's state before the first event."""
    around = Surroundings(
        node=node,
        peer=peer,
        policy=cluster.policy,
        timeout_s=cluster.heartbeat_timeout_s,
        has_ping=bool(cluster.ping),
        has_witness=bool(cluster.witness),
        now=now,
    )
    mine = {
        name: Module(
            name=name,
            light=config.mode == "light",
            max_restarts=config.max_restarts,
            max_restarts_period_s=config.max_restarts_period_s,
            default_primary=config.default_primary,
            rules=rules_of(config),
            watched={checker.resource: checker.when for checker in config.checkers},
            alone=frozenset(service.name for service in config.services if service.restart == "alone"),
            since=now,
        )
        for name, config in modules.items()
    }
    return Node(around=around, detector=Detector.new(cluster.networks((node, peer)), around.timeout_s, now), modules=mine)


class Pair:
    """This node and one peer."""

    def __init__(self, site: Site, peer: str, pairs: Pairs, nursery: trio.Nursery) -> None:
        self.site, self.peer, self.pairs = site, peer, pairs
        cluster, node = site.cluster, site.node
        self.modules = {name: config for name, config in site.modules.items() if pairs.homes[name] == peer}
        self.shared = frozenset(name for name, config in site.modules.items() if peer in config.nodes)  # it may act for no other
        self.networks = networks_of(cluster, node, peer)
        self.client = PeerClient(cluster.name, node, peer, self.networks, site.keys)
        self.world = World(cluster, self.modules, node, site.paths, site.memories, self.client, site.history, nursery, site.keys, site.news)
        self.runner = Runner(first_node(cluster, self.modules, node, peer, trio.current_time()), self.world)
        self.heartbeats = Heartbeats(
            cluster=cluster.name,
            node=node,
            peer=peer,
            boot=site.boot,
            incarnation=site.incarnation,
            networks=self.networks,
            interval_s=cluster.heartbeat_interval_s,
            say=lambda: pairs.summaries_for(self),
            deliver=self.runner.deliver,
            log=self._log_of("heartbeat"),
            secrets=Secrets(site.keys, peer),
            timeout_s=cluster.heartbeat_timeout_s,
        )
        self.told = self.heartbeats.told  # what the peer says over the call channel
        self.server: PeerServer | None = None
        self._connect()

    def _log_of(self, kind: str) -> Callable[[str], None]:
        return lambda text: self.site.history.add("", kind, f"{self.peer}: {text}")

    def _connect(self) -> None:
        """The effects report to the runner, and speak to the peer through the heartbeats."""
        world, runner, heartbeats = self.world, self.runner, self.heartbeats
        world.deliver = runner.deliver
        world.pulse = heartbeats.pulse_now
        world.pulses = lambda: heartbeats.counter
        world.state_of = lambda module: runner.node.modules[module].shown[0].value

        def say() -> dict[str, Any]:
            said = heartbeats.say()
            modules = {name: summary_to_wire(summary) for name, summary in said.items()}
            beside = resources_to_wire(said)
            return {"incarnation": heartbeats.incarnation, "counter": heartbeats.counter, "modules": modules, "resources": beside}

        world.say = say

    def open(self, answer: Handler) -> None:
        """What comes from the peer's addresses is for this pair; its calls are answered by `answer`."""
        site = self.site
        self.server = PeerServer(site.cluster.name, self.peer, answer, site.keys, self._log_of("peer"), site.bugs)
        for network in self.networks:
            site.pulses.expect(network, partial(self.heartbeats.hear, network))
            site.calls.expect(network, self.server.serve)

    async def begin(self, nursery: trio.Nursery) -> None:
        """What runs already is found first; then the core lives."""
        for name in self.modules:
            found = await self.world.find(name)
            self.runner.deliver(found)
            self.world.adopt(found)
        nursery.start_soon(self.runner.run)
        for name in self.modules:
            nursery.start_soon(self._watch_of(name).run)

    def _watch_of(self, name: str) -> Watch:
        """The checkers of a module, as the core opens and closes their windows."""
        config, runner = self.modules[name], self.runner

        def windows() -> dict[str, int]:
            return {resource: known.window for resource, known in runner.node.modules[name].resources.items()}

        def say(resource: str, state: ResourceState, text: str, window: int) -> None:
            runner.deliver(ev.Checked(trio.current_time(), name, resource, state, text, window))

        def log(kind: str, text: str) -> None:
            self.site.history.add(name, kind, text)

        return Watch(config.checkers, self.make_checker(name), windows, runner.changed, say, log)

    def make_checker(self, name: str) -> Make:
        """What makes the checkers of a module."""
        site = self.site
        return partial(make, context=Context(site.cluster, self.modules[name], site.node, site.paths, self.pairs.known_of, site.news))

    def known_of(self, module: str) -> list[OtherModule]:
        """The module on both nodes, as far as this one knows. A run of the peer's services has no number in its heartbeats."""
        node = self.runner.node
        here, there = node.modules[module], node.peer_modules.get(module)
        found = [OtherModule(node.around.node, here.shown[0].value, _ready(here.shown[1]), here.tickets.get(Lane.SERVICES, 0))]
        if there is not None and not node.around.peer_silent:
            found.append(OtherModule(self.peer, there.state.value, _ready(there.readiness)))
        return found

    async def pulse(self) -> None:
        """Until cancelled. The doors are open."""
        await self.heartbeats.run(self.site.pulses.sockets_of(self.networks))

    @property
    def refused(self) -> Counter[str]:
        """Heartbeats and calls that came from the peer's addresses and were not the peer's."""
        return self.heartbeats.dropped + (self.server.refused if self.server is not None else Counter())


class Pairs:
    """All pairs of this node, in the order of the configuration, and which of them a module lives in."""

    def __init__(self, site: Site, peers: Sequence[str], nursery: trio.Nursery) -> None:
        self.homes = {name: home_of(config, peers) for name, config in site.modules.items()}
        self.all = tuple(Pair(site, peer, self, nursery) for peer in peers)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.all)

    def runners(self) -> dict[str, Runner]:
        """By module."""
        return {name: pair.runner for pair in self for name in pair.modules}

    def summaries_for(self, pair: Pair) -> dict[str, Summary]:
        """What this node says to a peer: everything about the modules that run on both, wherever they live here."""
        return {name: summary for each in self for name, summary in each.runner.node.summaries().items() if name in pair.shared}

    def known_of(self, module: str) -> list[OtherModule]:
        """What this node knows of a module; nothing, if it does not run here."""
        return [known for pair in self if module in pair.modules for known in pair.known_of(module)]


def _ready(readiness: Readiness) -> bool:
    return readiness is Readiness.READY
