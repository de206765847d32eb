"""`hactl config schema`: every key of the two files, for programs and for people."""

from __future__ import annotations

import click

from orchestrator.hactl.output import print_json, say
from orchestrator.hactl.session import Session, session_options


@click.command()
@click.argument("kind", required=False, type=click.Choice(["cluster", "module"]), metavar="[cluster|module]")
@click.option("--markdown", is_flag=True, help="The reference page of all keys (docs/configuration.md).")
@session_options
def schema(session: Session, kind: str | None, markdown: bool) -> None:
    """The JSON Schema of cluster.toml, of a module's file, or of both; for editors, and whoever writes such files."""
    from orchestrator import config_schema

    if markdown:
        say(config_schema.markdown(), nl=False)
        return
    found = config_schema.json_schema(kind) if kind is not None else {name: config_schema.json_schema(name) for name in config_schema.KINDS}
    print_json(found, one_line=session.format == "jsonl")


COMMANDS = (schema,)
