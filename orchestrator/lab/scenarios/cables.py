"""Networks that are cut, one-way, flapping, slow and lossy: rows N1 to N9 and V2 of the catalogue."""

from __future__ import annotations

import time

from orchestrator.lab.cluster import SERVERS
from orchestrator.lab.plan import LANS, mac_address
from orchestrator.lab.scenarios.pair import DIRECTORY, LEDGER, STATE, LedgerPair
from orchestrator.lab.scenarios.scenario import EITHER, expect, scenario
from orchestrator.lab.switch import Direction
from orchestrator.lab.wire import Flaws

FLAP_PERIODS_S = (0.1, 0.3, 0.7, 1.5, 3.0, 5.0)


def isolate(pair: LedgerPair, node: str, one_way: Direction | None = None) -> None:
    """Both networks of a node."""
    for lan in LANS:
        pair.lab.cut(node, lan, one_way)


def worsen(pair: LedgerPair, flaws: Flaws, lans: tuple[str, ...] = LANS, node: str = "node2") -> None:
    """Cables of a node."""
    for lan in lans:
        pair.lab.worsen(node, lan, flaws)


@scenario("repl-cut", "the replication network is cut: the primary goes on, the other waits with old data", "N1", silence_s=9)
def repl_cut(pair: LedgerPair) -> None:
    pair.lab.cut("node1", "repl")
    pair.wait_state("node1", "ALONE")
    pair.wait_acks()
    pair.until(lambda: pair.row("node2")["state"] == "WAIT", "node2 does not wait with its old data", 30)
    pair.lab.heal()


@scenario("lan-cut-secondary", "the secondary loses the clients' network: a warning, and nothing else", "N1", silence_s=1)
def lan_cut_secondary(pair: LedgerPair) -> None:
    pair.lab.cut("node2", "lan")
    pair.until(lambda: (pair.status("node1") or {"networks": {}})["networks"].get("lan") == "silent", "its silence is not seen", 10)
    expect(pair.row("node1")["state"] == "PRIM", "the loss of one network moved something", pair)
    pair.wait_acks(100)
    pair.lab.heal()


@scenario("lan-cut-primary", "the primary loses the clients' network behind its switch, where no checker of a cable sees it", "N1 V1")
def lan_cut_primary(pair: LedgerPair) -> None:
    pair.lab.cut("node1", "lan")
    pair.until(lambda: (pair.status("node1") or {"networks": {}})["networks"].get("lan") == "silent", "its silence is not seen", 10)
    time.sleep(3)
    expect(pair.rfs_status("node1")["link"] == "paired" and pair.row("node2")["state"] == "SECOND", "the role moved", pair)
    pair.lab.heal()


@scenario(
    "primary-isolated",
    "the primary is cut off from everything: it stays frozen, the other takes over",
    "N1 N7 S10 S13",
    serves="node2",
    silence_s=9,
    moves=1,
)
def primary_isolated(pair: LedgerPair) -> None:
    isolate(pair, "node1")
    pair.wait_state("node2", "ALONE", timeout_s=40)
    pair.until(lambda: pair.rfs_status("node1")["link"] == "frozen", "cut off from everything, it must not go on", 10)
    pair.wait_acks(100)
    expect(pair.rfs_status("node1")["mode"] == "frozen", "it went on", pair)
    pair.until(lambda: not pair.has_address("node1"), "the address stays on a node that is cut off", 20)
    pair.lab.heal()
    pair.wait_state("node1", "SECOND", timeout_s=60)


@scenario("secondary-isolated", "the secondary is cut off from everything: it never takes over", "N1 S10", silence_s=9)
def secondary_isolated(pair: LedgerPair) -> None:
    isolate(pair, "node2")
    pair.wait_state("node1", "ALONE", timeout_s=40)
    pair.wait_acks()
    expect(pair.row("node2")["state"] in ("WAIT", "SECOND"), "node2 serves", pair)
    expect(pair.rfs_status("node2")["role"] == "secondary", "node2 became primary", pair)
    pair.lab.heal()


@scenario("primary-deaf", "the primary hears nothing, and is heard", "N1", serves=EITHER, moves=1)
def primary_deaf(pair: LedgerPair) -> None:
    one_way(pair, "node1", "in")


@scenario("primary-mute", "the primary hears everything, and is not heard", "N1", serves=EITHER, moves=1)
def primary_mute(pair: LedgerPair) -> None:
    one_way(pair, "node1", "out")


@scenario("secondary-deaf", "the secondary hears nothing, and is heard", "N1", silence_s=12)
def secondary_deaf(pair: LedgerPair) -> None:
    one_way(pair, "node2", "in")


@scenario("secondary-mute", "the secondary hears everything, and is not heard", "N1", silence_s=12)
def secondary_mute(pair: LedgerPair) -> None:
    one_way(pair, "node2", "out")


def one_way(pair: LedgerPair, node: str, direction: Direction) -> None:
    isolate(pair, node, direction)
    pair.until(lambda: not any(pair.rfs_status(each)["link"] == "paired" for each in SERVERS), "the data link stands", 15)
    time.sleep(4)  # past every timeout
    pair.lab.heal()


@scenario("repl-one-way", "the replication network carries one direction only, then the other one only", "N1", silence_s=9)
def repl_one_way(pair: LedgerPair) -> None:
    directions: tuple[Direction, ...] = ("in", "out")
    for direction in directions:
        pair.lab.cut("node1", "repl", direction)
        pair.wait_state("node1", "ALONE")
        pair.wait_acks()
        pair.lab.heal()
        pair.wait_redundant("node1")


@scenario("flapping-repl", "the replication network comes and goes, in periods of 0.1 to 5 s", "N2", silence_s=12)
def flapping_repl(pair: LedgerPair) -> None:
    flap(pair, ("repl",))


@scenario("flapping-everything", "the primary's cables come and go, in periods of 0.1 to 5 s", "N2", serves=EITHER, moves=2)
def flapping_everything(pair: LedgerPair) -> None:
    flap(pair, LANS)


def flap(pair: LedgerPair, lans: tuple[str, ...]) -> None:
    for period_s in FLAP_PERIODS_S:
        for lan in lans:
            pair.lab.cut("node1", lan)
        time.sleep(period_s / 2)
        pair.lab.heal("node1")
        time.sleep(period_s / 2)


@scenario("slow-link", "the replication network takes 50 ms more each way, and up to 100 ms of jitter", "N3", silence_s=9)
def slow_link(pair: LedgerPair) -> None:
    worsen(pair, Flaws(delay_s=0.05, jitter_s=0.1), ("repl",))
    pair.wait_acks(30, timeout_s=60)
    pair.until(lambda: pair.rfs_status("node1")["link"] == "paired", "the two do not come together over a slow link", 30)
    pair.lab.heal()


@scenario("stalled-link", "frames of the replication network wait 10 s: as good as lost, and they come late", "N3", silence_s=9)
def stalled_link(pair: LedgerPair) -> None:
    worsen(pair, Flaws(delay_s=10.0), ("repl",))
    pair.wait_state("node1", "ALONE")
    pair.wait_acks()
    pair.lab.heal()


@scenario("lossy-link", "the replication network loses, doubles and reorders 1, 5 and 20 of 100 frames", "N4", silence_s=15)
def lossy_link(pair: LedgerPair) -> None:
    for share in (0.01, 0.05, 0.2):
        worsen(pair, Flaws(loss=share, duplicated=share, reordered=share, seed=int(100 * share)), ("repl",))
        pair.wait_acks(40, timeout_s=60)
    pair.lab.heal()


@scenario("half-lost", "both networks of the secondary lose every other frame for 12 s: writes may wait as long, nothing worse", "N4")
def half_lost(pair: LedgerPair) -> None:
    worsen(pair, Flaws(loss=0.5, seed=50))
    time.sleep(12)  # heartbeats come through now and then, so the peer is not silent; no call does, so it cannot be asked to step aside
    pair.lab.heal()


@scenario("lossy-heartbeats", "every fifth frame of both networks is lost: nothing moves", "N4", silence_s=6)
def lossy_heartbeats(pair: LedgerPair) -> None:
    worsen(pair, Flaws(loss=0.2, seed=20), ("lan",))
    time.sleep(6)
    expect(pair.row("node1")["state"] == "PRIM", "lost heartbeats moved something", pair)
    pair.lab.heal()


@scenario("mtu-black-hole", "long frames of the replication network vanish, short ones pass", "N9", silence_s=12)
def mtu_black_hole(pair: LedgerPair) -> None:
    worsen(pair, Flaws(longest_bytes=700), ("repl",))
    pair.lab.run("node1", ["dd", "if=/dev/urandom", f"of={DIRECTORY}/long", "bs=64k", "count=16", "status=none"], timeout_s=60)
    pair.wait_state("node1", "ALONE", None)
    pair.wait_acks()
    pair.lab.heal()
    pair.wait_redundant("node1")
    pair.lab.run("node1", ["rm", f"{DIRECTORY}/long"])


@scenario("repl-link-down", "the primary's replication interface goes down", "N9", silence_s=9)
def repl_link_down(pair: LedgerPair) -> None:
    pair.lab.run("node1", ["ip", "link", "set", "repl", "down"])
    pair.wait_state("node1", "ALONE", None)
    pair.wait_acks()
    pair.lab.run("node1", ["ip", "link", "set", "repl", "up"])


@scenario(
    "lan-link-down",
    "the primary's interface to the clients goes down: it keeps the role (no checker yet), and answers when it is up",
    "N9 V1 S14",
)
def lan_link_down(pair: LedgerPair) -> None:
    pair.lab.run("node1", ["ip", "link", "set", "lan", "down"])
    time.sleep(4)
    expect(pair.rfs_status("node1")["link"] == "paired", "the data link has nothing to do with it", pair)
    pair.lab.run("node1", ["ip", "link", "set", "lan", "up"])
    pair.wait_acks()


@scenario("repl-address-removed", "somebody removes the primary's replication address, and puts it back", "N9", silence_s=9)
def repl_address_removed(pair: LedgerPair) -> None:
    address = f"{pair.lab.address('node1', 'repl')}/24"
    pair.lab.run("node1", ["ip", "addr", "del", address, "dev", "repl"])
    pair.wait_state("node1", "ALONE", None)
    pair.wait_acks()
    pair.lab.run("node1", ["ip", "addr", "add", address, "broadcast", "+", "dev", "repl"])


def part(pair: LedgerPair) -> None:
    """The nodes lose each other and nothing else: both still reach the third machine."""
    for lan in LANS:
        pair.lab.worsen("node2", lan, Flaws(without_peer=mac_address("node1", lan)))


@scenario(
    "split-brain", "the nodes lose only each other, and nobody judges: by the policy both go on, and nothing is overwritten", "N1 S10 S18",
    serves=EITHER, moves=3, two_may_serve=True,
)  # fmt: skip
def split_brain(pair: LedgerPair) -> None:
    part(pair)
    for node in SERVERS:
        pair.wait_state(node, "ALONE", None, timeout_s=40)
    for node in SERVERS:  # each has something that the other one lacks
        pair.lab.run(node, ["sh", "-c", f"echo {node} > {DIRECTORY}/{node}"])
    pair.wait_acks(50)
    pair.lab.heal()
    pair.until(lambda: (pair.status("node1") or {}).get("verdict") == "diverged", "nobody says DIVERGED", 30)
    loser = min(SERVERS, key=lambda node: len(pair.lab.run(node, ["cat", LEDGER]).stdout))
    keeper = pair.other(loser)
    pair.lab.run(keeper, ["rfsmount", "resolve", "--keep", "here", "--state", STATE], timeout_s=60)
    pair.wait_redundant(keeper)
    pair.until(lambda: loser in kept_names(pair, loser), f"what only {loser} had is not kept", 10)
    told = {str(number) for number in pair.acks()}  # the loser went on until it was told, so what it had then is in kept/
    served = set(pair.lab.run(keeper, ["cat", LEDGER]).stdout.split())
    kept = set(pair.lab.run(loser, ["sh", "-c", f"find {STATE}/kept -type f -exec cat {{}} + | tr -c 0-9 '\\n'"]).stdout.split())
    lost = told - served - kept
    expect(not lost, f"{len(lost)} acknowledged lines are neither served nor kept: {sorted(lost)[:5]}")
    pair.give_up(told - served)
    pair.lab.run(keeper, ["rm", f"{DIRECTORY}/{keeper}"])


def kept_names(pair: LedgerPair, node: str) -> str:
    """All that was put aside there."""
    return pair.lab.run(node, ["sh", "-c", f"find {STATE}/kept"], check=False).stdout


@scenario(
    "announcements-lost",
    "the primary's node dies and the client hears no announcement of the new one",
    "V2",
    serves="node2",
    silence_s=90,
    moves=1,
    slow=True,
)
def announcements_lost(pair: LedgerPair) -> None:
    pair.lab.worsen("client", "lan", Flaws(announcements_lost=True))
    pair.power_off("node1")
    pair.wait_state("node2", "ALONE")
    pair.wait_acks(timeout_s=60)
    pair.lab.heal("client")
    pair.boot("node1")
