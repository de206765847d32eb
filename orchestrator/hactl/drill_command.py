"""`hactl drill`: a rehearsal with a stop watch. The role goes to the other node and comes back, as in a planned maintenance; the report
says how long nobody served and how long there was one copy only."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import click

from orchestrator.hactl.output import print_json, say
from orchestrator.hactl.session import WAIT_TIMEOUT_S, Failure, Session, chosen_module, session_options
from orchestrator.hactl.waiting import describe, entry_of, leader
from rfs import exit_codes

LOOK_S = 0.03


@dataclass(slots=True)
class Round:
    """One way. Seconds since the command."""

    source: str
    target: str
    stopped_s: float | None = None  # the services began to stop on the one ...
    serving_s: float | None = None  # ... and were up on the other
    redundant_s: float | None = None  # both copies in sync, both nodes ready

    @property
    def gap_s(self) -> float | None:
        """How long nobody served."""
        return None if self.stopped_s is None or self.serving_s is None else round(self.serving_s - self.stopped_s, 2)

    def look(self, entry: Mapping[str, Any], passed_s: float) -> None:
        """What a status says."""
        lines = {line["node"]: line for line in entry["nodes"]}
        passed_s = round(passed_s, 2)
        if self.stopped_s is None and lines[self.source]["service"] != "on":
            self.stopped_s = passed_s
        if self.stopped_s is not None and self.serving_s is None and lines[self.target]["service"] == "on":
            self.serving_s = passed_s
        if self.serving_s is not None and entry["verdict"] == "redundant" and leader(entry) == self.target:
            self.redundant_s = passed_s


@click.command()
@click.argument("module", required=False)
@click.option("--one-way", is_flag=True, help="Stay on the other node.")
@session_options
def drill(session: Session, module: str | None, one_way: bool) -> None:
    """Rehearse: move the module to the other node and back, timed. The service is interrupted twice, for as long as it takes to start."""
    document = session.client.status("all")
    name = chosen_module(document, module)
    entry = entry_of(document, name)
    source = leader(entry)
    if entry["verdict"] != "redundant" or source is None or document.get("partial"):
        raise Failure(f"{name} is {entry['verdict']} ({describe(entry)}): rehearse when it is redundant", exit_codes.REFUSED)
    session.confirm(f"{name} will be stopped on {source} and started on the other node{'' if one_way else ', and back'}. Go on?")
    target = next(line["node"] for line in entry["nodes"] if line["node"] != source)
    ways = [(source, target)] if one_way else [(source, target), (target, source)]
    report([move(session, name, *way) for way in ways], session, name)


def move(session: Session, name: str, source: str, target: str) -> Round:
    """A swap, watched until the pair is whole again."""
    watched, began = Round(source, target), time.monotonic()
    deadline = began + (session.timeout_s if session.timeout_s is not None else WAIT_TIMEOUT_S)
    session.client.command(name, "swap", {}, source)
    while watched.redundant_s is None:
        entry = entry_of(session.client.status("all"), name)
        watched.look(entry, time.monotonic() - began)
        if time.monotonic() > deadline:
            raise Failure(f"{name} has not arrived on {target}: {describe(entry)}; nothing is taken back", exit_codes.TIMEOUT)
        time.sleep(LOOK_S)
    return watched


def report(rounds: list[Round], session: Session, name: str) -> None:
    """For people, or for the file of those who must prove that they rehearse."""
    if session.format in ("json", "jsonl"):
        found = [{**asdict(each), "gap_s": each.gap_s} for each in rounds]
        document = {"schema": "hactl.drill/1", "module": name, "at": time.strftime("%Y-%m-%dT%H:%M:%S"), "rounds": found}
        print_json(document, one_line=session.format == "jsonl")
        return
    say(f"Drill of {name}, {time.strftime('%Y-%m-%d %H:%M:%S')}")
    for each in rounds:
        say(
            f"  {each.source} -> {each.target}   nobody served for {each.gap_s} s; both copies whole again after {each.redundant_s} s"
        )
