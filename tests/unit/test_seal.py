"""Sealed datagrams: opened once, by the peer alone; whoever repeats them proves nothing."""

import random
from pathlib import Path

import pytest

from orchestrator.seal import HEADER, WINDOW, Opener, Sealer, Secrets, Unsealed, Window
from tests.unit.keyring import paired_keys


class Two:
    """node1 speaks, node2 listens; node2's own counter is `number`."""

    def __init__(self, path: Path) -> None:
        self.keys = paired_keys(path)
        self.number = 0
        self.speaker = self.another_run()
        self.opener = Opener(Secrets(self.keys[1], "node1"), "node2", lambda: self.number)

    def another_run(self) -> Sealer:
        sealer = Sealer(Secrets(self.keys[0], "node2"), "node1")
        assert sealer.renew() and not [own for own in sealer.runs if own != sealer.run]
        return sealer


def kind_of(opener: Opener, data: bytes, name: str = "lan") -> str:
    with pytest.raises(Unsealed) as unsealed:
        opener.open(data, name)
    return unsealed.value.kind


def test_what_is_sealed_is_opened_once_and_on_its_network_alone(tmp_path: Path) -> None:
    two = Two(tmp_path)
    data = two.speaker.seal(b"text", 0, "lan", 1)
    assert kind_of(two.opener, data, "repl") == "not-authentic"
    assert two.opener.open(data, "lan") == (b"text", two.speaker.run, 1)
    assert kind_of(two.opener, data) == "replayed"
    assert b"text" not in data


def test_any_change_is_seen(tmp_path: Path) -> None:
    two, chance = Two(tmp_path), random.Random(3)
    good = two.speaker.seal(b"text" * 20, 0, "lan", 7)
    for _ in range(500):
        data = bytearray(good)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        if data != good:
            with pytest.raises(Unsealed):
                two.opener.open(bytes(data), "lan")
    for length in range(0, len(good), 7):
        with pytest.raises(Unsealed):
            two.opener.open(good[:length], "lan")
    assert two.opener.open(good, "lan")[0] == b"text" * 20


def test_one_key_never_seals_two_texts_with_one_nonce(tmp_path: Path) -> None:
    two = Two(tmp_path)
    runs = {two.another_run().run for _ in range(20)}
    assert len(runs) == 20, "every process has a key of its own"
    sealed = {two.speaker.seal(b"x", network, "lan", number)[: HEADER.size] for network in range(3) for number in range(50)}
    assert len(sealed) == 150


def test_datagrams_may_overtake_each_other_within_the_window() -> None:
    chance = random.Random(9)
    for _ in range(200):
        window, seen = Window(), set[int]()
        for _ in range(300):
            number = max(1, window.newest + chance.randrange(-WINDOW - 5, 6))
            too_old = window.newest - number >= WINDOW
            assert window.is_news(number) is (number not in seen and not too_old)
            if window.is_news(number):
                window.note(number)
                seen.add(number)


def test_a_run_is_believed_after_an_echo_that_nobody_can_have_recorded(tmp_path: Path) -> None:
    two = Two(tmp_path)
    two.number = 40
    _, run, _ = two.opener.open(two.speaker.seal(b"1", 0, "lan", 1), "lan")
    assert not two.opener.believes(run, 0) and not two.opener.believes(run, 40)
    two.number = 41
    assert two.opener.believes(run, 41) and two.opener.believes(run, 0), "and from then on whatever it has heard"
    old = two.another_run()
    _, other, _ = two.opener.open(old.seal(b"1", 0, "lan", 9), "lan")
    assert not two.opener.believes(other, 41) and two.opener.proven == run
    two.number = 42
    assert two.opener.believes(other, 42) and two.opener.proven == other
    _, again, _ = two.opener.open(two.speaker.seal(b"2", 0, "lan", 2), "lan")
    assert not two.opener.believes(again, 41), "the run of before would have to prove itself anew"


def test_many_recorded_runs_use_up_nothing(tmp_path: Path) -> None:
    two = Two(tmp_path)
    for _ in range(200):
        two.opener.open(two.another_run().seal(b"x", 0, "lan", 1), "lan")
    assert len(two.opener.unproven) <= 64
    for network in range(40):
        try:
            two.opener.open(two.speaker.seal(b"x", network, "lan", 1), "lan")
        except Unsealed as unsealed:
            assert unsealed.kind == "replayed"
    assert len(two.opener._runs[two.speaker.run].windows) <= 16


def test_without_a_peer_nothing_is_said(tmp_path: Path) -> None:
    two = Two(tmp_path)
    two.keys[0].forget("node2")
    assert not two.speaker.renew()
    data = Sealer(Secrets(None, "node2"), "node1")
    assert data.renew()
    assert kind_of(two.opener, data.seal(b"x", 0, "lan", 1)) == "not-authentic"
