"""A list of services, as `--service` names them: units of systemd, or commands that stay in the foreground."""

from __future__ import annotations

import re
import shlex

from orchestrator.modules.machine import Machine
from orchestrator.modules.template import Line, Service, Unfit, Wishes, unit_service


def services(wishes: Wishes, machine: Machine) -> tuple[Service, ...]:
    """In the order given, which is the order of starting; units that this machine does not know are refused, all at once."""
    units = [each for each in wishes.services if not each.startswith("/")]
    if units and not machine.has_systemd:
        raise Unfit(
            f"systemd does not run this machine, so it has no unit {units[0]}: name a command, --service '/usr/bin/program ARGUMENT'"
        )
    missing = [unit for unit in units if not machine.has_unit(unit)]
    if missing:
        raise Unfit(f"there is no unit {', '.join(missing)} on this node; 'systemctl list-unit-files' lists them")
    found, names = list[Service](), list[str]()
    for each in wishes.services:
        if each in units:
            found.append(unit_service(each))
            continue
        start = command(each, machine)
        base = re.sub(r"[^A-Za-z0-9_-]+", "-", start[0].rpartition("/")[2]).strip("-_") or "service"
        names.append(base)
        name = base if names.count(base) == 1 else f"{base}-{names.count(base)}"
        found.append(Service((Line("name", name), Line("start", start))))
    return tuple(found)


def command(words: str, machine: Machine) -> tuple[str, ...]:
    """A program with its arguments, quoted as in a shell."""
    try:
        start = tuple(shlex.split(words))
    except ValueError as error:
        raise Unfit(f"--service {words}: {error}") from None
    if not machine.exists(start[0]):
        raise Unfit(f"there is no program {start[0]} on this node")
    return start
