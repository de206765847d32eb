"""What the peer says of each module, put together: never older than it was, whole or not at all, and in the end the same."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from orchestrator.core.states import Readiness, State, Summary
from orchestrator.peer_words import KNOWN_MAX, PeerWords
from orchestrator.pulse import Share, shares

READY = Summary(state=State.SECOND, readiness=Readiness.READY, complete=True, rfs_alive=True)
ROOM_BYTES = 200  # a few modules each


def at_term(term: int) -> Summary:
    """All of it is of this term, so that a mixture would be seen."""
    return replace(READY, term=term, generation=str(term), serves=term % 2 == 0, yielded=term % 3 == 0)


def test_a_share_takes_what_it_does_not_name_but_only_of_its_range() -> None:
    words = PeerWords(3.0)
    words.heard(7, 1, Share("", "", dict.fromkeys("abcd", READY)), 0.0)
    words.heard(7, 2, Share("a", "c", {"b": READY}), 0.5)
    assert list(words.now(0.5)) == ["a", "b", "d"]
    words.heard(7, 1, Share("", "", dict.fromkeys("abcd", READY)), 0.6)
    assert list(words.now(0.6)) == ["a", "b", "d"], "a late datagram brings nothing back"
    words.heard(7, 3, Share("b", "", {"c": READY, "d": READY}), 1.0)
    assert list(words.now(1.0)) == ["a", "b", "c", "d"]


def test_another_incarnation_begins_anew() -> None:
    words = PeerWords(3.0)
    words.heard(7, 100, Share("", "", {"a": READY, "b": READY}), 0.0)
    words.heard(8, 1, Share("", "a", {"a": replace(READY, term=1)}), 0.1)
    assert words.now(0.1) == {"a": replace(READY, term=1)}


def test_what_was_told_is_not_undone_by_a_pulse_of_before() -> None:
    words = PeerWords(3.0)
    words.heard(7, 1, Share("", "a", {"a": READY}), 0.0)
    words.heard(7, 2, Share("a", "", {"b": READY}), 0.0)
    yielded = replace(READY, yielded=True)
    assert words.told(7, 2, {"a": yielded, "b": yielded}, 0.1)
    words.heard(7, 1, Share("", "a", {"a": READY}), 0.2)  # the other network is slow
    words.heard(7, 2, Share("a", "", {"b": READY}), 0.2)
    words.heard(7, 4, Share("a", "", {"b": yielded}), 0.5)  # 3 was lost, and that would have been about a
    assert words.now(0.5) == {"a": yielded, "b": yielded}
    assert not words.told(6, 9, {"a": READY}, 0.6), "another hactld, perhaps of before"


def test_what_was_not_said_again_permits_nothing() -> None:
    words = PeerWords(3.0)
    dead = replace(READY, serves=True, term=5, yielded=True, rfs_alive=False)
    words.heard(7, 1, Share("", "", {"a": dead, "b": READY}), 0.0)
    words.heard(7, 2, Share("a", "", {"b": READY}), 2.0)
    assert words.now(2.9)["a"] is dead
    old = words.now(3.0)
    assert old["b"] is READY
    assert old["a"] == replace(dead, yielded=False, rfs_alive=True, complete=False, readiness=Readiness.TRANSIENT)
    assert not old["a"].ready_second and old["a"].serves and old["a"].term == 5
    words.heard(7, 3, Share("", "a", {"a": dead}), 4.0)
    assert words.now(4.0)["a"] is dead


def test_the_same_is_the_same_object() -> None:
    words = PeerWords(3.0)
    words.heard(7, 1, Share("", "", {"a": READY}), 0.0)
    first = words.now(0.0)
    words.heard(7, 2, Share("", "", {"a": replace(READY)}), 0.5)
    assert words.now(0.5) is first


def test_names_are_bounded() -> None:
    words = PeerWords(3.0)
    for counter in range(1, 40):
        words.heard(7, counter, Share("", "", {f"{counter}-{number}": READY for number in range(20)}), 0.0)
    assert len(words._words) <= KNOWN_MAX


@pytest.mark.parametrize("seed", range(60))
def test_lost_late_and_doubled_datagrams_never_bring_back_what_was_before(seed: int) -> None:
    """Two networks and the call channel, any of which loses and delays; modules change, come and go."""
    chance, words = random.Random(seed), PeerWords(1e9)
    names = [f"module{number}" for number in range(12)]
    modules = {name: at_term(0) for name in names}
    said: dict[str, list[int]] = {name: [0] for name in names}  # the terms in their order; -1: it is not there
    seen: dict[str, int] = dict.fromkeys(names, 0)
    counter, term = 0, 0
    flying: list[tuple[float, int, Share | dict[str, Summary]]] = []

    def look() -> None:
        for name in names:
            summary = words.now(0.0).get(name)
            term_now = summary.term if summary is not None else -1
            if summary is not None:
                assert summary == at_term(summary.term), "a mixture"
            if term_now == -1 and seen[name] == 0:
                continue  # not heard of yet
            place = next((index for index in range(seen[name], len(said[name])) if said[name][index] == term_now), None)
            assert place is not None, f"{name} went back to {term_now}"
            seen[name] = place

    for pulse in range(60):
        for name in chance.sample(names, chance.randrange(3)):
            term += 1
            if chance.random() < 0.2 and name in modules:
                del modules[name]
                said[name].append(-1)
            else:
                modules[name] = at_term(term)
                said[name].append(term)
        for share in shares(modules, ROOM_BYTES):
            counter += 1
            for _ in range(2):
                if chance.random() < 0.6:
                    flying.append((pulse + chance.expovariate(0.7), counter, share))
        if chance.random() < 0.3:
            flying.append((pulse + chance.expovariate(0.7), counter, dict(modules)))
        for flight in sorted((flight for flight in flying if flight[0] <= pulse), key=lambda flight: flight[0]):
            flying.remove(flight)
            if isinstance(flight[2], Share):
                words.heard(7, flight[1], flight[2], 0.0)
            else:
                words.told(7, flight[1], flight[2], 0.0)
            look()
    for share in shares(modules, ROOM_BYTES):
        counter += 1
        words.heard(7, counter, share, 0.0)
    assert words.now(0.0) == modules
