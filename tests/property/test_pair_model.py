"""Random lives of a pair keep every promise; and with one rule broken they do not, which shows that the walk can tell."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from rfs import decide as deciding
from rfs import rules
from rfs.record import DataState, Record
from rfs.rules import Refusal
from tests.property.pair_model import Violation, walk

LIVES, STEPS = 500, 300
CONTROL_LIVES = 600


@pytest.mark.parametrize("accurate", [True, False], ids=["the peer is known to be down", "anybody may go on"])
def test_every_life_keeps_the_promises(accurate: bool) -> None:
    seen: Counter[str] = Counter()
    for seed in range(LIVES):
        seen += walk(seed, STEPS, accurate=accurate)
    for event in ("acked", "adopted", "resumed", "takeover", "alone", "swapped", "left", "outdated", "power", "kill"):
        assert seen[event] >= 10, f"the walk hardly ever comes to: {event} ({seen})"


# ---- with one rule broken ----------------------------------------------------------------------------------------------------------------

_go_alone, _enter, _begins, _adopts = rules.go_alone, rules.enter_session, rules.target_begins, rules.target_adopts
_source_begins = rules.source_begins


def _never_rewound(record: Record, identity: rules.Identity) -> Record:
    return replace(record, running=False)


def _no_new_name(record: Record, name: int, *, granted: bool, op_waiting: bool) -> Record | Refusal:
    after = _go_alone(record, name, granted=granted, op_waiting=op_waiting)
    return after if isinstance(after, Refusal) else replace(after, generation=record.generation, history=record.history)


def _boot_kept(record: Record, identity: rules.Identity, peer: Record, *, source: bool) -> Record:
    return replace(_enter(record, identity, peer, source=source), boot=record.boot, clean=record.clean)


def _stays_old(record: Record, identity: rules.Identity, peer: Record, *, source: bool) -> Record:
    return replace(_enter(record, identity, peer, source=source), data=record.data)


def _heals_late(record: Record, name: int) -> Record:
    return _source_begins(replace(record, data=DataState.UPTODATE), name)


def _still_whole(record: Record, fork_point: int | None) -> Record:
    return replace(_begins(record, fork_point), data=record.data)


def _adopted_whole(record: Record, source: Record, session: int) -> Record:
    return _adopts(replace(record, data=DataState.INCONSISTENT), source, session)


def _forgetful(record: Record, name: int, *, granted: bool, op_waiting: bool) -> Record | Refusal:
    after = _go_alone(record, name, granted=granted, op_waiting=op_waiting)
    return after if isinstance(after, Refusal) else replace(after, used=False)


def _ends_unfit(record: Record) -> Record:
    return record


def _after_end_anyhow(record: Record, session: int) -> Record:
    return replace(record, peer_has=True, rewound=False, session=session)


BROKEN: dict[str, tuple[bool, dict[str, Callable[..., object]]]] = {
    "a power cut is not noticed": (True, {"rules.start": _never_rewound}),
    "alone under the shared name": (True, {"rules.go_alone": _no_new_name}),
    "boot is not renewed": (True, {"rules.enter_session": _boot_kept}),
    "a target still calls itself whole": (True, {"rules.target_begins": _still_whole, "rules.target_adopts": _adopted_whole}),
    "a source that had left stays OUTDATED": (True, {"rules.enter_session": _stays_old, "rules.source_begins": _heals_late}),
    "a half-resynced copy is as good as any": (True, {"decide._unfit": lambda a, b: None}),
    "END without a fit peer": (True, {"rules.source_before_end": _ends_unfit, "rules.source_after_end": _after_end_anyhow}),
    "who left is target whatever its peer lost": (True, {"decide._lost_before_the_leave": lambda a, b: None}),
    "resumed whatever happened": (True, {"rules.may_resume_link": lambda *_, **__: True}),
    "what was acknowledged alone is forgotten": (False, {"rules.go_alone": _forgetful, "rules.use": lambda record: record}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    accurate, patches = BROKEN[name]
    for where, broken in patches.items():
        module, _, function = where.partition(".")
        monkeypatch.setattr({"rules": rules, "decide": deciding}[module], function, broken)
    if "rules.use" in patches:  # the acknowledgement relies on it
        monkeypatch.setattr(rules, "may_acknowledge_alone", lambda *_, **__: True)
    with pytest.raises((Violation, AssertionError)):
        for seed in range(CONTROL_LIVES):
            walk(seed, STEPS, accurate=accurate)
