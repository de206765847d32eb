"""`hactl module show` and `hactl module remove`: a module as it is written down, and taking it out of the configuration."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from orchestrator.api.client import ApiFailure
from orchestrator.config import ModuleConfig, listed, own_name
from orchestrator.config_files import MODULE_NAME
from orchestrator.hactl.config_commands import load, plain
from orchestrator.hactl.output import columns, print_answer, print_json, say
from orchestrator.hactl.package_commands import known_module
from orchestrator.hactl.session import Failure, Session, session_options
from rfs import exit_codes

STATE = Path("/var/lib/lockstep")
SHOW_SCHEMA, REMOVE_SCHEMA = "hactl.module/1", "hactl.module-removed/1"


def entry_in(session: Session, name: str) -> dict[str, Any] | None:
    """The module's part of the status; None when hactld does not answer, or does not have it."""
    try:
        modules = session.client.status("all")["modules"]
    except ApiFailure:
        return None
    return next((dict(entry) for entry in modules if entry["name"] == name), None)


# ---------------------------------------------------------------------------------------------- show


@click.command()
@click.argument("name", metavar="MODULE")
@session_options
def show(session: Session, name: str) -> None:
    """What a module is: its directories, addresses and services as they are written, and how it runs now."""
    _, modules = load(session)
    module, entry = known_module(modules, name), entry_in(session, name)
    scripts = scripts_of(module)
    if session.format in ("json", "jsonl"):
        file = session.config_dir / "modules" / f"{name}.toml"
        document = {
            "schema": SHOW_SCHEMA,
            "name": name,
            "file": str(file),
            "configured": plain(asdict(module)),
            "scripts": scripts,
            "runs": entry,
        }
        print_json(document, one_line=session.format == "jsonl")
        return
    rows = [*rows_of(module), ("scripts", " ".join(scripts) or "-"), *running_rows(entry)]
    if session.format == "plain":
        for row in rows:
            say("\t".join(row))
        return
    over = f", the data over {module.replication_network}, port {module.port}" if module.mode == "mirror" else ""
    say(f"{name}: a {module.mode} module on {listed(module.nodes)}{over}")
    for line in columns(("", ""), rows)[1:]:
        say(f"  {line}")


def rows_of(module: ModuleConfig) -> list[tuple[str, str]]:
    """As it is written."""
    rows = []
    for entry in module.replicated:
        more = [
            f"{word}: {' '.join(values)}"
            for word, values in (("required", entry.require), ("local", entry.exclude), ("only", entry.only))
            if values
        ]
        rows.append(("directory", entry.directory + (f" ({'; '.join(more)})" if more else "")))
    rows += [("address", vip.address + (f" on {vip.interface}" if vip.interface else "")) for vip in module.vips]
    for service in module.services:
        what = f"unit {service.unit}" if service.unit else " ".join(service.start)
        rows.append(("service", f"{service.name}: {what}" + (f" (as {service.user})" if service.user else "")))
    rows += [("checker", f"{checker.resource}: {checker.action} when down ({checker.when})") for checker in module.checkers]
    for rule in module.rules:
        terms = [f"{word} of {' and '.join(each)}" for word, each in (("all", rule.all), ("any", rule.any)) if each]
        rows.append(("rule", f"{rule.name}: {rule.action} when {', '.join(terms)}"))
    primary = {"alone": "whoever serves", "lastprim": "who served before"}.get(module.default_primary, module.default_primary)
    rows += [("primary", primary)] if module.mode == "mirror" else []
    return [*rows, ("at boot", {"auto": "as it was", "on": "starts", "off": "stays stopped"}[module.boot])]


def running_rows(entry: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """As it runs."""
    if entry is None:
        return [("now", "not known: hactld does not run here, or has not been told of it")]
    now = [
        f"{row['node']} {row['state']} {row['readiness']}" + (f" ({row['reason']})" if row.get("reason") else "") for row in entry["nodes"]
    ]
    held = [f"{vip['address']} on {vip['node']}" for vip in entry["vips"] if vip.get("node")]
    return [*(("now", line) for line in now), *(("now", line) for line in held)]


def scripts_of(module: ModuleConfig) -> list[str]:
    """The files beside it."""
    home = module.scripts_dir
    return sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())


# ---------------------------------------------------------------------------------------------- remove


@click.command()
@click.argument("name", metavar="MODULE")
@click.option("--forget", is_flag=True, help="Also when this node remembers of it which copy is the newest: that is set aside.")
@click.option("--forget-only", is_flag=True, help="Set aside what this node remembers of it, and nothing else: as if it had never run.")
@click.option("--force", is_flag=True, help="Also when it cannot be known whether it runs (a node or hactld is silent).")
@session_options
def remove(session: Session, name: str, forget: bool, forget_only: bool, force: bool) -> None:
    """Take a stopped module out of this node's configuration. Its data stay where they are.

    With --forget or --forget-only also one that the configuration has no more (it was removed on another node, and applied).
    """
    _, modules = load(session)
    state = STATE / "modules" / name
    is_left = name not in modules and (forget or forget_only) and MODULE_NAME.fullmatch(name) is not None and state.is_dir()
    module = None if is_left else known_module(modules, name)
    refuse_running(session, name, force)
    remembers = (state / "record").exists()
    if remembers and not (forget or forget_only):
        what = f"{state} remembers which copy of {name} is the newest"
        raise Failure(f"{what}: 'hactl module remove {name} --forget' sets that aside", exit_codes.REFUSED)
    directories = [entry.directory for entry in module.replicated] if module is not None else remembered_directories(state)
    own = (session.config_dir / "modules" / f"{name}.toml", module.scripts_dir) if module is not None else ()
    files = [path for path in own if os.path.lexists(path)]
    removed = [] if forget_only else files
    forgets = state.is_dir() and (module is None or module.mode == "mirror")
    doing = [f"{' and '.join(map(str, removed))}: would be removed"] if removed else []
    doing += [f"{state}: would be set aside"] if forgets else []
    if session.dry_run:
        sentence = "\n".join(doing) or f"nothing is remembered of {name} here"
        if not print_answer(session, sentence):
            say(sentence, err=True)
        return
    if doing:
        session.confirm(f"Remove {' and '.join(map(str, removed))}?" if removed else f"Set {state} aside?")
    aside = set_aside(name, directories, state) if forgets else None
    for path in removed:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    stays = [*directories, *([str(aside)] if aside is not None else []), *(str(path) for path in files if path not in removed)]
    if session.format in ("json", "jsonl"):
        document = {"schema": REMOVE_SCHEMA, "name": name, "removed": [str(path) for path in removed], "stays": stays}
        print_json(document, one_line=session.format == "jsonl")
        return
    for path in removed:
        say(f"removed: {path}")
    for place in stays:
        say(f"stays:   {place}")
    if aside is None and not removed:
        say(f"nothing is remembered of {name} here")
    for line in next_steps(module, forget_only, aside is not None):
        say(line)


def next_steps(module: ModuleConfig | None, forget_only: bool, remembered: bool) -> list[str]:
    """What is left to do. The other nodes' part may be done before or after `config apply`: their state says what they need for it."""
    if module is None:
        return []
    others = listed([node for node in module.nodes if node != own_name()])
    if forget_only:
        again = "  on every node, once all have forgotten: systemctl restart hactld   (what runs goes on)"
        return ["next:", f"  on {others}: hactl module remove {module.name} --forget-only", again, f"  hactl start {module.name}"]
    there = f"  on {others}: hactl module remove {module.name} --forget   (what it remembers, and the guards over its directories)"
    return ["next:", *([there] if remembered else []), "  hactl config apply"]


def remembered_directories(state: Path) -> list[str]:
    """Of a module that the configuration has no more: its state knows them."""
    from rfs.state_directory import read_directories

    known = read_directories(str(state))
    if known is None and (state / "guards").exists():
        sentence = f"{state} does not say over which directories its guards lie"
        raise Failure(f"{sentence}: 'rfsmount unguard DIRECTORY… --state {state}' takes them off; then move it away", exit_codes.REFUSED)
    return list(known.paths) if known is not None else []


def refuse_running(session: Session, name: str, force: bool) -> None:
    """Nothing of it may run anywhere; who is silent may run it."""
    entry = entry_in(session, name)
    if entry is None:
        if not force and socket_is_there(session):
            return  # hactld runs and knows no such module: it was never started
        if not force:
            sentence = f"hactld does not answer, so {name} may run"
            raise Failure(f"{sentence}: start hactld, or say --force when you know that it is stopped on every node", exit_codes.REFUSED)
        return
    silent = [row["node"] for row in entry["nodes"] if row["state"] == "UNKNOWN"]
    running = [f"{row['node']} is {row['state']}" for row in entry["nodes"] if row["state"] not in ("STOP", "UNKNOWN")]
    if running:
        raise Failure(f"{name} runs ({', '.join(running)}): first 'hactl stop {name} -H all'", exit_codes.REFUSED)
    if silent and not force:
        raise Failure(
            f"{listed(silent)} does not answer, and {name} may run there: say --force when you know that it does not",
            exit_codes.REFUSED,
        )


def socket_is_there(session: Session) -> bool:
    """Does hactld answer at all?"""
    try:
        session.client.status()
    except ApiFailure:
        return False
    return True


def set_aside(name: str, directories: Sequence[str], state: Path) -> Path:
    """The guards off, so that the directories are plain ones again; then the state directory to removed/, whole."""
    from rfs.directory_checks import forget_ids
    from rfs.errors import SaidNo
    from rfs.guard_command import unguard
    from rfs.state_directory import StateDirectory

    try:
        if directories:
            unguard(directories, str(state))
            for directory in directories:
                forget_ids(directory)
        else:
            StateDirectory(str(state)).take()  # until this process ends: no rfsmount has it
    except SaidNo as refusal:
        raise Failure(refusal.sentence, refusal.exit_code) from refusal
    home = STATE / "removed"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = home / f"{name}-{time.strftime('%Y%m%dT%H%M%S')}"
    state.rename(target)
    return target


COMMANDS = (show, remove)
