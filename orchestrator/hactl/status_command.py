"""`hactl status`, and `hactl` without a word: the first thing that anybody types."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from orchestrator.api.client import ApiFailure
from orchestrator.exit_codes import CHECK
from orchestrator.hactl.output import print_json, say
from orchestrator.hactl.session import Failure, Session, chosen_module, module_argument, session_options
from orchestrator.hactl.status_view import NAGIOS_UNKNOWN, nagios, render
from rfs import exit_codes

WATCH_S = 2.0
LEAST_S = 0.2  # events come in bunches


class Watchable(click.Command):
    """`-w 5` as well as `-w`: a number after it is how often."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """With `-w 5` spelt out."""
        words: list[str] = []
        for at, word in enumerate(args):
            previous = args[at - 1] if at else ""
            words += ["--interval", word] if previous in ("-w", "--watch") and word.replace(".", "", 1).isdigit() else [word]
        return super().parse_args(ctx, words)


@click.command(cls=Watchable)
@module_argument
@click.option("-w", "--watch", is_flag=True, help="Keep it up to date until Ctrl-C; -w 5: look at least every 5 seconds.")
@click.option("--interval", type=float, default=WATCH_S, show_default=True, help="Seconds between two looks, with -w.")
@click.option("--check", is_flag=True, help="Exit with 0 redundant, 10 degraded, 11 down, 12 diverged, 13 resyncing.")
@click.option("--nagios", "for_nagios", is_flag=True, help="One line, and 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.")
@click.option("--wide", is_flag=True, help="More columns: generation, term, sequence number, marked bytes, code.")
@click.option("-t", "--timestamp", is_flag=True, help="With the date.")
@click.option("--no-header", is_flag=True, help="Without the names of the columns.")
@session_options
def status(
    session: Session, module: str | None, watch: bool, interval: float, check: bool, for_nagios: bool, wide: bool, timestamp: bool,
    no_header: bool,
) -> None:  # fmt: skip
    """What runs where, and what is wrong.

    \b
    hactl status                 this node and what it knows of the others
    hactl status -H all          ask every node
    hactl status pg -w           one module, kept up to date
    hactl status --check         for scripts: the verdict is the exit code
    """
    if for_nagios:
        raise SystemExit(_for_nagios(session, module))
    options = {"wide": wide, "header": not no_header, "stamped": timestamp}
    document = ask(session, module)
    if watch:
        _watch(session, module, interval, options)
        return
    show_status(session, document, **options)
    if check and document["verdict"] != "redundant":
        raise SystemExit(CHECK.get(document["verdict"], exit_codes.FAILED))
    if session.node is not None and document.get("partial"):
        raise Failure("another node did not answer; what is shown of it was last known here", exit_codes.PEER_NOT_REACHABLE)


def ask(session: Session, module: str | None) -> dict[str, Any]:
    """The status, of one module or of all."""
    document = session.client.status(session.node)
    if module is None:
        return document
    chosen_module(document, module)
    modules = [entry for entry in document["modules"] if entry["name"] == module]
    return {**document, "modules": modules, "verdict": modules[0].get("verdict", document["verdict"])}


def _watch(session: Session, module: str | None, interval: float, options: dict[str, bool]) -> None:
    """Again whenever something happens here, and every `interval` for what grows by itself. A hactld that is restarted is waited for."""
    while True:
        try:
            show_status(session, ask(session, module), again=True, **options)
            shown_at = time.monotonic()
            for event in session.client.stream(tick_s=interval):
                if event.kind != "quiet" and time.monotonic() - shown_at < LEAST_S:
                    time.sleep(LEAST_S)  # what happens together is shown together
                show_status(session, ask(session, module), again=True, **options)
                shown_at = time.monotonic()
        except ApiFailure as failure:
            if failure.code not in (exit_codes.DAEMON_NOT_REACHABLE, exit_codes.PEER_NOT_REACHABLE):
                raise
            say(f"hactl: {failure}", err=True)
            time.sleep(interval)


def _for_nagios(session: Session, module: str | None) -> int:
    try:
        line, code = nagios(ask(session, module))
    except ApiFailure as failure:
        line, code = f"LOCKSTEP {NAGIOS_UNKNOWN[0]} - {failure}", NAGIOS_UNKNOWN[1]
    say(line)
    return code


def show_status(session: Session, document: Mapping[str, Any], *, again: bool = False, **options: bool) -> None:
    """One answer in the format that was asked for."""
    if session.format in ("json", "jsonl"):
        print_json(document, one_line=again or session.format == "jsonl")
    elif session.format == "plain":
        for module in document["modules"]:
            for node in module["nodes"]:
                values = (module["name"], node["node"], node["state"], node["readiness"], node["data"] or "-", node["link"] or "-")
                say("\t".join(values))
    else:
        if again and session.colour:
            click.clear()
        say(render(document, colour=session.colour, **options), styled=session.colour)


def show_status_and_next(session: Session) -> None:
    """`hactl` alone: the status, and what somebody who types that may want to do next."""
    document = session.client.status(session.node)
    show_status(session, document)
    if session.format == "table":
        say("\nNext:")
        for command, what in likely_next(document):
            say(f"  {command:34} {what}")


def likely_next(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Three commands that fit the state."""
    modules = document["modules"]
    if not modules:
        return [("hactl module templates", "what there is to begin with"), ("hactl config check", "is what is written right"),
                ("hactl --help", "everything else")]  # fmt: skip
    first = next((module for module in modules if module["verdict"] == document["verdict"]), modules[0])
    name, states = first["name"], {node["state"] for node in first["nodes"]}
    found: list[tuple[str, str]]
    match first["verdict"]:
        case "redundant" if first["mode"] == "mirror":
            found = [(f"hactl swap {name} --wait", "give the role to the other node"), (f"hactl drill {name}", "rehearse a failover")]
        case "diverged":
            found = [("hactl explain DIVERGED", "what has happened, and how it ends"),
                     (f"hactl resolve {name} --keep NODE", "shows what differs, then asks")]  # fmt: skip
        case "resyncing":
            found = [(f"hactl resync {name}", "how far it is"), (f"hactl wait {name} --for redundant", "return when it is whole")]
        case "down" if states <= {"STOP", "UNKNOWN"}:
            found = [(f"hactl start {name} -H all --wait", "start it on its nodes"), (f"hactl why {name}", "what stands against it")]
        case _:
            found = [(f"hactl why {name}", "why it is so, and what stands against it"), (f"hactl logs {name}", "what its services said")]
    return [*found, ("hactl history", "what happened, and who asked for it")]
