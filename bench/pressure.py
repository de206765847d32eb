"""bench/run --false-failovers: both nodes under all the load there is, with default settings, and nothing that is broken.

For some minutes both nodes' processors, memory and disks are fully used: stress-ng beside the mount, dd with fsync through the mount and
past it, and a client that writes to a ledger behind the address. Counted in the histories of both nodes is everything that only a failure
would justify: takeovers, grants, fences, roles that change, primaries that go on alone. There must be none. The two nodes of the lab share
one machine, so each gets the half of it, and the disk below both is one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.words import machine, say
from orchestrator.lab.cluster import SERVERS, VIP, LabCluster, ledger_module
from orchestrator.lab.lab import Lab, kill_group

DIRECTORY, PORT = "/srv/ha", 7000
MODULE = ledger_module(DIRECTORY, PORT, "1000 per 24h")
BESIDE = "/var/lib/lockstep/pressure"  # on the node's disk, and not mirrored
MINUTES = 10.0
CALM_S = 5.0
PAUSE_S = 10.0
DECISIONS = ("takeover", "grant", "fence", "failback", "rfs-gone", "service-died", "address-lost", "role-lost", "serving")
PROCESSORS = ["--cpu", "2", "--matrix", "1", "--switch", "1"]
DISKS = ["--hdd", "2", "--hdd-bytes", "128M", "--hdd-opts", "fsync", "--iomix", "1"]
MEMORY = ["--vm", "2", "--vm-bytes", "1G", "--vm-keep"]
STRESS = ["stress-ng", "--oomable", "--temp-path", BESIDE, *PROCESSORS, *DISKS, *MEMORY]
LARGE, SMALL = 'of="$0/block" bs=1M count=64 conv=fsync', 'of="$0/small" bs=4k count=200 oflag=dsync'
WRITE = f"while :; do dd if=/dev/zero {LARGE}; dd if=/dev/zero {SMALL}; done"


class Pressure:
    """The pair, its client, and the load."""

    def __init__(self, lab: Lab, scratch: Path) -> None:
        self.cluster = LabCluster(lab, "ha", MODULE, [DIRECTORY], name="bench")
        self.lab, self.out = lab, scratch / "acknowledged"
        self.load: list[subprocess.Popen[bytes]] = []

    def set_up(self) -> None:
        """Redundant, with a client that writes."""
        self.lab.up()
        self.cluster.configure()
        self.cluster.bring_up()
        for node in SERVERS:
            self.lab.run(node, ["mkdir", "-p", BESIDE])
        words = [sys.executable, "-m", "orchestrator.lab.ledger", "write", VIP, str(PORT), str(self.out)]
        self.client = self.lab.spawn("client", words)
        time.sleep(CALM_S)

    def begin(self) -> None:
        """All of the load."""
        for node in SERVERS:
            self.load.append(self.lab.spawn(node, STRESS))
            self.load.append(self.lab.spawn(node, ["sh", "-c", WRITE, BESIDE]))
        self.load.append(self.lab.spawn("node1", ["sh", "-c", WRITE, DIRECTORY]))

    def end(self) -> None:
        """The load's, not the pair's."""
        for process in self.load:
            kill_group(process)
        self.load = []

    def newest(self) -> dict[str, int]:
        """The number of each node's newest line."""
        return {node: max((line["number"] for line in self.cluster.events(node)), default=0) for node in SERVERS}

    def acknowledged(self) -> list[float]:
        """When the client was told that a line is safe."""
        return [float(line.split()[1]) for line in self.out.read_text().splitlines()] if self.out.exists() else []


def run(lab: Lab, minutes: float = MINUTES) -> dict[str, Any]:
    """Everything; afterwards the pair must be as it was."""
    say(f"{minutes:g} minutes of full load on both nodes")
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-", dir="/var/tmp") as scratch:
        pressure = Pressure(lab, Path(scratch))
        try:
            pressure.set_up()
            before, began = pressure.newest(), time.monotonic()
            pressure.begin()
            busy_before = busy_s()
            while (left_s := began + minutes * 60 - time.monotonic()) > 0:
                time.sleep(min(PAUSE_S, left_s))
            took_s, busy = time.monotonic() - began, busy_s() - busy_before
            pressure.end()
            pressure.cluster.wait_redundant("node1", timeout_s=120)
            lines = [{**line, "node": node} for node in SERVERS for line in pressure.cluster.events(node, before[node])]
            times = [at for at in pressure.acknowledged() if began <= at <= began + took_s]
        finally:
            pressure.end()
            lab.down()
    found = {"name": "false_failovers", "text": "full load on both nodes", "machine": machine(), "seconds": round(took_s, 1)}
    return {**found, "busy": round(busy / took_s, 3), **judged(lines), **silence(times)}


def busy_s() -> float:
    """Processor time that the whole machine has spent, of one processor."""
    numbers = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(numbers[:8]) - numbers[3] - numbers[4]) / 100


def silence(times: list[float]) -> dict[str, Any]:
    """For how long the client waited at worst, and how many lines it wrote. Pure."""
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    return {"acknowledged": len(times), "longest_wait_s": round(max(gaps, default=0.0), 3)}


def judged(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """How often something happened that must not, and how often a daemon stood still. Pure."""
    counts = dict.fromkeys(("takeovers", "grants", "fences", "role_changes", "alone"), 0)
    words = {"takeover": "takeovers", "grant": "grants", "fence": "fences"}
    kept, stood_still = list[str](), 0
    for line in lines:
        kind, text = line["kind"], line["text"]
        stood_still += kind == "paused"
        states = [word.partition("=")[2] for word in text.split() if word.startswith(("from=", "to="))]
        if kind in words:
            counts[words[kind]] += 1
        elif kind == "transition" and len(set(states)) > 1:
            counts["role_changes"] += 1
            counts["alone"] += states[-1] == "ALONE"
        elif kind not in DECISIONS and kind != "paused":
            continue
        if len(kept) < 50 and (kind != "transition" or len(set(states)) > 1):
            kept.append(f"{line.get('time', '')} {line.get('node', '')} {kind} {text}")
    return {**counts, "stood_still": stood_still, "met": not any(counts.values()), "lines": kept}


def line_of(result: Mapping[str, Any]) -> str:
    """For the table. Pure."""
    events = sum(result[name] for name in ("takeovers", "grants", "fences", "role_changes"))
    verdict = "met" if result["met"] else "MISSED"
    return (
        f"{result['text']}, {result['seconds'] / 60:.0f} min: {events} false failovers or role changes (asked 0)  {verdict}; "
        f"processors {result['busy']:.2f} busy, a client waited {result['longest_wait_s']:.2f} s at most"
    )
