"""`hactl witness`: is the third party there, and whom did it let go on alone?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from orchestrator.hactl.asking import answers
from orchestrator.hactl.output import print_rows
from orchestrator.hactl.session import Failure, Session, session_options
from rfs import exit_codes

HEADER = ("module", "witness", "grant", "term", "for", "reason")


@click.group()
def witness() -> None:
    """The arbiter that decides who may go on without the other node."""


@witness.command()
@session_options
def status(session: Session) -> None:
    """What each module's rfsmount knows of the witness."""
    here = session.client.status()
    nodes = [here["node"], *(peer["node"] for peer in here["peers"])] if session.node == "all" else [session.node]
    with answers(nodes, session.client.status) as documents:
        found = [entry for document in documents for module in document["modules"] for entry in _entries(document, module)]
        _show(session, found)


def _show(session: Session, found: list[dict[str, Any]]) -> None:
    if not found:
        raise Failure(
            "no module here runs with a witness: name one with [witness] etcd in cluster.toml, on every node, and restart the modules",
            exit_codes.FAILED,
        )
    if session.node == "all":
        print_rows(session.format, ("node", *HEADER), [(entry["node"], *_row(entry)) for entry in found], found)
    else:
        print_rows(session.format, HEADER, [_row(entry) for entry in found], found)


def _entries(document: Mapping[str, Any], module: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of the node that answers: it knows its own rfsmount."""
    nodes = [entry for entry in module["nodes"] if entry["node"] == document["node"] and entry.get("rfs", {}).get("witness")]
    return [
        {"module": module["name"], "node": entry["node"], "generation": entry["generation"]} | entry["rfs"]["witness"] for entry in nodes
    ]


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    held = entry.get("register")
    if held is None:
        return entry["module"], entry["state"], "-", "-", "-", entry["reason"] or "-"
    whom = "this node's generation" if held["generation"] == entry["generation"] else "another generation"
    return entry["module"], entry["state"], held["generation"], str(held["term"]), whom, entry["reason"] or "-"
