"""A TOML file as text and as data: which line a value stands on, so that a complaint can point at it.

tomllib forgets where things stood. The map below is made by a second, much simpler reading that only knows table
headers and keys at the start of a line; a value inside an inline table or an array is found at its key's line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.config_errors import Complaint, ConfigError

Location = tuple[str | int, ...]
LEVELS_MAX = 20  # no key needs more than five
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_SYNTAX = re.compile(r"(.*) \(at line (\d+), column \d+\)")


@dataclass(frozen=True, slots=True)
class ConfigText:
    """One file that parsed; `kept` tells the original places of list entries when others were taken out as wrong."""

    path: Path
    data: Mapping[str, Any]
    lines: Mapping[Location, int]
    kept: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def complain(self, location: Sequence[str | int], sentence: str) -> Complaint:
        """A complaint about the value at this location, or about what it is missing from."""
        if len(location) > 1 and isinstance(index := location[1], int) and (kept := self.kept.get(str(location[0]))) is not None:
            location = (location[0], kept[index], *location[2:])
        return Complaint(self.path, self.line_of(location), show_location(location), sentence)

    def line_of(self, location: Sequence[str | int]) -> int | None:
        """The line of the value, or of the nearest thing around it that has one."""
        for length in range(len(location), 0, -1):
            if (line := self.lines.get(tuple(location[:length]))) is not None:
                return line
        return None


def read_config_text(path: Path, absent: str) -> ConfigText:
    """Read and parse; `absent` says what to do when there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([Complaint(path, None, "", absent)]) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ConfigError([Complaint(path, None, "", f"cannot be read: {reason}.")]) from None
    return parse_config_text(path, text)


def parse_config_text(path: Path, text: str) -> ConfigText:
    """Text that is said to stand, or is going to stand, in that file."""
    try:
        data = tomllib.loads(text)
        too_deep = _is_deeper(data, LEVELS_MAX)
    except RecursionError:
        too_deep = True
    except ValueError as error:  # a TOMLDecodeError, or what Python says of a number with too many digits
        match = _SYNTAX.fullmatch(str(error))
        line, sentence = (int(match[2]), match[1]) if match else (None, str(error).partition("; use sys.")[0])
        raise ConfigError([Complaint(path, line, "", f"is not TOML: {sentence[:1].lower()}{sentence[1:]}.")]) from None
    if too_deep:
        raise ConfigError([Complaint(path, None, "", f"has values within values, more than {LEVELS_MAX} levels deep.")])
    return ConfigText(path, data, _map_lines(text))


def _is_deeper(data: object, levels: int) -> bool:
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)


def show_location(location: Sequence[str | int]) -> str:
    """`vip[2].address`: counted from one, as people count tables in a file."""
    shown = ""
    for part in location:
        shown += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if shown else part
    return shown


def _map_lines(text: str) -> dict[Location, int]:
    lines: dict[Location, int] = {}
    counts: dict[Location, int] = {}
    table: Location = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _split(header[2])
            if header[1] == "[[":
                index = counts.get(table, 0)
                counts[table] = index + 1
                lines.setdefault(table, number)
                table = (*table, index)
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault((*table, *_split(key[1])), number)
    return lines


def _split(dotted: str) -> Location:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
