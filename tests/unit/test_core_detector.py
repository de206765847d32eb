"""Silence, one-way loss, restarts and late packets."""

from dataclasses import replace

from orchestrator.core.detector import Detector
from orchestrator.core.states import Surroundings


def heard(detector: Detector, now: float, counter: int, echo: int = 0, incarnation: int = 7, network: str = "lan") -> Detector:
    assert detector.accepts(network, incarnation, counter)
    return detector.heard(network, incarnation, counter, echo, now)


def test_silence_needs_every_network() -> None:
    detector = Detector.new(("lan", "repl"), 3.0, 0.0)
    detector = heard(detector, 2.0, 1, echo=1)
    assert not detector.silent(3.5)
    assert detector.verdicts(3.5) == {"lan": "ok", "repl": "silent"}
    assert detector.silent(5.0)


def test_a_network_that_carries_only_one_way_is_seen() -> None:
    detector = Detector.new(("lan",), 3.0, 0.0)
    for pulse in range(1, 12):
        detector = heard(detector, pulse * 0.5, pulse, echo=min(pulse, 3))
    assert detector.verdicts(5.5) == {"lan": "deaf"}
    assert not detector.silent(5.5)


def test_late_and_repeated_pulses_are_no_news() -> None:
    detector = heard(Detector.new(("lan",), 3.0, 0.0), 1.0, 5)
    assert not detector.accepts("lan", 7, 5)
    assert not detector.accepts("lan", 7, 4)
    assert not detector.accepts("wan", 7, 9)


def test_a_restarted_peer_is_heard_and_its_past_is_not() -> None:
    detector = heard(Detector.new(("lan",), 3.0, 0.0), 1.0, 500)
    detector = heard(detector, 2.0, 1, incarnation=8)
    assert not detector.accepts("lan", 7, 501)
    assert detector.accepts("lan", 8, 2)


def test_after_a_pause_silence_is_counted_afresh() -> None:
    detector = heard(Detector.new(("lan",), 3.0, 0.0), 1.0, 1).thawed(50.0)
    assert not detector.silent(52.9)
    assert detector.silent(53.0)


def test_a_silence_is_trusted_if_ping_answered_all_along_or_for_long_enough() -> None:
    """A node that was cut off gives its peer time to be heard; one whose other network was mended before the silence began does not."""
    around = Surroundings("node1", "node2", timeout_s=3.0, has_ping=True, ping_ok=True, ping_ok_since=10.0)
    assert replace(around, now=12.0, peer_heard_at=5.0).isolated, "the ping is back, the peer may not have been heard yet"
    assert not replace(around, now=13.0, peer_heard_at=5.0).isolated
    assert not replace(around, now=12.0, peer_heard_at=10.5).isolated, "the peer was heard after the ping came back"
    assert replace(around, now=12.0, peer_heard_at=10.5, ping_ok=False).isolated
