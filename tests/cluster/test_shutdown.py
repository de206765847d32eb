"""A machine that goes down stops its modules first, and begins with them again; a hactld that goes down alone disturbs nothing.

The lab's nodes have no systemd: a scripted one says on the node's own bus which of the two it is.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from orchestrator.lab.lab import kill_group
from orchestrator.lab.scenarios.pair import LedgerPair

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(150),
    pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="needs dbus-daemon (Debian: dbus-daemon)"),
]
ROOT = Path(__file__).parents[2]
BUS = "/run/scripted-systemd"


def restart_daemon_beside_systemd(cluster: LedgerPair) -> None:
    """hactld of node1, started anew as where systemd runs."""
    cluster.kill_daemon("node1")
    cluster.lab.run("node1", ["sh", "-c", f"rm -rf {BUS}; mkdir {BUS}"])
    words = ["sh", "-c", f"exec setsid env DBUS_SYSTEM_BUS_ADDRESS=unix:path={BUS}/bus hactld >>/var/log/lockstep/node1.hactld.out 2>&1"]
    cluster.lab.spawn("node1", words)
    cluster.until(lambda: cluster.status("node1") is not None, "hactld of node1 does not answer", 15)


@pytest.mark.parametrize("state", ["running", "stopping"])
def test_hactld_ends_with_or_without_the_machine(cluster: LedgerPair, state: str) -> None:
    restart_daemon_beside_systemd(cluster)
    cluster.wait_redundant("node1")
    python = shutil.which("python3", path=str(ROOT / ".venv/bin")) or "python3"
    systemd = cluster.lab.spawn("node1", [python, "-m", "tests.unit.scripted_systemd", BUS, state], env={"PYTHONPATH": str(ROOT)})
    try:
        cluster.until(lambda: cluster.lab.run("node1", ["test", "-e", f"{BUS}/ready"], check=False).returncode == 0, "no bus", 10)
        rfsmount = cluster.rfs_status("node1")["pid"]
        cluster.wait_acks()
        began = time.monotonic()
        cluster.lab.run("node1", ["pkill", "-TERM", "-x", "hactld"])
        cluster.until(lambda: cluster.status("node1") is None, "hactld does not end", 30)
        if state == "running":
            cluster.wait_acks(50)
            assert cluster.longest_silence(began) < 1.0
            assert cluster.rfs_status("node1")["pid"] == rfsmount, "an upgrade leaves everything as it is"
        else:
            cluster.wait_state("node2", "ALONE", timeout_s=5)
            cluster.wait_acks()
            assert cluster.longest_silence(began) < 3.0, "handed over: nobody waited for a silence"
            gone = cluster.lab.run("node1", ["sh", "-c", "pgrep -f '[l]ab.ledger serve|[r]fsmount mount'"], check=False)
            assert gone.stdout == "", gone.stdout
        cluster.start_daemon("node1")  # nobody had asked for a stop: the module starts again
        cluster.wait_redundant("node1" if state == "running" else "node2")
    finally:
        kill_group(systemd)
        cluster.lab.run("node1", ["pkill", "-f", BUS], check=False)
    cluster.settle()
