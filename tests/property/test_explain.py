"""What people are told is what the machine does: every explanation's verdict is its rule's, in whatever state."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core import explain
from orchestrator.core import failover_rules as rules
from orchestrator.core.states import Hold, Module, Order, Readiness, RfsView, State, Summary, Surroundings

NOW = 1000.0
flags = st.booleans()
views = st.builds(
    RfsView,
    role=st.sampled_from(("primary", "secondary")),
    link=st.sampled_from(("connecting", "handshaking", "paired", "resyncing", "frozen", "alone")),
    mode=st.sampled_from(("idle", "frozen", "unused", "alone", "resyncing", "paired")),
    data=st.sampled_from(("UPTODATE", "CONSISTENT", "OUTDATED", "INCONSISTENT")),
    needs_grant=flags,
    consent=flags,
)
modules = st.builds(
    Module,
    name=st.just("pg"),
    default_primary=st.sampled_from(("alone", "lastprim", "node1", "node2")),
    wanted=flags,
    cycling=flags,
    paused=flags,
    has_record=flags,
    holds_files=flags,
    rfs=st.sampled_from(Hold),
    view=views,
    services=st.sampled_from(Hold),
    address=st.sampled_from(Hold),
    order=st.sampled_from((None, None, Order.PROMOTE)),
    current=flags,
    swapping=flags,
    services_failed=flags,
    barred=st.sampled_from(("", "", "script.own is down")),
    awaited=st.sampled_from(("", "", "script.own")),
    failbacks=st.sampled_from(((), (NOW - 1,), (NOW - 3, NOW - 2, NOW - 1))),
    since=st.sampled_from((NOW - 60.0, NOW - 1.0)),
    shown=st.tuples(st.sampled_from(State), st.sampled_from(Readiness)),
)
surroundings = st.builds(
    Surroundings,
    node=st.just("node1"),
    peer=st.just("node2"),
    policy=st.sampled_from(("availability", "consistency")),
    has_ping=flags,
    has_witness=flags,
    now=st.just(NOW),
    peer_silent=flags,
    peer_heard=flags,
    ping_ok=flags,
    unsure_until=st.sampled_from((0.0, NOW + 1)),
)
peers = st.none() | st.builds(
    Summary,
    state=st.sampled_from(State),
    readiness=st.sampled_from(Readiness),
    serves=flags,
    yielded=flags,
    complete=flags,
    services_failed=flags,
    paused=flags,
    led=flags,
    unfit=flags,
)


@settings(max_examples=1500, deadline=None)
@given(modules, surroundings, peers)
def test_each_verdict_is_its_rules(module: Module, around: Surroundings, peer: Summary | None) -> None:
    view = module.view
    assert view is not None
    assert explain.takeover(module, around, peer).verdict == (rules.promotion(module, around, peer) is not None)
    assert explain.going_alone(module, around, peer).verdict == (rules.permission(module, around, peer) is not None)
    assert explain.hand_over(module, around, peer).verdict == rules.ready_to_receive(view, around, peer)
    assert explain.give_back(module, around, peer).verdict == bool(rules.failback(module, around, peer))
    assert explain.start(module, around, peer).verdict == (not rules.why_not_started(module, around, peer))


@settings(max_examples=200, deadline=None)
@given(modules, surroundings, peers)
def test_something_is_told_in_every_state(module: Module, around: Surroundings, peer: Summary | None) -> None:
    for known in (module, replace(module, view=None)):
        told = explain.explain(known, around, peer)
        assert told and all(explanation.conditions for explanation in told)
        json.dumps(explain.evidence(known, around, peer))
