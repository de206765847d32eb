"""Who has the data: the decision of a handshake (docs/protocol.md §3; the whole table is docs/decision-table.md).

Both nodes evaluate `decide` on the same two records and compare their verdicts before anything happens. It is pure, total and
antisymmetric: decide(a, b) == mirror(decide(b, a)). Its heart: *who ran through beats who was primary*. A primary that lost power and is
back before anybody took over must not overwrite what only the secondary's memory holds. No clock takes part.

The rules are tried in their order; the first that speaks decides. Each is written once, from the view of a side called `a`, and asked for
both sides.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from rfs.record import DataState, Record, Role


class Outcome(Enum):
    """What becomes of the handshake."""

    PAIR = "PAIR"
    DIVERGED = "DIVERGED"
    NO_SOURCE = "NO_SOURCE"
    UNRELATED = "UNRELATED"
    EMPTY_SOURCE = "EMPTY_SOURCE"


class Source(Enum):
    """Whose copy the other one is made equal to."""

    MINE = "MINE"
    THEIRS = "THEIRS"


class Travels(Enum):
    """What is compared and copied."""

    UNION_OF_MARKS = "UNION_OF_MARKS"
    EVERYTHING = "EVERYTHING"


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict, from one side's view. `fork_point` is set when the target gives up a generation of its own."""

    outcome: Outcome
    reason: str
    source: Source | None = None
    travels: Travels | None = None
    fork_point: int | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One node in a handshake."""

    record: Record
    running: bool  # it is primary right now, serving or frozen
    empty: bool  # its directories hold nothing

    @property
    def is_unfit(self) -> bool:
        return self.record.data in (DataState.INCONSISTENT, DataState.FAILED)


def mirror(decision: Decision) -> Decision:
    """The same verdict from the other side's view."""
    if decision.source is None:
        return decision
    return replace(decision, source=Source.THEIRS if decision.source is Source.MINE else Source.MINE)


def decide(mine: Record, theirs: Record, *, mine_running: bool, theirs_running: bool, mine_empty: bool, theirs_empty: bool) -> Decision:
    """Which copy is the source, and what travels; or why there is no pair."""
    a, b = Side(mine, mine_running, mine_empty), Side(theirs, theirs_running, theirs_empty)
    order = (
        _strangers, _first_copy, _rolled_back, _nothing_in_common, _unfit, _lost_before_the_leave, _same_generation, _ancestor, _fork,
    )  # fmt: skip
    for rule in order:
        decision = rule(a, b)
        if decision is not None:
            if rule is not _lost_before_the_leave:
                decision = _never_from_outdated(decision, a, b)
            return _never_from_empty(decision, a, b)
    raise AssertionError("the rules are total: two lineages are equal, ordered or forked")


# ---- helpers -----------------------------------------------------------------------------------------------------------------------------


def _no_pair(outcome: Outcome, reason: str) -> Decision:
    return Decision(outcome, reason)


def _pair(source: Side, a: Side, travels: Travels, reason: str, fork_point: int | None = None) -> Decision:
    return Decision(Outcome.PAIR, reason, Source.MINE if source is a else Source.THEIRS, travels, fork_point)


def _never_from_outdated(decision: Decision, a: Side, b: Side) -> Decision:
    """A copy that knows that its peer went on without it lacks what was acknowledged since: only an administrator makes it a source."""
    source, target = (a, b) if decision.source is Source.MINE else (b, a)
    if decision.outcome is Outcome.PAIR and source.record.data is DataState.OUTDATED:
        return _no_pair(
            Outcome.NO_SOURCE,
            f"{source.record.node} is OUTDATED (its peer went on without it) and {target.record.node} does not hold what came after: "
            f"bring the newer copy back, or give up what was written since with 'promote --force' on {source.record.node}",
        )
    return decision


def _never_from_empty(decision: Decision, a: Side, b: Side) -> Decision:
    source, target = (a, b) if decision.source is Source.MINE else (b, a)
    if decision.outcome is Outcome.PAIR and source.empty and not target.empty:
        return _no_pair(
            Outcome.EMPTY_SOURCE,
            f"{source.record.node} would be the source but its directories are empty, and {target.record.node} has files: "
            "is a file system not mounted? Put a file there, or give the files of the other node up with --replace-data",
        )
    return decision


def _covered(source: Record, generation: int) -> Travels:
    """A holder of a generation at or after the base is covered by the marks."""
    lineage = (0, *source.lineage)
    if generation in lineage and lineage.index(generation) >= lineage.index(source.base):
        return Travels.UNION_OF_MARKS
    return Travels.EVERYTHING


def _one(test: Callable[[Side], bool], a: Side, b: Side) -> Side | None:
    """The only side for which it is true."""
    if test(a) == test(b):
        return None
    return a if test(a) else b


def _other(side: Side, a: Side, b: Side) -> Side:
    return b if side is a else a


def _fork_point(source: Record, target: Record) -> int:
    """The newest generation that both lineages hold."""
    return next((name for name in reversed(source.lineage) if name in target.lineage), 0)


# ---- the rules, in their order -----------------------------------------------------------------------------------------------------------


def _strangers(a: Side, b: Side) -> Decision | None:
    if (a.record.cluster, a.record.module) != (b.record.cluster, b.record.module):
        names = sorted(f"module '{side.record.module}' of cluster '{side.record.cluster}'" for side in (a, b))
        return _no_pair(Outcome.UNRELATED, f"{names[0]} was pointed at {names[1]}")
    if a.record.node_id == b.record.node_id:
        return _no_pair(
            Outcome.UNRELATED, "both nodes have the same identity: a state directory was copied; start one of them with a new one"
        )
    return None


def _first_copy(a: Side, b: Side) -> Decision | None:
    """Rule 0: a new copy is the target of one that has data."""
    if not a.record.generation and not b.record.generation:
        return _no_pair(Outcome.NO_SOURCE, "neither node has data yet: say which one has it (--role primary, or 'hactl prim' there)")
    new = _one(lambda side: not side.record.generation, a, b)
    if new is None:
        return None
    source = _other(new, a, b)
    if source.is_unfit:
        return _no_pair(Outcome.NO_SOURCE, f"{source.record.node} is {source.record.data.name} and {new.record.node} has no data")
    return _pair(source, a, Travels.EVERYTHING, f"first copy from {source.record.node} to {new.record.node}")


def _rolled_back(a: Side, b: Side) -> Decision | None:
    """Rule 0: a record older than the peer has seen is a restored snapshot or a replaced disk."""

    def is_rolled_back(side: Side) -> bool:
        seen, now = _other(side, a, b).record, side.record
        return seen.peer_id == now.node_id and (now.number < seen.peer_confirmed_number or now.applied_seq < seen.peer_confirmed_seq)

    if is_rolled_back(a) and is_rolled_back(b):
        return _no_pair(Outcome.NO_SOURCE, "both nodes are older than their peer has seen them: choose one by hand")
    old = _one(is_rolled_back, a, b)
    if old is None:
        return None
    source = _other(old, a, b)
    if source.is_unfit:
        return _no_pair(Outcome.NO_SOURCE, f"{old.record.node} was rolled back, and {source.record.node} is {source.record.data.name}")
    point = None
    if not source.record.continues(old.record.generation):
        if old.record.used:
            return _no_pair(Outcome.DIVERGED, f"{old.record.node} was rolled back and has acknowledged writes of its own since or before")
        point = _fork_point(source.record, old.record)
    return _pair(source, a, Travels.EVERYTHING, f"{old.record.node} was rolled back to an older state than its peer has seen", point)


def _nothing_in_common(a: Side, b: Side) -> Decision | None:
    if set(a.record.lineage) & set(b.record.lineage):
        names = a.record.generation, b.record.generation
        if names[0] != names[1] and a.record.continues(names[1]) and b.record.continues(names[0]):
            return _no_pair(Outcome.DIVERGED, "each node's generation is an ancestor of the other's: these records cannot both be true")
        return None
    return _no_pair(
        Outcome.DIVERGED,
        "both nodes have data of their own and nothing in common: 'rfsmount resolve --keep here' or '--keep peer' keeps one's",
    )


def _unfit(a: Side, b: Side) -> Decision | None:
    """Rule 1: a half-resynced or failed copy is never a source, and a target only of what continues it."""
    if a.is_unfit and b.is_unfit:
        return _no_pair(Outcome.NO_SOURCE, "neither copy is whole: an administrator must choose")
    unfit = _one(lambda side: side.is_unfit, a, b)
    if unfit is None:
        return None
    fit = _other(unfit, a, b)
    failed = unfit.record.data is DataState.FAILED
    if failed and not unfit.record.peer_may_fit and unfit.record.used:
        return _no_pair(Outcome.NO_SOURCE, f"{unfit.record.node} failed and holds acknowledged data that {fit.record.node} lacks")
    if fit.record.continues(unfit.record.generation):
        travels = Travels.EVERYTHING if failed else _covered(fit.record, unfit.record.generation)
        return _pair(fit, a, travels, f"{unfit.record.node} is {unfit.record.data.name}")
    if unfit.record.continues(fit.record.generation):
        return _no_pair(Outcome.NO_SOURCE, f"{unfit.record.node} is newer but {unfit.record.data.name}: an administrator must choose")
    return _no_pair(Outcome.DIVERGED, f"the copies forked, and {unfit.record.node} is {unfit.record.data.name}")


def _lost_before_the_leave(a: Side, b: Side) -> Decision | None:
    """Rule 2, the one case in which an OUTDATED copy is the source by itself.

    A copy that left in order (OUTDATED) still holds all that was acknowledged under this name, because what its peer acknowledges without
    it has a new one (§2.2). So a peer that lost power before it knew of the leave, and thus never served without it, has less than the one
    that left. A peer that did know is the sole owner and may be serving already: it stays the source.
    """

    def has_lost(side: Side) -> bool:
        record = side.record
        return record.rewound and record.peer_may_fit and record.data is DataState.UPTODATE

    if a.record.generation != b.record.generation:
        return None
    for lost, left in ((a, b), (b, a)):
        if has_lost(lost) and left.record.data is DataState.OUTDATED and not left.record.rewound:
            return _pair(left, a, Travels.UNION_OF_MARKS, f"{lost.record.node} lost power before it knew that its peer had left")
    return None


def _same_generation(a: Side, b: Side) -> Decision | None:
    """Rule 2. What travels is the union of all marks of both, whatever the clean flags say."""
    if a.record.generation != b.record.generation:
        return None
    source, reason = _stronger(a, b)
    return _pair(source, a, Travels.UNION_OF_MARKS, reason)


def _stronger(a: Side, b: Side) -> tuple[Side, str]:
    """Of two copies neither of which has acknowledged what the other lacks, the one to keep, and why."""
    tests: tuple[tuple[Callable[[Side], bool], str], ...] = (
        (lambda side: side.record.data is DataState.OUTDATED, "knows that its peer went on without it"),
        (lambda side: side.record.rewound, "lost power: its peer ran through"),
        (lambda side: not side.running, "is not the running primary"),
        (lambda side: side.record.role is not Role.PRIMARY, "was not the last primary"),
    )
    for test, reason in tests:
        weaker = _one(test, a, b)
        if weaker is not None:
            return _other(weaker, a, b), f"{weaker.record.node} {reason}"
    if a.record.term != b.record.term:
        later = max(a, b, key=lambda side: side.record.term)
        return later, f"{later.record.node} has the higher term"
    owner = _one(lambda side: side.record.owner == side.record.node_id, a, b)
    if owner is not None:
        return owner, f"{owner.record.node} was primary last"
    lower = min(a, b, key=lambda side: side.record.node_id)
    return lower, f"both are alike: {lower.record.node} has the lower id"


def _ancestor(a: Side, b: Side) -> Decision | None:
    """Rule 3: the newer of one lineage is the source."""
    for newer, older in ((a, b), (b, a)):
        if newer.record.continues(older.record.generation):
            return _pair(newer, a, _covered(newer.record, older.record.generation), f"{newer.record.node} went on without its peer")
    return None


def _fork(a: Side, b: Side) -> Decision | None:
    """Rule 4: a generation in which nothing was acknowledged yields; two that were used have diverged.

    Where neither was used, what the two hold is what they shared at the fork: who ran through beats who lost power, as in rule 2.
    """
    if a.record.used and b.record.used:
        return _no_pair(
            Outcome.DIVERGED,
            "both nodes acknowledged writes without each other: choose whose stay with 'rfsmount resolve --keep here' or '--keep peer'",
        )
    source = _one(lambda side: side.record.used, a, b)
    if source is not None:
        reason = f"{_other(source, a, b).record.node} acknowledged nothing in its own generation and yields"
    else:
        source, why = _stronger(a, b)
        reason = f"neither node acknowledged anything in its own generation, and {why}"
    point = _fork_point(source.record, _other(source, a, b).record)
    both = _covered(a.record, point), _covered(b.record, point)
    travels = Travels.EVERYTHING if Travels.EVERYTHING in both else Travels.UNION_OF_MARKS
    return _pair(source, a, travels, reason, point)
