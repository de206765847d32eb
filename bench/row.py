"""One line of the table: what is done in each subject's directory, and what is asked of the mirror."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.bed import Bed
from bench.scale import Effort
from bench.subject import Subject

Measure = Callable[[Bed, Subject], float]
Extra = Callable[[Bed], float]


@dataclass(frozen=True)
class Target:
    """A limit for the mirror, from the other columns of the same run."""

    text: str
    limit: Callable[[Mapping[str, float]], float]
    needs: tuple[str, ...]


def times(factor: float, column: str, title: str = "") -> Target:
    """As a multiple of one other column."""
    return Target(f"{factor:g} × {title or column}", lambda found: factor * found[column], (column,))


@dataclass(frozen=True)
class Row:
    """A workload, its unit, and how it compares: lower is better for latencies."""

    name: str
    text: str
    unit: str
    lower_is_better: bool
    measure: Measure
    extras: Mapping[str, Extra] = field(default_factory=dict)  # columns that are no subject: the floor
    inputs: Mapping[str, Extra] = field(default_factory=dict)  # what only the target is made of; not to be compared with
    without: tuple[str, ...] = ("pg_sync",)  # subjects that cannot do it
    effort: Effort = "light"
    targets: tuple[Target, ...] = ()
