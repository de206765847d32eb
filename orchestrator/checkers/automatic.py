"""Checkers that nobody has to write: the interface below each service address, and the disks below the replicated directories.

They are checkers like all others: listed, shown in `hactl why`, replaced by one of the file that has the same type and name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from orchestrator.config import CheckerConfig, ReplicatedConfig, VipConfig

NO_NAME: Final = re.compile(r"[^A-Za-z0-9_.:@-]+")


def automatic(vips: Sequence[VipConfig], replicated: Sequence[ReplicatedConfig]) -> tuple[CheckerConfig, ...]:
    """For a module with these addresses and directories."""
    found = [_interface(vip) for vip in vips if vip.check]
    if replicated:
        options = {"directories": (), "min_free": "5%", "min_free_inodes": "2%"}  # none named: those of the module
        found.append(CheckerConfig(type="disk", name="space", when="pre", action="none", interval_s=30.0, options=options))
    return tuple({checker.resource: checker for checker in found}.values())


def _interface(vip: VipConfig) -> CheckerConfig:
    address = vip.address.partition("/")[0]
    options = {"interface": vip.interface, "network": None, "address": address if vip.interface is None else None}
    name = NO_NAME.sub("-", vip.interface or address).strip("-.:")
    # Seldom, because the kernel tells of changes.
    return CheckerConfig(type="interface", name=name, when="pre", action="wait", interval_s=30.0, options=options)


def with_automatic(
    written: Sequence[CheckerConfig], vips: Sequence[VipConfig], replicated: Sequence[ReplicatedConfig]
) -> tuple[CheckerConfig, ...]:
    """The checkers of the file and these, of two with one name that of the file."""
    names = {checker.resource for checker in written}
    return (*written, *(checker for checker in automatic(vips, replicated) if checker.resource not in names))
