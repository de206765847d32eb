"""The probes against real things that are wrong, in namespaces of their own; and that nothing that hangs holds whoever asks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import ClusterConfig
from orchestrator.doctor import gather
from orchestrator.doctor.judge import judge_node
from orchestrator.doctor.probe_network import knock, read_rules, third
from orchestrator.doctor.scene import Scene
from orchestrator.effects import mount_abort
from orchestrator.paths import Paths
from orchestrator.snapshot import part
from rfs.errors import SaidNo
from tests.unit.etcd_server import EtcdServer, needs_etcd

FILE_SYSTEM = Path(__file__).with_name("hanging_file_system.py")
PROGRAM = f"{sys.executable} -m orchestrator.doctor.gather"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

CLUSTER = """\
name = "plant7"
[[node]]
name = "node1"
addresses = { lan = "192.0.2.11" }
[[node]]
name = "node2"
addresses = { lan = "192.0.2.12" }
"""
PG = """\
mode = "mirror"
[[replicated]]
directory = "%s"
"""
WEB = """\
mode = "light"
[[service]]
unit = "web.service"
[[service]]
name = "app"
start = ["/opt/app/bin/app"]
user = "nobody"
[[service]]
name = "gone"
start = ["/opt/app/bin/gone"]
user = "nosuchuser"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    directory = tmp_path / "etc"
    (directory / "modules").mkdir(parents=True)
    (directory / "cluster.toml").write_text(CLUSTER)
    return directory


def look(config: Path, prepare: str, *only: str, namespaces: str = "--mount") -> dict[str, Any]:
    """The facts of a machine that was spoilt first, in namespaces of its own."""
    child = f"{PROGRAM} --config-dir {config} --root {config.parent} --node node1 " + " ".join(f"--only={name}" for name in only)
    command = ["unshare", *namespaces.split(), "--propagation", "private", "sh", "-ec", f"{prepare}\nexec {child}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def told(facts: dict[str, Any], check: str) -> list[tuple[str, str]]:
    return [(each.verdict, each.text) for each in judge_node(facts) if each.check == check]


@root_only
def test_a_state_in_memory(config: Path) -> None:
    state = config.parent / "var/lib/lockstep"
    state.mkdir(parents=True)
    [(verdict, text)] = told(look(config, f"mount -t tmpfs tmpfs {state}", "storage"), "state-disk")
    assert verdict == "bad" and "tmpfs" in text
    facts = look(config, f"mount -t tmpfs tmpfs {state}; mount -o remount,ro {state}", "storage")
    assert [verdict for verdict, _ in told(facts, "state-sync")] == ["bad"], "it cannot be written"
    facts = look(config, f"mount -t tmpfs -o size=1m tmpfs {state}; head -c 1048576 /dev/zero > {state}/f || true", "storage")
    assert [verdict for verdict, _ in told(facts, "state-sync")] == ["bad"] == [verdict for verdict, _ in told(facts, "state-room")]
    assert told(look(config, "true", "storage"), "state-disk")[0][0] == "ok"


@root_only
def test_a_machine_without_fuse(config: Path) -> None:
    facts = look(config, "mount -t tmpfs tmpfs /dev", "kernel", "versions")
    assert [verdict for verdict, _ in told(facts, "fuse-device")] == ["bad"]
    assert [verdict for verdict, _ in told(facts, "kernel")] == ["ok"]


@root_only
def test_units_and_programs(config: Path, tmp_path: Path) -> None:
    (config / "modules" / "web.toml").write_text(WEB)
    units = tmp_path / "units"
    (units / "multi-user.target.wants").mkdir(parents=True)
    (units / "web.service").write_text("[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n")
    (units / "hactld.service").write_text("[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n")
    prepare = (
        f"mount --bind {units} /etc/systemd/system; mount -t tmpfs tmpfs /opt; mkdir -p /opt/app/bin; touch /opt/app/bin/app; "
        "ln -s /etc/systemd/system/web.service /etc/systemd/system/multi-user.target.wants/web.service"
    )
    facts = look(config, prepare, "services", "units", "accounts", "process")
    assert told(facts, "boot-units") == [("bad", "web.service (web) is started at boot by systemd, on both nodes, behind Lockstep's back")]
    programs = [verdict for verdict, _ in told(facts, "programs")]
    assert programs == ["ok", "bad", "bad"], "the unit is there, app is not executable, gone is gone"
    assert [verdict for verdict, _ in told(facts, "service-users")] == ["ok", "bad"]
    assert facts["units"]["states"]["hactld.service"] == "disabled" and facts["units"]["states"]["lockstep-guard.service"] == "not-found"


@root_only
def test_rules_of_a_firewall(config: Path) -> None:
    if subprocess.run(["which", "nft"], capture_output=True, check=False).returncode:
        pytest.skip("nft is not installed here")
    prepare = "nft add table inet t; nft 'add chain inet t in { type filter hook input priority 0; policy drop; }'"
    facts = look(config, prepare, "firewall", namespaces="--mount --net")
    assert [verdict for verdict, _ in told(facts, "firewall")] == ["warn"]
    facts = look(config, f"{prepare}; nft add rule inet t in tcp dport 5597-5700 accept", "firewall", namespaces="--mount --net")
    assert [verdict for verdict, _ in told(facts, "firewall")] == ["ok"]
    facts = look(config, f"{prepare}; nft add rule inet t in udp dport 5599 reject", "firewall", namespaces="--mount --net")
    assert [verdict for verdict, _ in told(facts, "firewall")] == ["bad"]


@pytest.mark.parametrize(
    ("line", "against", "accepts"),
    [
        ("tcp dport 5598 drop", True, False), ("udp dport { 53, 5599 } drop", True, False), ("tcp dport 5000-6000 reject", True, False),
        ("-A INPUT -p tcp -m tcp --dport 5600:5610 -j DROP", True, False), ("-A INPUT -p udp -m udp --dport 5599 -j ACCEPT", False, True),
        ("ip saddr 192.0.2.1 tcp dport 22 drop", False, False), ("tcp dport 80 accept", False, False),
        ("ip saddr 10.55.98.1 drop", False, False),
    ],
)  # fmt: skip
def test_which_rules_speak_of_our_ports(line: str, against: bool, accepts: bool) -> None:
    found = read_rules(f"table inet filter {{\n chain input {{\n  {line}\n }}\n}}")
    assert (bool(found["against"]), found["accepts"]) == (against, accepts)
    assert read_rules(":INPUT DROP [0:0]")["drops_by_default"] == ["INPUT"]


@root_only
def test_ways_without_a_peer(config: Path) -> None:
    """Addresses that are nowhere, a peer that does not answer: facts, not errors."""
    prepare = (
        "ip link set lo up; ip link add lan type veth peer name far; ip link set lan mtu 1400 up; ip link set far up; "
        "ip addr add 192.0.2.11/24 dev lan"
    )
    facts = look(config, prepare, "paths", "network", "ports", "configuration", namespaces="--mount --net")
    assert facts["network"]["own"]["lan"] == {"address": "192.0.2.11", "interface": "lan"}
    [way] = facts["paths"]["paths"]
    assert (way["mtu"], way["lost"], way["full_passes"]) == (1400, way["sent"], None)
    assert [verdict for verdict, _ in told(facts, "reachable")] == ["bad"]
    [call] = facts["ports"]["calls"]
    assert not call["reached"] and call["door"] not in ("open", "refused")
    facts = look(config, "ip link set lo up", "paths", "network", "configuration", namespaces="--mount --net")
    assert [verdict for verdict, _ in told(facts, "addresses")] == ["bad"]


@root_only
def test_a_path_that_carries_less_than_the_interfaces_say(config: Path) -> None:
    """Two namespaces with a router between them whose way is narrower: only the packet itself can tell."""
    prepare = """
ip link set lo up
for n in mid far; do ip netns add t$n-$$; done
trap 'for n in mid far; do ip netns del t$n-$$; done' EXIT
ip link add lan type veth peer name mida netns tmid-$$
ip -n tmid-$$ link add midb type veth peer name lan netns tfar-$$
ip addr add 192.0.2.11/32 dev lan; ip link set lan up
ip -n tmid-$$ link set mida up; ip -n tmid-$$ link set midb mtu 1300 up; ip -n tfar-$$ link set lan up
ip netns exec tmid-$$ sysctl -qw net.ipv4.ip_forward=1
ip -n tfar-$$ addr add 192.0.2.12/32 dev lan
ip -n tmid-$$ addr add 203.0.113.1/32 dev mida; ip -n tmid-$$ addr add 203.0.113.2/32 dev midb
ip route add 192.0.2.12/32 via 203.0.113.1 dev lan onlink; ip -n tfar-$$ route add 192.0.2.11/32 via 203.0.113.2 dev lan onlink
ip -n tmid-$$ route add 192.0.2.11/32 dev mida; ip -n tmid-$$ route add 192.0.2.12/32 dev midb
"""
    words = f"{PROGRAM} --config-dir {config} --root {config.parent} --node node1 --only=paths --only=configuration"
    command = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-ec", f"mount -t tmpfs tmpfs /run\n{prepare}\n{words}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    [way] = json.loads(done.stdout)["paths"]["paths"]
    assert (way["lost"], way["mtu"], way["full_passes"], way["largest_bytes"]) == (0, 1500, False, 1280), way


@needs_etcd
def test_third_parties(tmp_path: Path) -> None:
    one, other = EtcdServer(tmp_path / "one"), EtcdServer(tmp_path / "other")
    one.start()
    other.start()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        urls = (one.url, other.url, f"http://127.0.0.1:{deaf.getsockname()[1]}", "http://127.0.0.1:1")
        cluster = ClusterConfig("plant7", "availability", 0.5, 3.0, {}, ("127.0.0.1",), witness=urls)
        found = third(Scene("node1", tmp_path, Paths(tmp_path), cluster=cluster))
    one.stop()
    other.stop()
    first, second, silent, nobody = found["witness"]
    assert first["cluster"] and second["cluster"] and first["cluster"] != second["cluster"] and not first["trouble"]
    assert "timed out" in silent["trouble"] and "refused" in nobody["trouble"]
    if os.geteuid() == 0:
        assert found["ping"] == [{"address": "127.0.0.1", "answers": True, "trouble": ""}]


def test_doors() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert knock("127.0.0.1", "127.0.0.1", port) == "open"
    assert knock("127.0.0.1", "127.0.0.1", port) == "refused"


def test_who_may_change_scripts(config: Path) -> None:
    (config / "modules" / "web.toml").write_text(WEB)
    scripts = config / "modules" / "web"
    scripts.mkdir()
    for name, text, mode in (
        ("start_both", "#!/bin/sh\n", 0o755), ("stop_both", "#!/usr/bin/env nosuchthing\n", 0o755), ("prestart", "#!/bin/sh\n", 0o666),
        ("readme.txt", "words\n", 0o644),
    ):  # fmt: skip
        (scripts / name).write_text(text)
        (scripts / name).chmod(mode)
    facts = gather.gather("node1", config, config.parent, only=("configuration",))
    found = {Path(each["path"]).name: (each["executable"], each["interpreter_found"]) for each in facts["configuration"]["scripts"]}
    assert found == {"start_both": (True, True), "stop_both": (True, False), "prestart": (False, True)}
    if os.geteuid() == 0:
        assert [Path(each["path"]).name for each in facts["configuration"]["loose"]] == ["prestart"]


def test_what_lies_in_the_current_directory_is_not_run(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root asks from /tmp, where somebody has left an argparse.py."""
    ran = tmp_path / "ran"
    (tmp_path / "argparse.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    assert "configuration" in gather.gather("node1", config, config.parent, only=("configuration",))
    read = gather.read_bounded
    monkeypatch.setattr(gather, "read_bounded", lambda words, *bounds: read([*words, "--help"], *bounds))  # all of a part takes long
    with pytest.raises(SaidNo):
        part.collect("node1", config, config.parent)
    assert not ran.exists()


def test_a_configuration_that_is_wrong_is_told_by_its_places(config: Path) -> None:
    (config / "modules" / "web.toml").write_text(WEB.replace('user = "nobody"', 'user = 7\npasswordd = "mnemonic"'))
    facts = gather.gather("node1", config, config.parent, only=("configuration",))
    [(verdict, text)] = told(facts, "configuration")
    assert verdict == "bad" and "web.toml:" in text
    assert "mnemonic" not in json.dumps(facts), "what was written is not for everybody who may ask"


def test_what_was_kept_beside_is_no_part_of_the_configuration(config: Path) -> None:
    """It lies on one node only, and the doctor compares both."""
    for name in ("pg.toml.before-apply", "pg.toml.before-join", "pg.toml~", ".pg.toml.swp", "pg.toml.dpkg-old", ".hidden"):
        (config / "modules" / name).write_text("x")
    facts = gather.gather("node1", config, config.parent, only=("configuration",))
    assert not [name for name in facts["configuration"]["files"] if not name.endswith(".toml") or "." in name.removesuffix(".toml")]


@root_only
def test_directories(config: Path, tmp_path: Path) -> None:
    """A plain one that somebody works in, one of a memory file system, one with a mount inside, one that is not there."""
    place = tmp_path / "data"
    for name in ("plain", "memory", "nested/inner"):
        (place / name).mkdir(parents=True)
    names = ("plain", "memory", "nested", "gone")
    (config / "modules" / "pg.toml").write_text(
        'mode = "mirror"\n' + "".join(f'[[replicated]]\ndirectory = "{place}/{name}"\nrequire = ["PG_VERSION"]\n' for name in names)
    )
    prepare = (
        f"mount -t tmpfs tmpfs {place}/memory; mount -t tmpfs tmpfs {place}/nested/inner; touch {place}/plain/PG_VERSION\n"
        f"sleep 15 9> {place}/plain/open > /dev/null 2>&1 &"
    )
    facts = look(config, prepare)
    found = {path.removeprefix(f"{place}/"): entry for path, entry in facts["directories"]["by_path"].items()}
    assert (found["plain"]["layer"], found["plain"]["empty"], found["plain"]["unfit"]) == ("plain", False, "")
    assert found["plain"]["clones"] in (True, False) and found["plain"]["acl"] is True
    assert found["memory"]["file_system"] == "tmpfs" and found["memory"]["empty"]
    assert found["nested"]["nested"] == [f"{place}/nested/inner"] and not found["gone"]["exists"]
    assert found["plain"]["required_missing"] == [] and found["memory"]["required_missing"] == ["PG_VERSION"]
    assert [held["command"] for held in found["plain"]["holders"]] == ["sleep"]
    assert {verdict for verdict, _ in told(facts, "nested-mounts")} == {verdict for verdict, _ in told(facts, "holders")} == {"bad", "ok"}
    assert ("bad", f"{place}/gone does not exist") in told(facts, "directories")
    owned = facts["owners"]["by_path"][f"{place}/plain"]
    assert (owned["uids"], owned["complete"], owned["entries"]) == ({"0": "root"}, True, 2)


def test_a_child_that_says_nothing_is_a_sentence(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "STARTING_S", 0.0)
    with pytest.raises(SaidNo, match="the doctor on node1 found nothing within 0 s"):
        gather.gather("node1", config, config.parent, deadline_s=0.0)


def test_a_child_that_never_ends_or_says_too_much_is_left() -> None:
    began = time.monotonic()
    assert gather.read_bounded(["sh", "-c", "echo begun; exec sleep 60"], 0.5, 100) == b"begun\n"
    assert len(gather.read_bounded(["sh", "-c", "exec yes"], 30.0, 1000)) < 200_000
    assert time.monotonic() - began < 20


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Path]:
    """A directory whose file system takes every question and answers none."""
    place = tmp_path / "mnt"
    place.mkdir()
    server = subprocess.Popen([sys.executable, str(FILE_SYSTEM), str(place)], stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"mounted\n"
    yield place / "hang"
    mount_abort.abort([str(place)])
    server.kill()
    server.wait()
    server.stdout.close()
    subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)


@root_only
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs /dev/fuse")
def test_a_file_system_that_hangs_costs_its_own_facts_only(config: Path, hanging: Path) -> None:
    (config / "modules" / "pg.toml").write_text(PG % hanging)
    began = time.monotonic()
    facts = gather.gather("node1", config, config.parent, deadline_s=4.0)
    assert time.monotonic() - began < 4.0 + gather.STARTING_S + 1.0
    assert facts["directories"]["by_path"][str(hanging)]["error"].startswith("no answer within")
    assert facts["owners"]["by_path"][str(hanging)]["error"].startswith("no answer within")
    assert facts["versions"]["lockstep"] and facts["memory"]["total_bytes"], "everything else is there"
    assert [verdict for verdict, _ in told(facts, "directories")] == ["bad"]
