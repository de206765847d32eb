"""`hactl doctor`: what is wrong with this node, with its peers, and between them, and the command that mends it."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from orchestrator.doctor.finding import Finding, Verdict
from orchestrator.exit_codes import DOCTOR
from orchestrator.hactl.output import print_json, say
from orchestrator.hactl.session import Failure, Session, session_options
from rfs.errors import SaidNo
from rfs.show import printable

GLYPHS: dict[Verdict, str] = {"bad": "✖", "warn": "!", "unknown": "?", "ok": "✔"}
COLOURS: dict[Verdict, str] = {"bad": "red", "warn": "yellow", "unknown": "cyan", "ok": "green"}
HEADLINES: dict[Verdict, str] = {"bad": "something is wrong", "warn": "works, with warnings", "ok": "nothing is wrong", "unknown": ""}
WIDTH_MAX = 140


@click.command()
@click.option("--all", "everything", is_flag=True, help="Show what is well, too.")
@session_options
def doctor(session: Session, everything: bool) -> None:
    """Look for everything that would make a failover fail: on this node and its peers (-H NODE: on one).

    \b
    hactl doctor                 what is wrong, worst first, each with its fix
    hactl doctor --all           every check, the good ones as well
    hactl doctor -H node2        one node only

    Exit code: 0 nothing is wrong, 10 warnings only, 1 something is wrong. hactld need not run.
    """
    from orchestrator.doctor.judge import document, judge_all, overall  # slow to import: only who is examined pays for it
    from orchestrator.hactl.examiner import Examiner

    began = time.monotonic()
    try:
        examiner = Examiner(session.config_dir, session.socket)
        examined = examiner.examine(examiner.nodes(session.node))
    except SaidNo as refusal:
        raise Failure(refusal.sentence, refusal.exit_code) from None
    found = judge_all(examined.facts, examined.silent)
    nodes = [str(facts["node"]) for facts in examined.facts]
    show(session, document(found, nodes, examined.silent, time.monotonic() - began), found, everything)
    raise SystemExit(DOCTOR[overall(found)])


def show(session: Session, told: Mapping[str, Any], found: Sequence[Finding], everything: bool) -> None:
    """In the format that was asked for."""
    if session.format in ("json", "jsonl"):
        print_json(told, one_line=session.format == "jsonl")
    elif session.format == "plain":
        for each in shown_of(found, everything):
            say("\t".join(map(printable, (each.verdict, each.group, each.check, each.node, each.text, each.fix))))
    else:
        for line in render(told, shown_of(found, everything), colour=session.colour):
            say(line, styled=session.colour)


def shown_of(found: Sequence[Finding], everything: bool) -> list[Finding]:
    """What is well is shown when it is asked for."""
    return [each for each in found if everything or each.verdict != "ok"]


def render(told: Mapping[str, Any], found: Sequence[Finding], *, colour: bool) -> Iterator[str]:
    """For people: the verdict, then by group, the worst first."""
    counts = told["counts"]
    verdict: Verdict = told["verdict"]
    tally = ", ".join(f"{counts[word]} {word}" for word in ("bad", "warn", "unknown", "ok") if counts[word])
    who = " and ".join(told["nodes"]) or "nobody"
    headline = f"{HEADLINES[verdict]} {GLYPHS[verdict]}"
    yield f"{who}: {click.style(headline, fg=COLOURS[verdict], bold=True) if colour else headline}   ({tally}; {told['took_s']:.1f} s)"
    yield from findings(found, colour=colour)


def together(found: Sequence[Finding]) -> list[Finding]:
    """What two nodes have in common is said once."""
    merged: dict[tuple[str, str, str, str], Finding] = {}
    for each in found:
        what = (each.check, each.verdict, each.text, each.fix)
        merged[what] = replace(each, node=f"{merged[what].node}, {each.node}") if what in merged else each
    return list(merged.values())


def findings(found: Sequence[Finding], *, colour: bool) -> Iterator[str]:
    """Group by group in the order of their worst finding; equal sentences of two nodes are one line."""
    groups: dict[str, list[Finding]] = {}
    for each in together(found):
        groups.setdefault(each.group, []).append(each)
    for group, members in groups.items():
        yield ""
        yield group
        for each in members:
            mark = GLYPHS[each.verdict]
            shown = click.style(mark, fg=COLOURS[each.verdict]) if colour else mark
            lines = textwrap.wrap(printable(f"{each.node}: {each.text}"), WIDTH_MAX - 4, break_long_words=False, break_on_hyphens=False)
            yield f"  {shown} {lines[0]}"
            yield from (f"      {line}" for line in lines[1:])
            if each.fix:
                yield f"      → {printable(each.fix)}"
