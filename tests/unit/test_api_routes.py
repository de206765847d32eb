"""What can be asked of hactld, and the status document it answers with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator import view, view_pairs
from orchestrator.api.access import Asker
from orchestrator.api.commands import make_command
from orchestrator.api.here import Here, Roster
from orchestrator.api.peer_calls import PeerCalls
from orchestrator.api.roles import Role
from orchestrator.api.routes import Routes, merge
from orchestrator.api.server import ApiError, Request
from orchestrator.config import ClusterConfig, ModuleConfig, NodeConfig, VipConfig
from orchestrator.core import events as ev
from orchestrator.core.machine import step
from orchestrator.core.rules_language import ResourceState, Rule, parse
from orchestrator.core.states import Hold, Readiness, State, Summary
from orchestrator.effects.notify import History
from orchestrator.peer import PeerClient, PeerRefused, PeerUnreachable
from orchestrator.runner import Runner
from orchestrator.security import Keys
from rfs.keys import NEXT, KeyStore
from tests.unit.keyring import paired_keys
from tests.unit.test_runner import FakeEffects, make_runner, serving

NODES = {name: NodeConfig(name, {"lan": f"192.0.2.1{number}"}) for number, name in ((1, "node1"), (2, "node2"))}
CLUSTER = ClusterConfig("plant7", "availability", 0.5, 3.0, NODES, ())
CONFIG = ModuleConfig(
    name="pg", mode="mirror", nodes=("node1", "node2"), replication_network="lan", default_primary="alone", boot="auto", max_restarts=3,
    max_restarts_period_s=86400.0, replicated=(), vips=(VipConfig("192.0.2.100/24"),), services=(), port=5600, scripts_dir=Path("/none"),
)  # fmt: skip


ANN = Asker("ann", Role.OPERATOR)


class FakePeer(PeerClient):
    """A peer that says what it is told to."""

    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        super().__init__("plant7", "node1", "node2", (), None)
        self.answer, self.asked = answer, list[tuple[str, dict[str, Any]]]()

    async def call(self, method: str, parameters: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        self.asked.append((method, parameters))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class FakeSide:
    """A pair without its networks."""

    def __init__(self, client: FakePeer, runner: Runner, shared: tuple[str, ...] = ("pg",)) -> None:
        self.peer, self.client, self.runner, self.shared = client.peer, client, runner, shared
        self.told = runner.deliver


def make_routes(peer: FakePeer, tmp_path: Path, state: State = State.PRIM) -> Routes:
    runner = make_runner(FakeEffects(), replace(serving(), shown=(state, Readiness.READY)))
    history = History(None)
    history.add("pg", "transition", "something happened")
    (tmp_path / "pg.log").write_text("one\ntwo\nthree\n")

    def status() -> dict[str, Any]:
        return view_pairs.status([runner.node], CLUSTER, {"pg": CONFIG}, {})

    keys = Keys(paired_keys(tmp_path)[0], "node1", ["node2"])
    logs = (tmp_path / "pg.log", tmp_path / "none", tmp_path / "scripts")
    roster = Roster("node1", ("node1", "node2"), {"pg": ("node1", "node2")})
    return Routes(Here(roster, [FakeSide(peer, runner)], history, status, lambda module: logs, keys))


async def answer_peer(routes: Routes, method: str, parameters: dict[str, Any], pin: str = "") -> dict[str, Any]:
    return await PeerCalls(routes.here, routes.here.sides[0]).answer(method, parameters, pin)


async def ask(routes: Routes, method: str, path: str, query: dict[str, str] | None = None) -> dict[str, Any]:
    async with trio.open_nursery() as nursery:
        for side in routes.here.sides:
            nursery.start_soon(side.runner.run)
        answer = await routes.route(Request(method, tuple(path.strip("/").split("/")), query or {}, {}, ANN))
        nursery.cancel_scope.cancel()
    return answer


async def test_here(tmp_path: Path) -> None:
    routes = make_routes(FakePeer(PeerUnreachable("gone")), tmp_path)
    assert (await ask(routes, "GET", "/v1/status"))["modules"][0]["nodes"][0]["state"] == "PRIM"
    assert (await ask(routes, "GET", "/v1/events", {"after": "0"}))["events"][0]["kind"] == "transition"
    assert (await ask(routes, "GET", "/v1/modules/pg/logs", {"lines": "2"}))["lines"] == ["two", "three"]
    answer = await ask(routes, "POST", "/v1/modules/pg/restart")
    assert (answer["code"], answer["results"][0]["node"]) == (0, "node1")


async def test_there(tmp_path: Path) -> None:
    peer = FakePeer({"code": 0, "message": "pg starts"})
    answer = await ask(make_routes(peer, tmp_path), "POST", "/v1/modules/pg/start", {"node": "node2"})
    assert answer["results"] == [{"node": "node2", "code": 0, "message": "pg starts"}]
    asked = {"module": "pg", "verb": "start", "options": {}, "who": "ann (operator) on node1", "role": "operator"}
    assert peer.asked == [("command", asked)]


async def test_who_asked_is_in_the_history(tmp_path: Path) -> None:
    routes = make_routes(FakePeer({}), tmp_path)
    await ask(routes, "POST", "/v1/modules/pg/pause")
    last = (await ask(routes, "GET", "/v1/events"))["events"][-1]
    assert (last["kind"], last["who"], last["role"]) == ("command", "ann (operator) on node1", "operator")
    assert last["text"].startswith("pause: automatic failover of pg is paused")


async def test_why_tells_what_stands_against_it(tmp_path: Path) -> None:
    routes = make_routes(FakePeer({}), tmp_path)
    document = await ask(routes, "GET", "/v1/modules/pg/why")
    assert (document["schema"], document["node"], document["state"]) == ("hactl.why/1", "node1", "PRIM")
    swap = document["questions"][0]
    assert swap["answer"] is False and {"text": "node2 is SECOND Ready", "holds": False} in swap["conditions"]
    assert document["evidence"]["around"]["policy"] == "availability"


async def watched_routes(tmp_path: Path) -> Routes:
    """A module with two checkers, of which one has just found something."""
    routes = make_routes(FakePeer({}), tmp_path)
    runner = routes.here.runner_of("pg")
    rules = (
        Rule("tcp.db", "restart", (parse("tcp.db is down"),), is_default=True),
        Rule("far", "swap", (parse("ping.gw is down"), parse("remote.ping.gw is up")), hold_s=4.0),
    )
    module = replace(runner.node.modules["pg"], rules=rules, watched={"tcp.db": "prim", "ping.gw": "pre"})
    node, _ = step(replace(runner.node, modules={"pg": module}), ev.Tick(trio.current_time()))
    runner.node, _ = step(node, ev.Checked(trio.current_time(), "pg", "ping.gw", ResourceState.DOWN, "192.0.2.1 does not answer"))
    return routes


async def test_why_shows_every_rule_and_the_truth_of_each_term(tmp_path: Path) -> None:
    routes = await watched_routes(tmp_path)
    own, far = (await ask(routes, "GET", "/v1/modules/pg/why"))["rules"]
    assert own == {
        "name": "tcp.db", "default": True, "action": "restart", "services": [], "hold_s": 0.0, "holds": False, "held_s": 0.0,
        "acted": False, "why_not": "", "all": [{"term": "tcp.db is down", "holds": False}], "any": [],
    }  # fmt: skip
    assert [term["holds"] for term in far["all"]] == [True, False] and not far["holds"]


async def test_status_lists_what_is_watched_and_warns_of_what_is_down(tmp_path: Path) -> None:
    routes = await watched_routes(tmp_path)
    document = await ask(routes, "GET", "/v1/status")
    here, there = document["modules"][0]["nodes"]
    assert [(each["resource"], each["state"], each["text"]) for each in here["checkers"]] == [
        ("tcp.db", "init", ""), ("ping.gw", "down", "192.0.2.1 does not answer"),
    ]  # fmt: skip
    assert all(each["since_s"] >= 0.0 for each in here["checkers"])
    assert [each["state"] for each in there["checkers"]] == ["unknown", "unknown"]
    warning = next(each for each in document["warnings"] if each["code"] == "RESOURCE_DOWN")
    assert "ping.gw is down on node1: 192.0.2.1 does not answer" in warning["text"] and "hactl why pg" in warning["fix"]


async def test_a_resource_that_goes_down_is_imagined(tmp_path: Path) -> None:
    routes = await watched_routes(tmp_path)
    document = await ask(routes, "GET", "/v1/modules/pg/simulate", {"what": "resource-down", "resource": "tcp.db"})
    texts = [moment["text"] for moment in document["moments"]]
    assert document["resource"] == "tcp.db" and texts.count("start the services") == 3, "it stays down: as often as max_restarts lets it"
    assert document["readiness"] == "NotReady" and "tcp.db" in document["reason"]
    with pytest.raises(ApiError) as refused:
        await routes.here.look("simulate", {"module": "pg", "what": "resource-down", "resource": "tcp.web"})
    assert "it has tcp.db and ping.gw" in str(refused.value)


async def test_swap_finds_the_primary(tmp_path: Path) -> None:
    peer = FakePeer({"code": 0, "message": "pg moves to node1"})
    answer = await ask(make_routes(peer, tmp_path, State.SECOND), "POST", "/v1/modules/pg/swap")
    assert answer["results"][0]["node"] == "node2"


async def test_a_dead_peer_makes_the_answer_partial_or_an_error(tmp_path: Path) -> None:
    routes = make_routes(FakePeer(PeerUnreachable("gone")), tmp_path)
    assert (await ask(routes, "GET", "/v1/status", {"node": "all"}))["partial"] is True
    assert (await ask(routes, "POST", "/v1/modules/pg/start", {"node": "node2"}))["code"] == 5


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "http"),
    [
        ("GET", "/v1/nothing", {}, {}, 404),
        ("POST", "/v1/modules/web/start", {}, {}, 404),
        ("POST", "/v1/modules/pg/explode", {}, {}, 404),
        ("POST", "/v1/modules/pg/start", {}, {"force": True}, 400),
        ("POST", "/v1/modules/pg/start", {}, {"colour": "red"}, 400),
        ("POST", "/v1/modules/pg/start", {"node": "node3"}, {}, 404),
        ("GET", "/v1/events", {"after": "soon"}, {}, 400),
    ],
)
async def test_what_cannot_be_asked(method: str, path: str, query: dict[str, str], body: dict[str, Any], http: int, tmp_path: Path) -> None:
    routes = make_routes(FakePeer(PeerUnreachable("gone")), tmp_path)
    with pytest.raises(ApiError) as error:
        await routes.route(Request(method, tuple(path.strip("/").split("/")), query, body))
    assert error.value.http == http


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("explode", {}),
        ("tell", {}),
        ("tell", {"modules": {}, "incarnation": None, "counter": 1}),
        ("tell", {"modules": {}, "incarnation": float("inf"), "counter": 1}),
        ("tell", {"modules": {}, "incarnation": 1, "counter": True}),
        ("logs", {"module": "web"}),
        ("command", {}),
    ],
)
async def test_a_nonsensical_call_of_the_peer_is_refused(method: str, parameters: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(PeerRefused):
        await answer_peer(make_routes(FakePeer({}), tmp_path), method, parameters)


def test_prim_and_second_take_their_options() -> None:
    assert make_command("prim", "pg", {"force": True})(1.0, 2) == ev.Prim(1.0, "pg", 2, True)
    assert make_command("second", "pg", {"fullsync": True, "force": False})(1.0, 2) == ev.Second(1.0, "pg", 2, True)


@pytest.mark.parametrize(("verb", "body"), [("prim", {}), ("prim", {"force": True}), ("swap", {}), ("second", {"fullsync": True})])
async def test_what_one_node_is_to_do_is_not_said_to_all(verb: str, body: dict[str, Any], tmp_path: Path) -> None:
    routes = make_routes(peer := FakePeer({}), tmp_path)
    with pytest.raises(ApiError, match="name it") as refused, trio.fail_after(10):
        await routes.route(Request("POST", ("v1", "modules", "pg", verb), {"node": "all"}, body))
    assert refused.value.code == 2 and peer.asked == [] and not [line for line in routes.here.history.after(0) if line.kind == "command"]


async def test_verdicts() -> None:
    def verdict(**facts: Any) -> str:
        peer = facts.pop("peer", None)
        runner = make_runner(FakeEffects(), replace(serving(), **facts))
        around = replace(runner.node.around, peer_heard=peer is not None)
        node = replace(runner.node, around=around, peer_modules={"pg": peer} if peer else {})
        document = view.status(node, CLUSTER, {"pg": CONFIG}, {})
        assert document["schema"] == "hactl.status/1"
        holder = "node1" if node.modules["pg"].address is Hold.ON else None
        assert document["modules"][0]["vips"] == [{"address": "192.0.2.100/24", "node": holder}]
        return str(document["verdict"])

    assert verdict() == "degraded"
    assert verdict(peer=Summary(state=State.SECOND, readiness=Readiness.READY, link="paired")) == "redundant"
    assert verdict(peer=Summary(state=State.SECOND, readiness=Readiness.TRANSIENT, link="resyncing")) == "resyncing"
    assert verdict(shown=(State.WAIT, Readiness.NOT_READY), address=Hold.OFF) == "down"
    assert verdict(peer=Summary(link="diverged")) == "diverged"


def test_merge_takes_the_peers_own_word() -> None:
    def document(word: str) -> dict[str, Any]:
        return {"modules": [{"name": "pg", "nodes": [{"node": "node1", "said": word}, {"node": "node2", "said": word}]}], "partial": True}

    merged = merge(document("mine"), document("theirs"), "node2")
    assert [entry["said"] for entry in merged["modules"][0]["nodes"]] == ["mine", "theirs"]
    assert merged["partial"] is False


async def test_the_peer_acts_only_for_modules_that_name_it(tmp_path: Path) -> None:
    routes = make_routes(FakePeer({}), tmp_path)
    for method in ("promote", "outdate", "command", "rfs_state", "logs"):
        with pytest.raises(PeerRefused) as refused:
            await answer_peer(routes, method, {"module": "web", "verb": "stop"})
        assert refused.value.code == 8


async def test_a_new_key_of_the_peer_is_pinned_or_refused(tmp_path: Path) -> None:
    routes = make_routes(FakePeer({}), tmp_path)
    staged = KeyStore(tmp_path / "node2.keys").make("node2", name=NEXT)
    used = KeyStore(tmp_path / "node2.keys").own().known.pin
    with pytest.raises(PeerRefused, match="does not count any more"):
        await answer_peer(routes, "pin", {"certificate": staged.known.certificate}, "00" * 32)
    assert await answer_peer(routes, "pin", {"certificate": staged.known.certificate}, used) == {}
    assert routes.here.keys.store is not None and routes.here.keys.store.trust().of("node2")[-1].pin == staged.known.pin
    with pytest.raises(PeerRefused, match="where one of 'node2'"):
        await answer_peer(routes, "pin", {"certificate": routes.here.keys.store.own().known.certificate}, used)
    with pytest.raises(PeerRefused, match="refused"):
        await answer_peer(routes, "pin", {"certificate": "nonsense"}, used)


async def test_a_key_is_replaced_only_when_the_peer_knows(tmp_path: Path) -> None:
    routes = make_routes(FakePeer(PeerUnreachable("gone")), tmp_path)
    store = routes.here.keys.store
    assert store is not None
    before = store.own().known.pin
    with pytest.raises(ApiError) as failed:
        await routes.route(Request("POST", ("v1", "cluster", "rotate-keys"), {}, {}))
    assert failed.value.code == 5 and store.own().known.pin == before
    told = FakePeer({})
    routes.here.sides = [FakeSide(told, routes.here.sides[0].runner)]
    answer = await ask(routes, "POST", "/v1/cluster/rotate-keys")
    assert [method for method, _ in told.asked] == ["pin", "hello"]
    after = store.own().known.pin
    assert answer == {"schema": "hactl.rotated/1", "rotated": [{"node": "node1", "pin": after, "not_told": []}]} and after != before
    assert len(store.every_own()) == 1


async def test_a_witness_that_is_away_blocks_failover_and_is_a_warning() -> None:
    module = serving()
    assert module.view is not None
    node = make_runner(FakeEffects(), replace(module, view=replace(module.view, witness_away=True))).node
    warning = {"code": "WITNESS", "text": "no grant could be had now: the witness is unreachable (Connection refused)"}
    document = view.status(node, CLUSTER, {"pg": CONFIG}, {"pg": {"warnings": [{"code": "INSECURE", "text": "x"}, warning]}})
    assert document["failover"] == {"state": "blocked", "reason": "the witness does not answer: without it no node goes on alone"}
    assert [found["text"] for found in document["warnings"] if found["code"] == "WITNESS"] == [f"pg: {warning['text']}"]
    rights = {"code": "RIGHTS", "text": "rfsmount runs with more rights than it needs: system calls are not filtered (Invalid argument)"}
    found = view.rfs_warnings("pg", "node1", {"warnings": [rights, {"code": "NO_SNAPSHOT", "text": "of rfsmount's own"}]})
    assert [each["text"] for each in found] == [f"pg: {rights['text']}"] and found[0]["fix"]


async def test_what_the_brake_has_set_aside_is_a_warning_with_its_next_step() -> None:
    removed = {"code": "MUCH_REMOVED", "text": "a resync took away 5 of 6 files of /srv/pg"}
    document = view.status(make_runner(FakeEffects(), serving()).node, CLUSTER, {"pg": CONFIG}, {"pg": {"warnings": [removed]}})
    (found,) = (warning for warning in document["warnings"] if warning["code"] == "MUCH_REMOVED")
    assert found["text"] == f"pg: {removed['text']}" and "hactl discard pg -H node1" in found["fix"]
