"""The options every command takes, before or after its name, and what the commands need to serve them."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from orchestrator.api.client import DEFAULT_SOCKET, ApiClient
from orchestrator.config import DEFAULT_CONFIG_DIR, listed, load_cluster, load_modules
from orchestrator.config_errors import ConfigError, did_you_mean
from orchestrator.sentence import Sentence
from orchestrator.units import parse_duration_s
from rfs import exit_codes

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
WAIT_TIMEOUT_S = 120.0


class Failure(Sentence):
    """The end of a command: one sentence on standard error and the exit code."""


@dataclass(slots=True)
class Session:
    """One run of hactl."""

    output: str | None = None
    node: str | None = None
    yes: bool = False
    wait: bool = False
    timeout_s: float | None = None
    config_dir: Path = DEFAULT_CONFIG_DIR
    socket: Path = DEFAULT_SOCKET
    no_color: bool = False
    dry_run: bool = False

    @property
    def client(self) -> ApiClient:
        """hactld."""
        return ApiClient(self.socket)

    @property
    def format(self) -> str:
        """How to print; `table` unless something else was asked for."""
        return self.output or "table"

    @property
    def colour(self) -> bool:
        """Colours are for people at a terminal who did not say no."""
        wanted = not self.no_color and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        return wanted and self.format == "table" and sys.stdout.isatty()

    def confirm(self, question: str) -> None:
        """Ask a person at a terminal; in a script the option itself is the word."""
        if not self.yes and sys.stdin.isatty() and sys.stdout.isatty() and not click.confirm(question):
            raise Failure("nothing was done", exit_codes.FAILED)


def duration_option(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """Seconds in `500ms`, `3s`, `5m` or, since it is typed in a hurry, `30`."""
    if value is None:
        return None
    try:
        return parse_duration_s(f"{value}s" if value.isdigit() else value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_OPTIONS = (
    click.option("-o", "--output", type=click.Choice(["table", "plain", "json", "jsonl"]), help="How to print."),
    click.option("--json", "as_json", is_flag=True, help="The same as -o json."),
    click.option("-H", "--node", metavar="NODE|all", help="Act on this node, or on both, instead of here."),
    click.option("--yes", is_flag=True, help="Do not ask."),
    click.option("--dry-run", is_flag=True, help="Only say what would happen."),
    click.option("--wait", is_flag=True, help="Return only when it is done."),
    click.option("--timeout", metavar="DURATION", callback=duration_option, help="Stop waiting after this (default 2m); exit code 7."),
    click.option("--config-dir", type=click.Path(path_type=Path), help=f"Instead of {DEFAULT_CONFIG_DIR}."),
    click.option("--socket", type=click.Path(path_type=Path), envvar="HACTL_SOCKET", hidden=True),
    click.option("--no-color", is_flag=True, help="No colours."),
)

IMAGINED = ("hactl", "start", "add", "install", "remove")  # who says --dry-run must not find that it was done


def session_options(function: Callable[..., Result]) -> Callable[..., Result]:
    """Give a command the common options and, as its first argument, the session they add up to."""

    @functools.wraps(function)
    def taking(*arguments: Any, **options: Any) -> Result:
        session = click.get_current_context().ensure_object(Session)
        output = "json" if options.pop("as_json") else options.pop("output", None)
        options.pop("output", None)
        session.output = output or session.output
        for name in ("node", "config_dir", "socket"):
            value = options.pop(name)
            setattr(session, name, value if value is not None else getattr(session, name))
        for name in ("yes", "wait", "no_color", "dry_run"):
            setattr(session, name, options.pop(name) or getattr(session, name))
        if session.dry_run and click.get_current_context().info_name not in IMAGINED:
            raise Failure(f"'{click.get_current_context().command_path}' has no --dry-run: nothing was done", exit_codes.USAGE)
        timeout_s = options.pop("timeout")
        session.timeout_s = timeout_s if timeout_s is not None else session.timeout_s
        return function(session, *arguments, **options)

    for option in reversed(_OPTIONS):
        taking = option(taking)
    return taking


def chosen_module(document: dict[str, Any], module: str | None) -> str:
    """The module that was named, or the only one."""
    names = [entry["name"] for entry in document["modules"]]
    if module is None:
        if len(names) == 1:
            return str(names[0])
        sentence = f"say which module: {', '.join(names)}" if names else "no module runs on this node; write one in modules/NAME.toml"
        raise Failure(sentence, exit_codes.USAGE)
    if module not in names and (places := _places_of(module)):
        raise Failure(f"module {module} does not run on {document['node']} but on {listed(places)}: ask there", exit_codes.USAGE)
    if module not in names:
        known = f"; there is {', '.join(names)}" if names else ""
        raise Failure(f"there is no module {module}{known}.{did_you_mean(module, names)}", exit_codes.USAGE)
    return module


def _places_of(module: str) -> tuple[str, ...]:
    """Where a module runs that this node has no part in, if the configuration says so."""
    session = click.get_current_context().ensure_object(Session)
    try:
        found = load_modules(session.config_dir, load_cluster(session.config_dir)).get(module)
    except ConfigError:
        return ()
    return found.nodes if found is not None else ()
