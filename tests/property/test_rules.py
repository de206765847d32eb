"""Every durable transition of a record: what it may change, what it never may, and the lives of the flags that permit."""

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfs import rules
from rfs.decide import Outcome, Source
from rfs.record import MAX_NAMES, DataState, Record, Role, from_wire, to_wire
from rfs.rules import Identity, Refusal
from tests.property.records import judged, variants

HERE, AFTER_BOOT = Identity("boot-1", 11, "8:1"), Identity("boot-2", 12, "8:1")
FRESH = 77  # a name that no record of the domain knows
SESSION = 4711
ALL = variants("node1", 1)
PEER = Record(
    cluster="c", module="m", node="node2", node_id=2, number=30, generation=3, history=(1, 2), base=0, term=7, owner=2,
    data=DataState.UPTODATE, role=Role.PRIMARY, used=True, node_bit=0,
)  # fmt: skip
UNFIT = (DataState.INCONSISTENT, DataState.FAILED)


def done(changed: Record | Refusal) -> Record:
    assert isinstance(changed, Record)
    return changed


def changes(before: Record, after: Record) -> set[str]:
    return {field.name for field in fields(Record) if getattr(before, field.name) != getattr(after, field.name)}


def primary() -> Record:
    """The first primary, serving."""
    first = rules.first_primary(cluster="c", module="m", node="node1", node_id=1, generation=5, identity=HERE)
    return rules.start_primary(first, 0, HERE)


def paired() -> tuple[Record, Record]:
    """A first copy from node1 to node2, rule by rule."""
    one = primary()
    two = rules.first_secondary(cluster="c", module="m", node="node2", node_id=2, identity=HERE)
    verdict = judged(one, two, (True, False), (False, True))
    assert (verdict.outcome, verdict.source) == (Outcome.PAIR, Source.MINE)
    one = rules.enter_session(one, HERE, two, source=True)
    two = rules.learn_term(rules.enter_session(two, HERE, one, source=False), one.term, one.owner)
    two = rules.target_begins(two, verdict.fork_point)
    one = rules.source_before_end(rules.source_begins(one, FRESH))
    two = rules.target_adopts(two, one, SESSION)
    return rules.source_after_end(one, SESSION), two


# ---- what every transition keeps ---------------------------------------------------------------------------------------------------------

ALWAYS: dict[str, Callable[[Record], Record | Refusal]] = {
    "start": lambda r: rules.start(r, AFTER_BOOT),
    "start_primary": lambda r: rules.start_primary(r, 3, HERE),
    "end": rules.end,
    "fail": rules.fail,
    "use": rules.use,
    "force": lambda r: rules.force(r, FRESH),
    "go_alone": lambda r: rules.go_alone(r, FRESH, granted=False, op_waiting=True),
    "granted": lambda r: rules.go_alone(r, FRESH, granted=True, op_waiting=False),
    "enter as source": lambda r: rules.enter_session(r, HERE, PEER, source=True),
    "enter as target": lambda r: rules.enter_session(r, HERE, PEER, source=False),
    "learn_term": lambda r: rules.learn_term(r, 9, 2),
    "try_name": lambda r: rules.try_name(r, FRESH, r.generation or FRESH - 1),
    "try_own_name": lambda r: rules.try_own_name(r) if r.generation else r,
    "arm": rules.arm,
    "learn_names": lambda r: rules.learn_names(r, replace(PEER, tried=(3, 70, 71), armed=True)),
    "target_begins": lambda r: rules.target_begins(r, None),
    "secondary_leaves": rules.secondary_leaves,
    "primary_hears_leave": rules.primary_hears_leave,
    "demote": rules.demote,
    "step_down": rules.step_down,
    "replace_data": rules.replace_data,
}
OF_THE_WITNESS = {"try_name", "try_own_name", "arm", "learn_names"}
MAY_MINT = {"force", "go_alone", "granted"}
MAY_HEAL = {"force", "enter as source"}  # OUTDATED becomes UPTODATE; nothing makes INCONSISTENT or FAILED whole but target_adopts


@pytest.mark.parametrize("name", ALWAYS)
def test_what_no_transition_does(name: str) -> None:
    for before in ALL:
        after = ALWAYS[name](before)
        if isinstance(after, Refusal):
            assert after.reason and "\n" not in after.reason
            continue
        assert from_wire(to_wire(after)) == after, "a record that could not be read back"
        same = ("cluster", "module", "node", "node_id", "number")
        assert all(getattr(after, field) == getattr(before, field) for field in same)
        if name in OF_THE_WITNESS:
            assert changes(before, after) <= {"tried", "armed"} and set(after.tried) >= set(before.tried) and after.armed >= before.armed
        else:
            assert (after.tried, after.armed) == (before.tried, before.armed)
        assert after.term >= before.term, "a term never goes down"
        if name not in MAY_HEAL:
            assert after.data is before.data or after.data is not DataState.UPTODATE, "a copy became whole by itself"
        assert before.data not in UNFIT or after.data in UNFIT
        if name not in (*MAY_MINT, "replace_data"):
            assert (after.generation, after.history, after.base) == (before.generation, before.history, before.base)
        if name not in (*MAY_MINT, "replace_data"):
            assert after.rewound >= before.rewound, "only pairing, END, a minted grant or force make good what was lost"
            assert after.used >= before.used
        if name not in (*MAY_MINT, "primary_hears_leave"):
            assert after.peer_may_fit >= before.peer_may_fit, "permission came out of nothing"


def test_force_of_a_restored_copy_is_a_new_name_of_the_old_lineage() -> None:
    for before in ALL:
        after = rules.force(before, FRESH, restored=True)
        if before.data is DataState.INCONSISTENT and before.generation:
            assert isinstance(rules.force(before, FRESH), Refusal)
            assert isinstance(after, Record) and after.data is DataState.UPTODATE and after.continues(before.generation)
            assert after.generation == FRESH and not after.shared and not after.peer_has and after.used
        else:
            assert after == rules.force(before, FRESH), "it makes good nothing else"


def test_a_mint_is_a_new_name_after_the_old_ones() -> None:
    for before in ALL:
        after = rules.force(before, FRESH)
        if isinstance(after, Record):
            assert after.generation == FRESH and after.history == before.lineage and not after.shared and not after.peer_has
            assert after.continues(before.generation)
    with pytest.raises(AssertionError):
        rules.force(primary(), primary().generation)


def test_a_history_is_bounded_and_never_shorter_than_its_base() -> None:
    record = primary()
    for name in range(1000, 1000 + MAX_NAMES + 20):
        record = done(rules.force(record, name))
        assert from_wire(to_wire(record)) == record
        assert record.base == 0 or record.base in record.history
    assert len(record.history) == MAX_NAMES and record.base == record.history[0]


# ---- acknowledging -----------------------------------------------------------------------------------------------------------------------


def test_when_an_op_is_acknowledged_alone() -> None:
    for record in ALL:
        for shared in (False, True):
            for granted in (False, True):
                now = replace(record, shared=shared)
                if rules.may_acknowledge_alone(now, granted=granted, mark_durable=True):
                    assert now.data is DataState.UPTODATE and now.role is Role.PRIMARY and now.used and not now.shared
                    assert granted or not now.peer_may_fit
                assert not rules.may_acknowledge_alone(now, granted=granted, mark_durable=False)


def test_mirrored_needs_all_three() -> None:
    for bits in range(8):
        same_session, same_generation, peer_applied = bool(bits & 1), bool(bits & 2), bool(bits & 4)
        may = rules.may_acknowledge_mirrored(same_session=same_session, same_generation=same_generation, peer_applied=peer_applied)
        assert may == (bits == 7)


def test_a_mark_is_cleared_by_both_and_only_untouched() -> None:
    cleared = [
        bits
        for bits in range(16)
        if rules.may_clear_mark(
            target_acknowledged=bool(bits & 1),
            checkpointed_here=bool(bits & 2),
            checkpointed_there=bool(bits & 4),
            touched_since=bool(bits & 8),
        )  # fmt: skip
    ]
    assert cleared == [7]


# ---- going alone -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("granted", [False, True])
@pytest.mark.parametrize("op_waiting", [False, True])
def test_going_alone(granted: bool, op_waiting: bool) -> None:
    for plain in ALL:
        for shared in (False, True):
            for peer_has in (False, True):
                before = replace(plain, shared=shared, peer_has=peer_has)
                after = rules.go_alone(before, FRESH, granted=granted, op_waiting=op_waiting)
                fit = before.data is DataState.UPTODATE and before.role is Role.PRIMARY
                assert isinstance(after, Record) == (fit and (granted or not before.peer_may_fit))
                if isinstance(after, Refusal):
                    continue
                assert not after.peer_may_fit and not after.shared
                assert rules.may_acknowledge_alone(rules.use(after), granted=False, mark_durable=True)
                assert (after.generation == FRESH) == (before.peer_may_fit or before.shared), "a name the peer's record cannot carry"
                if before.used and not after.used:
                    assert before.peer_may_fit and peer_has and not op_waiting, "used was forgotten"
                assert after.used or not op_waiting
                if before.rewound and not after.rewound:
                    assert before.peer_may_fit and granted, "only a minted grant"


def test_force_takes_whole_copies_only() -> None:
    for before in ALL:
        after = rules.force(before, FRESH)
        assert isinstance(after, Record) == (before.data not in UNFIT and before.generation != 0)
        if isinstance(after, Record):
            assert after.used and not after.peer_may_fit and after.data is DataState.UPTODATE


# ---- rewound -----------------------------------------------------------------------------------------------------------------------------


def test_the_life_of_rewound() -> None:
    one, two = paired()
    assert not rules.start(one, HERE).rewound, "only the process died: the memory of the kernel is whole"
    cut = rules.start(one, AFTER_BOOT)
    assert cut.rewound
    assert rules.start(rules.end(cut), Identity("boot-3", 1, "")).rewound, "neither an orderly end nor a new boot makes it good"
    assert rules.enter_session(cut, AFTER_BOOT, two, source=True).rewound
    assert not rules.start(rules.end(one), AFTER_BOOT).rewound, "it ended in order"
    assert not done(rules.go_alone(cut, FRESH, granted=True, op_waiting=False)).rewound
    assert not done(rules.force(cut, FRESH)).rewound
    source = rules.source_before_end(rules.source_begins(replace(cut, shared=False), FRESH))
    assert not source.rewound, "nobody has what it may have lost; from END on it has what its target may lose"
    target = rules.target_begins(replace(two, rewound=True), None)
    assert target.rewound and not rules.target_adopts(target, source, 1).rewound
    assert not rules.pair_directly(cut, 1).rewound


def test_a_rewound_primary_does_not_go_on_because_its_peer_was_sent_away() -> None:
    one, _ = paired()
    cut = rules.start(one, AFTER_BOOT)
    assert isinstance(rules.primary_hears_leave(cut), Refusal)
    assert done(rules.primary_hears_leave(one)).is_sole_owner


# ---- sessions ----------------------------------------------------------------------------------------------------------------------------


def test_the_first_copy() -> None:
    one, two = paired()
    assert one.generation == two.generation == 5 and one.base == two.base
    for record in (one, two):
        assert record.data is DataState.UPTODATE and record.peer_may_fit and record.shared and record.peer_has and record.used
        assert record.session == SESSION and not record.rewound
    assert (one.role, two.role, one.node_bit, two.node_bit) == (Role.PRIMARY, Role.SECONDARY, 0, 1)
    assert (one.term, one.owner) == (two.term, two.owner)
    assert not one.is_sole_owner and not two.is_sole_owner


def test_a_sole_owner_until_the_peer_may_be_fit() -> None:
    one = primary()
    assert one.is_sole_owner
    one = rules.source_begins(one, FRESH)
    assert one.is_sole_owner and one.generation == 5, "the peer never carried this name: no new one is needed"
    one = rules.source_before_end(one)
    assert not one.is_sole_owner, "from the sending of END on it freezes and needs a grant"


def test_a_source_that_shared_its_name_takes_a_new_one() -> None:
    one, two = paired()
    begun = rules.source_begins(one, FRESH)
    assert begun.generation == FRESH and begun.used and not begun.peer_may_fit and begun.continues(two.generation)
    with pytest.raises(AssertionError):
        rules.source_begins(replace(one, data=DataState.INCONSISTENT), FRESH)


def test_who_left_in_order_is_whole_again_before_its_target_is_not() -> None:
    """The peer lost power before it knew of the leave (§3.2). A session that ends after the target's INCONSISTENT must leave a source."""
    one, two = paired()
    left = rules.secondary_leaves(two)
    source = rules.enter_session(left, HERE, rules.start(one, AFTER_BOOT), source=True)
    assert source.data is DataState.UPTODATE and source.peer_may_fit and not source.is_sole_owner
    assert rules.enter_session(left, HERE, one, source=False).data is DataState.OUTDATED


def test_a_target_that_yields_takes_the_fork_point_in_the_same_record() -> None:
    before = replace(PEER, generation=9, history=(1, 2, 3), base=0, used=False, peer_may_fit=False)
    after = rules.target_begins(before, 2)
    assert (after.generation, after.history, after.base, after.data) == (2, (1,), 0, DataState.INCONSISTENT)
    assert after.peer_may_fit, "its peer is the source now"
    beyond = rules.target_begins(replace(before, base=3), 2)
    assert (beyond.generation, beyond.base) == (2, 2)
    first = rules.target_begins(before, 1)
    assert (first.generation, first.history, first.base) == (1, (), 0)


def test_only_a_target_adopts() -> None:
    with pytest.raises(AssertionError):
        rules.target_adopts(replace(PEER, node_id=1), PEER, 1)


def test_a_source_is_never_behind_in_term() -> None:
    one, _ = paired()
    ahead = rules.enter_session(one, HERE, replace(PEER, term=one.term + 4), source=True)
    assert ahead.term == one.term + 5 and ahead.owner == one.node_id
    assert rules.enter_session(one, HERE, replace(PEER, term=one.term + 4), source=False).term == one.term


def test_a_handshake_as_source_counts_as_used() -> None:
    one, two = paired()
    unused = replace(one, used=False)
    assert rules.enter_session(unused, HERE, two, source=True).used
    assert not rules.enter_session(unused, HERE, two, source=False).used
    entered = rules.enter_session(unused, AFTER_BOOT, two, source=False)
    assert (entered.boot, entered.clean, entered.peer_id, entered.peer_confirmed_number) == ("boot-2", False, 2, two.number)


def test_a_short_loss_of_the_link_resumes_and_nothing_else_does() -> None:
    one, two = paired()

    def may(source: Record, target: Record, mine: int = SESSION, theirs: int = SESSION) -> bool:
        return rules.may_resume_link(source, target, source_session=mine, target_session=theirs)

    assert may(one, two)
    assert not may(one, two, 0, 0) and not may(one, two, SESSION, 0) and not may(one, two, SESSION, SESSION + 1)
    assert not may(done(rules.go_alone(one, FRESH, granted=True, op_waiting=False)), two)
    for data in (DataState.OUTDATED, *UNFIT):
        assert not may(one, replace(two, data=data))
    assert not may(rules.demote(one), two) and not may(one, replace(two, role=Role.PRIMARY))


# ---- leaving and swapping ----------------------------------------------------------------------------------------------------------------


def test_leaving_makes_only_a_whole_copy_outdated() -> None:
    for before in ALL:
        after = rules.secondary_leaves(before)
        assert after.data is (DataState.OUTDATED if before.data is DataState.UPTODATE else before.data)


def test_a_swap_keeps_one_primary_at_every_moment() -> None:
    one, two = paired()
    one = rules.demote(one)
    assert Role.PRIMARY not in (one.role, two.role)
    two = rules.promote(two, one.term)
    assert two.term > one.term and two.owner == 2 and not two.is_sole_owner
    one = rules.learn_term(one, two.term, two.owner)
    assert judged(one, two, (False, True)).source is Source.THEIRS
    with pytest.raises(AssertionError):
        rules.promote(replace(one, data=DataState.OUTDATED), 0)


def test_a_fenced_node_needs_a_grant_and_a_failed_one_keeps_what_it_knew() -> None:
    alone = done(rules.go_alone(paired()[0], FRESH, granted=True, op_waiting=True))
    fenced = rules.step_down(alone)
    assert fenced.peer_may_fit and fenced.role is Role.SECONDARY and fenced.used
    failed = rules.step_down(rules.fail(alone))
    assert judged(failed, replace(PEER, generation=5, history=())).outcome is Outcome.NO_SOURCE


def test_replaced_data_is_a_new_secondary() -> None:
    for before in ALL:
        after = rules.replace_data(before)
        verdict = judged(PEER, replace(after, node_id=3), (True, False), (False, True))
        assert (verdict.outcome, verdict.source) == (Outcome.PAIR, Source.MINE)
        assert not after.is_sole_owner and isinstance(rules.force(after, FRESH), Refusal)


# ---- beyond: any order of transitions ----------------------------------------------------------------------------------------------------


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(sorted(ALWAYS)), max_size=25))
def test_any_order_of_transitions_leaves_a_record_that_reads_back(names: list[str]) -> None:
    record, mints = primary(), iter(range(5000, 6000))
    for name in names:
        after = ALWAYS[name](record)
        if isinstance(after, Record):
            if after.generation == FRESH:
                after = replace(after, generation=next(mints))
            record = after
        assert from_wire(to_wire(record)) == record
        assert not (record.is_sole_owner and record.data is not DataState.UPTODATE)
