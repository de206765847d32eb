"""The two phases: the decisions by themselves, then real keepers with real stores that die at every step of an apply, and find together."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator import config_apply, config_archive, config_keeper
from orchestrator.api.config_calls import ConfigCalls
from orchestrator.config_apply import RESOLUTIONS, Fate, Relation, Resolution, Says, Verdict, Vote, fate, relation, verdict, why_not_promise
from orchestrator.config_keeper import ConfigKeeper
from orchestrator.config_round import COMMIT_DEADLINE_S, Order, apply
from orchestrator.config_start import adopt
from orchestrator.generations import Generation, GenerationStore, Past
from orchestrator.peer import PeerRefused, PeerUnreachable
from orchestrator.steps import STEPS
from rfs.errors import SaidNo
from tests.unit.test_config import CLUSTER, MODULE, write

THIRD = CLUSTER.replace("[witness]", '[[node]]\nname = "node3"\naddresses = { lan = "192.0.2.13", repl = "198.51.100.13" }\n[witness]')

# ---- the decisions ----------------------------------------------------------------------------------------------------------


def test_all_of_them_or_nobody() -> None:
    asked = ["b", "c"]
    for one, other in itertools.product((None, *Vote), repeat=2):
        votes = {name: vote for name, vote in zip(asked, (one, other), strict=True) if vote is not None}
        found = verdict(asked, votes)
        if {one, other} & {Vote.NO, Vote.SILENT}:
            assert found is Verdict.ABORT
        elif None in (one, other):
            assert found is Verdict.WAIT
        else:
            assert found is Verdict.COMMIT
    assert verdict([], {}) is Verdict.COMMIT


def made(number: int, transaction: str, digest: str = "", base: str = "") -> Generation:
    return Generation(number, digest or transaction, base, transaction)


def test_the_history_is_the_record() -> None:
    past = Past((made(1, "a"), made(2, "b")))
    assert fate(past, "", "b") is fate(past, "b", "b") is fate(past, "x", "a") is Fate.COMMITTED
    assert fate(past, "c", "c") is Fate.PENDING
    assert fate(past, "", "c") is fate(past, "d", "c") is Fate.ABORTED
    assert set(RESOLUTIONS) == set(Fate)
    assert [fate for fate, what in RESOLUTIONS.items() if what is not Resolution.WAIT] == [Fate.COMMITTED, Fate.ABORTED]


def said(*entries: tuple[str, str], number: int = 0, node: str = "n", files: str = "", promised: str = "") -> Says:
    transaction, digest = entries[-1]
    return Says(node, made(number or len(entries), transaction, digest), entries, files or digest, promised, "c" if promised else "")


A, B, C, D = ("a", "1"), ("b", "2"), ("c", "3"), ("d", "1")  # D has the files of A again


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        (said(A), said(A), Relation.SAME),
        (said(("x", "1")), said(A), Relation.SAME),
        (said(A), said(A, B), Relation.BEHIND),
        (said(A), said(A, B, C), Relation.BEHIND),
        (said(("x", "1")), said(A, B), Relation.BEHIND),
        (said(B), said(A, C), Relation.APART),
        (said(A, B), said(A, C), Relation.APART),
        (said(A, B), said(A, B, D), Relation.BEHIND),
        (said(("x", "1")), said(A, B, D), Relation.SAME),
        (said(A, B, D), said(A, B), Relation.AHEAD),
        (said(("x", "2"), ("y", "9")), said(A, B), Relation.AHEAD),
        (said(C), said(A, B), Relation.APART),
    ],
)
def test_who_came_after_whom(mine: Says, theirs: Says, expected: Relation) -> None:
    assert relation(mine, theirs) is expected
    turned = {Relation.BEHIND: Relation.AHEAD, Relation.AHEAD: Relation.BEHIND}
    assert relation(theirs, mine) is turned.get(expected, expected)


def test_a_promise_is_not_given_on_a_doubt() -> None:
    new = Generation(2, "2", "1", "t")
    assert why_not_promise(said(A), new, "c", "", force=False) == ""
    assert "own" in why_not_promise(said(A), new, "c", "other", force=True)
    assert "has promised" in why_not_promise(said(A, promised="old"), new, "c", "", force=True)
    assert why_not_promise(said(A, promised="t"), new, "c", "", force=False) == "", "the same twice is one"
    assert "--force-from-here" in why_not_promise(said(B), new, "c", "", force=False)
    assert "edited" in why_not_promise(said(A, files="9"), new, "c", "", force=False)
    assert why_not_promise(said(A, files="2"), new, "c", "", force=False) == "", "they were edited to the same"
    assert why_not_promise(said(B, files="9"), new, "c", "", force=True) == ""


def test_what_a_node_says_travels_and_nonsense_does_not() -> None:
    original = said((A[0], "1" * 64), (B[0], "2" * 64), promised="t")
    assert config_apply.says_from("n", original.as_message()) == original
    for spoilt in ({}, {**original.as_message(), "applied": {}}, {**original.as_message(), "lineage": [["a"]]}):
        with pytest.raises(ValueError):
            config_apply.says_from("n", spoilt)


# ---- real keepers -----------------------------------------------------------------------------------------------------------


class Death(Exception):
    """The process is gone."""


@dataclass
class Facts:
    """Of a node on which what is named runs."""

    running: dict[str, str] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    busy: int = 0  # so often it says that something is under way

    def why_not_stopped(self, module: str) -> str:
        return self.running.get(module, "")

    async def why_not_directories(self, module: str, added: Any) -> str:
        return ""

    async def why_not_addresses(self, vips: Any) -> list[str]:
        return self.taken

    def why_not_node(self, documents: Any) -> str:
        return ""

    def is_busy(self) -> bool:
        self.busy -= 1
        return self.busy >= 0


class Place:
    """One node: its disk, and the hactld on it while that lives."""

    def __init__(self, name: str, root: Path, world: World) -> None:
        self.name, self.root, self.world = name, root, world
        self.facts = Facts()
        self.dies_at = ""
        self.visited: list[str] = []
        self.keeper: ConfigKeeper | None = None
        self.log: list[str] = []

    async def boot(self) -> ConfigKeeper:
        """As hactld starts: what is applied, or what was promised, is read from the disk."""
        store = GenerationStore(self.root / "state/config")
        store.read()
        adopt(store, self.root / "etc")
        others = [name for name in self.world.places if name != self.name and {name, self.name} not in self.world.strangers]
        peers = {other: Line(self, other) for other in others}
        keeper = ConfigKeeper(self.name, self.root / "etc", store, self.facts, peers, self.log.append, self._step)
        self.keeper = keeper
        await keeper.begin()
        return keeper

    def _step(self, step: str) -> None:
        assert step in STEPS
        self.visited.append(step)
        if step == self.dies_at:
            self.keeper = None
            raise Death(f"{self.name} at {step}")

    @property
    def alive(self) -> ConfigKeeper:
        assert self.keeper is not None
        return self.keeper

    def files(self) -> str:
        return config_archive.digest(config_archive.gather(self.root / "etc"))


class Line:
    """The call channel from one node to another."""

    def __init__(self, here: Place, there: str) -> None:
        self.here, self.there = here, there

    async def call(self, method: str, parameters: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        world, other = self.here.world, self.here.world.places[self.there]
        await trio.lowlevel.checkpoint()
        if other.keeper is None or world.cut(self.here.name, self.there, method):
            raise PeerUnreachable(f"{self.there} did not answer '{method}'")
        try:
            answer = await ConfigCalls(other.keeper).from_peer(method, parameters, self.here.name)
        except Death as death:
            raise PeerUnreachable(str(death)) from None
        if world.cut(self.there, self.here.name, method):
            raise PeerUnreachable(f"the answer of {self.there} to '{method}' is lost")
        return answer


class World:
    """Some nodes of one cluster."""

    def __init__(self, tmp_path: Path, names: tuple[str, ...] = ("node1", "node2")) -> None:
        self.places: dict[str, Place] = {}
        self.strangers: list[set[str]] = []  # who are no peers
        self.cut: Callable[[str, str, str], bool] = lambda source, target, method: False
        for name in names:
            self.places[name] = Place(name, tmp_path / name, self)
            etc = tmp_path / name / "etc"
            etc.mkdir(parents=True)
            write(etc, THIRD if "node3" in names else CLUSTER, pg=MODULE)

    async def boot(self) -> World:
        for place in self.places.values():
            await place.boot()
        return self

    def edit(self, name: str, old: str = 'boot = "off"', new: str = 'boot = "on"') -> str:
        path = self.places[name].root / "etc/modules/pg.toml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        return self.places[name].files()

    async def calm(self) -> None:
        """Everybody is there, hears everybody, and goes on with what is applied: twice, because one may follow the other."""
        self.cut = lambda source, target, method: False
        for _ in range(2):
            for place in self.places.values():
                place.dies_at = ""
                await place.boot()
            for place in self.places.values():
                for peer in place.alive.peers:
                    if not place.alive.is_changing:
                        await place.alive.ask(peer)

    def digests(self) -> set[str]:
        return {place.alive.applied.digest for place in self.places.values()}

    def promises(self) -> list[str]:
        return [name for name, place in self.places.items() if place.alive.store.prepared is not None]


async def test_both_apply_it_and_have_its_files(tmp_path: Path) -> None:
    world = await World(tmp_path).boot()
    one, two = world.places["node1"], world.places["node2"]
    new = world.edit("node1")
    answer = await apply(one.alive, Order("ann", "why not"))
    assert (answer["code"], answer["generation"], [entry["result"] for entry in answer["nodes"]]) == (0, 2, ["applied", "applied"])
    assert world.digests() == {new} and two.files() == new and world.promises() == []
    assert two.alive.applied == one.alive.applied and two.alive.applied.comment == "why not"
    assert one.alive.is_changing and two.alive.is_changing
    with pytest.raises(SaidNo, match="at this moment"):
        await apply(one.alive, Order("ann"))


async def test_the_same_again_changes_nothing_and_a_dry_run_neither(tmp_path: Path) -> None:
    world = await World(tmp_path).boot()
    one = world.places["node1"]
    assert "nothing to do" in (await apply(one.alive, Order("ann")))["message"]
    world.edit("node1")
    answer = await apply(one.alive, Order("ann", dry_run=True))
    assert answer["generation"] is None and [entry["result"] for entry in answer["nodes"]] == ["agrees"]
    assert len(world.digests()) == 1 and one.alive.applied.number == 1 and world.promises() == [] and not one.alive.is_changing


async def test_what_is_applied_is_as_open_as_the_files_of_each_node(tmp_path: Path) -> None:
    world = await World(tmp_path).boot()
    one, two = world.places.values()

    def script(place: Place, mode: int) -> None:
        path = place.root / "etc/modules/pg/own"
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(mode)

    def modes() -> list[int]:
        trees = [place.alive.store.tree(place.alive.applied.digest) for place in (one, two)]
        return [(tree / "modules/pg/own").stat().st_mode & 0o777 for tree in trees]

    script(one, 0o755)
    script(two, 0o700)
    await apply(one.alive, Order("ann"))
    assert len(world.digests()) == 1 and modes() == [0o755, 0o700]
    await world.calm()
    script(one, 0o700)
    assert "nothing to do" in (await apply(one.alive, Order("ann")))["message"] and modes() == [0o700, 0o700]


async def test_a_node_that_takes_up_its_own_files_only(tmp_path: Path) -> None:
    """A peer in the wrong hands cannot bring code: neither by an apply, nor by force, nor by having applied something while this node was
    away. What its own root has put into its files is applied with the peer as everywhere."""
    world = await World(tmp_path).boot()
    one, two = world.places["node1"], world.places["node2"]
    two.alive.own_files_only = True
    old, new = two.files(), world.edit("node1")
    for force in (False, True):
        with pytest.raises(SaidNo, match="node2 takes up only what its own files hold: put the files of node1 into"):
            await apply(one.alive, Order("ann", force_from_here=force))
    world.cut = lambda source, target, method: True
    await apply(one.alive, Order("ann", without_peer=True))
    world.cut = lambda source, target, method: False
    await one.boot()
    (await two.boot()).own_files_only = True
    await two.alive.ask("node1")
    assert (two.alive.applied.digest, two.files()) == (old, old) and one.alive.applied.digest == new
    warnings = {warning["code"]: warning["fix"] for warning in two.alive.warnings()}
    assert "own files" in warnings["CONFIG_DIFFERS"]
    world.edit("node2")
    await two.alive.ask("node1")
    assert two.alive.applied.digest == new and world.promises() == []
    await two.boot()
    two.alive.own_files_only = True
    newest = world.edit("node1", 'boot = "on"', 'boot = "auto"')
    await one.boot()
    assert world.edit("node2", 'boot = "on"', 'boot = "auto"') == newest
    assert (await apply(one.alive, Order("ann")))["code"] == 0 and world.digests() == {newest}


COORDINATORS = ("config-kept", "config-promised", "config-switched", "config-committed")
DEATHS = [*(("node1", step) for step in COORDINATORS), ("node2", "config-prepared"), ("node2", "config-switched")]


def test_every_step_has_its_death() -> None:
    assert {step for _, step in DEATHS} == set(STEPS)


@pytest.mark.parametrize("names", [("node1", "node2"), ("node1", "node2", "node3")], ids=["two", "three"])
@pytest.mark.parametrize(("victim", "step"), DEATHS)
async def test_whoever_dies_at_whatever_step_all_have_one_configuration_afterwards(
    tmp_path: Path, names: tuple[str, ...], step: str, victim: str
) -> None:
    world = await World(tmp_path, names).boot()
    old = world.places["node1"].files()
    new = world.edit("node1")
    world.places[victim].dies_at = step
    outcome = ""
    try:
        await apply(world.places["node1"].alive, Order("ann"))
    except Death:
        outcome = "died"
    except SaidNo as refusal:
        outcome = refusal.sentence
    assert world.places[victim].keeper is None, "it did not come to its step"
    committed = any(place.keeper is not None and place.alive.applied.digest == new for place in world.places.values())
    for place in world.places.values():
        store = GenerationStore(place.root / "state/config")
        store.read()  # whole on every disk, at this very moment
        assert store.past.applied is not None and store.past.applied.digest in (old, new)
        committed |= store.past.applied.digest == new
    await world.calm()
    assert world.digests() == {new if committed else old}, f"{outcome}: not one configuration"
    assert world.promises() == []
    wanted = {"node1": new} if not committed else {}  # the coordinator's files are what somebody wants to apply
    for name, place in world.places.items():
        assert place.files() == wanted.get(name, new if committed else old)


@pytest.mark.parametrize("method", ["config_state", "config_prepare", "config_commit", "config_abort"])
@pytest.mark.parametrize("way", ["question", "answer"])
async def test_whatever_message_is_lost_all_have_one_configuration_afterwards(tmp_path: Path, method: str, way: str) -> None:
    world = await World(tmp_path).boot()
    old, new = world.places["node1"].files(), world.edit("node1")
    lost = ("node1", "node2") if way == "question" else ("node2", "node1")
    if method == "config_abort":  # somebody must have promised and another one refused
        world.places["node2"].facts.running["pg"] = ""
    world.cut = lambda source, target, asked: (source, target) == lost and asked == method
    refused = False
    try:
        await apply(world.places["node1"].alive, Order("ann"))
    except SaidNo:
        refused = True
    await world.calm()
    assert refused == (method in ("config_state", "config_prepare"))
    assert world.digests() == {old if refused else new} and world.promises() == []


async def test_one_that_refuses_keeps_all_from_it(tmp_path: Path) -> None:
    world = await World(tmp_path, ("node1", "node2", "node3")).boot()
    old = world.places["node1"].files()
    world.edit("node1", 'replication_network = "repl"', 'replication_network = "lan"')
    world.places["node3"].facts.running["pg"] = "SECOND"
    with pytest.raises(SaidNo, match="node3: pg is SECOND on node3 and must be stopped for replication_network: hactl stop pg -H all"):
        await apply(world.places["node1"].alive, Order("ann"))
    assert world.digests() == {old} and world.promises() == [], "node2 was told that it is over"


async def test_an_address_that_somebody_has_is_refused(tmp_path: Path) -> None:
    world = await World(tmp_path).boot()
    world.places["node2"].facts.taken = ["the service address is in use by another machine (192.0.2.101: 02:00:00:00:00:01)"]
    world.edit("node1", "[[vip]]", '[[vip]]\naddress = "192.0.2.101/24"\n[[vip]]')
    with pytest.raises(SaidNo, match="node2: pg: the service address is in use"):
        await apply(world.places["node1"].alive, Order("ann"))


async def test_a_node_that_is_away_must_be_excused_and_takes_it_later(tmp_path: Path) -> None:
    world = await World(tmp_path).boot()
    two, new = world.places["node2"], world.edit("node1")
    two.keeper = None
    with pytest.raises(SaidNo, match="--without-peer"):
        await apply(world.places["node1"].alive, Order("ann"))
    answer = await apply(world.places["node1"].alive, Order("ann", without_peer=True))
    assert [(entry["node"], entry["result"]) for entry in answer["nodes"]] == [("node1", "applied"), ("node2", "later")]
    await world.calm()
    assert world.digests() == {new} and two.files() == new


async def test_nodes_that_are_no_peers_get_it_from_the_one_that_is(tmp_path: Path) -> None:
    world = World(tmp_path, ("node1", "node2", "node3"))
    world.strangers.append({"node1", "node2"})
    await world.boot()
    new = world.edit("node1")
    answer = await apply(world.places["node1"].alive, Order("ann"))
    assert [entry["node"] for entry in answer["nodes"]] == ["node1", "node3"]
    await world.calm()
    assert world.digests() == {new} == {place.files() for place in world.places.values()}


async def test_a_node_is_not_left_behind_at_an_address_that_nobody_expects(tmp_path: Path) -> None:
    world = await World(tmp_path).boot()
    path = world.places["node1"].root / "etc/cluster.toml"
    world.places["node2"].keeper = None
    path.write_text(path.read_text().replace("192.0.2.12", "192.0.2.13"))
    with pytest.raises(SaidNo, match="node2 does not answer, and could not be reached under its old address"):
        await apply(world.places["node1"].alive, Order("ann", without_peer=True))
    path.write_text(path.read_text().replace("192.0.2.13", "192.0.2.12").replace("192.0.2.11", "192.0.2.13"))
    await apply(world.places["node1"].alive, Order("ann", without_peer=True))


async def test_one_that_was_away_waits_until_its_module_is_stopped(tmp_path: Path) -> None:
    world = await World(tmp_path).boot()
    one, two = world.places["node1"], world.places["node2"]
    new = world.edit("node1", 'replication_network = "repl"', 'replication_network = "lan"')
    two.keeper = None
    await apply(one.alive, Order("ann", without_peer=True))
    two.facts.running["pg"] = "SECOND"
    await world.calm()
    assert two.alive.applied.number == 1
    for place in (one, two):  # each as soon as it has heard the other one
        for peer in place.alive.peers:
            await place.alive.ask(peer)
        (warning,) = place.alive.warnings()
        assert warning["code"] == "CONFIG_DIFFERS" and "hactl stop pg" in warning["fix"]
    two.facts.running.clear()
    await world.calm()
    assert world.digests() == {new} and two.alive.warnings() == []


async def test_two_that_went_apart_are_warned_of_and_brought_together_by_force(tmp_path: Path) -> None:
    world = await World(tmp_path).boot()
    one, two = world.places["node1"], world.places["node2"]
    new = world.edit("node1")
    world.edit("node2", 'max_restarts = "5 per 1h"', 'max_restarts = "6 per 1h"')
    world.cut = lambda source, target, method: True
    for place in (one, two):
        await apply(place.alive, Order("ann", without_peer=True))
    await world.calm()
    assert len(world.digests()) == 2
    assert [warning["code"] for place in (one, two) for warning in place.alive.warnings()] == ["CONFIG_DIFFERS"] * 2
    with pytest.raises(SaidNo, match="--force-from-here"):
        await apply(one.alive, Order("ann"))
    await apply(one.alive, Order("ann", force_from_here=True))
    await world.calm()
    assert world.digests() == {new} and two.files() == new and two.alive.warnings() == []


async def test_files_that_were_edited_on_the_other_node_are_refused_or_kept_aside(tmp_path: Path) -> None:
    world = await World(tmp_path).boot()
    one, two = world.places["node1"], world.places["node2"]
    new = world.edit("node1")
    world.edit("node2", 'max_restarts = "5 per 1h"', 'max_restarts = "6 per 1h"')
    with pytest.raises(SaidNo, match="files were edited on node2 and not applied"):
        await apply(one.alive, Order("ann"))
    await apply(one.alive, Order("ann", force_from_here=True))
    assert two.files() == new
    assert "6 per 1h" in (two.root / "etc/modules/pg.toml.before-apply").read_text()


async def test_a_rollback_brings_files_back_and_keeps_what_was_edited(tmp_path: Path) -> None:
    world = await World(tmp_path).boot()
    one = world.places["node1"]
    old, _ = one.files(), world.edit("node1")
    await apply(one.alive, Order("ann"))
    await world.calm()
    world.edit("node1", 'max_restarts = "5 per 1h"', 'max_restarts = "7 per 1h"')
    answer = await apply(one.alive, Order("ann", number=1))
    assert answer["generation"] == 3
    await world.calm()
    assert world.digests() == {old} == {place.files() for place in world.places.values()}
    assert "7 per 1h" in (one.root / "etc/modules/pg.toml.before-apply").read_text()
    with pytest.raises(SaidNo, match="there is no generation 9 here; there is 1, 2, 3"):
        await apply(one.alive, Order("ann", number=9))


async def test_what_was_shown_is_what_is_applied(tmp_path: Path) -> None:
    world = await World(tmp_path).boot()
    shown = world.edit("node1")
    world.edit("node1", 'max_restarts = "5 per 1h"', 'max_restarts = "7 per 1h"')
    with pytest.raises(SaidNo, match="have changed since they were shown"):
        await apply(world.places["node1"].alive, Order("ann", expect=shown))


async def test_a_promise_holds_modules_and_is_given_up_by_word_only(tmp_path: Path) -> None:
    world = await World(tmp_path).boot()
    one, two = world.places["node1"], world.places["node2"]
    world.edit("node1", 'replication_network = "repl"', 'replication_network = "lan"')
    one.dies_at = "config-promised"
    with pytest.raises(Death):
        await apply(one.alive, Order("ann"))
    assert "needs pg stopped" in two.alive.held("pg") and two.alive.held("other") == ""
    await two.boot()
    assert "needs pg stopped" in two.alive.held("pg"), "it outlives a restart"
    await two.alive.ask("node1")
    assert [warning["code"] for warning in two.alive.warnings()] == ["CONFIG_IN_DOUBT"]
    new = world.edit("node2")
    with pytest.raises(SaidNo, match="--without-peer"):
        await apply(two.alive, Order("ann"))
    await apply(two.alive, Order("ann", without_peer=True))
    assert two.alive.applied.digest == new and two.alive.held("pg") == ""
    await world.calm()
    assert world.digests() == {new}, "node1 never committed its own: it takes what came after"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A node's state on a disk of its own, of 512 KiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    places: list[Path] = []

    def make(node: str) -> Path:
        place = tmp_path / node / "state"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], check=True)
        places.append(place)
        return place

    yield make
    for place in places:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("full", ["node1", "node2"])
async def test_a_full_disk_on_either_node_refuses_it_and_nothing_has_changed(
    tmp_path: Path, small_disk: Callable[[str], Path], full: str
) -> None:
    world = World(tmp_path)
    place = small_disk(full)
    await world.boot()
    old, new = world.places["node1"].files(), world.edit("node1")
    with (place / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(b"x" * 4096)
    with pytest.raises((OSError, SaidNo), match="No space left"):
        await apply(world.places["node1"].alive, Order("ann"))
    assert world.digests() == {old} and world.promises() == []
    (place / "ballast").unlink()
    await apply(world.places["node1"].alive, Order("ann"))
    assert world.digests() == {new}


async def test_two_that_begin_at_the_same_time_do_not_both_succeed(tmp_path: Path) -> None:
    world = await World(tmp_path).boot()
    digests = {world.edit("node1"), world.edit("node2", 'max_restarts = "5 per 1h"', 'max_restarts = "6 per 1h"')}
    refused: list[str] = []

    async def begin(place: Place) -> None:
        try:
            await apply(place.alive, Order("ann", force_from_here=True))
        except SaidNo as refusal:
            refused.append(refusal.sentence)

    async with trio.open_nursery() as nursery:
        for place in world.places.values():
            nursery.start_soon(begin, place)
    await world.calm()
    assert refused and len(world.digests()) == 1 and world.promises() == []
    assert world.digests() <= digests | {world.places["node1"].alive.store.past.generations[0].digest}


async def test_bad_files_are_refused_with_their_places(tmp_path: Path) -> None:
    from orchestrator.config_errors import ConfigError

    world = await World(tmp_path).boot()
    world.edit("node1", 'boot = "off"', 'boot = "of"\ncolour = "red"')
    with pytest.raises(ConfigError) as caught:
        await apply(world.places["node1"].alive, Order("ann"))
    places = [(str(complaint.file), complaint.line) for complaint in caught.value.complaints]
    assert places == [(str(tmp_path / "node1/etc/modules/pg.toml"), line) for line in (5, 6)]


async def test_a_peer_that_asks_for_nonsense_is_refused(tmp_path: Path) -> None:
    world = await World(tmp_path).boot()
    calls = ConfigCalls(world.places["node2"].alive)
    good = {"generation": made(2, "t", "0" * 64).as_json(), "files": b"", "force": True}
    bad: list[tuple[str, Mapping[str, Any]]] = [
        ("config_prepare", {}), ("config_prepare", {"generation": {"number": "x"}}), ("config_prepare", good),
        ("config_prepare", {**good, "files": config_archive.pack({"cluster.toml": (0o644, b"")})}),
        ("config_commit", {"transaction": "never"}), ("config_files", {"digest": "f" * 64}), ("config_explode", {}),
    ]  # fmt: skip
    for method, parameters in bad:
        with pytest.raises(PeerRefused):
            await calls.from_peer(method, parameters, "node1")
    assert await calls.from_peer("config_abort", {"transaction": "never"}, "node1") == {}
    assert await calls.from_peer("config_fate", {"transaction": "never"}, "node1") == {"fate": "aborted"}
    assert world.promises() == []


async def test_an_interrupted_writing_of_the_files_is_finished(tmp_path: Path) -> None:
    world = await World(tmp_path).boot()
    new, two = world.edit("node1"), world.places["node2"]
    two.dies_at = "config-switched"
    await apply(world.places["node1"].alive, Order("ann"))
    assert two.files() != new
    two.dies_at = ""
    await two.boot()
    assert two.files() == new and two.alive.store.past.laid_out


async def test_nothing_about_peoples_files_ends_hactld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await World(tmp_path).boot()
    one = world.places["node1"]
    applied, strange = one.files(), Path(os.fsdecode(os.fsencode(one.root) + b"/etc/modules/caf\xe9.txt"))
    await trio.Path(strange).touch()
    gathered: list[Path] = []

    def gather(directory: Path, gather: Callable[[Path], Any] = config_archive.gather) -> Any:
        gathered.append(directory)
        return gather(directory)

    await one.alive.look_at_files()
    assert one.alive.files == "" and [warning["code"] for warning in one.alive.warnings()] == ["CONFIG_NOT_APPLIED"]
    monkeypatch.setattr(config_archive, "gather", gather)
    await one.alive.look_at_files()
    assert gathered == [], "what was refused is not read again while it stays as it is"
    await one.boot()
    with pytest.raises(SaidNo, match=r"caf\\xe9.txt"):
        await apply(one.alive, Order("ann"))
    await trio.Path(strange).unlink()
    await one.alive.look_at_files()
    assert one.alive.files == applied


async def test_hactld_goes_on_when_nothing_is_under_way(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    world = await World(tmp_path).boot()
    one = world.places["node1"]
    world.edit("node1")
    one.facts.busy = 7
    await apply(one.alive, Order("ann"))
    await one.alive.hand_over()
    assert one.alive.over.is_set() and one.facts.busy == -2, "a start under way was cut short, or waited for longer than it took"


async def test_a_recovery_of_minutes_is_not_thrown_away(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Nor what began in the very last moment."""
    world = await World(tmp_path).boot()
    one = world.places["node1"]
    world.edit("node1")
    await apply(one.alive, Order("ann"))
    begun = trio.current_time()
    one.facts.is_busy = lambda: trio.current_time() < begun + 180 or begun + 180.1 < trio.current_time() < begun + 200  # type: ignore[method-assign]
    await one.alive.hand_over()
    assert 200 <= trio.current_time() - begun < 202


async def test_what_never_ends_keeps_no_configuration_from_being_used(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    world = await World(tmp_path).boot()
    one = world.places["node1"]
    world.edit("node1")
    await apply(one.alive, Order("ann"))
    one.facts.is_busy = lambda: True  # type: ignore[method-assign]
    with trio.fail_after(config_keeper.IDLE_PATIENCE_S + 1):
        await one.alive.hand_over()
    assert one.alive.over.is_set() and "does not end: hactld goes on with generation 2" in one.log[-1]


@pytest.mark.parametrize("follows", [False, True], ids=["told", "follows"])
async def test_a_module_that_had_to_be_stopped_starts_with_the_new_configuration(tmp_path: Path, follows: bool) -> None:
    """As long as hactld waits with it, a start would still be one with the old."""
    world = await World(tmp_path).boot()
    world.edit("node1", 'replication_network = "repl"', 'replication_network = "lan"')
    if follows:
        world.cut = lambda source, target, method: True
    one, two = world.places["node1"], world.places["node2"]
    await apply(one.alive, Order("ann", without_peer=follows))
    if follows:
        world.cut = lambda source, target, method: False
        await two.alive.ask("node1")
    assert all("is being applied" in place.alive.held("pg") and not place.alive.held("other") for place in (one, two))
    await world.calm()
    assert [place.alive.held("pg") for place in (one, two)] == ["", ""]


def test_deadlines_fit_into_those_of_who_asks() -> None:
    from orchestrator.api.client import TIMEOUT_S
    from orchestrator.peer import SERVER_DEADLINE_S

    whole = config_keeper.STATE_DEADLINE_S + config_keeper.PREPARE_DEADLINE_S + COMMIT_DEADLINE_S
    assert whole < TIMEOUT_S and config_keeper.PREPARE_DEADLINE_S < SERVER_DEADLINE_S
