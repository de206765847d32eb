"""`hactl module open` and `close`: work on the directories of a stopped module."""

from __future__ import annotations

import click

from orchestrator.hactl.module_commands import tell
from orchestrator.hactl.session import Session, chosen_module, session_options


@click.command("open")
@click.argument("module", required=False)
@session_options
def open_(session: Session, module: str | None) -> None:
    """Lift the guard off the directories of a stopped module, to work on them. It does not start until it is closed."""
    name = chosen_module(session.client.status(), module)
    tell(session, name, "open", {}, session.node)


@click.command()
@click.argument("module", required=False)
@session_options
def close(session: Session, module: str | None) -> None:
    """Guard the directories again. At the next start everything is compared."""
    name = chosen_module(session.client.status(), module)
    tell(session, name, "close", {}, session.node)


COMMANDS = (open_, close)
