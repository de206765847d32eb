"""N-1: node1 and node2 each serve a module of their own, node3 is the backup of both. What happens to one pair the other does not feel."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lab.cluster import HEARTBEAT, PING, LabCluster
from orchestrator.lab.lab import Lab, kill_group, prefixed
from orchestrator.lab.plan import ADDRESSES
from rfs.keys import KeyStore

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

SERVERS = ("node1", "node2", "node3")
BACKUP = "node3"
CLUSTER = f"""\
name = "n-1"
heartbeat = {{ {HEARTBEAT} }}
[witness]
{PING}
""" + "".join(
    f"""[[node]]
name = "{node}"
addresses = {{ lan = "{ADDRESSES[node]["lan"]}", repl = "{ADDRESSES[node]["repl"]}" }}
"""
    for node in SERVERS
)
LIGHT = """\
mode = "light"
boot = "on"
[[service]]
name = "watch"
start = ["/bin/sleep", "infinity"]
"""


class Served(LabCluster):
    """One module, its writer, and what must always be true of them."""

    def __init__(self, lab: Lab, scratch: Path, name: str, primary: str, number: int) -> None:
        self.primary, self.vip, self.port = primary, f"10.77.0.{100 + number}", 7000 + number
        directory = f"/srv/{name}"
        self.ledger, self.acknowledged = f"{directory}/lines", scratch / name
        text = f"""\
nodes = ["{primary}", "{BACKUP}"]
replication_network = "repl"
default_primary = "{primary}"
max_restarts = "20 per 24h"
[[replicated]]
directory = "{directory}"
[[vip]]
address = "{self.vip}/24"
[[service]]
name = "ledger"
start = ["{sys.executable}", "-m", "orchestrator.lab.ledger", "serve", "{self.ledger}", "{self.port}"]
stop_signal = "TERM"
stop_timeout = "5s"
"""
        super().__init__(lab, name, text, [directory])

    def start_writer(self) -> None:
        words = [sys.executable, "-m", "orchestrator.lab.ledger", "write", self.vip, str(self.port), str(self.acknowledged)]
        self.writer = self.lab.spawn("client", words)

    def acks(self) -> dict[int, float]:
        """Line number -> when the writer was told of it."""
        text = self.acknowledged.read_text() if self.acknowledged.exists() else ""
        return {int(number): float(when) for number, when in (line.split() for line in text.rpartition("\n")[0].splitlines())}

    def wait_acks(self, more: int = 20) -> None:
        before = len(self.acks())
        self.until(lambda: len(self.acks()) >= before + more, f"the writer of {self.module} got no {more} more answers", 30)

    def longest_silence(self, since: float) -> float:
        times = [since, *sorted(when for when in self.acks().values() if when > since)]
        return max(after - before for before, after in zip(times, times[1:], strict=False))

    def check_lines(self, node: str) -> None:
        """Every acknowledged line is there exactly once."""
        told = self.acks()
        lines = Counter(int(line) for line in self.lab.run(node, ["cat", self.ledger]).stdout.splitlines())
        assert told and not [number for number in told if lines[number] != 1], f"lines of {self.module} are lost"

    def wait_whole(self, primary: str | None = None, timeout_s: float = 60) -> None:
        """Redundant, as both of its nodes say."""
        primary = primary or self.primary
        self.wait_state(next(node for node in (self.primary, BACKUP) if node != primary), "SECOND", timeout_s=timeout_s)
        self.wait_state(primary, "PRIM", timeout_s=timeout_s)

    def moved(self, node: str, after: int) -> list[str]:
        """What changed of this module on a node since."""
        return [event["text"] for event in self.events(node, after) if event["module"] == self.module and event["kind"] == "transition"]

    def describe(self) -> str:
        """For a failure's text."""
        lines = [f"  {node}: {self.row(node)}" for node in (self.primary, BACKUP)]
        for node in (self.primary, BACKUP):
            lines.append(self.lab.run(node, ["tail", "-n", "40", "/var/log/lockstep/hactld.log"], check=False).stdout)
        return "\n".join(lines)


class ThreeNodes:
    """Both modules."""

    def __init__(self, lab: Lab, scratch: Path) -> None:
        self.lab = lab
        self.a, self.b = Served(lab, scratch, "a", "node1", 0), Served(lab, scratch, "b", "node2", 1)

    def bring_up(self) -> None:
        """The configuration is written on node3, and comes to the others when they join it."""
        for served in (self.a, self.b):
            for node in (served.primary, BACKUP):
                self.lab.run(node, ["mkdir", "-p", *served.directories])
        self.lab.run(BACKUP, ["mkdir", "-p", "/etc/lockstep/modules"])
        self.a.put(BACKUP, "/etc/lockstep/cluster.toml", CLUSTER)
        for served in (self.a, self.b):
            self.a.put(BACKUP, f"/etc/lockstep/modules/{served.module}.toml", served.module_toml)
        self.a.put(BACKUP, "/etc/lockstep/modules/watch.toml", LIGHT)
        for served in (self.a, self.b):
            self.a.introduce(BACKUP, served.primary, ("--for", served.primary))
        for node in SERVERS:
            self.a.start_daemon(node)
        for served in (self.a, self.b):
            served.command(served.primary, "prim")
            served.command(BACKUP, "start")
        for served in (self.a, self.b):
            served.wait_whole()
            served.start_writer()

    def last_event(self, node: str) -> int:
        return max((event["number"] for event in self.a.events(node)), default=0)

    def settle(self) -> None:
        """As at the beginning."""
        for served in (self.a, self.b):
            served.wait_whole()
            served.wait_acks()
            served.check_lines(served.primary)
        self.a.until(self.all_heard, "not everybody is heard", 20)

    def all_heard(self) -> bool:
        return all(self.hears_all(node) for node in SERVERS)

    def hears_all(self, node: str) -> bool:
        """Its peers, on every network."""
        status = self.a.status(node)
        return status is not None and status["failover"]["state"] == "armed" and {*status["networks"].values()} == {"ok"}

    @contextmanager
    def deaf_to_each_other(self, one: str, other: str) -> Iterator[None]:
        """Heartbeats between these two are lost, and nothing else."""
        pairs = ((one, other), (other, one))
        for here, there in pairs:
            # Small kernels can redirect, not drop.
            self.lab.run(here, ["ip", "link", "add", "sink", "type", "veth", "peer", "name", "sink.end"])
            self.lab.run(here, ["ip", "link", "set", "sink", "up"])
            for lan in ("lan", "repl"):
                self.lab.run(here, ["tc", "qdisc", "add", "dev", lan, "clsact"])
                action = ["action", "mirred", "egress", "redirect", "dev", "sink"]
                match = ["u32", "match", "ip", "src", f"{ADDRESSES[there][lan]}/32", "match", "ip", "dport", "5599", "0xffff"]
                self.lab.run(here, ["tc", "filter", "add", "dev", lan, "ingress", "protocol", "ip", "prio", "1", *match, *action])
        try:
            yield
        finally:
            for here, _ in pairs:
                for lan in ("lan", "repl"):
                    self.lab.run(here, ["tc", "qdisc", "del", "dev", lan, "clsact"])
                self.lab.run(here, ["ip", "link", "del", "sink"])


@pytest.fixture(scope="module")
def three() -> Iterator[ThreeNodes]:
    lab = Lab(prefixed("three"), disk_size_bytes=1 << 29, nodes=3)
    with tempfile.TemporaryDirectory(prefix="lockstep-three-", dir="/var/tmp") as scratch, lab:
        nodes = ThreeNodes(lab, Path(scratch))
        nodes.bring_up()
        yield nodes
        for served in (nodes.a, nodes.b):
            kill_group(served.writer)


def hactl(three: ThreeNodes, node: str, *words: str) -> tuple[int, str]:
    ended = three.lab.run(node, ["hactl", *words], check=False)
    return ended.returncode, ended.stdout + ended.stderr


def test_each_node_knows_its_own_peers(three: ThreeNodes) -> None:
    assert [node["node"] for node in three.lab.status()["nodes"]] == ["node1", "node2", "client", "witness", "node3"]
    three.settle()
    documents: dict[str, dict[str, Any]] = {node: json.loads(hactl(three, node, "status", "-H", "all", "--json")[1]) for node in SERVERS}
    assert {node: [peer["node"] for peer in document["peers"]] for node, document in documents.items()} == {
        "node1": ["node3"], "node2": ["node3"], "node3": ["node1", "node2"],
    }  # fmt: skip
    assert {node: [module["name"] for module in document["modules"]] for node, document in documents.items()} == {
        "node1": ["a", "watch"], "node2": ["b", "watch"], "node3": ["a", "b", "watch"],
    }  # fmt: skip
    assert {document["verdict"] for document in documents.values()} == {"redundant"}
    assert not any(document["partial"] for document in documents.values())
    assert hactl(three, "node3", "status", "--check")[0] == 0
    code, said = hactl(three, "node1", "status", "-H", "node2")
    assert code == 2 and "node2 shares no mirror module with node1" in said
    code, said = hactl(three, "node1", "logs", "b")
    assert code == 2 and "module b does not run on node1 but on node2 and node3: ask there" in said
    assert hactl(three, "node3", "why", "b", "-H", "node2")[1].startswith("b is PRIM Ready on node2")
    assert hactl(three, "node1", "why", "a", "-H", "node3")[1].startswith("a is SECOND Ready on node3")


def test_a_light_module_on_all_of_them(three: ThreeNodes) -> None:
    """It lives beside a on node1 and node3, and beside b on node2; node1 and node2 know nothing of each other."""
    three.settle()

    def states(node: str) -> list[str]:
        status = three.a.status(node) or {"modules": []}
        return [line["state"] for module in status["modules"] if module["name"] == "watch" for line in module["nodes"]]

    seen = {"node1": ["UP", "UNKNOWN", "UP"], "node2": ["UNKNOWN", "UP", "UP"], "node3": ["UP", "UP", "UP"]}
    three.a.until(lambda: {node: states(node) for node in SERVERS} == seen, "not all are UP, or not known to be", 15)
    assert hactl(three, BACKUP, "stop", "watch", "-H", "all")[0] == 0
    three.a.until(lambda: states(BACKUP) == ["STOP", "STOP", "STOP"], "not all have stopped", 15)
    assert hactl(three, BACKUP, "start", "watch", "-H", "all", "--wait")[0] == 0
    code, said = hactl(three, "node1", "restart", "watch", "-H", "node2")
    assert code == 2 and "run the command on node2" in said


def test_a_command_finds_the_pair_of_its_module(three: ThreeNodes) -> None:
    three.settle()
    since = three.last_event("node2")
    assert hactl(three, BACKUP, "swap", "a", "--wait")[0] == 0
    three.a.wait_whole(BACKUP)
    assert hactl(three, BACKUP, "swap", "a", "--wait")[0] == 0
    three.settle()
    assert three.b.moved("node2", since) == []


def test_heartbeats_between_two_nodes_concern_nobody_else(three: ThreeNodes) -> None:
    three.settle()
    since, began = {node: three.last_event(node) for node in SERVERS}, time.monotonic()
    with three.deaf_to_each_other("node1", BACKUP):

        def silent() -> bool:
            status = three.a.status(BACKUP) or {"peers": []}
            return [peer["silent"] for peer in status["peers"]] == [True, False]

        three.a.until(silent, "node3 does not miss node1, or misses node2", 15)
        status = three.a.status(BACKUP)
        assert status is not None and {*status["networks"].values()} == {"silent"} and {*status["peers"][1]["networks"].values()} == {"ok"}
        three.b.wait_acks(100)
        assert three.hears_all("node2")
    three.settle()
    for node in ("node2", BACKUP):
        assert three.b.moved(node, since[node]) == []
    assert three.b.longest_silence(began) < 1.5


def test_the_backup_takes_one_and_then_both_and_gives_them_back(three: ThreeNodes) -> None:
    three.settle()
    since, began = {node: three.last_event(node) for node in SERVERS}, time.monotonic()
    three.lab.kill("node1")
    three.a.wait_state(BACKUP, "ALONE", timeout_s=30)
    three.a.wait_acks()
    three.b.wait_acks()
    assert three.b.row("node2")["state"] == "PRIM" and three.b.row(BACKUP)["state"] == "SECOND"
    for node in ("node2", BACKUP):
        assert three.b.moved(node, since[node]) == []
    assert three.b.longest_silence(began) < 1.5, "the death of node1 is not felt in module b"
    three.lab.kill("node2")
    three.b.wait_state(BACKUP, "ALONE", timeout_s=30)
    for served in (three.a, three.b):
        served.wait_acks()
        served.check_lines(BACKUP)
    document = three.a.status(BACKUP)
    assert document is not None and document["verdict"] == "degraded" and all(peer["silent"] for peer in document["peers"])
    assert {vip["node"] for module in document["modules"] for vip in module["vips"]} == {BACKUP}
    for node in ("node1", "node2"):
        three.a.boot(node)
    three.settle()  # default_primary gives both roles back


def test_a_new_key_of_the_backup_is_told_to_both(three: ThreeNodes) -> None:
    three.settle()
    code, said = hactl(three, BACKUP, "cluster", "rotate-keys")
    assert code == 0, said
    own = KeyStore(three.lab.path(BACKUP, "/etc/lockstep/keys")).own().known.pin
    for node in ("node1", "node2"):
        trust = KeyStore(three.lab.path(node, "/etc/lockstep/keys")).trust()
        assert [pinned.pin for pinned in trust.of(BACKUP)] == [own]
    since = {node: three.last_event(node) for node in SERVERS}
    three.settle()
    time.sleep(3.5)  # nobody may become silent now
    assert three.all_heard()
    assert three.a.moved(BACKUP, since[BACKUP]) == [] and three.b.moved(BACKUP, since[BACKUP]) == []
