"""What a run has visited: a run of the default size that never came to one of these has tested less than it says."""

import inspect
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from rfs import decide as deciding

RULES = (
    "_rolled_back",
    "_unfit",
    "_lost_before_the_leave",
    "_same_generation",
    "_ancestor",
    "_fork",
    "_first_copy",
)
TIES = (
    "knows that its peer went on",
    "lost power: its peer ran through",
    "is not the running primary",
    "was not the last primary",
    "has the higher term",
    "was primary last",
)


class Counted:
    """While in use, decide's rules are counted when they speak."""

    def __init__(self, seen: Counter[str]) -> None:
        self.seen = seen
        self.saved: dict[str, Any] = {}

    def __enter__(self) -> "Counted":
        for name in RULES:
            self.saved[name] = getattr(deciding, name)
            setattr(deciding, name, self._counting(name, self.saved[name]))
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in self.saved.items():
            setattr(deciding, name, function)

    def _counting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(a: deciding.Side, b: deciding.Side) -> Any:
            decision = function(a, b)
            if decision is not None:
                self.seen[f"rule {name}"] += 1
                for tie in TIES:
                    if tie in decision.reason:
                        self.seen[f"tie {tie}"] += 1
            return decision

        return counted


def rules_of_decide() -> set[str]:
    """Every rule that decide() asks, so that a new one is not forgotten here."""
    source = inspect.getsource(deciding.decide)
    return {word for word in re.findall(r"\b_\w+", source) if not word.startswith("_never")}


NOT_HERE = {"_strangers", "_nothing_in_common"}  # two nodes of one pair with whole histories: test_decide.py has them
FAULTS = (
    "kill",
    "power cut",
    "pause",
    "disk full",
    "fsync error",
    "link",
    "both lose power",
    "rolled back",
    "late frame",
    "timeout",
    "log lost",
    "witness lost",
    "witness forgets",
    "request: late",
    "request: answer lost",
)
HAPPENED = (
    "acked mirrored",
    "acked marked",
    "acked fsync",
    "alone, granted",
    "alone, no grant needed",
    "an administrator must choose",
    "caches dropped",
    "checkpoint",
    "demoted",
    "drop heard",
    "failed",
    "fenced by the witness",
    "forced",
    "frame of an old session",
    "inodes were missing",
    "late request arrives",
    "leave heard",
    "left",
    "op failed here",
    "op lone in a resync",
    "paired",
    "paired and quiet",
    "paired directly",
    "resumed",
    "resync: EVERYTHING",
    "resync: UNION_OF_MARKS",
    "resynced",
    "sole owner resumes",
    "stopped in order",
    "survivor serves",
    "swapped",
    "takeover",
    "used",
    "witness armed again",
    "no pair: DIVERGED",
    "no pair: NO_SOURCE",
)
COMMITS = (
    "enter as source",
    "source",
    "enter as target",
    "learn term",
    "pair directly, source",
    "pair directly, target",
    "target begins",
    "source begins",
    "before END",
    "adopt",
    "after END",
    "checkpoint",
    "checkpoint of the peer",
    "alone",
    "used",
    "used at once",
    "tried",
    "takeover",
    "sole owner",
    "leave",
    "the peer has left",
    "demote",
    "promote",
    "turned",
    "the turn was cut off",
    "failed",
    "forced",
    "end",
)
STEPS = (
    "compaction written",
    "compaction durable",
    "compaction given up",
    "log written",
    "log durable",
    "op called",
    "op marked",
    "op applied",
    "op answered",
    "op answered alone",
    "handshake: state sent",
    "handshake: verdict sent",
    "handshake: renewed",
    "resume: attached",
    "direct: attached",
    "resync: degrade sent",
    "resync: degraded",
    "resync: attached",
    "resync: target attached",
    "resync: entries",
    "resync: whole",
    "resync: chunk",
    "resync: attributes",
    "resync: END sent",
    "resync: adopted",
    "holding purged",
    "request leaves",
    "register swapped",
    "register not swapped",
    "grant won",
    "fsync: peer done",
    "sync",
    "synced",
    "goodbye",
)


def wanted() -> list[str]:
    """Every name that a run of the default size comes to."""
    commits = [f"step record {what}: {cause}" for cause in COMMITS for what in ("written", "durable")]
    return [
        *(f"rule {name}" for name in RULES),
        *(f"tie {tie}" for tie in TIES),
        *(f"fault {name}" for name in FAULTS),
        *HAPPENED,
        *commits,
        *(f"step {step}" for step in STEPS),
    ]


def missing(seen: Counter[str]) -> list[str]:
    """Of those, what was never visited."""
    return [name for name in wanted() if not seen[name]]
