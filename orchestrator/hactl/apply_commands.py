"""`hactl config diff|apply|history|rollback|edit`: hactld is asked what the files would change, shown to a person, and told to do it.

What is applied is what was shown: the digest of the files goes along, and files that were changed in between are refused.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from orchestrator.api.client import ApiFailure
from orchestrator.config import DEFAULT_CONFIG_DIR
from orchestrator.hactl.output import columns, print_json, print_rows, say
from orchestrator.hactl.session import WAIT_TIMEOUT_S, Failure, Session, session_options
from rfs import exit_codes

EFFECT_WORDS = {
    "live": "applied live",
    "next-start": "counts from the next start on",
}
SHADES = {"+": "green", "-": "red", "@": "cyan"}
POLL_S = 0.1
HISTORY_HEADER = ("", "number", "applied", "by", "files", "comment")


# ---- diff -------------------------------------------------------------------------------------------------------------------


@click.command()
@click.option("--peer", is_flag=False, flag_value="any", metavar="[NODE]", help="Against what the other node has applied.")
@click.option("--from", "base", type=int, metavar="N", help="Against generation N, not the applied one.")
@click.option("--to", "target", type=int, metavar="N", help="Generation N instead of the files.")
@session_options
def diff(session: Session, peer: str | None, base: int | None, target: int | None) -> None:
    """What the files would change in what is applied. Exit code 1 when there is something, as diff has it.

    \b
    hactl config diff              the files against what is applied
    hactl config diff --peer       the files against what the other node has applied
    hactl config diff --from 3 --to 5
    """
    document = session.client.config("diff", session.node, peer=peer, **{"from": number(base), "to": number(target)})
    if session.format in ("json", "jsonl"):
        print_json(document, one_line=session.format == "jsonl")
    else:
        for line in show_diff(document, colour=session.colour):
            say(line, styled=session.colour)
    if not document["equal"]:
        raise SystemExit(exit_codes.FAILED)


def number(value: int | None) -> str | None:
    """As the query has it."""
    return str(value) if value is not None else None


def show_diff(document: Mapping[str, Any], *, colour: bool) -> Iterator[str]:
    """For a person: the lines, then what each changed key means."""
    if document["equal"]:
        yield f"nothing differs between {document['from']} and {document['to']}"
        return
    for file in document["files"]:
        if file["kind"] in ("added", "removed", "mode"):
            yield f"{file['file']}: {file['kind'] if file['kind'] != 'mode' else 'may be executed or not'}"
        for line in file["lines"]:
            shade = SHADES.get(line[:1])
            yield click.style(line, fg=shade) if colour and shade else line
    yield from show_changes(document)


def show_changes(document: Mapping[str, Any]) -> Iterator[str]:
    """One line for each key, and what is wrong."""
    if document["problems"]:
        yield ""
        yield f"{len(document['problems'])} problem(s), nothing of it can be applied:"
        for each in document["problems"]:
            place = f"{each['file']}:{each['line']}" if each["line"] is not None else each["file"]
            yield f"  {place}: {each['key'] + ': ' if each['key'] else ''}{each['text']}"
    if document["changes"]:
        yield ""
        running = document["running"]
        rows = [(each["module"] or "cluster", each["key"] or "-", brief(each), effect(each, running)) for each in document["changes"]]
        yield from (f"  {line}" for line in columns(("", "", "", ""), rows)[1:])


def effect(change: Mapping[str, Any], running: Mapping[str, str]) -> str:
    """What it does to what runs."""
    if (words := EFFECT_WORDS.get(change["effect"])) is not None:
        return words
    names = change["stops"]
    now = [f"{name} is {running[name]}" for name in names if name in running]
    stopped = ", ".join(names) or "nothing"
    return f"needs {stopped} stopped" + (f" ({', '.join(now)})" if now else "")


def brief(change: Mapping[str, Any]) -> str:
    """`3s → 5s`."""
    before, after = change["before"], change["after"]
    if before is None and not isinstance(after, str | int | bool):
        return "added"
    if after is None and not isinstance(before, str | int | bool):
        return "removed"
    return f"{word(before)} → {word(after)}"


def word(value: Any) -> str:
    """A value on a line."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(str(entry) for entry in value) or "-"
    text = ("true" if value else "false") if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


# ---- apply ------------------------------------------------------------------------------------------------------------------

WITHOUT = click.option("--without-peer", is_flag=True, help="A node that does not answer takes it when it is back.")
FORCE = click.option("--force-from-here", is_flag=True, help="Also where another configuration is applied, or files were edited, there.")
COMMENT = click.option("--comment", metavar="TEXT", help="Why; it is shown in the history.")


@click.command()
@COMMENT
@WITHOUT
@FORCE
@session_options
def apply(session: Session, comment: str | None, without_peer: bool, force_from_here: bool) -> None:
    """Apply the files of this node, on all nodes or on none. Shows what they change, and asks.

    \b
    hactl config apply --dry-run           would it be accepted, and what would it do?
    hactl config apply --comment "longer timeout"
    """
    order: dict[str, Any] = {"comment": comment, "without_peer": without_peer, "force_from_here": force_from_here}
    agree_and_apply(session, order, "apply", None)


@click.command()
@click.argument("generation", type=int, required=False, metavar="[N]")
@COMMENT
@WITHOUT
@FORCE
@session_options
def rollback(session: Session, generation: int | None, comment: str | None, without_peer: bool, force_from_here: bool) -> None:
    """Apply a former generation again, by default the one before; the files become its files on all nodes."""
    past = [entry["number"] for entry in session.client.config("history")["generations"]]
    if generation is None:
        if len(past) < 2:
            raise Failure("there is nothing to go back to: only one generation was ever applied here", exit_codes.FAILED)
        generation = past[-2]
    order: dict[str, Any] = {"number": generation, "comment": comment, "without_peer": without_peer, "force_from_here": force_from_here}
    agree_and_apply(session, order, "rollback", generation)


def agree_and_apply(session: Session, order: dict[str, Any], verb: str, target: int | None) -> None:
    """Show, ask, do, and wait until hactld goes on with it."""
    if session.node is not None:
        raise Failure("a configuration is applied on all nodes, from the one that has its files: leave -H out", exit_codes.USAGE)
    check_directory(session)
    for_programs = session.format in ("json", "jsonl")
    document = session.client.config("diff", to=number(target))
    if not for_programs:
        for line in show_diff(document, colour=session.colour):
            say(line, styled=session.colour)
    if document["problems"] and for_programs:
        print_json({"schema": "hactl.config/1", "valid": False, "problems": document["problems"]}, one_line=session.format == "jsonl")
    if document["problems"]:
        raise SystemExit(exit_codes.CONFIGURATION_INVALID)
    if not session.dry_run and not document["equal"]:
        session.confirm("\nApply it on all nodes?" if verb == "apply" else f"\nGo back to generation {target} on all nodes?")
    answer = session.client.apply({**order, "expect": document["digest"], "dry_run": session.dry_run}, verb)
    if answer["generation"] is not None:
        wait_until_taken_up(session, int(answer["generation"]))
    if for_programs:
        print_json(answer, one_line=session.format == "jsonl")
    else:
        say(answer["message"], err=True)
        for node in answer["nodes"]:
            if node["text"]:
                say(f"{node['node']}: {node['text']}", err=True)


def check_directory(session: Session) -> None:
    """hactld applies the files of its own directory: another one that was named would be shown and not applied."""
    if session.config_dir != DEFAULT_CONFIG_DIR and str(session.config_dir.absolute()) != (its := session.client.config()["directory"]):
        raise Failure(f"hactld here takes its configuration from {its}: leave --config-dir out", exit_codes.USAGE)


def wait_until_taken_up(session: Session, generation: int) -> None:
    """hactld goes on with it here within a moment; meanwhile it may not answer."""
    deadline_s = time.monotonic() + (session.timeout_s if session.timeout_s is not None else WAIT_TIMEOUT_S)
    while time.monotonic() < deadline_s:
        try:
            state = session.client.config()
            if state["applied"]["number"] >= generation and state["running"]:
                return
        except ApiFailure as failure:
            if failure.code != exit_codes.DAEMON_NOT_REACHABLE:
                raise
        time.sleep(POLL_S)
    raise Failure(f"generation {generation} is applied, and hactld does not go on with it yet: hactl events", exit_codes.TIMEOUT)


# ---- history, edit --------------------------------------------------------------------------------------------------------------


@click.command()
@session_options
def history(session: Session) -> None:
    """The generations that were applied on this node (-H NODE: on another), the newest last."""
    document = session.client.config("history", session.node)
    if session.format in ("json", "jsonl"):
        print_json(document, one_line=session.format == "jsonl")
        return
    rows = [
        (
            "*" if entry["applied"] else "",
            str(entry["number"]),
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["wall_s"])),
            entry["who"] or "-",
            entry["digest"][:12],
            entry["comment"] or "-",
        )
        for entry in document["generations"]
    ]
    print_rows(session.format, HISTORY_HEADER, rows, document["generations"])


@click.command()
@click.argument("what", required=False, metavar="[MODULE]")
@COMMENT
@session_options
def edit(session: Session, what: str | None, comment: str | None) -> None:
    """Edit a module's file (without a name: cluster.toml) in $EDITOR, then check it, show what it changes, and apply it.

    What is wrong can be edited again, or left as it is: nothing is applied then.
    """
    from orchestrator.config import CLUSTER_FILE, MODULES_DIR
    from orchestrator.config_errors import ConfigError
    from orchestrator.hactl.config_commands import show_complaints

    path = session.config_dir / (CLUSTER_FILE if what is None else f"{MODULES_DIR}/{what}.toml")
    if not path.exists():
        raise Failure(f"{path} is not there; 'hactl module list' shows the modules", exit_codes.USAGE)
    while True:
        run_editor(path)
        try:
            check_files(session.config_dir)
            break
        except ConfigError as error:
            show_complaints(session, error)
            if session.yes or not click.confirm("Edit it again?", default=True):
                raise SystemExit(exit_codes.CONFIGURATION_INVALID) from None
    agree_and_apply(session, {"comment": comment}, "apply", None)


def check_files(config_dir: Path) -> None:
    """ConfigError with all that is wrong."""
    from orchestrator.config import load_cluster, load_modules

    load_modules(config_dir, load_cluster(config_dir))


def run_editor(path: Path) -> None:
    """$VISUAL, $EDITOR, or what the system calls `editor`."""
    import os
    import shlex

    words: Sequence[str] = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "editor")
    try:
        code = subprocess.run([*words, str(path)], check=False).returncode
    except OSError as error:
        raise Failure(f"{words[0]}: {error.strerror}; say with EDITOR=… which editor to use", exit_codes.FAILED) from None
    if code != 0:
        raise Failure(f"{words[0]} ended with exit code {code}; nothing was applied", exit_codes.FAILED)


COMMANDS = (diff, apply, history, rollback, edit)
