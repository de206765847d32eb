"""What to know before a module starts, found out on this machine: each a sentence with the command that helps.

Nothing is refused here: a database that still runs in the directory is the usual case when it is about to become a module.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence

import trio

from orchestrator.config import VipConfig
from orchestrator.effects import EffectFailed, links, wire
from orchestrator.effects.vip import in_use
from orchestrator.modules.machine import Machine, full_unit
from orchestrator.modules.template import Directory
from rfs import directory_checks
from rfs.errors import SaidNo
from rfs.mount_table import read_mount_table

PROBE_DEADLINE_S = 3.0
DISABLE_DEADLINE_S = 30.0


def of_directories(directories: Sequence[Directory]) -> Iterator[str]:
    """Missing, unfit, or in use."""
    table = read_mount_table()
    for directory in directories:
        path = directory.path
        if not os.path.lexists(path):
            owner = f"-o {directory.owner} -g {directory.owner} " if directory.owner else ""
            yield f"{path} does not exist here; on each node where it is missing: install -d {owner}-m {directory.mode} {path}"
            continue
        try:
            directory_checks.check_existing(os.path.realpath(path), table)
            holders = list(directory_checks.holders([os.path.realpath(path)]))
        except (SaidNo, OSError) as failure:
            yield str(failure)
            continue
        if holders:
            named = ", ".join(f"{command} (pid {pid})" for pid, command, _ in holders[:3]) + (" and more" if len(holders) > 3 else "")
            yield f"{path} is in use by {named}: stop that before the module is started"


def of_units(units: Sequence[str], machine: Machine) -> Iterator[str]:
    """Started at boot, behind the module's back."""
    for unit in units:
        if machine.starts_at_boot(unit):
            yield f"{full_unit(unit)} is started at boot: the module disables it at its first start here, --disable-at-boot does it now"


def of_addresses(vips: Sequence[VipConfig]) -> Iterator[str]:
    """No interface for it, on this machine already, or somebody answers for it."""
    found = list[str]()

    async def ask() -> None:
        interfaces = await trio.to_thread.run_sync(links.read_interfaces)
        for vip in vips:
            address = ipaddress.ip_interface(vip.address)
            if any(interface.has(address) for interface in interfaces):
                found.append(f"{address.ip} lies on this machine already: take it from there, the module brings it along")
                continue
            try:
                interface = links.choose_interface(interfaces, address, vip.interface)
                answers = await wire.probe(interface, address)
            except (EffectFailed, OSError) as failure:
                found.append(str(failure))
                continue
            if answers:
                found.append(in_use({address: answers}))

    async def bounded() -> None:
        with trio.move_on_after(PROBE_DEADLINE_S) as scope:
            await ask()
        if scope.cancelled_caught:
            found.append("who has the service addresses could not be found out in time")

    try:
        trio.run(bounded)
    except OSError as failure:
        found.append(f"the network interfaces cannot be read: {failure}")
    yield from found


def disable_at_boot(unit: str) -> str:
    """`systemctl disable`; what became of it, in one sentence."""
    program = shutil.which("systemctl")
    if program is None:
        return f"{full_unit(unit)} is still started at boot: there is no systemctl here"
    try:
        done = subprocess.run(
            [program, "disable", full_unit(unit)], capture_output=True, text=True, timeout=DISABLE_DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{full_unit(unit)} is still started at boot: systemctl disable does not end"
    if done.returncode != 0:
        return f"{full_unit(unit)} is still started at boot: {(done.stderr.strip().splitlines() or ['systemctl disable failed'])[-1]}"
    return f"{full_unit(unit)} is not started at boot any more"
