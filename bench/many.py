"""32 modules on one pair, half of them at home on either node: what hactld costs when nothing happens, and what happens when a node dies.

Each module has a directory, a port, an address and a service of its own; the service does nothing. Asked of the daemon: no more than 2 % of
a processor and 150 MB. Told beside it: what the 32 rfsmount take, and when each address of a node that was killed answers again.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.words import say
from orchestrator.lab.cluster import POLL_S, SERVERS, LabCluster
from orchestrator.lab.lab import Lab, kill_group
from orchestrator.lab.plan import ADDRESSES

MODULES = 32
IDLE_S = 60.0
SETTLE_S = 30.0  # addresses are announced more often in their first 20 s
CPU_LIMIT, MEMORY_LIMIT_BYTES = 0.02, 150e6
READY_S, TAKEN_S = 300.0, 60.0
PROBER = Path(__file__).resolve().parent / "many_prober.py"
MODULE = """\
mode = "mirror"
nodes = ["node1", "node2"]
replication_network = "repl"
boot = "auto"
max_restarts = "1000 per 24h"
default_primary = "{home}"
port = {port}
[[replicated]]
directory = "/srv/many/{name}"
[[vip]]
address = "{address}/24"
[[service]]
name = "idle"
start = ["/usr/bin/sleep", "infinity"]
"""


def address_of(number: int) -> str:
    """The service address of a module."""
    return f"{ADDRESSES['node1']['lan'].rpartition('.')[0]}.{101 + number}"


class ManyModules(LabCluster):
    """The pair, and its modules by name with their home."""

    def __init__(self, lab: Lab, count: int = MODULES) -> None:
        self.homes = {f"m{number:02}": SERVERS[number % 2] for number in range(count)}
        self.addresses = {name: address_of(number) for number, name in enumerate(self.homes)}
        first = next(iter(self.homes))
        super().__init__(lab, first, self.toml(first), [f"/srv/many/{name}" for name in self.homes], name="many")

    def toml(self, name: str) -> str:
        """The module's file."""
        place = list(self.homes).index(name)
        return MODULE.format(name=name, home=self.homes[name], port=5600 + place, address=self.addresses[name])

    def pair(self, *more: str) -> float:
        """With all the other modules."""
        for name in self.homes:
            self.put("node1", f"/etc/lockstep/modules/{name}.toml", self.toml(name))
        return super().pair(*more)

    def bring_up(self, first: str = "node1") -> None:
        """Each module from its home."""
        for node in SERVERS:
            self.start_daemon(node)
        for name, home in self.homes.items():
            self.api(home, 60.0).command(name, "prim", {})
            self.api(self.other(home), 60.0).command(name, "start", {})
        self.wait_all_redundant()

    def wait_all_redundant(self) -> float:
        """Every module at home, and its other half ready."""
        return self.until(lambda: not self.unready(), "not all modules are redundant at home", READY_S, every_s=1.0)

    def unready(self) -> list[str]:
        """Which are not."""
        seen = [(self.status(node) or {"modules": []})["modules"] for node in SERVERS]
        here = {(row["node"], module["name"]): f"{row['state']} {row['readiness']}" for document in seen for module in document
                for row in module["nodes"]}  # fmt: skip
        return [name for name, home in self.homes.items()
                if (here.get((home, name)), here.get((self.other(home), name))) != ("PRIM Ready", "SECOND Ready")]  # fmt: skip

    def until(self, test: Callable[[], bool], sentence: str, timeout_s: float, *, every_s: float = POLL_S) -> float:
        """As there; a status of 32 modules is long, and to ask for it all the time would be measured too."""
        patient = time.monotonic() + timeout_s

        def now_and_then() -> bool:
            if test():
                return True
            time.sleep(min(every_s, max(0.0, patient - time.monotonic())))
            return False

        return super().until(now_and_then, sentence, timeout_s)

    def describe(self) -> str:
        """For a failure's text."""
        return f"  waiting for: {', '.join(self.unready())}\n{super().describe()}"

    # ---- what it costs ----------------------------------------------------------------------------------------------------

    def processes(self, node: str, program: str) -> list[Path]:
        """The /proc directories of all of that name."""
        return [path.parent for path in self.lab.path(node, "/proc").glob("[0-9]*/comm") if text(path).strip() == program]

    def pss_bytes(self, process: Path) -> int:
        """Its share of the memory."""
        return int(text(process / "smaps_rollup").partition("Pss:")[2].split()[0]) * 1024


def text(path: Path) -> str:
    """Of a /proc file; nothing if the process has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def cpu_s(process: Path) -> float:
    """User and system time."""
    fields = text(process / "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def rss_bytes(process: Path) -> int:
    """All of its resident memory."""
    return int(text(process / "status").partition("VmRSS:")[2].split()[0]) * 1024


def idle(many: ManyModules, seconds: float = IDLE_S) -> dict[str, Any]:
    """What both daemons, and all rfsmount, take while nothing happens. The worse node counts."""
    say(f"{len(many.homes)} idle modules")
    time.sleep(SETTLE_S)
    daemons = {node: many.processes(node, "hactld")[0] for node in SERVERS}
    mounts = {node: many.processes(node, "rfsmount") for node in SERVERS}
    before = {path: cpu_s(path) for paths in ([*daemons.values()], *mounts.values()) for path in paths}
    began = time.monotonic()
    time.sleep(seconds)
    took_s = time.monotonic() - began
    shares = {path: (cpu_s(path) - was) / took_s for path, was in before.items()}
    cpu = {node: round(shares[path], 4) for node, path in daemons.items()}
    rss = {node: rss_bytes(path) for node, path in daemons.items()}
    result = {
        "name": "idle",
        "text": f"hactld with {len(many.homes)} idle modules",
        "seconds": round(took_s, 1),
        "cpu": cpu,
        "rss_bytes": rss,
        "pss_bytes": {node: many.pss_bytes(path) for node, path in daemons.items()},
        "rfsmount_cpu": {node: round(sum(shares[path] for path in paths), 4) for node, paths in mounts.items()},
        "rfsmount_pss_bytes": {node: sum(many.pss_bytes(path) for path in paths) for node, paths in mounts.items()},
        **judged_idle(cpu, rss),
    }
    say(f"  {max(cpu.values()):.2%} of a processor, {max(rss.values()) / 1e6:.0f} MB")
    return result


def judged_idle(cpu: dict[str, float], rss: dict[str, int]) -> dict[str, Any]:
    """The worse of both nodes against what is asked. Pure."""
    met = max(cpu.values()) <= CPU_LIMIT and max(rss.values()) <= MEMORY_LIMIT_BYTES
    return {"limit_cpu": CPU_LIMIT, "limit_rss_bytes": int(MEMORY_LIMIT_BYTES), "met": met}


def node_dies(many: ManyModules, scratch: Path) -> dict[str, Any]:
    """node1 is killed: when does each of its addresses answer a client again, and when are all its modules served?"""
    say("a node with half of all modules is killed")
    lost = [name for name, home in many.homes.items() if home == "node1"]
    out = scratch / "many-answers"
    words = [sys.executable, str(PROBER), str(out), *(many.addresses[name] for name in lost)]
    prober = many.lab.spawn("client", words)
    try:
        many.until(lambda: len(answers(out)) == len(lost), "the client does not reach all addresses", 20)
        killed = time.monotonic()
        many.lab.kill("node1")
        many.until(lambda: min(answers(out).values()) > killed + 1.0, "not all addresses answer", TAKEN_S)
        many.until(lambda: all_of(many, "node2", lost, "ALONE Ready"), "node2 has not taken everything over", TAKEN_S, every_s=1.0)
        silences = [first - killed for first in first_answers(out, killed + 1.0).values()]
        served_s = max(at for name, at in ready_at(many, "node2", killed).items() if name in lost) - killed
    finally:
        kill_group(prober)
    say(f"  all addresses answer after {max(silences):.2f} s, all is served after {served_s:.2f} s")
    return {
        "name": "many",
        "text": f"node with {len(lost)} of {len(many.homes)} modules killed",
        "addresses_s": [round(silence, 3) for silence in sorted(silences)],
        "median_s": round(statistics.median(silences), 3),
        "worst_s": round(max(silences), 3),
        "served_s": round(served_s, 3),
    }


def all_of(many: ManyModules, node: str, names: list[str], state: str) -> bool:
    """Does the node say so of all these modules?"""
    status = many.status(node) or {"modules": []}
    shown = {m["name"]: f"{row['state']} {row['readiness']}" for m in status["modules"] for row in m["nodes"] if row["node"] == node}
    return all(shown.get(name) == state for name in names)


def ready_at(many: ManyModules, node: str, after: float) -> dict[str, float]:
    """When each module became ready there, by its own history (one machine, one clock)."""
    return {line["module"]: line["monotonic_s"] for line in many.events(node)
            if line["monotonic_s"] > after and line["kind"] == "transition" and "to=ALONE Ready" in line["text"]}  # fmt: skip


def lines(out: Path) -> list[tuple[str, float]]:
    """Address and time of every answer."""
    whole = out.read_text().rpartition("\n")[0].splitlines() if out.exists() else []
    return [(address, float(at)) for address, at in (line.split() for line in whole)]


def answers(out: Path) -> dict[str, float]:
    """The newest of each address."""
    return dict(lines(out))


def first_answers(out: Path, after: float) -> dict[str, float]:
    """The first of each address since then. (What answered a moment after the kill had been on its way.)"""
    return {address: at for address, at in reversed(lines(out)) if at > after}


def run(lab: Lab, names: list[str], scratch: Path, make: Callable[[Lab], ManyModules] = ManyModules) -> list[dict[str, Any]]:
    """Both rows, on one pair."""
    many = make(lab)
    lab.up()
    try:
        many.configure()
        many.bring_up()
        rows: list[dict[str, Any]] = []
        if "idle" in names:
            rows.append(idle(many))
        if "many" in names:
            rows.append(node_dies(many, scratch))
        return rows
    finally:
        lab.down()


def line_of(row: dict[str, Any]) -> str:
    """For the table. Pure."""
    if row["name"] == "idle":
        cpu, memory = max(row["cpu"].values()), max(row["rss_bytes"].values()) / 1e6
        verdict = "met" if row["met"] else "MISSED"
        return f"{row['text']:40} {cpu:.2%} of a processor (asked 2 %), {memory:.0f} MB (asked 150)  {verdict}"
    return f"{row['text']:40} {row['median_s']:6.2f} s {row['worst_s']:6.2f} s  all served after {row['served_s']:.2f} s"
