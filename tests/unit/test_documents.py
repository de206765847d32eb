"""What the pages for people tell them to type: every command of hactl that stands there exists, with these options."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from orchestrator.hactl.cli import every_command, hactl

ROOT = Path(__file__).resolve().parent.parent.parent
TEMPLATES = (ROOT / "orchestrator" / "modules").glob("*/README.md")
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(TEMPLATES)]
EVERY = {words[1:]: command for words, command in every_command()}
COMMON = {option for parameter in hactl.params for option in (*parameter.opts, *parameter.secondary_opts)}


def told(page: Path) -> Iterator[str]:
    """What follows the word hactl, in spans and blocks of code."""
    text = page.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    for code in (*(line for block in blocks for line in block.splitlines()), *spans):
        yield from re.findall(r"(?:^|[\s#(])hactl ([a-z].*?)(?=$|  |; |, | #| \(| && )", code.replace("\\|", "|"))


def words_of(said: str) -> list[str]:
    try:
        return shlex.split(said)
    except ValueError:  # an apostrophe of a sentence
        return said.split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_people_are_told_to_type(page: Path) -> None:
    unknown = []
    for said in told(page):
        words = words_of(said)
        options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        for verb in words[0].split("|"):
            path = next((path for path in ((verb, *words[1:2]), (verb,)) if path in EVERY), None)
            if path is None:
                unknown.append(f"hactl {said}: there is no such command")
                continue
            command = EVERY[path]
            group = isinstance(command, click.Group) and len(words) > 1 and re.fullmatch(r"[a-z][a-z-]*", words[1]) is not None
            if group:
                unknown.append(f"hactl {said}: {verb} has no {words[1]}")
            known = COMMON | {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            foreign = path[0] == "lab" and "--" in words  # what follows is another program's
            unknown += [f"hactl {said}: no option {option}" for option in sorted(options - known) if not foreign]
    assert not unknown, "\n".join([str(page), *unknown])
