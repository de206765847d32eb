"""Each judgement: healthy facts are ok, and one spoilt fact is found by its check and by no other that it does not concern."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.doctor.finding import Finding
from orchestrator.doctor.judge import (
    CHECKS,
    GROUPS,
    PAIR_CHECKS,
    SCHEMA,
    counts,
    document,
    judge_all,
    judge_node,
    judge_pair,
    overall,
    worst_first,
)
from orchestrator.doctor.preflight import at_pairing, before_first_copy, cannot_work
from orchestrator.hactl.doctor_command import render, shown_of
from tests.unit.doctor_facts import DIRECTORY, GIB, MACS, healthy, spoil

IN_DIRECTORY = f"directories.by_path.{DIRECTORY}"

# check, verdict, a word of the sentence, a word of the fix, what is spoilt
ONE: list[tuple[str, str, str, str, dict[str, Any]]] = [
    ("fuse-device", "bad", "No such file", "modprobe fuse", {"kernel.fuse_trouble": "No such file or directory"}),
    ("libfuse", "bad", "not installed", "fuse3", {"versions.libfuse": ""}),
    ("libfuse", "warn", "3.2.1", "upgrade", {"versions.libfuse": "3.2.1"}),
    ("kernel", "bad", "openat2", "boot a kernel", {"kernel.calls.openat2": False}),
    ("kernel", "warn", "5.4", "upgrade", {"versions.kernel": "5.4.0-1-amd64"}),
    ("engine", "bad", "not built", "install", {"versions.engine": False}),
    ("clock", "warn", "nothing synchronises", "timedatectl", {"clock.synchronised": False}),
    ("clock", "unknown", "does not say", "", {"clock.synchronised": None}),
    ("memory", "bad", "only", "ps aux", {"memory.available_bytes": 1 << 20}),
    ("memory", "warn", "only", "ps aux", {"memory.available_bytes": GIB}),
    ("swap", "warn", "swap", "vmstat", {"memory.swap_free_bytes": 1 << 20}),
    ("mandatory-access", "warn", "SELinux", "ausearch", {"security.selinux": "enforcing"}),
    ("host-name", "bad", "no node of the cluster", "hostnamectl", {"configuration.nodes": ["alpha", "beta"]}),
    ("state-disk", "bad", "tmpfs", "mount a disk", {"storage.state.file_system": "tmpfs"}),
    ("state-disk", "bad", "read-only", "remount,rw", {"storage.state.read_only": True}),
    ("state-sync", "bad", "durably", "disk", {"storage.state.fsync_trouble": "Input/output error"}),
    ("state-sync", "bad", "2.0 s", "iostat", {"storage.state.fsync_s": 2.0}),
    ("state-sync", "warn", "200 ms", "iostat", {"storage.state.fsync_s": 0.2}),
    ("state-room", "bad", "marks", "df -h", {"storage.state.available_bytes": 1 << 20}),
    ("state-room", "warn", "soon", "df -h", {"storage.state.available_bytes": 400 << 20}),
    ("state-room", "bad", "no inode", "df -h", {"storage.state.inodes_available": 0}),
    ("state-owner", "bad", "others than root", "go-w", {"storage.state.mode": 0o777}),
    ("state-owner", "bad", "owner 33", "chown", {"storage.state.uid": 33}),
    ("log-room", "bad", "what happened", "df -h", {"storage.log.available_bytes": 1 << 20}),
    ("hactld", "bad", "does not run", "systemctl start", {"process.is_hactld": False}),
    ("hactld-current", "warn", "replaced", "restart", {"process.program_gone": True}),
    ("boot", "bad", "disabled", "systemctl enable hactld.service",
     {"units.states": {"hactld.service": "disabled", "lockstep-guard.service": "enabled"}}),
    ("boot", "unknown", "not run by systemd", "", {"units.states": {}, "units.systemd": False}),
    ("guard", "bad", "no lockstep-guard.service", "operator-guide", {"units.states": {"hactld.service": "enabled"}}),
    ("rights", "bad", "NET_ADMIN", "as root", {"process.capabilities": str((1 << 40) - 1 - (1 << 12))}),
    ("limits", "warn", "1024 files", "LimitNOFILE", {"process.nofile_hard": 1024}),
    ("limits", "warn", "not locked", "LimitMEMLOCK", {"process.locked_bytes": 0}),
    ("oom", "warn", "killed", "OOMScoreAdjust", {"process.oom_score_adj": 0}),
    ("state", "warn", "something", "do this", {"status.warnings": [{"code": "X", "text": "something", "fix": "do this"}]}),
    ("state", "bad", "diverged", "resolve", {"status.verdict": "diverged"}),
    ("failover", "warn", "paused", "hactl resume", {"status.failover": {"state": "paused", "reason": "an administrator"}}),
    ("failover", "warn", "blocked", "hactl why", {"status.failover": {"state": "blocked", "reason": "isolated"}}),
    ("rehearsal", "warn", "90 days", "hactl drill", {"history.last_move_age_s": None, "history.oldest_age_s": 9e6}),
    ("script-failures", "warn", "prim ended with 1", "hactl logs",
     {"history.script_errors": [{"module": "pg", "text": "prim ended with 1", "time": ""}]}),
    ("configuration", "bad", "line 3", "hactl config check", {"configuration.complaints": ["line 3", "line 4"]}),
    ("configuration-owner", "bad", "/s/prim", "chmod go-w /s/prim",
     {"configuration.loose": [{"path": "/s/prim", "uid": 0, "mode": 0o777}]}),
    ("scripts", "bad", "not executable", "chmod 755 /s/prim", {"configuration.scripts.0.executable": False}),
    ("scripts", "bad", "/bin/sh", "install", {"configuration.scripts.0.interpreter_found": False}),
    ("key", "bad", "no key", "cluster init", {"keys.own": ""}),
    ("key", "bad", "others", "chmod 600", {"keys.trouble": "identity.pem: can be read by others"}),
    ("key", "warn", "not protected", "--insecure", {"keys.insecure": True}),
    ("paired", "bad", "node2", "cluster join", {"keys.peers": {}}),
    ("key-age", "warn", "expires in 3 days", "rotate-keys -H node1", {"keys.left_s": {"node1": 3.5 * 86400}}),
    ("strangers", "warn", "wrong-key 7 times", "fingerprint", {"status.refused": {"wrong-key": 7}}),
    ("addresses", "bad", "192.0.2.11", "ip addr", {"network.own.lan.interface": None}),
    ("links", "bad", "carrier", "ethtool lan", {"network.interfaces.0.carrier": False}),
    ("links", "bad", "down", "ip link set lan up", {"network.interfaces.0.up": False}),
    ("networks", "warn", "one network", "second network", {"network.own": {"lan": {"address": "192.0.2.11", "interface": "lan"}}}),
    ("networks", "warn", "all networks", "bond", {"network.own.repl.interface": "lan"}),
    ("reachable", "bad", "none of 20", "ping -I", {"paths.paths.0.lost": 20}),
    ("reachable", "bad", "No route", "ip route get", {"paths.paths.0.trouble": "No route to host"}),
    ("reachable", "bad", "5 of 20", "ip -s link", {"paths.paths.0.lost": 5}),
    ("reachable", "warn", "1 of 20", "ip -s link", {"paths.paths.0.lost": 1}),
    ("mtu", "bad", "1400", "mtu 1400", {"paths.paths.1.full_passes": False, "paths.paths.1.largest_bytes": 1400}),
    ("mtu", "unknown", "does not answer", "", {"paths.paths.1.full_passes": None}),
    ("rtt", "bad", "300 ms", "near", {"paths.paths.0.rtt_s": 0.3}),
    ("rtt", "warn", "every write", "replication_network", {"paths.paths.1.rtt_s": 0.02}),
    ("heartbeats", "bad", "nothing arrives", "5599", {"status.peers.0.networks": {"lan": "silent", "repl": "ok"}}),
    ("heartbeats", "bad", "does not hear", "5599", {"status.peers.0.networks": {"lan": "deaf", "repl": "ok"}}),
    ("calls", "bad", "does not answer a call", "TCP port 5598", {"ports.calls.0.reached": False, "ports.calls.0.door": "silent"}),
    ("calls", "bad", "does not answer a call", "systemctl start", {"ports.calls.0.reached": False, "ports.calls.0.door": "refused"}),
    ("data-ports", "bad", "silent", "TCP port 5600", {"ports.data.0.door": "silent"}),
    ("firewall", "bad", "tcp dport 5598 drop", "remove", {"firewall.against": ["tcp dport 5598 drop"]}),
    ("firewall", "warn", "by default", "accept", {"firewall.drops_by_default": ["input"]}),
    ("firewall", "unknown", "neither", "", {"firewall.tool": ""}),
    ("vip-place", "bad", "no interface", "interface", {"vips.vips.0.trouble": "no interface of this node"}),
    ("vip-foreign", "bad", "02:ff", "take the address off", {"vips.vips.0.answers": ["02:ff:00:00:00:01"]}),
    ("vip-foreign", "unknown", "not known", "", {"vips.vips.0.answers": [MACS["node2"]], "vips.vips.0.peer_macs": []}),
    ("witness", "bad", "refused", "curl", {"third.witness.0.trouble": "Connection refused"}),
    ("ping", "bad", "cut off", "ping 192.0.2.1", {"third.ping.0.answers": False}),
    ("ping", "warn", "neither witness", "[witness]", {"third.ping": [], "third.witness": []}),
    ("directories", "bad", "does not exist", "mkdir", {f"{IN_DIRECTORY}.exists": False}),
    ("directories", "bad", "no directory", "correct", {f"{IN_DIRECTORY}.is_directory": False}),
    ("directories", "bad", "no answer", "mountinfo", {IN_DIRECTORY: {"error": "no answer within 7 s"}}),
    ("required-files", "bad", "PG_VERSION", "mounted", {f"{IN_DIRECTORY}.required_missing": ["PG_VERSION"]}),
    ("features", "bad", "file handles", "ext4", {f"{IN_DIRECTORY}.unfit": "its file system gives no file handles"}),
    ("features", "warn", "ACL", "acl", {f"{IN_DIRECTORY}.acl": False}),
    ("writable", "bad", "read-only", "remount", {f"{IN_DIRECTORY}.read_only_beneath": True}),
    ("nested-mounts", "bad", "/srv/data/x", "umount", {f"{IN_DIRECTORY}.nested": ["/srv/data/x"]}),
    ("holders", "bad", "postgres (pid 7)", "stop it",
     {f"{IN_DIRECTORY}.holders": [{"pid": 7, "command": "postgres", "path": "/srv/data/f"}]}),
    ("room", "bad", "1.0 GiB", "df -h", {f"{IN_DIRECTORY}.available_bytes": GIB}),
    ("room", "warn", "8.0 GiB", "df -h", {f"{IN_DIRECTORY}.available_bytes": 8 * GIB}),
    ("room", "bad", "inodes", "df -i", {f"{IN_DIRECTORY}.inodes_available": 3}),
    ("nameless-owners", "warn", "uid 1234", "useradd", {f"owners.by_path.{DIRECTORY}.uids": {"1234": ""}}),
    ("nameless-owners", "unknown", "no answer", "", {f"owners.by_path.{DIRECTORY}": {"error": "no answer within 7 s"}}),
    ("boot-units", "bad", "nginx.service", "systemctl disable nginx.service", {"services.services.1.unit_state": "enabled"}),
    ("programs", "bad", "no unit nginx.service", "install", {"services.services.1.unit_found": False}),
    ("programs", "bad", "/usr/bin/postgres", "install", {"services.services.0.program_found": False}),
    ("programs", "bad", "not executable", "chmod", {"services.services.0.program_executable": False}),
    ("service-users", "bad", "no user postgres", "useradd", {"services.services.0.uid": None}),
]  # fmt: skip

# the same of two nodes: what is spoilt is node2's
TWO: list[tuple[str, str, str, str, dict[str, Any]]] = [
    ("versions", "warn", "0.1.0, node2 has 0.0.9", "on node2", {"versions.lockstep": "0.0.9"}),
    ("versions", "bad", "links 2 and 1", "newer release", {"versions.protocols.links": 1}),
    ("pythons", "warn", "3.13.1", "one release", {"versions.python": "3.13.1"}),
    ("machines", "bad", "one machine", "cluster.toml", {"identity.boot_id": "boot of node1"}),
    ("machines", "warn", "machine-id", "systemd-machine-id-setup", {"identity.machine_id": "machine node1"}),
    ("same-configuration", "bad", "modules/pg.toml", "config apply",
     {"configuration.files": {"cluster.toml": "1", "modules/pg.toml": "3"}}),
    ("same-configuration", "bad", "only on node1", "config apply", {"configuration.files": {"cluster.toml": "1"}}),
    ("same-keys", "bad", "another key of node2", "pair anew", {"keys.own": "cc33"}),
    ("same-mtu", "bad", "1500 on node1 and 1400 on node2", "ip link set lan mtu 1500 on node2", {"paths.paths.0.mtu": 1400}),
    ("same-owners", "bad", "postgres is uid 101 on node1 and 999 on node2", "on node2, with the module stopped: usermod -u 101 postgres",
     {"accounts.users.postgres": 999}),
    ("same-owners", "bad", "does not exist on node2", "groupadd -g 104 postgres", {"accounts.groups": {"root": 0}}),
    ("same-service-users", "bad", "postgres", "usermod", {"accounts.users.postgres": 999}),
    ("same-programs", "bad", "15.9", "same release", {"services.services.0.version": "postgres 16.1"}),
    ("same-programs", "warn", "nginx", "same release", {"services.services.1.digest": "d2"}),
    ("copy-fits", "bad", "3.0 GiB on node1", "larger disk", {f"{IN_DIRECTORY}.available_bytes": 1 << 20,
                                                             f"owners.by_path.{DIRECTORY}.bytes": 0}),
    ("same-file-system", "warn", "xfs", "one kind", {f"{IN_DIRECTORY}.file_system": "xfs"}),
    ("vip-once", "bad", "both nodes", "ip addr del", {"vips.vips.0.held": True}),
    ("same-witness", "bad", "different", "one etcd", {"third.witness.0.cluster": "78"}),
    ("generations", "bad", "different generations", "hactl why", {"mirrors.mirrors.0.generation": "aa"}),
]  # fmt: skip


def test_nothing_is_wrong_with_a_healthy_pair() -> None:
    found = judge_all([healthy("node1"), healthy("node2")], {})
    assert [each for each in found if each.verdict != "ok"] == []
    assert {each.check for each in found} == {check.name for check in (*CHECKS, *PAIR_CHECKS)}, "every check says something"
    assert overall(found) == "ok" and len(CHECKS) + len(PAIR_CHECKS) >= 30


@pytest.mark.parametrize(("check", "verdict", "text", "fix", "changes"), ONE, ids=lambda value: value if isinstance(value, str) else "")
def test_one_node(check: str, verdict: str, text: str, fix: str, changes: dict[str, Any]) -> None:
    facts = healthy()
    for place, value in changes.items():
        spoil(facts, place, value)
    found = [each for each in judge_node(facts) if each.verdict != "ok"]
    told = [each for each in found if each.check == check]
    assert [each.verdict for each in told] == [verdict], found
    assert text in told[0].text and fix in told[0].fix, told
    assert told[0].fix or verdict == "unknown", "what is wrong has a way out"
    assert {each.check for each in found} <= {check} | ALONG.get(check, set()), found


ALONG = {  # what is spoilt for one check another one sees as well
    "key": {"paired"},
    "directories": {"nameless-owners"},
    "addresses": {"networks"},
    "boot": {"guard"},
    "ping": {"same-witness"},
}


@pytest.mark.parametrize(("check", "verdict", "text", "fix", "changes"), TWO, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("turned", [False, True])
def test_two_nodes(check: str, verdict: str, text: str, fix: str, changes: dict[str, Any], turned: bool) -> None:
    one, other = healthy("node1"), healthy("node2")
    for place, value in changes.items():
        spoil(other, place, value)
    found = [each for each in (judge_pair(other, one) if turned else judge_pair(one, other)) if each.verdict != "ok"]
    told = [each for each in found if each.check == check]
    assert [each.verdict for each in told] == [verdict], found
    if not turned:
        assert text in told[0].text and fix in told[0].fix, told
    alike = {"same-owners", "same-service-users"}
    assert {each.check for each in found} <= {check} | (alike if check in alike else set())


@pytest.mark.parametrize(("skew_s", "verdict"), [(0.3, "ok"), (-0.3, "ok"), (5.0, "warn"), (-5.0, "warn"), (40.0, "bad"), (-1e8, "bad")])
def test_clocks(skew_s: float, verdict: str) -> None:
    one, other = healthy("node1"), healthy("node2")
    one["clock_offsets"] = {"node2": skew_s}
    for pair in ((one, other), (other, one)):
        assert [each.verdict for each in judge_pair(*pair) if each.check == "clock-skew"] == [verdict]
    one["clock_offsets"] = {}
    assert [each.verdict for each in judge_pair(one, other) if each.check == "clock-skew"] == ["unknown"]


def test_every_check_has_an_example_of_what_it_finds() -> None:
    shown = {entry[0] for entry in ONE} | {entry[0] for entry in TWO} | {"clock-skew"}
    assert {check.name for check in (*CHECKS, *PAIR_CHECKS)} - shown == {"cores"}, "cores only ever tells"


def test_the_page_lists_every_check() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "interfaces.md").read_text()
    listed = page.partition("The checks, by group:\n")[2].partition("`hactl cluster init` and")[0]
    for group in GROUPS:
        line = listed.partition(f"\n- {group}: ")[2].partition("\n- ")[0]
        told = set(" ".join(re.findall(r"`([^`]+)`", line)).split())
        assert told - {"asked"} == {check.name for check in (*CHECKS, *PAIR_CHECKS) if check.group == group}


def test_before_a_first_copy_only_what_concerns_the_module_is_told() -> None:
    source, target = healthy("node1"), healthy("node2")
    assert {each.verdict for each in before_first_copy("pg", source, target)} == {"ok"}
    spoil(target, f"{IN_DIRECTORY}.available_bytes", 1 << 20)
    spoil(target, "accounts.users.postgres", 999)
    spoil(target, "clock.synchronised", False)
    spoil(target, "services.services.1.module", "web")
    spoil(target, "services.services.1.unit_state", "enabled")
    told = before_first_copy("pg", source, target)
    assert {each.check for each in told if each.verdict == "bad"} == {"room", "copy-fits", "same-owners", "same-service-users"}
    assert [each.verdict for each in told] == sorted((each.verdict for each in told), key=["bad", "warn", "unknown", "ok"].index)


def test_at_the_pairing_only_other_protocols_refuse() -> None:
    mine, theirs = healthy("node1"), healthy("node2")
    assert cannot_work(mine, theirs) == cannot_work(theirs, mine) == ""
    spoil(theirs, "versions.lockstep", "0.0.9")
    assert cannot_work(mine, theirs) == ""
    assert [(each.check, each.verdict) for each in at_pairing(mine, theirs) if each.verdict != "ok"] == [("versions", "warn")]
    spoil(theirs, "versions.protocols.links", 1)
    for one, other in ((mine, theirs), (theirs, mine)):
        assert "links" in cannot_work(one, other) and "on node2" in cannot_work(one, other)
    spoil(theirs, "accounts.users.postgres", 999)
    assert "known-users" in {each.check for each in at_pairing(mine, theirs) if each.verdict == "warn"}
    assert cannot_work(mine, {}) == cannot_work({}, theirs) == cannot_work(mine, {"versions": {"protocols": 7}}) == ""
    silent = {each.check: each.verdict for each in at_pairing(mine, {"node": "node2"}) if each.group == "both"}
    assert silent == dict.fromkeys(("versions", "pythons", "machines", "known-users"), "unknown") | {"clock-skew": "ok"}


def test_a_machine_without_configuration_is_told_that_and_no_more() -> None:
    facts = healthy()
    nothing = {"nodes": [], "peers": [], "policy": "", "complaints": ["cluster.toml: is missing"]}
    spoil(facts, "configuration", healthy()["configuration"] | nothing)
    for place, value in (
        ("network.own", {}), ("paths.paths", []), ("ports", {"calls": [], "data": []}), ("vips.vips", []), ("keys.peers", {}),
        ("third", {"witness": [], "ping": []}),
    ):  # fmt: skip
        spoil(facts, place, value)
    assert {each.check for each in judge_node(facts) if each.verdict != "ok"} == {"configuration"}


def test_who_does_not_answer_is_bad_and_named() -> None:
    found = judge_all([healthy("node1")], {"node2": "node2 did not answer 'doctor'"})
    assert [(each.check, each.verdict) for each in found if each.verdict != "ok"] == [("asked", "bad")]
    assert "node2" in found[0].text and "hactl doctor" in found[0].fix


def test_nodes_that_share_nothing_are_not_compared() -> None:
    one, other = healthy("node1"), healthy("node2")
    spoil(one, "configuration.peers", ["node3"])
    spoil(other, "configuration.peers", ["node3"])
    assert not [each for each in judge_all([one, other], {}) if each.group == "both"]


def test_the_document() -> None:
    facts = healthy()
    spoil(facts, "kernel.fuse_trouble", "gone")
    spoil(facts, "clock.synchronised", False)
    found = worst_first(judge_node(facts))
    told = json.loads(json.dumps(document(found, ["node1"], {"node2": "silent"}, 1.23)))
    assert (told["schema"], told["verdict"], told["took_s"]) == (SCHEMA, "bad", 1.2)
    assert told["counts"] == counts(found) and told["counts"]["bad"] == 1 and told["counts"]["warn"] == 1
    assert told["silent"] == [{"node": "node2", "reason": "silent"}]
    assert [each["verdict"] for each in told["findings"][:3]] == ["bad", "warn", "ok"]
    assert set(told["findings"][0]) == {"check", "group", "node", "verdict", "text", "fix"}


def test_what_is_shown_to_people() -> None:
    one, other = healthy("node1"), healthy("node2")
    for facts in (one, other):
        spoil(facts, "clock.synchronised", False)
    spoil(other, f"{IN_DIRECTORY}.holders", [{"pid": 7, "command": "evil\x1b]0;x\x07\n", "path": "/srv/data/f"}])
    found = judge_all([one, other], {})
    lines = list(render(document(found, ["node1", "node2"], {}, 2.0), shown_of(found, False), colour=False))
    assert lines[0].startswith("node1 and node2: something is wrong ✖   (1 bad, 2 warn, ")
    assert "  ! node1, node2: nothing synchronises this clock: logs of the two nodes will not fit together" in lines, "said once"
    assert lines.index("directories") < lines.index("machine"), "the worst first"
    assert all(line.isprintable() for line in lines), "a process' name is no command to a terminal"
    assert "\x1b[31m" in "".join(render(document(found, ["node1"], {}, 2.0), found, colour=True))
    assert len(list(render(document(found, ["node1"], {}, 2.0), shown_of(found, True), colour=False))) > 100


def test_paths_in_commands_are_quoted() -> None:
    facts = healthy()
    spoil(facts, "configuration.scripts.0.path", "/s/my script; reboot")
    spoil(facts, "configuration.scripts.0.executable", False)
    assert [each.fix for each in judge_node(facts) if each.verdict == "bad"] == ["chmod 755 '/s/my script; reboot'"]


PLAIN = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3)
NONSENSE = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=4
)


@given(st.sampled_from(sorted(healthy())), NONSENSE)
def test_what_another_version_sends_is_unknown_and_no_traceback(name: str, value: Any) -> None:
    spoilt = healthy("node2") | {name: value}
    if name == "node":
        spoilt["node"] = str(value)
    found = judge_all([healthy("node1"), spoilt], {})
    assert all(isinstance(each, Finding) for each in found)


@given(st.sampled_from([name for name, value in healthy().items() if isinstance(value, dict)]))
def test_a_probe_that_did_not_come_back_is_never_good_news(name: str) -> None:
    facts = healthy()
    before = {each.check for each in judge_node(facts) if each.verdict == "ok"}
    after = {each.check for each in judge_node(facts | {name: {"error": "no answer within 7 s"}}) if each.verdict == "ok"}
    assert after <= before
