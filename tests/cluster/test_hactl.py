"""hactl as an administrator has it: real daemons on both nodes, real users at the socket, a divergence from its beginning to its end."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from orchestrator.api.client import ApiClient
from orchestrator.hactl.cli import PLACES
from orchestrator.lab.cluster import SERVERS, LabCluster, ledger_module
from orchestrator.lab.lab import Lab, prefixed
from tests.unit.schemas import check

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]

DIRECTORY = "/srv/ledger"
ACCESS = '\n[access]\nviewer = ["daemon"]\noperator = ["%games"]\n'


@pytest.fixture(scope="module")
def cluster() -> Iterator[LabCluster]:
    """A pair without a writer: here it may also lose what was written."""
    lab = Lab(prefixed("hactl"))
    try:
        lab.up()
        cluster = LabCluster(lab, "ledger", ledger_module(DIRECTORY, 7000, "3 per 24h"), [DIRECTORY])
        cluster.configure()
        cluster.put("node1", "/etc/lockstep/cluster.toml", lab.run("node1", ["cat", "/etc/lockstep/cluster.toml"]).stdout + ACCESS)
        cluster.put("node2", "/etc/lockstep/cluster.toml", lab.run("node1", ["cat", "/etc/lockstep/cluster.toml"]).stdout)
        cluster.bring_up()
        yield cluster
    finally:
        lab.down()


def hactl(cluster: LabCluster, node: str, *words: str, as_user: tuple[str, ...] = (), code: int = 0) -> subprocess.CompletedProcess[str]:
    done = cluster.lab.run(node, [*as_user, "hactl", *words], check=False, timeout_s=120)
    assert done.returncode == code, f"hactl {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


DAEMON = ("setpriv", "--reuid", "daemon", "--regid", "daemon", "--clear-groups")
GAMER = ("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--groups", "games")
NOBODY = ("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups")

JSON = [
    (("status",), "hactl.status/1"), (("status", "-H", "all"), "hactl.status/1"), (("status", "-H", "node2"), "hactl.status/1"),
    (("data",), "hactl.data/1"), (("data", "-H", "all"), "hactl.nodes/1"), (("why",), "hactl.why/1"),
    (("why", "-H", "all"), "hactl.nodes/1"),
    (("simulate", "peer-dies"), "hactl.simulate/1"), (("swap", "--dry-run"), "hactl.simulate/1"), (("events",), "hactl.events/1"),
    (("events", "-H", "all"), "hactl.history/1"), (("history", "-H", "all"), "hactl.history/1"), (("logs",), "hactl.log/1"),
    (("logs", "-H", "all"), "hactl.logs/1"), (("pause",), "hactl.answer/1"), (("resume",), "hactl.answer/1"),
    (("boot", "config"), "hactl.answer/1"), (("verify",), "hactl.summary/1"), (("resync",), "hactl.summary/1"),
    (("resync", "--full"), "hactl.summary/1"), (("verify", "--repair"), "hactl.summary/1"), ((), "hactl.status/1"),
    (("checkers",), "hactl.checkers/1"), (("config", "check"), "hactl.config/1"), (("config", "history"), "hactl.config-history/1"),
    (("config", "diff"), "hactl.config-diff/1"), (("module", "show", "ledger"), "hactl.module/1"), (("cluster", "show"), "hactl.cluster/1"),
    (("drill", "--one-way"), "hactl.drill/1"), (("drill", "--one-way"), "hactl.drill/1"), (("explain", "PRIM"), "hactl.explanation/1"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "schema"), JSON, ids=[f"{at}-{' '.join(words)}" for at, (words, _) in enumerate(JSON)])
def test_what_a_command_prints_is_what_its_schema_says(cluster: LabCluster, words: tuple[str, ...], schema: str) -> None:
    out = hactl(cluster, "node2", *words, "--json").stdout
    try:
        documents = [json.loads(out)]
    except ValueError:
        documents = [json.loads(line) for line in out.splitlines()]  # progress, then the summary
    assert [check(document) for document in documents][-1] == schema
    if "drill" not in words:
        assert "\x1b" not in hactl(cluster, "node1", *words, "-o", "plain").stdout
        assert "\x1b" not in hactl(cluster, "node1", *words).stdout


def test_the_table_of_a_healthy_pair(cluster: LabCluster) -> None:
    hactl(cluster, "node1", "wait", "--for", "redundant", "-H", "all")
    head, _, names, first, second, vip = hactl(cluster, "node2", "status").stdout.splitlines()
    assert head.startswith("Cluster lab   redundant ✔   automatic failover: armed   ")
    assert names.split() == ["MODULE", "NODE", "ROLE", "DATA", "LINK", "APP", "SINCE"]
    assert first.split()[:8] == ["ledger", "node1", "●", "PRIM", "up", "to", "date", "ok"] and " running " in first
    assert second.split()[:8] == ["ledger", "node2", "●", "SECOND", "up", "to", "date", "ok"]
    assert vip == "VIP 10.77.0.100/24 (ledger) on node1"
    assert hactl(cluster, "node1", "status", "--nagios").stdout.startswith("LOCKSTEP OK - lab: ledger PRIM on node1, redundant")


def test_who_may_what(cluster: LabCluster) -> None:
    assert "redundant" in hactl(cluster, "node1", "status", as_user=DAEMON).stdout
    refused = hactl(cluster, "node1", "swap", as_user=DAEMON, code=8).stderr
    assert refused == "hactl: 'swap' needs the role operator, and daemon has the role viewer; root may, and members of games\n"
    assert "you have no role here" in hactl(cluster, "node1", "status", as_user=NOBODY, code=8).stderr
    assert "needs the role admin" in hactl(cluster, "node1", "prim", "--force", as_user=GAMER, code=8).stderr
    hactl(cluster, "node2", "swap", "--wait", as_user=GAMER)  # asked of node2, done by node1
    assert cluster.row("node2")["state"] == "PRIM"
    *_, told = [event for event in cluster.events("node1") if event["kind"] == "command" and event["text"].startswith("swap: ")]
    assert (told["who"], told["role"]) == ("nobody (operator) on node2", "operator")
    hactl(cluster, "node1", "swap", "--wait", "--yes")
    cluster.wait_redundant("node1")


def test_the_stream_of_both_nodes_over_a_restart(cluster: LabCluster) -> None:
    """What happens on either node arrives once, in a reader that was there before hactld was killed."""
    follow = "exec timeout 60 hactl events -f -H all -o jsonl --since 1s > /tmp/followed 2>/tmp/said"
    reader = cluster.lab.spawn("node1", ["sh", "-c", follow])

    def followed() -> list[dict[str, object]]:
        return [json.loads(line) for line in cluster.lab.run("node1", ["cat", "/tmp/followed"], check=False).stdout.splitlines()]

    def until(text: str) -> None:
        cluster.until(lambda: any(text in str(event["text"]) for event in followed()), f"'{text}' does not arrive", 30)

    time.sleep(0.5)  # it is a process of its own: nothing says that it listens
    hactl(cluster, "node2", "checkers", "off")
    until("checkers-off")
    cluster.kill_daemon("node1")
    cluster.start_daemon("node1")
    hactl(cluster, "node2", "checkers", "on")
    until("checkers-on")
    reader.terminate()
    numbers = [(event["node"], event["number"]) for event in followed()]
    assert len(numbers) == len(set(numbers)), "nothing came twice"
    assert {event["node"] for event in followed()} == set(SERVERS)
    assert "waiting for it" in cluster.lab.run("node1", ["cat", "/tmp/said"]).stdout


def test_a_divergence_from_its_beginning_to_its_end(cluster: LabCluster) -> None:
    cluster.wait_redundant("node1")
    hactl(cluster, "node2", "stop", "--wait")
    cluster.lab.run("node1", ["sh", "-c", f"echo one > {DIRECTORY}/of-node1"])
    assert "current" in hactl(cluster, "node1", "status").stdout
    hactl(cluster, "node1", "stop", "--wait")
    hactl(cluster, "node2", "prim", "--force", "--wait")
    cluster.lab.run("node2", ["sh", "-c", f"echo two > {DIRECTORY}/of-node2"])
    hactl(cluster, "node1", "start")
    hactl(cluster, "node2", "wait", "--for", "diverged")
    shown = hactl(cluster, "node2", "status", "--check", code=12).stdout
    assert shown.count("DIVERGED  DIVERGED") == 2 and "up to date" not in shown and "hactl resolve ledger --keep NODE" in shown
    assert "hactl resolve ledger --keep NODE" in hactl(cluster, "node1").stdout
    refused = hactl(cluster, "node1", "resync", code=6).stderr
    assert "no resync ends that" in refused
    dry = hactl(cluster, "node1", "resolve", "--keep", "node2", "--dry-run").stdout
    assert f"only on node1: {DIRECTORY}/of-node1" in dry and f"only on node2: {DIRECTORY}/of-node2" in dry
    done = hactl(cluster, "node1", "resolve", "--keep", "node2", "--wait").stdout
    assert "node1 gives its data up" in done
    cluster.wait_redundant("node2")
    kept = json.loads(hactl(cluster, "node1", "data", "--json").stdout)["kept"]
    assert cluster.lab.run("node1", ["cat", f"{kept[-1]['path']}/0/of-node1"]).stdout == "one\n"
    assert cluster.lab.run("node2", ["ls", DIRECTORY]).stdout.split() == ["lines", "of-node2"]
    hactl(cluster, "node1", "verify")
    hactl(cluster, "node1", "swap", "--wait")


def test_a_node_that_is_away(cluster: LabCluster) -> None:
    """The lines of the one that is there come first; then 5, and who was silent."""
    cluster.wait_redundant("node1")
    cluster.lab.kill("node2")
    cluster.wait_state("node1", "ALONE")
    for words in (("status",), ("data",), ("why",), ("logs",), ("events",), ("history",)):
        done = hactl(cluster, "node1", *words, "-H", "all", code=5)
        assert done.stdout and "did not answer" in done.stderr, words
    shown = hactl(cluster, "node1", "status").stdout
    assert " current " in shown and " stale since " in shown and " up to date  " not in shown
    assert hactl(cluster, "node1", "status", "--nagios", code=1).stdout.startswith("LOCKSTEP WARNING")
    assert "no resync of ledger runs" in hactl(cluster, "node1", "resync", code=5).stderr
    cluster.boot("node2")
    hactl(cluster, "node1", "resync", "--wait")
    cluster.wait_redundant("node1")


def test_every_command_has_help_and_starts_with_what_it_is_for(cluster: LabCluster) -> None:
    for name in PLACES:
        shown = hactl(cluster, "node1", name, "--help").stdout
        assert shown.startswith(f"Usage: hactl {name}") and len(shown.splitlines()) > 4
    assert isinstance(cluster.api("node1"), ApiClient)
