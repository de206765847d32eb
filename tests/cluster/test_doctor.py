"""`hactl doctor` and `hactl snapshot` on a real pair: healthy it has nothing bad, what is broken is named, what mends it mends it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lab.lab import kill_group
from orchestrator.lab.scenarios import clocks
from orchestrator.lab.scenarios.pair import DIRECTORY, LedgerPair
from orchestrator.lab.scenarios.scenario import Impossible
from tests.unit.test_snapshot import MODULE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240), pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root")]

OF_THE_LAB = {"clock", "limits", "oom", "machines"}  # its nodes are one machine, whose clock and limits are the host's
CONFIG = "/etc/lockstep/modules"
SECRET = "plantedSecret4711"


def examine(cluster: LedgerPair, node: str, *words: str) -> dict[str, Any]:
    """What the doctor says, asked on a node."""
    done = cluster.lab.run(node, ["hactl", "doctor", "--json", *words], check=False)
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == {"ok": 0, "warn": 10, "bad": 1}[document["verdict"]]
    return document


def told(document: dict[str, Any], verdict: str) -> dict[tuple[str, str], str]:
    """(check, node) -> the fix, of one verdict."""
    return {(each["check"], each["node"]): each["fix"] for each in document["findings"] if each["verdict"] == verdict}


def texts(document: dict[str, Any]) -> str:
    wrong = [each for each in document["findings"] if each["verdict"] != "ok"]
    return "\n".join(f"{each['verdict']} {each['check']} {each['node']}: {each['text']}" for each in wrong)


def test_nothing_is_bad_in_a_healthy_pair(cluster: LedgerPair) -> None:
    for node, peer in (("node1", "node2"), ("node2", "node1")):
        document = examine(cluster, node)
        assert document["nodes"] == [node, peer] and document["silent"] == []
        assert told(document, "bad") == {}, texts(document)
        assert {check for check, _ in told(document, "warn")} <= OF_THE_LAB, texts(document)
        assert document["counts"]["ok"] > 100
    assert examine(cluster, "node1", "-H", "node2")["nodes"] == ["node2"]
    table = cluster.lab.run("node1", ["hactl", "doctor", "--all"], check=False).stdout
    assert "✔ node1, node2: both have" in table and "node1 and node2: " in table.splitlines()[0]
    assert cluster.lab.run("node1", ["hactl", "doctor", "-H", "node7"], check=False).returncode == 2
    plain = cluster.lab.run("node1", ["hactl", "doctor", "-o", "plain"], check=False).stdout.splitlines()
    assert all(len(line.split("\t")) == 6 for line in plain)


Sh = Callable[[str, str], Any]


@pytest.fixture
def sh(cluster: LedgerPair) -> Sh:
    return lambda node, words: cluster.lab.run(node, ["sh", "-c", words])


BROKEN: list[tuple[str, str, set[tuple[str, str]]]] = [  # on node2 but where it says so; what mends it; what is named
    ("ip link set repl mtu 1400", "ip link set repl mtu 1500", {("mtu", "node1"), ("same-mtu", "node1, node2")}),
    (
        "nft add table inet t; nft 'add chain inet t in { type filter hook input priority 0; }'; "
        "nft add rule inet t in iif lan tcp dport 5598 drop",
        "nft delete table inet t", {("calls", "node1"), ("firewall", "node2")},
    ),
    (
        "sed 's/^www-data:x:33:/www-data:x:933:/' /etc/passwd > /run/passwd; mount --bind /run/passwd /etc/passwd", "umount /etc/passwd",
        {("same-owners", "node1, node2")},
    ),
    (
        f"cp {CONFIG}/ledger.toml /run/; echo '# mine' >> {CONFIG}/ledger.toml", f"cp /run/ledger.toml {CONFIG}/ledger.toml",
        {("same-configuration", "node1, node2")},
    ),
    (
        f"mkdir -p {CONFIG}/ledger; printf '#!/no/such/shell\\n' > {CONFIG}/ledger/helper; chmod 777 {CONFIG}/ledger/helper",
        f"rm -r {CONFIG}/ledger", {("scripts", "node2"), ("configuration-owner", "node2"), ("same-configuration", "node1, node2")},
    ),
    (
        "fallocate -l $(( $(stat -f -c '%a * %S' /srv) - 20 * 1024 * 1024 )) /srv/filler", "rm /srv/filler",
        {("room", "node1"), ("room", "node2"), ("state-room", "node2"), ("log-room", "node2")},  # a mirror has the room of both
    ),
    (f"mount -t tmpfs tmpfs {DIRECTORY}/inner", f"umount {DIRECTORY}/inner", {("nested-mounts", "node2")}),
    ("chmod 777 /var/lib/lockstep", "chmod 755 /var/lib/lockstep", {("state-owner", "node2")}),
]  # fmt: skip


if shutil.which("nft") is None:
    BROKEN = [entry for entry in BROKEN if not entry[0].startswith("nft")]


@pytest.fixture
def furnished(cluster: LedgerPair, sh: Sh) -> Iterator[LedgerPair]:
    """A mirrored file that is www-data's, and a directory to mount upon."""
    sh("node1", f"mkdir -p {DIRECTORY}/inner; touch {DIRECTORY}/owned; chown 33:33 {DIRECTORY}/owned")
    cluster.until(lambda: cluster.lab.path("node2", f"{DIRECTORY}/owned").exists(), "it is not mirrored", 10)
    yield cluster
    sh("node1", f"rm -r {DIRECTORY}/inner {DIRECTORY}/owned")


def test_each_thing_that_is_broken_is_named_and_mended(furnished: LedgerPair, sh: Sh) -> None:
    for breaks, mends, expected in BROKEN:
        sh("node2", breaks)
        try:
            document = examine(furnished, "node1")
        finally:
            sh("node2", mends)
        assert set(told(document, "bad")) == expected, f"{breaks}\n{texts(document)}"
        assert all(told(document, "bad").values()), "each has its fix"
    assert told(again := examine(furnished, "node1"), "bad") == {}, texts(again)


def test_all_of_it_at_once_from_either_node(furnished: LedgerPair, sh: Sh) -> None:
    try:
        for breaks, _, _ in BROKEN:
            sh("node2", breaks)
        seen = {node: set(told(examine(furnished, node), "bad")) for node in ("node1", "node2")}
    finally:
        for _, mends, _ in reversed(BROKEN):
            furnished.lab.run("node2", ["sh", "-c", mends], check=False)
    expected = {finding for _, _, findings in BROKEN for finding in findings}
    assert seen["node1"] == expected
    assert {(check, node.replace("node2, node1", "node1, node2")) for check, node in seen["node2"]} == expected
    assert told(again := examine(furnished, "node1"), "bad") == {}, texts(again)


def test_a_fix_is_a_command_that_fixes(furnished: LedgerPair, sh: Sh) -> None:
    sh("node2", "ip link set repl mtu 1400; chmod 777 /var/lib/lockstep")
    found = told(examine(furnished, "node1"), "bad")
    mtu, owner = found["same-mtu", "node1, node2"], found["state-owner", "node2"]
    command, _, where = mtu.rpartition(" on ")
    sh(where, command)
    sh("node2", owner)
    assert told(again := examine(furnished, "node1"), "bad") == {}, texts(again)


def test_a_stranger_with_the_service_address_is_seen(cluster: LedgerPair, sh: Sh) -> None:
    sh("witness", "ip addr add 10.77.0.100/24 dev lan")
    try:
        document = examine(cluster, "node2")
    finally:
        sh("witness", "ip addr del 10.77.0.100/24 dev lan")
    assert {check for check, _ in told(document, "bad")} == {"vip-foreign"}, texts(document)


def test_a_cut_network(cluster: LedgerPair) -> None:
    cluster.lab.cut("node2", "lan")
    nodes = ("node1", "node2")
    cluster.until(lambda: all((cluster.status(node) or {})["networks"]["lan"] != "ok" for node in nodes), "the cut is not noticed", 15)
    document = examine(cluster, "node1")
    cluster.lab.heal()
    expected = {("reachable", "node1"), ("heartbeats", "node1"), ("calls", "node1"), ("reachable", "node2")}
    assert expected <= set(told(document, "bad")), texts(document)
    assert document["silent"] == [], "the other network leads to it"


def test_clocks_that_differ(cluster: LedgerPair) -> None:
    try:
        clocks.library()
    except Impossible as reason:
        pytest.skip(str(reason))
    clocks.with_wrong_clock(cluster, "node2")
    try:
        for offset, verdict in (("+5", "warn"), ("-2h", "bad")):
            clocks.set_clock(cluster, "node2", offset)
            document = examine(cluster, "node1")
            assert ("clock-skew", "node1, node2") in told(document, verdict), texts(document)
    finally:
        clocks.set_clock(cluster, "node2", "+0")
        clocks.with_true_clock(cluster, "node2")


def test_without_a_running_hactld_each_node_says_so_and_what_can_be_seen_is_seen(cluster: LedgerPair) -> None:
    cluster.kill_daemon("node2")
    try:
        from_afar, at_home = examine(cluster, "node1"), examine(cluster, "node2")
        parts = take(cluster, "node2", "/srv/headless.tar.gz")
    finally:
        cluster.start_daemon("node2")
    assert ("asked", "node2") in told(from_afar, "bad") and ("calls", "node1") in told(from_afar, "bad"), texts(from_afar)
    assert told(from_afar, "bad")["calls", "node1"] == "systemctl start hactld on node2"
    assert at_home["nodes"] == ["node2", "node1"], "the peer is asked past the dead hactld"
    assert told(at_home, "bad")["hactld", "node2"] == "systemctl start hactld", texts(at_home)
    assert [entry["missing"] for entry in json.loads(parts["MANIFEST.json"])["nodes"]] == ["", ""]
    assert json.loads(parts["node1/hactld/status.json"])["schema"] == "hactl.status/1" and "node2/hactld/status.json" not in parts


# ---- snapshot ---------------------------------------------------------------------------------------------------------------------------


def take(cluster: LedgerPair, node: str, path: str, *words: str, code: int = 0) -> dict[str, str]:
    """The texts of a snapshot, without the directory that they lie in."""
    done = cluster.lab.run(node, ["hactl", "snapshot", "-O", path, *words], check=False)
    assert done.returncode == code, done.stderr
    with tarfile.open(cluster.lab.path(node, path)) as archive:
        return {entry.name.partition("/")[2]: archive.extractfile(entry).read().decode() for entry in archive}  # type: ignore[union-attr]


@pytest.fixture
def planted(cluster: LedgerPair, sh: Sh) -> Iterator[LedgerPair]:
    """Secrets in logs, scripts, configuration and a process' words, on both nodes."""
    sleepers: list[subprocess.Popen[bytes]] = []
    for node in ("node1", "node2"):
        sh(node, f"echo 'login with {SECRET}' >> /var/log/lockstep/ledger.log; echo 'token={SECRET}' >> /var/log/lockstep/ledger.rfs.log")
        sh(node, f"mkdir -p {CONFIG}/ledger; printf '#!/bin/sh\\nexport PGPASSWORD={SECRET}\\n' > {CONFIG}/ledger/helper")
        cluster.put(node, f"{CONFIG}/unused.toml.txt", MODULE + f"# postgresql://ann:{SECRET}@10.77.0.11/db\n")
        sleepers.append(cluster.lab.spawn(node, ["python3", "-c", "import time; time.sleep(600)", f"--password={SECRET}"]))
    yield cluster
    for node in ("node1", "node2"):
        sh(node, f"rm -r {CONFIG}/ledger {CONFIG}/unused.toml.txt")
    for sleeper in sleepers:
        kill_group(sleeper)


def test_a_snapshot_has_both_nodes_and_no_secret(planted: LedgerPair) -> None:
    found = take(planted, "node1", "/srv/help.tar.gz")
    manifest = json.loads(found["MANIFEST.json"])
    assert [(entry["node"], entry["missing"]) for entry in manifest["nodes"]] == [("node1", ""), ("node2", "")]
    for node in ("node1", "node2"):
        assert json.loads(found[f"{node}/hactld/status.json"])["node"] == node
        assert json.loads(found[f"{node}/hactld/why-ledger.json"])["schema"] == "hactl.why/1"
        assert json.loads(found[f"{node}/modules/ledger/status.json"])["link"] == "paired"
        assert json.loads(found[f"{node}/modules/ledger/record.json"])["newest"]["generation"]
        assert json.loads(found[f"{node}/hactld/history.json"])["events"] and "started on" in found[f"{node}/hactld/hactld.log"]
        assert "/srv/ledger" in found[f"{node}/machine/mounts.txt"] and "10.77.1.1" in found[f"{node}/network/addresses.txt"]
        assert "Max open files" in found[f"{node}/machine/limits.txt"] and "identity.pem" in found[f"{node}/configuration/keys.txt"]
        assert "--password=[removed]" in found[f"{node}/machine/processes.txt"]
    assert json.loads(found["findings.json"])["schema"] == "hactl.doctor/1"
    private = planted.lab.run("node1", ["sh", "-c", "grep -v -e - -e : /etc/lockstep/keys/identity.pem"]).stdout.split()[0]
    for name, text in found.items():
        assert SECRET not in text and private not in text and "PRIVATE KEY" not in text, name
    assert manifest["removed"] >= 8


def test_with_other_names(planted: LedgerPair) -> None:
    found = take(planted, "node2", "/srv/help2.tar.gz", "--anonymise")
    everything = "\n".join([*found, *found.values()])
    for name in ("node1", "node2", "10.77.", SECRET, "02:4c:53"):
        assert name not in everything, f"{name}: …{everything[max(0, everything.find(name) - 100) : everything.find(name) + 50]}"
    catalogue = json.loads(planted.lab.path("node2", "/srv/help2.names.json").read_text())
    assert set(catalogue.values()) >= {"nodeA", "nodeB"} and catalogue["node2"] == "nodeA"
    assert planted.lab.path("node2", "/srv/help2.names.json").stat().st_mode & 0o777 == 0o600
    assert json.loads(found["nodeB/hactld/status.json"])["node"] == "nodeB"
    assert not any("names.json" in name for name in found)


def test_a_dead_node_is_a_line_in_the_manifest(cluster: LedgerPair) -> None:
    cluster.power_off("node2")
    found = take(cluster, "node1", "/srv/half.tar.gz", code=5)
    cluster.boot("node2")
    cluster.wait_together()
    manifest = json.loads(found["MANIFEST.json"])
    assert manifest["nodes"][0]["missing"] == "" and "node2" in manifest["nodes"][1]["missing"]
    assert not any(name.startswith("node2/") for name in found) and "node1/doctor/facts.json" in found


def test_the_pairing_tells_what_it_sees(cluster: LedgerPair, sh: Sh, tmp_path: Path) -> None:
    """Paired anew: the same keys, and what each thinks of the other."""
    sh("node2", "ip link set repl mtu 1400")
    try:
        said = cluster.lab.run("node1", ["hactl", "cluster", "show"]).stdout
        assert "paired with" in said
        shown = introduce(cluster)
    finally:
        sh("node2", "ip link set repl mtu 1500")
    assert "Before you go on:" in shown and "packets of 1500 bytes do not pass on repl to node2" in shown


def introduce(cluster: LedgerPair) -> str:
    """`init` on node1 and `join` on node2; what node1 shows."""
    words = cluster.lab.command("node1", ["hactl", "cluster", "init"])
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as inviter:
        assert inviter.stdout is not None
        invitation = next(line.split()[-1] for line in inviter.stdout if "hactl cluster join" in line)
        cluster.lab.run("node2", ["hactl", "cluster", "join", "-"], input=invitation + "\n")
        return inviter.stdout.read()
