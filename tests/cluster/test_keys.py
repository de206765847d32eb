"""Keys in a running cluster: replaced, revoked, and never to be seen; what is not the peer's is counted and changes nothing."""

from __future__ import annotations

import json
import re
import sys
import time

import pytest

from orchestrator.lab.cluster import SERVERS, LabCluster
from orchestrator.lab.lab import Lab, prefixed
from orchestrator.lab.plan import ADDRESSES
from orchestrator.lab.scenarios.pair import LedgerPair
from rfs.keys import KeyStore

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]

EVERYTHING_SAID = """
cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'
cat /var/log/lockstep/* 2>/dev/null
hactl status; hactl status --json; hactl status --json -H all; hactl events --json; hactl cluster show; hactl cluster show --json
hactl logs ledger; hactl config show
rfsmount status --state /var/lib/lockstep/modules/ledger --json; rfsmount keys show --keys /etc/lockstep/keys
"""


def keys_of(cluster: LabCluster, node: str) -> KeyStore:
    return KeyStore(cluster.lab.path(node, "/etc/lockstep/keys"))


def test_the_links_are_protected_and_nothing_secret_is_to_be_seen(cluster: LedgerPair) -> None:
    for node in SERVERS:
        status = cluster.status(node)
        assert status is not None and status["insecure"] is False
        assert not {"INSECURE", "NOT_PAIRED", "KEY_EXPIRES"} & {warning["code"] for warning in status["warnings"]}
        assert cluster.rfs_status(node)["insecure"] is False
    secret = [
        line
        for node in SERVERS
        for own in keys_of(cluster, node).every_own()
        for line in own.private.splitlines()
        if "-----" not in line and line
    ]
    assert len(secret) >= 4
    for node in SERVERS:
        said = cluster.lab.run(node, ["sh", "-c", EVERYTHING_SAID], check=False).stdout
        assert len(said) > 10_000 and "rfsmount" in said
        assert not [line for line in secret if line in said]


def test_keys_are_replaced_without_an_interruption(cluster: LedgerPair) -> None:
    before = {node: keys_of(cluster, node).own().known.pin for node in SERVERS}
    rfs = cluster.rfs_status("node1")
    began = time.monotonic()
    cluster.lab.run("node1", ["hactl", "cluster", "rotate-keys", "-H", "all"])
    cluster.wait_acks(100)
    assert cluster.longest_silence(began) < 1.0
    after = cluster.rfs_status("node1")
    assert (after["pid"], after["generation"], after["link"]) == (rfs["pid"], rfs["generation"], "paired")
    for node, other in (SERVERS, SERVERS[::-1]):
        own = keys_of(cluster, node).own().known.pin
        assert own != before[node] and len(keys_of(cluster, node).every_own()) == 1
        cluster.until(lambda: [pinned.pin for pinned in keys_of(cluster, other).trust().of(node)] == [own], "the old key still counts", 10)  # noqa: B023
    cluster.lab.run("node2", ["sh", "-c", "kill -9 $(cat /var/lib/lockstep/modules/ledger/rfsmount.pid)"])
    cluster.settle()  # new connections are made with the new keys
    assert cluster.all_heard()


def test_strangers_are_counted_and_change_nothing(cluster: LedgerPair) -> None:
    script = """
import socket, sys
host = sys.argv[1]
for data in (b"", b"GET / HTTP/1.0\\r\\n\\r\\n", b"\\x16\\x03\\x01\\x00\\x05hello"):
    with socket.create_connection((host, 5598), 5) as stream:
        try:
            stream.sendall(data)
            stream.recv(100)
        except OSError:
            pass
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pulse:
    for _ in range(20):
        pulse.sendto(b"LSHB\\2" + b"x" * 100, (host, 5599))
"""
    before = cluster.rfs_status("node1")
    cluster.lab.run("client", [sys.executable, "-c", script, ADDRESSES["node1"]["lan"]])
    cluster.until(lambda: sum((cluster.status("node1") or {}).get("refused", {}).values()) >= 20, "strangers are not counted", 10)
    assert cluster.rfs_status("node1")["link"] == "paired" and cluster.rfs_status("node1")["generation"] == before["generation"]
    assert cluster.all_heard()
    log = cluster.lab.run("node1", ["cat", "/var/log/lockstep/hactld.log"]).stdout
    assert len(re.findall(r"heartbeat dropped: unknown-address", log)) == 1, "logged once"


def test_a_revoked_node_is_out_until_it_is_paired_with_a_new_key(cluster: LedgerPair) -> None:
    refused = cluster.lab.run("node1", ["hactl", "cluster", "forget", "node2", "--yes"], check=False)
    assert refused.returncode == 6 and "is alive" in refused.stderr
    cluster.command("node2", "stop")
    cluster.wait_state("node1", "ALONE")
    cluster.lab.run("node1", ["hactl", "cluster", "forget", "node2", "--yes"])
    cluster.until(lambda: _codes(cluster, "node1") >= {"NOT_PAIRED"}, "nobody is told that the peer is not paired", 10)
    cluster.wait_acks()
    cluster.command("node2", "start")
    time.sleep(1.0)  # it knocks, and nobody opens
    cluster.wait_acks()
    assert cluster.row("node1")["state"] == "ALONE"
    old = cluster.lab.run("node1", ["sh", "-c", "timeout 3 hactl cluster init & sleep 1; wait"], check=False)
    assert "hactl cluster join" in old.stdout
    cluster.pair("--new-key")
    shown = json.loads(cluster.lab.run("node1", ["hactl", "cluster", "show", "--json"]).stdout)
    assert len(shown["keys"]["revoked"]) >= 1 and [peer["node"] for peer in shown["keys"]["peers"]] == ["node2"]
    cluster.settle()
    assert "NOT_PAIRED" not in _codes(cluster, "node1")


def _codes(cluster: LedgerPair, node: str) -> set[str]:
    return {warning["code"] for warning in (cluster.status(node) or {"warnings": []})["warnings"]}


def test_two_fresh_nodes_are_a_cluster_by_two_commands() -> None:
    """Two commands, nothing but addresses given; a wrong code and a third node are refused."""
    with Lab(prefixed("pairing"), disk_size_bytes=1 << 28) as lab:
        cluster = LabCluster(lab, "web", "", [], name="pairing")
        members = [f"{node},lan={ADDRESSES[node]['lan']},repl={ADDRESSES[node]['repl']}" for node in SERVERS]
        made = lab.run(
            "node1", ["sh", "-c", f"timeout 3 hactl cluster init --name fresh --member {members[0]} --member {members[1]}"], check=False
        )
        assert "hactl cluster join" in made.stdout and "void" not in made.stdout
        wrong = lab.run("node2", ["hactl", "cluster", "join", "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA@10.77.0.11"], check=False)
        assert wrong.returncode == 2 and "mistyped" in wrong.stderr
        assert cluster.pair() < 15.0  # four on a machine that has nothing else to do
        assert (
            lab.run("node2", ["cat", "/etc/lockstep/cluster.toml"]).stdout == lab.run("node1", ["cat", "/etc/lockstep/cluster.toml"]).stdout
        )
        assert "paired with node1" in lab.run("node2", ["hactl", "cluster", "show"]).stdout
