"""One cluster in the lab for all scenarios: a ledger behind the service address, and a writer that never stops.

Each scenario begins redundant (node1 PRIM unless it says otherwise) and ends in `settle`: redundant again, every acknowledged
line there exactly once, both trees equal.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.api.client import ApiFailure
from orchestrator.lab.cluster import SERVERS, VIP, LabCluster, ledger_module
from orchestrator.lab.lab import Lab, kill_group, prefixed

DIRECTORY = "/srv/ledger"
LEDGER = f"{DIRECTORY}/lines"
PORT = 7000

MODULE = ledger_module(DIRECTORY, PORT, "20 per 24h")


class LedgerCluster(LabCluster):
    """The cluster, its writer, and what must always be true of them."""

    def __init__(self, lab: Lab, scratch: Path, **more: str) -> None:
        super().__init__(lab, "ledger", MODULE, [DIRECTORY], name="tests", **more)
        self.acknowledged = scratch / "acknowledged"
        self._acks: dict[int, float] = {}
        self._read_bytes = 0

    def start_writer(self) -> None:
        """For the whole session."""
        words = [sys.executable, "-m", "orchestrator.lab.ledger", "write", VIP, str(PORT), str(self.acknowledged)]
        self.writer = self.lab.spawn("client", words)

    def acks(self) -> dict[int, float]:
        """Line number -> when the writer was told of it. Reads only what is new."""
        if self.acknowledged.exists():
            with self.acknowledged.open("rb") as file:
                file.seek(self._read_bytes)
                whole = file.read().rpartition(b"\n")[0]
            if whole:
                self._read_bytes += len(whole) + 1
                self._acks |= {int(number): float(when) for number, when in (line.split() for line in whole.splitlines())}
        return self._acks

    def wait_acks(self, more: int = 20, timeout_s: float = 30) -> float:
        """Until the writer was told of so many more; how long it took."""
        before = len(self.acks())
        return self.until(lambda: len(self.acks()) >= before + more, f"the writer got no {more} more answers", timeout_s)

    def longest_silence(self, since: float) -> float:
        """The longest time without an answer since then."""
        times = [since, *sorted(when for when in self.acks().values() if when > since)]
        return max(after - before for before, after in zip(times, times[1:], strict=False))

    def serving(self) -> list[str]:
        """Who says that it serves."""
        return [node for node in SERVERS if self.row(node)["state"] in ("PRIM", "ALONE")]

    def primary(self) -> str:
        """Who serves, as soon as it is one (a node that was cut off learns of its successor when it is healed)."""
        found: list[str] = []

        def one() -> bool:
            found[:] = self.serving()
            return len(found) == 1

        self.until(one, "not exactly one node serves", 40)
        return found[0]

    def swap(self, primary: str) -> None:
        """As soon as hactld agrees: both nodes must have heard of each other's readiness."""

        def accepted() -> bool:
            try:
                self.command(primary, "swap")
            except ApiFailure:
                return False
            return True

        self.until(accepted, "the swap is refused", 15)

    def check_lines(self) -> None:
        """Every acknowledged line is in the ledger exactly once, as the application reads it."""
        told = self.acks()
        lines = Counter(int(line) for line in self.lab.run(self.primary(), ["cat", LEDGER]).stdout.splitlines())
        lost = [number for number in told if lines[number] != 1]
        assert not lost, f"{len(lost)} of {len(told)} acknowledged lines are not there exactly once: {lost[:5]} ({lines[lost[0]]} times)"

    def pause_writer(self, pause: bool) -> None:
        """So that both trees stand still while they are compared."""
        self.lab.run("client", ["pkill", "-STOP" if pause else "-CONT", "-f", "orchestrator.lab.ledger write"])

    def settle(self) -> None:
        """The end of every scenario."""
        self.wait_redundant(self.primary(), timeout_s=60)
        self.wait_acks()
        self.check_lines()
        self.pause_writer(True)
        try:
            self.compare_trees()
        finally:
            self.pause_writer(False)

    def repair(self) -> None:
        """The beginning of every scenario, whatever the last one left."""
        self.lab.heal()
        for row in self.lab.status()["nodes"]:
            if row["node"] in SERVERS and row["power"] == "off":
                self.lab.boot(row["node"])
            elif row["node"] in SERVERS and row["power"] == "frozen":
                self.lab.thaw(row["node"])
        for node in SERVERS:
            if self.status(node) is None:
                self.start_daemon(node)
            if self.row(node)["state"] == "STOP":
                self.command(node, "start")
        if self.primary() != "node1":
            self.wait_redundant("node2")
            self.swap("node2")
        self.wait_redundant("node1")
        self.until(self.all_heard, "a network is still silent, or a node not trusted yet", 15)
        self.wait_acks()

    def all_heard(self) -> bool:
        """Nothing of an earlier fault is left: every network heard, both nodes ready to judge the next loss."""
        found = [self.status(node) or {} for node in SERVERS]
        networks = [verdict for status in found for verdict in status.get("networks", {"?": "?"}).values()]
        return all(verdict == "ok" for verdict in networks) and all(status["failover"]["state"] == "armed" for status in found)


@pytest.fixture(scope="session")
def session_cluster() -> Iterator[LedgerCluster]:
    """Built once."""
    lab = Lab(prefixed("tests"), disk_size_bytes=1 << 30)
    with tempfile.TemporaryDirectory(prefix="lockstep-tests-", dir="/var/tmp") as scratch, lab:  # /tmp is each node's own
        cluster = LedgerCluster(lab, Path(scratch))
        cluster.configure()
        cluster.bring_up()
        cluster.start_writer()
        yield cluster
        kill_group(cluster.writer)


@pytest.fixture
def cluster(session_cluster: LedgerCluster) -> LedgerCluster:
    """Redundant, node1 PRIM, the writer being answered."""
    session_cluster.repair()
    return session_cluster
