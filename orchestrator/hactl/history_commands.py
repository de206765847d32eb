"""`events`, `history`, `why` and `simulate`: what happened, who asked for it, what decisions rest on, and what would be decided."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from orchestrator.hactl.output import print_json
from orchestrator.hactl.session import Session, chosen_module, session_options

module_argument = click.argument("module", required=False)
# what_if.QUESTIONS
IMAGINABLE = ("peer-dies", "link-lost", "isolated", "service-dies", "rfs-dies", "resource-down", "stop", "swap", "stopstart")
MARK = {True: "yes", False: "NO "}


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on printing what happens.")
@click.option("--after", type=int, default=0, help="Only events with a higher number.")
@session_options
def events(session: Session, follow: bool, after: int) -> None:
    """What happened on this node, oldest first."""
    while True:
        document = session.client.events(after, session.node)
        found = document["events"]
        if session.format == "json" and not follow:
            print_json(document)
        for event in found if session.format != "json" or follow else ():
            show_event(session, event)
        if not follow:
            return
        after = max([after, *(event["number"] for event in found)])
        time.sleep(0.5)


@click.command()
@module_argument
@click.option("-n", "--lines", type=click.IntRange(1, 5000), default=50, show_default=True, help="How many of the last lines.")
@click.option("--kind", "kinds", multiple=True, help="Only these: command transition takeover grant fence failback switch …")
@click.option("-v", "--verbose", is_flag=True, help="With what each decision rested on.")
@session_options
def history(session: Session, module: str | None, lines: int, kinds: tuple[str, ...], verbose: bool) -> None:
    """What happened to a module, or to all, who asked for it, and why; -H all: on all its nodes, in the order of their clocks."""
    if module is not None:
        chosen_module(session.client.status(), module)
    nodes = all_nodes(session) if session.node == "all" else [session.node]
    found = [event for node in nodes for event in session.client.events(0, node)["events"]]
    wanted = [event for event in found if module in (None, event["module"]) and (not kinds or event["kind"] in kinds)]
    shown = sorted(wanted, key=lambda event: event["wall_s"])[-lines:]
    if session.format == "json":
        print_json({"schema": "hactl.history/1", "events": shown})
        return
    for event in shown:
        show_event(session, event, with_node=len(nodes) > 1)
        if verbose and session.format != "jsonl":
            show_inputs(event.get("inputs"))


def all_nodes(session: Session) -> list[str | None]:
    """This node and its peers."""
    document = session.client.status()
    return [document["node"], *(peer["node"] for peer in document["peers"])]


def show_event(session: Session, event: Mapping[str, Any], *, with_node: bool = False) -> None:
    """One line."""
    if session.format in ("json", "jsonl"):
        print_json(event, one_line=True)
        return
    wall_s = event.get("wall_s")
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall_s)) if isinstance(wall_s, int | float) else str(event.get("time", ""))
    node = f"  {event.get('node', '')}" if with_node else ""
    by = f"  (by {event['who']})" if event.get("who") else ""
    click.echo(f"{moment}{node}  {event.get('module') or '-'}  {event['text']}{by}")


def show_inputs(inputs: object) -> None:
    """A decision's evidence, a line for each side."""
    if isinstance(inputs, Mapping):
        for side, facts in inputs.items():
            if isinstance(facts, Mapping):
                click.echo(f"      {side}: " + " ".join(f"{name}={value}" for name, value in facts.items() if value not in ("", None)))


@click.command()
@module_argument
@session_options
def why(session: Session, module: str | None) -> None:
    """Why a module is what it is here (-H: there): what would be decided now, what stands against it, and the last decisions."""
    name = chosen_module(session.client.status(), module)
    document = session.client.why(name, None if session.node == "all" else session.node)
    if session.format in ("json", "jsonl"):
        print_json(document, one_line=session.format == "jsonl")
        return
    reason = f": {document['reason']}" if document["reason"] else ""
    click.echo(f"{name} is {document['state']} {document['readiness']} on {document['node']}{reason}")
    for told in document["questions"]:
        click.echo(f"\n{told['question']}  {'Yes.' if told['answer'] else 'No.'}")
        for condition in told["conditions"]:
            click.echo(f"  {MARK[condition['holds']]}  {condition['text']}")
    for rule in document.get("rules", ()):
        show_rule(rule)
    click.echo("\nLast decisions:" if document["decisions"] else "\nNo decision was taken here yet.")
    for event in document["decisions"]:
        show_event(session, event)
        show_inputs(event.get("inputs"))


def show_rule(rule: Mapping[str, Any]) -> None:
    """A failover rule: what follows from what, and how each of its terms is now."""
    if rule["acted"]:
        now = f"holds for {rule['held_s']:.0f} s, was followed"
    elif rule["holds"]:
        now = f"holds for {rule['held_s']:.0f} s" + (f", not followed: {rule['why_not']}" if rule["why_not"] else "")
    else:
        now = "does not hold"
    what = rule["action"] + (f" of {' and '.join(rule['services'])}" if rule["services"] else "")
    hold = f", after {rule['hold_s']:g} s" if rule["hold_s"] else ""
    click.echo(f"\nRule {rule['name']}{' (default)' if rule['default'] else ''}: {what}{hold}. It {now}.")
    for key in ("all", "any"):
        for term in rule[key]:
            click.echo(f"  {MARK[term['holds']]}  {key}: {term['term']}")


@click.command()
@click.argument("what", type=click.Choice(IMAGINABLE))
@module_argument
@click.option("--resource", metavar="TYPE.NAME", help="Which one goes down, with resource-down; 'hactl checkers' lists them.")
@session_options
def simulate(session: Session, what: str, module: str | None, resource: str | None) -> None:
    """What would happen here (-H: there) if …: the daemon's own rules on its state of now. Nothing is touched."""
    if (what == "resource-down") is not bool(resource):
        raise click.UsageError("resource-down needs --resource TYPE.NAME, and nothing else takes it")
    name = chosen_module(session.client.status(), module)
    document = session.client.simulate(name, what, None if session.node == "all" else session.node, resource)
    if session.format in ("json", "jsonl"):
        print_json(document, one_line=session.format == "jsonl")
        return
    click.echo(f"{name} on {document['node']}, if {what}{f' {resource}' if resource else ''}:")
    for moment in document["moments"]:
        click.echo(f"  {moment['after_s']:6.2f} s  {moment['kind']:6}  {moment['text']}")
    reason = f": {document['reason']}" if document["reason"] else ""
    click.echo(f"in the end {document['state']} {document['readiness']}{reason}")
