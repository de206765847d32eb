"""`hactl explain`: what a word means, and what to do about it. It asks nobody: it works where nothing runs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import click

from orchestrator.hactl.output import print_json, say
from orchestrator.hactl.session import Failure, Session, session_options
from orchestrator.messages import KINDS, MESSAGES, Message, about
from rfs import exit_codes

WIDTH = 100


def complete_word(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """For the shell."""
    names = dict.fromkeys(message.name for message in MESSAGES if " " not in message.name)
    return [name for name in names if name.lower().startswith(incomplete.lower())]


@click.command()
@click.argument("words", nargs=-1, metavar="[WORD]", shell_complete=complete_word)
@session_options
def explain(session: Session, words: tuple[str, ...]) -> None:
    """What a state, a code, a warning, an exit code or a kind of event means, and what to do. Without a WORD: all words there are.

    \b
    hactl explain DIVERGED
    hactl explain 6
    hactl explain up to date
    """
    word = " ".join(words)
    found = about(word) if word else list(MESSAGES)
    if not found:
        from orchestrator.config_errors import did_you_mean

        close = did_you_mean(word.upper(), [message.name.upper() for message in MESSAGES])
        raise Failure(f"nothing is called '{word}'.{close} 'hactl explain' lists all words", exit_codes.USAGE)
    if session.format in ("json", "jsonl"):
        topics = [message._asdict() for message in found]
        print_json({"schema": "hactl.explanation/1", "topics": topics}, one_line=session.format == "jsonl")
        return
    say("\n".join(_one(found) if word else _all()))


def _one(found: list[Message]) -> Iterator[str]:
    for message in found:
        yield f"{message.name} ({KINDS[message.kind].partition(':')[0]})"
        yield textwrap.indent(textwrap.fill(message.text, WIDTH), "  ")
        if message.next:
            yield textwrap.indent(textwrap.fill(f"→ {message.next}", WIDTH), "  ")


def _all() -> Iterator[str]:
    for kind, title in KINDS.items():
        names = " ".join(message.name.replace(" ", "-") for message in MESSAGES if message.kind == kind)
        yield title.replace("`", "")
        yield textwrap.indent(textwrap.fill(names, WIDTH, break_on_hyphens=False), "  ")
