"""Two real hactld, two real rfsmount, a real etcd on the lab's third machine. No ping, and the stricter policy: only the witness grants."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.lab.cluster import SERVERS, VIP
from orchestrator.lab.lab import Lab, kill_group, prefixed
from orchestrator.lab.plan import ADDRESSES
from tests.cluster.conftest import LedgerCluster
from tests.unit.etcd_server import needs_etcd

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150), needs_etcd]

HOST = ADDRESSES["witness"]["lan"]
URL = f"http://{HOST}:2379"
DATA = "/var/lib/lockstep/etcd"  # on that machine's disk


class WitnessedCluster(LedgerCluster):
    """With an etcd on the witness's machine."""

    def start_etcd(self) -> None:
        peers = f"http://{HOST}:2380"
        command = [
            "etcd", "--data-dir", DATA, "--listen-client-urls", URL, "--advertise-client-urls", URL, "--listen-peer-urls", peers,
            "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}",
        ]  # fmt: skip
        self.etcd = self.lab.spawn("witness", command)

    def kill_etcd(self) -> None:
        kill_group(self.etcd)

    def witness(self, node: str) -> dict[str, str]:
        """`hactl witness status`, as typed there."""
        found = self.lab.run(node, ["hactl", "witness", "status", "--json"], check=False)
        return dict(json.loads(found.stdout)[0]) if found.returncode == 0 else {"state": found.stderr}

    def until_witnessed(self) -> None:
        """Both see it, and its register exists: the next loss can be judged."""
        self.until(
            lambda: all((found := self.witness(node)).get("state") == "ok" and found.get("armed") for node in SERVERS), "no witness", 20
        )


@pytest.fixture(scope="module")
def session_witnessed() -> Iterator[WitnessedCluster]:
    lab = Lab(prefixed("witnesstests"), disk_size_bytes=1 << 30)
    with tempfile.TemporaryDirectory(prefix="lockstep-tests-", dir="/var/tmp") as scratch, lab:
        cluster = WitnessedCluster(lab, Path(scratch), policy="consistency", third=f'etcd = ["{URL}"]')
        cluster.start_etcd()
        cluster.configure()
        cluster.bring_up()
        cluster.start_writer()
        yield cluster
        cluster.kill_etcd()
        kill_group(cluster.writer)


@pytest.fixture
def cluster(session_witnessed: WitnessedCluster) -> WitnessedCluster:
    session_witnessed.repair()
    session_witnessed.until_witnessed()
    return session_witnessed


def has_address(cluster: WitnessedCluster, node: str) -> bool:
    return VIP in cluster.lab.run(node, ["ip", "-4", "addr"]).stdout


def test_a_power_cut_of_the_primary_is_judged_by_the_witness(cluster: WitnessedCluster) -> None:
    cluster.lab.kill("node1")
    cluster.wait_state("node2", "ALONE", timeout_s=30)
    cluster.wait_acks()
    cluster.check_lines()
    assert cluster.witness("node2")["register"]["generation"] == cluster.rfs_status("node2")["generation"]  # type: ignore[index]
    cluster.boot("node1")
    cluster.settle()
    assert cluster.primary() == "node2"


def test_a_primary_that_is_cut_off_gives_way(cluster: WitnessedCluster) -> None:
    """It reaches neither its peer nor the witness: nobody had to be told by a ping."""
    for lan in ("lan", "repl"):
        cluster.lab.cut("node1", lan)
    cluster.wait_state("node2", "ALONE", timeout_s=40)
    cluster.wait_acks(50)
    assert cluster.rfs_status("node1")["mode"] == "frozen"
    cluster.until(lambda: not has_address(cluster, "node1"), "the address is still there", 20)
    cluster.lab.heal()
    cluster.wait_state("node1", "SECOND", timeout_s=60)
    cluster.settle()


def test_a_frozen_primary_is_fenced_when_it_is_thawed(cluster: WitnessedCluster) -> None:
    cluster.lab.freeze("node1")
    cluster.wait_state("node2", "ALONE", timeout_s=30)
    cluster.wait_acks()
    cluster.lab.thaw("node1")
    cluster.wait_state("node1", "SECOND", timeout_s=60)
    cluster.settle()


def test_a_witness_that_is_away(cluster: WitnessedCluster) -> None:
    """Nothing happens while the pair is healthy; with the peer lost too, writes wait, and go on by themselves."""
    cluster.kill_etcd()
    cluster.until(lambda: cluster.witness("node1")["state"] == "unreachable", "the loss of the witness is not seen", 15)
    status = cluster.status("node1")
    assert status is not None and status["failover"]["state"] == "blocked" and status["verdict"] == "redundant"
    cluster.wait_acks(50)
    cluster.lab.kill("node2")
    cluster.until(lambda: cluster.rfs_status("node1")["mode"] == "frozen", "nobody may go on now", 20)
    cluster.until(lambda: "witness" in cluster.row("node1")["reason"], "the reason is not told", 20)
    cluster.start_etcd()
    cluster.wait_state("node1", "ALONE", timeout_s=40)
    cluster.wait_acks()
    cluster.check_lines()
    cluster.boot("node2")
    cluster.settle()
