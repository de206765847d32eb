"""Processes that die or stand still, and nodes that do: rows P1, P2, T2 of the catalogue, and the death of the service."""

from __future__ import annotations

import time

from orchestrator.lab.cluster import SERVERS
from orchestrator.lab.scenarios.pair import LedgerPair
from orchestrator.lab.scenarios.scenario import EITHER, Stage, expect, scenario

FEW_RESTARTS = Stage("few-restarts", max_restarts="2 per 24h")


@scenario(
    "primary-rfsmount-killed", "the primary's rfsmount dies: the other takes over at once", "P1", serves="node2", silence_s=6, moves=1
)
def primary_rfsmount_killed(pair: LedgerPair) -> None:
    pair.kill_rfsmount("node1")
    # Not the silence that the client sees: a SYN that met nobody is repeated after 1 s and again after 2, whoever serves by then.
    took_s = pair.wait_state("node2", "ALONE", None, timeout_s=10)
    expect(took_s < 2.5, f"a death that is seen must not cost the heartbeat's timeout, and it took {took_s:.1f} s")
    pair.wait_acks(5, timeout_s=10)
    expect(not pair.has_address("node1"), "the address stays where nobody serves", pair)


@scenario("lone-rfsmount-killed", "rfsmount dies where nobody can take over: it is restarted in place", "P1", silence_s=6)
def lone_rfsmount_killed(pair: LedgerPair) -> None:
    pair.command("node2", "stop")
    pair.wait_state("node1", "ALONE")
    pair.kill_rfsmount("node1")
    pair.wait_acks()
    pair.wait_state("node1", "ALONE")
    pair.check_lines()
    pair.command("node2", "start")


@scenario("secondary-rfsmount-killed", "the secondary's rfsmount dies: nobody waits, it comes back", "P1", silence_s=3)
def secondary_rfsmount_killed(pair: LedgerPair) -> None:
    pair.kill_rfsmount("node2")
    pair.until(lambda: pair.row("node1")["state"] == "ALONE" or pair.rfs_status("node1")["link"] != "paired", "it is not noticed", 10)


@scenario("hactld-killed", "the primary's hactld dies and is restarted: the application does not notice", "P1", silence_s=1)
def hactld_killed(pair: LedgerPair) -> None:
    pid, rfs = pair.service_pid("node1"), pair.rfs_status("node1")["pid"]
    pair.kill_daemon("node1")
    pair.wait_acks(50)
    pair.start_daemon("node1")
    pair.wait_redundant("node1")
    expect((pid, rfs) == (pair.service_pid("node1"), pair.rfs_status("node1")["pid"]), "something was restarted", pair)


@scenario("both-hactld-killed", "both hactld die and are restarted: the application does not notice", "P1", silence_s=1)
def both_hactld_killed(pair: LedgerPair) -> None:
    pid = pair.service_pid("node1")
    for node in SERVERS:
        pair.kill_daemon(node)
    pair.wait_acks(50)
    for node in reversed(SERVERS):
        pair.start_daemon(node)
    pair.wait_redundant("node1")
    expect(pid == pair.service_pid("node1"), "the service was restarted", pair)


@scenario(
    "hactld-and-rfsmount-killed",
    "both die on the primary: the other takes over by its silence",
    "P1",
    serves="node2",
    silence_s=9,
    moves=1,
)
def hactld_and_rfsmount_killed(pair: LedgerPair) -> None:
    pair.kill_daemon("node1")
    pair.kill_rfsmount("node1")
    pair.wait_state("node2", "ALONE")
    pair.wait_acks()
    pair.start_daemon("node1")
    pair.wait_state("node1", "SECOND", timeout_s=60)
    expect(not pair.has_address("node1") and not pair.service_pid("node1"), "something of the lost role is left on node1", pair)


@scenario("hactld-stopped", "the primary's hactld stands still past the timeout: the data link says that it lives", "P2", silence_s=1)
def hactld_stopped(pair: LedgerPair) -> None:
    pair.stop_process("node1", "hactld")
    pair.wait_acks(500)
    pair.until(lambda: (pair.status("node2") or {"networks": {}})["networks"].get("lan") == "silent", "its silence is not seen", 10)
    expect(pair.row("node2")["state"] == "SECOND", "a living data link is no reason to take over", pair)
    pair.stop_process("node1", "hactld", go_on=True)
    pair.until(pair.all_heard, "the two do not hear each other again", 15)


@scenario(
    "secondary-rfsmount-stopped",
    "the secondary's rfsmount stands still for good: it reads nothing and answers nothing, until its hactld ends it",
    "P2 N3",
    silence_s=30,
)
def secondary_rfsmount_stopped(pair: LedgerPair) -> None:
    pair.stop_process("node2", "rfsmount")
    pair.until(lambda: pair.rfs_status("node1")["link"] != "paired", "its silence is not seen", 10)
    pair.wait_state("node1", "ALONE", None, timeout_s=30)


@scenario(
    "primary-rfsmount-stopped",
    "the primary's rfsmount stands still for good: its hactld ends it, and the other node takes over",
    "P2",
    serves="node2",
    silence_s=30,
    moves=1,
)
def primary_rfsmount_stopped(pair: LedgerPair) -> None:
    pair.stop_process("node1", "rfsmount")
    pair.wait_state("node2", "ALONE", None, timeout_s=30)


@scenario("primary-frozen", "the primary's node stands still past the timeout, and goes on", "P2 T2", serves="node2", silence_s=9, moves=1)
def primary_frozen(pair: LedgerPair) -> None:
    pair.lab.freeze("node1")
    pair.wait_state("node2", "ALONE")
    pair.wait_acks()
    pair.lab.thaw("node1")
    pair.wait_state("node1", "SECOND", timeout_s=60)
    expect(not pair.has_address("node1"), "an old primary keeps the address", pair)
    expect(not pair.service_pid("node1"), "an old primary's application must not run on", pair)


@scenario(
    "primary-frozen-for-long",
    "the primary's node stands still for longer than its address lives",
    "P2 T2",
    serves="node2",
    silence_s=9,
    moves=1,
    slow=True,
)
def primary_frozen_for_long(pair: LedgerPair) -> None:
    pair.lab.freeze("node1")
    pair.wait_state("node2", "ALONE")
    time.sleep(30)  # ten times the timeout
    pair.lab.thaw("node1")
    pair.wait_state("node1", "SECOND", timeout_s=60)


@scenario("primary-frozen-briefly", "the primary's node stands still for less than the timeout: nothing moves", "P2 T2", silence_s=5)
def primary_frozen_briefly(pair: LedgerPair) -> None:
    pair.lab.freeze("node1")
    time.sleep(1.5)
    pair.lab.thaw("node1")


@scenario("primary-frozen-again-and-again", "the primary's node stutters: 0.4 s of standing still in every second", "P2 T2", silence_s=3)
def primary_frozen_again_and_again(pair: LedgerPair) -> None:
    for _ in range(6):
        pair.lab.freeze("node1")
        time.sleep(0.4)
        pair.lab.thaw("node1")
        time.sleep(0.6)


@scenario("secondary-frozen", "the secondary's node stands still past the timeout, and goes on", "P2 T2", silence_s=9)
def secondary_frozen(pair: LedgerPair) -> None:
    pair.lab.freeze("node2")
    pair.wait_state("node1", "ALONE")
    pair.wait_acks()
    pair.lab.thaw("node2")


@scenario("both-frozen", "both nodes stand still past the timeout, one after the other goes on", "P2 T2", serves=EITHER, moves=1)
def both_frozen(pair: LedgerPair) -> None:
    for node in SERVERS:
        pair.lab.freeze(node)
    time.sleep(5)
    pair.lab.thaw("node1")
    time.sleep(1)
    pair.lab.thaw("node2")


@scenario("service-killed", "the service dies: it is started again where it was", "A1 S11", silence_s=3)
def service_killed(pair: LedgerPair) -> None:
    before = pair.service_pid("node1")
    pair.kill_service("node1")
    pair.until(lambda: pair.service_pid("node1") not in ("", before), "the service is not started again", 10)
    expect(pair.row("node2")["state"] == "SECOND", "the death of a service moved the role", pair)


@scenario(
    "service-killed-too-often",
    "the service dies more often than allowed: the other node gets the role",
    "A1 S11",
    stage=FEW_RESTARTS,
    serves="node2",
    silence_s=6,
    moves=1,
)
def service_killed_too_often(pair: LedgerPair) -> None:
    for _ in range(3):
        before = pair.service_pid("node1")
        pair.kill_service("node1")

        def went_on(before: str = before) -> bool:
            return pair.service_pid("node1") not in ("", before) or pair.row("node2")["state"] in ("PRIM", "ALONE")

        pair.until(went_on, "neither started again nor handed over", 15)
    pair.wait_redundant("node2")
