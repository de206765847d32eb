"""Anything: directories and services that are named."""

from __future__ import annotations

from orchestrator.modules.machine import Machine
from orchestrator.modules.service_list import services
from orchestrator.modules.template import Directory, Draft, Template, Unfit, Wishes


def draft(wishes: Wishes, machine: Machine) -> Draft:
    """The module."""
    if not wishes.directories:
        raise Unfit("name what is to be mirrored with --dir; a module without data is made by the template light")
    named = services(wishes, machine)
    notes = () if named else (f"No --service: put start_prim and stop_prim into modules/{wishes.name}/, or add a [[service]].",)
    order = ", started in this order and stopped in reverse" if len(named) > 1 else ""
    title = f"Mirrored directories and {len(named) or 'no'} service{'s' if len(named) != 1 else ''}{order}"
    return Draft(title, tuple(Directory(path) for path in wishes.directories), named, notes=notes)


TEMPLATE = Template("generic", "Any application: directories, services in order, or scripts", draft, lambda _: "")
