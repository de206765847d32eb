"""The demonstration: a mirrored PostgreSQL survives the death of its primary, and nothing that was committed is lost.

    python -m orchestrator.lab.demo [--keep]

In a lab on this machine: initdb on node1, mirror, pgbench and a commit writer from the client through the service address;
pull node1's power; node2 takes over; node1 comes back and is resynced while pgbench runs; both trees are compared; swap back.
Ends with "demo: OK" and 0, or with what was wrong and 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.lab.cluster import SERVERS, VIP, LabCluster, Trouble
from orchestrator.lab.errors import LabError
from orchestrator.lab.lab import Lab, kill_group

DATA, WAL = "/srv/postgresql/data", "/srv/postgresql/wal"
BIN = Path("/usr/lib/postgresql/15/bin")
CONNINFO = f"host={VIP} user=postgres dbname=postgres connect_timeout=2 tcp_user_timeout=2000 keepalives_idle=1 keepalives_interval=1"
SCALE = 5
SETTINGS = "listen_addresses = '*'\nmax_wal_size = '256MB'\nshared_buffers = '64MB'\n"


class Timeline:
    """What happened, when, and how long it took."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        """One line, with the time since the start."""
        print(f"  {time.monotonic() - self.began:7.2f} s  {text}", flush=True)

    def step(self, text: str, do: Callable[[], object]) -> float:
        """Do it and say how long it took."""
        began = time.monotonic()
        do()
        took = time.monotonic() - began
        self.say(f"{text} ({took:.2f} s)")
        return took


class Demo:
    """One run."""

    def __init__(self, lab: Lab, scratch: Path) -> None:
        self.lab, self.scratch = lab, scratch
        template = ["postgresql", "--name", "pg", "--vip", f"{VIP}/24", "--dir", DATA, "--dir", WAL]
        self.cluster = LabCluster(lab, "pg", template, [DATA, WAL], name="demo")
        self.time = Timeline()
        self.acknowledged = scratch / "commits"
        self.load: list[subprocess.Popen[bytes]] = []

    def run(self) -> None:
        """All of it, in order."""
        self.set_up()
        self.start_load()
        self.lose_the_primary()
        self.bring_it_back()
        self.compare()
        self.swap_back()
        self.check_commits("node1")

    # ---- the chapters -----------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Two servers, an initialised database on node1, a redundant pair."""
        self.time.step("lab up: node1, node2, client, witness", self.lab.up)
        self.cluster.configure()
        for node in SERVERS:
            self.lab.run(node, ["install", "-d", "-o", "postgres", "-g", "postgres", "-m", "700", DATA, WAL])
        self.time.step("initdb on node1", self.initdb)
        self.time.step("PRIM and SECOND: mirrored and redundant", self.cluster.first_start)
        self.time.step(f"pgbench -i -s {SCALE} through {VIP}", self.fill)

    def initdb(self) -> None:
        """As Debian's postgres user, the log in its own directory."""
        self.as_postgres(
            str(BIN / "initdb"), "-D", DATA, f"--waldir={WAL}", "--auth=trust", "--no-instructions", "--no-locale", "-E", "UTF8"
        )
        more = f"cat >> {DATA}/postgresql.conf; echo 'host all all 10.77.0.0/24 trust' >> {DATA}/pg_hba.conf"
        self.lab.run("node1", ["sh", "-c", more], input=SETTINGS)

    def as_postgres(self, *command: str) -> None:
        self.lab.run("node1", ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command], timeout_s=120)

    def fill(self) -> None:
        """The tables."""
        self.sql("CREATE TABLE commits (n bigint PRIMARY KEY)")
        self.lab.run("client", [str(BIN / "pgbench"), "-i", "-q", "-s", str(SCALE), CONNINFO], timeout_s=120)

    def start_load(self) -> None:
        """pgbench and the commit writer, until the end."""
        writer = [sys.executable, "-P", "-m", "orchestrator.lab.commits", CONNINFO, str(self.acknowledged)]
        self.load.append(self.lab.spawn("client", writer))
        bench = f"while :; do {BIN}/pgbench -n -c 4 -T 5 '{CONNINFO}' >/dev/null 2>&1 || sleep 0.2; done"
        self.load.append(self.lab.spawn("client", ["sh", "-c", bench]))
        self.cluster.until(lambda: len(self.commits()) > 100, "the writer does not get its commits acknowledged", 20)
        self.time.say(f"load runs: pgbench -c 4 and the commit writer ({len(self.commits())} commits so far)")

    def lose_the_primary(self) -> None:
        """Power off; the other takes the address, starts the database and goes on."""
        after = max((event["number"] for event in self.cluster.events("node2")), default=0)
        before, killed = len(self.commits()), time.monotonic()
        self.lab.kill("node1")
        self.time.say(f"POWER OFF node1 ({before} commits acknowledged)")
        self.cluster.wait_state("node2", "ALONE", timeout_s=40)
        self.tell_takeover(self.cluster.events("node2", after), killed)
        self.check_commits("node2")

    def tell_takeover(self, events: list[dict[str, Any]], killed: float) -> None:
        """What node2 did, step by step, and how long each took. The nodes and we share one clock."""
        print("           what happened on node2", flush=True)
        for event in events:
            print(f"           +{event['monotonic_s'] - killed:5.2f} s  {event['text'][:110]}")
        marks = [("power cut", killed)]
        for name, kind in (("detection", ""), ("takeover", "serving"), ("address", "vip-add"), ("database ready", "services")):
            when = next((event["monotonic_s"] for event in events if kind in ("", event["kind"])), None)
            if when is None:
                raise Trouble(f"node2's history tells nothing of the {name}")
            marks.append((name, when))
        served = marks[2][1]
        self.cluster.until(lambda: self.commits_after(served) is not None, "the client does not get a commit after the takeover", 20)
        times = list(self.commits().values())
        first, last = min(when for when in times if when > served), max(when for when in times if when <= served)
        marks = sorted([*marks, ("client's next commit", first)], key=lambda mark: mark[1])
        steps = [f"{name} {when - before:.2f} s" for (_, before), (name, when) in zip(marks, marks[1:], strict=False)]
        self.time.say(" + ".join(steps))
        self.time.say(f"outage as the client saw it: {first - last:.2f} s")

    def bring_it_back(self) -> None:
        """Boot, resync while the load runs."""
        self.time.step("boot node1", lambda: self.cluster.boot("node1"))
        began = len(self.commits())
        took = self.cluster.wait_redundant("node2", timeout_s=90)
        self.time.say(f"node1 resynced under load, SECOND again ({took:.2f} s, {len(self.commits()) - began} commits meanwhile)")
        self.cluster.until(lambda: len(self.commits()) > began + 20, "no commits after the rejoin", 20)

    def compare(self) -> None:
        """Stop the load and compare every byte."""
        self.stop_load()
        self.sql("CHECKPOINT")
        self.time.step("both trees compared: equal", self.cluster.compare_trees)

    def swap_back(self) -> None:
        """Planned, in order."""
        self.cluster.command("node2", "swap")
        took = self.cluster.wait_redundant("node1", timeout_s=60)
        self.time.say(f"swapped back: node1 PRIM, node2 SECOND ({took:.2f} s)")
        self.cluster.until(lambda: self.answers(), "the database does not answer after the swap", 20)

    def check_commits(self, node: str) -> None:
        """Every commit the client was told of is there, once."""
        told = self.commits()
        there = {int(line) for line in self.sql("SELECT n FROM commits").splitlines()}
        lost = sorted(told.keys() - there)
        if lost:
            raise Trouble(f"{len(lost)} of {len(told)} acknowledged commits are lost on {node}, the first is number {lost[0]}")
        self.time.say(f"{len(told)} acknowledged commits checked on {node}: all there")

    # ---- helpers ------------------------------------------------------------------------------------------------------------

    def stop_load(self) -> None:
        """The writer and pgbench; their last sessions with them."""
        self.lab.run("client", ["pkill", "-9", "-f", "orchestrator.lab.commits|pgbench"], check=False)
        for process in self.load:
            kill_group(process)
        self.load.clear()

    def commits(self) -> dict[int, float]:
        """Acknowledged numbers and when."""
        if not self.acknowledged.exists():
            return {}
        whole = self.acknowledged.read_text().rpartition("\n")[0]
        return {int(number): float(when) for number, when in (line.split() for line in whole.splitlines())}

    def commits_after(self, moment: float) -> float | None:
        """When the first commit after it was acknowledged."""
        return min((when for when in self.commits().values() if when > moment), default=None)

    def answers(self) -> bool:
        """Does the database talk to the client?"""
        try:
            return self.sql("SELECT 1").strip() == "1"
        except LabError:
            return False

    def sql(self, statement: str) -> str:
        """From the client, through the service address."""
        return self.lab.run("client", ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", statement, CONNINFO], timeout_s=60).stdout


def main(arguments: list[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="demo", description="A mirrored PostgreSQL survives the death of its primary.")
    parser.add_argument("--keep", action="store_true", help="leave the lab up at the end")
    options = parser.parse_args(arguments)
    lab = Lab()
    with tempfile.TemporaryDirectory(prefix="lockstep-demo-", dir="/var/tmp") as scratch:
        demo = Demo(lab, Path(scratch))
        print("Lockstep: a mirrored PostgreSQL loses its primary\n")
        try:
            demo.run()
        except (Trouble, LabError, OSError, subprocess.TimeoutExpired) as failure:
            print(f"\ndemo: FAILED: {failure}", file=sys.stderr)
            return 1
        finally:
            demo.stop_load()
            if options.keep:
                print(
                    "\nThe lab is up. Look around:\n  hactl lab exec node1 -- hactl status\n  hactl lab exec client -- psql '"
                    + CONNINFO
                    + "'\n  hactl lab down"
                )
            else:
                lab.down()
    print(f"\n{time.monotonic() - demo.time.began:.0f} s in all\ndemo: OK")
    return 0


if __name__ == "__main__":
    sys.exit(main())
