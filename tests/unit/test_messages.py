"""The catalogue of words: its page is current, and nothing is shown that is not in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import messages
from orchestrator.api.roles import WORDS
from orchestrator.core.states import Readiness, State
from orchestrator.exit_codes import CHECK, INTERRUPTED
from orchestrator.hactl.status_view import DATA_WORDS
from orchestrator.messages import KINDS, MESSAGES, about
from rfs import exit_codes, status
from rfs.decide import Outcome
from rfs.grants import WitnessState
from rfs.record import DataState

ROOT = Path(__file__).resolve().parents[2]
NAMES = {kind: {message.name for message in MESSAGES if message.kind == kind} for kind in KINDS}
CODE = re.compile(r"[A-Z][A-Z_]+")


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "messages.md").read_text() == messages.page(), "python -m orchestrator.messages > docs/messages.md"


def test_every_word_is_there_once_and_says_something() -> None:
    assert len({(message.name, message.kind) for message in MESSAGES}) == len(MESSAGES)
    for message in MESSAGES:
        assert message.kind in KINDS and len(message.text) > 10 and message.text.endswith(".")
        assert about(message.name), message.name
    assert [message.name for message in about("no-source")] == ["NO_SOURCE"]
    assert about("up-to-date") == about("up to date") != []


def test_the_words_of_the_tables() -> None:
    assert NAMES["state"] == {state.value for state in State} | {"UNKNOWN"}
    assert NAMES["readiness"] == {readiness.value for readiness in Readiness}
    assert NAMES["verdict"] == set(CHECK)
    assert NAMES["data"] == {state.name for state in DataState} | {"CONSISTENT"}
    assert NAMES["role"] == set(WORDS)
    assert {outcome.name for outcome in Outcome} <= NAMES["code"]
    codes = {*exit_codes.MEANINGS, *CHECK.values(), INTERRUPTED}
    assert {str(code) for code in codes} == NAMES["exit"]
    assert {word for word in DATA_WORDS.values() if word not in ("-", "FAILED")} <= NAMES["shown"]
    assert {state.value for state in WitnessState} == NAMES["witness"]


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for package in ("rfs", "orchestrator"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if "lab" not in path.parts and path.name != "messages.py":
                yield path, ast.parse(path.read_text())


def text_of(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def test_every_code_of_a_warning() -> None:
    """Whatever has the form {"code": "WORD", "text": …}."""
    found = {}
    for path, tree in sources():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Dict):
                continue
            keys = [text_of(key) if key is not None else None for key in node.keys]
            if "code" in keys and "text" in keys:
                value = node.values[keys.index("code")]
                word = text_of(value)
                if word is None and isinstance(value, ast.JoinedStr):
                    word = "".join(text_of(part) or "" for part in value.values) + "*"
                if word:
                    found[word] = path
    assert len(found) > 8
    names = NAMES["warning"]
    missing = [f"{word} ({path.relative_to(ROOT)})" for word, path in sorted(found.items())
               if not (any(name.startswith(word[:-1]) for name in names) if word.endswith("*") else word in names)]  # fmt: skip
    assert not missing, f"warnings that are not in orchestrator/messages.py: {', '.join(missing)}"


def test_every_code_of_a_copy() -> None:
    """What _code_and_reason returns, and what a session is refused with."""
    found = set()
    for path, tree in sources():
        for node in ast.walk(tree):
            first: ast.expr | None = None
            if path.name == "status.py" and isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                first = node.value.elts[0]
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refused" and node.args:
                first = node.args[0]
            words = [] if first is None else [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
            found |= {word for each in words if (word := text_of(each)) and CODE.fullmatch(word)}
    assert {"PAIRED", "FROZEN", "PATTERNS_DIFFER", "PEER_LEFT"} <= found
    assert found <= NAMES["code"], f"{found - NAMES['code']} is not in orchestrator/messages.py"
    assert status.SCHEMA


def test_every_word_of_a_link() -> None:
    tree = ast.parse((ROOT / "rfs" / "status.py").read_text())
    link = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "_link")
    returned = [node.value for node in ast.walk(link) if isinstance(node, ast.Return) and node.value is not None]
    flat = [part for value in returned for part in ([value.body, value.orelse] if isinstance(value, ast.IfExp) else [value])]
    assert {text_of(value) for value in flat} == NAMES["link"]


ADDERS = {"add": 1, "note": 0, "decided": 0, "log": 0, "line": 0}  # method -> which argument is the kind


def test_every_kind_of_event() -> None:
    found: dict[str, Path] = {}
    for path, tree in sources():
        if "orchestrator" not in path.parts:
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
            at = ADDERS.get(name)
            if at is None or len(node.args) < (at + 2 if name != "line" else 1):
                continue
            word = text_of(node.args[at])
            if word and re.fullmatch(r"[a-z]+(-[a-z]+)*", word):
                found[word] = path
    assert {"takeover", "command", "vip-add", "heartbeat"} <= set(found)
    missing = [f"{word} ({path.relative_to(ROOT)})" for word, path in sorted(found.items()) if word not in NAMES["event"]]
    assert not missing, f"kinds of events that are not in orchestrator/messages.py: {', '.join(missing)}"


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_is_empty(kind: str) -> None:
    assert NAMES[kind]
