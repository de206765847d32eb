"""The commands that move a module, `wait` and `logs`.

What interrupts a service or gives data up shows first how things stand, and asks; in a script, where nobody can be asked, the command
itself is the word. `--dry-run` has the daemon's own rules decide, in a world that is imagined, and changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from orchestrator.hactl import first_start
from orchestrator.hactl.asking import answers
from orchestrator.hactl.output import print_json, say
from orchestrator.hactl.session import Session, chosen_module, module_argument, one_node, session_options
from orchestrator.hactl.waiting import LEADING, Goal, chosen_nodes, entry_of, goal_for, goal_of_lines, leader, nodes_of, wait_for

Ask = Callable[[Session, Mapping[str, Any], str, str], None]  # session, the module's entry, its name, the node that answers


def tell(session: Session, name: str, verb: str, options: Mapping[str, bool | str], node: str | None) -> None:
    """Send a command and say what became of it."""
    answer = session.client.command(name, verb, {option: value for option, value in options.items() if value}, node)
    if session.format in ("json", "jsonl"):
        print_json(answer, one_line=True)
    else:
        for said in answer.get("results") or [answer]:
            say(said.get("message") or f"{verb} {name}: accepted", err=True)


def act(
    session: Session, module: str | None, verb: str, options: Mapping[str, bool | str], goal: Goal | None = None, ask: Ask | None = None
) -> None:
    """The same, and with --wait stay until the goal is reached. `ask`: what a person at a terminal is asked before."""
    document = session.client.status()
    name = chosen_module(document, module)
    entry = entry_of(document, name)
    if session.dry_run:
        imagine(session, document, entry, verb, [option for option, value in options.items() if value is True])
        return
    if ask is not None and session.asks:
        show_module(session, document, entry)
        ask(session, entry, name, str(document["node"]))
    tell(session, name, verb, options, session.node)
    if session.wait:
        wait_for(session, name, goal or default_goal(verb, session.node, leader(entry)), f"done with {verb} {name}")
        if session.format == "table" and sys.stdout.isatty():
            after = session.client.status()
            show_module(session, after, entry_of(after, name))
    elif session.format == "table" and sys.stdout.isatty():
        say("accepted, not finished: 'hactl status -w' shows how it goes on; --wait waits for it", err=True)


def show_module(session: Session, document: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    """How a module stands, before and after."""
    from orchestrator.hactl.status_view import render

    say(render({**document, "modules": [entry], "verdict": entry["verdict"]}, colour=session.colour), styled=session.colour)


def imagine(session: Session, document: Mapping[str, Any], entry: Mapping[str, Any], verb: str, options: list[str]) -> None:
    """What a command would come to, on each node that it would go to."""
    from orchestrator.hactl.history_commands import show_simulated

    nodes = [line["node"] for line in chosen_nodes(entry, document["node"], session.node)]
    if verb == "swap" and session.node is None:
        nodes = [leader(entry) or document["node"]]
    with answers(nodes, lambda node: session.client.simulate(entry["name"], verb, node, options)) as documents:
        show_simulated(session, documents)


# ---- what is asked -----------------------------------------------------------------------------------------------------------------------


def ask_swap(session: Session, entry: Mapping[str, Any], name: str, here: str) -> None:
    """Nothing is lost, and the service is interrupted."""
    source = leader(entry) or "the primary"
    target = next((line["node"] for line in entry["nodes"] if line["node"] != source), "the other node")
    session.confirm(f"{name} moves from {source} to {target}; its services stop there and start here. Go on?")


def ask_swap_nosync(session: Session, entry: Mapping[str, Any], name: str, here: str) -> None:
    """Data stay behind."""
    session.confirm_by_name("The other node will serve the copy that it has; newer data stay here until you decide (DIVERGED).", name)


def ask_stop(session: Session, entry: Mapping[str, Any], name: str, here: str) -> None:
    """Does somebody serve afterwards?"""
    lead, hit = leader(entry), [str(line["node"]) for line in chosen_nodes(entry, here, session.node)]
    stay = [line for line in entry["nodes"] if line["node"] not in hit]
    successor = next((line["node"] for line in stay if line["state"] == "SECOND" and line["readiness"] == "Ready"), None)
    if lead in hit and successor is None:
        session.confirm_by_name(f"Nobody serves {name} afterwards: there is no other node that could take it over.", name)
        return
    goes_on = f"{lead} goes on serving, and no other node could take over" if lead is not None else "nothing serves there"
    then = f"{successor} takes over" if lead in hit else goes_on
    session.confirm(f"{name} is stopped on {' and '.join(hit) or session.node}; {then}. Go on?")


def ask_force(session: Session, entry: Mapping[str, Any], name: str, here: str) -> None:
    """Data may be lost."""
    session.confirm_by_name("What the other node wrote and this one lacks will not be served.", name)


def ask_fullsync_here(session: Session, entry: Mapping[str, Any], name: str, here: str) -> None:
    """Data are put aside."""
    session.confirm_by_name("The files of this node are moved to kept/ and replaced by the other node's.", name)


# ---- when it is done ---------------------------------------------------------------------------------------------------------------------


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
        act(session, name, "start", {})


@click.command()
@module_argument
@identity_option
@session_options
def stop(session: Session, module: str | None, identity: str) -> None:
    """Stop here; a primary with a ready secondary hands over first. With -H all the service ends."""
    act(session, module, "stop", {"identity": identity}, ask=None if identity else ask_stop)


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
    switch(session, module, f"boot-{word}", session.node)


def flip(session: Session, module: str | None, verb: str) -> None:
    """A switch that both nodes should agree on; -H says otherwise."""
    switch(session, module, verb, session.node or "all")


def switch(session: Session, module: str | None, verb: str, node: str | None) -> None:
    """Something that is remembered; nothing moves by it alone."""
    document = session.client.status()
    name = chosen_module(document, module)
    if session.dry_run:
        session.node = node
        imagine(session, document, entry_of(document, name), verb, [])
        return
    tell(session, name, verb, {}, node)


@click.command()
@module_argument
@click.option("--nosync", is_flag=True, help="Also to a copy that is not in sync: it serves what it has, what it lacks stays here.")
@identity_option
@session_options
def swap(session: Session, module: str | None, nosync: bool, identity: str) -> None:
    """Exchange primary and secondary; nothing is lost.

    \b
    hactl swap pg --wait         and return when the other node serves
    hactl swap pg --dry-run      what would be done, step by step
    """
    one_node(session)
    ask = None if identity else ask_swap_nosync if nosync else ask_swap
    act(session, module, "swap", {"nosync": nosync, "identity": identity}, ask=ask)


@click.command()
@module_argument
@click.option("--force", is_flag=True, help="Serve these data even if the other node may have newer ones.")
@click.option("--fullsync", is_flag=True, help="The other node's whole copy is compared with this one's, not only what is marked.")
@session_options
def prim(session: Session, module: str | None, force: bool, fullsync: bool) -> None:
    """Start as primary: this node has the data."""
    one_node(session)
    if not force and not session.dry_run:
        first_start.confirm_prim(session, chosen_module(session.client.status(), module))
    act(session, module, "prim", {"force": force, "fullsync": fullsync}, ask=ask_force if force else None)


@click.command()
@module_argument
@click.option("--fullsync", is_flag=True, help="Move what is here to the module's kept/ directory and copy everything from the other node.")
@session_options
def second(session: Session, module: str | None, fullsync: bool) -> None:
    """Start, and take the other node's data where this one has none; who leads, the records say."""
    if fullsync:
        one_node(session)
    act(session, module, "second", {"fullsync": fullsync}, ask=ask_fullsync_here if fullsync else None)


@click.command()
@module_argument
@click.option("--for", "word", default="ready", show_default=True, metavar="STATE",
              help="STOP WAIT ALONE PRIM SECOND UP (or role=prim), ready, or redundant degraded down diverged resyncing.")  # fmt: skip
@session_options
def wait(session: Session, module: str | None, word: str) -> None:
    """Return when the module is in a state on this node (-H: another, or all), exit code 7 when it does not get there.

    \b
    hactl wait pg --for redundant --timeout 5m
    hactl wait pg --for SECOND -H node2
    """
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
    with answers(nodes, lambda node: session.client.logs(name, lines, node, run)) as documents:
        if session.format == "json" and session.node == "all":
            print_json({"schema": "hactl.logs/1", "nodes": documents})
            return
        for document in documents:
            show_logs(session, name, document, list_runs, run)


def show_logs(session: Session, name: str, document: dict[str, Any], list_runs: bool, run: str | None) -> None:
    """Of one node."""
    if session.format in ("json", "jsonl"):
        print_json(document, one_line=session.format == "jsonl")
        return
    if list_runs or run:
        for line in document["runs"] if list_runs else document["run_lines"]:
            say(line)
        return
    newest = f"script {document['run']}" if document["run"] else "scripts"
    for title, key in (("services", "lines"), (newest, "run_lines"), ("rfsmount", "rfs_lines")):
        found = document.get(key) or []
        if session.format == "table":
            say(f"== {name} on {document['node']}: {title}" + ("" if found else ": nothing"))
        for line in found:
            say(line)
