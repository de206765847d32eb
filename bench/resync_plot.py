"""The picture of a resync: everything that is asked, and how much of it is used up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.plot import DOTS_PER_INCH, GREY, ROW_INCHES, short, verdict_colour

FILE = "resync.png"


def asked(results: Mapping[str, Any]) -> Iterator[tuple[str, str, float, str]]:
    """A line for each: its text, the value with what is asked, the part that is used up (above 1: missed), the colour. Pure."""
    for row in results["rows"]:
        for target in row.get("targets", ()):
            unit, value = row["units"][target["value"]], row["found"][target["value"]]
            at_least = target["text"].startswith("≥")
            part = 1 / target["value_to_limit"] if at_least else target["value_to_limit"]
            name = row["text"] if target["value"] == "seconds" else f"{row['text']}: {target['value']}"
            yield name, f"{short(value)} {unit}   ({target['text']})", part, verdict_colour(target)


def draw(results: Mapping[str, Any], directory: Path) -> list[Path]:
    """What was drawn: nothing where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = list(asked(results))
    figure = pyplot.figure(figsize=(12, len(lines) * ROW_INCHES + 1.4), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.axvline(1, color=GREY, linewidth=2, zorder=1)
    for at, (_, _, part, colour) in enumerate(lines):
        axes.barh(at, part, left=0, height=0.55, color=colour, zorder=2)
    axes.set_xlim(min(*(part for _, _, part, _ in lines), 0.5) / 2, max(*(part for _, _, part, _ in lines), 1) * 1.5)
    axes.set_yticks(range(len(lines)), [name for name, _, _, _ in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlabel(
        "how much is used of what is allowed = 1   (logarithmic; left is better; green: met, red: missed, grey: too noisy to judge)"
    )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} ×")
    axes.grid(axis="x", color="#eeeeee", zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(lines)), [words for _, words, _, _ in lines])
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    place = results["machine"]
    where = f"Two nodes in namespaces of one machine with {place['processors']} processors and one disk, {place['began']}."
    figure.supxlabel(f"{where} Ratios carry, absolutes do not.", fontsize=8.5, color="#555555")
    path = directory / FILE
    figure.savefig(path)
    pyplot.close(figure)
    return [path]
