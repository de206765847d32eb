"""`hactl module package` and `hactl module install`: a module as one file, from one cluster to another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.hactl.config_commands import load
from orchestrator.hactl.output import print_json, say
from orchestrator.hactl.session import Failure, Session, session_options
from orchestrator.hactl.template_commands import disable_option, finish, nodes_option, show_rows, vip_option, what_to_know
from rfs import exit_codes

if TYPE_CHECKING:
    from orchestrator.config import ModuleConfig


def known_module(modules: Mapping[str, ModuleConfig], name: str) -> ModuleConfig:
    """Of the configuration; a Failure with the ones there are."""
    from orchestrator.config_errors import did_you_mean

    if name not in modules:
        there = f"there is {', '.join(modules)}" if modules else "there is none"
        raise Failure(f"there is no module {name} in the configuration; {there}.{did_you_mean(name, modules)}", exit_codes.USAGE)
    return modules[name]


@click.command()
@click.argument("name", metavar="MODULE")
@click.option("-O", "--output-file", "file", type=click.Path(path_type=Path), help="By default MODULE.lockstep.tar.gz, here.")
@click.option("--with-secrets", is_flag=True, help="Pack it although something in it looks like a password or a key.")
@session_options
def package(session: Session, name: str, file: Path | None, with_secrets: bool) -> None:
    """One file of a module: its TOML and its scripts, for 'module install' on another cluster."""
    from importlib.metadata import version

    from orchestrator.modules import archive, place

    _, modules = load(session)
    module = known_module(modules, name)
    text, scripts = archive.gather(place.module_file(session.config_dir, name))
    places = list(archive.secrets_in(text, scripts))
    if places and not with_secrets:
        where = ", ".join(places[:5]) + (" …" if len(places) > 5 else "")
        sentence = f"what looks like a password or a key stands in {where}: keep it in a file elsewhere, or say --with-secrets"
        raise Failure(sentence, exit_codes.REFUSED)
    packed = archive.pack(name, module.mode, version("lockstep-ha"), text, scripts)
    target = file or Path(f"{name}.lockstep.tar.gz")
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    except FileExistsError:
        raise Failure(f"{target} is there already: remove it, or name another file with -O", exit_codes.REFUSED) from None
    except OSError as error:
        raise Failure(f"{target}: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(packed)
    if session.format in ("json", "jsonl"):
        document = {"schema": "hactl.module-package/1", "name": name, "file": str(target), "bytes": len(packed), "scripts": sorted(scripts)}
        print_json(document, one_line=session.format == "jsonl")
        return
    count = f"{len(scripts)} script{'s' if len(scripts) != 1 else ''}"
    say(f"{target}: {name}, {count}, {len(packed)} bytes. There: hactl module install {target.name} --vip ADDR/LEN")


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="Instead of the one that it was packed under.")
@vip_option
@nodes_option
@disable_option
@session_options
def install(
    session: Session,
    file: Path,
    name: str | None,
    vips: tuple[str, ...],
    nodes: tuple[str, ...],
    disable_at_boot: bool,
) -> None:
    """Put a packed module into the configuration: checked, under a free name, with this cluster's nodes, networks and ports.

    Its scripts run as root: install only what you trust. With --dry-run it is checked and shown, and not written.
    """
    from orchestrator.config import load_cluster, load_modules
    from orchestrator.config_errors import ConfigError
    from orchestrator.config_text import parse_config_text
    from orchestrator.modules import archive, fit, place

    try:
        packed = archive.unpack(file)
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}", exit_codes.USAGE) from None
    chosen = name or packed.name
    place.check_name(session.config_dir, chosen)
    text = packed.text
    try:
        cluster = load_cluster(session.config_dir)
        read = parse_config_text(place.module_file(session.config_dir, chosen), packed.text)
        text, said = fit.fitted(read, text, cluster, load_modules(session.config_dir, cluster), vips, nodes)
        module = place.check_together(session.config_dir, chosen, text)
    except ConfigError as error:
        show_rows(session, error, place.module_file(session.config_dir, chosen), text)
        raise SystemExit(exit_codes.CONFIGURATION_INVALID) from None
    if chosen != packed.name and f"/modules/{packed.name}/" in text:
        said.append(f"its text names files below modules/{packed.name}/; here they lie below modules/{chosen}/")
    said += [runs_as_root(module, packed.scripts), *what_to_know(module, None, disable_at_boot and not session.dry_run)]
    finish(session, module, text, dict(packed.scripts), said)


def runs_as_root(module: ModuleConfig, scripts: Mapping[str, tuple[bool, bytes]]) -> str:
    """Said before anything is written: a package is not only configuration."""
    programs = sorted({name for name, (executable, _) in scripts.items() if executable})
    listed = ", ".join(programs[:5]) + (" …" if len(programs) > 5 else "")
    scripts_too = f"and the scripts in it ({listed}) " if programs else ""
    return f"a package is code: what module {module.name} starts and checks {scripts_too}will run as root on its nodes; trust who made it"


COMMANDS = (package, install)
