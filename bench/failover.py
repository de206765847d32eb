"""bench/run --failover: for how long nobody answers at the service address. Kept as results/failover.json.

A client writes a line to a small ledger behind the address, over a new connection each time; a line is answered when it is on both nodes'
disks. A figure is the longest time between two answers around an event, so it holds all of it: that the event is noticed, the decision, the
address, the start of the service, the first durable write. Two rows are of 32 modules (many.py).
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import many, pressure
from bench.words import machine, say
from orchestrator.lab.cluster import SERVERS, VIP, LabCluster, ledger_module
from orchestrator.lab.lab import Lab, kill_group

FILE, SCHEMA = "failover.json", "lockstep.bench.failover/2"
PROBER = Path(__file__).resolve().parent / "prober.py"
DIRECTORY, PORT, STATE = "/srv/ha", 7000, "/var/lib/lockstep/modules/ha"
SETTLE_S = 2.0  # both nodes must trust each other again before the next event
MODULE = ledger_module(DIRECTORY, PORT, "1000 per 24h")
USUAL, TUNED = 'interval = "500ms", timeout = "3s"', 'interval = "100ms", timeout = "1s"'


@dataclass(frozen=True)
class FailoverRow:
    """An event, and within which time somebody answers again; the worst of `rounds` counts."""

    name: str
    text: str
    event: Callable[[Stage, str], str]  # of the node that serves; returns the one that serves afterwards
    limit_s: float
    rounds: int
    heartbeat: str = USUAL
    by_history: bool = False  # measured from the old service's stop to the new one's start; the client's view stands beside it


class Stage:
    """A pair, its ledger and its client."""

    def __init__(self, lab: Lab, scratch: Path, heartbeat: str) -> None:
        self.cluster = LabCluster(lab, "ha", MODULE, [DIRECTORY], name="bench", heartbeat=heartbeat)
        self.lab, self.out = lab, scratch / f"answers-{time.monotonic_ns()}"
        lab.up()
        self.cluster.configure()
        self.cluster.bring_up()
        self.primary = "node1"
        self.prober = lab.spawn("client", [sys.executable, str(PROBER), VIP, str(PORT), str(self.out)])
        self.cluster.until(lambda: bool(self.answers()), "nobody answers", 20)

    def answers(self) -> list[float]:
        """When."""
        return [float(line) for line in self.out.read_text().split()] if self.out.exists() else []

    def silence_s(self, event: Callable[[Stage, str], str]) -> float:
        """Of one event; afterwards all is well again."""
        time.sleep(SETTLE_S)
        began = time.monotonic()
        after = event(self, self.primary)
        self.cluster.until(lambda: self.answers()[-1] > began + 1.0, "nobody answers", 60)
        time.sleep(1.0)
        silence = self.longest(began)
        for row in self.lab.status()["nodes"]:
            if row["node"] in SERVERS and row["power"] == "off":
                self.cluster.boot(row["node"])
        self.primary = after
        self.cluster.wait_redundant(after)
        return silence

    def longest(self, began: float) -> float:
        """Between two answers, from the last one before the event on."""
        times = self.answers()
        first = max((index for index, at in enumerate(times) if at <= began), default=0)
        return max((after - before for before, after in zip(times[first:], times[first + 1 :], strict=False)), default=0.0)

    def moved_s(self, began: float, source: str) -> float:
        """From the old service's stop to the new one's start, as both histories have it (on one machine their clocks are one)."""
        lines = {node: [line for line in self.cluster.events(node) if line["monotonic_s"] > began] for node in SERVERS}
        stopped = next(line["monotonic_s"] for line in lines[source] if line["kind"] == "service-stop")
        started = next(line["monotonic_s"] for line in lines[LabCluster.other(source)] if line["kind"] == "service-start")
        return float(started - stopped)

    def close(self) -> None:
        """The client's end."""
        kill_group(self.prober)
        self.lab.down()


def node_dies(stage: Stage, primary: str) -> str:
    """All its processes at once, and its network."""
    stage.lab.kill(primary)
    stage.cluster.wait_state(LabCluster.other(primary), "ALONE", timeout_s=60)
    return LabCluster.other(primary)


def rfsmount_dies(stage: Stage, primary: str) -> str:
    """kill -9; the other node takes over."""
    stage.lab.run(primary, ["sh", "-c", f"kill -9 $(cat {STATE}/rfsmount.pid)"])
    stage.cluster.wait_redundant(LabCluster.other(primary))
    return LabCluster.other(primary)


def service_dies(stage: Stage, primary: str) -> str:
    """kill -9; it is started again where it was."""
    stage.lab.run(primary, ["pkill", "-9", "-f", "orchestrator.lab.ledger serve"])
    return primary


def swapped(stage: Stage, primary: str) -> str:
    """A planned move."""
    stage.cluster.command(primary, "swap")
    stage.cluster.wait_redundant(LabCluster.other(primary))
    return LabCluster.other(primary)


ROWS = (
    FailoverRow("node", "node killed, default settings", node_dies, 4.0, 20),
    FailoverRow("rfsmount", "rfsmount killed", rfsmount_dies, 1.2, 5),
    FailoverRow("service", "service killed", service_dies, 1.2, 5),
    FailoverRow("swap", "planned swap, stop to start", swapped, 0.3, 10, by_history=True),
    FailoverRow("node_tuned", "node killed, heartbeat 100 ms and 1 s", node_dies, 1.5, 10, TUNED),
)
MANY = ("idle", "many")
NAMES = [*(row.name for row in ROWS), *MANY]


def run(lab: Lab, names: list[str], divisor: int) -> dict[str, Any]:
    """Every row that is asked for; those of one configuration on one pair."""
    results: dict[str, Any] = {"schema": SCHEMA, "machine": machine(), "rows": []}
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-", dir="/var/tmp") as scratch:
        for heartbeat in (USUAL, TUNED):
            rows = [row for row in ROWS if row.heartbeat == heartbeat and row.name in names]
            if not rows:
                continue
            stage = Stage(lab, Path(scratch), heartbeat)
            try:
                results["rows"] += [measure(stage, row, max(1, row.rounds // divisor)) for row in rows]
            finally:
                stage.close()
        if wanted := [name for name in MANY if name in names]:
            results["many"] = many.run(lab, wanted, Path(scratch))
    return results


def measure(stage: Stage, row: FailoverRow, rounds: int) -> dict[str, Any]:
    """All rounds of one row."""
    say(row.text)
    silences, moves = [], []
    for _ in range(rounds):
        began, source = time.monotonic(), stage.primary
        silences.append(round(stage.silence_s(row.event), 3))
        if row.by_history:
            moves.append(round(stage.moved_s(began, source), 3))
        say(f"  nobody answered for {silences[-1]:.2f} s" + (f", {moves[-1]:.3f} s from stop to start" if moves else ""))
    more = {"silence_s": silences} if row.by_history else {}
    return {"name": row.name, "text": row.text, "limit_s": row.limit_s, **judged(moves or silences, row.limit_s), **more}


def judged(runs: list[float], limit_s: float) -> dict[str, Any]:
    """The worst counts. Pure."""
    return {"runs_s": runs, "median_s": statistics.median(runs), "worst_s": max(runs), "met": max(runs) <= limit_s}


def keep(results: Mapping[str, Any], directory: Path) -> None:
    """For later runs to be compared with. What this run did not measure stays as it was measured before."""
    directory.mkdir(exist_ok=True)
    kept = json.loads((directory / FILE).read_text()) if (directory / FILE).exists() else {}
    (directory / FILE).write_text(json.dumps(merged(kept, results), indent=2) + "\n")


def merged(kept: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """New rows in the place of old ones of the same name. Pure."""
    both = {**kept, **results}
    for section in ("rows", "many"):
        new = {row["name"]: row for row in results.get(section, ())}
        old = {row["name"]: row for row in kept.get(section, ())}
        if new or old:
            both[section] = list({**old, **new}.values())
    return both


def table(results: Mapping[str, Any]) -> str:
    """A line for each row. Pure."""
    lines = []
    if results.get("rows"):
        lines.append(f"{'nobody answers for':40} {'median':>8} {'worst':>8} {'asked':>8}")
    for row in results.get("rows", ()):
        verdict = "met" if row["met"] else "MISSED"
        text = f"{row['text']} ({len(row['runs_s'])} times)"
        lines.append(f"{text:40} {row['median_s']:6.2f} s {row['worst_s']:6.2f} s {row['limit_s']:6.2f} s  {verdict}")
    lines += [many.line_of(row) for row in results.get("many", ())]
    if "false_failovers" in results:
        lines.append(pressure.line_of(results["false_failovers"]))
    return "\n".join(lines)
