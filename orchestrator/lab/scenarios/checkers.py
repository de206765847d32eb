"""Checkers, and what follows from what they see: SafeKit's acceptance tests S11 to S17, and the disks and mirrors of rows D1, D5 and P2."""

from __future__ import annotations

from orchestrator.lab.cluster import SERVERS, VIP
from orchestrator.lab.scenarios.application import history_of
from orchestrator.lab.scenarios.pair import OTHER, PORT, LedgerPair
from orchestrator.lab.scenarios.scenario import EITHER, Stage, expect, scenario

GATEWAY = "10.77.0.77"  # an address of the client's that comes and goes
SICK = "/run/sick"
HELPER = "98765"  # seconds that a process beside the service sleeps for
TABLES = f"""
[[checker]]
type = "process"
name = "helper"
process = "sleep"
argument_regex = "^{HELPER}$"
interval = "30s"
grace = "0s"
action = "none"
[[checker]]
type = "tcp"
name = "ledger"
to = "127.0.0.1:{PORT}"
interval = "1s"
timeout = "1s"
services = ["ledger"]
[[checker]]
type = "ping"
name = "gateway"
to = "{GATEWAY}"
interval = "1s"
timeout = "1s"
action = "swap"
[[checker]]
type = "ip"
address = "{VIP}"
interval = "1s"
[[checker]]
type = "script"
name = "health"
program = "/bin/sh"
arguments = ["-c", "test ! -e {SICK} || {{ echo 12 orders are stuck; exit 1; }}"]
interval = "1s"
action = "stopstart"
[[checker]]
type = "disk"
name = "space"
interval = "1s"
action = "swap"
[[checker]]
type = "write"
interval = "1s"
timeout = "4s"
"""
OTHER_MODULE = """\
mode = "light"
boot = "on"
[[service]]
name = "sleeper"
start = ["/bin/sleep", "100000"]
"""
DEPENDS = f"""
[[checker]]
type = "module"
module = "{OTHER}"
interval = "1s"
"""
CHECKED = Stage("checked", tables=TABLES)
DEPENDENT = Stage("dependent", tables=DEPENDS, beside=OTHER_MODULE)


def resource(pair: LedgerPair, node: str, name: str) -> tuple[str, str]:
    """State and text of a resource, as the node itself says."""
    for each in pair.row(node).get("checkers", []):
        if each["resource"] == name:
            return str(each["state"]), str(each["text"])
    return "", ""


def until_resource(pair: LedgerPair, node: str, name: str, state: str, timeout_s: float = 15) -> str:
    """Until it is in this state; its text."""
    pair.until(lambda: resource(pair, node, name)[0] == state, f"{name} of {node} is not {state or 'gone'}", timeout_s)
    return resource(pair, node, name)[1]


@scenario(
    "checked-process-dies",
    "a process beside the service dies: that is seen at once, not at the next look, 30 s later",
    "S11",
    silence_s=6,
    stage=CHECKED,
)
def checked_process_dies(pair: LedgerPair) -> None:
    until_resource(pair, "node1", "process.helper", "down")
    helper = pair.lab.spawn("node1", ["sleep", HELPER])
    pair.command("node1", "restart")  # after a start of the services everything is looked at anew
    until_resource(pair, "node1", "process.helper", "up")
    pair.lab.run("node1", ["pkill", "-9", "-f", f"^sleep {HELPER}$"])
    helper.wait(10)
    until_resource(pair, "node1", "process.helper", "down", 3)
    expect("process.helper is down: no process" in history_of(pair, "node1"), "its death is not told", pair)


@scenario(
    "tcp-service-does-not-answer",
    "the service lives and answers nobody: its port is watched, and it alone is restarted",
    "S12 A1",
    silence_s=12,
    stage=CHECKED,
)
def tcp_service_does_not_answer(pair: LedgerPair) -> None:
    until_resource(pair, "node1", "tcp.ledger", "up")
    before = pair.service_pid("node1")
    pair.lab.run("node1", ["kill", "-USR1", before])
    pair.until(lambda: pair.service_pid("node1") not in ("", before), "it is not restarted", 15)
    pair.wait_acks()
    expect(f"127.0.0.1:{PORT} refuses connections" in history_of(pair, "node1"), "the reason is not told", pair)
    expect(pair.row("node2")["state"] == "SECOND", "the role moved", pair)


def lend_gateway(pair: LedgerPair) -> None:
    """It answers both nodes."""
    pair.lab.run("client", ["ip", "addr", "replace", f"{GATEWAY}/24", "dev", "lan"])
    for node in SERVERS:
        pair.lab.run(node, ["ip", "route", "del", "blackhole", GATEWAY], check=False)
        until_resource(pair, node, "ping.gateway", "up")


@scenario(
    "ping-lost-on-one-node",
    "the gateway answers only the secondary: the role moves there",
    "S13",
    serves="node2",
    silence_s=6,
    moves=1,
    stage=CHECKED,
)
def ping_lost_on_one_node(pair: LedgerPair) -> None:
    lend_gateway(pair)
    pair.lab.run("node1", ["ip", "route", "add", "blackhole", GATEWAY])
    pair.wait_state("node2", "PRIM", timeout_s=40)
    pair.wait_acks()
    expect("ping.gateway" in history_of(pair, "node1"), "the reason is not told", pair)
    pair.lab.run("node1", ["ip", "route", "del", "blackhole", GATEWAY])
    until_resource(pair, "node1", "ping.gateway", "up")


@scenario("ping-lost-on-both-nodes", "the gateway answers nobody: nobody stops, and nothing moves", "S13", silence_s=2, stage=CHECKED)
def ping_lost_on_both_nodes(pair: LedgerPair) -> None:
    lend_gateway(pair)
    pair.lab.run("client", ["ip", "addr", "del", f"{GATEWAY}/24", "dev", "lan"])
    for node in SERVERS:
        text = until_resource(pair, node, "ping.gateway", "down")
        expect(text.startswith(GATEWAY), f"the text is {text!r}", pair)
    pair.wait_acks(2000)  # for longer than the rule would have to hold
    expect([pair.row(node)["state"] for node in SERVERS] == ["PRIM", "SECOND"], "something moved", pair)


@scenario(
    "interface-down",
    "the clients' interface of the primary goes down: the role moves, and all is well again when it is back",
    "S14 N9",
    serves="node2",
    silence_s=9,
    moves=1,
)
def interface_down(pair: LedgerPair) -> None:
    pair.lab.run("node1", ["ip", "link", "set", "lan", "down"])
    pair.wait_state("node2", "PRIM", None, timeout_s=30)
    pair.wait_acks()
    text = until_resource(pair, "node1", f"interface.{VIP}", "down")
    expect("lan is switched off" in text, f"the text is {text!r}", pair)
    row = pair.row("node1")
    expect(row["state"] == "WAIT" and "lan is switched off" in row["reason"], "node1 does not wait, or does not say why", pair)
    pair.lab.run("node1", ["ip", "link", "set", "lan", "up"])
    pair.wait_redundant("node2")


@scenario(
    "checked-address-taken",
    "a stranger has the service address beside the primary: that is seen, and the role does not stay with a doubt",
    "S15 V1",
    serves=EITHER,
    moves=3,
    stage=CHECKED,
)
def checked_address_taken(pair: LedgerPair) -> None:
    until_resource(pair, "node1", f"ip.{VIP}", "up")
    pair.lab.run("witness", ["ip", "addr", "add", f"{VIP}/24", "dev", "lan"])
    try:
        pair.until(lambda: f"{VIP} is also on another machine" in history_of(pair, "node1"), "the stranger is not seen", 15)
    finally:
        pair.lab.run("witness", ["ip", "addr", "del", f"{VIP}/24", "dev", "lan"])
    for node in SERVERS:
        pair.say(node, "start")


@scenario(
    "script-says-down",
    "a program of the administrator's says no on the primary: the role moves, with its words as the reason",
    "S16",
    serves="node2",
    silence_s=9,
    moves=1,
    stage=CHECKED,
)
def script_says_down(pair: LedgerPair) -> None:
    until_resource(pair, "node1", "script.health", "up")
    pair.lab.run("node1", ["touch", SICK])
    pair.wait_state("node2", "PRIM", None, timeout_s=30)
    pair.wait_acks()
    expect("12 orders are stuck" in history_of(pair, "node1"), "its words are not told", pair)
    pair.lab.run("node1", ["rm", SICK])


@scenario(
    "checked-disk-full",
    "the primary's disk is nearly full: the role moves before the application hears of it",
    "D1",
    serves="node2",
    silence_s=9,
    moves=1,
    stage=CHECKED,
)
def checked_disk_full(pair: LedgerPair) -> None:
    for node in SERVERS:
        until_resource(pair, node, "disk.space", "up")
    pair.lab.run("node1", ["sh", "-c", "fallocate -l $(($(stat -f -c '%a*%S' /srv) - 8388608)) /srv/.filler"])
    pair.wait_state("node2", "PRIM", None, timeout_s=30)
    text = until_resource(pair, "node1", "disk.space", "down")
    expect("free of" in text and "less than 5%" in text, f"the text is {text!r}", pair)
    warnings = (pair.status("node1") or {"warnings": []})["warnings"]
    expect(any("disk.space" in warning["text"] for warning in warnings), "status does not warn", pair)
    pair.lab.run("node1", ["rm", "/srv/.filler"])
    until_resource(pair, "node1", "disk.space", "up")


@scenario(
    "write-probe",
    "the primary's mirror stands still: a write that does not come back is noticed, and one of the two serves again",
    "P2 D5",
    serves=EITHER,
    silence_s=30,
    moves=2,
    stage=CHECKED,
)
def write_probe(pair: LedgerPair) -> None:
    until_resource(pair, "node1", "write.mirror", "up")
    pair.stop_process("node1", "rfsmount")
    pair.until(lambda: "write.mirror is down" in history_of(pair, "node1"), "the probe did not notice", 10)
    pair.wait_acks(timeout_s=60)


@scenario(
    "module-it-depends-on",
    "another module that it needs is stopped on the primary: the role moves, and comes back to a pair when that runs again",
    "S17",
    serves="node2",
    silence_s=9,
    moves=1,
    stage=DEPENDENT,
)
def module_it_depends_on(pair: LedgerPair) -> None:
    for node in SERVERS:
        until_resource(pair, node, f"module.{OTHER}", "up")
    pair.api("node1", 60.0).command(OTHER, "stop", {})
    pair.wait_state("node2", "PRIM", None, timeout_s=30)
    pair.wait_acks()
    row = pair.row("node1")
    expect(row["state"] == "WAIT" and f"{OTHER} is STOP" in row["reason"], "node1 does not wait, or does not say why", pair)
    pair.api("node1", 60.0).command(OTHER, "start", {})
    pair.wait_redundant("node2")


@scenario(
    "module-it-depends-on-restarts",
    "another module that it needs is started anew: what depends on it gives way, and starts anew on the other node",
    "S17",
    serves="node2",
    silence_s=9,
    moves=1,
    stage=DEPENDENT,
)
def module_it_depends_on_restarts(pair: LedgerPair) -> None:
    for node in SERVERS:
        until_resource(pair, node, f"module.{OTHER}", "up")
    pair.api("node1", 60.0).command(OTHER, "restart", {})
    pair.wait_state("node2", "PRIM", None, timeout_s=30)
    expect(f"module.{OTHER} is down: {OTHER} " in history_of(pair, "node1"), "its restart is not told", pair)
    pair.wait_redundant("node2")
