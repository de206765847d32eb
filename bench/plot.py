"""The picture: how fast each column is beside the native directory, and what the mirror is asked for; below it the processor's price."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import speed
from bench.table import number

FILE = "latest.png"
ROW_INCHES, DOTS_PER_INCH = 0.42, 140
GREY, RED, GREEN = "#8a8a8a", "#c1121f", "#2b8a3e"


@dataclass(frozen=True)
class Look:
    """How a column is drawn; hollow is what promises less than its filled namesake."""

    title: str
    marker: str
    colour: str
    hollow: bool = False
    size: float = 8


LOOKS = {
    "floor": Look("floor: bare TCP, one write at a time", "D", "#222222", size=6.5),
    "gluster": Look("GlusterFS, write-behind off", "s", "#d55e00"),
    "gluster_default": Look("GlusterFS default (writes answered early)", "s", "#d55e00", hollow=True),
    "pg_sync": Look("PostgreSQL's synchronous replication", "^", "#009e73", size=9),
    "plain": Look("mirror, no TLS", "o", "#0072b2", hollow=True, size=8),
    "mirror": Look("mirror", "o", "#0072b2", size=11),
}


def limit_speed(row: Mapping[str, Any], target: Mapping[str, Any]) -> float | None:
    """Where the target lies, as a multiple of native."""
    return speed({**row, "limit": target["limit"]}, "limit")


def short(value: float) -> str:
    """At most four digits."""
    if value >= 1e6:
        return f"{value / 1e6:.1f} M"
    return f"{value / 1e3:.1f} k" if value >= 1e4 else number(value)


def words(row: Mapping[str, Any]) -> str:
    """The absolutes, which a ratio hides."""
    unit = row["unit"] if row["unit"].startswith("/") else f" {row['unit']}"
    return f"{short(row['mirror'])}{unit}   ({short(row['native'])})"


def source(results: Mapping[str, Any]) -> str:
    """Where the figures are from."""
    place, scale = results.get("machine", {}), results.get("scale", {})
    if not place or not scale:
        return ""
    return (
        f"Two nodes in namespaces of one machine with {place['processors']} processors and one disk, {place['began']}; "
        f"medians of up to {scale['repetitions']} interleaved repetitions. Ratios carry, absolutes do not."
    )


def draw(results: Mapping[str, Any], directory: Path) -> list[Path]:
    """What was drawn: nothing where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    from matplotlib import pyplot

    beside = [row for row in results["rows"] if "native" in row]
    priced = [row for row in results["rows"] if row["unit"] == "s/GiB"]
    heights = [len(beside) * ROW_INCHES + 1.5, (len(priced) * ROW_INCHES * 2 + 0.8) if priced else 0]
    figure = pyplot.figure(figsize=(12, sum(heights) + 0.6), dpi=DOTS_PER_INCH, layout="constrained")
    areas = figure.subplots(2 if priced else 1, 1, height_ratios=heights[: 2 if priced else 1], squeeze=False)[:, 0]
    draw_speeds(areas[0], beside)
    if priced:
        draw_prices(areas[1], priced)
    figure.get_layout_engine().set(h_pad=0.12)
    figure.supxlabel(source(results), fontsize=8.5, color="#555555")
    path = directory / FILE
    figure.savefig(path)
    pyplot.close(figure)
    return [path]


def verdict_colour(target: Mapping[str, Any]) -> str:
    """Grey where what it is measured by was too unsteady to judge."""
    if target.get("unsteady"):
        return GREY
    return GREEN if target["met"] else RED


def draw_speeds(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """A line for each row, a mark for each column; right is fast."""
    axes.set_xscale("log")
    axes.axvline(1, color=GREY, linewidth=2, zorder=1)
    for at, row in enumerate(rows):
        inputs = row.get("inputs", ())
        shown = {column: value for column in LOOKS if column not in inputs and (value := speed(row, column)) is not None}
        axes.hlines(at, min(shown.values()), max(*shown.values(), 1), color="#d5d5d5", linewidth=1.5, zorder=1)
        for column, value in shown.items():
            _mark(axes, value, at, LOOKS[column])
        for target in row["targets"]:
            if (limit := limit_speed(row, target)) is not None:
                _limit(axes, limit, at, verdict_colour(target))
    axes.set_yticks(range(len(rows)), [row["text"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("as fast as the native directory = 1   (logarithmic; right is faster)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} ×")
    _dress(axes)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(rows)), [words(row) for row in rows])
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    axes.annotate("mirror   (native)", (1, -0.75), (4, 0), ("axes fraction", "data"), "offset points", weight="bold", annotation_clip=False)
    _legend(axes, rows)


def _limit(axes: Any, limit: float, at: float, colour: str) -> None:
    axes.plot([limit, limit], [at - 0.36, at + 0.36], color=colour, linewidth=2.5, solid_capstyle="butt", zorder=5)
    axes.annotate("", (limit * 1.28, at - 0.36), (limit * 0.98, at - 0.36), arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.5})


def _mark(axes: Any, value: float, at: float, look: Look) -> None:
    fill = "white" if look.hollow else look.colour
    order = 4 if look.title == "mirror" else 3
    axes.plot(
        value, at, look.marker, color=look.colour, markerfacecolor=fill, markersize=look.size, markeredgewidth=1.6, zorder=order, alpha=0.95
    )


def _legend(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=GREY, linewidth=2, label="native directory, one node")]
    for column, look in reversed(LOOKS.items()):
        if any(column in row for row in rows):
            fill = "white" if look.hollow else look.colour
            handles.append(
                Line2D(
                    [],
                    [],
                    linestyle="",
                    marker=look.marker,
                    color=look.colour,
                    markerfacecolor=fill,
                    markersize=look.size,
                    label=look.title,
                )
            )
    for colour, verdict in ((GREEN, "met"), (RED, "missed"), (GREY, "too noisy to judge")):
        handles.append(Line2D([], [], color=colour, linewidth=2.5, label=f"asked: {verdict}"))
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.03), ncols=4, frameon=False, fontsize=9)


def draw_prices(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Bars; short is cheap."""
    columns = [column for column in ("mirror", "plain", "gluster", "gluster_default") if any(column in row for row in rows)]
    height = 0.8 / len(columns)
    for at, row in enumerate(rows):
        for index, column in enumerate(columns):
            if column not in row:
                continue
            look, place = LOOKS[column], at - 0.4 + height * (index + 0.5)
            axes.barh(
                place, row[column], height * 0.85, color="white" if look.hollow else look.colour, edgecolor=look.colour, linewidth=1.4
            )
            axes.annotate(number(row[column]), (row[column], place), (4, 0), textcoords="offset points", va="center", fontsize=8.5)
    axes.set_yticks(range(len(rows)), [row["text"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("processor seconds for each GiB written, all processes on both nodes   (left is cheaper)")
    _dress(axes)


def _dress(axes: Any) -> None:
    axes.grid(axis="x", color="#eeeeee", zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)


if __name__ == "__main__":  # again from the figures that are kept
    kept = Path(__file__).resolve().parent / "results"
    draw(json.loads((kept / "latest.json").read_text()), kept)
