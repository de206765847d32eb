"""Services that run on each node by themselves: nothing is mirrored and nothing moves."""

from __future__ import annotations

from orchestrator.modules.machine import Machine
from orchestrator.modules.service_list import services
from orchestrator.modules.template import Draft, Template, Unfit, Wishes


def draft(wishes: Wishes, machine: Machine) -> Draft:
    """The module."""
    for option, given in (("--dir", wishes.directories), ("--vip", wishes.vips)):
        if given:
            raise Unfit(f"a light module has no {option}: it mirrors nothing and nothing of it moves; the template generic does")
    if not wishes.services:
        raise Unfit("name what runs with --service")
    return Draft("Services that run on each node by themselves", services=services(wishes, machine), mode="light")


TEMPLATE = Template("light", "Services on each node by itself: watched, nothing moves", draft, lambda _: "")
