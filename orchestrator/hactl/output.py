"""Printing: columns for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from orchestrator.hactl.session import Session


def print_json(document: Any, *, one_line: bool = False) -> None:
    """A document; on one line where documents follow each other."""
    click.echo(json.dumps(document) if one_line else json.dumps(document, indent=2))


def print_answer(session: Session, message: str, results: Sequence[Any] = ()) -> bool:
    """For programs what became of a command that hactld has not answered as a whole; False: it is for a person to read."""
    if session.format in ("json", "jsonl"):
        print_json({"schema": "hactl.answer/1", "code": 0, "message": message, "results": list(results)}, one_line=True)
    return session.format in ("json", "jsonl")


def columns(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Left-aligned columns, two spaces apart, no trailing blanks."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def print_rows(format_: str, header: Sequence[str], rows: Sequence[Sequence[str]], documents: Sequence[Any]) -> None:
    """A listing in the format that was asked for; `documents` are the same rows for programs."""
    if format_ == "json":
        print_json(list(documents))
    elif format_ == "jsonl":
        for document in documents:
            print_json(document, one_line=True)
    elif format_ == "plain":
        for row in rows:
            click.echo("\t".join(row))
    else:
        for line in columns([word.upper() for word in header], rows):
            click.echo(line)


def print_nodes(session: Session, documents: Sequence[Any]) -> bool:
    """Documents of one kind, one of each node that was asked; False: they are for a person to read."""
    if session.format == "jsonl":
        for document in documents:
            print_json(document, one_line=True)
    elif session.format == "json":
        print_json({"schema": "hactl.nodes/1", "nodes": list(documents)} if session.node == "all" else documents[0])
    return session.format in ("json", "jsonl")
