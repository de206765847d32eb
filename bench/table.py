"""The table for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.figures import SPREAD_LIMIT

TITLES = {
    "native": "native", "native_two": "2 writers", "mirror": "mirror", "plain": "no TLS", "floor": "floor",
    "gluster": "gluster", "gluster_default": "gl.default", "pg_sync": "pg sync",
}  # fmt: skip
RATIOS = ("native", "floor", "plain", "gluster", "gluster_default", "pg_sync")
REFERENCES = ("native", "native_two", "floor")  # which are simple enough to be steady on a quiet machine
WIDTH, TEXT_WIDTH = 11, 30


def number(value: float | None) -> str:
    """Three significant digits at least, and no false ones."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [column for column in TITLES if any(column in row for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return f"{cells[0]:{TEXT_WIDTH}} {cells[1]:6}" + "".join(f"{cell:>{WIDTH}}" for cell in cells[2:])


def _ratio_title(column: str) -> str:
    return f"/{TITLES[column]}"


def verdict_words(target: Mapping[str, Any]) -> str:
    """What was asked, and whether it is so."""
    if unsteady := target.get("unsteady"):
        mark = f"{' and '.join(TITLES[column] for column in unsteady)} unsteady, not judged"
    else:
        mark = "met" if target["met"] else "MISSED"
    return f"{target['text']} = {number(target['limit'])}: {mark} ({target['value_to_limit']:.2f} of it)"


def table(results: Mapping[str, Any]) -> str:
    """Absolutes, the mirror's ratios to them, then what was asked."""
    rows = results["rows"]
    columns = _columns(rows)
    ratios = [column for column in RATIOS if column in columns]
    lines = [_line(["", "unit", *(TITLES[column] for column in columns)])]
    lines += [_line([row["text"], row["unit"], *(number(row.get(column)) for column in columns)]) for row in rows]
    lines += ["", _line(["mirror as a multiple of", "", *(_ratio_title(column) for column in ratios)])]
    for row in rows:
        better = "less" if row["lower_is_better"] else "more"
        lines.append(_line([row["text"], better, *(number(row.get(f"mirror_to_{column}")) for column in ratios)]))
    asked = [(row["text"], verdict_words(target)) for row in rows for target in row["targets"]]
    if memory := results.get("memory"):
        asked.append((f"memory, {memory['inodes']:,} known inodes", _memory_words(memory)))
    if asked:
        lines += ["", "asked of the mirror", *(f"{text:{TEXT_WIDTH}} {words}" for text, words in asked)]
    return "\n".join([*lines, "", *_notes(results)])


def _memory_words(memory: Mapping[str, Any]) -> str:
    used, target = memory["rss_bytes"] / 1e6, memory["target"]
    return (
        f"{target['text']} = {target['limit'] / 1e6:.0f} MB: {'met' if target['met'] else 'MISSED'} with {used:.0f} MB, "
        f"{memory['bytes_per_inode']:.0f} B each; {memory['descriptors']} of {memory['descriptors_max']} descriptors"
    )


def _notes(results: Mapping[str, Any]) -> list[str]:
    lines = []
    for row in results["rows"]:
        unsteady = [column for column in REFERENCES if row.get("spread", {}).get(column, 0) > SPREAD_LIMIT]
        if unsteady:
            words = ", ".join(f"{TITLES[column]} by {row['spread'][column]:.0%}" for column in unsteady)
            lines.append(f"{row['text']}: spreads ({words}); compare it in a calmer hour")
    if "pairing_s" in results:
        lines.append(f"pairing of two fresh nodes, two commands: {results['pairing_s']:.1f} s")
    if "idle_rss_bytes" in results:
        idle, after = results["idle_rss_bytes"] / 1e6, results["rss_bytes_after"] / 1e6
        lines.append(f"rfsmount, idle: {idle:.0f} MB before the load, {after:.0f} MB after it")
    return lines
