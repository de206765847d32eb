"""`rfsmount guard` and `unguard`. The read-only guards are laid early in a boot, before anything else that could write runs.

A machine that went down while its directories were guarded has them guarded again from here on, so nobody had a chance to change them
behind the mirror's back, and the next session needs no comparison of everything. Without it a boot is an unguarded interval (rfs/mount.py),
and so is the time between `unguard` and the next guard: it is for people who must work on the plain directories while nothing is mounted.
"""

import os
from collections.abc import Sequence

import trio

from rfs import directory_checks, exit_codes
from rfs.errors import SaidNo
from rfs.mount import Layers
from rfs.serve import read_boot
from rfs.state_directory import StateDirectory


def run(directories: Sequence[str], state_directory: str, *, refuse_holders: bool = False) -> int:
    """Lay them. The exit code; SaidNo with the reason."""
    layers = _layers(directories, state_directory)
    if refuse_holders:
        directory_checks.refuse_holders(layers.paths)
    trio.run(layers.guard)
    return exit_codes.DONE


def unguard(directories: Sequence[str], state_directory: str) -> int:
    """Take them off. The exit code; SaidNo with the reason."""
    trio.run(_layers(directories, state_directory).unguard)
    return exit_codes.DONE


def _layers(directories: Sequence[str], state_directory: str) -> Layers:
    """With the state directory taken, until this process ends: whoever runs has guarded them already."""
    if os.geteuid() != 0:
        raise SaidNo("guards need root", exit_codes.NOT_PERMITTED)
    paths = directory_checks.resolve_directories(tuple(directories), state_directory)
    state = StateDirectory(state_directory)
    state.take()
    state.check_directories(paths)
    return Layers(paths, state_directory, read_boot())
