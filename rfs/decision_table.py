"""`python -m rfs.decision_table [--check]`: docs/decision-table.md, written by the rules themselves.

Every row is a situation that a person can recognise, given to decide() as two records. What stands behind it in the page is what the
program would do, because it is the program that was asked. The page is held fresh by a test.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rfs.decide import Decision, Outcome, Source, Travels, decide
from rfs.record import DataState, Record, Role

PAGE = Path(__file__).resolve().parent.parent / "docs" / "decision-table.md"

# Two nodes that were in sync under the name 2, whose ancestor is 1; node1 was primary.
_PAIRED = Record(
    cluster="plant7", module="pg", node="node1", node_id=1, number=20, generation=2, base=0, history=(1,), term=3, owner=1,
    data=DataState.UPTODATE, role=Role.PRIMARY, used=True, shared=True, peer_has=True, peer_id=2,
)  # fmt: skip
ONE = _PAIRED
TWO = replace(_PAIRED, node="node2", node_id=2, role=Role.SECONDARY, peer_id=1)
NEW = Record(cluster="plant7", module="pg", node="node2", node_id=2)
_ALONE = replace(ONE, generation=3, history=(1, 2), shared=False, peer_has=False, peer_may_fit=False, term=4)
_TAKEN_OVER = replace(_ALONE, node="node2", node_id=2, peer_id=1, owner=2)
_FORKED = replace(_TAKEN_OVER, generation=4)
_HALF = replace(TWO, data=DataState.INCONSISTENT)


@dataclass(frozen=True, slots=True)
class Situation:
    """Two records, and what is so beside them."""

    text: str
    one: Record
    two: Record
    running: tuple[bool, bool] = (False, False)
    empty: tuple[bool, bool] = (False, False)

    def decided(self) -> Decision:
        return decide(
            self.one, self.two,
            mine_running=self.running[0], theirs_running=self.running[1], mine_empty=self.empty[0], theirs_empty=self.empty[1],
        )  # fmt: skip


SECTIONS: tuple[tuple[str, tuple[Situation, ...]], ...] = (
    (
        "Strangers",
        (
            Situation("node2 belongs to another cluster", ONE, replace(TWO, cluster="plant8")),
            Situation("node2 serves another module", ONE, replace(TWO, module="web")),
            Situation("node2's state directory is a copy of node1's", ONE, replace(ONE, node="node2")),
        ),
    ),
    (
        "The first copy",
        (
            Situation("neither node was told that it has the data", replace(NEW, node="node1", node_id=1), NEW),
            Situation("node1 has the data, node2 is new", replace(ONE, peer_may_fit=False), NEW),
            Situation("node1 has the data but its directories are empty; node2 is new and has files", ONE, NEW, empty=(True, False)),
            Situation("node1 is new; node2 stopped inside its own first copy", replace(NEW, node="node1", node_id=1), _HALF),
            Situation(
                "node1 is new (its disk was replaced); node2 had left in order",
                replace(NEW, node="node1", node_id=1),
                replace(TWO, data=DataState.OUTDATED),
            ),  # fmt: skip
            Situation("both were told that they have the data", ONE, replace(TWO, generation=9, history=())),
        ),
    ),
    (
        "A restored snapshot, a replaced disk",
        (
            Situation("node1 shows an older record than node2 has seen", replace(ONE, number=7), replace(TWO, peer_confirmed_number=20)),
            Situation(
                "the same, and node1 has acknowledged writes without node2 since",
                replace(ONE, number=7, generation=5),
                replace(TWO, peer_confirmed_number=20),
            ),  # fmt: skip
            Situation(
                "node1 shows an older record than node2 has seen; node2 had left in order",
                replace(ONE, number=7),
                replace(TWO, peer_confirmed_number=20, data=DataState.OUTDATED),
            ),  # fmt: skip
            Situation(
                "both show older records than the other has seen",
                replace(ONE, number=7, peer_confirmed_number=20),
                replace(TWO, number=7, peer_confirmed_number=20),
            ),  # fmt: skip
        ),
    ),
    (
        "Both were in sync and neither went on alone",
        (
            Situation("the link was lost; node1 is frozen", ONE, TWO, running=(True, False)),
            Situation("both were stopped or killed, none lost power", ONE, TWO),
            Situation("node1 (primary) lost power and is back before anybody took over", replace(ONE, rewound=True), TWO),
            Situation("node2 (secondary) lost power", ONE, replace(TWO, rewound=True), running=(True, False)),
            Situation("both lost power", replace(ONE, rewound=True), replace(TWO, rewound=True)),
            Situation("node2 left in order, node1 has acknowledged nothing since", ONE, replace(TWO, data=DataState.OUTDATED)),
            Situation(
                "node2 left in order; node1 lost power before it knew",
                replace(ONE, rewound=True),
                replace(TWO, data=DataState.OUTDATED),
            ),  # fmt: skip
            Situation(
                "node2 left in order; node1 knew, then lost power",
                replace(ONE, rewound=True, peer_may_fit=False),
                replace(TWO, data=DataState.OUTDATED),
            ),  # fmt: skip
            Situation("both know that the other went on", replace(ONE, data=DataState.OUTDATED), replace(TWO, data=DataState.OUTDATED)),
            Situation("both are secondary (a swap was cut off)", replace(ONE, role=Role.SECONDARY), TWO),
            Situation("both were primary, node2 was promoted later", ONE, replace(TWO, role=Role.PRIMARY, term=4, owner=2)),
            Situation("node1 would be source, but its directories are empty", ONE, TWO, empty=(True, False)),
        ),
    ),
    (
        "One node went on without the other",
        (
            Situation("node1 went on alone while node2 was away", _ALONE, TWO, running=(True, False)),
            Situation("node2 took over from a dead node1", ONE, _TAKEN_OVER, running=(False, True)),
            Situation("node2 took over; node1 was only paused and is still frozen", ONE, _TAKEN_OVER, running=(True, True)),
            Situation("node2 took over and then lost power", ONE, replace(_TAKEN_OVER, rewound=True)),
            Situation("node1 went on alone; its marks begin after what node2 has", replace(_ALONE, base=3), TWO),
        ),
    ),
    (
        "A copy that is not whole",
        (
            Situation("node2 stopped inside a resync from node1", _ALONE, _HALF, running=(True, False)),
            Situation("node2 stopped inside a resync, node1 has an older copy", replace(ONE, generation=1, history=()), _HALF),
            Situation("node2's disk failed while it was secondary", _ALONE, replace(TWO, data=DataState.FAILED), running=(True, False)),
            Situation("node1's disk failed while it was alone", replace(_ALONE, data=DataState.FAILED), TWO),
            Situation("node1's disk failed in sync with node2", replace(ONE, data=DataState.FAILED), TWO),
            Situation("both copies are not whole", replace(ONE, data=DataState.FAILED), _HALF),
        ),
    ),
    (
        "Both nodes went on",
        (
            Situation("both acknowledged writes without the other", _ALONE, _FORKED, running=(True, True)),
            Situation("both went on, node1 acknowledged nothing", replace(_ALONE, used=False), _FORKED, running=(True, True)),
            Situation("both went on, neither acknowledged anything", replace(_ALONE, used=False), replace(_FORKED, used=False)),
            Situation(
                "the same, and node1 lost power since",
                replace(_ALONE, used=False, rewound=True),
                replace(_FORKED, used=False),
            ),  # fmt: skip
            Situation(
                "both went on, node1 acknowledged nothing, and node2's marks begin after the fork",
                replace(_ALONE, used=False),
                replace(_FORKED, base=4),
            ),  # fmt: skip
        ),
    ),
)

_HEAD = """\
# Who has the data: the decision table

Written by `python -m rfs.decision_table` from the rules in `rfs/decide.py`; do not edit. In each row the pair *node1* and *node2* meets
again in the situation on the left. Both nodes decide by themselves, from the same two records, and compare their verdicts before anything
happens; no clock takes part.

**How to read it at night.** `rfsmount status --state STATEDIR` on either node shows the outcome as `code` and the sentence as `reason`
(`hactl status` shows the same). *Source* is the node whose data stays; the other one's is made equal to it. *Travels* says what is
compared, by hashes of blocks of which only those that differ are sent: *what is marked* on either node (nothing at all where nothing
is), or *everything*. A node whose log of marks is lost or damaged has everything marked.

| code | meaning | what to do |
|---|---|---|
| `PAIR` | the two nodes go on by themselves | nothing |
| `NO_SOURCE` | no copy may be copied over the other | say which node has the data, or repair the named disk; until then nothing is \
overwritten |
| `UNRELATED` | these two are not a pair | correct the address, the cluster's or the module's name, or the copied state directory |
| `EMPTY_SOURCE` | an empty node would wipe a filled one | mount the missing file system, then start again |
| `DIVERGED` | both have acknowledged data that the other lacks | choose whose data stays; on the other: unmount, then \
`rfsmount mount … --replace-data`, which keeps its files in `STATEDIR/kept/` |

The rules are tried in this order: strangers, first copy, rolled back, nothing in common, not whole, same generation, ancestor, fork.
"""

_TRAVELS = {Travels.UNION_OF_MARKS: "what is marked on either", Travels.EVERYTHING: "everything", None: "–"}


def _row(situation: Situation) -> str:
    decision = situation.decided()
    source = "–" if decision.source is None else situation.one.node if decision.source is Source.MINE else situation.two.node
    outcome = decision.outcome.name if decision.outcome is Outcome.PAIR else f"**{decision.outcome.name}**"
    return f"| {situation.text} | {outcome} | {source} | {_TRAVELS[decision.travels]} | {decision.reason} |"


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    for title, situations in SECTIONS:
        yield f"## {title}\n"
        yield "| situation | outcome | source | travels | reason |"
        yield "|---|---|---|---|---|"
        yield from map(_row, situations)
        yield ""


def main() -> int:
    """Write the page, or say whether it is fresh."""
    parser = argparse.ArgumentParser(prog="python -m rfs.decision_table", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is not what the rules say")
    if parser.parse_args().check:
        if not PAGE.is_file() or PAGE.read_text() != page():
            print(f"{PAGE.name} is not what the rules say: run python -m rfs.decision_table", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
