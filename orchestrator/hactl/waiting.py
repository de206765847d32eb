"""Waiting until a module is where it should be, by reading the status: hactld's answer to a command says only that it
was accepted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from orchestrator.api.client import ApiFailure
from orchestrator.exit_codes import CHECK
from orchestrator.hactl.session import WAIT_TIMEOUT_S, Failure, Session, chosen_module
from rfs import exit_codes

Goal = Callable[[Mapping[str, Any], str], bool]  # of a module's entry and the name of the node that answered
POLL_INTERVAL_S = 0.1
STATES = ("STOP", "WAIT", "ALONE", "PRIM", "SECOND", "UP")
LEADING = ("ALONE", "PRIM")
NOTHING_YET = "hactld has not answered yet"


def wait_for(session: Session, module: str | None, goal: Goal, what: str) -> None:
    """Poll until the module's entry satisfies the goal; a daemon that is just starting is waited for as well."""
    timeout_s = session.timeout_s if session.timeout_s is not None else WAIT_TIMEOUT_S
    deadline_s = time.monotonic() + timeout_s
    found = NOTHING_YET
    while True:
        try:
            document = session.client.status(session.node)
            name = chosen_module(document, module)
            entry = entry_of(document, name)
            if goal(entry, document["node"]):
                return
            found = describe(entry)
        except ApiFailure as failure:
            if failure.code not in (exit_codes.DAEMON_NOT_REACHABLE, exit_codes.PEER_NOT_REACHABLE):
                raise
            found = str(failure)
        if time.monotonic() >= deadline_s:
            raise Failure(f"not {what} within {timeout_s:g} s: {found}", exit_codes.TIMEOUT)
        time.sleep(POLL_INTERVAL_S)


def entry_of(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A module's part of a status."""
    return next(entry for entry in document["modules"] if entry["name"] == name)


def nodes_of(status: Mapping[str, Any], name: str) -> list[str]:
    """On which nodes a module runs."""
    return [str(line["node"]) for line in entry_of(status, name)["nodes"]]


def describe(entry: Mapping[str, Any]) -> str:
    """A module in one line."""
    lines = []
    for node in entry["nodes"]:
        reason = f" ({node['reason']})" if node.get("reason") else ""
        lines.append(f"{node['node']} is {node['state']} {node['readiness']}{reason}")
    return ", ".join(lines)


def chosen_nodes(entry: Mapping[str, Any], answering: str, wanted: str | None) -> list[Mapping[str, Any]]:
    """The lines that -H is about: this node's, the named one's, or all."""
    return [node for node in entry["nodes"] if wanted == "all" or node["node"] == (wanted or answering)]


def goal_for(word: str, node: str | None) -> Goal:
    """What `--for WORD` means: a state (PRIM, ALONE and SECOND only when Ready), `ready`, or a verdict."""
    word = word.removeprefix("role=")
    if word.lower() in CHECK:
        return lambda entry, _: bool(entry.get("verdict") == word.lower())
    wanted = word.upper()
    if wanted not in (*STATES, "READY"):
        raise click.BadParameter(f'"{word}" is none of: {", ".join((*STATES, "ready", *CHECK))}', param_hint="--for")

    return goal_of_lines(node, lambda line: _is(line, wanted))


def goal_of_lines(node: str | None, true_of: Callable[[Mapping[str, Any]], bool]) -> Goal:
    """Reached when it is true of every line that -H is about."""

    def reached(entry: Mapping[str, Any], answering: str) -> bool:
        lines = chosen_nodes(entry, answering, node)
        return bool(lines) and all(true_of(line) for line in lines)

    return reached


def _is(node: Mapping[str, Any], wanted: str) -> bool:
    if wanted == "READY":
        return bool(node["readiness"] == "Ready")
    return bool(node["state"] == wanted and (wanted in ("STOP", "WAIT") or node["readiness"] == "Ready"))


def leader(entry: Mapping[str, Any]) -> str | None:
    """The node that serves, when one does and is ready."""
    found = (node["node"] for node in entry["nodes"] if node["state"] in LEADING and node["readiness"] == "Ready")
    return next(found, None)
