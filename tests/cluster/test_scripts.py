"""Scripts in SafeKit's manner, a light module beside the mirror, and the words swap --nosync and prim --fullsync, in the lab."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from orchestrator.lab.cluster import SERVERS
from orchestrator.lab.scenarios.pair import LEDGER, LedgerPair

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]

SCRIPTS = "/etc/lockstep/modules/ledger"
CALLS = "/var/log/lockstep/calls"
NAMES = tuple(f"{verb}_{point}" for point in ("both", "prim", "second", "sec") for verb in ("start", "stop"))
SCRIPT = f"""#!/bin/sh
echo "$(basename "$0") $*" >> {CALLS}
$SAFE/safekit printi "$(basename "$0") on $LOCKSTEP_NODE"
"""
LIGHT = """
mode = "light"
[[service]]
name = "sleeper"
start = ["/usr/bin/sleep", "100000"]
"""


@pytest.fixture
def scripted(cluster: LedgerPair) -> Iterator[LedgerPair]:
    """All script points on both nodes, as one that writes down how it was called."""
    cluster.lab.run("node1", ["mkdir", "-p", SCRIPTS])
    for name in ("prestart", "poststop", "transition", *NAMES):
        cluster.put("node1", f"{SCRIPTS}/{name}", SCRIPT)
    cluster.lab.run("node1", ["chmod", "-R", "755", SCRIPTS])
    cluster.apply()
    cluster.wait_redundant("node1")
    for node in SERVERS:
        cluster.lab.run(node, ["sh", "-c", f": > {CALLS}"])
    yield cluster
    cluster.lab.run("node1", ["rm", "-r", SCRIPTS])
    cluster.apply()


def calls(cluster: LedgerPair, node: str) -> list[str]:
    """Since the last look, without the announcements."""
    found = cluster.lab.run(node, ["sh", "-c", f"cat {CALLS}; : > {CALLS}"]).stdout.splitlines()
    return [line for line in found if not line.startswith("transition")]


def test_a_swap_calls_the_scripts_in_order_with_their_arguments(scripted: LedgerPair) -> None:
    scripted.swap("node1")
    scripted.wait_redundant("node2")
    scripted.until(lambda: "start_sec " in scripted.lab.run("node1", ["cat", CALLS]).stdout, "start_sec was not called", 10)
    assert calls(scripted, "node1") == [
        "stop_prim PRIM SECOND swap", "stop_prim force PRIM SECOND swap", "start_second PRIM SECOND start", "start_sec PRIM SECOND start",
    ]  # fmt: skip
    told = calls(scripted, "node2")
    assert [line.split()[0] for line in told] == ["stop_sec", "stop_sec", "stop_second", "stop_second", "start_prim"]
    assert told[0].startswith("stop_sec SECOND PRIM") and told[-1].endswith("PRIM start")
    history = scripted.lab.run("node2", ["hactl", "history", "ledger", "-n", "50"]).stdout
    assert "start_prim on node2" in history, "what a script says with printi"
    runs = scripted.lab.run("node2", ["hactl", "logs", "--runs", "ledger"]).stdout.split()
    assert sum(run.endswith("_start_prim") for run in runs) == 1
    scripted.settle()


def test_a_stop_and_a_start_call_everything_once_and_a_restarted_hactld_nothing(scripted: LedgerPair) -> None:
    scripted.kill_daemon("node2")
    scripted.start_daemon("node2")
    scripted.wait_state("node2", "SECOND")
    assert calls(scripted, "node2") == []
    scripted.command("node2", "stop")
    scripted.wait_state("node2", "STOP", None)
    assert calls(scripted, "node2") == [
        f"{name}{force} {'WAIT' if name == 'poststop' else 'SECOND'} STOP stop"
        for name in ("stop_sec", "stop_second", "stop_both", "poststop")
        for force in ("", " force")
    ]
    scripted.command("node2", "start")
    scripted.wait_state("node2", "SECOND")
    scripted.until(lambda: "start_sec " in scripted.lab.run("node2", ["cat", CALLS]).stdout, "start_sec was not called", 10)
    assert [line.split()[0] for line in calls(scripted, "node2")] == ["prestart", "start_both", "start_second", "start_sec"]
    scripted.settle()


def test_a_prestart_that_says_no_keeps_the_node_down_until_it_says_yes(scripted: LedgerPair) -> None:
    scripted.command("node2", "stop")
    scripted.wait_state("node2", "STOP", None)
    scripted.put("node1", f"{SCRIPTS}/prestart", "#!/bin/sh\necho no licence; exit 3\n")
    scripted.apply()
    scripted.command("node2", "start")
    scripted.until(lambda: "prestart ended with exit code 3" in scripted.row("node2")["reason"], "no reason is shown", 10)
    assert scripted.row("node2")["state"] == "WAIT"
    assert "no licence" in scripted.lab.run("node2", ["hactl", "logs", "ledger"]).stdout
    scripted.put("node1", f"{SCRIPTS}/prestart", "#!/bin/sh\nexit 0\n")
    scripted.apply()
    scripted.settle()


def test_a_light_module_beside_the_mirror(cluster: LedgerPair) -> None:
    def shown(node: str) -> list[str]:
        document = cluster.status(node) or {"modules": []}
        lines = [line for module in document["modules"] if module["name"] == "watcher" for line in module["nodes"]]
        return [f"{line['node']} {line['state']} {line['readiness']}" for line in lines]

    cluster.put("node1", "/etc/lockstep/modules/watcher.toml", LIGHT)
    cluster.apply()
    try:
        cluster.wait_redundant("node1")
        cluster.api("node1").command("watcher", "start", {}, "all")
        both = ["node1 UP Ready", "node2 UP Ready"]
        cluster.until(lambda: shown("node1") == both == shown("node2"), "watcher is not UP on both", 15)
        cluster.lab.run("node1", ["pkill", "-9", "-x", "sleep"])
        cluster.until(lambda: "node1 UP Ready" not in shown("node1"), "its death is not noticed", 5)
        cluster.until(lambda: shown("node1") == both, "it is not started again", 15)
        refused = cluster.lab.run("node1", ["hactl", "swap", "watcher"], check=False)
        assert refused.returncode == 6, refused.stderr
        cluster.lab.run("node2", ["hactl", "stop", "watcher"])
        cluster.until(lambda: shown("node1") == ["node1 UP Ready", "node2 STOP NotReady"], "node2 does not stop", 10)
        listed = json.loads(cluster.lab.run("node1", ["hactl", "status", "watcher", "--json"]).stdout)
        assert listed["verdict"] == "degraded"
        cluster.lab.run("node1", ["hactl", "stop", "watcher"])
        cluster.until(lambda: shown("node2") == ["node1 STOP NotReady", "node2 STOP NotReady"], "node1 does not stop", 10)
    finally:
        cluster.lab.run("node1", ["rm", "/etc/lockstep/modules/watcher.toml"])
        cluster.apply()
    cluster.settle()


def test_prim_fullsync_compares_the_whole_copy(cluster: LedgerPair) -> None:
    cluster.lab.run("node1", ["hactl", "prim", "--fullsync", "ledger"])
    cluster.until(lambda: cluster.rfs_status("node1")["last_scope"] == "everything", "no session compared everything", 30)
    cluster.settle()
    assert cluster.primary() == "node1"


def test_swap_nosync_serves_the_old_copy_and_loses_nothing(cluster: LedgerPair) -> None:
    cluster.lab.cut("node1", "repl")
    cluster.wait_state("node1", "ALONE", timeout_s=30)
    cluster.wait_acks(50)
    cluster.pause_writer(True)
    try:
        assert cluster.lab.run("node1", ["hactl", "swap", "ledger"], check=False).returncode == 6
        cluster.lab.run("node1", ["hactl", "swap", "--nosync", "ledger"])
        cluster.wait_state("node2", "ALONE", timeout_s=40)
        cluster.wait_state("node1", "WAIT", None, timeout_s=20)
        old = set(cluster.lab.run("node2", ["cat", LEDGER]).stdout.split())
        missing = [number for number in cluster.acks() if str(number) not in old]
        assert len(missing) >= 50, "node2 has what it had"
        cluster.lab.heal()
        cluster.until(lambda: (cluster.status("node1") or {})["verdict"] == "diverged", "the two do not say that they differ", 40)
        cluster.command("node2", "stop")
        cluster.wait_state("node2", "STOP", None)
        cluster.lab.run("node1", ["hactl", "prim", "--force", "ledger"], check=False)
        cluster.wait_state("node1", "ALONE", timeout_s=30)
        cluster.lab.run("node2", ["hactl", "second", "--fullsync", "ledger"])
    finally:
        cluster.pause_writer(False)
    cluster.wait_redundant("node1", timeout_s=60)
    cluster.settle()
