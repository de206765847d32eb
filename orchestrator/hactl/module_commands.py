"""`hactl status`, the commands that move a module, `wait` and `logs`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from orchestrator.exit_codes import CHECK
from orchestrator.hactl import first_start
from orchestrator.hactl.output import columns, print_json
from orchestrator.hactl.session import Failure, Session, chosen_module, session_options
from orchestrator.hactl.status_view import render
from orchestrator.hactl.waiting import LEADING, Goal, entry_of, goal_for, goal_of_lines, leader, wait_for
from orchestrator.units import show_duration
from rfs import exit_codes

module_argument = click.argument("module", required=False)


@click.command()
@module_argument
@click.option("-w", "--watch", is_flag=True, help="Show it again and again.")
@click.option("--interval", type=float, default=2.0, show_default=True, help="Seconds between two, with -w.")
@click.option("--check", is_flag=True, help="Exit with 0 redundant, 10 degraded, 11 down, 12 diverged, 13 resyncing.")
@session_options
def status(session: Session, module: str | None, watch: bool, interval: float, check: bool) -> None:
    """What runs where, and what is wrong."""
    while True:
        document = session.client.status(session.node)
        if module is not None:
            chosen_module(document, module)
            document["modules"] = [entry for entry in document["modules"] if entry["name"] == module]
            document["verdict"] = document["modules"][0].get("verdict", document["verdict"])
        show_status(session, document, again=watch)
        if not watch:
            break
        time.sleep(interval)
    if check and document["verdict"] != "redundant":
        raise SystemExit(CHECK.get(document["verdict"], exit_codes.FAILED))
    if session.node is not None and document.get("partial"):
        raise Failure("another node did not answer; what is shown of it was last known here", exit_codes.PEER_NOT_REACHABLE)


def show_status(session: Session, document: Mapping[str, Any], *, again: bool) -> None:
    """One answer in the format that was asked for."""
    if session.format in ("json", "jsonl"):
        print_json(document, one_line=again or session.format == "jsonl")
    elif session.format == "plain":
        for module in document["modules"]:
            for node in module["nodes"]:
                values = (module["name"], node["node"], node["state"], node["readiness"], node["data"] or "-", node["link"] or "-")
                click.echo("\t".join(values))
    else:
        if again and session.colour:
            click.clear()
        click.echo(render(document, colour=session.colour))


def tell(session: Session, name: str, verb: str, options: Mapping[str, bool | str], node: str | None) -> None:
    """Send a command and say what became of it."""
    answer = session.client.command(name, verb, {option: value for option, value in options.items() if value}, node)
    if session.format in ("json", "jsonl"):
        print_json(answer, one_line=True)
    else:
        for said in answer.get("results") or [answer]:
            click.echo(said.get("message") or f"{verb} {name}: accepted", err=True)


def act(session: Session, module: str | None, verb: str, options: Mapping[str, bool | str], goal: Goal | None = None) -> None:
    """The same, and with --wait stay until the goal is reached."""
    document = session.client.status()
    name = chosen_module(document, module)
    entry = entry_of(document, name)
    tell(session, name, verb, options, session.node)
    if session.wait:
        wait_for(session, name, goal or default_goal(verb, session.node, leader(entry)), f"done with {verb} {name}")


def default_goal(verb: str, node: str | None, leading: str | None) -> Goal:
    """When a command is finished."""

    def ready_as(*wanted: str) -> Goal:
        return goal_of_lines(node, lambda line: line["state"] in wanted and line["readiness"] == "Ready")

    match verb:
        case "stop":
            return goal_of_lines(node, lambda line: bool(line["state"] == "STOP"))
        case "swap":
            return lambda entry, _: leader(entry) not in (None, leading)
        case "prim":
            return ready_as(*LEADING)
        case "second":
            return ready_as("SECOND")
        case _:
            return ready_as(*LEADING, "SECOND", "UP")


identity_option = click.option(
    *("-i", "--identity"), metavar="NAME", default="", help="Called by a checker: it counts against max_restarts and resets nothing."
)


@click.command()
@module_argument
@click.option("--data-from", metavar="NODE", help="At the first start: this node has the data; the other one's files are moved to kept/.")
@session_options
def start(session: Session, module: str | None, data_from: str | None) -> None:
    """Start: as primary where the data is up to date and nobody else serves, else as secondary, else wait.

    At the first start, when no node is known to have the data, what both have is shown, and which one has them is asked.
    """
    status = session.client.status()
    name = chosen_module(status, module)
    if not first_start.start(session, name, entry_of(status, name), data_from):
        if session.dry_run:
            raise Failure("'hactl start' has a --dry-run at the first start only: nothing was done", exit_codes.USAGE)
        act(session, name, "start", {})


@click.command()
@module_argument
@identity_option
@session_options
def stop(session: Session, module: str | None, identity: str) -> None:
    """Stop here; a primary with a ready secondary hands over first. With -H all the service ends."""
    act(session, module, "stop", {"identity": identity})


@click.command()
@module_argument
@identity_option
@session_options
def restart(session: Session, module: str | None, identity: str) -> None:
    """Stop the services and start them again where they are; no failover."""
    act(session, module, "restart", {"identity": identity})


@click.command()
@module_argument
@identity_option
@session_options
def stopstart(session: Session, module: str | None, identity: str) -> None:
    """Stop here and start again; a ready secondary takes the role over meanwhile and keeps it."""
    act(session, module, "stopstart", {"identity": identity})


@click.command()
@module_argument
@session_options
def pause(session: Session, module: str | None) -> None:
    """Automatic failover off, on both nodes: the role moves by your word only, until 'resume'. Survives restarts."""
    flip(session, module, "pause")


@click.command()
@module_argument
@session_options
def resume(session: Session, module: str | None) -> None:
    """Automatic failover on again, on both nodes."""
    flip(session, module, "resume")


@click.command()
@click.argument("word", type=click.Choice(["on", "off", "auto", "config"]))
@module_argument
@session_options
def boot(session: Session, word: str, module: str | None) -> None:
    """What this node does with the module when it boots: on, off, auto (as it was), or config (what the configuration says)."""
    name = chosen_module(session.client.status(), module)
    tell(session, name, f"boot-{word}", {}, session.node)


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
        tell(session, name, f"checkers-{word}", {}, session.node)
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
            click.echo(line)
        if not found and session.format == "table":
            click.echo("nothing is watched: see [[checker]] in docs/interfaces.md")


def _since(since_s: float | None) -> str:
    return show_duration(since_s) if since_s is not None else "-"


def flip(session: Session, module: str | None, verb: str) -> None:
    """A switch that both nodes should agree on; -H says otherwise."""
    name = chosen_module(session.client.status(), module)
    tell(session, name, verb, {}, session.node or "all")


@click.command()
@module_argument
@click.option("--nosync", is_flag=True, help="Also to a copy that is not in sync: it serves what it has, what it lacks stays here.")
@identity_option
@session_options
def swap(session: Session, module: str | None, nosync: bool, identity: str) -> None:
    """Exchange primary and secondary; nothing is lost."""
    if nosync:
        session.confirm("The other node will serve the copy that it has; newer data stay here until you decide. Go on?")
    act(session, module, "swap", {"nosync": nosync, "identity": identity})


@click.command()
@module_argument
@click.option("--force", is_flag=True, help="Serve these data even if the other node may have newer ones.")
@click.option("--fullsync", is_flag=True, help="The other node's whole copy is compared with this one's, not only what is marked.")
@session_options
def prim(session: Session, module: str | None, force: bool, fullsync: bool) -> None:
    """Start as primary: this node has the data."""
    if not force:
        first_start.confirm_prim(session, chosen_module(session.client.status(), module))
    else:
        session.confirm("What the other node wrote and this one lacks will not be served. Go on?")
    act(session, module, "prim", {"force": force, "fullsync": fullsync})


@click.command()
@module_argument
@click.option("--fullsync", is_flag=True, help="Move what is here to the module's kept/ directory and copy everything from the other node.")
@session_options
def second(session: Session, module: str | None, fullsync: bool) -> None:
    """Start, and take the other node's data where this one has none; who leads, the records say."""
    if fullsync:
        session.confirm("The files of this node are moved aside and replaced by the other node's. Go on?")
    act(session, module, "second", {"fullsync": fullsync})


@click.command()
@module_argument
@click.option("--for", "word", required=True, metavar="STATE", help="STOP WAIT ALONE PRIM SECOND, ready, or redundant degraded down …")
@session_options
def wait(session: Session, module: str | None, word: str) -> None:
    """Return when the module is in a state on this node (-H: another, or all), exit code 7 when it does not get there."""
    where = "all its nodes" if session.node == "all" else session.node or "this node"
    wait_for(session, module, goal_for(word, session.node), f"{word} on {where}")


@click.command()
@module_argument
@click.option("-n", "--lines", type=click.IntRange(1, 5000), default=50, show_default=True, help="How many of the last lines.")
@click.option("--runs", "list_runs", is_flag=True, help="List the runs of scripts whose output is kept.")
@click.option("--run", metavar="RUN", help="Only the output of that run.")
@session_options
def logs(session: Session, module: str | None, lines: int, list_runs: bool, run: str | None) -> None:
    """What the services, the scripts and rfsmount of a module printed; -H all: on all its nodes, one after the other."""
    status = session.client.status()
    name = chosen_module(status, module)
    nodes = nodes_of(status, name) if session.node == "all" else [session.node]
    documents = [session.client.logs(name, lines, node, run) for node in nodes]
    if session.format == "json" and session.node == "all":
        print_json({"schema": "hactl.logs/1", "nodes": documents})
        return
    for document in documents:
        show_logs(session, name, document, list_runs, run)


def nodes_of(status: dict[str, Any], name: str) -> list[str]:
    """On which nodes a module runs."""
    return [row["node"] for entry in status["modules"] if entry["name"] == name for row in entry["nodes"]]


def show_logs(session: Session, name: str, document: dict[str, Any], list_runs: bool, run: str | None) -> None:
    """Of one node."""
    if session.format in ("json", "jsonl"):
        print_json(document, one_line=session.format == "jsonl")
        return
    if list_runs or run:
        for line in document["runs"] if list_runs else document["run_lines"]:
            click.echo(line)
        return
    newest = f"script {document['run']}" if document["run"] else "scripts"
    for title, key in (("services", "lines"), (newest, "run_lines"), ("rfsmount", "rfs_lines")):
        found = document.get(key) or []
        if session.format == "table":
            click.echo(f"== {name} on {document['node']}: {title}" + ("" if found else ": nothing"))
        for line in found:
            click.echo(line)


COMMANDS = (status, start, stop, restart, stopstart, swap, prim, second, pause, resume, checkers, boot, wait, logs)
