"""A simulator that finds nothing proves nothing: with one rule taken out, a story or a seed must fail."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core import failover_rules as rules
from orchestrator.core.states import Module, Summary, Surroundings
from tests.sim import test_sequences, test_stories
from tests.sim.cluster import paired
from tests.sim.fake_rfs import FakeWitness


def test_silence_believed_by_a_node_that_was_not_there_serves_old_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "still_current", lambda module, around, peer: True)
    with pytest.raises(AssertionError, match="serves old data"):
        test_sequences.live(("isolated node2", "power off node1", "healed"), witness=False)


def test_ping_believed_at_once_makes_two_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "still_current", lambda module, around, peer: True)
    monkeypatch.setattr(Surroundings, "isolated", property(lambda around: around.has_ping and not around.ping_ok))
    with pytest.raises(AssertionError, match="two nodes acknowledge"):
        for seed in range(60):  # which is heard first, ping or peer, is chance
            test_stories.primary_cut_off_from_everything(seed)


def test_terms_alone_fence_the_wrong_node(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_term(module: Module, around: Surroundings, peer: Summary | None) -> bool:
        view: Any = module.view
        if view is None or peer is None or view.linked or not view.leads or peer.role != "primary":
            return False
        return (peer.term, around.peer) > (view.term, around.node)

    monkeypatch.setattr(rules, "outranked", by_term)
    with pytest.raises(AssertionError):
        test_stories.old_primary_restarts_behind_a_cut_data_link()


def test_a_witness_that_grants_to_everybody_makes_two_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeWitness, "check", lambda witness, rfs: None)
    with pytest.raises(AssertionError, match="two nodes acknowledge"):
        cluster = paired(100, policy="consistency", ping=False, witness=True)
        cluster.cut_network("lan", "repl")
        cluster.run(15.0)
