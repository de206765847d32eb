"""Every decision that is kept is decided again, by all rules. A rule was changed on purpose: `python -m tests.golden.record --answers`."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core import explain
from orchestrator.core import failover_rules as rules
from tests.golden import shape
from tests.golden.evidence import replayed
from tests.golden.record import read

HERE = Path(__file__).parent
SIMULATED = sorted(path.stem for path in HERE.glob("*.jsonl") if path.stem != "lab")
LAB = read(HERE / "lab.jsonl")
ANEW = "if that is meant: python -m tests.golden.record --answers"


def difference(line: shape.Plain, found: shape.Plain) -> str:
    kept, now = line["answers"], shape.said(found)
    changed = {name: f"{kept.get(name)!r} became {now.get(name)!r}" for name in {*kept, *now} if kept.get(name) != now.get(name)}
    return f"{line['story']}: {changed}" if changed else ""


@pytest.mark.parametrize("kind", SIMULATED)
def test_it_is_decided_as_it_was(kind: str) -> None:
    lines = read(HERE / f"{kind}.jsonl")
    changed = []
    for line in lines:
        mine, around, peer = shape.module(line["module"]), shape.surroundings(line["around"]), shape.summary(line["peer"])
        assert (shape.plain(mine), shape.plain(around), shape.plain(peer)) == (line["module"], line["around"], line["peer"])
        if text := difference(line, shape.answers(mine, around, peer)):
            changed.append(text)
    assert not changed, f"{len(changed)} of {len(lines)} are decided otherwise; {ANEW}\n" + "\n".join(changed[:5])


@pytest.mark.parametrize("line", LAB, ids=[str(place) for place in range(len(LAB))])
def test_what_real_nodes_decided_follows_from_the_evidence_they_kept(line: shape.Plain) -> None:
    mine, around, peer = replayed(line["inputs"])
    assert not (text := difference(line, shape.answers(mine, around, peer))), f"{text}; {ANEW}"
    match line["kind"]:
        case "takeover":
            assert rules.promotion(mine, around, peer) is not None, "the evidence does not carry the decision"
        case "grant":
            permission = rules.permission(mine, around, peer)
            assert permission is not None and not permission.ask
        case "fence":
            assert rules.outranked(mine, around, peer)
        case other:
            raise AssertionError(f"no rule is known for {other}")
    assert explain.evidence(mine, around, peer)["module"]["current"] == line["inputs"]["module"]["current"]


def test_they_are_many_and_not_alike() -> None:
    lines = [line for kind in SIMULATED for line in read(HERE / f"{kind}.jsonl")] + LAB
    assert 150 <= len(lines) <= 400
    answers = {name for line in lines for name, value in line["answers"].items() if value}
    assert answers == set(shape.answers(shape.QUIET, shape.surroundings({"node": "a", "peer": "b"}), None)), (
        "a rule that never says anything"
    )
    assert {"takeover", "grant", "fence", "failback", "start", "handover", "wait"} <= set(SIMULATED)
    assert len({line["story"] for line in lines}) > 100
