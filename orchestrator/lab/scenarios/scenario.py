"""What a scenario is: a name, a line, the faults of the catalogue that it plays, what is expected, and what is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.lab.cluster import HEARTBEAT, PING, Trouble
from orchestrator.lab.scenarios.pair import LedgerPair

EITHER = "either"


class Impossible(Exception):
    """This machine lacks what the scenario needs; the text says what. It is skipped, visibly."""


@dataclass(frozen=True, slots=True)
class Stage:
    """How the pair is set up. Scenarios of one stage share a lab."""

    name: str
    policy: str = "availability"
    third: str = PING
    heartbeat: str = HEARTBEAT
    max_restarts: str = "20 per 24h"
    service_words: str = ""
    etcd: bool = False
    tables: str = ""  # more of the module's file: checkers, rules
    beside: str = ""  # another module, called "other"
    begun: bool = True  # False: nobody has said yet which node has the data


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table."""

    name: str
    text: str
    covers: tuple[str, ...]  # numbers of the fault catalogue, and S1…S18: SafeKit's acceptance tests
    act: Callable[[LedgerPair], None]
    stage: Stage
    serves: str  # who is primary in the end
    silence_s: float | None  # the longest time for which nobody answers the client; None: it is not bounded (the fault lasts)
    moves: int  # how often a role may be taken: more is a storm
    two_may_serve: bool  # the stated policy permits it in this fault; see docs/guarantees.md
    slow: bool  # only in script/soak


PLAIN = Stage("plain")
TABLE: dict[str, Scenario] = {}


def scenario(
    name: str, text: str, covers: str, *, serves: str = "node1", silence_s: float | None = None, moves: int = 0, stage: Stage = PLAIN,
    two_may_serve: bool = False, slow: bool = False,
) -> Callable[[Callable[[LedgerPair], None]], Callable[[LedgerPair], None]]:  # fmt: skip
    """Enter a function into the table."""

    def enter(act: Callable[[LedgerPair], None]) -> Callable[[LedgerPair], None]:
        assert name not in TABLE, f"two scenarios are called {name}"
        TABLE[name] = Scenario(name, text, tuple(covers.split()), act, stage, serves, silence_s, moves, two_may_serve, slow)
        return act

    return enter


def expect(holds: bool, sentence: str, pair: LedgerPair | None = None) -> None:
    """Trouble with this sentence unless it holds."""
    if not holds:
        raise Trouble(sentence + (f"\n{pair.describe()}" if pair is not None else ""))
