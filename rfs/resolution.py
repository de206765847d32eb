"""Pure rules for the way out of DIVERGED: who compares, who yields, and what the one that yields writes into its record.

`decide` stays as it is. The loser gives its claim up in its own record, durably, after what differs was saved; from then on the
handshake's ordinary rules make it the target: by rule 4 as a generation in which nothing that counts was acknowledged (`used` = 0), where
the two have a name in common that allows it; else as a copy that is new (generation 0).
"""

from dataclasses import replace
from enum import StrEnum

from rfs import rules
from rfs.decide import Outcome, Source, decide
from rfs.record import DataState, Record, Role


class Wish(StrEnum):
    """What a node was asked to do about the divergence, as it tells its peer."""

    NOTHING = ""
    DIFF = "diff"
    KEEP_MINE = "keep-mine"
    KEEP_YOURS = "keep-yours"


class Job(StrEnum):
    """What this node does in this meeting. Whoever compares asks, the other one answers."""

    NOTHING = "nothing"
    COMPARE = "compare"
    ANSWER = "answer"
    YIELD = "yield"  # compare, save, give the claim up
    STAY = "stay"  # answer; the other one yields
    CONTRADICTION = "contradiction"


def _job_of_own(wish: Wish) -> Job:
    return {Wish.NOTHING: Job.NOTHING, Wish.DIFF: Job.COMPARE, Wish.KEEP_MINE: Job.STAY, Wish.KEEP_YOURS: Job.YIELD}[wish]


_OTHER_SIDE = {Job.NOTHING: Job.NOTHING, Job.COMPARE: Job.ANSWER, Job.STAY: Job.YIELD, Job.YIELD: Job.STAY}


def job(mine: Wish, theirs: Wish, *, dialed: bool) -> Job:
    """Both sides come to jobs that fit. A resolution goes before a comparison; of two comparisons the dialer's is first."""
    own, other = _job_of_own(mine), _OTHER_SIDE[_job_of_own(theirs)]
    resolutions = [one for one in (own, other) if one in (Job.YIELD, Job.STAY)]
    if len(resolutions) == 2 and own is not other:
        return Job.CONTRADICTION
    if resolutions:
        return resolutions[0]
    wanted = [one for one in ((own, other) if dialed else (other, own)) if one is not Job.NOTHING]
    return wanted[0] if wanted else Job.NOTHING


def give_up_claim(record: Record, peer: Record, *, peer_running: bool, mine_empty: bool, theirs_empty: bool) -> Record | rules.Refusal:
    """The record by which this node yields to its peer at the next handshake; it has stepped down, and what differs is saved."""
    if peer.data is not DataState.UPTODATE:
        return rules.Refusal(f"{peer.node} is {peer.data.name}: only a whole copy can be kept; promote it there first")
    stepped_down = replace(record, role=Role.SECONDARY, running=False)
    reason = ""
    for candidate in (replace(stepped_down, used=False), rules.replace_data(stepped_down)):
        decision = decide(
            *(candidate, peer), mine_running=False, theirs_running=peer_running, mine_empty=mine_empty, theirs_empty=theirs_empty
        )
        if decision.outcome is Outcome.PAIR and decision.source is Source.THEIRS:
            return candidate
        reason = decision.reason
    return rules.Refusal(f"{record.node} cannot yield to {peer.node}: {reason}")
