"""The language of failover rules: what is written is read back, nothing but a sentence comes of nonsense, and what is called a
contradiction is one: whether a rule can hold is compared with all states that there are."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.core.rules_language import BadTerm, ResourceState, Rule, Term, contradiction, expanded, parse

NAMES = ("tcp.db", "tcp.web", "ping.192.0.2.1", "interface.eth0.100")
terms = st.builds(Term, st.sampled_from(NAMES), st.sampled_from(ResourceState), st.booleans(), st.booleans())
rules = st.builds(
    Rule, st.just("r"), st.just("restart"), st.lists(terms, max_size=4).map(tuple), st.lists(terms, max_size=3).map(tuple)
)


@given(terms)
def test_a_term_reads_back(term: Term) -> None:
    assert parse(str(term)) == term
    assert parse("  " + str(term).replace(" ", "   ")) == term
    assert term.remote or parse(f"local.{term}") == term


@settings(max_examples=500)
@given(st.text() | st.lists(st.sampled_from(["tcp.db", "local.", "remote.", "is", "not", "up", "down", ".", "*", "tcp.*"])).map(" ".join))
@example("tcp.* is not down")
@example("remote. is down")
@example("*.db is down")
def test_nonsense_is_one_sentence(text: str) -> None:
    try:
        term = parse(text)
    except BadTerm as bad:
        assert str(bad)
    else:
        assert parse(str(term)) == term


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a term"),
        ("tcp.db down", "is not a term"),
        ("tcp.db is not very up", "is not a term"),
        ("tcp.db is donw", '"donw" is not a state; there are init, up, down, unknown'),
        ("db is down", '"db" is not a resource'),
        ("remote.db is down", '"remote.db" is not a resource'),
        ("tcp.d* is down", '"tcp.d*" is not a resource'),
        ("*.db is down", '"*.db" is not a resource'),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(BadTerm, match=".") as bad:
        parse(text)
    assert said in str(bad.value)


def test_a_star_stands_for_every_resource_of_the_type() -> None:
    every = expanded([parse("remote.tcp.* is not up"), parse("ping.192.0.2.1 is down")], NAMES)
    assert [str(term) for term in every] == ["remote.tcp.db is not up", "remote.tcp.web is not up", "ping.192.0.2.1 is down"]
    with pytest.raises(BadTerm) as bad:
        expanded([parse("tpc.db is down")], NAMES)
    assert bad.value.word == "tpc.db" and "tcp.db" in bad.value.known
    with pytest.raises(BadTerm):
        expanded([parse("http.* is down")], NAMES)


@settings(max_examples=400, deadline=None)
@given(rules)
def test_a_contradiction_is_what_no_states_fulfil(rule: Rule) -> None:
    places = sorted({(term.remote, term.resource) for term in rule.terms})
    can_hold = False
    for states in itertools.product(ResourceState, repeat=len(places)):
        known = dict(zip(places, states, strict=True))
        here = {resource: state for (remote, resource), state in known.items() if not remote}
        there = {resource: state for (remote, resource), state in known.items() if remote}
        can_hold = can_hold or rule.holds(here, there)
    assert bool(contradiction(rule)) is not can_hold


@given(rules, st.dictionaries(st.sampled_from(NAMES), st.sampled_from(ResourceState)))
def test_what_is_not_known_is_unknown(rule: Rule, here: dict[str, ResourceState]) -> None:
    whole = {name: here.get(name, ResourceState.UNKNOWN) for name in NAMES}
    assert rule.holds(here, {}) == rule.holds(whole, dict.fromkeys(NAMES, ResourceState.UNKNOWN))
