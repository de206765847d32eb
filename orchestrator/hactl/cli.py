"""The command `hactl`. It decides nothing: it asks hactld, reads files, or drives the lab, and prints.

Whatever goes wrong is one sentence on standard error and an exit code of the documented table; a traceback is a bug. A command's file is
read when the command is called: `hactl status` needs click and a socket, and nothing of what the others need (`COMMANDS`, one line each).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from orchestrator.defaults import DEFAULT_CONFIG
from orchestrator.exit_codes import INTERRUPTED
from orchestrator.hactl.output import say
from orchestrator.hactl.session import Session, session_options
from orchestrator.sentence import Sentence
from rfs import exit_codes
from rfs.show import printable

# By what people look for, in the order of --help: name -> the file below orchestrator/hactl, the command in it, and what it is for.
COMMANDS: dict[str, dict[str, tuple[str, str, str]]] = {
    "Look": {
        "status": ("status_command", "status", "what runs where, and what is wrong"),
        "data": ("data_commands", "data", "a module's copies: how old, what is marked, what was kept"),
        "why": ("history_commands", "why", "why a module is what it is, and what stands against it"),
        "simulate": ("history_commands", "simulate", "what would happen if …; nothing is touched"),
        "events": ("history_commands", "events", "what happens, as it happens"),
        "history": ("history_commands", "history", "what happened, who asked for it, and why"),
        "logs": ("module_commands", "logs", "what services, scripts and rfsmount printed"),
        "wait": ("module_commands", "wait", "return when a module is in a state"),
        "doctor": ("doctor_command", "doctor", "everything that would make a failover fail, each with its mend"),
        "snapshot": ("snapshot_command", "snapshot", "one file for whoever is asked for help, without secrets"),
        "explain": ("explain_command", "explain", "what a word, a code or an exit code means"),
    },
    "Move": {
        "start": ("module_commands", "start", "start a module"),
        "stop": ("module_commands", "stop", "stop it here; a ready secondary takes over"),
        "restart": ("module_commands", "restart", "restart the services where they are"),
        "stopstart": ("module_commands", "stopstart", "down and up again here; the other node takes over"),
        "swap": ("module_commands", "swap", "exchange primary and secondary; nothing is lost"),
        "prim": ("module_commands", "prim", "start as primary: this node has the data"),
        "second": ("module_commands", "second", "start, and take the other node's data"),
        "drill": ("drill_command", "drill", "rehearse a failover, timed"),
    },
    "Switch": {
        "pause": ("module_commands", "pause", "automatic failover off"),
        "resume": ("module_commands", "resume", "automatic failover on again"),
        "checkers": ("checkers_command", "checkers", "what the checkers find; act on it, or only note it"),
        "boot": ("module_commands", "boot", "what is done with a module at boot"),
    },
    "Data": {
        "resync": ("data_commands", "resync", "follow the resync that runs, or have everything compared"),
        "verify": ("data_commands", "verify", "compare both copies while the application writes"),
        "resolve": ("data_commands", "resolve", "end a divergence: say whose data stays"),
        "discard": ("data_commands", "discard", "what a resync took away, and set aside, is gone for good"),
    },
    "Set up": {
        "cluster": ("cluster_commands", "cluster", "make a cluster, let a node join, replace keys"),
        "config": ("config_commands", "config", "the configuration files"),
        "module": ("config_commands", "module", "the modules of the configuration"),
        "witness": ("witness_commands", "witness", "the third party that decides who goes on alone"),
        "completion": ("completion_command", "completion", "make your shell complete hactl's words"),
        "lab": ("lab_commands", "lab", "two nodes on this machine, to try everything"),
    },
}
MORE_IN: dict[str, tuple[str, ...]] = {  # group -> further files, whose COMMANDS belong to it
    "config": ("apply_commands", "schema_commands"),
    "module": ("template_commands", "package_commands", "module_file_commands", "maintenance_commands"),
}
PLACES = {name: place for commands in COMMANDS.values() for name, place in commands.items()}
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class Commands(click.Group):
    """Reads a command's file when the command is asked for."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        if (place := PLACES.get(cmd_name)) is None:
            return None
        from importlib import import_module

        found: click.Command = getattr(import_module(f"orchestrator.hactl.{place[0]}"), place[1])
        if isinstance(found, click.Group):
            for file in MORE_IN.get(cmd_name, ()):
                for command in import_module(f"orchestrator.hactl.{file}").COMMANDS:
                    found.add_command(command)
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """For --help."""
        return list(PLACES)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """With a word for who has mistyped."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from orchestrator.config_errors import did_you_mean

            begun = [name for name in PLACES if name.startswith(args[0])]
            meant = f" Did you mean {' or '.join(begun)}?" if begun else did_you_mean(args[0], PLACES)
            raise click.UsageError(f"there is no command '{args[0]}'.{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """In groups."""
        for title, commands in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, _, text) in commands.items()])


@click.group(cls=Commands, invoke_without_command=True, context_settings=SETTINGS)
@session_options
@click.version_option(package_name="lockstep-ha", prog_name="hactl")
@click.pass_context
def hactl(context: click.Context, session: Session) -> None:
    """Look at the cluster and move its modules.

    \b
    hactl                        what runs where, what is wrong, and what to do next
    hactl status -w              the same, kept up to date
    hactl swap pg --wait         exchange primary and secondary of module pg
    hactl wait pg --for SECOND   return when this node can take over
    hactl why pg                 why it is what it is, and what would happen if …
    hactl explain DIVERGED       what a word in all this means

    MODULE may be left out when there is only one. The options below may stand before or after the command.
    """
    if context.invoked_subcommand is None:
        from orchestrator.hactl.status_command import show_status_and_next

        show_status_and_next(session)


def every_command(group: click.Group | None = None, words: tuple[str, ...] = ("hactl",)) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All that can be called, with their words: for the manual and for tests."""
    group = hactl if group is None else group
    context = click.Context(group, info_name=words[-1])
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*words, name))


def main(arguments: list[str] | None = None) -> None:
    """The console script."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without our glyphs shows question marks, not a traceback
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run and return the exit code."""
    stdout = sys.stdout
    try:
        hactl.main(args=arguments, prog_name="hactl", standalone_mode=False)
    except click.UsageError as error:
        hint = f" ({error.ctx.command_path} --help)" if error.ctx is not None else ""
        return _say(f"{error.format_message()}{hint}", exit_codes.USAGE)
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except Sentence as sentence:
        return _say(f"{sentence}{_in_no_cluster(sentence.code)}", sentence.code)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except SystemExit as end:
        if sys.stdout is not stdout:  # so click ends when its reader has gone: both streams silenced, and 1
            return exit_codes.DONE  # the reader has seen enough
        return end.code if isinstance(end.code, int) else exit_codes.FAILED
    return exit_codes.DONE


def _in_no_cluster(code: int) -> str:
    """For who has just installed it."""
    if code != exit_codes.DAEMON_NOT_REACHABLE or Path(DEFAULT_CONFIG, "cluster.toml").exists():
        return ""
    return (
        ". This node is in no cluster yet: 'hactl cluster init --help' says how to make one, or let it join one with 'hactl cluster join'"
    )


def _say(sentence: str, code: int) -> int:
    say(f"hactl: {printable(sentence)}", err=True)
    return code
