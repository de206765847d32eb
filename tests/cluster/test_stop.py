"""`hactl stop` of applications that do not want to end: it ends, nothing of them is left, the other node serves, no line is lost.

The service of this module is a shell that starts the ledger and does what a scenario says besides (a file says it): ignore SIGTERM, leave
orphans in sessions of their own, hang in the mount of an rfsmount that does not answer.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.effects.ending import KILL_PATIENCE_S
from orchestrator.lab.cgroups import unified_root
from orchestrator.lab.cluster import SERVERS, VIP
from orchestrator.lab.lab import Lab, kill_group, prefixed
from orchestrator.lab.scenarios.pair import DIRECTORY, PORT, LedgerPair

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]

STOP_TIMEOUT_S = 2.0
SCRIPT = "/etc/lockstep/application"
# An orphan's parents are dead, its session is its own, and it ignores SIGTERM; it stands outside of the mount, as a daemon does.
APPLICATION = f"""\
#!/bin/sh
case "$(cat /etc/lockstep/behaviour 2>/dev/null)" in
deaf) trap "" TERM ;;
orphans)
    trap "" TERM
    for number in 1 2 3; do
        setsid sh -c 'cd /; setsid sh -c "trap \\"\\" TERM HUP; exec -a lockstep-orphan sleep 1000" & exit' &
    done ;;
esac
exec {sys.executable} -m orchestrator.lab.ledger serve {DIRECTORY}/lines {PORT}
""".replace("exec -a lockstep-orphan sleep 1000", "while :; do sleep 0.5; done; : lockstep-orphan")
# The ledger resets nothing: a signal that is ignored when it starts stays ignored.

MODULE = f"""\
mode = "mirror"
nodes = ["node1", "node2"]
replication_network = "repl"
boot = "auto"
max_restarts = "20 per 24h"
port = 5600
[[replicated]]
directory = "{DIRECTORY}"
[[vip]]
address = "{VIP}/24"
[[service]]
name = "ledger"
start = ["/bin/sh", "{SCRIPT}"]
stop_timeout = "{STOP_TIMEOUT_S:.0f}s"
"""


@pytest.fixture(scope="module")
def built() -> Iterator[LedgerPair]:
    """Built once for these scenarios."""
    lab = Lab(prefixed("stops"), disk_size_bytes=1 << 30)
    with tempfile.TemporaryDirectory(prefix="lockstep-stops-", dir="/var/tmp") as scratch, lab:
        cluster = LedgerPair(lab, Path(scratch))
        cluster.module_toml = MODULE
        for node in SERVERS:
            cluster.put(node, SCRIPT, APPLICATION)
        cluster.configure()
        cluster.bring_up()
        cluster.start_writer()
        yield cluster
        kill_group(cluster.writer)


def behave(cluster: LedgerPair, behaviour: str) -> None:
    """The application of node1 is started anew, like this."""
    cluster.put("node1", "/etc/lockstep/behaviour", behaviour)
    cluster.command("node1", "restart")
    cluster.wait_redundant("node1")
    cluster.wait_acks()


def left(cluster: LedgerPair, node: str) -> list[str]:
    """What still runs of the application."""
    lines = cluster.lab.run(node, ["ps", "-eo", "pid,stat,args"]).stdout.splitlines()  # a zombie runs no more, but with threads
    ours = [line for line in lines if "lab.ledger" in line or "lockstep-orphan" in line or line.endswith("<defunct>")]
    return [line for line in ours if not line.split()[1].startswith("Z") or "l" in line.split()[1]]


def silent(cluster: LedgerPair, for_s: float) -> bool:
    """Was no line acknowledged for so long?"""
    return time.monotonic() - max(cluster.acks().values()) > for_s


def said(cluster: LedgerPair, since: int, kind: str) -> list[str]:
    return [event["text"] for event in cluster.events("node1", since) if event["kind"] == kind]


def newest(cluster: LedgerPair) -> int:
    return max((int(event["number"]) for event in cluster.events("node1")), default=0)


@pytest.fixture
def cluster(built: LedgerPair) -> LedgerPair:
    """Redundant, node1 PRIM, an application that behaves."""
    built.put("node1", "/etc/lockstep/behaviour", "well")
    built.repair()
    return built


def stop(cluster: LedgerPair) -> float:
    """On node1; how long until it says that it is stopped, while node2 serves."""
    began = time.monotonic()
    cluster.command("node1", "stop")
    cluster.wait_state("node1", "STOP", None, timeout_s=60)
    lasted_s = time.monotonic() - began
    cluster.wait_state("node2", "ALONE", timeout_s=15)
    cluster.wait_acks()
    assert left(cluster, "node1") == []
    cluster.check_lines()
    return lasted_s


def test_the_service_has_a_cgroup_of_its_own_below_hactlds(cluster: LedgerPair) -> None:
    if unified_root() is None:
        pytest.skip("no unified cgroup hierarchy can be written here")
    script = "cat /run/lockstep/services/ledger.ledger.group; echo; "
    script += 'cat /proc/$(pgrep -x hactld)/cgroup /proc/$(pgrep -f "[l]ab.ledger")/cgroup'
    noted, *lines = cluster.lab.run("node1", ["sh", "-c", script]).stdout.splitlines()
    hactld, service = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    assert service.startswith(f"{hactld}/lockstep/ledger.ledger."), (hactld, service)
    assert service in noted


@pytest.mark.parametrize("behaviour", ["deaf", "orphans"])
def test_who_does_not_hear_is_killed(cluster: LedgerPair, behaviour: str) -> None:
    behave(cluster, behaviour)
    assert len(left(cluster, "node1")) == (4 if behaviour == "orphans" else 1)
    since = newest(cluster)
    assert stop(cluster) < STOP_TIMEOUT_S + KILL_PATIENCE_S
    assert any("did not end after 2.0 s" in text for text in said(cluster, since, "service-stop"))
    assert any("freezing and killing" in text for text in said(cluster, since, "service-kill"))
    assert said(cluster, since, "rfs-abort") == [], "its data side had nothing to do with it"
    cluster.command("node1", "start")
    cluster.settle()


def test_who_hangs_in_the_mount_is_freed_by_giving_it_up(cluster: LedgerPair) -> None:
    since = newest(cluster)
    pid = cluster.rfs_status("node1")["pid"]
    cluster.lab.cut("node1", "repl")  # the next line is sent to the other node, and its answer cannot come …
    cluster.until(lambda: silent(cluster, 0.5), "the ledger does not hang", 3)
    cluster.lab.run("node1", ["kill", "-STOP", str(pid)])  # … and this rfsmount will not even notice that
    cluster.lab.heal()
    assert stop(cluster) < STOP_TIMEOUT_S + 2 * KILL_PATIENCE_S
    stuck = said(cluster, since, "service-stuck")
    assert len(stuck) == 1 and "in state D, waiting in" in stuck[0], stuck
    aborted = said(cluster, since, "rfs-abort")
    assert len(aborted) == 1 and f"1 connection(s) aborted, rfsmount {pid} is killed" in aborted[0], aborted
    answer = cluster.lab.run("node1", ["stat", f"{DIRECTORY}/lines"], check=False).stderr
    assert "not connected" in answer, "the dead mount stays until the next start: nobody writes behind the mirror"
    cluster.command("node1", "start")
    cluster.settle()
