"""Disks that are full, stall or change by themselves: what needs a whole pair of the rows D (tests/faults, tests/powercut: the rest)."""

from __future__ import annotations

import time

from orchestrator.lab.scenarios.pair import DIRECTORY, STATE, LedgerPair
from orchestrator.lab.scenarios.scenario import expect, scenario

FILL = "fallocate -l $(($(stat -f -c '%a*%S' /srv))) /srv/.filler || dd if=/dev/zero of=/srv/.filler bs=1M; true"


def fill(pair: LedgerPair, node: str) -> None:
    """To the last block."""
    pair.lab.run(node, ["sh", "-c", FILL], timeout_s=120)


@scenario("secondary-disk-full", "the secondary's disk is full: it leaves and says so, room brings it back", "D1", silence_s=6)
def secondary_disk_full(pair: LedgerPair) -> None:
    fill(pair, "node2")
    pair.lab.run("node1", ["dd", "if=/dev/urandom", f"of={DIRECTORY}/large", "bs=1M", "count=64"], timeout_s=60)
    pair.wait_state("node1", "ALONE")
    pair.wait_acks()
    said = pair.row("node1")["reason"] + pair.row("node2")["reason"] + pair.rfs_status("node1")["reason"]
    expect("No space left" in said, f"the reason is not told: {said}", pair)
    pair.lab.run("node2", ["rm", "/srv/.filler"])
    pair.lab.run("node1", ["rm", f"{DIRECTORY}/large"])


@scenario("primary-disk-full", "the primary's disk is full: the application hears it, both copies stay equal", "D1")
def primary_disk_full(pair: LedgerPair) -> None:
    fill(pair, "node1")
    wrote = pair.lab.run("node1", ["dd", "if=/dev/urandom", f"of={DIRECTORY}/large", "bs=1M", "count=8"], check=False, timeout_s=60)
    expect(wrote.returncode != 0 and "No space left" in wrote.stderr, f"the application was not told: {wrote.stderr}", pair)
    pair.lab.run("node1", ["rm", "/srv/.filler"])
    pair.lab.run("node1", ["rm", f"{DIRECTORY}/large"])


@scenario(
    "secondary-disk-stalls",
    "the secondary's disk stands still for 8 s: it is waited for, or left behind and comes back",
    "D5",
    silence_s=20,
)
def secondary_disk_stalls(pair: LedgerPair) -> None:
    stall(pair, "node2", 8)


@scenario(
    "secondary-disk-stalls-for-long",
    "the secondary's disk stands still for 45 s: after 30 s of an unanswered fsync it is left behind, and comes back",
    "D5",
    silence_s=40,
    slow=True,
)
def secondary_disk_stalls_for_long(pair: LedgerPair) -> None:
    stall(pair, "node2", 45)


@scenario("primary-disk-stalls", "the primary's disk stands still for 6 s: the application waits, nothing is lost", "D5", silence_s=12)
def primary_disk_stalls(pair: LedgerPair) -> None:
    stall(pair, "node1", 6)


def stall(pair: LedgerPair, node: str, seconds: float) -> None:
    """Nothing can be written there for so long; who tries waits in the kernel."""
    pair.lab.run(node, ["fsfreeze", "--freeze", "/srv"])
    try:
        time.sleep(seconds)
    finally:
        pair.lab.run(node, ["fsfreeze", "--unfreeze", "/srv"])


def write_behind_the_guard(pair: LedgerPair, node: str, command: str) -> None:
    """The guard makes the plain tree read-only for everybody; a disk that rots does not ask it."""
    bare = f"while umount {DIRECTORY} 2>/dev/null; do :; done; {command}"
    pair.lab.run(node, ["unshare", "--mount", "sh", "-c", bare])


@scenario(
    "changed-behind-our-back",
    "a file of the secondary's copy is changed behind the mirror: verify finds it, --repair mends it",
    "D6 D8",
    silence_s=9,
)
def changed_behind_our_back(pair: LedgerPair) -> None:
    pair.lab.run("node1", ["sh", "-c", f"echo whole > {DIRECTORY}/proof"])
    write_behind_the_guard(pair, "node2", f"echo wrong > {DIRECTORY}/proof")
    verify = ["rfsmount", "verify", "--state", STATE]
    found = pair.lab.run("node1", verify, check=False, timeout_s=120)
    expect(found.returncode != 0 and "proof" in found.stdout + found.stderr, f"verify did not find it: {found.stdout}{found.stderr}", pair)
    pair.lab.run("node1", [*verify, "--repair"], check=False, timeout_s=120)
    pair.wait_redundant("node1")
    pair.lab.run("node1", ["rm", f"{DIRECTORY}/proof"])


@scenario(
    "out-of-files", "rfsmount of the secondary may open no file more: it leaves or goes on, and nobody else is hurt", "P5", silence_s=9
)
def out_of_files(pair: LedgerPair) -> None:
    limit = f"prlimit --pid $(cat {STATE}/rfsmount.pid) --nofile"
    before = pair.lab.run("node2", ["sh", "-c", f"{limit} --noheadings --output=SOFT,HARD --raw"]).stdout.split()
    pair.lab.run("node2", ["sh", "-c", f"{limit}=$(ls /proc/$(cat {STATE}/rfsmount.pid)/fd | wc -l):{before[1]}"])
    many = f"cd {DIRECTORY} && for n in $(seq 60); do echo $n > many.$n; done; rm many.*"
    pair.lab.run("node1", ["sh", "-c", many])
    pair.wait_acks()
    if pair.row("node2")["state"] in ("SECOND", "WAIT"):  # else it died, and a new one has its own limit
        pair.lab.run("node2", ["sh", "-c", f"{limit}={':'.join(before)}"], check=False)
