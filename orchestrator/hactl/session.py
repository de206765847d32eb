"""The options every command takes, before or after its name, and what the commands need to serve them."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from orchestrator.api.client import DEFAULT_SOCKET, ApiClient
from orchestrator.defaults import DEFAULT_CONFIG
from orchestrator.sentence import Sentence
from rfs import exit_codes
from rfs.show import printable

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
WAIT_TIMEOUT_S = 120.0
DEFAULT_CONFIG_DIR = Path(DEFAULT_CONFIG)
COMPLETION_TIMEOUT_S = 1.0


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
        return ApiClient(self.socket, for_people=self.format in ("table", "plain"))

    @property
    def format(self) -> str:
        """How to print; `table` unless something else was asked for."""
        return self.output or "table"

    @property
    def colour(self) -> bool:
        """Colours are for people at a terminal who did not say no."""
        wanted = not self.no_color and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        return wanted and self.format == "table" and sys.stdout.isatty()

    @property
    def asks(self) -> bool:
        """Is there a person to ask? In a script the option itself is the word."""
        return not self.yes and sys.stdin.isatty() and sys.stdout.isatty()

    def confirm(self, question: str) -> None:
        """Ask a person at a terminal."""
        if self.asks and not click.confirm(printable(question)):
            raise Failure("nothing was done", exit_codes.FAILED)

    def confirm_by_name(self, warning: str, name: str) -> None:
        """What cannot be taken back is said by typing the module's name."""
        if self.asks and click.prompt(f"{printable(warning)}\nType the module's name to go on", default="", show_default=False) != name:
            raise Failure("nothing was done", exit_codes.FAILED)


def duration_option(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """Seconds in `500ms`, `3s`, `5m` or, since it is typed in a hurry, `30`."""
    if value is None:
        return None
    from orchestrator.units import parse_duration_s

    try:
        return parse_duration_s(f"{value}s" if value.isdigit() else value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


class CommonOption(click.Option):
    """In the help of a command one line stands for all of them; `hactl --help` has them."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The line of --help."""
        if ctx.parent is None:
            return super().get_help_record(ctx)
        return ("-o, --json, -H, --dry-run, …", "Those of every command: hactl --help has them.") if self.name == "output" else None


_common = functools.partial(click.option, cls=CommonOption)
_OPTIONS = (
    _common("-o", "--output", type=click.Choice(["table", "plain", "json", "jsonl", "toml"]), help="How to print."),
    _common("--json", "as_json", is_flag=True, help="The same as -o json."),
    _common("-H", "--node", metavar="NODE|all", help="Act on that node, or on all, instead of here."),
    _common("--yes", is_flag=True, help="Do not ask."),
    _common("--dry-run", is_flag=True, help="Only say what would happen."),
    _common("--wait", is_flag=True, help="Return only when it is done."),
    _common("--timeout", metavar="DURATION", callback=duration_option, help="Stop waiting after this (default 2m); exit code 7."),
    _common("--config-dir", type=click.Path(path_type=Path), help=f"Instead of {DEFAULT_CONFIG_DIR}."),
    _common("--socket", type=click.Path(path_type=Path), envvar="HACTL_SOCKET", hidden=True),
    _common("--no-color", is_flag=True, help="No colours."),
)

# What changes something and cannot say beforehand what.
NOT_IMAGINED = ("cluster", "drill", "lab", "module open", "module close", "module package", "config edit")


def refuse_to_imagine(path: str) -> None:
    """Who says --dry-run must not find that it was done."""
    words = path.split()
    if len(words) > 1 and (words[1] in NOT_IMAGINED or " ".join(words[1:3]) in NOT_IMAGINED):
        raise Failure(f"'{path}' has no --dry-run: nothing was done", exit_codes.USAGE)


# What reads and writes the files of the node where it is typed.
LOCAL = (
    *("cluster init", "cluster join", "cluster show", "cluster forget", "config edit", "config check", "config show", "config schema"),
    *(f"module {verb}" for verb in ("list", "templates", "add", "show", "remove", "package", "install")),
)


def refuse_elsewhere(path: str, node: str) -> None:
    """Who says -H must not find that it was done here."""
    if path.removeprefix("hactl ") not in LOCAL:
        return
    from orchestrator.config import own_name

    if node != own_name():
        where = "each node" if node == "all" else node
        raise Failure(f"'{path}' is about the files of the node where it is typed: run it on {where}, without -H", exit_codes.USAGE)


def session_options(function: Callable[..., Result]) -> Callable[..., Result]:
    """Give a command the common options and, as its first argument, the session they add up to. A command that takes `dry_run` itself
    gets it as well."""
    takes_dry_run = "dry_run" in inspect.signature(function).parameters

    @functools.wraps(function)
    def taking(*arguments: Any, **options: Any) -> Result:
        session = click.get_current_context().ensure_object(Session)
        output = "json" if options.pop("as_json") else options.pop("output", None)
        options.pop("output", None)
        session.output = output or session.output
        if session.output == "toml" and not getattr(function, "prints_toml", False):
            raise click.UsageError("only 'hactl config show' prints TOML")
        for name in ("node", "config_dir", "socket"):
            value = options.pop(name)
            setattr(session, name, value if value is not None else getattr(session, name))
        for name in ("yes", "wait", "no_color", "dry_run"):
            setattr(session, name, options.pop(name) or getattr(session, name))
        if session.node is not None:
            refuse_elsewhere(click.get_current_context().command_path, session.node)
        if session.dry_run:
            refuse_to_imagine(click.get_current_context().command_path)
        if takes_dry_run:
            options["dry_run"] = session.dry_run
        timeout_s = options.pop("timeout")
        session.timeout_s = timeout_s if timeout_s is not None else session.timeout_s
        return function(session, *arguments, **options)

    for option in reversed(_OPTIONS):
        taking = option(taking)
    return taking


def prints_toml(function: Callable[..., Result]) -> Callable[..., Result]:
    """For a command that has an answer to `-o toml`; below `session_options`."""
    function.prints_toml = True  # type: ignore[attr-defined]
    return function


def complete_module(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The modules of this node, for the shell."""
    session = next((each.obj for each in (context, context.parent) if each is not None and isinstance(each.obj, Session)), Session())
    path = os.environ.get("HACTL_SOCKET") or session.socket
    try:
        names = [entry["name"] for entry in ApiClient(Path(path), COMPLETION_TIMEOUT_S).status()["modules"]]
    except Sentence:
        names = [file.stem for file in sorted((session.config_dir / "modules").glob("*.toml"))]
    return [name for name in names if name.startswith(incomplete)]


module_argument = click.argument("module", required=False, shell_complete=complete_module)


def one_node(session: Session) -> str | None:
    """The node that is asked where only one can answer; None: this one."""
    if session.node == "all":
        raise Failure("one node answers this; name it with -H NODE, or ask here", exit_codes.USAGE)
    return session.node


def chosen_module(document: dict[str, Any], module: str | None) -> str:
    """The module that was named, or the only one."""
    names = [entry["name"] for entry in document["modules"]]
    if module is None:
        if len(names) == 1:
            return str(names[0])
        sentence = f"say which module: {', '.join(names)}" if names else "no module runs on this node; 'hactl module add' makes one"
        raise Failure(sentence, exit_codes.USAGE)
    if module in names:
        return module
    from orchestrator.config import listed
    from orchestrator.config_errors import did_you_mean

    if places := _places_of(module):
        raise Failure(f"module {module} does not run on {document['node']} but on {listed(places)}: ask there", exit_codes.USAGE)
    known = f"; there is {', '.join(names)}" if names else ""
    raise Failure(f"there is no module {module}{known}.{did_you_mean(module, names)}", exit_codes.USAGE)


def _places_of(module: str) -> tuple[str, ...]:
    """Where a module runs that this node has no part in, if the configuration says so."""
    from orchestrator.config import load_cluster, load_modules
    from orchestrator.config_errors import ConfigError

    session = click.get_current_context().ensure_object(Session)
    try:
        found = load_modules(session.config_dir, load_cluster(session.config_dir)).get(module)
    except ConfigError:
        return ()
    return found.nodes if found is not None else ()
