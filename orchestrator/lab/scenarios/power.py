"""Nodes that lose power, and come back in every order: rows P3, P4, D4, D7 and N7 of the catalogue."""

from __future__ import annotations

from orchestrator.lab.cluster import SERVERS
from orchestrator.lab.scenarios.pair import DIRECTORY, LedgerPair
from orchestrator.lab.scenarios.scenario import EITHER, expect, scenario

BULK = f"{DIRECTORY}/bulk"


def write_bulk(pair: LedgerPair, node: str, megabytes: int) -> None:
    """Data that a resync has to carry."""
    pair.lab.run(node, ["dd", "if=/dev/urandom", f"of={BULK}", "bs=1M", f"count={megabytes}", "status=none"], timeout_s=120)


@scenario("primary-power-cut", "the primary's node loses power and returns under load", "P3 P4 S9", serves="node2", silence_s=7, moves=1)
def primary_power_cut(pair: LedgerPair) -> None:
    pair.until(lambda: not pair.rfs_status("node1")["everything_marked"], "no checkpoint came", 15)
    pair.power_off("node1")
    pair.wait_state("node2", "ALONE")
    pair.wait_acks()
    pair.check_lines()
    pair.boot("node1")
    pair.calm()
    expect(pair.rfs_status("node2")["last_scope"] == "marks", "guarded early in its boot, it returns at the price of what changed", pair)


@scenario("secondary-power-cut", "the secondary's node loses power and returns under load", "P3 P4 S9", silence_s=9)
def secondary_power_cut(pair: LedgerPair) -> None:
    pair.power_off("node2")
    pair.wait_state("node1", "ALONE")
    pair.wait_acks()
    pair.boot("node2")


@scenario("quick-return", "the secondary is back before it was missed: half-open connections, a new boot", "N7 P4", silence_s=9)
def quick_return(pair: LedgerPair) -> None:
    pair.power_off("node2")
    pair.boot("node2")


@scenario("both-power-cut", "both lose power at once and come back together", "P3 P4 S9", serves=EITHER, moves=1)
def both_power_cut(pair: LedgerPair) -> None:
    pair.power_off(*SERVERS)
    for node in SERVERS:
        pair.boot(node)


@scenario("both-power-cut-in-turn", "first the secondary, then the primary; the old copy boots first, and waits", "P4 U1 S9", moves=0)
def both_power_cut_in_turn(pair: LedgerPair) -> None:
    pair.power_off("node2")
    pair.wait_state("node1", "ALONE")
    pair.wait_acks()
    pair.power_off("node1")
    pair.boot("node2")
    pair.until(lambda: pair.rfs_status("node2")["role"] == "secondary", "rfsmount does not come up on node2", 20)
    pair.until(lambda: pair.row("node2")["state"] == "WAIT" and "waiting for" in pair.row("node2")["reason"], "node2 does not wait", 20)
    pair.boot("node1")


@scenario("lone-survivor-reboots", "the one that served alone reboots while the other is gone: it serves again by itself", "P4 S9")
def lone_survivor_reboots(pair: LedgerPair) -> None:
    pair.power_off("node2")
    pair.wait_state("node1", "ALONE")
    pair.wait_acks()
    pair.power_off("node1")
    pair.boot("node1")
    pair.wait_state("node1", "ALONE")
    pair.wait_acks()
    pair.check_lines()
    pair.boot("node2")


@scenario("rolling-reboot", "one node after the other is rebooted", "P4", silence_s=9, moves=1, serves="node2")
def rolling_reboot(pair: LedgerPair) -> None:
    pair.power_off("node2")
    pair.wait_state("node1", "ALONE")
    pair.boot("node2")
    pair.calm()
    pair.until(pair.all_heard, "a network is still silent", 15)
    pair.power_off("node1")
    pair.wait_state("node2", "ALONE")
    pair.boot("node1")


@scenario(
    "primary-back-too-soon", "the primary is back, without its last writes, before anybody took over", "P3 D4", serves="node2", moves=1
)
def primary_back_too_soon(pair: LedgerPair) -> None:
    """Only the secondary's memory holds the last writes: whoever ran through is the source, not who was primary."""
    pair.kill_daemon("node2")  # nobody takes over
    copy = pair.lab.sync_copy("node1")
    pair.wait_acks(50)
    pair.power_off("node1")
    pair.lab.restore("node1", copy)  # what node1 had synced since is lost as well: more than a power cut may cost
    pair.boot("node1")
    pair.start_daemon("node2")
    pair.until(lambda: pair.rfs_status("node2")["role"] == "primary", "node2 ran through and is not the source", 30)
    pair.wait_state("node1", "SECOND", timeout_s=60)


@scenario("target-power-cut", "the secondary loses power in the middle of its resync", "P3 P4", silence_s=9)
def target_power_cut(pair: LedgerPair) -> None:
    pair.power_off("node2")
    pair.wait_state("node1", "ALONE")
    write_bulk(pair, "node1", 192)
    pair.boot("node2")
    pair.until(lambda: pair.rfs_status("node1")["link"] == "resyncing", "no resync", 30)
    pair.power_off("node2")
    pair.wait_acks()
    pair.boot("node2")
    pair.wait_redundant("node1")
    pair.lab.run("node1", ["rm", BULK])


@scenario("source-power-cut", "the only whole copy loses power in the middle of a resync: the half one waits for it", "P3 P4")
def source_power_cut(pair: LedgerPair) -> None:
    pair.power_off("node2")
    pair.wait_state("node1", "ALONE")
    write_bulk(pair, "node1", 192)
    pair.boot("node2")
    pair.until(lambda: pair.rfs_status("node1")["link"] == "resyncing", "no resync", 30)
    pair.power_off("node1")
    pair.until(lambda: pair.row("node2")["state"] == "WAIT" and pair.row("node2")["data"] == "INCONSISTENT", "node2 does not wait", 20)
    answer = pair.say("node2", "prim")
    pair.until(lambda: bool(pair.row("node2")["reason"]), f"no reason is told, but only: {answer}", 10)
    expect(pair.rfs_status("node2")["role"] == "secondary" and not pair.service_pid("node2"), "half a copy is served", pair)
    pair.boot("node1")
    pair.wait_redundant("node1")
    pair.lab.run("node1", ["rm", BULK])


@scenario("older-snapshot", "the secondary's disk is put back to what it was: a restored machine image", "D7", silence_s=9)
def older_snapshot(pair: LedgerPair) -> None:
    copy = pair.lab.sync_copy("node2")
    pair.wait_acks(100)
    pair.power_off("node2")
    pair.wait_state("node1", "ALONE")
    pair.wait_acks()
    pair.lab.restore("node2", copy)
    pair.boot("node2")


@scenario("replaced-machine", "the secondary is replaced by a new machine with an empty disk", "D7 C2", silence_s=9)
def replaced_machine(pair: LedgerPair) -> None:
    pair.power_off("node2")
    pair.wait_state("node1", "ALONE")
    pair.lab.replace_disk("node2")
    pair.lab.run("node1", ["hactl", "cluster", "forget", "node2", "--yes"])
    pair.lab.boot("node2")
    pair.lab.run("node2", ["mkdir", "-p", DIRECTORY])
    pair.pair("--new-key")
    pair.lab.run("node2", ["hactld", "--guard"], check=False)
    pair.start_daemon("node2")
    pair.command("node2", "start")
