"""`hactl checkers`: what they find, and the switch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from orchestrator.hactl.module_commands import switch
from orchestrator.hactl.output import columns, print_json, say
from orchestrator.hactl.session import Session, chosen_module, session_options
from orchestrator.units import show_duration


@click.command()
@click.argument("words", nargs=-1, metavar="[on|off] [MODULE]")
@session_options
def checkers(session: Session, words: tuple[str, ...]) -> None:
    """What the checkers of a module found. With on or off: act on it on this node, or only note it; that survives restarts."""
    word = words[0] if words and words[0] in ("on", "off") else ""
    names = words[1:] if word else words
    if len(names) > 1:
        raise click.UsageError("give at most one module")
    status = session.client.status(session.node)
    name = chosen_module(status, names[0] if names else None) if word or names else None
    if word and name is not None:
        switch(session, name, f"checkers-{word}", session.node)
    else:
        show_checkers(session, [entry for entry in status["modules"] if name in (None, entry["name"])])


def show_checkers(session: Session, modules: Sequence[Mapping[str, Any]]) -> None:
    """A line for each resource and node."""
    found = [
        {"module": module["name"], "node": line["node"], **checker}
        for module in modules
        for line in module["nodes"]
        for checker in line.get("checkers", ())
    ]
    if session.format == "json":
        print_json({"schema": "hactl.checkers/1", "checkers": found})
    elif session.format == "jsonl":
        for each in found:
            print_json(each, one_line=True)
    else:
        rows = [
            (each["module"], each["node"], each["resource"], each["state"], _since(each["since_s"]), each["text"] or "-") for each in found
        ]
        header = ("MODULE", "NODE", "RESOURCE", "STATE", "SINCE", "FOUND")
        lines = ["\t".join(row) for row in rows] if session.format == "plain" else columns(header, rows)
        for line in lines:
            say(line)
        if not found and session.format == "table":
            say("nothing is watched: see [[checker]] in docs/interfaces.md")


def _since(since_s: float | None) -> str:
    return show_duration(since_s) if since_s is not None else "-"
