"""bench/run [--json] [--quick] [--peers] [--resync] [--failover] [--false-failovers [--minutes N]] [--cli] [--only ROW[,ROW]]

Measures on the lab named "bench", prints a table and keeps it as results/latest.json, with pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bench import cli, failover, floor, memory, plot, postgres, pressure, resync
from bench.bed import DISK_SIZE_BYTES, Bed
from bench.figures import figures
from bench.gluster import Gluster
from bench.mirror import Mirror
from bench.row import Row
from bench.rows import ROWS
from bench.scale import FULL, QUICK
from bench.subject import NATIVE, Subject
from bench.table import table
from bench.words import machine, say
from orchestrator.lab.lab import Lab, prefixed

RESULTS = Path(__file__).resolve().parent / "results"
MEMORY = "memory"


def measure(bed: Bed, row: Row, subjects: Sequence[Subject]) -> dict[str, Any]:
    """Interleaved repetitions: what disturbs the machine for a while disturbs all columns."""
    columns: dict[str, Callable[[], float]] = {
        subject.column: partial(row.measure, bed, subject) for subject in subjects if subject.column not in row.without
    }
    columns |= {column: partial(extra, bed) for column, extra in {**row.extras, **row.inputs}.items()}
    values: dict[str, list[float]] = {column: [] for column in columns}
    took_s = dict.fromkeys(columns, 0.0)
    os.sync()  # the pages that the row before has left are not to be written in this one's time
    for _ in range(bed.scale.repetitions_of(row.effort)):
        for column, once in columns.items():
            began = time.monotonic()
            values[column].append(once())
            took_s[column] += time.monotonic() - began
    return {**figures(row, values), "took_s": {column: round(seconds, 1) for column, seconds in took_s.items()}}


def run(bed: Bed, rows: Sequence[Row], *, peers: bool, with_memory: bool) -> dict[str, Any]:
    """Everything, in order."""
    bed.set_up()
    mirrors = [Mirror(bed, "mirror", 5600, secure=True), Mirror(bed, "plain", 5601, secure=False)]
    results: dict[str, Any] = {"schema": "lockstep.bench/1", "machine": machine(), "scale": asdict(bed.scale)}
    results["pairing_s"] = mirrors[0].pair()
    for mirror in mirrors:
        mirror.mount()
    results["idle_rss_bytes"] = bed.resident_bytes(mirrors[0].processes()[0])
    floor.start(bed)
    subjects = [NATIVE, *(mirror.subject for mirror in mirrors)]
    if peers:
        say("GlusterFS")
        subjects += [*Gluster(bed).set_up(), postgres.SYNC]
    results["rows"] = []
    for row in rows:
        say(row.text)
        results["rows"].append(measure(bed, row, subjects))
    results["rss_bytes_after"] = bed.resident_bytes(mirrors[0].processes()[0])
    if with_memory:
        say(f"memory of {bed.scale.inodes:,} known inodes")
        results[MEMORY] = memory.measure(bed, results["idle_rss_bytes"])
    return results


def keep(results: dict[str, Any]) -> None:
    """For later runs to be compared with."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(results, indent=2) + "\n")
    for path in plot.draw(results, RESULTS):
        say(f"drew {path.relative_to(Path.cwd())}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; `only` becomes a set of names, all when it is not given."""
    names = [row.name for row in ROWS] + [MEMORY]
    with_resync = f"{', '.join(names)}; with --resync of {', '.join(resync.NAMES)}; with --failover of {', '.join(failover.NAMES)}"
    parser = argparse.ArgumentParser(prog="bench/run", description="Native directory, mirror, floor and peers, side by side.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and files")
    parser.add_argument("--peers", action="store_true", help="also GlusterFS and PostgreSQL's own replication")
    parser.add_argument("--resync", action="store_true", help="instead: what the return of a node costs")
    parser.add_argument("--failover", action="store_true", help="instead: for how long nobody answers when something dies or moves")
    parser.add_argument("--false-failovers", action="store_true", help="instead: both nodes under full load; nothing may move")
    parser.add_argument("--cli", action="store_true", help="instead: how long a command takes to start; needs no lab and no root")
    parser.add_argument("--minutes", type=float, default=pressure.MINUTES, help="of --false-failovers; default: %(default)g")
    parser.add_argument("--keep", action="store_true", help="with --failover --only: keep these rows beside those of other runs")
    parser.add_argument("--only", metavar="ROW[,ROW]", default="", help=f"of {with_resync}; results are printed, not kept")
    options = parser.parse_args(arguments)
    names = resync.NAMES if options.resync else failover.NAMES if options.failover else names
    options.rows = [name for name in options.only.split(",") if name] or names
    if unknown := [name for name in options.rows if name not in names]:
        parser.error(f"there is no row {unknown[0]}; there are {', '.join(names)}")
    return options


def main(arguments: Sequence[str]) -> int:
    """Measure, print, keep."""
    options = parse(arguments)
    if options.cli:
        found = cli.run(cli.QUICK_RUNS if options.quick else cli.RUNS)
        cli.keep(found, RESULTS)
        print(json.dumps(found, indent=2) if options.json else cli.table(found))
        return 0
    lab = Lab(prefixed("bench"), disk_size_bytes=DISK_SIZE_BYTES)
    try:
        bed = Bed(lab, QUICK if options.quick else FULL)
        if options.false_failovers:
            found = pressure.run(lab, options.minutes)
            results = {"schema": failover.SCHEMA, "false_failovers": found}
        elif options.failover:
            results = failover.run(lab, options.rows, 5 if options.quick else 1)
        elif options.resync:
            results = resync.run(bed, options.rows)
        else:
            rows = [row for row in ROWS if row.name in options.rows]
            results = run(bed, rows, peers=options.peers, with_memory=MEMORY in options.rows)
    finally:
        lab.down()
    of_failover = options.failover or options.false_failovers
    if not options.only or (options.keep and of_failover):
        kept = resync.keep if options.resync else failover.keep if of_failover else lambda found, _: keep(found)
        kept(results, RESULTS)
    shown = resync.table if options.resync else failover.table if of_failover else table
    print(json.dumps(results, indent=2) if options.json else shown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
