"""The table is total, steps are pure, and the single rules hold that the stories in tests/sim do not single out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core import actions as act
from orchestrator.core import events as ev
from orchestrator.core.detector import Detector
from orchestrator.core.machine import COLUMNS, TABLE, step
from orchestrator.core.rules_language import ResourceState, Rule, Term
from orchestrator.core.states import (
    Hold,
    Lane,
    Module,
    Order,
    Point,
    Readiness,
    Resource,
    RfsView,
    State,
    Summary,
    Surroundings,
    Wish,
)
from orchestrator.core.turn import DONE, REFUSED, Node

SECOND_VIEW = RfsView(role="secondary", link="connecting", mode="idle", data="UPTODATE", term=3)
PRIM_VIEW = RfsView(role="primary", link="paired", mode="paired", data="UPTODATE", term=3)
FROZEN_VIEW = RfsView(role="primary", link="frozen", mode="frozen", data="UPTODATE", term=3, needs_grant=True)


def concrete_events() -> list[type[ev.Event]]:
    abstract = (ev.Event, ev.ModuleEvent, ev.Command)
    return [kind for kind in vars(ev).values() if isinstance(kind, type) and issubclass(kind, ev.Event) and kind not in abstract]


def node_with(module: Module, *, policy: str = "availability", peer: Summary | None = None, **around: Any) -> Node:
    now = around.setdefault("now", 100.0)
    surroundings = replace(Surroundings("node1", "node2", policy=policy, peer_heard=True), **around)  # type: ignore[arg-type]
    silent = around.get("peer_silent", False)
    detector = Detector.new(("lan",), 3.0, now - 10.0 if silent else now)
    return Node(surroundings, detector, {"pg": module}, peer_modules={"pg": peer} if peer else {})


def running(view: RfsView, **facts: Any) -> Module:
    defaults: dict[str, Any] = {"found": True, "wanted": True, "has_record": True, "rfs": Hold.ON, "rfs_session": 1, "current": True,
        "entered": frozenset({Point.MODULE, Point.BOTH, Point.SECOND, Point.SEC}), "announced": State.SECOND}
    return replace(Module("pg", view=view), **{**defaults, **facts})


def primary(view: RfsView = PRIM_VIEW, **facts: Any) -> Module:
    defaults: dict[str, Any] = {"services": Hold.ON, "address": Hold.ON, "shown": (State.PRIM, Readiness.READY),
        "entered": frozenset({Point.MODULE, Point.BOTH, Point.PRIM}), "announced": State.PRIM}
    return running(view, **{**defaults, **facts})


def ordered(node: Node, event: ev.Event) -> list[act.Action]:
    return list(step(node, event)[1])


def kinds(actions: list[act.Action]) -> set[type[act.Action]]:
    return {type(action) for action in actions} - {act.Notify, act.TellPeer}


def sample(kind: type[ev.Event]) -> ev.Event:
    given: dict[str, Any] = {
        "now": 100.0, "module": "pg", "late_s": 5.0, "network": "lan", "incarnation": 7, "counter": 1, "echo": 0, "modules": {},
        "ok": True, "wanted": True, "has_record": True, "holds_files": False, "rfs_runs": False, "services_run": False,
        "address_held": False, "request": 1, "session": 1, "view": SECOND_VIEW, "reason": "it ended", "service": "postgres",
        "lane": Lane.ROLE, "ticket": 1, "switch": "failover", "value": "on", "what": "count",
        "resource": "tcp.db", "state": ResourceState.DOWN, "text": "it refuses connections",
    }  # fmt: skip
    names = [name for name, field in kind.__dataclass_fields__.items() if name in given]
    return kind(**{name: given[name] for name in names})


def test_the_table_is_total() -> None:
    assert set(TABLE) == {(state, kind) for state in State for kind in concrete_events()}
    assert set(COLUMNS) == set(State)


@pytest.mark.parametrize("kind", concrete_events(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("view", [None, SECOND_VIEW, PRIM_VIEW, FROZEN_VIEW], ids=["none", "second", "prim", "frozen"])
def test_every_pair_is_survived_and_answered(kind: type[ev.Event], state: State, view: RfsView | None) -> None:
    for hold in (Hold.OFF, Hold.ON):
        for order in (None, Order.DEMOTE, Order.ASK_OUTDATE):
            module = replace(
                primary(view or PRIM_VIEW, services=hold, address=hold, order=order, tickets=dict.fromkeys(Lane, 1)),
                view=view,
                shown=(state, Readiness.READY),
            )
            node = node_with(module)
            after, actions = step(node, sample(kind))
            assert step(node, sample(kind)) == (after, actions), "the same step twice must be the same"
            if issubclass(kind, ev.Command):
                replies = [action for action in actions if isinstance(action, act.Reply)]
                waits = after.modules["pg"].asked
                assert len(replies) + len(waits) == 1


def test_a_command_for_an_unknown_module_is_answered() -> None:
    actions = ordered(node_with(primary()), ev.Stop(100.0, "web", 5))
    assert isinstance(actions[0], act.Reply)
    assert actions[0].code == 1


# ---- by a word -----------------------------------------------------------------------------------------------------------------------


def answer(module: Module, event: ev.Event, peer: Summary | None = None) -> tuple[int, str]:
    (reply,) = (each for each in ordered(node_with(module, peer=peer), event) if isinstance(each, act.Reply))
    return reply.code, reply.message


def test_a_primary_that_shows_wait_can_be_swapped_and_becomes_no_secondary() -> None:
    rules = (Rule("disk.x", "wait", (Term("disk.x", ResourceState.DOWN),)),)
    barred = primary(services=Hold.OFF, address=Hold.OFF, paused=True, barred="disk.x is down", shown=(State.WAIT, Readiness.NOT_READY),
        rules=rules, watched={"disk.x": "pre"}, resources={"disk.x": Resource(ResourceState.DOWN)})  # fmt: skip
    peer = Summary(state=State.SECOND, readiness=Readiness.READY, rfs_alive=True, complete=True)
    assert answer(barred, ev.Swap(100.0, "pg", 1), peer) == (DONE, "pg moves to node2")
    not_ready = replace(peer, readiness=Readiness.TRANSIENT)
    assert answer(barred, ev.Swap(100.0, "pg", 1), not_ready) == (
        REFUSED, "node2 is not SECOND Ready: swap when 'hactl status' says so"
    )  # fmt: skip
    for fullsync in (False, True):
        code, said = answer(barred, ev.Second(100.0, "pg", 1, fullsync=fullsync), peer)
        assert (code, said) == (REFUSED, "the data of pg are taken from node1: use 'hactl swap pg'")
    waits = running(SECOND_VIEW, shown=(State.WAIT, Readiness.NOT_READY))
    assert answer(waits, ev.Swap(100.0, "pg", 1), peer) == (REFUSED, "pg is WAIT on node1: 'swap' is not possible here")
    frozen = running(FROZEN_VIEW, shown=(State.WAIT, Readiness.NOT_READY))
    assert answer(frozen, ev.Second(100.0, "pg", 1, fullsync=True))[0] == DONE, "it serves nobody, and may be told that its data are not it"


# ---- taking over --------------------------------------------------------------------------------------------------------------------


def test_silence_is_permission_for_a_current_second() -> None:
    node = node_with(running(SECOND_VIEW), peer_silent=True)
    assert act.PromoteRfs in kinds(ordered(node, ev.Tick(100.0)))


@pytest.mark.parametrize(
    ("module", "around"),
    [
        (running(SECOND_VIEW), {"peer_silent": False}),
        (running(SECOND_VIEW), {"policy": "consistency"}),
        (running(SECOND_VIEW), {"has_ping": True, "ping_ok": False}),
        (running(SECOND_VIEW), {"has_ping": True, "ping_ok": True, "ping_ok_since": 99.0}),
        (running(SECOND_VIEW), {"unsure_until": 101.0}),
        (running(SECOND_VIEW), {"long_pause_at": 99.0}),
        (running(SECOND_VIEW, current=False), {}),
        (running(replace(SECOND_VIEW, data="CONSISTENT")), {}),
        (running(replace(SECOND_VIEW, data="OUTDATED")), {}),
        (running(replace(SECOND_VIEW, link="paired")), {}),
        (running(SECOND_VIEW, order=Order.OUTDATE), {}),
        (running(SECOND_VIEW, wanted=False), {}),
    ],
)
def test_nobody_else_takes_over(module: Module, around: dict[str, Any]) -> None:
    node = node_with(module, **{"peer_silent": True, **around})
    assert act.PromoteRfs not in kinds(ordered(node, ev.Tick(100.0)))


def test_a_yielding_peer_is_relieved_at_once() -> None:
    peer = Summary(yielded=True)
    assert act.PromoteRfs in kinds(ordered(node_with(running(SECOND_VIEW), peer=peer), ev.Tick(100.0)))


def second(view: RfsView) -> Module:
    return running(view, shown=(State.SECOND, Readiness.READY))


def test_the_address_is_probed_for_when_the_link_is_lost_and_when_the_role_is_taken() -> None:
    node = node_with(second(replace(SECOND_VIEW, link="paired")))
    node, actions = step(node, ev.RfsStatus(100.0, "pg", 1, SECOND_VIEW))
    assert act.ProbeVip in kinds(list(actions))
    assert act.ProbeVip in kinds(ordered(node_with(second(SECOND_VIEW), peer_silent=True), ev.Tick(100.0)))
    node = node_with(second(replace(SECOND_VIEW, link="paired", data="CONSISTENT")))
    assert act.ProbeVip not in kinds(ordered(node, ev.RfsStatus(100.0, "pg", 1, replace(SECOND_VIEW, data="CONSISTENT"))))


def how_taken(module: Module) -> tuple[bool, bool]:
    """An address that is taken: granted, handed."""
    serving = RfsView(role="primary", link="alone", mode="alone", data="UPTODATE", term=4)
    actions = ordered(node_with(module), ev.RfsStatus(100.0, "pg", 1, serving))
    return next((action.granted, action.handed) for action in actions if isinstance(action, act.VipUp))


def test_what_the_peer_gave_back_is_taken_at_once_and_only_that() -> None:
    given, _ = step(node_with(second(SECOND_VIEW)), ev.PeerAskedPromote(100.0, "pg", 1))
    assert how_taken(given.modules["pg"]) == (False, True)
    forced, _ = step(node_with(second(SECOND_VIEW)), ev.PeerAskedPromote(100.0, "pg", 1, force=True))
    assert how_taken(forced.modules["pg"]) == (True, False)
    taken, _ = step(node_with(second(SECOND_VIEW), peer_silent=True), ev.Tick(100.0))
    assert how_taken(taken.modules["pg"]) == (True, False)
    left, _ = step(node_with(second(replace(SECOND_VIEW, consent=True))), ev.Tick(100.0))
    assert how_taken(left.modules["pg"]) == (False, True)
    lost = replace(given.modules["pg"], address=Hold.ON, retry_at={})
    careful, _ = step(node_with(lost), ev.AddressLost(100.0, "pg", "a stranger has it"))
    assert not careful.modules["pg"].handed and not careful.modules["pg"].granted


def test_the_peer_may_not_outdate_a_node_that_is_taking_over() -> None:
    node = node_with(running(SECOND_VIEW, order=Order.PROMOTE, shown=(State.SECOND, Readiness.TRANSIENT)))
    replies = [action for action in ordered(node, ev.PeerAskedOutdate(100.0, "pg", 9)) if isinstance(action, act.Reply)]
    assert [reply.code for reply in replies] == [6]


# ---- going on alone -----------------------------------------------------------------------------------------------------------------


def test_a_frozen_primary_asks_a_living_peer_first() -> None:
    peer = Summary(rfs_alive=True)
    assert kinds(ordered(node_with(primary(FROZEN_VIEW), peer=peer), ev.Tick(100.0))) >= {act.AskPeerOutdate}


def test_a_frozen_primary_needs_nobody_when_the_peers_rfsmount_is_dead() -> None:
    assert act.GrantRfs in kinds(ordered(node_with(primary(FROZEN_VIEW), peer=Summary(rfs_alive=False)), ev.Tick(100.0)))


@pytest.mark.parametrize("policy", ["availability", "consistency"])
def test_a_frozen_primary_goes_on_when_the_peer_is_silent(policy: str) -> None:
    assert act.GrantRfs in kinds(ordered(node_with(primary(FROZEN_VIEW), policy=policy, peer_silent=True), ev.Tick(100.0)))


def test_a_cut_off_primary_gives_the_address_back_and_keeps_the_services() -> None:
    node = node_with(primary(FROZEN_VIEW), peer_silent=True, has_ping=True)
    assert kinds(ordered(node, ev.Tick(100.0))) == {act.VipDown}


def test_a_frozen_peer_with_a_higher_term_outranks_nobody() -> None:
    alone = replace(PRIM_VIEW, link="alone", mode="alone")
    peer = Summary(role="primary", serves=False, term=9)
    assert act.FenceRfs not in kinds(ordered(node_with(primary(alone), peer=peer), ev.Tick(100.0)))


def test_of_two_that_serve_the_lower_term_yields() -> None:
    alone = replace(PRIM_VIEW, link="alone", mode="alone")
    peer = Summary(role="primary", serves=True, term=9, link="alone")
    found = kinds(ordered(node_with(primary(alone), peer=peer), ev.Tick(100.0)))
    assert {act.FenceRfs, act.StopServices, act.VipDown} <= found


# ---- history is not believed --------------------------------------------------------------------------------------------------------


def test_a_status_of_an_older_rfsmount_is_ignored() -> None:
    node = node_with(primary(rfs_session=2))
    after, _ = step(node, ev.RfsStatus(100.0, "pg", 1, SECOND_VIEW))
    assert after.modules["pg"].view == PRIM_VIEW


def test_a_completion_of_a_replaced_action_is_ignored() -> None:
    node = node_with(primary(services=Hold.GOING, tickets={Lane.SERVICES: 8}))
    after, _ = step(node, ev.Done(100.0, "pg", Lane.SERVICES, 7))
    assert after.modules["pg"].services is Hold.GOING


def test_a_pause_forgets_the_status_and_renews_nothing() -> None:
    node = node_with(primary())
    after, actions = step(node, ev.Paused(100.0, 5.0))
    assert after.modules["pg"].view is None
    assert act.RefreshRfs in {type(action) for action in actions}
    assert act.KeepVip not in {type(action) for action in step(after, ev.Tick(100.2))[1]}


def test_heartbeats_from_before_the_pause_do_not_end_the_doubt() -> None:
    node, _ = step(node_with(primary()), ev.Paused(100.0, 5.0, pulses=40))
    node, _ = step(node, ev.Heartbeat(100.1, "lan", 7, 1, 40, {}))
    assert node.around.unsure
    node, _ = step(node, ev.Heartbeat(100.2, "lan", 7, 2, 41, {}))
    assert not node.around.unsure


def test_a_slow_networks_old_heartbeat_does_not_replace_a_newer_word() -> None:
    node = replace(node_with(primary()), detector=Detector.new(("lan", "repl"), 3.0, 100.0))
    node, _ = step(node, ev.Heartbeat(100.1, "lan", 7, 5, 0, {"pg": Summary(term=5)}))
    node, _ = step(node, ev.Heartbeat(100.2, "repl", 7, 4, 0, {"pg": Summary(term=4)}))
    assert node.peer_modules["pg"].term == 5


# ---- role lost ----------------------------------------------------------------------------------------------------------------------


def test_a_lost_role_takes_services_and_address_at_once() -> None:
    actions = ordered(node_with(primary()), ev.RfsStatus(100.0, "pg", 1, replace(SECOND_VIEW, link="resyncing")))
    assert {act.StopServices, act.VipDown} <= kinds(actions)
    assert all(action.kill for action in actions if isinstance(action, act.StopServices))


def test_rfsmount_dying_beside_a_complete_peer_yields_by_both_ways() -> None:
    node = node_with(primary(), peer=Summary(state=State.SECOND, readiness=Readiness.READY, complete=True, rfs_alive=True))
    after, actions = step(node, ev.RfsGone(100.0, "pg", 1, "rfsmount died", True, True))
    assert after.summaries()["pg"].yielded
    assert {action.call for action in actions if isinstance(action, act.TellPeer)} == {True, False}
    assert act.StartRfs not in kinds(list(actions))


def test_rfsmount_dying_alone_starts_again_in_place() -> None:
    node = node_with(primary(replace(PRIM_VIEW, link="alone", mode="alone")))
    after, actions = step(node, ev.RfsGone(100.0, "pg", 1, "rfsmount died", True, True))
    assert not after.summaries()["pg"].yielded
    assert {act.StartRfs, act.StopServices, act.VipDown} <= kinds(list(actions))


def test_too_many_deaths_end_in_a_named_state() -> None:
    module = primary(replace(PRIM_VIEW, link="alone", mode="alone"), restarts=(97.0, 98.0, 99.0), max_restarts=3)
    node, actions = step(node_with(module), ev.RfsGone(100.0, "pg", 1, "rfsmount died", True, True))
    assert act.StartRfs not in kinds(list(actions))
    for lane in (Lane.SERVICES, Lane.ADDRESS):
        node, _ = step(node, ev.Done(100.1, "pg", lane, node.modules["pg"].tickets[lane]))
    assert node.modules["pg"].shown == (State.WAIT, Readiness.NOT_READY)
    assert "more than 3 times" in node.reasons["pg"]


def test_an_rfsmount_that_was_told_to_end_did_not_die() -> None:
    """The word that it has ended and the one that it is gone come in either order."""
    stopped = Module("pg", found=True, rfs=Hold.OFF, rfs_session=1, has_record=True)
    after, _ = step(node_with(stopped), ev.RfsGone(100.0, "pg", 1, "rfsmount died", True, True))
    assert after.modules["pg"].restarts == () and not after.modules["pg"].problem
    assert after.modules["pg"].shown == (State.STOP, Readiness.NOT_READY)


# ---- people -------------------------------------------------------------------------------------------------------------------------


def test_files_are_never_overwritten_without_the_word() -> None:
    module = Module("pg", found=True, wanted=True, holds_files=True, entered=frozenset({Point.MODULE}), announced=State.WAIT)
    node, actions = step(node_with(module, peer=Summary(serves=True)), ev.Tick(100.0))
    assert kinds(list(actions)) == set()
    assert "hactl second --fullsync pg" in node.reasons["pg"]
    node, actions = step(node, ev.Second(100.0, "pg", 1, fullsync=True))
    assert any(isinstance(action, act.StartRfs) and action.replace_data for action in actions)


def test_prim_is_refused_while_the_peer_serves() -> None:
    node = node_with(Module("pg", found=True), peer=Summary(serves=True))
    replies = [action for action in ordered(node, ev.Prim(100.0, "pg", 1)) if isinstance(action, act.Reply)]
    assert [reply.code for reply in replies] == [6]


def test_a_refused_promotion_is_not_repeated_for_ever() -> None:
    node = node_with(running(replace(SECOND_VIEW, data="CONSISTENT"), wish=Wish.PRIMARY, order=Order.PROMOTE, tickets={Lane.ROLE: 1}))
    node, actions = step(node, ev.Failed(100.0, "pg", Lane.ROLE, 1, "only --force goes on", refused=True))
    assert node.modules["pg"].wish is None
    assert "only --force" in node.reasons["pg"]


def test_fullsync_survives_a_start_that_did_not_carry_it() -> None:
    facts = {"entered": frozenset({Point.MODULE}), "announced": State.WAIT, "shown": (State.WAIT, Readiness.TRANSIENT)}
    module = replace(running(RfsView(), **facts), rfs=Hold.COMING, view=None, tickets={Lane.RFS: 5})
    node, _ = step(node_with(module), ev.Second(100.0, "pg", 1, fullsync=True))
    node, actions = step(node, ev.Done(100.1, "pg", Lane.RFS, 5))
    assert act.StopRfs in kinds(list(actions))
    node, actions = step(node, ev.Done(100.2, "pg", Lane.RFS, node.modules["pg"].tickets[Lane.RFS]))
    assert [action.replace_data for action in actions if isinstance(action, act.StartRfs)] == [True]
    node, actions = step(node, ev.Done(100.3, "pg", Lane.RFS, node.modules["pg"].tickets[Lane.RFS]))
    assert node.modules["pg"].wish is None
    assert act.StopRfs not in kinds(list(actions))


def test_the_sentence_names_the_command_that_works() -> None:
    for data, said in (("CONSISTENT", "'hactl prim --force pg'"), ("OUTDATED", "'hactl prim --force pg'"), ("INCONSISTENT", "newer data")):
        node, _ = step(node_with(running(replace(SECOND_VIEW, data=data))), ev.Tick(100.0))
        assert node.reasons["pg"].count("--force") == said.count("--force"), node.reasons["pg"]
        assert said in node.reasons["pg"]
    frozen = replace(FROZEN_VIEW, data="CONSISTENT", needs_grant=False)
    node, _ = step(node_with(primary(frozen, current=False), peer_silent=True), ev.Tick(100.0))
    assert "'hactl prim --force pg'" in node.reasons["pg"]


# ---- late answers -------------------------------------------------------------------------------------------------------------------


def asked() -> tuple[Node, int]:
    node, _ = step(node_with(primary(FROZEN_VIEW), peer=Summary(rfs_alive=True)), ev.Tick(100.0))
    assert node.modules["pg"].order is Order.ASK_OUTDATE
    return node, node.modules["pg"].tickets[Lane.ROLE]


def test_an_answer_in_time_is_a_grant() -> None:
    node, ticket = asked()
    grants = [action for action in ordered(node, ev.Done(100.2, "pg", Lane.ROLE, ticket)) if isinstance(action, act.GrantRfs)]
    assert [grant.peer_outdated for grant in grants] == [True]


@pytest.mark.parametrize("between", [(PRIM_VIEW, FROZEN_VIEW), (replace(FROZEN_VIEW, generation="9"),), (PRIM_VIEW,)])
def test_an_answer_about_an_older_loss_is_none(between: tuple[RfsView, ...]) -> None:
    node, ticket = asked()
    for view in between:
        node, _ = step(node, ev.RfsStatus(100.1, "pg", 1, view))
    node, actions = step(node, ev.Done(100.2, "pg", Lane.ROLE, ticket))
    assert act.GrantRfs not in kinds(list(actions))
    needed_again = between[-1].needs_grant
    assert node.modules["pg"].order is (Order.ASK_OUTDATE if needed_again else None)
    assert node.modules["pg"].tickets.get(Lane.ROLE) == (ticket + 1 if needed_again else None)


# ---- with a witness: what is decided here is only whether to ask ------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["availability", "consistency"])
def test_with_a_witness_a_silent_peer_is_reason_to_ask_under_any_policy(policy: str) -> None:
    silent = {"peer_silent": True, "policy": policy, "has_witness": True}
    for current in (True, False):
        second = node_with(running(SECOND_VIEW, current=current), **silent)
        assert act.PromoteRfs in kinds(ordered(second, sample(ev.Tick)))
        frozen = node_with(primary(FROZEN_VIEW, current=current), **silent)
        assert act.GrantRfs in kinds(ordered(frozen, sample(ev.Tick)))


def test_with_a_witness_too_a_node_that_is_cut_off_asks_for_nothing() -> None:
    silent = {"peer_silent": True, "has_witness": True, "has_ping": True, "ping_ok": False}
    for module in (running(SECOND_VIEW), primary(FROZEN_VIEW)):
        assert not {act.PromoteRfs, act.GrantRfs} & kinds(ordered(node_with(module, **silent), sample(ev.Tick)))


def test_a_frozen_primary_that_reaches_neither_peer_nor_witness_gives_the_address_back() -> None:
    """Its peer probably serves by now."""
    silent = {"peer_silent": True, "has_witness": True}
    view = replace(FROZEN_VIEW, witness_away=True)
    assert act.VipDown in kinds(ordered(node_with(primary(view, order=Order.GRANT, tickets={Lane.ROLE: 1}), **silent), sample(ev.Tick)))
    assert act.VipDown not in kinds(ordered(node_with(primary(FROZEN_VIEW), **silent), sample(ev.Tick)))


# ---- switches and the default primary ------------------------------------------------------------------------------------------------

SECOND_READY = Summary(state=State.SECOND, readiness=Readiness.READY, rfs_alive=True, complete=True)


def well(**facts: Any) -> Module:
    """A primary that has been well for a while."""
    return primary(since=50.0, default_primary="node2", **facts)


def test_the_role_goes_to_the_default_primary_when_both_are_well() -> None:
    assert act.RunScript in kinds(ordered(node_with(well(), peer=SECOND_READY), ev.Tick(100.0)))


@pytest.mark.parametrize(
    ("facts", "peer"),
    [
        ({"since": 98.0}, {}),
        ({"paused": True}, {}),
        ({}, {"paused": True}),
        ({"default_primary": "alone"}, {}),
        ({"default_primary": "node1"}, {}),
        ({"default_primary": "lastprim"}, {}),
        ({"failbacks": (10.0, 20.0, 30.0)}, {}),
        ({}, {"services_failed": True}),
        ({}, {"readiness": Readiness.TRANSIENT}),
        ({"cycling": True, "wanted": True}, {"state": State.STOP}),
    ],
)
def test_and_otherwise_it_stays(facts: dict[str, Any], peer: dict[str, Any]) -> None:
    node = node_with(replace(well(), **facts), peer=replace(SECOND_READY, **peer))
    after, _ = step(node, ev.Tick(100.0))
    assert not after.modules["pg"].swapping


def test_lastprim_is_who_led_before() -> None:
    node = node_with(replace(well(), default_primary="lastprim"), peer=replace(SECOND_READY, led=True))
    after, _ = step(node, ev.Tick(100.0))
    assert after.modules["pg"].swapping and after.modules["pg"].failbacks == (100.0,)


def test_what_is_remembered_comes_before_the_answer() -> None:
    actions = ordered(node_with(primary()), ev.Switch(100.0, "pg", 1, "failover", "off"))
    assert isinstance(actions[0], act.Remember) and actions[0].memory.paused
    assert any(isinstance(action, act.Reply) and action.code == 0 for action in actions[1:])


def test_an_unknown_switch_is_refused() -> None:
    replies = [
        action for action in ordered(node_with(primary()), ev.Switch(100.0, "pg", 1, "light", "on")) if isinstance(action, act.Reply)
    ]
    assert [reply.code for reply in replies] == [6]


def test_services_that_fail_stay_where_they_are_while_failover_is_paused() -> None:
    node = node_with(primary(services_failed=True, paused=True), peer=SECOND_READY)
    after, _ = step(node, ev.Tick(100.0))
    assert not after.modules["pg"].swapping


# ---- found by the scenarios of the lab ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "witness", "force", "code"), [
    ("OUTDATED", False, False, 6), ("INCONSISTENT", True, False, 6), ("FAILED", False, False, 6), ("CONSISTENT", False, False, 6),
    ("CONSISTENT", True, False, 0), ("UPTODATE", False, False, 0), ("OUTDATED", False, True, 0), ("INCONSISTENT", False, True, 0),
])  # fmt: skip
def test_a_word_that_would_come_to_nothing_is_refused_at_once(data: str, witness: bool, force: bool, code: int) -> None:
    view = RfsView(role="secondary", link="connecting", mode="idle", data=data, term=3)
    node = node_with(second(view), has_witness=witness, peer_silent=True)
    _, actions = step(node, ev.Prim(100.0, "pg", 1, force=force))
    replies = [action for action in actions if isinstance(action, act.Reply)]
    assert [reply.code for reply in replies] == [code]
    assert code == 0 or "prim --force pg" in replies[0].message


def test_the_address_lives_on_while_the_services_take_their_time_to_stop() -> None:
    stopping = primary(wanted=False, services=Hold.GOING, tickets={Lane.SERVICES: 1})
    assert act.KeepVip in kinds(ordered(node_with(stopping), ev.Tick(100.0)))
    lost = primary(FROZEN_VIEW, wanted=False, services=Hold.GOING, tickets={Lane.SERVICES: 1})
    assert act.KeepVip not in kinds(ordered(node_with(lost), ev.Tick(100.0)))


def test_a_decision_that_comes_to_nothing_is_told_once_a_minute() -> None:
    node, told = node_with(second(SECOND_VIEW), peer_silent=True), []
    for number in range(300):
        now = 100.0 + number / 4
        node, actions = step(node, ev.Tick(now))
        told += [now for action in actions if isinstance(action, act.Notify) and action.kind == "takeover"]
        for action in actions:
            if isinstance(action, act.PromoteRfs):
                node, _ = step(node, ev.Failed(now, "pg", Lane.ROLE, action.ticket, "the witness gave the grant to the peer", True))
    assert len(told) == 2 and told[1] - told[0] >= 60.0
