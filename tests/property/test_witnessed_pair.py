"""With a witness random lives keep every promise, though anybody may lose sight of anybody; and each rule about names is needed."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from rfs import rules, witness
from rfs.record import Record
from tests.property import witnessed_pair
from tests.property.pair_model import Node, Violation
from tests.property.witnessed_pair import WitnessedPair, walk

LIVES, STEPS = 500, 300
CONTROL_LIVES = 3000


def test_every_life_keeps_the_promises() -> None:
    seen: Counter[str] = Counter()
    for seed in range(LIVES):
        seen += walk(seed, STEPS)
    for event in ("acked", "adopted", "takeover", "won", "fenced", "late win", "died before the mint", "in the way", "resumed", "swapped"):
        assert seen[event] >= 10, f"the walk hardly ever comes to: {event} ({seen})"


# ---- with one rule broken ----------------------------------------------------------------------------------------------------------------

_try_name, _ask, _learn = rules.try_name, WitnessedPair.ask, rules.learn_names


def _not_durable(record: Record, name: int, held: int) -> Record:
    return replace(_try_name(record, name, held), tried=record.tried)


def _keeps_to_itself(record: Record, peer: Record) -> Record:
    return record


def _believes_all(record: Record, peer: Record) -> Record:
    return replace(record, tried=witness.merged(record.tried, peer.lineage))


def _reads_back(pair: WitnessedPair, node: Node) -> None:
    """Takes a name of its own that it finds in the register for a grant, also after a restart."""
    mine = pair.held.owner == node.node_id and pair.held.generation not in node.record.lineage
    if mine and not pair.is_in_the_way(node):
        pair.names = witnessed_pair._first_then(pair.held.generation, pair.names)
        super(WitnessedPair, pair).grant(node)
    else:
        _ask(pair, node)


def _ignores_the_revision(pair: WitnessedPair, revision: int, held: witness.Held) -> bool:
    pair.revision, pair.held = pair.revision + 1, held
    return True


BROKEN: dict[str, dict[str, tuple[object, Callable[..., object]]]] = {
    "a register that names somebody else is written over": {"standing": (witness, lambda record, held: witness.Standing.MAY_START)},
    "a rewound node does not wait for its intact peer": {"must_find_absent": (witness, lambda record: 0)},
    "a tried name is forgotten by a crash": {"try_name": (rules, _not_durable)},
    "abandoned names are not exchanged": {"learn_names": (rules, _keeps_to_itself)},
    "a name that the peer serves under counts as abandoned": {"learn_names": (rules, _believes_all)},
    "a grant is read back after a restart": {"ask": (WitnessedPair, _reads_back)},
    "a late request wins whatever has happened since": {"compare_and_swap": (WitnessedPair, _ignores_the_revision)},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for attribute, (where, broken) in BROKEN[name].items():
        monkeypatch.setattr(where, attribute, broken)
    with pytest.raises(Violation):
        for seed in range(CONTROL_LIVES):
            walk(seed, STEPS)
