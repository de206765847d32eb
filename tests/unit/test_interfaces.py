"""docs/interfaces.md says what the commands are: the page and the parsers name the same things."""

import argparse
import ast
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from orchestrator.checkers.models import KINDS, CommonModel
from orchestrator.exit_codes import CHECK
from orchestrator.hactl.cli import every_command, hactl
from orchestrator.view import status as hactl_status
from rfs import cli, exit_codes
from rfs.status import build_status

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "interfaces.md").read_text()


def section(title: str) -> str:
    """What stands under a heading of the second level."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """The first column of every table."""
    return re.findall(r"^\| (.+?) \| ", text, re.MULTILINE)


def verbs() -> dict[str, argparse.ArgumentParser]:
    """rfsmount's."""
    actions = cli.parser()._actions
    found = next(action for action in actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}


def test_the_exit_codes() -> None:
    told = {int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| (.+) \|$", section("Exit codes"), re.MULTILINE)}
    assert told == exit_codes.MEANINGS


def test_the_exit_codes_of_a_check() -> None:
    sentence = section("Exit codes").partition("--check` exits with: ")[2].partition(".")[0]
    assert {word: int(code) for code, word in (part.split() for part in sentence.split(", "))} == dict(CHECK)


def test_the_options_of_mount() -> None:
    told = {option for cell in first_cells(section("rfsmount")) for option in re.findall(r"`(-{1,2}[\w-]+)", cell)}
    assert told == options_of(verbs()["mount"])


def test_the_verbs_and_their_options() -> None:
    lines = dict(re.findall(r"^rfsmount (\w+) +(.+)$", section("rfsmount"), re.MULTILINE))
    assert set(lines) == set(verbs())
    for verb, parser in verbs().items():
        told = set(re.findall(r"(?<![\w-])--?\w[\w-]*", lines[verb]))
        if verb == "mount":
            assert told <= options_of(parser)
        else:
            assert told == options_of(parser)


def test_the_verbs_of_keys() -> None:
    actions = verbs()["keys"]._actions
    found = next(action for action in actions if isinstance(action, argparse._SubParsersAction)).choices
    text = section("rfsmount").partition("`rfsmount keys` is for")[2].partition("Deadlines:")[0]
    assert {cell.split()[1] for cell in re.findall(r"^\| `(keys [^`]+)`", text, re.MULTILINE)} == set(found)
    assert {option for parser in found.values() for option in options_of(parser)} <= set(re.findall(r"--[\w-]+", text))


def leaves(under: str) -> set[str]:
    """All commands that do something."""
    every = {" ".join(words): command for words, command in every_command()}
    return {name for name, command in every.items() if name.startswith(under) and not isinstance(command, click.Group)}


def test_the_commands_of_hactl() -> None:
    told = set(re.findall(r"^\| `(hactl [\w -]+)`", section("hactl"), re.MULTILINE))
    assert told == leaves("hactl ") - leaves("hactl lab ")


def test_the_commands_of_the_lab() -> None:
    assert set(re.findall(r"^\| `(hactl lab \w+)`", section("The lab"), re.MULTILINE)) == leaves("hactl lab ")


def test_the_common_options_of_hactl() -> None:
    told = set(re.findall(r"`(--?[\w-]+)", section("hactl").partition("MODULE may")[0]))
    shown = [parameter for parameter in hactl.params if isinstance(parameter, click.Option) and not parameter.hidden]
    taken = {option for parameter in shown for option in parameter.opts}
    assert told <= taken
    assert {option for option in taken if option.startswith("--")} - told <= {"--output", "--node", "--version"}


@pytest.mark.parametrize("script", ["script/bootstrap", "script/demo", "script/test", "bench/run"])
def test_the_scripts(script: str) -> None:
    assert f"`{script}`" in section("Scripts")
    assert (ROOT / script).is_file()


def returned_keys(function: Callable[..., object]) -> set[str]:
    """Of the dict that a function returns as it stands in its text."""
    tree = ast.parse(inspect.getsource(function))
    returned = next(node.value for node in ast.walk(tree) if isinstance(node, ast.Return) and isinstance(node.value, ast.Dict))
    return {str(key.value) for key in returned.keys if isinstance(key, ast.Constant)}


@pytest.mark.parametrize(("title", "function"), [("rfsmount", build_status), ("hactl", hactl_status)])
def test_the_status_that_programs_read(title: str, function: Callable[..., object]) -> None:
    example = json.loads(section(title).partition("```json\n")[2].partition("```")[0])
    assert set(example) == returned_keys(function)


def test_the_kinds_of_checkers() -> None:
    """Each with its own keys, its window and its action; and the keys that all have."""
    told = section("Configuration").partition("\n### Checkers\n")[2].partition("\n### ")[0]
    rows = {cells[0].strip("`"): cells for row in re.findall(r"^\| (`.+) \|$", told, re.MULTILINE) if (cells := row.split(" | "))}
    assert list(rows) == list(KINDS)
    for kind, (_, _, keys, usual) in rows.items():
        own = set(KINDS[kind].model_fields) - set(CommonModel.model_fields) - {"type"}
        named = set(re.findall(r"`(\w+)`", keys)) - ({"name"} if kind in ("process", "custom") else set())
        assert named == own, kind
        assert tuple(usual.split(", ")) == KINDS[kind].usual, kind
    example = told.partition("```toml\n")[2].partition("```")[0]
    assert set(re.findall(r"^(\w+) =", example, re.MULTILINE)) == {*CommonModel.model_fields, "type", "to"}
