"""bench/run --resync: what the return of a node costs. Kept as results/resync.json, with a picture."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import floor, resync_plot
from bench.bed import Bed
from bench.resync_row import ResyncRow, figures
from bench.resync_rows import ROWS
from bench.stage import Stage
from bench.table import number
from bench.words import machine, say
from orchestrator.lab.errors import LabError
from rfs.errors import SaidNo

NAMES = [row.name for row in ROWS]
FILE = "resync.json"


def measure(stage: Stage, row: ResyncRow) -> dict[str, Any]:
    """All repetitions of one row."""
    began = time.monotonic()
    runs = []
    scale = stage.bed.scale
    for _ in range(scale.resync_heavy_repetitions if row.heavy else scale.resync_repetitions):
        runs.append(row.measure(stage))
        say(f"  {', '.join(f'{name} {number(runs[-1][name])} {unit}' for name, unit in row.units.items())}")
    return {**figures(row, runs), "took_s": round(time.monotonic() - began, 1)}


def run(bed: Bed, names: Sequence[str]) -> dict[str, Any]:
    """Everything, in order."""
    bed.set_up()
    floor.start(bed)
    stage = Stage(bed, say)
    results: dict[str, Any] = {"schema": "lockstep.bench.resync/1", "machine": machine(), "scale": asdict(bed.scale), "rows": []}
    for row in ROWS:
        if row.name in names:
            say(row.text)
            try:
                results["rows"].append(measure(stage, row))
            except (LabError, SaidNo, OSError) as failure:  # the others are still worth an hour
                say(f"  failed: {failure}")
                results["rows"].append({"name": row.name, "text": row.text, "failed": str(failure)})
    return results


def keep(results: Mapping[str, Any], directory: Path) -> None:
    """For later runs to be compared with."""
    directory.mkdir(exist_ok=True)
    (directory / FILE).write_text(json.dumps(results, indent=2) + "\n")
    for path in resync_plot.draw(results, directory):
        say(f"drew {path.name}")


def table(results: Mapping[str, Any]) -> str:
    """A line for what was found, one for each thing asked. Pure."""
    lines = []
    for row in results["rows"]:
        if "failed" in row:
            lines.append(f"{row['text']:40} FAILED: {row['failed']}")
            continue
        found = ", ".join(f"{name} {number(row['found'][name])} {unit}" for name, unit in row["units"].items())
        lines.append(f"{row['text']:40} {found}")
        for target in row["targets"]:
            mark = "not judged, unsteady" if target["unsteady"] else "met" if target["met"] else "MISSED"
            lines.append(
                f"    {target['value']:36} {target['text']} = {number(target['limit'])}: {mark} ({target['value_to_limit']:.2f} of it)"
            )
    return "\n".join(lines)


if __name__ == "__main__":  # the picture again, from the figures that are kept
    kept = Path(__file__).resolve().parent / "results"
    resync_plot.draw(json.loads((kept / FILE).read_text()), kept)
