"""The way out of DIVERGED over all wishes, and over all pairs of the enumerated domain that have diverged."""

from dataclasses import replace
from itertools import product

from rfs.decide import Outcome, Source
from rfs.record import DataState, Record, Role
from rfs.resolution import Job, Wish, give_up_claim, job
from rfs.rules import Refusal
from tests.property.records import judged, variants

FITTING = {
    (Job.NOTHING, Job.NOTHING), (Job.CONTRADICTION, Job.CONTRADICTION),
    (Job.COMPARE, Job.ANSWER), (Job.ANSWER, Job.COMPARE), (Job.YIELD, Job.STAY), (Job.STAY, Job.YIELD),
}  # fmt: skip


def test_both_sides_come_to_jobs_that_fit() -> None:
    for mine, theirs in product(Wish, Wish):
        for dialed in (False, True):
            both = job(mine, theirs, dialed=dialed), job(theirs, mine, dialed=not dialed)
            assert both in FITTING, (mine, theirs, both)
            resolves = {mine, theirs} & {Wish.KEEP_MINE, Wish.KEEP_YOURS}
            assert (Job.YIELD in both or Job.CONTRADICTION in both) == bool(resolves)
            assert (both == (Job.NOTHING, Job.NOTHING)) == (mine is theirs is Wish.NOTHING)
    assert job(Wish.KEEP_MINE, Wish.KEEP_YOURS, dialed=True) is Job.STAY
    assert job(Wish.KEEP_MINE, Wish.KEEP_MINE, dialed=True) is Job.CONTRADICTION


def give_up(loser: Record, winner: Record, *, running: bool = True, empty: tuple[bool, bool] = (False, False)) -> Record | Refusal:
    return give_up_claim(loser, winner, peer_running=running, mine_empty=empty[0], theirs_empty=empty[1])


def test_whoever_yields_becomes_the_target_of_a_whole_copy_and_of_nothing_else() -> None:
    losers = [one for one in variants("node1", 1) if one.generation and not one.rewound]
    winners = [one for one in variants("node2", 2) if one.generation and one.role is Role.PRIMARY and not one.rewound and one.peer_may_fit]
    diverged = [(a, b) for a, b in product(losers, winners) if judged(a, b, (False, True)).outcome is Outcome.DIVERGED]
    assert len(diverged) > 1000
    for loser, winner in diverged:
        given = give_up(loser, winner)
        if winner.data is not DataState.UPTODATE:
            assert isinstance(given, Refusal)
            continue
        assert isinstance(given, Record), given
        verdict = judged(given, winner, (False, True))
        assert (verdict.outcome, verdict.source) == (Outcome.PAIR, Source.THEIRS)
        assert given.role is Role.SECONDARY and not given.running and not given.used
        assert (given.node, given.node_id, given.term, given.number) == (loser.node, loser.node_id, loser.term, loser.number)
        if given.generation:  # its history is still told: the marks of a fork may be enough
            assert (given.generation, given.base, given.history) == (loser.generation, loser.base, loser.history)
        else:
            assert given.data is DataState.INCONSISTENT


def test_an_empty_winner_takes_nothing() -> None:
    pair = [replace(one, generation=name, history=(), data=DataState.UPTODATE, used=True) for one, name in zip(_two(), (1, 9), strict=True)]
    assert isinstance(give_up(*pair), Record)
    refused = give_up(*pair, empty=(False, True))
    assert isinstance(refused, Refusal) and "empty" in refused.reason


def _two() -> tuple[Record, Record]:
    return Record(cluster="c", module="m", node="node1", node_id=1), Record(cluster="c", module="m", node="node2", node_id=2)
