"""bench/run --cli: how long a command takes that somebody types in an emergency. Kept as results/cli.json.

`hactl status` as a process of its own, against a hactld that answers at once with the status of four modules; beside it Python doing
nothing, and Python with click: what no command written with them can go below. Wall time and processor time of each, the median of many.
"""

from __future__ import annotations

import json
import os
import resource
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from bench.words import machine, say

SCHEMA = "lockstep.bench.cli/1"
RUNS, QUICK_RUNS = 40, 8
BOUND_MS = 120.0  # what was asked for, of wall time on a machine that is idle
RUN = "import sys; from orchestrator.hactl.cli import main; main(sys.argv[1:])"


def document() -> dict[str, Any]:
    """A status as large as most are."""
    line = {
        "readiness": "Ready", "data": "UPTODATE", "generation": "9f3c61d0a2b47e15", "link": "paired", "code": "PAIRED", "service": "on",
        "since_s": 42.0, "reason": "", "resync": None, "rfs": {"peer": {"rtt_us": 71}, "marked_bytes": 0},
    }  # fmt: skip
    nodes = [{"node": "node1", "state": "PRIM", **line}, {"node": "node2", "state": "SECOND", **line}]
    modules = [{"name": f"m{n}", "mode": "mirror", "verdict": "redundant", "nodes": nodes, "vips": []} for n in range(4)]
    return {
        "schema": "hactl.status/1", "cluster": "bench", "node": "node1", "peer": "node2", "partial": False, "verdict": "redundant",
        "failover": {"state": "armed", "reason": ""}, "witness": None, "networks": {}, "peers": [], "modules": modules, "warnings": [],
        "insecure": False, "refused": {},
    }  # fmt: skip


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Of the answer."""

    daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    """The same answer to everything."""

    payload = json.dumps(document()).encode()

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server looks for
        """Answer."""
        self.send_response(200)
        self.send_header("content-length", str(len(self.payload)))
        self.end_headers()
        self.wfile.write(self.payload)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


def timed(words: Sequence[str], runs: int) -> dict[str, float]:
    """Medians, in milliseconds."""
    wall_ms, cpu_ms = list[float](), list[float]()
    for _ in range(runs):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(words, stdout=subprocess.DEVNULL, check=True, cwd="/")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall_ms.append(1000 * (time.monotonic() - began))
        cpu_ms.append(1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return {"wall_ms": round(statistics.median(wall_ms), 1), "cpu_ms": round(statistics.median(cpu_ms), 1)}


def run(runs: int) -> dict[str, Any]:
    """All rows."""
    with tempfile.TemporaryDirectory() as directory, Server(f"{directory}/sock", Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        hactl = [sys.executable, "-c", RUN, "--socket", f"{directory}/sock"]
        rows = {
            "python": [sys.executable, "-c", "pass"],
            "python and click": [sys.executable, "-c", "import click"],
            "hactl status": [*hactl, "status"],
            "hactl status --json": [*hactl, "status", "--json"],
            "hactl --help": [*hactl, "--help"],
        }
        found = {}
        for name, words in rows.items():
            say(name)
            found[name] = timed(words, runs)
        server.shutdown()
        thread.join()
    return {"schema": SCHEMA, "machine": machine(), "load": os.getloadavg()[0], "runs": runs, "bound_ms": BOUND_MS, "rows": found}


def table(results: dict[str, Any]) -> str:
    """For a person."""
    lines = [f"{'':22}{'wall ms':>10}{'cpu ms':>10}"]
    lines += [f"{name:22}{row['wall_ms']:10.1f}{row['cpu_ms']:10.1f}" for name, row in results["rows"].items()]
    return "\n".join([*lines, f"asked for: hactl status within {results['bound_ms']:.0f} ms (load {results['load']:.1f})"])


def keep(results: dict[str, Any], directory: Path) -> None:
    """For later runs to be compared with."""
    directory.mkdir(exist_ok=True)
    (directory / "cli.json").write_text(json.dumps(results, indent=2) + "\n")
