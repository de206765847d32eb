"""What follows from failover rules: every action in every state, once per incident, with the peer's view, the switches and the limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core import actions as act
from orchestrator.core import events as ev
from orchestrator.core import failover_rules, incidents, resources
from orchestrator.core.machine import step
from orchestrator.core.rules_language import ResourceState, Rule, parse
from orchestrator.core.states import Hold, Lane, Module, Point, Readiness, Resource, State, Summary
from orchestrator.core.turn import Node
from tests.unit.test_core_machine import PRIM_VIEW, SECOND_VIEW, kinds, node_with, primary, running

INIT, UP, DOWN = ResourceState.INIT, ResourceState.UP, ResourceState.DOWN
WATCHED = {"tcp.db": "prim", "script.own": "pre", "ping.gw": "pre"}
CATALOGUE = resources.catalogue_of(WATCHED)
BIT = {name: 1 << place for place, name in enumerate(sorted(WATCHED))}
PEER = Summary(state=State.SECOND, readiness=Readiness.READY, rfs_alive=True, complete=True, catalogue=CATALOGUE)
PAIRED_SECOND = replace(SECOND_VIEW, link="paired", mode="paired")
LIGHT = {"light": True, "rfs": Hold.OFF, "view": None, "entered": frozenset({Point.MODULE, Point.BOTH}), "announced": State.UP}


def rule(action: str, *terms: str, hold_s: float = 0.0, services: tuple[str, ...] = ()) -> Rule:
    return Rule("r", action, tuple(map(parse, terms)), (), hold_s, services)


def watching(module: Module, *rules: Rule, **states: ResourceState) -> Module:
    """The module with rules, and its resources (`_` for the dot) as they are."""
    known = {name: Resource(states.get(name.replace(".", "_"), UP), "", 90.0, 1) for name, when in WATCHED.items()}
    open_now = {name: known[name] for name, when in WATCHED.items() if when in resources.open_windows(module)}
    return replace(module, rules=rules, watched=WATCHED, resources=open_now, windows=1)


def after(node: Node, event: ev.Event) -> tuple[Module, set[type[act.Action]], list[act.Action]]:
    node, actions = step(node, event)
    return node.modules["pg"], kinds(list(actions)) - {act.KeepVip}, list(actions)


def goes_down(name: str, at: float = 100.0) -> ev.Checked:
    return ev.Checked(at, "pg", name, DOWN, "it does not answer", 1)


def tick(at: float = 100.0) -> ev.Tick:
    return ev.Tick(at)


STATES: dict[str, Module] = {
    "STOP": Module("pg", found=True, shown=(State.STOP, Readiness.NOT_READY)),
    "WAIT": running(replace(SECOND_VIEW, data="CONSISTENT"), shown=(State.WAIT, Readiness.NOT_READY), entered=frozenset({Point.MODULE})),
    "ALONE": primary(replace(PRIM_VIEW, link="alone", mode="alone"), shown=(State.ALONE, Readiness.READY)),
    "PRIM": primary(),
    "SECOND": running(PAIRED_SECOND, shown=(State.SECOND, Readiness.READY)),
    "UP": primary(shown=(State.UP, Readiness.READY), **LIGHT),
}
# What becomes of the module when a resource of this node's own goes down; the peer is ready to take over. Nothing: an empty line.
FOLLOWS: dict[tuple[str, str], str] = {
    ("STOP", "restart"): "", ("STOP", "stop"): "", ("STOP", "stopstart"): "", ("STOP", "swap"): "", ("STOP", "wait"): "",
    ("WAIT", "restart"): "", ("WAIT", "stop"): "stops", ("WAIT", "stopstart"): "cycles", ("WAIT", "swap"): "", ("WAIT", "wait"): "barred",
    ("ALONE", "restart"): "restarts", ("ALONE", "stop"): "stops", ("ALONE", "stopstart"): "cycles", ("ALONE", "swap"): "",
    ("ALONE", "wait"): "barred",
    ("PRIM", "restart"): "restarts", ("PRIM", "stop"): "stops swaps", ("PRIM", "stopstart"): "cycles swaps", ("PRIM", "swap"): "swaps",
    ("PRIM", "wait"): "barred swaps",
    ("SECOND", "restart"): "", ("SECOND", "stop"): "stops", ("SECOND", "stopstart"): "cycles", ("SECOND", "swap"): "",
    ("SECOND", "wait"): "barred",
    ("UP", "restart"): "restarts", ("UP", "stop"): "stops", ("UP", "stopstart"): "cycles", ("UP", "swap"): "", ("UP", "wait"): "barred",
    **{(state, "none"): "" for state in STATES},
}  # fmt: skip


@pytest.mark.parametrize(("state", "action"), FOLLOWS, ids=" ".join)
def test_every_action_in_every_state(state: str, action: str) -> None:
    module, _, _ = after(node_with(watching(STATES[state], rule(action, "script.own is down")), peer=PEER), goes_down("script.own"))
    facts = {
        "restarts": module.restarting or bool(module.partial),
        "stops": STATES[state].wanted and not module.wanted,
        "cycles": module.cycling,
        "barred": bool(module.barred),
        "swaps": module.swapping,
    }
    assert " ".join(name for name, holds in facts.items() if holds) == FOLLOWS[state, action]


def test_the_table_is_total() -> None:
    actions = {"restart", "stop", "stopstart", "swap", "wait", "none"}
    assert set(FOLLOWS) == {(state, action) for state in STATES for action in actions} and set(STATES) == {state.value for state in State}


@pytest.mark.parametrize(
    ("action", "fact"),
    [("restart", "restarting"), ("stopstart", "cycling"), ("swap", "swapping"), ("stop", "swapping"), ("wait", "swapping")],
)
def test_what_becomes_of_a_primary_with_a_ready_peer(action: str, fact: str) -> None:
    module, _, actions = after(node_with(watching(primary(), rule(action, "script.own is down")), peer=PEER), goes_down("script.own"))
    assert getattr(module, fact) and len(module.restarts) == 1, "each counts as a failure"
    assert module.wanted is (action != "stop")
    assert not [each for each in actions if isinstance(each, act.Reply)], "nobody asked"
    told = [each for each in actions if isinstance(each, act.Notify) and each.kind == "rule"]
    assert len(told) == 1 and told[0].inputs is not None and told[0].inputs["resources"]["script.own"] == "down"
    assert "it does not answer" in told[0].text


def test_it_is_done_once_per_incident_and_again_in_the_next() -> None:
    node = node_with(watching(primary(), rule("restart", "script.own is down")), peer=PEER)
    node, _ = step(node, goes_down("script.own"))
    module = replace(node.modules["pg"], restarting=False, script=None, services=Hold.ON)
    node = replace(node, modules={"pg": module})
    node, _ = step(node, tick(101.0))
    assert not node.modules["pg"].restarting, "it is down still, and was acted upon"
    node, _ = step(node, ev.Checked(102.0, "pg", "script.own", UP, "", 1))
    assert not node.modules["pg"].incidents
    node, _ = step(node, goes_down("script.own", 103.0))
    assert node.modules["pg"].restarting and len(node.modules["pg"].restarts) == 2


def test_a_rule_has_to_hold_for_its_time_without_a_break() -> None:
    node = node_with(watching(primary(), rule("restart", "script.own is down", hold_s=5.0)), peer=PEER)
    node, _ = step(node, goes_down("script.own"))
    node, _ = step(node, tick(104.0))
    node, _ = step(node, ev.Checked(104.5, "pg", "script.own", UP, "", 1))
    node, _ = step(node, goes_down("script.own", 104.6))
    node, _ = step(node, tick(109.5))
    assert not node.modules["pg"].restarting
    node, _ = step(node, tick(109.6))
    assert node.modules["pg"].restarting


def test_a_checker_looks_in_its_window_only_and_its_word_counts_for_that_window_only() -> None:
    node = node_with(watching(primary(), rule("restart", "tcp.db is down")), peer=PEER)
    assert node.modules["pg"].resources["tcp.db"].window == 1
    node, _ = step(node, goes_down("tcp.db"))
    assert node.modules["pg"].restarting
    node, _ = step(node, tick(100.1))
    assert "tcp.db" not in node.modules["pg"].resources, "nobody looks while the services restart"
    module = replace(node.modules["pg"], restarting=False, services=Hold.ON, script=None)
    node, _ = step(replace(node, modules={"pg": module}), tick(101.0))
    assert node.modules["pg"].resources["tcp.db"].state is INIT and node.modules["pg"].resources["tcp.db"].window == 2
    node, _ = step(node, goes_down("tcp.db", 101.1))  # seen in window 1
    assert node.modules["pg"].resources["tcp.db"].state is INIT
    node, _ = step(node, ev.Checked(101.2, "pg", "tcp.db", DOWN, "", None))  # somebody says so now
    assert node.modules["pg"].resources["tcp.db"].state is DOWN


def test_of_what_nobody_watches_nothing_is_heard() -> None:
    node = node_with(watching(primary()))
    assert step(node, ev.Checked(100.0, "pg", "tcp.nobody", DOWN, "", None))[0].modules["pg"].resources == node.modules["pg"].resources


def test_only_the_services_that_a_rule_names_restart() -> None:
    module = watching(primary(), rule("restart", "tcp.db is down", services=("web", "cache")))
    found, _, actions = after(node_with(module, peer=PEER), goes_down("tcp.db"))
    orders = [each for each in actions if isinstance(each, act.Ticketed)]
    assert [type(each) for each in orders] == [act.RestartServices] and orders[0].services == ("web", "cache")  # type: ignore[attr-defined]
    assert found.services is Hold.COMING and not found.restarting and len(found.restarts) == 1
    assert "tcp.db" not in found.resources, "also where they are up again before anything else happens"
    node = node_with(found, peer=PEER)
    done, _ = step(node, ev.Done(101.0, "pg", Lane.SERVICES, orders[0].ticket))
    assert done.modules["pg"].services is Hold.ON and done.modules["pg"].address is Hold.ON
    failed, ordered, _ = after(node, ev.Failed(101.0, "pg", Lane.SERVICES, orders[0].ticket, "web was not ready"))
    assert failed.services is Hold.GOING and act.StopServices in ordered and len(failed.restarts) == 2


def test_a_service_that_may_be_alone_is_started_again_alone() -> None:
    module = primary(alone=frozenset({"web"}))
    found, ordered, _ = after(node_with(module, peer=PEER), ev.ServiceDied(100.0, "pg", "web", "it ended"))
    assert ordered == {act.RestartServices} and not found.restarting and len(found.restarts) == 1
    other, ordered, _ = after(node_with(module, peer=PEER), ev.ServiceDied(100.0, "pg", "db", "it ended"))
    assert other.restarting and act.RestartServices not in ordered
    worn = replace(module, restarts=(97.0, 98.0, 99.0))
    given_up, ordered, _ = after(node_with(worn, peer=PEER), ev.ServiceDied(100.0, "pg", "web", "it ended"))
    assert given_up.services_failed and given_up.swapping and act.RestartServices not in ordered


# ---- wait -----------------------------------------------------------------------------------------------------------------------------


def shown(node: Node) -> tuple[State, Readiness, str]:
    return *node.modules["pg"].shown, node.reasons["pg"]


def own(**facts: Any) -> Module:
    return watching(primary(**facts), rule("wait", "script.own is down"))


def test_with_something_of_its_own_down_and_no_ready_peer_a_primary_stops_serving_and_stays_the_mirrors_source() -> None:
    node, actions = step(node_with(own(), peer=replace(PEER, readiness=Readiness.TRANSIENT)), goes_down("script.own"))
    assert shown(node)[:2] == (State.PRIM, Readiness.TRANSIENT) and not node.modules["pg"].swapping
    first = next(each for each in actions if isinstance(each, act.Ticketed))
    node, _ = step(node, ev.Done(100.0, "pg", act.LANE_OF[type(first)], first.ticket))
    for _ in range(12):
        module = node.modules["pg"]
        for lane, ticket in module.tickets.items():
            node, _ = step(node, ev.Done(100.0, "pg", lane, ticket)) if busy(node.modules["pg"], lane) else (node, ())
    assert shown(node) == (State.WAIT, Readiness.NOT_READY, "script.own is down: it does not answer (rule r)")
    module = node.modules["pg"]
    assert (module.services, module.address, module.rfs) == (Hold.OFF, Hold.OFF, Hold.ON) and module.entered == {Point.MODULE}
    node, _ = step(node, ev.Checked(130.0, "pg", "script.own", UP, "", 1))
    assert shown(node)[:2] == (State.PRIM, Readiness.TRANSIENT), "and goes on by itself"
    assert node.modules["pg"].address is Hold.COMING


def busy(module: Module, lane: Lane) -> bool:
    """Is something under way there?"""
    held = {Lane.SERVICES: module.services, Lane.ADDRESS: module.address, Lane.RFS: module.rfs}.get(lane)
    if lane is Lane.SCRIPTS:
        return module.script is not None
    return held in (Hold.COMING, Hold.GOING)


def test_a_light_module_waits_and_goes_on() -> None:
    node, actions = step(node_with(watching(STATES["UP"], rule("wait", "script.own is down"))), goes_down("script.own"))
    for _ in range(6):
        for order in [each for each in actions if isinstance(each, act.Ticketed)]:
            node, actions = step(node, ev.Done(100.0, "pg", act.LANE_OF[type(order)], order.ticket))
    assert shown(node) == (State.WAIT, Readiness.NOT_READY, "script.own is down: it does not answer (rule r)")
    node, actions = step(node, ev.Checked(101.0, "pg", "script.own", UP, "", 1))
    assert shown(node)[:2] == (State.WAIT, Readiness.TRANSIENT) and kinds(list(actions)) & {act.VipUp, act.RunScript, act.StartServices}


def test_a_peer_that_can_take_the_role_gets_it() -> None:
    module, _, _ = after(node_with(own(), peer=PEER), goes_down("script.own"))
    assert module.swapping and len(module.restarts) == 1


@pytest.mark.parametrize(
    "peer",
    [
        replace(PEER, unfit=True),
        replace(PEER, services_failed=True),
        replace(PEER, paused=True),
        replace(PEER, state=State.WAIT, readiness=Readiness.NOT_READY),
    ],
    ids=["unfit", "failed", "paused", "waits as well"],
)
def test_a_peer_that_should_not_serve_gets_nothing(peer: Summary) -> None:
    for action in ("wait", "swap"):
        module, _, _ = after(node_with(watching(primary(), rule(action, "script.own is down")), peer=peer), goes_down("script.own"))
        assert not module.swapping
        assert bool(module.barred) is (action == "wait")


def test_nothing_is_handed_to_a_peer_whose_rule_says_so_not_even_by_a_stop() -> None:
    node = node_with(primary(), peer=replace(PEER, unfit=True))
    _, _, actions = after(node, ev.Swap(100.0, "pg", 1))
    assert [each.code for each in actions if isinstance(each, act.Reply)] == [6]
    module, _, _ = after(node, ev.Stop(100.0, "pg", 1))
    assert not module.swapping


def test_what_fails_for_both_stops_neither() -> None:
    compares = rule("wait", "ping.gw is down", "remote.ping.gw is up")
    node = node_with(watching(primary(), compares), peer=replace(PEER, down=BIT["ping.gw"]))
    module, ordered, _ = after(node, goes_down("ping.gw"))
    assert not module.barred and not ordered and not module.incidents
    better = node_with(watching(primary(), compares), peer=replace(PEER, up=BIT["ping.gw"]))
    module, _, _ = after(better, goes_down("ping.gw"))
    assert module.barred and module.swapping


@pytest.mark.parametrize("peer", [None, replace(PEER, catalogue=0, up=0), replace(PEER, catalogue=CATALOGUE + 1)])
def test_a_peer_that_does_not_say_is_not_better_off(peer: Summary | None) -> None:
    compares = rule("swap", "ping.gw is down", "remote.ping.gw is up")
    if peer is not None:
        peer = replace(peer, up=BIT["ping.gw"])
    module, ordered, _ = after(node_with(watching(primary(), compares), peer=peer), goes_down("ping.gw"))
    assert not module.incidents and not ordered


def test_a_rule_that_compares_takes_no_service_away_that_nobody_could_give() -> None:
    compares = rule("wait", "ping.gw is down", "remote.ping.gw is not down")
    resyncing = replace(PEER, readiness=Readiness.TRANSIENT)
    node, _ = step(node_with(watching(primary(), compares), peer=resyncing), goes_down("ping.gw"))
    module = node.modules["pg"]
    assert not module.barred and module.unfit and not module.restarts
    why = incidents.judged(module, node.around, resyncing)[0]
    assert why.holds and why.why_not == "node2 is not better off now, so this node goes on"
    node, _ = step(replace(node, peer_modules={"pg": PEER}), tick(101.0))
    assert node.modules["pg"].swapping, "as soon as it can"


def test_a_secondary_waits_and_is_not_promoted_by_itself() -> None:
    module = watching(STATES["SECOND"], rule("wait", "script.own is down"))
    node, _ = step(node_with(module, peer=Summary(state=State.PRIM, serves=True)), goes_down("script.own"))
    assert shown(node)[:2] == (State.WAIT, Readiness.NOT_READY) and not node.modules["pg"].restarts, "nothing was taken down"
    assert node.summaries()["pg"].unfit
    lost = replace(node.modules["pg"], view=SECOND_VIEW, script=None)
    silent = node_with(lost, peer_silent=True)
    node, actions = step(silent, tick())
    assert act.PromoteRfs not in kinds(list(actions)) and shown(node)[0] is State.WAIT
    node, actions = step(node, ev.Checked(101.0, "pg", "script.own", UP, "", 1))
    assert act.PromoteRfs in kinds(list(actions))


def test_what_the_peer_hands_over_is_taken_and_not_served() -> None:
    module = watching(STATES["SECOND"], rule("wait", "script.own is down"))
    node, _ = step(node_with(module), goes_down("script.own"))
    assert act.PromoteRfs in after(node, ev.PeerAskedPromote(101.0, "pg", 1))[1]
    leads = replace(node.modules["pg"], view=PRIM_VIEW, script=None, order=None)
    node, actions = step(replace(node, modules={"pg": leads}), tick(101.0))
    assert shown(node)[:2] == (State.WAIT, Readiness.NOT_READY) and act.VipUp not in kinds(list(actions))
    node, _ = step(replace(node, peer_modules={"pg": PEER}), tick(102.0))
    assert node.modules["pg"].swapping and len(node.modules["pg"].restarts) == 0, "back to who can serve"


def test_an_administrators_word_is_not_enough_and_he_is_told_what_is() -> None:
    module = replace(watching(STATES["SECOND"], rule("wait", "script.own is down")), view=SECOND_VIEW)
    node, _ = step(node_with(module, peer_silent=True), goes_down("script.own"))
    replies = [each for each in step(node, ev.Prim(101.0, "pg", 1))[1] if isinstance(each, act.Reply)]
    assert replies[0].code == 6 and "script.own is down" in replies[0].message and "hactl checkers off pg" in replies[0].message


def test_before_the_first_word_nothing_is_begun_and_nothing_is_stopped() -> None:
    serves, _, _ = after(node_with(watching(primary(), rule("wait", "script.own is down"), script_own=INIT), peer=PEER), tick())
    assert serves.awaited == "script.own" and not serves.barred and serves.shown == (State.PRIM, Readiness.READY)
    alone = replace(PRIM_VIEW, link="alone", mode="alone")
    begins = primary(alone, services=Hold.OFF, address=Hold.OFF, entered=frozenset({Point.MODULE}), announced=State.WAIT,
                     shown=(State.WAIT, Readiness.TRANSIENT))  # fmt: skip
    node, actions = step(node_with(watching(begins, rule("wait", "script.own is down"), script_own=INIT)), tick())
    assert not kinds(list(actions)) and shown(node) == (State.WAIT, Readiness.TRANSIENT, "waiting for the first word about script.own")
    node, actions = step(node, ev.Checked(100.5, "pg", "script.own", UP, "", 1))
    assert act.VipUp in kinds(list(actions))


# ---- switches and limits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["restart", "stop", "stopstart", "swap", "wait"])
def test_with_the_checkers_off_nothing_follows_and_everything_when_they_are_on_again(action: str) -> None:
    module = replace(watching(primary(), rule(action, "script.own is down")), unchecked=True)
    node, actions = step(node_with(module, peer=PEER), goes_down("script.own"))
    assert not kinds(list(actions)) - {act.KeepVip} and not node.summaries()["pg"].unfit
    assert [each.text for each in actions if isinstance(each, act.Notify)] == ["script.own is down: it does not answer"], "it is noted"
    node, _ = step(node, ev.Switch(101.0, "pg", 1, "checkers", "on"))
    now = node.modules["pg"]
    assert now.restarting or now.swapping or now.cycling


def test_paused_it_restarts_here_and_moves_nothing() -> None:
    local = replace(watching(primary(), rule("restart", "tcp.db is down")), paused=True)
    restarts, _, _ = after(node_with(local, peer=PEER), goes_down("tcp.db"))
    assert restarts.restarting
    for action in ("swap", "stopstart", "wait"):
        module, _, _ = after(
            node_with(replace(watching(primary(), rule(action, "script.own is down")), paused=True), peer=PEER), goes_down("script.own")
        )
        assert not module.swapping
        assert bool(module.barred) is (action == "wait") and module.cycling is (action == "stopstart")


@pytest.mark.parametrize("action", ["restart", "stop", "stopstart", "swap", "wait"])
def test_one_incident_too_many_and_the_services_are_given_up_here(action: str) -> None:
    worn = watching(primary(restarts=(97.0, 98.0, 99.0)), rule(action, "script.own is down"))
    module, _, _ = after(node_with(worn, peer=PEER), goes_down("script.own"))
    assert module.services_failed and module.swapping and module.wanted and not module.cycling and not module.restarting


def test_what_is_under_way_is_waited_for_and_then_it_follows() -> None:
    busy_module = replace(watching(primary(), rule("restart", "script.own is down")), services=Hold.COMING)
    node, _ = step(node_with(busy_module, peer=PEER), goes_down("script.own"))
    assert not node.modules["pg"].restarting
    why = incidents.judged(node.modules["pg"], node.around, PEER)[0]
    assert why.why_not == "the services are on their way"
    node, _ = step(replace(node, modules={"pg": replace(node.modules["pg"], services=Hold.ON)}), tick(101.0))
    assert node.modules["pg"].restarting


def test_the_heartbeats_say_what_is_up_and_what_is_down() -> None:
    module = watching(primary(), script_own=DOWN, ping_gw=INIT)
    said = failover_rules.summary(module, "")
    assert (said.catalogue, said.up, said.down) == (CATALOGUE, BIT["tcp.db"], BIT["script.own"])
    node = node_with(module, peer=said)
    known = resources.there(module, node.around, said)
    assert known == {"tcp.db": UP, "script.own": DOWN}
    assert resources.there(module, replace(node.around, peer_silent=True), said) == {}
