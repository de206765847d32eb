"""With a witness: row W1 of the catalogue, and every fault that without one is a matter of policy."""

from __future__ import annotations

import json
import shutil
import subprocess

from orchestrator.lab.cluster import SERVERS
from orchestrator.lab.lab import kill_group
from orchestrator.lab.plan import ADDRESSES
from orchestrator.lab.scenarios.cables import isolate, part
from orchestrator.lab.scenarios.pair import LedgerPair
from orchestrator.lab.scenarios.scenario import EITHER, Impossible, Stage, expect, scenario

HOST = ADDRESSES["witness"]["lan"]
URL = f"http://{HOST}:2379"
DATA = "/var/lib/lockstep/etcd"  # on that machine's disk
WITNESSED = Stage("witnessed", policy="consistency", third=f'etcd = ["{URL}"]', etcd=True)
ETCD: dict[str, subprocess.Popen[bytes]] = {}  # by the lab's name


def start_etcd(pair: LedgerPair) -> None:
    """On the third machine."""
    if shutil.which("etcd") is None:
        raise Impossible("etcd is not installed here (Debian: apt-get install etcd-server)")
    peers = f"http://{HOST}:2380"
    command = [
        "etcd", "--data-dir", DATA, "--listen-client-urls", URL, "--advertise-client-urls", URL, "--listen-peer-urls", peers,
        "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}",
    ]  # fmt: skip
    ETCD[pair.lab.name] = pair.lab.spawn("witness", command)


def kill_etcd(pair: LedgerPair) -> None:
    """Where it runs."""
    if (running := ETCD.pop(pair.lab.name, None)) is not None:
        kill_group(running)
    pair.lab.run("witness", ["pkill", "-9", "-x", "etcd"], check=False)


def asked(pair: LedgerPair, node: str) -> dict[str, str]:
    """`hactl witness status`, as typed there."""
    found = pair.lab.run(node, ["hactl", "witness", "status", "--json"], check=False)
    return dict(json.loads(found.stdout)[0]) if found.returncode == 0 else {"state": found.stderr}


def until_witnessed(pair: LedgerPair) -> None:
    """Both see it, and its register exists: the next loss can be judged."""
    pair.until(lambda: all((found := asked(pair, node)).get("state") == "ok" and found.get("armed") for node in SERVERS), "no witness", 20)


@scenario(
    "witnessed-power-cut",
    "the primary loses power: the witness grants, whatever the policy says",
    "W1 P3",
    stage=WITNESSED,
    serves="node2",
    silence_s=9,
    moves=1,
)
def witnessed_power_cut(pair: LedgerPair) -> None:
    pair.power_off("node1")
    pair.wait_state("node2", "ALONE")
    pair.wait_acks()
    pair.check_lines()
    register = asked(pair, "node2")["register"]
    expect(register["generation"] == pair.rfs_status("node2")["generation"], "the witness names another one", pair)  # type: ignore[index]
    pair.boot("node1")


@scenario(
    "witnessed-isolation",
    "the primary reaches neither its peer nor the witness: it gives way",
    "W1 N1 S13",
    stage=WITNESSED,
    serves="node2",
    silence_s=12,
    moves=1,
)
def witnessed_isolation(pair: LedgerPair) -> None:
    isolate(pair, "node1")
    pair.wait_state("node2", "ALONE", timeout_s=40)
    pair.wait_acks(50)
    expect(pair.rfs_status("node1")["mode"] == "frozen", "it went on", pair)
    pair.until(lambda: not pair.has_address("node1"), "the address is still there", 20)
    pair.lab.heal()
    pair.wait_state("node1", "SECOND", timeout_s=60)


@scenario(
    "witnessed-freeze",
    "the primary stands still, and is fenced when it goes on",
    "W1 P2 T2",
    stage=WITNESSED,
    serves="node2",
    silence_s=12,
    moves=1,
)
def witnessed_freeze(pair: LedgerPair) -> None:
    pair.lab.freeze("node1")
    pair.wait_state("node2", "ALONE")
    pair.wait_acks()
    pair.lab.thaw("node1")
    pair.wait_state("node1", "SECOND", timeout_s=60)


@scenario(
    "witnessed-split-brain",
    "the nodes lose only each other: exactly one goes on",
    "W1 N1 S10 S18",
    stage=WITNESSED,
    serves=EITHER,
    silence_s=15,
    moves=1,
)
def witnessed_split_brain(pair: LedgerPair) -> None:
    part(pair)
    pair.until(lambda: len(alone(pair)) == 1, "nobody goes on", 30)
    pair.wait_acks(50)
    expect(len(alone(pair)) == 1, "both went on", pair)
    pair.lab.heal()
    pair.until(lambda: (pair.status("node1") or {}).get("verdict") == "redundant", "the other one does not come back by itself", 60)


def alone(pair: LedgerPair) -> list[str]:
    """Who acknowledges by itself."""
    return [node for node in SERVERS if pair.rfs_status(node)["mode"] in ("alone", "resyncing", "unused")]


@scenario(
    "witness-away",
    "no witness: nothing happens to a healthy pair; with the peer lost too, writes wait, and go on by themselves",
    "W1",
    stage=WITNESSED,
)
def witness_away(pair: LedgerPair) -> None:
    kill_etcd(pair)
    pair.until(lambda: asked(pair, "node1")["state"] == "unreachable", "the loss of the witness is not seen", 15)
    status = pair.status("node1")
    expect(status is not None and status["failover"]["state"] == "blocked" and status["verdict"] == "redundant", "not blocked", pair)
    pair.wait_acks(50)
    pair.power_off("node2")
    pair.until(lambda: pair.rfs_status("node1")["mode"] == "frozen", "nobody may go on now", 20)
    pair.until(lambda: "witness" in pair.row("node1")["reason"], "the reason is not told", 20)
    start_etcd(pair)
    pair.wait_state("node1", "ALONE", timeout_s=40)
    pair.wait_acks()
    pair.check_lines()
    pair.boot("node2")


@scenario("witness-frozen", "the witness stands still while the pair is healthy, and goes on", "W1", stage=WITNESSED, silence_s=1)
def witness_frozen(pair: LedgerPair) -> None:
    pair.lab.freeze("witness")
    pair.until(lambda: asked(pair, "node1")["state"] != "ok", "its silence is not seen", 20)
    pair.wait_acks(50)
    pair.lab.thaw("witness")
    until_witnessed(pair)
