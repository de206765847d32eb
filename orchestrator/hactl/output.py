"""Printing: columns for people, JSON for programs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import click

from orchestrator.hactl.session import Session
from rfs.show import printable, say_json

STYLE = re.compile(r"(\x1b\[[0-9;]*m)")


def say(text: str = "", *, err: bool = False, nl: bool = True, styled: bool = False) -> None:
    """The one way to print for hactl's commands (rfs/show.py says why). `styled`: our own colours are in it; values from elsewhere were
    made printable before."""
    pieces = STYLE.split(text) if styled else [text]
    click.echo("".join(piece if number % 2 else printable(piece, "\n\t") for number, piece in enumerate(pieces)), err=err, nl=nl)


def print_json(document: Any, *, one_line: bool = False) -> None:
    """A document; on one line where documents follow each other."""
    say_json(document, indent=None if one_line else 2)


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
            say("\t".join(row))
    else:
        for line in columns([word.upper() for word in header], rows):
            say(line)


def print_nodes(session: Session, documents: Sequence[Any]) -> bool:
    """Documents of one kind, one of each node that was asked; False: they are for a person to read."""
    if session.format == "jsonl":
        for document in documents:
            print_json(document, one_line=True)
    elif session.format == "json":
        print_json({"schema": "hactl.nodes/1", "nodes": list(documents)} if session.node == "all" else documents[0])
    return session.format in ("json", "jsonl")
