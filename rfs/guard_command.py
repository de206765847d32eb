"""`rfsmount guard`: the read-only guards, early in a boot, before anything else that could write runs.

A machine that went down while its directories were guarded has them guarded again from here on, so nobody had a chance to change them
behind the mirror's back, and the next session needs no comparison of everything. Without it a boot is an unguarded interval (rfs/mount.py).
"""

import os
from collections.abc import Sequence

import trio

from rfs import directory_checks, exit_codes
from rfs.errors import SaidNo
from rfs.mount import Layers
from rfs.serve import read_boot
from rfs.state_directory import StateDirectory


def run(directories: Sequence[str], state_directory: str) -> int:
    """The exit code; SaidNo with the reason."""
    if os.geteuid() != 0:
        raise SaidNo("guard needs root", exit_codes.NOT_PERMITTED)
    paths = directory_checks.resolve_directories(tuple(directories), state_directory)
    state = StateDirectory(state_directory)
    state.take()  # whoever runs has guarded them already
    state.check_directories(len(paths))
    trio.run(Layers(paths, state_directory, read_boot()).guard)
    return exit_codes.DONE


def lift(directories: Sequence[str], state_directory: str) -> None:
    """The opposite, for a module that is given up: the plain directories show again. SaidNo while an rfsmount has them."""
    state = StateDirectory(state_directory)
    state.take()
    trio.run(Layers([os.path.realpath(path) for path in directories], state_directory, read_boot()).lift)
