"""What disk.py runs as a child: `beneath.py DIRECTORY LAYERS` takes so many mounts off the directory, in a mount namespace of its own where
nobody else sees it, and prints the room of the file system beneath. Nothing but the standard library, so that it starts at once.
"""

from __future__ import annotations

import ctypes
import os
import sys

CLONE_NEWNS = 0x00020000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8


def call(done: int) -> None:
    """What the kernel refuses is an OSError."""
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main(directory: str, layers: int) -> None:
    """Never asks what it takes off: that may be a mirror that hangs."""
    kernel = ctypes.CDLL(None, use_errno=True)
    call(kernel.unshare(CLONE_NEWNS))
    call(kernel.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    for _ in range(layers):
        call(kernel.umount2(os.fsencode(directory), MNT_DETACH | UMOUNT_NOFOLLOW))
    found = os.statvfs(directory)
    print(found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail, found.f_files, found.f_favail)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
