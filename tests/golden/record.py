"""Writes the golden files: the inputs of decisions as two real cores met them in the simulator, and what the rules said.

    python -m tests.golden.record                    plays the stories and random lives again, chooses, writes all simulated files
    python -m tests.golden.record --lab FILE         the decisions of lab runs (`hactl lab run all -o jsonl > FILE`) into lab.jsonl
    python -m tests.golden.record --rules            the same of the stories with failover rules alone, into rules.jsonl
    python -m tests.golden.record --answers          the same inputs, the answers of the rules as they are now: after a rule was changed on
                                                     purpose; the difference in version control is what the change means

Of decisions of one shape (the same but for times, numbers and names) one is kept, and of each kind as many as its file may hold, spread
over the stories in which they were met.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.core import events as ev
from orchestrator.core import machine
from orchestrator.core.rules_language import ResourceState
from orchestrator.core.states import Hold, Module, Summary, Surroundings
from orchestrator.core.turn import Turn
from tests.golden import shape
from tests.golden.evidence import replayed
from tests.sim import resources
from tests.sim import test_sequences as sequences
from tests.sim.cluster import Cluster, paired, settle
from tests.sim.walk import disturb, make_peace

HERE = Path(__file__).parent
MOST = 35  # of a kind
SEEDS = 400
PASSING = ("now", "since", "tickets", "retry_at", "peer_heard_at", "ping_ok_since", "long_pause_at", "unsure_until", "unsure_after")
PASSING += ("restarts", "failbacks", "asked_under", "generation", "term", "rfs_session", "yielded_at", "asked", "resync", "problem")
PASSING += ("window", "windows", "reason", "entered", "script", "announced", "came_from")


def kind_of(turn: Turn) -> str:
    """By what the module has to decide: the name of the golden file. Nothing: all is as it should be, or somebody else's turn."""
    mine, around, view = turn.module, turn.around, turn.module.view
    if mine.awaited or any(known.state is ResourceState.DOWN for known in mine.resources.values()):
        return "rules"
    if mine.order is not None:
        return ""
    if mine.runs and mine.rfs is Hold.OFF:
        return "start"
    if mine.swapping:
        return "handover"
    if view is None or not mine.runs:
        return ""
    if view.needs_grant:
        return "grant"
    if mine.services_failed:
        return "services"
    if view.leads:
        return "failback" if mine.default_primary != "alone" and view.linked else ""
    if view.linked:
        return "handover" if view.consent else ""
    return "takeover" if around.peer_silent or view.complete else "wait"


def outline(kind: str, mine: shape.Plain, around: shape.Plain, peer: shape.Plain | None, found: shape.Plain) -> str:
    """What makes two decisions the same."""

    def lasting(fields: shape.Plain | None) -> Any:
        if fields is None:
            return None
        return {name: lasting(value) if isinstance(value, dict) else value for name, value in fields.items() if name not in PASSING}

    own = {"isolated", "unsure"}
    return json.dumps([kind, lasting(mine), lasting(around), lasting(peer), found, sorted(own)], sort_keys=True)


class Recorder:
    """Looks over the cores' shoulders while stories are played."""

    def __init__(self) -> None:
        self.story = ""
        self.cluster: Cluster | None = None
        self.found: dict[str, list[shape.Plain]] = {}
        self._known: set[str] = set()
        self._settle = machine.settle
        self._decided = Turn.decided

    def __enter__(self) -> Recorder:
        recorder = self

        def settle(turn: Turn) -> None:
            if kind := kind_of(turn):
                recorder.keep(kind, turn)
            recorder._settle(turn)

        def decided(turn: Turn, kind: str, text: str) -> None:
            recorder.keep(kind, turn)
            recorder._decided(turn, kind, text)

        machine.settle = settle
        Turn.decided = decided  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        machine.settle = self._settle
        Turn.decided = self._decided  # type: ignore[method-assign]

    def keep(self, kind: str, turn: Turn) -> None:
        """Unless one like it is known."""
        self.enter(kind, turn.module, turn.around, turn.peer)

    def enter(self, kind: str, mine: Module, around: Surroundings, peer: Summary | None) -> None:
        plain, answers = (shape.plain(mine), shape.plain(around), shape.plain(peer)), shape.said(shape.answers(mine, around, peer))
        outlined = outline(kind, *plain, answers)
        if outlined in self._known:
            return
        self._known.add(outlined)
        when = f" (at {self.cluster.now:.1f} s)" if self.cluster is not None else ""
        story = f"{around.node}, after: {self.story}{when}"
        self.found.setdefault(kind, []).append(
            {"story": story, "module": plain[0], "around": plain[1], "peer": plain[2], "answers": answers}
        )


def lives() -> Iterator[tuple[str, Cluster, list[str]]]:
    """A story's name, a pair, and what is done to it one after the other."""
    words = list(sequences.FAULTS)
    chance = random.Random(1)
    pairs = list(itertools.product(words, repeat=2))
    threes = [tuple(chance.choice(words) for _ in range(3)) for _ in range(SEEDS)]
    for place, names in enumerate([*((word,) for word in words), *pairs, *threes]):
        setting = {"witness": place % 3 == 1, "policy": "consistency" if place % 5 == 2 else "availability"}
        setting["default_primary"] = ("alone", "node1", "node2", "lastprim")[place % 4]  # type: ignore[assignment]
        cluster = paired(place, **setting)  # type: ignore[arg-type]
        witness = ", witness" if setting["witness"] else ""
        told = f"{', '.join(names)} [{setting['policy']}{witness}, default_primary {setting['default_primary']}]"
        yield told, cluster, list(names)


def worn_out() -> Iterator[tuple[str, Cluster, list[str]]]:
    """What dies more often than it may."""
    for place, name in enumerate(("service dies node1", "rfsmount dies node1", "service dies node2", "rfsmount dies node2")):
        cluster = Cluster(place, witness=place % 2 == 1)
        cluster.max_restarts = 1
        settle(cluster)
        yield f"{name}, four times with max_restarts 1", cluster, [name] * 4


RULE_SETS: tuple[dict[str, str], ...] = (
    {"own": "wait", "near": "wait", "far": "wait", "served": "restart"},
    {"own": "swap", "far": "swap", "served": "stopstart"},
    {"own": "stop", "near": "wait", "far": "wait"},
    {"own": "stopstart", "far": "wait", "served": "restart"},
)


def ruled() -> Iterator[tuple[str, Cluster, list[Callable[[], None]]]]:
    """What the checkers of one node find, or of both, with the peer there, dead, paused, or with the checkers off."""
    for place, (actions, down, also) in enumerate(itertools.product(RULE_SETS, BREAKAGES, ALSO)):
        cluster = Cluster(place, witness=place % 4 == 1)
        cluster.rules, cluster.max_restarts = resources.rules(**actions), (1, 50)[place % 2]
        settle(cluster)
        told = f"{also}; {' and '.join(f'{name} of {node} breaks' for name, node in down)} [{', '.join(map(' '.join, actions.items()))}]"
        breaks = [lambda name=name, node=node, cluster=cluster: break_there(cluster, node, name) for name, node in down]
        yield told, cluster, [lambda also=also, cluster=cluster: ALSO[also](cluster), *breaks]


BREAKAGES: tuple[tuple[tuple[str, str], ...], ...] = (
    ((resources.OWN, "node1"),),
    ((resources.OWN, "node2"), (resources.OWN, "node1")),
    ((resources.FAR, "node1"), (resources.FAR, "node2")),
    ((resources.NEAR, "node1"), (resources.SERVED, "node1")),
    ((resources.SERVED, "node1"), (resources.FAR, "node2")),
)
ALSO: dict[str, Callable[[Cluster], None]] = {
    "all is well": lambda cluster: None,
    "node2 loses its power": lambda cluster: cluster.power_off("node2"),
    "failover is paused": lambda cluster: cluster.command("node1", ev.Switch, switch="failover", value="off"),
    "the checkers of node1 are off": lambda cluster: cluster.command("node1", ev.Switch, switch="checkers", value="off"),
}


def break_there(cluster: Cluster, node: str, name: str) -> None:
    """It is down, and found to be."""
    cluster.machines[node].down |= {name}


def simulate_rules() -> dict[str, list[shape.Plain]]:
    """Everything that the stories with rules bring up."""
    with Recorder() as recorder:
        for story, cluster, steps in ruled():
            recorder.story, recorder.cluster = story, cluster
            for action in steps:
                action()
                cluster.run(sequences.PAUSE_S)
            make_peace(cluster)
            cluster.run(10.0)
    by_answer: dict[str, shape.Plain] = {}
    for line in recorder.found["rules"]:
        answers = line["answers"]
        told = [answers.get(name) for name in ("rules", "must_not_serve", "awaited", "goal")]
        if answers.get("rules") or answers.get("awaited"):
            by_answer.setdefault(json.dumps(told, sort_keys=True), line)
    found = list(by_answer.values())
    chosen = random.Random(1).sample(range(len(found)), min(MOST, len(found)))
    return {"rules": [found[place] for place in sorted(chosen)]}


def simulate() -> dict[str, list[shape.Plain]]:
    """Everything that the stories bring up, by kind."""
    with Recorder() as recorder:
        for story, cluster, names in itertools.chain(worn_out(), lives()):
            recorder.story, recorder.cluster = story, cluster
            for name in names:
                if cluster.witness is None and sequences.parts(cluster, name):
                    cluster.heal()  # a true partition of two: nobody can judge that without a witness
                sequences.FAULTS[name](cluster)
                cluster.run(sequences.PAUSE_S)
            make_peace(cluster)
            cluster.run(15.0)
        for seed in range(SEEDS):
            chance = random.Random(seed)
            cluster = paired(seed, chance.choice(("availability", "consistency")), witness=seed % 2 == 1)
            recorder.story, recorder.cluster = f"random life {seed}", cluster
            try:
                for _ in range(6):
                    disturb(cluster, chance)
                    cluster.run(chance.choice((0.4, 3.0, 8.0)))
            except AssertionError:
                continue  # a life that the simulator's own tests would stop: nothing of it is an example
    return recorder.found


def spread(found: list[shape.Plain], most: int) -> list[shape.Plain]:
    """So many of them: first one of each set of answers, then evenly over the rest."""
    by_answer: dict[str, list[shape.Plain]] = {}
    for each in found:
        by_answer.setdefault(json.dumps(each["answers"], sort_keys=True), []).append(each)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_answer.values()))
    chosen = list(itertools.islice((each for each in turns if each is not None), most))
    return sorted(chosen, key=found.index)


def write(name: str, lines: list[shape.Plain]) -> None:
    """A decision on each line."""
    (HERE / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{name}.jsonl: {len(lines)} decisions")


def read(path: Path) -> list[shape.Plain]:
    """The same."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def from_lab(path: Path) -> list[shape.Plain]:
    """Decisions with their evidence, as hactld of real nodes wrote them, each shape once."""
    found, known = [], set()
    for verdict in read(path):
        for event in verdict["decisions"]:
            mine, around, peer = replayed(event["inputs"])
            answers = shape.said(shape.answers(mine, around, peer))
            outlined = outline(event["kind"], event["inputs"]["module"], event["inputs"]["around"], event["inputs"]["peer"], answers)
            if outlined not in known:
                known.add(outlined)
                story = f"{event['node']} in the scenario {verdict['scenario']}: {event['text']}"
                found.append({"story": story, "kind": event["kind"], "text": event["text"], "inputs": event["inputs"], "answers": answers})
    return found


def answered_anew(line: shape.Plain) -> shape.Plain:
    """The same inputs, what the rules say now."""
    if "inputs" in line:
        return {**line, "answers": shape.said(shape.answers(*replayed(line["inputs"])))}
    mine, around, peer = shape.module(line["module"]), shape.surroundings(line["around"]), shape.summary(line["peer"])
    return {**line, "answers": shape.said(shape.answers(mine, around, peer))}


def main(arguments: list[str]) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.record")
    parser.add_argument("--lab", type=Path)
    parser.add_argument("--answers", action="store_true")
    parser.add_argument("--rules", action="store_true")
    options = parser.parse_args(arguments)
    if options.rules:
        for kind, found in simulate_rules().items():
            write(kind, spread(found, MOST))
    elif options.answers:
        for path in sorted(HERE.glob("*.jsonl")):
            write(path.stem, [answered_anew(line) for line in read(path)])
    elif options.lab:
        write("lab", spread(from_lab(options.lab), MOST))
    else:
        for kind, found in sorted({**simulate(), **simulate_rules()}.items()):
            write(kind, spread(found, MOST))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
