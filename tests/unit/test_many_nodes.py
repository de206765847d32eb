"""More than two nodes: who is a pair, what a status of several pairs says, where a command goes, and what becomes of keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator import statefile, view, view_pairs
from orchestrator.api.access import Asker
from orchestrator.api.here import Here, Roster
from orchestrator.api.peer_calls import PeerCalls
from orchestrator.api.roles import Role
from orchestrator.api.routes import Routes
from orchestrator.api.server import ApiError, Request
from orchestrator.config import ClusterConfig, ModuleConfig, NodeConfig
from orchestrator.core.states import Memory, Module, Readiness, State, Summary
from orchestrator.core.turn import Node
from orchestrator.doors import CallDoor, PulseDoor
from orchestrator.effects.notify import History
from orchestrator.pair import Pairs, Site
from orchestrator.paths import Paths
from orchestrator.peer import PeerClient, PeerRefused, PeerUnreachable
from orchestrator.runner import Runner
from orchestrator.security import Keys
from orchestrator.statefile import Kept, Memories
from orchestrator.topology import home_of, links_of, peers_of
from tests.unit.keyring import make_keys, pair_keys
from tests.unit.test_runner import FakeEffects, make_runner, serving

NAMES = ("node1", "node2", "node3", "node4")
BOTH, ON_LAN = ("lan", "repl"), ("lan",)


def cluster_of(**networks: tuple[str, ...]) -> ClusterConfig:
    nodes = {
        name: NodeConfig(name, {network: f"10.{place}.0.{number}" for place, network in enumerate(BOTH) if network in on})
        for number, (name, on) in enumerate(networks.items(), start=1)
    }
    return ClusterConfig("plant7", "availability", 0.5, 3.0, nodes, ())


FOUR = cluster_of(**dict.fromkeys(NAMES, BOTH))


def module(name: str, *nodes: str, mode: str = "mirror") -> ModuleConfig:
    return ModuleConfig(
        name=name, mode=mode, nodes=nodes, replication_network="lan", default_primary="alone", boot="auto", max_restarts=3,
        max_restarts_period_s=86400.0, replicated=(), vips=(), services=(), port=5600, scripts_dir=Path("/none"),
    )  # fmt: skip


A, B = module("a", "node1", "node3"), module("b", "node2", "node3")
LIGHT = module("watch", "node1", "node2", "node3", mode="light")


# ---- who is a pair -------------------------------------------------------------------------------------------------------------------


def test_a_mirror_module_makes_a_pair() -> None:
    three = cluster_of(node1=BOTH, node2=BOTH, node3=BOTH)
    modules = {"a": A, "b": B, "watch": LIGHT}
    assert [peers_of(three, modules, node) for node in three.nodes] == [("node3",), ("node3",), ("node1", "node2")]
    assert links_of(three, {"a": A, "a2": A}) == {frozenset(("node1", "node3")), frozenset(("node2", "node3"))}


def test_who_shares_nothing_has_a_peer_all_the_same() -> None:
    assert [peers_of(FOUR, {}, node) for node in NAMES] == [
        ("node2", "node4"), ("node1", "node3"), ("node2", "node4"), ("node1", "node3"),
    ]  # fmt: skip
    assert peers_of(cluster_of(node1=BOTH, node2=BOTH), {"watch": module("watch", "node1", mode="light")}, "node2") == ("node1",)
    apart = cluster_of(node1=ON_LAN, node2=("repl",), node3=BOTH)
    assert [peers_of(apart, {}, node) for node in apart.nodes] == [("node3",), ("node3",), ("node1", "node2")], "only who can be spoken to"


@pytest.mark.parametrize("modules", [{}, {"a": A}, {"a": A, "b": B}, {"watch": LIGHT}, {"c": module("c", "node4", "node1")}])
def test_both_nodes_of_a_pair_know_it(modules: dict[str, ModuleConfig]) -> None:
    peers = {node: peers_of(FOUR, modules, node) for node in NAMES}
    assert all(peers.values()) and all(node in peers[other] for node in NAMES for other in peers[node])


def test_where_a_module_lives() -> None:
    assert home_of(B, ("node1", "node2")) == "node2"
    assert home_of(LIGHT, ("node4", "node2")) == "node2", "where it is to be told of"
    assert home_of(module("alone", "node3", mode="light"), ("node1", "node2")) == "node1"


# ---- one status of several pairs -----------------------------------------------------------------------------------------------------


def light(name: str) -> Module:
    return Module(name, light=True, found=True, wanted=True, shown=(State.UP, Readiness.READY), announced=State.UP)


def core(peer: str, *modules: Module, heard: dict[str, Summary] | None = None) -> Node:
    node = make_runner(FakeEffects(), *modules, node="node3", peer=peer).node
    around = replace(node.around, peer_heard=heard is not None, peer_silent=heard is None)
    return replace(node, around=around, peer_modules=heard or {})


SECOND = Summary(state=State.SECOND, readiness=Readiness.READY, link="paired")
CONFIGS = {"a": A, "b": B, "watch": LIGHT}


def named(name: str) -> Module:
    return replace(serving(), name=name)


async def test_one_pair_is_its_own_document() -> None:
    node = core("node1", named("a"), heard={"a": SECOND})
    assert view_pairs.status([node], FOUR, CONFIGS, {}) == view.status(node, FOUR, CONFIGS, {})


async def test_several_pairs_are_one_document() -> None:
    nodes = [core("node1", named("a"), heard={"a": SECOND}), core("node2", named("b"))]
    document = view_pairs.status(nodes, FOUR, CONFIGS, {})
    assert (document["node"], document["peer"], document["verdict"], document["partial"]) == ("node3", "node1", "degraded", True)
    assert [(entry["name"], entry["verdict"]) for entry in document["modules"]] == [("a", "redundant"), ("b", "degraded")]
    assert [(peer["node"], peer["silent"]) for peer in document["peers"]] == [("node1", False), ("node2", True)]


def test_a_network_is_as_bad_as_towards_any_peer() -> None:
    each = [{"lan": "ok", "repl": "deaf"}, {"lan": "silent", "repl": "ok", "third": "ok"}]
    assert view_pairs.worst_networks(each) == {"lan": "silent", "repl": "deaf", "third": "ok"}


async def test_failover_of_several_pairs() -> None:
    paused, silent = replace(named("a"), paused=True), core("node2", named("b"))
    silent = replace(silent, around=replace(silent.around, policy="consistency"))
    nodes = [core("node1", paused, heard={"a": SECOND}), silent]
    assert view_pairs.status(nodes, FOUR, CONFIGS, {})["failover"] == {
        "state": "paused",
        "reason": "an administrator paused it for a on node3; node2 is silent and the policy is consistency",
    }
    worst = view_pairs.status([core("node1", named("a"), heard={"a": SECOND}), silent], FOUR, CONFIGS, {})["failover"]
    assert worst == {"state": "blocked", "reason": "node2 is silent and the policy is consistency"}
    isolated = [replace(node, around=replace(node.around, has_ping=True, ping_ok=False)) for node in (core("node1"), core("node2"))]
    failover = view_pairs.status(isolated, FOUR, CONFIGS, {})["failover"]
    assert failover["state"] == "blocked" and failover["reason"].count("no ping address answers") == 1


async def test_a_pair_without_a_role_blocks_no_failover() -> None:
    silent = core("node1", light("watch"))
    silent = replace(silent, around=replace(silent.around, policy="consistency"))
    document = view_pairs.status([silent, core("node2", named("b"), heard={"b": SECOND})], FOUR, CONFIGS, {})
    assert document["failover"] == {"state": "armed", "reason": ""} and document["partial"] is True
    assert view_pairs.status([silent], FOUR, CONFIGS, {})["failover"]["state"] == "blocked", "as it is said of two nodes"


async def test_a_light_module_on_three_nodes() -> None:
    up = Summary(state=State.UP, readiness=Readiness.READY)
    nodes = [core("node1", light("watch"), heard={"watch": up}), core("node2", heard={"watch": up})]
    (entry,) = view_pairs.status(nodes, FOUR, CONFIGS, {})["modules"]
    assert [(line["node"], line["state"]) for line in entry["nodes"]] == [("node1", "UP"), ("node2", "UP"), ("node3", "UP")]
    assert entry["verdict"] == "redundant"
    (entry,) = view_pairs.status(nodes[:1], FOUR, CONFIGS, {})["modules"]
    assert [(line["node"], line["state"]) for line in entry["nodes"]] == [("node1", "UP"), ("node2", "UNKNOWN"), ("node3", "UP")]
    assert entry["nodes"][1]["reason"] == "node2 is no peer of node3: ask there" and entry["verdict"] == "redundant"
    down = [nodes[0], core("node2", heard={"watch": Summary()})]
    assert view_pairs.status(down, FOUR, CONFIGS, {})["modules"][0]["verdict"] == "degraded"


# ---- where a command goes ------------------------------------------------------------------------------------------------------------


class FakePeer(PeerClient):
    """A peer that answers, or does not."""

    def __init__(self, peer: str, answer: dict[str, Any] | None) -> None:
        super().__init__("plant7", "node3", peer, (), None)
        self.answer, self.asked = answer, list[tuple[str, str]]()

    async def call(self, method: str, parameters: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        self.asked.append((method, str(parameters.get("module", ""))))
        if self.answer is None:
            raise PeerUnreachable("gone")
        return self.answer


class FakeSide:
    """A pair without its networks."""

    def __init__(self, client: FakePeer, runner: Runner, *shared: str) -> None:
        self.peer, self.client, self.runner, self.shared = client.peer, client, runner, shared
        self.told = runner.deliver


class Backup:
    """node3, the peer of node1 (a) and node2 (b)."""

    def __init__(self, path: Path, answers: dict[str, dict[str, Any] | None], state: State = State.PRIM) -> None:
        self.clients = {node: FakePeer(node, answers.get(node, {"code": 0, "message": "done"})) for node in ("node1", "node2")}
        shown = (state, Readiness.READY)
        runners = {
            "node1": make_runner(FakeEffects(), replace(named("a"), shown=shown), light("watch"), node="node3", peer="node1"),
            "node2": make_runner(FakeEffects(), replace(named("b"), shown=shown), node="node3", peer="node2"),
        }
        self.sides = [
            FakeSide(self.clients["node1"], runners["node1"], "a", "watch"),
            FakeSide(self.clients["node2"], runners["node2"], "b", "watch"),
        ]
        self.keys = {node: make_keys(path, node) for node in NAMES}
        for node in ("node1", "node2"):
            pair_keys(self.keys["node3"], self.keys[node])
        places = {"a": A.nodes, "b": B.nodes, "watch": LIGHT.nodes, "c": ("node1", "node4")}
        roster = Roster("node3", NAMES, places)

        def status() -> dict[str, Any]:
            return view_pairs.status([side.runner.node for side in self.sides], FOUR, CONFIGS, {})

        self.history = History(None)
        keys = Keys(self.keys["node3"], "node3", ("node1", "node2"))
        self.here = Here(roster, self.sides, self.history, status, lambda module: (path, path, path), keys)
        self.routes = Routes(self.here)

    async def ask(self, method: str, path: str, node: str | None = None) -> dict[str, Any]:
        async with trio.open_nursery() as nursery:
            for side in self.sides:
                nursery.start_soon(side.runner.run)
            query = {"node": node} if node is not None else {}
            answer = await self.routes.route(Request(method, tuple(path.strip("/").split("/")), query, {}, Asker("ann", Role.OPERATOR)))
            nursery.cancel_scope.cancel()
        return answer

    async def refused(self, method: str, path: str, node: str | None = None) -> str:
        with pytest.raises(ApiError) as error:
            await self.routes.route(Request(method, tuple(path.strip("/").split("/")), {"node": node} if node is not None else {}, {}))
        return f"{error.value.code}: {error.value}"


async def test_a_command_goes_to_the_pair_of_its_module(tmp_path: Path) -> None:
    site = Backup(tmp_path, {})
    assert (await site.ask("POST", "/v1/modules/b/start", "node2"))["results"][0]["node"] == "node2"
    assert site.clients["node2"].asked == [("command", "b")] and site.clients["node1"].asked == []
    assert (await site.ask("POST", "/v1/modules/a/pause", "all"))["results"][1]["node"] == "node1"
    assert site.clients["node1"].asked == [("command", "a")]
    assert site.sides[0].runner.node.modules["a"].paused and not site.sides[1].runner.node.modules["b"].paused


async def test_a_swap_finds_the_primary_of_its_module(tmp_path: Path) -> None:
    site = Backup(tmp_path, {}, State.SECOND)
    assert [result["node"] for result in (await site.ask("POST", "/v1/modules/b/swap"))["results"]] == ["node2"]
    assert site.clients["node1"].asked == []


async def test_a_light_module_on_all_its_nodes(tmp_path: Path) -> None:
    answer = await Backup(tmp_path, {"node2": None}).ask("POST", "/v1/modules/watch/restart", "all")
    assert [(result["node"], result["code"]) for result in answer["results"]] == [("node3", 0), ("node1", 0), ("node2", 5)]
    assert answer["code"] == 5


async def test_status_of_all(tmp_path: Path) -> None:
    line = {"node": "node1", "state": "SECOND", "said": "by itself"}
    site = Backup(tmp_path, {"node1": {"modules": [{"name": "a", "nodes": [line]}]}, "node2": None})
    document = await site.ask("GET", "/v1/status", "all")
    assert document["partial"] is True and [(peer["node"], peer["silent"]) for peer in document["peers"]] == [
        ("node1", False), ("node2", True),
    ]  # fmt: skip
    a, b, _ = document["modules"]
    assert line in a["nodes"] and {entry["node"] for entry in b["nodes"]} == {"node2", "node3"}
    assert site.clients["node1"].asked == site.clients["node2"].asked == [("status", "")]


async def test_what_cannot_be_asked_here_is_told_where(tmp_path: Path) -> None:
    site = Backup(tmp_path, {})
    assert await site.refused("GET", "/v1/events", "node4") == (
        "2: node4 shares no mirror module with node3 and cannot be asked from here: run the command on node4"
    )
    assert await site.refused("GET", "/v1/events", "node9") == "2: there is no node node9 in this cluster"
    assert await site.refused("POST", "/v1/modules/a/start", "node2") == "2: module a does not run on node2 but on node1 and node3"
    assert await site.refused("POST", "/v1/modules/c/start") == "2: module c does not run on node3 but on node1 and node4: ask there"
    assert await site.refused("GET", "/v1/modules/d/why") == "2: there is no module d"


async def test_a_peer_acts_for_the_modules_that_it_shares(tmp_path: Path) -> None:
    site = Backup(tmp_path, {})
    for side, foreign in zip(site.sides, ("b", "a"), strict=True):
        for method in ("promote", "outdate", "command", "logs", "why"):
            with pytest.raises(PeerRefused) as refused:
                await PeerCalls(site.here, side).answer(method, {"module": foreign, "verb": "stop"})
            assert refused.value.code == 8
    async with trio.open_nursery() as nursery:
        for side in site.sides:
            nursery.start_soon(side.runner.run)
        asked = {"module": "watch", "verb": "restart", "who": "bob on node2", "role": "operator"}
        answer = await PeerCalls(site.here, site.sides[1]).answer("command", asked)
        nursery.cancel_scope.cancel()
    assert answer["code"] == 0 and site.history.lines[-1].as_json("")["who"] == "bob on node2"


# ---- keys ----------------------------------------------------------------------------------------------------------------------------


async def test_a_new_key_is_used_when_every_peer_has_it(tmp_path: Path) -> None:
    site = Backup(tmp_path, {"node2": None})
    store = site.keys["node3"]
    before = store.own().known.pin
    assert await site.refused("POST", "/v1/cluster/rotate-keys") == "5: node2 could not be told of the new key; try again: gone"
    assert store.own().known.pin == before
    site.clients["node2"].answer = {}
    answer = await site.ask("POST", "/v1/cluster/rotate-keys")
    assert answer["rotated"] == [{"node": "node3", "pin": store.own().known.pin, "not_told": []}] and store.own().known.pin != before
    assert [method for method, _ in site.clients["node1"].asked] == ["pin", "pin", "hello"]
    assert [method for method, _ in site.clients["node2"].asked] == ["pin", "pin", "hello"]


async def test_who_is_paired_and_not_a_peer_is_named(tmp_path: Path) -> None:
    site = Backup(tmp_path, {})
    pair_keys(site.keys["node3"], site.keys["node4"])
    assert (await site.ask("POST", "/v1/cluster/rotate-keys"))["rotated"][0]["not_told"] == ["node4"]


async def test_a_peer_that_is_not_paired_yet_keeps_no_rotation_up(tmp_path: Path) -> None:
    site = Backup(tmp_path, {"node2": None})
    site.keys["node3"].forget("node2")
    assert (await site.ask("POST", "/v1/cluster/rotate-keys"))["rotated"][0]["node"] == "node3"
    site.keys["node3"].forget("node1")
    assert "nobody to tell" in await site.refused("POST", "/v1/cluster/rotate-keys")


async def test_a_peers_new_key_is_pinned_for_that_peer(tmp_path: Path) -> None:
    site = Backup(tmp_path, {})
    staged, used = site.keys["node2"].make("node2", name="next.pem"), site.keys["node2"].own().known.pin
    with pytest.raises(PeerRefused, match="refused"):
        await PeerCalls(site.here, site.sides[0]).answer("pin", {"certificate": staged.known.certificate}, used)
    await PeerCalls(site.here, site.sides[1]).answer("pin", {"certificate": staged.known.certificate}, used)
    assert [pinned.pin for pinned in site.keys["node3"].trust().of("node2")] == [used, staged.known.pin]


def test_each_peer_that_is_not_paired_is_a_warning(tmp_path: Path) -> None:
    store = make_keys(tmp_path, "node3")
    pair_keys(store, make_keys(tmp_path, "node1"))
    (warning,) = Keys(store, "node3", ("node1", "node2")).warnings()
    assert warning["text"] == "no key of node2 is paired with this node" and "--for node2" in warning["fix"]
    assert "node2" not in store.trust().peers


# ---- the pairs of a node -------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def pairs_of(path: Path, node: str, log: list[str]) -> AsyncIterator[Pairs]:
    """Real ones, without keys, whose doors stay shut."""
    paths = Paths(path)
    paths.make()
    configs = {name: config for name, config in CONFIGS.items() if node in config.nodes}
    memories = Memories(paths.state / "hactld" / "state.json", "boot1", log.append)
    site = Site(FOUR, configs, node, "boot1", 7, paths, None, History(None), memories, PulseDoor(log.append), CallDoor(log.append))
    async with trio.open_nursery() as nursery:
        yield Pairs(site, peers_of(FOUR, CONFIGS, node), nursery)
        nursery.cancel_scope.cancel()


async def test_each_module_lives_in_one_pair_and_is_told_to_all_its_nodes(tmp_path: Path) -> None:
    async with pairs_of(tmp_path, "node3", []) as pairs:
        assert [(pair.peer, sorted(pair.modules), sorted(pair.shared)) for pair in pairs] == [
            ("node1", ["a", "watch"], ["a", "watch"]), ("node2", ["b"], ["b", "watch"]),
        ]  # fmt: skip
        assert sorted(pairs.runners()) == ["a", "b", "watch"]
        for pair in pairs:
            known = {name: replace(module, found=True) for name, module in pair.runner.node.modules.items()}
            pair.runner.node = replace(pair.runner.node, modules=known)
        assert [sorted(pair.heartbeats.say()) for pair in pairs] == [["a", "watch"], ["b", "watch"]]
        assert sorted(pairs.all[1].world.say()["modules"]) == ["b", "watch"]
        assert [(pair.runner.node.around.node, pair.runner.node.around.peer) for pair in pairs] == [("node3", "node1"), ("node3", "node2")]
        assert [network.there for pair in pairs for network in pair.networks] == ["10.0.0.1", "10.1.0.1", "10.0.0.2", "10.1.0.2"]
        assert [pair.world.vip[name].peer_addresses for pair in pairs for name in pair.modules if name != "watch"] == [
            [IPv4Address("10.0.0.1"), IPv4Address("10.1.0.1")], [IPv4Address("10.0.0.2"), IPv4Address("10.1.0.2")],
        ]  # fmt: skip
        command = pairs.all[1].world.rfs["b"].command("secondary", False)
        assert command[command.index("--peer") + 1] == "10.0.0.2:5600" and command[command.index("--listen") + 1] == "10.0.0.3:5600"


async def test_what_each_pair_remembers_is_in_one_whole_file(tmp_path: Path) -> None:
    async with pairs_of(tmp_path, "node3", []) as pairs:
        one, two = (pair.world for pair in pairs)
        one.remember("a", Memory(wanted=True))
        two.remember("b", Memory(paused=True))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.write_down)
            nursery.start_soon(two.write_down)
    kept = statefile.read(Paths(tmp_path).state / "hactld" / "state.json")
    assert kept == {"a": Kept("boot1", Memory(wanted=True)), "b": Kept("boot1", Memory(paused=True))}
    async with pairs_of(tmp_path, "node3", []) as pairs:
        pairs.all[0].site.memories.machine_goes_down = True
        pairs.all[0].world.remember("a", Memory(wanted=False, led=True))
        assert pairs.all[0].site.memories.of("a") == Kept("boot1", Memory(wanted=True, led=True)), "nobody wants it stopped"
        assert (await pairs.all[1].world.find("b")).paused and (await pairs.all[0].world.find("a")).wanted


async def test_a_disk_that_takes_no_memory_is_told(tmp_path: Path) -> None:
    log: list[str] = []
    async with pairs_of(tmp_path, "node3", log) as pairs:
        (tmp_path / "var/lib/lockstep/hactld").rmdir()
        (tmp_path / "var/lib/lockstep/hactld").write_text("in the way")
        world = pairs.all[0].world
        world.remember("a", Memory(wanted=True))
        await world.write_down()
    assert len(log) == 1 and "tried again" in log[0]
