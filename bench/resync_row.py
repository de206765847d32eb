"""One kind of return: what is done, what is found, and what is asked of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.figures import SPREAD_LIMIT, spread, verdict

if TYPE_CHECKING:
    from bench.stage import Stage

Found = Mapping[str, float]


@dataclass(frozen=True)
class Reach:
    """A limit for one of the values found, from the others of the same run."""

    value: str
    text: str
    limit: Callable[[Found], float]
    at_least: bool = False
    reference: str = ""  # what it is measured by; if that is unsteady, it is not judged


def at_most(value: str, limit: float, text: str) -> Reach:
    """A number that was given."""
    return Reach(value, text, lambda _: limit)


@dataclass(frozen=True)
class ResyncRow:
    """`units` says what the values are, in the order in which they are shown."""

    name: str
    text: str
    measure: Callable[[Stage], dict[str, float]]
    units: Mapping[str, str]
    reaches: Sequence[Reach]
    heavy: bool = False


def figures(row: ResyncRow, runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Medians and verdicts. Pure."""
    spreads = {name: spread([run[name] for run in runs]) for name in row.units}
    found = {name: statistics.median([run[name] for run in runs]) for name in row.units}
    judged = []
    for reach in row.reaches:
        one = verdict(reach.text, reach.limit(found), found[reach.value], lower_is_better=not reach.at_least)
        unsteady = [reach.reference] if reach.reference and spreads[reach.reference] > SPREAD_LIMIT else []
        judged.append({"value": reach.value, **one, "unsteady": unsteady})
    return {
        "name": row.name,
        "text": row.text,
        "units": dict(row.units),
        "found": found,
        "spread": spreads,
        "runs": list(runs),
        "targets": judged,
    }
