"""The domain over which the rules are enumerated: every kind of lineage, and every value of what decides beside it."""

from dataclasses import replace
from itertools import product

from rfs.decide import Decision, decide
from rfs.record import DataState, Record, Role

# name -> generation, base, history. 0 is the ancestor of all; 1→2→3 is a line, 4 and 5 fork from it, 8 and 9 are strangers.
LINEAGES: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "new": (0, 0, ()),
    "1": (1, 0, ()),
    "1-2": (2, 0, (1,)),
    "1-2-3": (3, 0, (1, 2)),
    "1-2-3 marks since 2": (3, 2, (1, 2)),
    "3 truncated": (3, 3, ()),
    "1-4": (4, 0, (1,)),
    "1-4 marks since 4": (4, 4, (1,)),
    "4 truncated": (4, 4, ()),
    "1-2-5": (5, 0, (1, 2)),
    "9": (9, 0, ()),
    "9-8": (8, 0, (9,)),
}
PLAIN = Record(cluster="c", module="m", node="node1", node_id=1)
BOTH = (False, True)


def ancestors(record: Record) -> set[int]:
    """What the record can show to be its past, itself included."""
    return {0, *record.history, record.generation}


def possible(record: Record) -> bool:
    """What from_wire would take: data has a generation."""
    return bool(record.generation) or record.data is DataState.INCONSISTENT


def variants(node: str, node_id: int) -> list[Record]:
    """All lineages with all of data, role, rewound, used, peer_may_fit."""
    found = []
    for (generation, base, history), data, role, rewound, used, fit in product(LINEAGES.values(), DataState, Role, BOTH, BOTH, BOTH):
        record = replace(
            PLAIN, node=node, node_id=node_id, generation=generation, base=base, history=history,
            data=data, role=role, rewound=rewound, used=used, peer_may_fit=fit,
        )  # fmt: skip
        if possible(record):
            found.append(record)
    return found


def judged(a: Record, b: Record, running: tuple[bool, bool] = (False, False), empty: tuple[bool, bool] = (False, False)) -> Decision:
    """As a's node sees it."""
    return decide(a, b, mine_running=running[0], theirs_running=running[1], mine_empty=empty[0], theirs_empty=empty[1])
