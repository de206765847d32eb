"""The benchmark: native directory, our mirror (under TLS, as it is used, and without) and the floor, side by side in one run on the lab.

    bench/run [--json] [--quick]

Repetitions are interleaved and medians taken, because machines are noisy; ratios carry, absolutes do not. A row whose floor
spreads by more than 20 % says so. Results go to bench/results/latest.json too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.lab.lab import Lab

HERE = Path(__file__).resolve().parent
NATIVE, FLOOR_PORT = "/srv/native", 5700
BIN = Path("/usr/lib/postgresql/15/bin")
SPREAD_LIMIT = 0.2


@dataclass(frozen=True)
class Mirror:
    """One mirrored directory."""

    directory: str
    state: str
    port: int
    secure: bool


MIRRORS = {
    "mirror": Mirror("/srv/mirror", "/var/lib/lockstep/bench", 5600, secure=True),
    "plain": Mirror("/srv/plain", "/var/lib/lockstep/bench-plain", 5601, secure=False),
}


@dataclass(frozen=True)
class Row:
    """A workload, its unit, and how it compares: lower is better for latencies."""

    name: str
    text: str
    unit: str
    lower_is_better: bool
    floor_block_bytes: int = 0


ROWS = (
    Row("write_4k", "4 KiB write, p50", "µs", True, 4096),
    Row("write_1m", "1 MiB writes", "MB/s", False, 1 << 20),
    Row("write_fsync_4k", "4 KiB write + fsync, p50", "µs", True),
    Row("read_4k", "4 KiB read (cached), p50", "µs", True),
    Row("create_unlink", "create + close + unlink", "/s", False),
    Row("pgbench_1", "pgbench -c 1", "tps", False),
    Row("pgbench_4", "pgbench -c 4", "tps", False),
)


class Bench:
    """One lab, one pair of rfsmount."""

    def __init__(self, lab: Lab, repetitions: int, pgbench_s: int) -> None:
        self.lab, self.repetitions, self.pgbench_s = lab, repetitions, pgbench_s
        self.floor = HERE / "floor"

    # ---- set-up -------------------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Mirror a directory from node1 to node2."""
        subprocess.run(["gcc", "-O2", "-D_GNU_SOURCE", "-o", self.floor, HERE / "floor.c"], check=True)
        self.lab.up()
        for node in ("node1", "node2"):
            self.lab.run(node, ["mkdir", "-p", NATIVE, *(mirror.directory for mirror in MIRRORS.values())])
        self.pairing_s = self.pair(MIRRORS["mirror"].state)
        for mirror in MIRRORS.values():
            self.mount(mirror)
        self.lab.spawn("node2", [str(self.floor), "serve", str(FLOOR_PORT), "/srv/floor.dat", "1"])

    def mount(self, mirror: Mirror) -> None:
        """On both nodes, and in sync."""
        for node, role, mine, peer in (("node1", "primary", 11, 12), ("node2", "secondary", 12, 11)):
            command = ["rfsmount", "mount", mirror.directory, "--state", mirror.state, "--role", role]
            command += ["--listen", f"10.77.1.{mine}:{mirror.port}"]
            command += ["--peer", f"10.77.1.{peer}:{mirror.port}", "--module", "bench", "--cluster", "bench", "--timeout", "20"]
            self.lab.run(node, command if mirror.secure else [*command, "--insecure"])
        deadline = time.monotonic() + 30
        while self.status("node1", mirror)["link"] != "paired":
            if time.monotonic() > deadline:
                raise SystemExit("bench: the mirror does not pair: " + self.status("node1", mirror)["reason"])
            time.sleep(0.1)

    def pair(self, state: str) -> float:
        """Two fresh nodes, two commands: how long it took, in seconds."""
        began = time.monotonic()
        read_end, write_end = os.pipe()
        with open(read_end) as shown:
            with open(write_end, "wb") as said:
                waiting = self.lab.spawn("node1", ["rfsmount", "keys", "init", "--state", state, "--listen", "10.77.1.11"], log=said)
            invitation = next(line.split()[3] for line in shown if "rfsmount keys join" in line)
            self.lab.run("node2", ["rfsmount", "keys", "join", "-", "--state", state], input=invitation + "\n")
            if waiting.wait(10) != 0:
                raise SystemExit(f"bench: the nodes do not pair: {shown.read()}")
        return time.monotonic() - began

    def status(self, node: str, mirror: Mirror) -> dict[str, Any]:
        """rfsmount.status/1."""
        return dict(json.loads(self.lab.run(node, ["rfsmount", "status", "--state", mirror.state, "--json"]).stdout))

    # ---- measuring ------------------------------------------------------------------------------------------------------------

    def workload(self, name: str, directory: str) -> float:
        """One repetition on node1."""
        value = float(self.lab.run("node1", [sys.executable, str(HERE / "workload.py"), name, directory], timeout_s=120).stdout)
        return value / 1e6 if name == "write_1m" else value

    def floor_of(self, row: Row) -> float:
        """Bare TCP send, apply, acknowledge between the same nodes."""
        count = 4000 if row.floor_block_bytes == 4096 else 192
        words = [str(self.floor), "send", "10.77.1.12", str(FLOOR_PORT), str(row.floor_block_bytes), str(count), "0"]
        p50_us = float(self.lab.run("node1", words).stdout)
        return p50_us if row.lower_is_better else row.floor_block_bytes / p50_us

    def measure(self, row: Row) -> dict[str, Any]:
        """Interleaved repetitions; medians and the floor's spread."""
        if row.name.startswith("pgbench"):
            return self.pgbench(int(row.name.rpartition("_")[2]))
        values: dict[str, list[float]] = {"native": [], "mirror": [], "plain": []}
        if row.floor_block_bytes:
            values["floor"] = []
        for _ in range(self.repetitions):
            values["native"].append(self.workload(row.name, NATIVE))
            for column, mirror in MIRRORS.items():
                values[column].append(self.workload(row.name, mirror.directory))
            if row.floor_block_bytes:
                values["floor"].append(self.floor_of(row))
        out: dict[str, Any] = {column: statistics.median(list_) for column, list_ in values.items()}
        if floors := values.get("floor"):
            low, _, high = statistics.quantiles(floors, n=4)
            out["floor_spread"] = (high - low) / out["floor"]
        return out

    def pgbench(self, clients: int) -> dict[str, Any]:
        """tps of the built-in script, each cluster on its own directory, one at a time."""
        out: dict[str, Any] = {}
        for column, directory in (("native", NATIVE), ("mirror", MIRRORS["mirror"].directory)):
            out[column] = statistics.median(self.pgbench_once(directory, clients) for _ in range(max(1, self.repetitions // 3)))
        return out

    def as_postgres(self, *command: str, timeout_s: float = 180) -> str:
        """As Debian's user, on node1."""
        return self.lab.run(
            "node1", ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command], timeout_s=timeout_s
        ).stdout

    def pgbench_once(self, directory: str, clients: int) -> float:
        """Start, measure, stop."""
        data, options = f"{directory}/pg", "-c listen_addresses='' -c unix_socket_directories=/tmp -c shared_buffers=64MB"
        if self.lab.run("node1", ["test", "-e", f"{data}/PG_VERSION"], check=False).returncode:
            self.lab.run("node1", ["install", "-d", "-o", "postgres", "-m", "700", data])
            self.as_postgres(str(BIN / "initdb"), "-D", data, "--auth=trust", "--no-locale", "-E", "UTF8")
        self.as_postgres(str(BIN / "pg_ctl"), "-D", data, "-o", options, "-w", "-l", "/tmp/pg.log", "start")
        try:
            tables = self.as_postgres("psql", "-h", "/tmp", "-XAtc", "select count(*) from pg_class where relname='pgbench_accounts'")
            if tables.strip() == "0":
                self.as_postgres(str(BIN / "pgbench"), "-h", "/tmp", "-i", "-q", "-s", "10", "postgres")
            said = self.as_postgres(str(BIN / "pgbench"), "-h", "/tmp", "-n", "-c", str(clients), "-T", str(self.pgbench_s), "postgres")
            return float(next(line for line in said.splitlines() if line.startswith("tps")).split()[2])
        finally:
            self.as_postgres(str(BIN / "pg_ctl"), "-D", data, "-w", "-m", "fast", "stop")

    def idle_bytes(self) -> int:
        """Resident memory of the idle primary's rfsmount."""
        said = self.lab.run("node1", ["sh", "-c", "grep VmRSS /proc/$(cat " + MIRRORS["mirror"].state + "/rfsmount.pid)/status"]).stdout
        return int(said.split()[1]) * 1024


def figures(row: Row, found: dict[str, Any]) -> dict[str, Any]:
    """The ratios people ask for."""
    out = {"name": row.name, "text": row.text, "unit": row.unit, **found}
    if "floor" in found:
        out["mirror_to_floor"] = found["mirror"] / found["floor"]
        out["floor_is_steady"] = found["floor_spread"] <= SPREAD_LIMIT
    if "plain" in found:
        out["mirror_to_plain"] = found["mirror"] / found["plain"]
    out["mirror_to_native"] = found["mirror"] / found["native"]
    return out


def table(results: dict[str, Any]) -> str:
    """For people."""
    heads = f"{'native':>9} {'mirror':>9} {'no TLS':>9} {'floor':>9} {'mirror/floor':>13} {'mirror/no TLS':>14} {'mirror/native':>14}"
    lines = [f"{'':28} {'unit':5} {heads}"]
    for row in results["rows"]:
        floor = f"{row['floor']:9.1f} {row['mirror_to_floor']:13.2f}" if "floor" in row else f"{'–':>9} {'–':>13}"
        note = "" if row.get("floor_is_steady", True) else "  not measured: the floor is unsteady"
        plain = f"{row['plain']:9.1f}" if "plain" in row else f"{'–':>9}"
        to_plain = f"{row['mirror_to_plain']:14.2f}" if "plain" in row else f"{'–':>14}"
        columns = f"{row['native']:9.1f} {row['mirror']:9.1f} {plain} {floor[:9]} {floor[10:]} {to_plain} {row['mirror_to_native']:14.2f}"
        lines.append(f"{row['text']:28} {row['unit']:5} {columns}{note}")
    lines.append(f"pairing of two fresh nodes, two commands: {results['pairing_s']:.1f} s")
    lines.append(
        f"rfsmount, idle: {results['idle_rss_bytes'] / 1e6:.0f} MB before the load, {results['rss_bytes_after'] / 1e6:.0f} MB after it"
    )
    return "\n".join(lines)


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="bench/run", description="Native directory, mirror and floor, side by side.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    options = parser.parse_args()
    lab = Lab("bench")
    try:
        bench = Bench(lab, repetitions=3 if options.quick else 7, pgbench_s=5 if options.quick else 10)
        bench.set_up()
        results: dict[str, Any] = {"schema": "lockstep.bench/1", "idle_rss_bytes": bench.idle_bytes(), "rows": []}
        results["pairing_s"] = bench.pairing_s
        for row in ROWS:
            print(f"bench: {row.text}", file=sys.stderr)
            results["rows"].append(figures(row, bench.measure(row)))
        results["rss_bytes_after"] = bench.idle_bytes()
    finally:
        lab.down()
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "latest.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2) if options.json else table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
