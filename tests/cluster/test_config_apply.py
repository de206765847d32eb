"""The life of a configuration in the lab: applied while a client writes, refused, rolled back, and with a node that dies in the middle."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.api.client import ApiFailure
from orchestrator.lab.cluster import SERVERS, VIP
from orchestrator.lab.scenarios.pair import MODULE, PORT, LedgerPair

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

FILE = f"/etc/lockstep/modules/{MODULE}.toml"
SECOND_VIP = "10.77.0.101"
STEPS = "/var/lib/lockstep/steps"


def config(cluster: LedgerPair, node: str, *words: str, code: int = 0) -> str:
    """`hactl config …`, as a person in a script; what it said on both streams."""
    done = cluster.lab.run(node, ["hactl", "config", *words], check=False)
    assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def state(cluster: LedgerPair, node: str) -> dict[str, Any]:
    return cluster.api(node).config()


def number(cluster: LedgerPair, node: str) -> int:
    return int(state(cluster, node)["applied"]["number"])


def text(cluster: LedgerPair, node: str) -> str:
    return cluster.lab.run(node, ["cat", FILE]).stdout


def wait_both(cluster: LedgerPair, wanted: int) -> None:
    """Both nodes run with this generation, and their files are its files."""

    def there() -> bool:
        try:
            found = [state(cluster, node) for node in SERVERS]
        except ApiFailure:  # it is just going on with the next one
            return False
        return all(each["applied"]["number"] == wanted and each["running"] and each["files"]["applied"] for each in found)

    cluster.until(there, f"not both nodes go on with generation {wanted}", 30)


def warnings(cluster: LedgerPair, node: str) -> list[str]:
    return [warning["code"] for warning in (cluster.status(node) or {"warnings": []})["warnings"]]


@pytest.fixture
def applied(cluster: LedgerPair) -> Iterator[LedgerPair]:
    """And afterwards the files are what they were, on both nodes."""
    before = text(cluster, "node1")
    wait_both(cluster, number(cluster, "node1"))
    yield cluster
    cluster.repair()
    cluster.put("node1", FILE, before)
    if "needs ledger stopped" in cluster.lab.run("node1", ["hactl", "config", "diff"], check=False).stdout:
        stop_all(cluster)
    config(cluster, "node1", "apply", "--yes", "--force-from-here")
    wait_both(cluster, number(cluster, "node1"))
    cluster.repair()
    assert text(cluster, "node2") == before


def stop_all(cluster: LedgerPair) -> None:
    cluster.lab.run("node1", ["hactl", "stop", MODULE, "-H", "all"])
    for node in SERVERS:
        cluster.wait_state(node, "STOP", None)


def test_a_timeout_and_an_address_are_applied_while_a_client_writes(applied: LedgerPair) -> None:
    cluster = applied
    first, pid = number(cluster, "node1"), cluster.service_pid("node1")
    new = text(cluster, "node1").replace('stop_timeout = "5s"', 'stop_timeout = "7s"')
    checker = f'[[checker]]\ntype = "tcp"\nname = "port"\nto = "{VIP}:{PORT}"\ninterval = "1s"\n'
    cluster.put("node1", FILE, new + f'[[vip]]\naddress = "{SECOND_VIP}/24"\n' + checker)
    cluster.until(lambda: "CONFIG_NOT_APPLIED" in warnings(cluster, "node1"), "status does not say so", 10)
    shown = config(cluster, "node1", "diff", code=1)
    assert "service[ledger].stop_timeout" in shown and "5s → 7s" in shown and f"vip[{SECOND_VIP}/24]" in shown
    assert "checker[tcp.port]" in shown and shown.count("applied live") == 3 and "+stop_timeout" in shown
    began, counts = time.monotonic(), cluster.last_numbers()
    said = config(cluster, "node1", "apply", "--yes", "--comment", "a second address")
    assert f"generation {first + 1} is applied" in said
    wait_both(cluster, first + 1)
    cluster.until(lambda: SECOND_VIP in cluster.lab.run("node1", ["ip", "-4", "-o", "addr"]).stdout, "the address does not come up", 15)

    def looks() -> bool:
        return "tcp.port is up" in [f"{each['resource']} is {each['state']}" for each in cluster.row("node1").get("checkers", ())]

    cluster.until(looks, "the checker does not look", 15)
    cluster.wait_acks(50)
    assert cluster.service_pid("node1") == pid, "the service was not touched"
    assert cluster.longest_silence(began) < 1.5
    for node in SERVERS:
        told = cluster.events(node, counts[node])
        moved = ("takeover", "grant", "fence", "vip-del", "rfs-start", "service-died")
        assert not [event for event in told if event["kind"] in moved], told
        assert [event["text"] for event in told if event["kind"] == "hactld"], told
    assert text(cluster, "node2") == text(cluster, "node1")
    assert "a second address" in config(cluster, "node2", "history")
    cluster.settle()
    assert cluster.primary() == "node1"


def test_what_needs_the_module_stopped_is_refused_while_it_runs_and_applied_when_it_does_not(applied: LedgerPair) -> None:
    cluster = applied
    first = number(cluster, "node1")
    cluster.put("node1", FILE, text(cluster, "node1").replace("[[vip]]", 'exclude = ["scratch/**"]\n[[vip]]', 1))
    said = config(cluster, "node1", "apply", "--yes", code=6)
    assert f"{MODULE} is PRIM on node1 and must be stopped for replicated[/srv/ledger].exclude: hactl stop {MODULE} -H all" in said
    assert number(cluster, "node1") == number(cluster, "node2") == first
    stop_all(cluster)
    config(cluster, "node1", "apply", "--dry-run", "--yes")
    assert number(cluster, "node2") == first
    config(cluster, "node1", "apply", "--yes")
    wait_both(cluster, first + 1)
    cluster.lab.run("node1", ["hactl", "start", MODULE, "-H", "all"])
    cluster.settle()


def test_a_rollback_is_a_generation_and_brings_the_files_of_both_nodes_back(applied: LedgerPair) -> None:
    cluster = applied
    before, first = text(cluster, "node1"), number(cluster, "node1")
    cluster.put("node2", FILE, before.replace('stop_timeout = "5s"', 'stop_timeout = "9s"'))
    config(cluster, "node2", "apply", "--yes")
    wait_both(cluster, first + 1)
    assert 'stop_timeout = "9s"' in text(cluster, "node1")
    config(cluster, "node1", "rollback", "--yes")
    wait_both(cluster, first + 2)
    assert text(cluster, "node1") == text(cluster, "node2") == before
    found = json.loads(config(cluster, "node2", "history", "--json"))["generations"]
    assert (found[-1]["digest"], found[-1]["comment"]) == (found[-3]["digest"], f"back to generation {first}")
    cluster.settle()


def test_an_address_that_another_machine_has_is_refused(applied: LedgerPair) -> None:
    cluster = applied
    first = number(cluster, "node1")
    cluster.lab.run("client", ["ip", "addr", "add", f"{SECOND_VIP}/24", "dev", "lan"])
    try:
        cluster.put("node1", FILE, text(cluster, "node1") + f'[[vip]]\naddress = "{SECOND_VIP}/24"\n')
        assert f"is in use by another machine ({SECOND_VIP}" in config(cluster, "node1", "apply", "--yes", code=6)
    finally:
        cluster.lab.run("client", ["ip", "addr", "del", f"{SECOND_VIP}/24", "dev", "lan"])
    assert number(cluster, "node1") == number(cluster, "node2") == first and not state(cluster, "node2")["promised"]
    cluster.settle()


def arm(cluster: LedgerPair, node: str, step: str) -> None:
    """This node's hactld dies at its next visit of the step (orchestrator/steps.py)."""
    cluster.kill_daemon(node)
    cluster.put(node, STEPS, f"{step}:kill:1")
    cluster.start_daemon(node, {"LOCKSTEP_STEPS": STEPS})
    cluster.wait_together()
    cluster.until(cluster.all_heard, "a network is still silent", 15)


def revive(cluster: LedgerPair, node: str, *, power: bool) -> None:
    """hactld died at its step, and perhaps the machine with it."""

    def dead() -> bool:
        return cluster.lab.run(node, ["pgrep", "-x", "hactld"], check=False).returncode != 0

    cluster.until(dead, "hactld did not die at its step", 15)
    cluster.lab.run(node, ["rm", "-f", STEPS])
    if power:
        cluster.lab.kill(node)
        cluster.boot(node)
    else:
        cluster.start_daemon(node)


@pytest.mark.parametrize(
    ("victim", "step", "code", "counts", "power"),
    [
        ("node1", "config-kept", 4, False, False),
        ("node1", "config-promised", 4, False, True),
        ("node1", "config-switched", 4, True, False),
        ("node1", "config-committed", 4, True, True),
        ("node2", "config-prepared", 5, False, True),
        ("node2", "config-switched", 0, True, False),
    ],
)
def test_a_node_that_dies_in_the_middle_comes_to_what_the_other_one_has(
    applied: LedgerPair, victim: str, step: str, code: int, counts: bool, power: bool
) -> None:
    cluster = applied
    arm(cluster, victim, step)
    before, first = text(cluster, "node1"), number(cluster, "node1")
    cluster.put("node1", FILE, before.replace('stop_timeout = "5s"', 'stop_timeout = "8s"'))
    config(cluster, "node1", "apply", "--yes", code=code)
    revive(cluster, victim, power=power)
    if not counts:  # node1's files are the new ones, and nothing is applied: put back what counts
        cluster.until(lambda: all(not state(cluster, node)["promised"] for node in SERVERS), "a promise is left", 20)
        assert [number(cluster, node) for node in SERVERS] == [first, first]
        assert text(cluster, "node2") == before
        cluster.put("node1", FILE, before)
    wait_both(cluster, first + counts)
    assert text(cluster, "node1") == text(cluster, "node2")
    assert state(cluster, "node1")["applied"]["digest"] == state(cluster, "node2")["applied"]["digest"]
    cluster.settle()


def test_a_node_that_was_switched_off_takes_what_was_applied_without_it(applied: LedgerPair) -> None:
    cluster = applied
    first = number(cluster, "node1")
    cluster.lab.kill("node2")
    cluster.wait_state("node1", "ALONE")
    cluster.put("node1", FILE, text(cluster, "node1").replace('stop_timeout = "5s"', 'stop_timeout = "6s"'))
    assert "--without-peer" in config(cluster, "node1", "apply", "--yes", code=5)
    said = config(cluster, "node1", "apply", "--yes", "--without-peer")
    assert f"generation {first + 1} is applied; node2 takes it as soon as it can" in said
    cluster.boot("node2")
    wait_both(cluster, first + 1)
    assert 'stop_timeout = "6s"' in text(cluster, "node2")
    cluster.settle()


def test_maintenance_opens_the_directories_of_a_stopped_module_and_keeps_it_from_starting(cluster: LedgerPair) -> None:
    refused = cluster.lab.run("node2", ["hactl", "module", "open", MODULE], check=False)
    assert refused.returncode == 6 and f"hactl stop {MODULE}" in refused.stderr
    cluster.lab.run("node2", ["hactl", "stop", MODULE])
    cluster.wait_state("node2", "STOP", None)
    assert cluster.lab.run("node2", ["touch", "/srv/ledger/mine"], check=False).returncode != 0, "the guard is there"
    cluster.lab.run("node2", ["hactl", "module", "open", MODULE])
    cluster.lab.run("node2", ["sh", "-c", "echo changed by hand > /srv/ledger/mine"])
    assert "MODULE_OPEN" in warnings(cluster, "node2")
    for again in (False, True):  # it outlives a boot
        refused = cluster.lab.run("node2", ["hactl", "start", MODULE], check=False)
        assert refused.returncode == 6 and f"hactl module close {MODULE}" in refused.stderr
        cluster.lab.run("node2", ["touch", "/srv/ledger/mine"])
        if not again:
            cluster.lab.kill("node2")
            cluster.wait_acks()
            cluster.boot("node2")
    cluster.lab.run("node2", ["hactl", "module", "close", MODULE])
    assert cluster.lab.run("node2", ["touch", "/srv/ledger/mine"], check=False).returncode != 0, "the guard is there again"
    assert "MODULE_OPEN" not in warnings(cluster, "node2")
    cluster.lab.run("node2", ["hactl", "start", MODULE])
    cluster.settle()
    assert cluster.lab.run("node2", ["ls", "/srv/ledger"]).stdout == cluster.lab.run("node1", ["ls", "/srv/ledger"]).stdout
    assert cluster.rfs_status("node1")["last_scope"] == "everything"
