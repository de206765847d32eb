"""What is left of root's rights in rfsmount, and in children that only look: the tables, and giving up the rest before any thread starts.

rfsmount needs its rights over its whole life: each change of role mounts, each file belongs to somebody else. So nothing is given up later,
but for the threads that read what the peer sends, which go further down by themselves (csrc/privileges.c). What a kernel has no means for
is said in the log and in `status`, and is no reason not to serve.
"""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from rfs import engine
from rfs.errors import SaidNo

log = logging.getLogger(__name__)

# By the kernel's number (linux/capability.h): its name, and what would fail without it.
KEPT: Final[Mapping[int, tuple[str, str]]] = {
    0: ("CHOWN", "files belong to those who made them on the primary"),
    1: ("DAC_OVERRIDE", "files and directories that root is not let into by their permissions"),
    2: ("DAC_READ_SEARCH", "opening files by their handles"),
    3: ("FOWNER", "permissions, times and attributes of files of others"),
    4: ("FSETID", "set-user-id bits that the application's own change has kept"),
    10: ("NET_BIND_SERVICE", "--listen with a port below 1024"),
    14: ("IPC_LOCK", "what is mapped after the start is locked in memory too"),
    19: ("SYS_PTRACE", "naming who holds a directory open before it is covered"),
    21: ("SYS_ADMIN", "mounts, and trusted.* attributes"),
    24: ("SYS_RESOURCE", "descriptors beyond the limit; a user's quota is the application's, not the copy's"),
    27: ("MKNOD", "devices and pipes in the tree"),
    31: ("SETFCAP", "security.capability of programs in the tree"),
}

# Of the children that look at a machine for the doctor or a snapshot, and of the programs that they ask: they read, and change nothing.
LOOKING: Final[Mapping[int, tuple[str, str]]] = {
    2: ("DAC_READ_SEARCH", "files and directories of everybody"),
    6: ("SETGID", "a program is asked for its release as nobody"),
    7: ("SETUID", "the same"),
    10: ("NET_BIND_SERVICE", "is a port below 1024 free"),
    12: ("NET_ADMIN", "rules of the firewall"),
    13: ("NET_RAW", "how far away a peer is"),
    19: ("SYS_PTRACE", "which process has something open"),
    21: ("SYS_ADMIN", "trusted.* attributes"),
    34: ("SYSLOG", "what the kernel said"),
}


def mask_of(numbers: Mapping[int, object]) -> int:
    """As the kernel writes a set."""
    return sum(1 << number for number in numbers)


def give_up() -> list[str]:
    """Everything but the table, and all system calls that have no use here; what could not be done, also in the log. Called once, before
    any thread starts; what needs more (limits, a place in the out-of-memory order) is done before."""
    steps = (
        ("core files cannot be forbidden", engine.keep_secrets()),
        ("capabilities cannot be given up", engine.keep_capabilities(mask_of(KEPT))),
        ("system calls are not filtered", engine.filter_calls()),
    )
    missing = [f"{what} ({os.strerror(-result)})" for what, result in steps if result < 0]
    for sentence in missing:
        log.warning("rfsmount runs with more rights than it needs: %s", sentence)
    return missing


def only_look() -> None:
    """For a child that looks at the machine: whatever it starts can do no more either. It looks all the same where this cannot be done; an
    engine that is not built is one of the things to be found."""
    with suppress(SaidNo):
        engine.keep_secrets()
        engine.keep_capabilities(mask_of(LOOKING))
