"""`events`, `history`, `why` and `simulate`: what happened, who asked for it, what decisions rest on, and what would be decided."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from orchestrator.api.client import ApiFailure
from orchestrator.hactl.asking import answers
from orchestrator.hactl.output import print_json, print_nodes, say
from orchestrator.hactl.session import Session, chosen_module, duration_option, module_argument, session_options
from orchestrator.hactl.waiting import nodes_of
from rfs import exit_codes

AGAIN_S = 1.0
FILTERS = ("module", "kind", "node", "who", "role")
# what_if.QUESTIONS
IMAGINABLE = ("peer-dies", "link-lost", "isolated", "service-dies", "rfs-dies", "resource-down", "stop", "swap", "stopstart")
MARK = {True: "yes", False: "NO "}


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on printing what happens, until Ctrl-C.")
@click.option("--after", type=click.IntRange(0), default=None, help="Only events with a higher number (of one node).")
@click.option("--since", metavar="DURATION", callback=duration_option, help="Only of the last 1h, 30m, 2d …")
@click.option(
    "--filter", "filters", multiple=True, metavar="KEY=VALUE[,KEY=VALUE]", help="module, kind, node, who or role; may be repeated."
)
@session_options
def events(session: Session, follow: bool, after: int | None, since: float | None, filters: tuple[str, ...]) -> None:
    """What happened on this node, oldest first; -H all: on this node and its peers, in the order of their clocks.

    \b
    hactl events --since 1h
    hactl events -f -H all -o jsonl
    hactl events -f --filter module=pg,kind=transition
    """
    fits = wanted(filters, since)
    nodes = all_nodes(session) if session.node == "all" else [session.node]
    with answers(nodes, lambda node: session.client.events(after or 0, node)) as documents:
        found = sorted((event for document in documents for event in document["events"] if fits(event)), key=lambda event: event["wall_s"])
        if session.format == "json" and not follow:
            print_json({**documents[0], "events": found} if len(nodes) == 1 else {"schema": "hactl.history/1", "events": found})
            return
        for event in found:
            show_event(session, event, with_node=len(nodes) > 1)
        if follow:
            places = [f"{document['node']}:{document['last']}" for document in documents]
            follow_events(session, ",".join(places), fits)


def follow_events(session: Session, place: str, fits: Callable[[Mapping[str, Any]], bool]) -> None:
    """From a place on, over restarts of hactld."""
    lost = False
    while True:
        try:
            for event in session.client.stream(place, session.node):
                if event.identity:
                    place = event.identity
                if event.kind:
                    say(f"hactl: {event.document.get('text', event.kind)}", err=True)
                elif fits(event.document):
                    show_event(session, event.document, with_node=session.node == "all")
                lost = False
        except ApiFailure as failure:
            if failure.code != exit_codes.DAEMON_NOT_REACHABLE:
                raise
            if not lost:
                say(f"hactl: {failure}; waiting for it", err=True)
            lost = True
            time.sleep(AGAIN_S)


def wanted(filters: Iterable[str], since_s: float | None) -> Callable[[Mapping[str, Any]], bool]:
    """`module=pg,kind=a,kind=b`: of one key any value, of several keys each."""
    values: dict[str, set[str]] = {}
    for part in (part for text in filters for part in text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in FILTERS:
            raise click.BadParameter(f'"{part}" is not KEY=VALUE with a key of: {", ".join(FILTERS)}', param_hint="--filter")
        values.setdefault(key, set()).add(value)
    oldest_s = time.time() - since_s if since_s is not None else 0.0
    return lambda event: event["wall_s"] >= oldest_s and all(str(event.get(key, "")) in each for key, each in values.items())


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
    with answers(nodes, lambda node: session.client.events(0, node)) as documents:
        found = [event for document in documents for event in document["events"]]
        fitting = [event for event in found if module in (None, event["module"]) and (not kinds or event["kind"] in kinds)]
        shown = sorted(fitting, key=lambda event: event["wall_s"])[-lines:]
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
    say(f"{moment}{node}  {event.get('module') or '-'}  {event['text']}{by}")


def show_inputs(inputs: object) -> None:
    """A decision's evidence, a line for each side."""
    if isinstance(inputs, Mapping):
        for side, facts in inputs.items():
            if isinstance(facts, Mapping):
                say(f"      {side}: " + " ".join(f"{name}={value}" for name, value in facts.items() if value not in ("", None)))


@click.command()
@module_argument
@session_options
def why(session: Session, module: str | None) -> None:
    """Why a module is what it is here (-H: there): what would be decided now, what stands against it, and the last decisions."""
    status = session.client.status()
    name = chosen_module(status, module)
    nodes = nodes_of(status, name) if session.node == "all" else [session.node]
    with answers(nodes, lambda node: session.client.why(name, node)) as documents:
        if not print_nodes(session, documents):
            for document in documents:
                show_why(session, name, document)


def show_why(session: Session, name: str, document: Mapping[str, Any]) -> None:
    """Of one node."""
    reason = f": {document['reason']}" if document["reason"] else ""
    say(f"{name} is {document['state']} {document['readiness']} on {document['node']}{reason}")
    for told in document["questions"]:
        say(f"\n{told['question']}  {'Yes.' if told['answer'] else 'No.'}")
        for condition in told["conditions"]:
            say(f"  {MARK[condition['holds']]}  {condition['text']}")
    for rule in document.get("rules", ()):
        show_rule(rule)
    say("\nLast decisions:" if document["decisions"] else "\nNo decision was taken here yet.")
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
    say(f"\nRule {rule['name']}{' (default)' if rule['default'] else ''}: {what}{hold}. It {now}.")
    for key in ("all", "any"):
        for term in rule[key]:
            say(f"  {MARK[term['holds']]}  {key}: {term['term']}")


@click.command()
@click.argument("what", type=click.Choice(IMAGINABLE))
@module_argument
@click.option("--resource", metavar="TYPE.NAME", help="Which one goes down, with resource-down; 'hactl checkers' lists them.")
@session_options
def simulate(session: Session, what: str, module: str | None, resource: str | None) -> None:
    """What would happen here (-H: there) if …: the daemon's own rules on its state of now. Nothing is touched.

    \b
    hactl simulate peer-dies pg          would this node take over?
    hactl simulate isolated pg -H all    and if both lost everything around them?
    """
    if (what == "resource-down") is not bool(resource):
        raise click.UsageError("resource-down needs --resource TYPE.NAME, and nothing else takes it")
    status = session.client.status()
    name = chosen_module(status, module)
    nodes = nodes_of(status, name) if session.node == "all" else [session.node]
    with answers(nodes, lambda node: session.client.simulate(name, what, node, resource=resource)) as documents:
        show_simulated(session, documents)


def show_simulated(session: Session, documents: Sequence[Mapping[str, Any]]) -> None:
    """What was imagined, of each node."""
    if print_nodes(session, documents):
        return
    for document in documents:
        resource = f" {document['resource']}" if document.get("resource") else ""
        say(f"{document['module']} on {document['node']}, if {document['what']}{resource}:")
        for moment in document["moments"]:
            say(f"  {moment['after_s']:6.2f} s  {moment['kind']:6}  {moment['text']}")
        reason = f": {document['reason']}" if document["reason"] else ""
        say(f"in the end {document['state']} {document['readiness']}{reason}")
