"""A decision's inputs and the rules' answers as plain JSON, and back.

Only what differs from the defaults is written: a file stays readable, and a new field of the core with a default that changes nothing does
not make old files wrong. A field that is gone is an error that names it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import Any, TypeVar

from orchestrator.core import failover_rules as rules
from orchestrator.core import incidents
from orchestrator.core.rules_language import ResourceState, Rule, Term, parse
from orchestrator.core.states import (
    Hold,
    Incident,
    Lane,
    Module,
    Order,
    Point,
    Readiness,
    Resource,
    RfsView,
    Script,
    State,
    Summary,
    Surroundings,
    Wish,
)

Plain = dict[str, Any]
Dataclass = TypeVar("Dataclass")
ENUMS: Mapping[str, type[Enum]] = {
    "wish": Wish, "rfs": Hold, "address": Hold, "services": Hold, "order": Order, "state": State, "readiness": Readiness,
    "announced": State, "came_from": State, "point": Point,
}  # fmt: skip
QUIET = Module("quiet")  # what a module is before anything is known


def plain(value: Any) -> Any:
    """Enums by value, mappings by their keys' values, infinities as words, dataclasses as what differs from the defaults, terms as they are
    written."""
    if isinstance(value, Term):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.default is dataclasses.MISSING
            and (field.default_factory is dataclasses.MISSING or getattr(value, field.name) != field.default_factory())
            or field.default is not dataclasses.MISSING
            and getattr(value, field.name) != field.default
        }
    if isinstance(value, IntEnum):
        return value.name
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {plain(key): plain(each) for key, each in value.items()}
    if isinstance(value, frozenset):
        return sorted(plain(each) for each in value)
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return str(value) if math.isinf(value) else round(value, 3)
    return value


def _made(kind: type[Dataclass], fields: Plain) -> Dataclass:
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := set(fields) - known:
        raise AssertionError(f"{kind.__name__} has no {', '.join(sorted(unknown))} any more: record anew (python -m tests.golden.record)")
    values = {
        name: ENUMS[name](value) if name in ENUMS and value is not None else tuple(value) if isinstance(value, list) else value
        for name, value in fields.items()
    }
    return kind(**values)


def module(fields: Plain) -> Module:
    """As it was."""
    fields = dict(fields)
    if fields.get("view") is not None:
        fields["view"] = _made(RfsView, fields["view"])
    if "entered" in fields:
        fields["entered"] = frozenset(Point(point) for point in fields["entered"])
    if fields.get("script") is not None:
        fields["script"] = _made(Script, fields["script"])
    if "rules" in fields:
        fields["rules"] = tuple(map(_rule, fields["rules"]))
    if "resources" in fields:
        fields["resources"] = {name: _resource(known) for name, known in fields["resources"].items()}
    if "incidents" in fields:
        fields["incidents"] = {name: _made(Incident, incident) for name, incident in fields["incidents"].items()}
    if "shown" in fields:
        fields["shown"] = (State(fields["shown"][0]), Readiness(fields["shown"][1]))
    for name in ("tickets", "retry_at"):
        if name in fields:
            fields[name] = {Lane(lane): value for lane, value in fields[name].items()}
    made = _made(Module, {name: value for name, value in fields.items() if name != "shown"})
    return dataclasses.replace(made, shown=fields["shown"]) if "shown" in fields else made


def _resource(known: Plain) -> Resource:
    return Resource(**{**known, "state": ResourceState(known.get("state", ResourceState.INIT.value))})


def _rule(rule: Plain) -> Rule:
    terms = {key: tuple(map(parse, rule.get(key, ()))) for key in ("all", "any")}
    return Rule(**{**rule, **terms, "services": tuple(rule.get("services", ()))})


def surroundings(fields: Plain) -> Surroundings:
    """As they were."""
    return _made(Surroundings, {name: float(value) if value in ("inf", "-inf") else value for name, value in fields.items()})


def summary(fields: Plain | None) -> Summary | None:
    """What the peer had said."""
    return None if fields is None else _made(Summary, fields)


def answers(mine: Module, around: Surroundings, peer: Summary | None) -> Plain:
    """What every rule says, by its name."""
    state, readiness, reason = rules.describe(mine, around, peer)
    return {
        "goal": plain(rules.goal(mine, around, peer)),
        "still_current": rules.still_current(mine, around, peer),
        "may_trust_silence": rules.may_trust_silence(mine, around),
        "outranked": rules.outranked(mine, around, peer),
        "promotion": plain(rules.promotion(mine, around, peer)),
        "permission": plain(rules.permission(mine, around, peer)),
        "failback": rules.failback(mine, around, peer),
        "answer_counts": rules.answer_counts(mine),
        "too_many_restarts": rules.too_many_restarts(mine, around.now),
        "start_role": rules.start_role(mine, around, peer),
        "why_not_started": rules.why_not_started(mine, around, peer),
        "ready_to_receive": rules.ready_to_receive(mine.view, around, peer),
        "describe": [state.value, readiness.value, reason],
        "must_not_serve": rules.must_not_serve(mine),
        "barred": incidents.barred(mine, around, peer),
        "awaited": incidents.awaited(mine),
        "unfit": incidents.unfit(mine),
        "rules": {
            each.rule.name: each.why_not or ("was followed" if each.acted else "is followed")
            for each in incidents.judged(mine, around, peer)
            if each.holds
        },
    }


def said(found: Plain) -> Plain:
    """Without what a quiet module answers too: no, nothing, empty."""
    return {name: value for name, value in found.items() if value not in (None, False, "", {})}
