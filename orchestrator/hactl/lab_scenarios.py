"""`hactl lab run`: the scenarios, the catalogue, and a run as it is told: how each ended, what was wrong, where the evidence lies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from orchestrator.hactl.output import print_json, print_rows, say
from orchestrator.hactl.session import Failure, Session
from orchestrator.lab.scenarios import TABLE, Scenario, Theatre, Verdict, play_all, series
from orchestrator.lab.scenarios.catalogue import ACCEPTANCE, FAULTS, ordered, proofs
from rfs import exit_codes


def show_scenarios(session: Session) -> None:
    """All of them, a line each."""
    documents = [
        {
            "scenario": each.name, "text": each.text, "covers": list(each.covers), "stage": each.stage.name, "serves": each.serves,
            "silence_s": each.silence_s, "slow": each.slow,
        }
        for each in ordered()
    ]  # fmt: skip
    rows = [(each.name, " ".join(each.covers), each.text) for each in ordered()]
    print_rows(session.format, ("scenario", "covers", "what happens"), rows, documents)


def show_catalogue(session: Session) -> None:
    """Every row of it, and SafeKit's acceptance tests (S1 to S18)."""
    rows = [(row.number, row.text, ", ".join(proofs(row)).replace("`", "").replace("*", "")) for row in (*FAULTS, *ACCEPTANCE)]
    documents = [{**asdict(row), "proofs": proofs(row)} for row in (*FAULTS, *ACCEPTANCE)]
    print_rows(session.format, ("row", "fault", "proven by"), rows, documents)


def chosen(names: Sequence[str], faults: int | None, seed: int | None) -> list[Scenario]:
    """What is to be played."""
    found: list[Scenario] = []
    for name in names:
        one = TABLE.get(name) or series.by_name(name)
        if name == "all":
            found += TABLE.values()
        elif one is not None:
            found.append(one)
        else:
            raise Failure(f"there is no scenario {name}; 'hactl lab run' lists them", exit_codes.USAGE)
    if faults is not None:
        seed = int(time.time()) if seed is None else seed
        say(f"random series: {faults} faults, seed {seed}", err=True)
        found += series.series(seed, faults)
    return found


def play(session: Session, lab_name: str, scenarios: Sequence[Scenario], *, keep: bool, evidence: Path | None) -> bool:
    """Whether all passed; each is told as soon as it ends."""
    began = time.monotonic()

    def tell(verdict: Verdict) -> None:
        if session.format in ("json", "jsonl"):
            print_json(verdict.as_json(), one_line=True)
        else:
            show_verdict(verdict, texts[verdict.name])

    texts = {each.name: each.text for each in scenarios}
    with Theatre(lab_name, keep=keep) as theatre:
        verdicts = play_all(theatre, scenarios, tell, evidence)
    failed = [verdict.name for verdict in verdicts if not verdict.passed]
    skipped = sum(bool(verdict.skipped) for verdict in verdicts)
    passed = len(verdicts) - len(failed) - skipped
    say(f"{passed} passed, {len(failed)} failed, {skipped} skipped in {time.monotonic() - began:.0f} s", err=True)
    if keep:
        say(f"The lab is up: hactl lab --name {lab_name} status", err=True)
    return not failed


def show_verdict(verdict: Verdict, text: str) -> None:
    """For people."""
    say(f"{verdict.word:7}  {verdict.name}  ({verdict.took_s:.1f} s)  {text}")
    if verdict.skipped:
        say(f"         {verdict.skipped}")
        return
    say(
        f"         {verdict.serves or 'nobody'} serves; the client waited {verdict.silence_s:.2f} s at most; "
        f"{verdict.acknowledged} lines acknowledged"
    )
    for decision in verdict.decisions:
        say(f"         {decision['node']} {decision['kind']}: {decision['text']}")
    for problem in verdict.problems:
        say("         WRONG: " + problem.replace("\n", "\n         "))
    if verdict.evidence:
        say(f"         evidence: {verdict.evidence}")
