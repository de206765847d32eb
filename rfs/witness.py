"""The witness's register: what it holds, who may change it, and which names a record must remember for that (docs/protocol.md §6).

The register of a module names one generation: the last one for which somebody was granted to go on alone. A grant is a compare-and-swap
of that name for a new one. It may start only from a name of which this node knows everything that was ever acknowledged under it: one in
its lineage, or one that was asked for and never served under (`tried`). Pure; etcd.py talks, arbiter.py asks.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import quote

from rfs.foreign import from_json
from rfs.peer_messages import TERM_MAX
from rfs.record import MAX_NAMES, MAX_U64, DataState, Record

_VERSION = 1
_NAME = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Held:
    """What the register holds: for which generation the last grant was, and who had it."""

    generation: int
    term: int
    owner: int


class Standing(Enum):
    """How a node stands to what the register holds."""

    MAY_START = auto()
    FENCED = auto()  # somebody went on under a name that this node knows nothing of
    EMPTY = auto()  # a register that has lost its memory grants nothing


def encode(held: Held) -> bytes:
    """As it is kept: readable, because an administrator may have to look at it."""
    return json.dumps(
        {"version": _VERSION, "generation": f"{held.generation:016x}", "term": held.term, "owner": f"{held.owner:016x}"}
    ).encode()


def decode(value: bytes) -> Held | None:
    """The inverse; None for an emptied register, or one that says nothing we understand."""
    try:
        found = from_json(value)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("version") != _VERSION:
        return None
    generation, term, owner = found.get("generation"), found.get("term"), found.get("owner")
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in (generation, owner)):
        return None
    if type(term) is not int or not 0 <= term <= TERM_MAX or not int(str(generation), 16):
        return None
    return Held(int(str(generation), 16), term, int(str(owner), 16))


def register_key(cluster: str, module: str) -> str:
    """Where the register of a module is."""
    return f"{_prefix(cluster, module)}/register"


def intact_key(cluster: str, module: str, node_id: int) -> str:
    """Kept under a lease by a node that lives and whose copy is whole and has lost nothing: see §6.3."""
    assert 0 < node_id <= MAX_U64
    return f"{_prefix(cluster, module)}/intact/{node_id:016x}"


def _prefix(cluster: str, module: str) -> str:
    return f"lockstep/{quote(cluster, safe='')}/{quote(module, safe='')}"


# ---- what a compare-and-swap may start from ----------------------------------------------------------------------------------------------


def standing(record: Record, held: Held | None) -> Standing:
    """§6.2: any name in my lineage, in `tried`, or declared abandoned by the peer (which is in `tried` too)."""
    if held is None:
        return Standing.EMPTY
    return Standing.MAY_START if held.generation in record.lineage or held.generation in record.tried else Standing.FENCED


def must_find_absent(record: Record) -> int:
    """§6.3: the peer whose key must not be there, in the same transaction; 0: nobody's.

    What a rewound node has lost may be nowhere but with its peer; a peer that lives and lost nothing goes first."""
    return record.peer_id if record.rewound else 0


def is_intact(record: Record) -> bool:
    """May this node's key be kept: may it hold what a rewound peer has lost?

    So may a copy that left in order, OUTDATED: its peer may have lost power before it knew of that (decide._lost_before_the_leave)."""
    return record.data in (DataState.UPTODATE, DataState.OUTDATED) and not record.rewound


# ---- names -------------------------------------------------------------------------------------------------------------------------------


def abandoned(record: Record) -> tuple[int, ...]:
    """Names that were asked for and under which nothing was ever acknowledged: nobody serves under them any more.

    A won name is minted under the same lock under which it was asked for, or never; and a name that is tried never falls out of the
    history before it falls out of `tried`. So what is tried and not in the lineage was given up.
    """
    return tuple(name for name in record.tried if name not in record.lineage)


def merged(mine: Sequence[int], theirs: Sequence[int]) -> tuple[int, ...]:
    """Both, in the order of the first. Of too many the oldest go: forgetting a name may cost a grant, never a promise."""
    return (*mine, *(name for name in theirs if name not in mine))[-MAX_NAMES:]


def still_needed(tried: Sequence[int], held: int) -> tuple[int, ...]:
    """The tried names that can matter once the register is seen to hold `held`.

    Every request names the register's revision, so one that was sent before the register took `held` can never win any more; and what
    stands before `held` here was sent before. A request that starts from `held` stands after it, also after a merge: it may still arrive.
    """
    return tuple(tried[tried.index(held) :]) if held in tried else tuple(tried)


def shortened(history: Sequence[int], base: int, tried: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """A history of at most MAX_NAMES, and its base. Names that the register may hold are kept longest (§1).

    The base moves up to what follows the newest name that is forgotten: the marks cover nobody beyond it.
    """
    surplus = len(history) - MAX_NAMES
    if surplus <= 0:
        return tuple(history), base
    droppable = [name for name in history[:-1] if name not in tried][:surplus]
    if len(droppable) < surplus:
        droppable = list(history[:surplus])
    kept = tuple(name for name in history if name not in droppable)
    newest_dropped = history.index(droppable[-1])
    follows = history[newest_dropped + 1]
    covered = base in kept and history.index(base) > newest_dropped
    return kept, base if covered else follows
