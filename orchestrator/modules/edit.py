"""Changes single values in a TOML text and leaves everything else, comments too, as a person wrote it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

from orchestrator.config_text import Location, show_location
from orchestrator.modules.render import value_text
from orchestrator.modules.template import Value


class CannotEdit(Exception):
    """The value stands where only a person finds it (inside an inline table, say)."""


def edited(text: str, lines: Mapping[Location, int], changes: Mapping[Location, Value]) -> str:
    """`lines`: where each value stands, as config_text finds it. A key at the top that is missing is put before all others."""
    rows = text.splitlines()
    top = min(lines.values(), default=len(rows) + 1) - 1
    missing = [location for location in changes if location not in lines]
    if inner := [location for location in missing if len(location) > 1]:
        raise CannotEdit(show_location(inner[0]))
    for location in sorted(set(changes) - set(missing), key=lambda location: -lines[location]):
        first = lines[location] - 1
        count = extent(rows[first:])
        comment = comment_of(rows[first]) if count == 1 else ""
        rows[first : first + count] = [f"{key_of(location)} = {value_text(changes[location])}{comment}"]
    rows[top:top] = [f"{key_of(location)} = {value_text(changes[location])}" for location in missing]
    return "\n".join(rows) + "\n"


def key_of(location: Location) -> str:
    """The key alone."""
    return str(location[-1])


def extent(rows: list[str]) -> int:
    """How many rows the value that begins in the first one takes."""
    for count in range(1, len(rows) + 1):
        if parses("\n".join(rows[:count])):
            return count
    raise CannotEdit(rows[0].strip())


def comment_of(row: str) -> str:
    """What follows the value in its row, with the blanks before it."""
    for position in (index for index, character in enumerate(row) if character == "#"):
        if parses(row[:position]):
            return row[len(row[:position].rstrip()) :]
    return ""


def parses(text: str) -> bool:
    """Is it TOML as it stands?"""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True
