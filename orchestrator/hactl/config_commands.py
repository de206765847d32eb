"""`hactl config check`, `config show` and `module list`: they read the files, not the daemon."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from orchestrator.config import CLUSTER_FILE, MODULES_DIR, ClusterConfig, ModuleConfig, load_cluster, load_modules
from orchestrator.config_errors import ConfigError
from orchestrator.hactl.output import columns, print_json, print_rows, say
from orchestrator.hactl.session import Session, prints_toml, session_options
from rfs import exit_codes


@click.group()
def config() -> None:
    """The configuration files."""


@click.group()
def module() -> None:
    """The modules of the configuration."""


def load(session: Session) -> tuple[ClusterConfig, dict[str, ModuleConfig]]:
    """Both kinds of files, or all complaints on standard error and exit code 3."""
    try:
        cluster = load_cluster(session.config_dir)
        return cluster, load_modules(session.config_dir, cluster)
    except ConfigError as error:
        show_complaints(session, error)
        raise SystemExit(exit_codes.CONFIGURATION_INVALID) from None


def show_complaints(session: Session, error: ConfigError) -> None:
    """Grouped by file, each with its line."""
    complaints = error.complaints
    if session.format in ("json", "jsonl"):
        found = [{"file": str(each.file), "line": each.line, "key": each.key, "text": each.sentence} for each in complaints]
        print_json({"schema": "hactl.config/1", "valid": False, "problems": found}, one_line=session.format == "jsonl")
        return
    for file in dict.fromkeys(complaint.file for complaint in complaints):
        own = [complaint for complaint in complaints if complaint.file == file]
        say(f"{file}: {len(own)} problem{'s' if len(own) > 1 else ''}", err=True)
        rows = [(f"line {each.line}" if each.line is not None else "-", each.key or "-", each.sentence) for each in own]
        for line in columns(("", "", ""), rows)[1:]:
            say(f"  {line}", err=True)
    say("Nothing was applied.", err=True)


@config.command()
@session_options
def check(session: Session) -> None:
    """Read all files and list everything that is wrong with them."""
    cluster, modules = load(session)
    if session.format in ("json", "jsonl"):
        print_json({"schema": "hactl.config/1", "valid": True, "problems": []}, one_line=session.format == "jsonl")
        return
    listed = ", ".join(modules) or "none"
    say(f"{session.config_dir}: cluster {cluster.name}, nodes {cluster.names}, modules: {listed}. No problems.")


@config.command()
@session_options
@prints_toml
def show(session: Session) -> None:
    """The files as they are understood, with all defaults; -o toml: as files that say everything."""
    cluster, modules = load(session)
    if session.format == "toml":
        from orchestrator.config_documents import as_toml, read_documents

        documents = read_documents(session.config_dir)
        say(f"# {CLUSTER_FILE}\n{as_toml(documents.cluster)}")
        for name, document in documents.modules.items():
            say(f"# {MODULES_DIR}/{name}.toml\n{as_toml(document)}")
        return
    document = {"cluster": plain(asdict(cluster)), "modules": {name: plain(asdict(found)) for name, found in modules.items()}}
    if session.format in ("json", "jsonl"):
        print_json(document, one_line=session.format == "jsonl")
        return
    for line in _lines("", document):
        say(line)


def plain(value: Any) -> Any:
    """Dataclasses and paths as JSON has them."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def _lines(prefix: str, value: Any) -> list[str]:
    if isinstance(value, dict) and value:
        return [line for name, inner in value.items() for line in _lines(f"{prefix}.{name}" if prefix else str(name), inner)]
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        return [line for index, inner in enumerate(value, start=1) for line in _lines(f"{prefix}[{index}]", inner)]
    shown = " ".join(str(inner) for inner in value) if isinstance(value, list) else "-" if value in (None, {}) else str(value)
    return [f"{prefix} = {shown or '-'}"]


@module.command("list")
@session_options
def list_modules(session: Session) -> None:
    """Every module with what it mirrors, moves and runs."""
    _, modules = load(session)
    rows = []
    for found in modules.values():
        directories = " ".join(entry.directory for entry in found.replicated)
        addresses = " ".join(vip.address for vip in found.vips) or "-"
        services = " ".join(service.name for service in found.services) or "-"
        rows.append((found.name, found.mode, " ".join(found.nodes), str(found.port), directories, addresses, services))
    header = ("module", "mode", "nodes", "port", "directories", "addresses", "services")
    print_rows(session.format, header, rows, [plain(asdict(found)) for found in modules.values()])
