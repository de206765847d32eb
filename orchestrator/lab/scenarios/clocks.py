"""Wall clocks that jump by years, under hactld and rfsmount of one node: row T1 of the catalogue. Nothing may happen.

libfaketime is laid under the node's hactld, and so under the rfsmount that it starts. It reads the clock's offset from a file, so the jump
comes while they run; the monotonic clock and the times of files stay true, as they do on a machine whose wall clock is set.
"""

from __future__ import annotations

import time
from pathlib import Path

from orchestrator.lab.scenarios.pair import LedgerPair
from orchestrator.lab.scenarios.scenario import Impossible, expect, scenario

LIBRARIES = ("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1")
OFFSET = "/run/wall-clock"


def library() -> str:
    """libfaketime, where this machine has it."""
    for path in LIBRARIES:
        if Path(path).exists():
            return path
    raise Impossible("libfaketime is not installed here (Debian: apt-get install faketime)")


def set_clock(pair: LedgerPair, node: str, offset: str) -> None:
    """The wall clock of the node's daemons; replaced whole, for they read it at any moment."""
    pair.lab.run(node, ["sh", "-c", f"echo '{offset}' > {OFFSET}.new && mv {OFFSET}.new {OFFSET}"])


def with_wrong_clock(pair: LedgerPair, node: str) -> None:
    """hactld and rfsmount of a node, started again under a clock that can be set."""
    environment = {
        "LD_PRELOAD": library(), "FAKETIME_TIMESTAMP_FILE": OFFSET, "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1", "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }  # fmt: skip
    set_clock(pair, node, "+0")
    pair.command(node, "stop")
    pair.wait_state(node, "STOP", None)
    pair.kill_daemon(node)
    pair.start_daemon(node, environment)
    pair.command(node, "start")
    pair.calm()
    pair.until(pair.all_heard, "a network is still silent", 15)


def with_true_clock(pair: LedgerPair, node: str) -> None:
    """As it was."""
    pair.command(node, "stop")
    pair.wait_state(node, "STOP", None)
    pair.kill_daemon(node)
    pair.start_daemon(node)
    pair.command(node, "start")


def nothing_happens(pair: LedgerPair, node: str, offsets: tuple[str, ...], pause_s: float) -> None:
    """The clock jumps about; states, generation and processes stay what they were."""
    before = {
        each: (pair.row(each)["state"], pair.rfs_status(each)["pid"], pair.rfs_status(each)["generation"]) for each in ("node1", "node2")
    }
    numbers, began = pair.last_numbers(), time.monotonic()
    for offset in offsets:
        set_clock(pair, node, offset)
        pair.wait_acks(20)
        time.sleep(pause_s)
    shown = pair.lab.run(node, ["sh", "-c", f"LD_PRELOAD={library()} FAKETIME_TIMESTAMP_FILE={OFFSET} NO_FAKE_STAT=1 date +%Y"]).stdout
    set_clock(pair, node, "+0")
    after = {
        each: (pair.row(each)["state"], pair.rfs_status(each)["pid"], pair.rfs_status(each)["generation"]) for each in ("node1", "node2")
    }
    expect(after == before, f"the clock changed something: {before} became {after}", pair)
    moved = [event for event in pair.told_since(numbers) if event["kind"] in ("transition", "takeover", "grant", "fence")]
    expect(not moved, f"the clock made something happen: {moved}", pair)
    expect(shown.strip() != time.strftime("%Y"), f"the clock was not wrong at all: {shown}")
    expect(pair.longest_silence(began) < 1.0, "the client had to wait", pair)


@scenario("clock-of-primary-jumps", "the primary's wall clock jumps ten years on, and thirty back", "T1", serves="node2", moves=1)
def clock_of_primary_jumps(pair: LedgerPair) -> None:
    with_wrong_clock(pair, "node2")
    pair.swap("node1")
    pair.wait_redundant("node2")
    nothing_happens(pair, "node2", ("+10y", "-30y", "+1", "-1", "+10y"), 1.5)


@scenario("clock-of-secondary-jumps", "the secondary's wall clock jumps ten years on, and thirty back", "T1")
def clock_of_secondary_jumps(pair: LedgerPair) -> None:
    with_wrong_clock(pair, "node2")
    nothing_happens(pair, "node2", ("+10y", "-30y", "+1", "-1", "+10y"), 1.5)


@scenario("clock-strobes", "the secondary's wall clock jumps to and fro by a day, many times a second", "T1")
def clock_strobes(pair: LedgerPair) -> None:
    with_wrong_clock(pair, "node2")
    nothing_happens(pair, "node2", ("+1d", "-1d") * 15 + ("+5y",), 0.05)


@scenario(
    "failover-on-a-wrong-clock",
    "the survivor's wall clock is thirty years back: it takes over as always",
    "T1 P3",
    serves="node2",
    silence_s=9,
    moves=1,
)
def failover_on_a_wrong_clock(pair: LedgerPair) -> None:
    with_wrong_clock(pair, "node2")
    set_clock(pair, "node2", "-30y")
    pair.power_off("node1")
    pair.wait_state("node2", "ALONE")
    pair.wait_acks()
    pair.boot("node1")
    pair.calm()
    set_clock(pair, "node2", "+0")
