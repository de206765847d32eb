"""decide() over all pairs of a domain that holds every kind of lineage and every value that decides.

What is asserted is not the table again but what no entry of it may break: both nodes come to the same verdict, nothing that is not whole
is copied over what is, nobody's lone acknowledged writes are overwritten, an empty node never meets a filled one as source.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfs.decide import Decision, Outcome, Source, Travels, mirror
from rfs.record import DataState, Record, Role
from tests.property.records import BOTH, LINEAGES, PLAIN, ancestors, judged, possible, variants

UNFIT = (DataState.INCONSISTENT, DataState.FAILED)
Pair = tuple[bool, bool]
NEITHER: Pair = (False, False)
BOOLEANS: tuple[Pair, ...] = tuple(product(BOTH, BOTH))


def seen(a: Record, b: Record, running: Pair = NEITHER, empty: Pair = NEITHER) -> Decision:
    """The verdict, after everything that holds for any two records."""
    verdict = judged(a, b, running, empty)
    others = judged(b, a, running[::-1], empty[::-1])
    assert verdict == mirror(others), (a, b)
    assert mirror(mirror(verdict)) == verdict
    assert verdict.reason and "\n" not in verdict.reason
    is_pair = verdict.outcome is Outcome.PAIR
    assert (verdict.source is not None) == (verdict.travels is not None) == is_pair, "what travels is never nothing"
    if is_pair:
        mine = verdict.source is Source.MINE
        (source, source_empty), (target, target_empty) = ((a, empty[0]), (b, empty[1])) if mine else ((b, empty[1]), (a, empty[0]))
        check_source(source, target, verdict)
        assert target_empty or not source_empty
    return verdict


def is_rolled_back(record: Record, other: Record) -> bool:
    same = other.peer_id == record.node_id
    return same and (record.number < other.peer_confirmed_number or record.applied_seq < other.peer_confirmed_seq)


def lost_before_the_leave(lost: Record, left: Record) -> bool:
    """The one whose peer left in order, and who lost power before it knew: it never served without the one that left."""
    same = lost.generation == left.generation
    return same and lost.rewound and lost.peer_may_fit and lost.data is DataState.UPTODATE and not left.rewound


def check_source(source: Record, target: Record, verdict: Decision) -> None:
    """What may be copied over what."""
    assert source.data not in UNFIT and source.generation
    assert source.data is not DataState.OUTDATED or lost_before_the_leave(target, source), "a copy that knows it is old, by itself"
    assert not is_rolled_back(source, target) or not target.generation, "only the word to give its data up overrules what a node has seen"
    assert (source.cluster, source.module) == (target.cluster, target.module) and source.node_id != target.node_id
    rolled = is_rolled_back(target, source)
    if rolled:
        assert verdict.travels is Travels.EVERYTHING
    forked = target.generation not in ancestors(source)
    nothing_alone = source.generation == target.generation or (forked and not source.used and not target.used)
    if nothing_alone and target.data not in UNFIT and not rolled:
        has_left = target.data is DataState.OUTDATED and (forked or not source.peer_may_fit)
        assert has_left or not (source.rewound and not target.rewound), "a rewound copy over an intact one"
    stale = source.generation != target.generation and source.generation in ancestors(target)
    assert not stale or rolled, "an ancestor over its descendant"
    if forked:
        assert not target.used, "acknowledged writes would be overwritten"
        assert rolled or target.data not in UNFIT
        assert verdict.fork_point in ancestors(source) & ancestors(target)
    else:
        assert verdict.fork_point is None
    if target.data is DataState.FAILED or not target.generation:
        assert verdict.travels is Travels.EVERYTHING
    if verdict.travels is Travels.UNION_OF_MARKS and not forked:
        line = (0, *source.history, source.generation)
        assert line.index(target.generation) >= line.index(source.base), "the marks do not cover the target"


# ---- the enumerations -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rewound", BOOLEANS)
def test_every_pair_of_lineage_data_role_used_and_unfit_peer(rewound: Pair) -> None:
    ones = [record for record in variants("node1", 1) if record.rewound == rewound[0]]
    others = [record for record in variants("node2", 2) if record.rewound == rewound[1]]
    for a, b in product(ones, others):
        seen(a, b)


def _tie_breakers(node: str, node_id: int) -> Iterator[Record]:
    for data, role, rewound, used, term, owner in product(DataState, Role, BOTH, BOTH, (1, 2), (1, 2)):
        yield replace(
            PLAIN, node=node, node_id=node_id, generation=2, history=(1,),
            data=data, role=role, rewound=rewound, used=used, term=term, owner=owner,
        )  # fmt: skip


def test_every_pair_under_one_name() -> None:
    """All the tie breakers, and who runs."""
    for a, b in product(_tie_breakers("node1", 1), _tie_breakers("node2", 2)):
        for running in BOOLEANS:
            verdict = seen(a, b, running)
            if a.data not in UNFIT and b.data not in UNFIT:
                both_left = a.data is b.data is DataState.OUTDATED
                expected = Outcome.NO_SOURCE if both_left else Outcome.PAIR
                assert verdict.outcome is expected, "two whole copies under one name always pair, unless both are known to be old"
                if not both_left and a.rewound == b.rewound and a.data == b.data and running[0] != running[1]:
                    assert verdict.source is (Source.MINE if running[0] else Source.THEIRS)


def _seen_before(record: Record, number: int, confirmed: int, applied: int, confirmed_seq: int) -> Record:
    return replace(
        record, number=number, peer_id=3 - record.node_id, peer_confirmed_number=confirmed, applied_seq=applied,
        peer_confirmed_seq=confirmed_seq,
    )  # fmt: skip


def test_every_pair_of_empty_and_rolled_back() -> None:
    basic = [
        replace(PLAIN, generation=generation, base=base, history=history, data=data, used=used)
        for (generation, base, history), data, used in product(LINEAGES.values(), DataState, BOTH)
    ]
    basic = [record for record in basic if possible(record)]
    for one, other in product(basic, basic):
        for first, second in ((4, 4), (3, 4), (4, 3), (3, 3)):
            a = _seen_before(one, first, 4, 0, 0)
            b = _seen_before(replace(other, node="node2", node_id=2), second, 4, 0, 0)
            for empty in BOOLEANS:
                verdict = seen(a, b, NEITHER, empty)
                if one.generation and other.generation and (first < 4) != (second < 4) and verdict.outcome is Outcome.PAIR:
                    assert verdict.source is (Source.THEIRS if first < 4 else Source.MINE), "rolled back is target"


def test_a_lower_sequence_number_is_rolled_back_too() -> None:
    record = replace(PLAIN, generation=1, data=DataState.UPTODATE, role=Role.PRIMARY, used=True)
    a = _seen_before(record, 9, 9, 70, 0)
    b = _seen_before(replace(record, node="node2", node_id=2, role=Role.SECONDARY), 9, 9, 0, 71)
    verdict = seen(a, b, (True, False))
    assert (verdict.source, verdict.travels) == (Source.THEIRS, Travels.EVERYTHING)


def test_what_another_peer_confirmed_says_nothing() -> None:
    record = replace(PLAIN, generation=1, data=DataState.UPTODATE, role=Role.PRIMARY, used=True)
    b = replace(record, node="node2", node_id=2, role=Role.SECONDARY, peer_id=77, peer_confirmed_number=50)
    assert seen(record, b).source is Source.MINE


# ---- the sentences of the protocol, one by one ------------------------------------------------------------------------------------------

WHOLE = replace(PLAIN, generation=2, history=(1,), data=DataState.UPTODATE, used=True, peer_has=True, shared=True)
PRIMARY = replace(WHOLE, role=Role.PRIMARY, term=5, owner=1)
SECONDARY = replace(WHOLE, node="node2", node_id=2, term=5, owner=1)


def test_who_ran_through_beats_who_was_primary() -> None:
    verdict = seen(replace(PRIMARY, rewound=True), SECONDARY)
    assert (verdict.outcome, verdict.source, verdict.travels) == (Outcome.PAIR, Source.THEIRS, Travels.UNION_OF_MARKS)


def test_a_rewound_primary_loses_even_against_one_that_left_in_order() -> None:
    left = replace(SECONDARY, data=DataState.OUTDATED)
    assert seen(replace(PRIMARY, rewound=True), left).source is Source.THEIRS
    knew = replace(PRIMARY, rewound=True, peer_may_fit=False)
    assert seen(knew, left).source is Source.MINE, "the sole owner may be serving already"


def test_a_copy_that_knows_it_is_old_waits() -> None:
    """Whatever the other one has become, only an administrator makes it a source."""
    left = replace(SECONDARY, data=DataState.OUTDATED)
    replaced_disk = replace(PLAIN, data=DataState.INCONSISTENT)
    rolled_back = replace(PRIMARY, number=3)
    ancestor = replace(PRIMARY, generation=1, history=())
    unused_fork = replace(PRIMARY, generation=4, used=False)
    half = replace(PRIMARY, data=DataState.INCONSISTENT)
    for other in (replaced_disk, ancestor, unused_fork, half, replace(PRIMARY, data=DataState.OUTDATED)):
        verdict = seen(other, left)
        assert verdict.outcome is Outcome.NO_SOURCE and "promote --force" in verdict.reason
    assert seen(rolled_back, replace(left, peer_id=1, peer_confirmed_number=9)).outcome is Outcome.NO_SOURCE
    lost = replace(rolled_back, rewound=True)
    assert seen(lost, replace(left, peer_id=1, peer_confirmed_number=9)).outcome is Outcome.NO_SOURCE, "a snapshot may have served since"


def test_of_two_unused_forks_the_one_that_ran_through_stays() -> None:
    one = replace(PRIMARY, generation=3, history=(1, 2), used=False)
    other = replace(SECONDARY, generation=4, history=(1, 2), used=False, role=Role.PRIMARY)
    assert seen(one, other).source is Source.MINE, "alike: the lower id"
    verdict = seen(replace(one, rewound=True), other, running=(True, False))
    assert (verdict.source, verdict.fork_point, verdict.travels) == (Source.THEIRS, 2, Travels.UNION_OF_MARKS)
    assert seen(one, other, running=(False, True)).source is Source.THEIRS


def test_both_lost_power_then_the_primary_is_source() -> None:
    assert seen(replace(PRIMARY, rewound=True), replace(SECONDARY, rewound=True)).source is Source.MINE


def test_the_one_that_left_is_target() -> None:
    assert seen(replace(PRIMARY, role=Role.SECONDARY), replace(SECONDARY, data=DataState.OUTDATED)).source is Source.MINE


@pytest.mark.parametrize("data", UNFIT)
def test_an_unfit_newer_copy_waits_for_an_administrator(data: DataState) -> None:
    newer = replace(PRIMARY, generation=3, history=(1, 2), data=data)
    assert seen(newer, SECONDARY).outcome is Outcome.NO_SOURCE
    fork = replace(PRIMARY, generation=4, history=(1, 2), data=data)
    assert seen(fork, replace(SECONDARY, generation=3, history=(1, 2))).outcome is not Outcome.PAIR


def test_a_failed_sole_owner_of_acknowledged_data_is_never_overwritten() -> None:
    failed = replace(PRIMARY, data=DataState.FAILED, peer_may_fit=False)
    assert seen(failed, SECONDARY).outcome is Outcome.NO_SOURCE


def test_two_used_forks_have_diverged_and_an_unused_one_yields() -> None:
    one = replace(PRIMARY, generation=3, history=(1, 2))
    other = replace(SECONDARY, generation=4, history=(1, 2))
    assert seen(one, other).outcome is Outcome.DIVERGED
    verdict = seen(replace(one, used=False), other)
    assert (verdict.source, verdict.fork_point, verdict.travels) == (Source.THEIRS, 2, Travels.UNION_OF_MARKS)
    late = seen(replace(one, used=False), replace(other, base=4))
    assert (late.source, late.fork_point, late.travels) == (Source.THEIRS, 2, Travels.EVERYTHING)


def test_a_rolled_back_copy_with_writes_of_its_own_has_diverged() -> None:
    old = replace(PRIMARY, generation=4, history=(1,), number=3)
    newer = replace(SECONDARY, generation=3, history=(1, 2), peer_id=1, peer_confirmed_number=9)
    assert seen(old, newer).outcome is Outcome.DIVERGED
    verdict = seen(replace(old, used=False), newer)
    assert (verdict.source, verdict.fork_point, verdict.travels) == (Source.THEIRS, 1, Travels.EVERYTHING)


@pytest.mark.parametrize("change", [{"cluster": "other"}, {"module": "other"}, {"node_id": 1}])
def test_strangers(change: dict[str, str | int]) -> None:
    assert seen(PRIMARY, replace(SECONDARY, **change)).outcome is Outcome.UNRELATED  # type: ignore[arg-type]


def test_an_empty_source_never_meets_a_filled_target() -> None:
    assert seen(PRIMARY, SECONDARY, empty=(True, False)).outcome is Outcome.EMPTY_SOURCE
    assert seen(PRIMARY, SECONDARY, empty=(True, True)).outcome is Outcome.PAIR


# ---- beyond the enumerated -------------------------------------------------------------------------------------------------------------

NAMES = st.integers(1, 6)


@st.composite
def records(draw: st.DrawFn, node: str, node_id: int) -> Record:
    """Any lineage, also ones that two honest nodes could never have."""
    lineage = draw(st.lists(NAMES, unique=True, max_size=4))
    generation = lineage[-1] if lineage else 0
    return Record(
        cluster="c", module="m", node=node, node_id=node_id, generation=generation, history=tuple(lineage[:-1]),
        base=draw(st.sampled_from([0, *lineage])),
        data=draw(st.sampled_from(DataState)) if generation else DataState.INCONSISTENT, role=draw(st.sampled_from(Role)),
        rewound=draw(st.booleans()), used=draw(st.booleans()), peer_may_fit=draw(st.booleans()), shared=draw(st.booleans()),
        term=draw(st.integers(0, 3)), owner=draw(st.integers(0, 2)), number=draw(st.integers(0, 3)),
        peer_id=draw(st.sampled_from([0, 3 - node_id])), peer_confirmed_number=draw(st.integers(0, 3)),
    )  # fmt: skip


BOOLEAN_PAIRS = st.tuples(st.booleans(), st.booleans())


@settings(max_examples=2000, deadline=None)
@given(records("node1", 1), records("node2", 2), BOOLEAN_PAIRS, BOOLEAN_PAIRS)
def test_any_two_records(a: Record, b: Record, running: Pair, empty: Pair) -> None:
    seen(a, b, running, empty)
