"""The manual pages build, `man` reads them without a complaint, and every option of every command is in one."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from orchestrator import config_schema, manual
from orchestrator.daemon import parser as hactld_parser
from orchestrator.hactl.cli import every_command, hactl
from rfs.cli import parser as rfsmount_parser

PAGES = manual.pages()


def plain(name: str) -> str:
    """A page without the marks of roff."""
    return PAGES[name].replace("\\-", "-").replace("\\e", "\\").replace("\\&", "")


def everything(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction):
            yield from action.option_strings
    for inner in manual.verbs_of(parser).values():
        yield from everything(inner)


def test_every_command_of_hactl_and_its_options() -> None:
    commands = list(every_command())
    assert len(commands) > 40
    for words, command in [(("hactl",), hactl), *commands]:
        group = len(words) > 2 or isinstance(command, click.Group) and len(words) > 1
        page = plain(f"man1/hactl-{words[1]}.1" if group else "man1/hactl.1")
        assert " ".join(words) in page
        own = {option for parameter in command.params if isinstance(parameter, click.Option) and not parameter.hidden
               for option in parameter.opts}  # fmt: skip
        for option in own - (manual.COMMON if words != ("hactl",) else set()):
            assert re.search(rf"(^|[ ,]){re.escape(option)}\b", page, re.MULTILINE), f"{' '.join(words)} {option} is in no page"


@pytest.mark.parametrize(("page", "parser"), [("man8/rfsmount.8", rfsmount_parser()), ("man8/hactld.8", hactld_parser())])
def test_every_option_of_the_daemons(page: str, parser: argparse.ArgumentParser) -> None:
    options = set(everything(parser))
    assert len(options) > 4
    for option in options:
        assert option in plain(page)


@pytest.mark.parametrize(("page", "kind"), [("man5/cluster.toml.5", "cluster"), ("man5/module.toml.5", "module")])
def test_every_key_of_the_files(page: str, kind: str) -> None:
    """Each as often as there are tables (kinds of checkers) that have it."""
    keys = [key for key in config_schema.keys_of(kind) if not key.table]
    assert len(keys) > 8
    for name, times in Counter(key.place.rpartition(".")[2] for key in keys).items():
        assert plain(page).count(f"\n.B {name}\n") == times, name


@pytest.mark.skipif(shutil.which("man") is None, reason="no man here")
def test_man_reads_them_without_a_complaint(tmp_path: Path) -> None:
    assert manual.main([str(tmp_path)]) == 0
    for name in PAGES:
        environment = {"PATH": "/usr/bin:/bin", "MANWIDTH": "100", "LC_ALL": "C.UTF-8"}
        words = ["man", "--warnings", "-E", "UTF-8", "-l", str(tmp_path / name)]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
        assert done.stderr == "" and "NAME" in done.stdout
