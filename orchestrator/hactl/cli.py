"""The command `hactl`. It decides nothing: it asks hactld, reads files, or drives the lab, and prints.

Whatever goes wrong is one sentence on standard error and an exit code of the documented table; a traceback is a bug.
"""

from __future__ import annotations

import sys

import click

from orchestrator.exit_codes import INTERRUPTED
from orchestrator.hactl import apply_commands, maintenance_commands, schema_commands
from orchestrator.hactl.config_commands import config, module
from orchestrator.hactl.drill_command import drill
from orchestrator.hactl.history_commands import events, history, simulate, why
from orchestrator.hactl.module_commands import COMMANDS, show_status
from orchestrator.hactl.session import Failure, Session, session_options
from orchestrator.hactl.witness_commands import witness
from orchestrator.sentence import Sentence
from rfs import exit_codes

NOT_YET = (
    *("doctor", "snapshot"),
    *("data", "resync", "verify", "resolve"),
)
NOT_YET_IN = {
    module: ["show", "add", "remove", "package", "install", "templates"],
}
ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


class Commands(click.Group):
    """Loads the lab and the keys only when they are asked for."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        if cmd_name == "lab":
            from orchestrator.hactl.lab_commands import lab

            return lab
        if cmd_name == "cluster":
            from orchestrator.hactl.cluster_commands import cluster

            return cluster
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """For --help."""
        return sorted([*super().list_commands(ctx), "cluster", "lab"])


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@session_options
@click.version_option(package_name="lockstep-ha", prog_name="hactl")
@click.pass_context
def hactl(context: click.Context, session: Session) -> None:
    """Look at the cluster and move its modules.

    \b
    hactl status                 what runs where, and what is wrong
    hactl swap pg --wait         exchange primary and secondary of module pg
    hactl wait pg --for SECOND   return when this node can take over
    """
    if context.invoked_subcommand is None:
        show_status(session, session.client.status(session.node), again=False)


def not_yet(name: str, full: str) -> click.Command:
    """A command that the documents name and this release lacks: it says so."""

    @click.pass_context
    def refuse(_: click.Context) -> None:
        raise Failure(f'this release has no "{full}" yet', exit_codes.USAGE)

    return click.Command(name, callback=refuse, context_settings=dict(ANYTHING), hidden=True)


for command in (*COMMANDS, drill, events, history, simulate, why, witness):
    hactl.add_command(command)
MORE_IN = {config: (*apply_commands.COMMANDS, *schema_commands.COMMANDS), module: maintenance_commands.COMMANDS}
for group, more in MORE_IN.items():
    hactl.add_command(group)
    for command in more:
        group.add_command(command)
for group, names in NOT_YET_IN.items():
    for name in names:
        group.add_command(not_yet(name, f"{group.name} {name}"))
for name in NOT_YET:
    hactl.add_command(not_yet(name, name))


def main(arguments: list[str] | None = None) -> None:
    """The console script."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without our glyphs shows question marks, not a traceback
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run and return the exit code."""
    try:
        hactl.main(args=arguments, prog_name="hactl", standalone_mode=False)
    except click.UsageError as error:
        hint = f" ({error.ctx.command_path} --help)" if error.ctx is not None else ""
        return _say(f"{error.format_message()}{hint}", exit_codes.USAGE)
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except Sentence as sentence:
        return _say(str(sentence), sentence.code)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader has seen enough
        return exit_codes.DONE
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else exit_codes.FAILED
    return exit_codes.DONE


def _say(sentence: str, code: int) -> int:
    click.echo(f"hactl: {sentence}", err=True)
    return code
