"""The words of a doctor: facts, what a judgement says about them, and the finding that people read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Verdict = Literal["ok", "warn", "bad", "unknown"]
Facts = Mapping[str, Any]
WORST_FIRST: Final[tuple[Verdict, ...]] = ("bad", "warn", "unknown", "ok")


@dataclass(frozen=True, slots=True)
class Said:
    """What a judgement says."""

    verdict: Verdict
    text: str
    fix: str = ""


def ok(text: str) -> Said:
    """As it should be."""
    return Said("ok", text)


def warn(text: str, fix: str) -> Said:
    """It works, and may not on the day when it must."""
    return Said("warn", text, fix)


def bad(text: str, fix: str) -> Said:
    """Something does not work, or a failover would fail."""
    return Said("bad", text, fix)


def unknown(text: str, fix: str = "") -> Said:
    """Could not be found out; that is no good news."""
    return Said("unknown", text, fix)


Judgement = Callable[[Facts], Iterable[Said]]
PairJudgement = Callable[[Facts, Facts], Iterable[Said]]


@dataclass(frozen=True, slots=True)
class Check:
    """One question about a node."""

    name: str
    group: str
    judge: Judgement


@dataclass(frozen=True, slots=True)
class PairCheck:
    """One question about two nodes together."""

    name: str
    group: str
    judge: PairJudgement


@dataclass(frozen=True, slots=True)
class Finding:
    """An answer, as it is shown: `node` is both names where it is about two."""

    check: str
    group: str
    node: str
    verdict: Verdict
    text: str
    fix: str = ""

    def as_json(self) -> dict[str, str]:
        """As `hactl.doctor/1` has it."""
        return {
            "check": self.check, "group": self.group, "node": self.node, "verdict": self.verdict, "text": self.text, "fix": self.fix,
        }  # fmt: skip


class Elsewhere(Exception):
    """There is nothing to say: another check says already what is wrong."""


class Missing(Exception):
    """A fact that is not there; the sentence says why."""


def part(facts: Facts, name: str) -> Mapping[str, Any]:
    """What one probe found; Missing when it did not come back."""
    found = facts.get(name)
    if not isinstance(found, Mapping):
        raise Missing(f"{facts.get('node', 'the node')} did not say")
    if "error" in found:
        raise Missing(str(found["error"]))
    return found


def has(facts: Facts, name: str) -> bool:
    """Did the probe come back?"""
    found = facts.get(name)
    return isinstance(found, Mapping) and "error" not in found


def running_process(facts: Facts) -> Mapping[str, Any]:
    """hactld's process; Elsewhere when it does not run, which is a finding of its own."""
    found = part(facts, "process")
    if not found["is_hactld"]:
        raise Elsewhere
    return found


def configured(facts: Facts) -> Mapping[str, Any]:
    """The configuration; Elsewhere when there is none, which is a finding of its own."""
    found = part(facts, "configuration")
    if not found["nodes"]:
        raise Elsewhere
    return found


def node_of(facts: Facts) -> str:
    """Whose facts."""
    return str(facts.get("node", "?"))
