"""Broken builds: one rule at a time is taken out, and the simulator has to notice within a bounded number of seeds.

Some take a schedule too rare for a walk of a few hundred seeds (the source that does not sync first: a resync without a failure before it);
their stories in test_stories.py break them.

A build is broken by a word that the simulated node looks for (the order of its steps), by a rule of rfs that is replaced, or both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from rfs import decide as deciding
from rfs import rules
from rfs.decide import Decision, Side
from rfs.record import DataState, Record, Role
from tests.datasim.oracle import Violation
from tests.datasim.walk import walk

MODULES = {"rules": rules, "decide": deciding}


@dataclass(frozen=True)
class Broken:
    """`guards`: what of DESIGN §12 or PROTOCOL it breaks."""

    guards: str
    words: tuple[str, ...] = ()
    patches: dict[str, Callable[..., Any]] = field(default_factory=dict)
    policy: str | None = None
    bias: dict[str, float] = field(default_factory=dict)
    most: int = 1500  # seeds within which it must be caught


_stronger, _go_alone, _enter, _begins, _start = deciding._stronger, rules.go_alone, rules.enter_session, rules.target_begins, rules.start
_adopts = rules.target_adopts


def _primary_first(a: Side, b: Side) -> tuple[Side, str]:
    plain = [replace(side, record=replace(side.record, rewound=False)) for side in (a, b)]
    stronger, why = _stronger(*plain)
    return (a if stronger is plain[0] else b), why


def _never_rewound(record: Record, identity: rules.Identity) -> Record:
    return replace(record, running=False)


def _boot_kept(record: Record, identity: rules.Identity, peer: Record, *, source: bool) -> Record:
    return replace(_enter(record, identity, peer, source=source), boot=record.boot, clean=record.clean)


def _forgets_use(record: Record, name: int, *, granted: bool, op_waiting: bool) -> Record | rules.Refusal:
    after = _go_alone(record, name, granted=granted, op_waiting=op_waiting)
    return after if isinstance(after, rules.Refusal) else replace(after, used=False)


def _no_fork_yields(a: Side, b: Side) -> Decision:
    return Decision(deciding.Outcome.DIVERGED, "a fork")


def _still_whole(record: Record, fork_point: int | None) -> Record:
    return replace(_begins(record, fork_point), data=record.data)


def _adopted_whole(record: Record, source: Record, session: int) -> Record:
    return _adopts(replace(record, data=DataState.INCONSISTENT), source, session)


def _any_drop(record: Record, **_: object) -> Record:
    return replace(record, base=record.generation)


def _lopsided(a: Side, b: Side) -> tuple[Side, str]:
    return a, "mine"


def _unmarked_direct(a: Record, b: Record, *, nothing_marked: bool) -> bool:
    return a.generation == b.generation and a.data is b.data is DataState.UPTODATE


def _resumes_anyhow(source: Record, target: Record, *, source_session: int, target_session: int) -> bool:
    return source.generation == target.generation and source.role is Role.PRIMARY and target.data is DataState.UPTODATE


def _unfit_is_fine(a: Side, b: Side) -> Decision | None:
    return None


# A node loses power and is back while its peer lives, and the two cannot meet.
ALIVE: dict[str, float] = {
    "power": 0.8,
    "kill": 0,
    "link": 2,
    "heal": 0.15,
    "rate": 0.25,
    "ask": 8,
    "pause": 0,
    "checkpoint": 0.1,
    "setattr": 60,
}
# A node loses power after an fsync, and takes over from a peer that then dies.
SURVIVOR: dict[str, float] = {
    "fsync": 60,
    "power": 1.5,
    "kill": 1.5,
    "rate": 0.12,
    "connect": 0.8,
    "ask": 8,
    "link": 0.1,
    "pause": 0,
    "checkpoint": 0.1,
}

BUILDS: dict[str, Broken] = {
    # marks and their log: invariant 4, and "every difference is marked, durably"
    "mark after apply": Broken("§12.4, PROTOCOL 2.4", ("mark after apply",)),
    "mark never written": Broken("§12.4, PROTOCOL 2.2", ("mark is never durable",)),
    "hot before it is durable": Broken("§12.4", ("hot before it is durable",)),
    "a mark goes with the frame": Broken("§12.4", ("a mark is cleared when it is sent",)),
    "marks go at the end of a resync": Broken("§12.4, PROTOCOL 4.5", ("marks go at the end of a resync",)),
    "a checkpoint without the peer's sync": Broken("§12.4, PROTOCOL 5", ("a checkpoint syncs this node alone",)),
    "a checkpoint without its own sync": Broken("§12.4, PROTOCOL 5", ("a checkpoint syncs the peer alone",)),
    "a checkpoint drops what was touched since": Broken("§12.4, PROTOCOL 5", ("a checkpoint drops what was touched since",)),
    "a checkpoint does not wait for ops": Broken("§12.4, PROTOCOL 5", ("a checkpoint does not wait for ops",)),
    "two checkpoints at a time": Broken("marks.h: one at a time", ("two checkpoints at a time",), bias={"checkpoint": 20}),
    "a fid given after its directory was touched": Broken(
        "marks.h: what is new", ("fid given after the touch",), bias={"checkpoint": 10, "create": 60, "rate": 0.3, "connect": 12}
    ),
    "what is new is compared by its marks alone": Broken("marks.h: what is new", ("what is new does not travel whole",)),
    "a mixed op leaves the clean place": Broken("PROTOCOL 2.4", ("a mixed op leaves the clean place",)),
    "the source's hot marks stay at home": Broken("PROTOCOL 3.2", ("the source's hot marks do not travel",)),
    "the target's marks stay at home": Broken("PROTOCOL 3.2", ("the target's marks do not travel",)),
    "paired directly whatever is marked": Broken("PROTOCOL 4.2", patches={"rules.may_pair_directly": _unmarked_direct}),
    "resumed whatever happened": Broken("PROTOCOL 4.3", patches={"rules.may_resume_link": _resumes_anyhow}),
    # verdicts and generations: invariants 1, 2, 3
    "answered before the peer has it": Broken("§12.2, PROTOCOL 2.1", ("ack before the peer",)),
    "two verdicts": Broken("§12.1", ("two verdicts",)),
    "alone without a grant": Broken("§12.2, PROTOCOL 2.2", ("alone without a grant",)),
    "going on needs no witness": Broken("§12.3, PROTOCOL 6.1", ("going on needs no witness",), policy="witness"),
    "alone under the shared name": Broken("§12.2, PROTOCOL 2.2", ("alone under the shared name",)),
    "what was acknowledged alone is forgotten": Broken(
        "PROTOCOL 2.2 (iv)",
        ("used is not asked for",),
        {"rules.go_alone": _forgets_use, "rules.use": lambda record: record},
        policy="availability",
    ),
    "a fork never yields": Broken("PROTOCOL 3.4", patches={"decide._fork": _no_fork_yields}, policy="availability"),
    "fsync of one disk": Broken("promise 1, I-a", ("fsync is of one disk",), policy="witness", bias=SURVIVOR),
    # sessions: invariants 3, 8, 10
    "INCONSISTENT after the frames": Broken("PROTOCOL 4.4", ("INCONSISTENT is written late",)),
    "INCONSISTENT is not written": Broken("§12.3", patches={"rules.target_begins": _still_whole, "rules.target_adopts": _adopted_whole}),
    "UPTODATE before the sync": Broken("PROTOCOL 4.6", ("UPTODATE before the sync",), policy="witness", bias=SURVIVOR),
    "the peer is not recorded as unfit": Broken("PROTOCOL 4.4", ("the peer is not recorded as unfit",)),
    "END without a fit peer": Broken("PROTOCOL 4.6", ("END without a fit peer",)),
    "a resync destroys inodes": Broken("PROTOCOL 4.8", ("nothing is held", "missing inodes are not asked for")),
    "frames of older sessions are applied": Broken("§12.8, PROTOCOL 2.1", ("frames of older sessions are applied",)),
    "a half-resynced copy is as good as any": Broken("§12.10, PROTOCOL 3.1", patches={"decide._unfit": _unfit_is_fine}),
    # who has the data: invariants 5, 10
    "the last primary beats who ran through": Broken(
        "§12.10, PROTOCOL 3.2",
        patches={"decide._stronger": _primary_first},
        bias={"power": 1.5, "kill": 0, "rate": 0.15, "connect": 12, "ask": 0.2, "link": 0.1, "pause": 0, "checkpoint": 0.1, "setattr": 60},
    ),
    "a power cut is not noticed": Broken("PROTOCOL 1, rewound", patches={"rules.start": _never_rewound}),
    "boot is not renewed": Broken("PROTOCOL 4.1", patches={"rules.enter_session": _boot_kept}, policy="witness", bias=ALIVE),
    "a rewound node does not wait": Broken("PROTOCOL 6.3", ("a rewound node does not wait",), policy="witness", bias=ALIVE),
    "decide is lopsided": Broken("§12.5", patches={"decide._stronger": _lopsided}),
    "names are not noted as tried": Broken("PROTOCOL 6.2", ("names are not noted as tried",), policy="witness", bias={"lost": 8}),
    # errors: invariant 9
    "an error becomes success": Broken("§12.9", ("an error becomes success",)),
    "a failed copy is compared by its cache": Broken("§12.9", ("a failed copy is compared by its cache",)),
}


@contextmanager
def patched(build: Broken) -> Iterator[None]:
    saved = {where: getattr(MODULES[where.partition(".")[0]], where.partition(".")[2]) for where in build.patches}
    for where, function in build.patches.items():
        setattr(MODULES[where.partition(".")[0]], where.partition(".")[2], function)
    try:
        yield
    finally:
        for where, function in saved.items():
            setattr(MODULES[where.partition(".")[0]], where.partition(".")[2], function)


def detect(build: Broken, first: int = 0) -> tuple[int, str] | None:
    """How many seeds it took, and what was noticed; None: nothing was."""
    with patched(build):
        for number in range(build.most):
            try:
                walk(first + number, policy=build.policy, breaks=frozenset(build.words), bias=build.bias)
            except (Violation, AssertionError) as noticed:
                return number + 1, str(noticed).partition("\n")[0]
    return None
