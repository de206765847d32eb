"""A draft as the TOML text that people read and edit: every line that is not obvious says why it is there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from orchestrator.modules.template import Draft, Line, Value, Wishes

COMMENT_COLUMN = 36  # or two blanks behind what is longer
WIDTH = 120


def value_text(value: Value) -> str:
    """A TOML value on one line. TOML's basic strings are JSON's, but for DEL."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(key, ensure_ascii=False)} = {value_text(each)}" for key, each in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, tuple):
        return f"[{', '.join(value_text(each) for each in value)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def line_text(line: Line) -> list[str]:
    """`key = value  # comment`; a list that is too long for that, one entry a line."""
    written = f"{line.key} = {value_text(line.value)}"
    comment = f"# {line.comment}" if line.comment else ""
    if len(written) > WIDTH and isinstance(line.value, tuple):
        entries = [f"    {value_text(each)}," for each in line.value]
        return [*([comment] if comment else []), f"{line.key} = [", *entries, "]"]
    if not comment:
        return [written]
    return [f"{written.ljust(COMMENT_COLUMN - 2)}  {comment}"] if len(written) < WIDTH - 30 else [comment, written]


def table_text(header: str, lines: Iterable[Line]) -> list[str]:
    """An empty line, the header, the keys."""
    return ["", f"[[{header}]]", *(text for line in lines for text in line_text(line))]


def render(draft: Draft, wishes: Wishes, template: str, head: Iterable[Line]) -> str:
    """The whole file; `head`: the keys at the top that the cluster decides (nodes, network, port)."""
    rows = [
        f"# {draft.title}. Made by 'hactl module add {template}'; yours to edit.",
        "# Every key: docs/interfaces.md. 'hactl config check' says what is wrong, 'hactl config apply' brings it to both nodes.",
        "",
        *(text for line in (Line("mode", draft.mode), *head) for text in line_text(line)),
    ]
    for directory in draft.directories:
        lines = [Line("directory", directory.path, directory.comment)]
        if directory.require:
            lines.append(Line("require", directory.require, "an unmounted disk is not an empty one"))
        if directory.exclude:
            lines.append(Line("exclude", directory.exclude, "stays local: of no use to the other node"))
        rows += table_text("replicated", lines)
    for vip in wishes.vips:
        rows += table_text("vip", [Line("address", vip)])
    for service in draft.services:
        rows += table_text("service", service.lines)
    for checker in draft.checkers:
        rows += table_text("checker", checker)
    return "\n".join(rows) + "\n"
