"""Running scenarios: the stage is set, the scenario plays while the watch looks on, and in the end everything is asked.

A stage (a lab with its pair) is kept as long as the scenarios that follow want the same one, and repaired between them. What fails leaves
its evidence in a directory: both histories, status, logs, and what was wrong. Whatever a scenario raises is its verdict; the next one
plays on a new stage.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from orchestrator.api.client import ApiFailure
from orchestrator.lab.cluster import SERVERS, Trouble
from orchestrator.lab.errors import LabError
from orchestrator.lab.lab import Lab
from orchestrator.lab.scenarios import witness
from orchestrator.lab.scenarios.pair import LedgerPair
from orchestrator.lab.scenarios.scenario import EITHER, Impossible, Scenario, Stage
from orchestrator.lab.scenarios.watch import Watch
from orchestrator.sentence import Sentence

FAILURES = (Trouble, LabError, ApiFailure, Sentence, OSError, subprocess.SubprocessError, AssertionError, KeyError, IndexError, ValueError)
DISK_SIZE_BYTES = 1 << 30


@dataclass
class Verdict:
    """How a scenario ended."""

    name: str
    problems: list[str] = field(default_factory=list)
    skipped: str = ""
    took_s: float = 0.0
    silence_s: float = 0.0  # the longest time without an answer to the client
    both_held_s: float = 0.0  # for how long the address was on two nodes, of which one could not help it
    serves: str = ""
    acknowledged: int = 0
    decisions: list[dict[str, Any]] = field(default_factory=list)  # as the histories have them, with what they rested on
    evidence: str = ""

    @property
    def passed(self) -> bool:
        """Nothing is wrong."""
        return not self.problems

    @property
    def word(self) -> str:
        """For people."""
        return "skipped" if self.skipped else "passed" if self.passed else "FAILED"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"scenario": self.name, "verdict": self.word, **{name: value for name, value in asdict(self).items() if name != "name"}}


class Theatre:
    """The stage that stands now, and the next one when it is wanted."""

    def __init__(self, lab_name: str, *, keep: bool = False) -> None:
        self.lab_name, self.keep = lab_name, keep
        self.stage: Stage | None = None
        self._pair: LedgerPair | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Theatre:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self.keep:
            self.strike()

    def pair(self, stage: Stage) -> LedgerPair:
        """A pair on this stage, ready for a scenario."""
        if self._pair is None or self.stage != stage or not stage.begun:
            self.strike()
            self._set(stage)
        assert self._pair is not None
        if stage.begun:
            self._pair.repair()
            if stage.etcd:
                witness.until_witnessed(self._pair)
        return self._pair

    def _set(self, stage: Stage) -> None:
        lab = Lab(self.lab_name, disk_size_bytes=DISK_SIZE_BYTES)
        self._scratch = tempfile.TemporaryDirectory(prefix="lockstep-scenario-", dir="/var/tmp")  # /tmp is each node's own
        pair = LedgerPair(
            lab, Path(self._scratch.name), max_restarts=stage.max_restarts, service_words=stage.service_words, tables=stage.tables,
            beside=stage.beside, policy=stage.policy, third=stage.third, heartbeat=stage.heartbeat,
        )  # fmt: skip
        self._pair, self.stage = pair, stage
        lab.up()
        if stage.etcd:
            witness.start_etcd(pair)
        pair.configure()
        if stage.begun:
            pair.bring_up()
        else:
            for node in SERVERS:
                pair.start_daemon(node)
        pair.start_writer()

    def strike(self) -> None:
        """Nothing of it is left."""
        if self._pair is not None:
            witness.ETCD.pop(self._pair.lab.name, None)
            self._pair.lab.down()
        if self._scratch is not None:
            self._scratch.cleanup()
        self._pair = self._scratch = self.stage = None

    def play(self, scenario: Scenario, evidence: Path | None = None) -> Verdict:
        """One scenario from the repair to the last question."""
        verdict = Verdict(scenario.name)
        began = time.monotonic()
        try:
            play(self.pair(scenario.stage), scenario, verdict)
        except Impossible as reason:
            verdict.skipped = str(reason)
        except FAILURES as failure:
            verdict.problems.append(f"{type(failure).__name__}: {failure}" if not str(failure) else str(failure))
        verdict.took_s = round(time.monotonic() - began, 1)
        if not verdict.passed:
            if self._pair is not None:
                verdict.evidence = keep_evidence(self._pair, verdict, evidence)
            if not self.keep:
                self.strike()  # the next one must not suffer from it
        return verdict


def play(pair: LedgerPair, scenario: Scenario, verdict: Verdict) -> None:
    """Act, then ask everything that must be true."""
    numbers, began, before = pair.last_numbers(), time.monotonic(), len(pair.acks())
    with Watch(pair, two_may_serve=scenario.two_may_serve) as watch:
        try:
            scenario.act(pair)
            pair.calm()
            verdict.silence_s = round(pair.longest_silence(began), 2)
            pair.compare()
        finally:
            verdict.problems += watch.seen
            verdict.both_held_s = round(watch.longest_both_s, 2)
    verdict.serves, verdict.acknowledged = pair.primary(), len(pair.acks()) - before
    told = pair.told_since(numbers)
    verdict.decisions = [{name: event[name] for name in ("node", "kind", "text", "inputs")} for event in told if event.get("inputs")]
    verdict.problems += pair.unexplained(told)
    if scenario.serves not in (EITHER, verdict.serves):
        verdict.problems.append(f"{verdict.serves} serves in the end, and {scenario.serves} should")
    if scenario.silence_s is not None and verdict.silence_s > scenario.silence_s:
        verdict.problems.append(f"nobody answered the client for {verdict.silence_s:.1f} s, and {scenario.silence_s:g} s are allowed")
    if len(taken := moves(told)) > scenario.moves:
        verdict.problems.append(f"the role moved {len(taken)} times, and {scenario.moves} are allowed: {taken}")
    if watch.looks < verdict.silence_s:
        verdict.problems.append(f"the oracle looked {watch.looks} times only")


def moves(told: list[dict[str, Any]], holder: str = "node1") -> list[str]:
    """Each time that writes began to be acknowledged on a node which was not the last one to do so. Pure."""
    found = []
    for event in sorted(told, key=lambda event: float(event["monotonic_s"])):
        if event["kind"] == "serving" and event["node"] != holder:
            holder = event["node"]
            found.append(f"{holder} {event['text']}")
    return found


QUESTIONS: dict[str, Callable[[LedgerPair, str], str]] = {
    "history.json": lambda pair, node: json.dumps(pair.events(node), indent=1),
    "status.json": lambda pair, node: json.dumps(pair.status(node), indent=1),
    "rfs-status.json": lambda pair, node: json.dumps(pair.rfs_status(node), indent=1),
    "addresses.txt": lambda pair, node: pair.lab.run(node, ["ip", "addr"]).stdout,
    "log.txt": lambda pair, node: pair.lab.run(node, ["sh", "-c", "tail -n 3000 /var/log/lockstep/*"]).stdout,
}


def keep_evidence(pair: LedgerPair, verdict: Verdict, where: Path | None) -> str:
    """Everything that tells how it came about, in a directory of its own."""
    where = where or Path("/var/tmp")
    where.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f"{verdict.name}-", dir=where))
    (directory / "verdict.json").write_text(json.dumps(verdict.as_json(), indent=2))
    (directory / "now.txt").write_text(pair.describe())
    for node in SERVERS:
        for name, ask in QUESTIONS.items():
            try:
                (directory / f"{node}.{name}").write_text(ask(pair, node))
            except FAILURES as failure:  # what cannot be had is told, too
                (directory / f"{node}.{name}").write_text(f"not to be had: {failure}\n")
    return str(directory)


def in_order(scenarios: Iterable[Scenario]) -> list[Scenario]:
    """By stage, so that each is set once; the usual one last."""
    return sorted(scenarios, key=lambda each: (each.stage.name == "plain", each.stage.name))


def play_all(
    theatre: Theatre, scenarios: Iterable[Scenario], say: Callable[[Verdict], None], evidence: Path | None = None
) -> list[Verdict]:
    """One after the other; each verdict is said as soon as it stands."""
    verdicts = []
    for each in in_order(scenarios):
        verdicts.append(theatre.play(each, evidence))
        say(verdicts[-1])
    return verdicts
