"""The register's value, what a compare-and-swap may start from, and the names that a record must remember: all small states."""

from dataclasses import replace
from itertools import combinations, permutations, product
from random import Random

import pytest

from rfs import rules, witness
from rfs.record import MAX_NAMES, DataState, Record, Role, from_wire, to_wire
from rfs.witness import Held, Standing

PLAIN = Record(cluster="c", module="m", node="node1", node_id=1, generation=3, history=(1, 2), data=DataState.UPTODATE, role=Role.PRIMARY)
HELD = Held(0x9F3C61D0A2B47E15, 7, 2)


def test_a_value_survives() -> None:
    for held in (HELD, Held(1, 0, 1), Held((1 << 64) - 1, (1 << 22) - (1 << 10), (1 << 64) - 1)):
        assert witness.decode(witness.encode(held)) == held


@pytest.mark.parametrize(
    "value",
    [
        b"", b"{", b"null", b"[]", b'"text"', b"7", b"\xff\xfe", b"{}", witness.encode(HELD)[:-1],
        witness.encode(HELD).replace(b'"version": 1', b'"version": 2'), witness.encode(HELD).replace(b'"term": 7', b'"term": -1'),
        witness.encode(HELD).replace(b'"term": 7', b'"term": true'), witness.encode(HELD).replace(b'"term": 7', b'"term": 4194303'),
        witness.encode(HELD).replace(b"9f3c", b"9F3C"), witness.encode(HELD).replace(b"9f3c61d0a2b47e15", b"0" * 16),
        witness.encode(HELD).replace(b'"9f3c61d0a2b47e15"', b"17"), witness.encode(HELD).replace(b"9f3c", b" 9f3"),
    ],
)  # fmt: skip
def test_anything_else_is_an_empty_register(value: bytes) -> None:
    assert witness.decode(value) is None


def test_keys_of_different_modules_are_different() -> None:
    names = ("a", "a/b", "b", "a%2Fb", "")
    keys = {witness.register_key(cluster, module) for cluster, module in product(names, names)}
    keys |= {witness.intact_key(cluster, module, node) for cluster, module, node in product(names, names, (1, 2))}
    assert len(keys) == 3 * len(names) ** 2


def test_what_a_compare_and_swap_may_start_from() -> None:
    """Every lineage and every set of tried names out of five, against every value."""
    names = range(1, 6)
    subsets = [chosen for size in range(6) for chosen in combinations(names, size)]
    for lineage, tried in product(subsets, subsets):
        record = replace(PLAIN, generation=lineage[-1] if lineage else 0, history=lineage[:-1], tried=tried)
        assert witness.standing(record, None) is Standing.EMPTY
        for name in names:
            may = name in lineage or name in tried
            assert witness.standing(record, Held(name, 1, 1)) is (Standing.MAY_START if may else Standing.FENCED)
        assert set(witness.abandoned(record)) == set(tried) - set(lineage)


def test_merged_names_keep_their_order() -> None:
    lists = [order for size in range(4) for order in permutations(range(1, 5), size)]
    for mine, theirs in product(lists, lists):
        both = witness.merged(mine, theirs)
        assert both[: len(mine)] == mine and set(both) == {*mine, *theirs} and len(set(both)) == len(both)


def test_too_many_names_cost_the_oldest() -> None:
    assert witness.merged(range(1, MAX_NAMES + 1), (0xAA, 0xBB))[-2:] == (0xAA, 0xBB)
    assert len(witness.merged(range(1, MAX_NAMES + 1), (0xAA, 0xBB))) == MAX_NAMES


def test_what_stands_before_the_registers_value_is_void() -> None:
    assert witness.still_needed((1, 2, 3, 4), 3) == (3, 4)
    assert witness.still_needed((1, 2), 2) == (2,)
    assert witness.still_needed((1, 2), 9) == (1, 2), "its place is not known: all stay"


def test_a_shortened_history_keeps_what_the_register_may_hold() -> None:
    long = tuple(range(1, MAX_NAMES + 4))
    for base in (0, 1, 2, 50, long[-1]):
        for tried in ((), (1,), (2, 3), long[:-1], long):
            kept, after = witness.shortened(long, base, tried)
            assert len(kept) == MAX_NAMES and list(kept) == sorted(kept) and kept[-1] == long[-1]
            dropped = set(long) - set(kept)
            assert after in kept and all(name < after for name in dropped), "the marks cover nobody beyond what is forgotten"
            if len(tried) < MAX_NAMES:
                assert set(tried) <= set(kept)
    assert witness.shortened((1, 2), 0, ()) == ((1, 2), 0)


# ---- what the transitions do with names ------------------------------------------------------------------------------------------------


def test_a_name_is_tried_before_it_is_asked_for() -> None:
    tried = rules.try_name(PLAIN, 9, held=2)
    assert tried.tried == (2, 9) and tried.armed and replace(tried, tried=(), armed=False) == PLAIN
    again = rules.try_name(tried, 10, held=9)
    assert again.tried == (9, 10), "the first request has won: what stood before it is void"
    assert rules.try_name(tried, 10, held=2).tried == (2, 9, 10), "it may still arrive"


def test_a_won_name_leaves_nothing_else_to_remember() -> None:
    asked = rules.try_name(rules.try_name(replace(PLAIN, peer_has=True), 9, held=3), 10, held=3)
    minted = rules.go_alone(asked, 10, granted=True, op_waiting=True)
    assert isinstance(minted, Record)
    assert minted.generation == 10 and minted.tried == (10,) and minted.history == (1, 2, 3)


def test_what_is_learnt_of_a_peer() -> None:
    peer = replace(PLAIN, node_id=2, tried=(3, 7, 8), armed=True)
    learnt = rules.learn_names(replace(PLAIN, tried=(3,)), peer)
    assert learnt.tried == (3, 7, 8) and learnt.armed
    serving = replace(peer, generation=7, history=(1, 2, 3))
    assert rules.learn_names(PLAIN, serving).tried == (8,), "a name that somebody may serve under is not abandoned"


class _Two:
    """Two records that are minted, granted and resynced in turn, with a register: only the names are looked at."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        identity = rules.Identity("boot", 1, "disk")
        self.identity = identity
        one = rules.first_primary(cluster="c", module="m", node="a", node_id=1, generation=1, identity=identity)
        self.one = rules.try_own_name(rules.start_primary(one, 0, identity))
        self.two = rules.first_secondary(cluster="c", module="m", node="b", node_id=2, identity=identity)
        self.held, self.ancestors, self.names = 1, [1], 1

    def fresh(self) -> int:
        self.names += 1
        return self.names

    def resync(self) -> None:
        one, two = self.one, self.two
        one = rules.enter_session(one, self.identity, two, source=True)
        two = rules.target_begins(rules.enter_session(two, self.identity, one, source=False), None)
        shared, name = one.shared, self.fresh()
        one = rules.source_before_end(rules.source_begins(one, name))
        if shared:
            self.ancestors.append(name)
        two = rules.target_adopts(two, one, 7)
        self.one, self.two = rules.learn_names(rules.source_after_end(one, 7), two), two

    def ask(self, *, wins: bool) -> None:
        name = self.fresh()
        self.one = rules.try_name(self.one, name, self.held)
        if wins:
            minted = rules.go_alone(self.one, name, granted=True, op_waiting=True)
            assert isinstance(minted, Record)
            self.one, self.held = minted, name
            self.ancestors.append(name)

    def turn(self) -> None:
        self.one, self.two = rules.promote(rules.step_down(self.two), 0), rules.step_down(self.one)


def test_the_registers_name_is_never_forgotten_and_an_ancestor_never_looks_abandoned() -> None:
    """Histories are bounded, and the register may stand still while hundreds of generations are minted (a resync mints one each time)."""
    for seed in range(20):
        pair = _Two(seed)
        for _ in range(600):
            pair.resync()
            for record in (pair.one, pair.two):
                assert from_wire(to_wire(record)) == record
                assert witness.standing(record, Held(pair.held, 1, 1)) is Standing.MAY_START
                stale = [name for name in witness.abandoned(record) if name in pair.ancestors and name >= pair.held]
                assert not stale, "what the register may hold, and somebody served under"
            if pair.random.random() < 0.3:
                pair.turn()
            if pair.random.random() < 0.02:
                pair.ask(wins=pair.random.random() < 0.5)
