"""`hactl module templates` and `hactl module add`: a module's file, made of what this machine has and what was said."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.hactl.config_commands import show_complaints
from orchestrator.hactl.output import print_json, print_rows, say
from orchestrator.hactl.session import Failure, Session, session_options
from rfs import exit_codes

if TYPE_CHECKING:  # loaded where they are used: most runs of hactl need none of it
    from orchestrator.config import ModuleConfig
    from orchestrator.config_errors import ConfigError
    from orchestrator.modules.template import Draft, Template, Wishes

SCHEMA = "hactl.module-file/1"


@click.command()
@click.argument("name", metavar="[TEMPLATE]", required=False)
@session_options
def templates(session: Session, name: str | None) -> None:
    """The applications for which 'module add' knows what to write; with a name all about one of them."""
    from orchestrator.modules import catalogue
    from orchestrator.modules.machine import Machine
    from orchestrator.modules.template import MODULE_SETTINGS

    machine = Machine()
    if name is None:
        known = [catalogue.template(each) for each in catalogue.NAMES]
        rows = [(each.name, each.title, each.found(machine) or "-") for each in known]
        documents = [{"name": name, "title": title, "found": "" if found == "-" else found} for name, title, found in rows]
        print_rows(session.format, ("template", "for", "found here"), rows, documents)
        return
    template, about = catalogue.template(name), catalogue.about(name)
    settings = {**template.settings, **MODULE_SETTINGS}
    if session.format in ("json", "jsonl"):
        document = {"name": name, "title": template.title, "found": template.found(machine), "about": about, "settings": settings}
        print_json(document, one_line=session.format == "jsonl")
        return
    say(about)
    say(f"Found here: {template.found(machine) or 'nothing'}\n\n--set KEY=VALUE takes:")
    for key, meaning in settings.items():
        say(f"  {key.ljust(20)}  {meaning}")


def settings_of(template: Template, words: Sequence[str]) -> dict[str, str]:
    """`--set KEY=VALUE`, each a key that the template knows."""
    from orchestrator.config_errors import did_you_mean
    from orchestrator.modules.template import MODULE_SETTINGS

    known = {**template.settings, **MODULE_SETTINGS}
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise Failure(f'--set {word}: write KEY=VALUE; "hactl module templates {template.name}" lists the keys', exit_codes.USAGE)
        if key not in known:
            hint = did_you_mean(key, known) or f" There are {', '.join(known)}."
            raise Failure(f"--set {key}: the template {template.name} has no such key.{hint}", exit_codes.USAGE)
        found[key] = value
    return found


def separated(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    """`a,b`."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


vip_option = click.option("--vip", "vips", metavar="ADDR/LEN", multiple=True, help="A service address; may be repeated.")
nodes_option = click.option(
    "--nodes", metavar="A,B", default="", callback=separated, help="Its nodes, where the cluster has more than two."
)
disable_option = click.option(
    "--disable-at-boot", is_flag=True, help="Units that start at boot here do so no longer: the module starts them."
)


@click.command()
@click.argument("template_name", metavar="TEMPLATE")
@click.option("--name", metavar="NAME", help="Of the module; by default the template's.")
@vip_option
@click.option(
    "--dir", "directories", metavar="DIR", multiple=True, help="To be mirrored; may be repeated. By default where the data are found."
)
@click.option("--service", "services", metavar="UNIT", multiple=True, help="A unit or a command (generic, light); several in order.")
@nodes_option
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="See 'hactl module templates TEMPLATE'; may be repeated.")
@disable_option
@session_options
def add(
    session: Session,
    template_name: str,
    name: str | None,
    vips: tuple[str, ...],
    directories: tuple[str, ...],
    services: tuple[str, ...],
    nodes: tuple[str, ...],
    settings: tuple[str, ...],
    disable_at_boot: bool,
) -> None:
    """Write a new module's file from a template; nothing starts. With --dry-run it is shown and not written.

    \b
    hactl module add postgresql --name pg --vip 192.0.2.100/24
    hactl module add generic --name erp --vip 192.0.2.100/24 --dir /srv/erp --service erp
    """
    from orchestrator.config_errors import ConfigError
    from orchestrator.modules import catalogue, place
    from orchestrator.modules.machine import Machine
    from orchestrator.modules.template import Wishes

    template, machine = catalogue.template(template_name), Machine()
    paths = tuple(directory.rstrip("/") or "/" for directory in directories)
    wishes = Wishes(name or template.name, paths, services, vips, settings_of(template, settings))
    place.check_name(session.config_dir, wishes.name)
    draft = template.draft(wishes, machine)
    text = ""
    try:
        text = text_of(session.config_dir, template, wishes, draft, nodes)
        module = place.check_together(session.config_dir, wishes.name, text)
    except ConfigError as error:
        show_rows(session, error, place.module_file(session.config_dir, wishes.name), text)
        raise SystemExit(exit_codes.CONFIGURATION_INVALID) from None
    said = [*what_to_know(module, draft, disable_at_boot and not session.dry_run), *draft.notes]
    finish(session, module, text, {}, said)


def show_rows(session: Session, error: ConfigError, file: Path, text: str) -> None:
    """The complaints, and the rows they are about: nobody can look at a file that was not written."""
    show_complaints(session, error)
    rows = text.splitlines()
    numbers = sorted({each.line for each in error.complaints if each.file == file and each.line is not None})
    if session.format not in ("json", "jsonl"):
        for number in (number for number in numbers if number <= len(rows)):
            say(f"{number:6d} | {rows[number - 1]}", err=True)


def text_of(config_dir: Path, template: Template, wishes: Wishes, draft: Draft, nodes: Sequence[str]) -> str:
    """The file."""
    from orchestrator.config import load_cluster, load_modules
    from orchestrator.modules import place
    from orchestrator.modules.render import render

    cluster = load_cluster(config_dir)
    chosen = place.chosen_nodes(cluster, nodes, draft.mode)
    head = place.head(cluster, load_modules(config_dir, cluster), wishes, chosen, draft.mode)
    return render(draft, wishes, template.name, head)


def what_to_know(module: ModuleConfig, draft: Draft | None, disable: bool) -> list[str]:
    """What this machine says about it; with `disable` units are taken from the boot at once."""
    from orchestrator.modules import dangers
    from orchestrator.modules.machine import Machine
    from orchestrator.modules.template import Directory

    machine = Machine()
    known = {directory.path: directory for directory in draft.directories} if draft is not None else {}
    directories = [known.get(entry.directory, Directory(entry.directory)) for entry in module.replicated]
    units = [service.unit for service in module.services if service.unit]
    at_boot = [unit for unit in units if machine.starts_at_boot(unit)]
    boot = [dangers.disable_at_boot(unit) for unit in at_boot] if disable else list(dangers.of_units(units, machine))
    return [*dangers.of_directories(directories), *boot, *dangers.of_addresses(module.vips)]


def finish(session: Session, module: ModuleConfig, text: str, scripts: dict[str, tuple[bool, bytes]], said: Sequence[str]) -> None:
    """Say what is to be known, write, and say what comes next; with --dry-run show the file instead."""
    from orchestrator.modules import place

    file = place.module_file(session.config_dir, module.name)
    steps = place.next_steps(module)
    for_people = session.format not in ("json", "jsonl")
    if for_people:
        for sentence in said:
            say(f"! {sentence}", err=True)
    written = []
    if not session.dry_run:
        if said and for_people:
            session.confirm(f"Write {file}?")
        written = [str(path) for path in place.write(session.config_dir, module.name, text, scripts)]
    if not for_people:
        document: dict[str, Any] = {"schema": SCHEMA, "name": module.name, "file": str(file), "written": written}
        print_json(document | {"text": text, "to_know": list(said), "next": steps}, one_line=session.format == "jsonl")
        return
    if session.dry_run:
        say(text, nl=False)
        say(f"{file}: not written (--dry-run)", err=True)
        return
    for path in written:
        say(f"written: {path}")
    say("next:")
    for step in steps:
        say(f"  {step}")
    sys.stdout.flush()


COMMANDS = (templates, add)
