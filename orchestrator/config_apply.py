"""How a configuration comes to be applied on all nodes or on none: the decisions, pure. config_keeper.py does what they say.

    coordinator (where the command runs)            participant (each of its peers)

    keeps the files, durably
    "prepare": the files, their base     ────────▶  checks them as the coordinator did; keeps them, and its promise, durably
                                         ◀────────  yes, or no with the reason
    all said yes: replaces its history              until it hears more it changes nothing, and applies nothing else
    file. This is the commit: one rename
    "commit"                             ────────▶  replaces its history file, lets go of the promise
    somebody said no, or nothing:
    "abort"                              ────────▶  lets go of the promise

Whoever promised and hears no more asks the coordinator. Its history file is the record: the transaction is in it, or never will be, unless
the coordinator is in the middle of that very apply at this moment. There is nothing else to remember: a coordinator that died before its
commit finds nothing of it when it is back, and says so ("presumed abort").

A node that was away when a configuration was applied without it (`--without-peer`) takes it when it is back: its own is one of those that
the other node had before. Of two that were applied apart from each other none came before: then a person has to say which counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from orchestrator.generations import Generation, Past, Prepared, generation_from

LINEAGE_MAX = 20
STUCK_CHARACTERS_MAX = 1000


class Vote(Enum):
    """What a participant answered to "prepare"."""

    YES = "yes"
    NO = "no"
    SILENT = "silent"  # it may have promised: the answer may be what was lost


class Verdict(Enum):
    """What the coordinator does next."""

    WAIT = "wait"
    COMMIT = "commit"
    ABORT = "abort"


def verdict(asked: Collection[str], votes: Mapping[str, Vote]) -> Verdict:
    """All of them, or nobody. One that says no ends it at once."""
    if any(vote is not Vote.YES for vote in votes.values()):
        return Verdict.ABORT
    return Verdict.COMMIT if set(votes) == set(asked) else Verdict.WAIT


class Fate(Enum):
    """What became of a transaction, as its coordinator knows it; UNKNOWN: the coordinator does not answer."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    PENDING = "pending"
    UNKNOWN = "unknown"


def fate(past: Past, under_way: str, transaction: str) -> Fate:
    """The coordinator's answer. `under_way`: the transaction that it is in the middle of; none: empty."""
    if past.has_transaction(transaction):
        return Fate.COMMITTED
    return Fate.PENDING if under_way == transaction else Fate.ABORTED


class Resolution(Enum):
    """What a participant does with its promise."""

    COMMIT = "commit"
    RELEASE = "release"
    WAIT = "wait"


RESOLUTIONS: Mapping[Fate, Resolution] = {
    Fate.COMMITTED: Resolution.COMMIT,
    Fate.ABORTED: Resolution.RELEASE,
    Fate.PENDING: Resolution.WAIT,
    Fate.UNKNOWN: Resolution.WAIT,
}


@dataclass(frozen=True, slots=True)
class Says:
    """What a node says about its configuration."""

    node: str
    applied: Generation
    lineage: tuple[tuple[str, str], ...]  # transaction and digest of what was applied before, oldest first, the applied one last
    files: str  # the digest of the files that people edit; empty: they cannot be read
    promised: str = ""  # the transaction that it has promised to apply
    coordinator: str = ""
    held: tuple[str, ...] = ()
    stuck: str = ""  # why it does not take over what a peer has applied since

    def as_message(self) -> dict[str, Any]:
        """For the call channel and for people's programs."""
        return {
            "node": self.node,
            "applied": self.applied.as_json(),
            "lineage": [list(entry) for entry in self.lineage],
            "files": self.files,
            "promised": self.promised,
            "coordinator": self.coordinator,
            "held": list(self.held),
            "stuck": self.stuck,
        }


def says(node: str, past: Past, files: str, prepared: Prepared | None, stuck: str = "") -> Says:
    """Of this node; something is applied."""
    assert past.applied is not None, "a hactld without a configuration"
    lineage = tuple((each.transaction, each.digest) for each in past.generations[-LINEAGE_MAX:])
    promised = (prepared.generation.transaction, prepared.coordinator, prepared.held) if prepared is not None else ("", "", ())
    return Says(node, past.applied, lineage, files, *promised, stuck)


def says_from(node: str, message: Mapping[str, Any]) -> Says:
    """What a peer sent; ValueError for what is not that."""
    try:
        lineage = tuple((str(transaction), str(digest)) for transaction, digest in message["lineage"][-LINEAGE_MAX:])
        held = tuple(str(name) for name in message["held"])
        words = str(message["files"]), str(message["promised"]), str(message["coordinator"])
        return Says(node, generation_from(message["applied"]), lineage, *words, held, str(message["stuck"])[:STUCK_CHARACTERS_MAX])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not what a node says about its configuration: {error}") from error


class Relation(Enum):
    """Of this node's applied configuration to a peer's."""

    SAME = "same"
    BEHIND = "behind"  # the peer's came after ours
    AHEAD = "ahead"
    APART = "apart"  # neither came after the other


def relation(mine: Says, theirs: Says) -> Relation:
    """Equal files are the same configuration, whoever applied them."""
    if mine.applied.digest == theirs.applied.digest:
        return Relation.SAME
    behind, ahead = _came_after(mine, theirs), _came_after(theirs, mine)
    return Relation.BEHIND if behind and not ahead else Relation.AHEAD if ahead and not behind else Relation.APART


def _came_after(old: Says, new: Says) -> bool:
    """Is what is applied on the old one among those that the new one had before? By its transaction; or by its files, where those were
    applied on their own (a node that was installed with them): not if the new one's is known to the old one, which has gone on since."""
    before = new.lineage[:-1]
    if any(transaction == old.applied.transaction for transaction, _ in before):
        return True
    known = any(transaction == new.applied.transaction for transaction, _ in old.lineage)
    return not known and any(digest == old.applied.digest for _, digest in before)


def why_not_promise(mine: Says, generation: Generation, coordinator: str, under_way: str, *, force: bool) -> str:
    """Why this node does not promise to apply that, apart from what is wrong with the files themselves; empty: it may. The same promise
    twice is one."""
    if under_way:
        return f"{mine.node} is in the middle of an apply of its own; try again"
    if mine.promised and mine.promised != generation.transaction:
        return f"{mine.node} has promised {mine.coordinator} another configuration and does not know what became of it: {IN_DOUBT_FIX}"
    if force:
        return ""
    if mine.applied.digest != generation.base:
        return (
            f"another configuration is applied on {mine.node} (its generation {mine.applied.number}) than on {coordinator}: "
            "'hactl config diff --peer' shows how they differ, --force-from-here puts this one in the place of both"
        )
    if mine.files not in (mine.applied.digest, generation.digest):
        return (
            f"files were edited on {mine.node} and not applied ('hactl config diff' there shows them): apply or undo them there, "
            "or --force-from-here; then they are kept as *.before-apply"
        )
    return ""


IN_DOUBT_FIX = "start hactld there, or 'hactl config apply --without-peer' here if it is gone for good"


def next_number(known: Collection[Says]) -> int:
    """For a new generation: higher than any that a node has."""
    return max(each.applied.number for each in known) + 1
