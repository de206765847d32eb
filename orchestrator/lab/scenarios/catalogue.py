"""The catalogue of faults, and SafeKit's acceptance tests: each row, and where it is proven.

    python -m orchestrator.lab.scenarios.catalogue      prints docs/fault-catalogue.md

A row is proven by the scenarios that name it, by tests elsewhere, or by both. What nothing proves says why.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.lab.scenarios.scenario import TABLE, Scenario


@dataclass(frozen=True, slots=True)
class Row:
    """A fault, or an acceptance test."""

    number: str
    text: str
    elsewhere: tuple[str, ...] = ()  # tests that need no lab; a path before the first blank or colon
    waits: str = ""  # what is missing for the rest of it


FAULTS = (
    Row("P1", "a daemon is killed, at each step of the protocol", ("tests/faults/test_kill_points.py: every step, both nodes",)),
    Row(
        "P2",
        "a daemon or a whole node stands still, and goes on after the takeover",
        ("tests/sim/test_sequences.py",),
    ),
    Row("P3", "a node crashes, and what was not synced is lost", ("tests/powercut: on logged disks, with torn and reordered writes",)),
    Row("P4", "reboots, both off and on in every order", ("tests/sim/test_sequences.py", "tests/powercut/way_back.py")),
    Row(
        "P5",
        "no memory, no file descriptor left",
        ("tests/faults/test_nth_call.py: the n-th call fails",),
        "a memory limit (no controller in the lab)",
    ),
    Row(
        "P6",
        "a daemon of another version",
        ("tests/unit/test_heartbeat.py: other-version", "tests/unit/test_record.py"),
        "a second release",
    ),
    Row("N1", "partition: both ways, one way, one network, all, the clients' only, the witness only", ("tests/sim/test_sequences.py",)),
    Row("N2", "flapping, with periods of 0.1 to 5 s"),
    Row("N3", "a slow link, jitter, a peer that reads nothing"),
    Row("N4", "loss of 1 to 50 of 100, doubled and reordered frames"),
    Row(
        "N5",
        "a corrupt packet with a right checksum, truncated, flipped bits",
        ("tests/fuzz: the decoders", "tests/unit/test_heartbeat.py", "tests/unit/test_link_security.py: TLS ends the session"),
    ),
    Row("N6", "a recorded session, frame or heartbeat is played again", ("tests/unit/test_seal.py", "tests/unit/test_heartbeat.py")),
    Row(
        "N7",
        "reset in the middle, half-open connections after a power loss",
        ("tests/posix/test_bad_peers.py", "tests/posix/test_witness.py: cables that are cut"),
    ),
    Row(
        "N8",
        "exactly one kind of message is held or lost",
        ("tests/datasim: the link breaks at any message of any kind",),
        "a message that is lost while later ones pass (TLS and numbers make it a broken link)",
    ),
    Row("N9", "an MTU black hole, an address removed, a cable pulled"),
    Row(
        "N10",
        "the wrong peer, a second cluster of the same configuration, our own address reflected",
        ("tests/posix/test_bad_peers.py", "tests/unit/test_heartbeat.py", "tests/cluster/test_keys.py: strangers are counted"),
    ),
    Row("D1", "disk full: primary, secondary, the state directory", ("tests/faults/test_disks.py",), "quota, inodes"),
    Row("D2", "EIO: once, for ever, of one sector", ("tests/faults/test_nth_call.py", "tests/faults/test_disks.py")),
    Row("D3", "the file system goes read-only", ("tests/faults/test_disks.py: a file system that gives up",)),
    Row("D4", "power cut with reordered and torn writes, of one node or both", ("tests/powercut",)),
    Row("D5", "the disk stalls"),
    Row(
        "D6",
        "bit rot in data, in the record, in the marks",
        ("tests/posix/test_verify.py", "tests/unit/test_record.py: every flipped bit", "tests/unit/test_intent_log.py"),
    ),
    Row(
        "D7",
        "a disk is replaced by an older snapshot of itself, or by an empty one",
        ("tests/datasim/test_findings.py", "tests/property/test_decide.py"),
    ),
    Row("D8", "the copy is changed behind our back", ("tests/posix/test_verify.py",)),
    Row("T1", "the wall clock jumps by seconds, by years, to and fro"),
    Row("T2", "time passes without us: a suspended machine", ("tests/sim/test_sequences.py",)),
    Row(
        "A1", "a script or service hangs, fails, forks and ends, prints without end, ignores TERM", ("tests/unit/test_effects_services.py",)
    ),
    Row("A2", "files are held open at the stop, the mount is busy"),
    Row("V1", "the service address is answered by a stranger, before or later; its network is down", ("tests/cluster/test_vip.py",)),
    Row("V2", "announcements are lost, a client knows the old hardware address"),
    Row("W1", "the witness is dead, slow, parted from one, or has forgotten", ("tests/posix/test_witness.py", "tests/unit/test_etcd.py")),
    Row(
        "C1",
        "the configuration differs, is changed on one node only, is rolled back",
        ("tests/cluster/test_config_apply.py", "tests/unit/test_config_rounds.py", "tests/unit/test_config.py"),
    ),
    Row(
        "C2",
        "a key is expired, revoked, of the wrong node, replaced in mid-session",
        ("tests/cluster/test_keys.py", "tests/unit/test_link_security.py", "tests/posix/test_keys.py"),
    ),
    Row("U1", "people: primary by force on old data, stop of both, double commands, two consoles", ("tests/property/test_pair_model.py",)),
    Row(
        "H1",
        "a hostile peer, and a hostile local user",
        ("tests/fuzz: the peer's decoder", "tests/unit/test_pairing.py: a person in between"),
        "the security step",
    ),
)

ACCEPTANCE = (
    Row("S1", "first start"),
    Row("S2", "start"),
    Row("S3", "stop"),
    Row("S4", "start again"),
    Row("S5", "restart"),
    Row("S6", "virtual address"),
    Row("S7", "replication"),
    Row(
        "S8", "shutdown of the machine", (), "a unit that stops the modules when the machine goes down: the scenario stops the module first"
    ),
    Row("S9", "power off: primary, secondary, both"),
    Row("S10", "split brain"),
    Row("S11", "checker: the death of a process", ("tests/unit/test_checkers.py", "tests/unit/test_checker_service.py")),
    Row("S12", "checker: a TCP service that does not answer", ("tests/unit/test_checkers.py",)),
    Row("S13", "checker: ping or witness unreachable"),
    Row("S14", "checker: an interface is down", ("tests/cluster/test_checkers.py",)),
    Row("S15", "checker: an address was removed", ("tests/cluster/test_checkers.py",)),
    Row("S16", "checker: a script of one's own", ("tests/unit/test_checkers.py",)),
    Row("S17", "checker: dependence on another module"),
    Row("S18", "checker: split brain, a witness decides"),
)


def of(number: str) -> list[Scenario]:
    """The scenarios that play a row."""
    return [each for each in ordered() if number in each.covers]


def ordered() -> list[Scenario]:
    """As the catalogue goes."""
    numbers = [row.number for row in (*FAULTS, *ACCEPTANCE)]
    return sorted(TABLE.values(), key=lambda each: numbers.index(each.covers[0]))


def proofs(row: Row) -> list[str]:
    """Where it is proven, and what is missing."""
    shown = [f"`{each.name}`" for each in of(row.number)] + list(row.elsewhere)
    return shown + ([f"*waits for {row.waits}*"] if row.waits else [])


def page() -> str:
    """docs/fault-catalogue.md."""
    lines = [
        "# The fault catalogue, and where each row is proven",
        "",
        "Written by `python -m orchestrator.lab.scenarios.catalogue`; do not edit. `hactl lab run` lists the scenarios,",
        "`hactl lab run NAME` plays one: a pair in a lab of its own, a ledger behind its service address, a client that never stops",
        "writing, and an oracle that asks:",
        "",
        "* every line that the client was told of is on both nodes exactly once, and both trees are equal, in the end;",
        "* (several times a second) the service address is on one node, but for one that cannot give it up or acknowledges nothing",
        "  ([guarantees.md](guarantees.md) says when), and never two nodes acknowledge by themselves;",
        "* nobody waited longer than the row says, the role moved no more often, and the right node serves;",
        "* each decision and each refusal stands in the history with its reason.",
        "",
        "## Faults",
        "",
        *table(FAULTS),
        "",
        "## SafeKit's acceptance tests",
        "",
        "Of its user's guide 8.2: 4.2 (ten, for a mirror module) and 4.4 (eight, for the checkers).",
        "",
        *table(ACCEPTANCE),
        "",
        "## Scenarios",
        "",
        "| scenario | what happens | rows | serves after | longest silence |",
        "|---|---|---|---|---|",
        *(f"| `{each.name}` | {each.text} | {' '.join(each.covers)} | {each.serves} | {silence(each)} |" for each in ordered()),
    ]
    return "\n".join(lines) + "\n"


def silence(each: Scenario) -> str:
    """For people."""
    return "as long as the fault" if each.silence_s is None else f"{each.silence_s:g} s"


def table(rows: Iterable[Row]) -> list[str]:
    """Rows as Markdown."""
    return ["| | | proven by |", "|---|---|---|", *(f"| {row.number} | {row.text} | {', '.join(proofs(row))} |" for row in rows)]


if __name__ == "__main__":
    from orchestrator.lab import scenarios

    assert scenarios.TABLE is TABLE
    print(page(), end="")
