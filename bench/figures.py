"""From repetitions to medians, ratios and verdicts. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.row import Row

SPREAD_LIMIT = 0.2  # a reference that spreads more says that the machine had other things to do
MEMORY_FIXED_BYTES, MEMORY_INODE_BYTES = 60_000_000, 400


def spread(values: Sequence[float]) -> float:
    """The distance between the quartiles, as a part of the median."""
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / middle if middle else 0.0


def figures(row: Row, found: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The median of each column, the mirror's ratio to each of the others, and whether it is within what is asked."""
    medians = {column: statistics.median(values) for column, values in found.items()}
    out: dict[str, Any] = {"name": row.name, "text": row.text, "unit": row.unit, "lower_is_better": row.lower_is_better, **medians}
    out["inputs"] = list(row.inputs)
    out["spread"] = {column: spread(values) for column, values in found.items()}
    if "floor" in found:
        out["floor_spread"] = out["spread"]["floor"]
        out["floor_is_steady"] = out["floor_spread"] <= SPREAD_LIMIT
    for column, value in medians.items():
        if column != "mirror" and column not in row.inputs and value:
            out[f"mirror_to_{column}"] = medians["mirror"] / value
    out["targets"] = verdicts(row, medians, out["spread"])
    return out


def verdicts(row: Row, medians: Mapping[str, float], spreads: Mapping[str, float]) -> list[dict[str, Any]]:
    """On each target whose columns were measured."""
    found = []
    for target in row.targets:
        if all(column in medians for column in target.needs):
            judged = verdict(target.text, target.limit(medians), medians["mirror"], lower_is_better=row.lower_is_better)
            found.append({**judged, "unsteady": [column for column in target.needs if spreads[column] > SPREAD_LIMIT]})
    return found


def verdict(text: str, limit: float, value: float, *, lower_is_better: bool) -> dict[str, Any]:
    """What is asked, and what is."""
    met = value <= limit if lower_is_better else value >= limit
    return {"text": ("≤ " if lower_is_better else "≥ ") + text, "limit": limit, "value_to_limit": value / limit, "met": met}


def memory_figures(inodes: int, idle_bytes: int, known_bytes: int, descriptors: int, descriptors_max: int) -> dict[str, Any]:
    """What the primary's rfsmount takes to know so many inodes."""
    limit = MEMORY_FIXED_BYTES + MEMORY_INODE_BYTES * inodes
    return {
        "inodes": inodes,
        "idle_rss_bytes": idle_bytes,
        "rss_bytes": known_bytes,
        "bytes_per_inode": (known_bytes - idle_bytes) / inodes,
        "descriptors": descriptors,
        "descriptors_max": descriptors_max,
        "target": verdict("60 MB + 400 B per inode", limit, known_bytes, lower_is_better=True),
    }


def speed(row: Mapping[str, Any], column: str, than: str = "native") -> float | None:
    """How fast a column is, as a multiple of another one; more is better whatever the unit."""
    if not row.get(column) or not row.get(than):
        return None
    return float(row[than] / row[column] if row["lower_is_better"] else row[column] / row[than])
