"""What write.py runs as a child: `probe.py DIRECTORY DEVICE NAME` writes a small file there, fsyncs it, reads it back, removes it, and
prints how long that took in milliseconds. It may hang in the kernel, which is why it is a process of its own. Nothing but the standard
library, so that it starts at once.

The directory is opened first, and must be of the device that the mirror has: nothing is ever written beneath a mirror that has just gone.
"""

from __future__ import annotations

import os
import secrets
import sys
import time

BYTES = 4096
OTHER_DEVICE = 3


def main(directory: str, device: int, name: str) -> int:
    """The exit code; what goes wrong is an OSError."""
    inside = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if os.fstat(inside).st_dev != device:
        return OTHER_DEVICE
    began = time.monotonic()
    content = secrets.token_bytes(BYTES)
    remove(name, inside)
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=inside)
    try:
        written = os.write(file, content)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # not what the kernel remembers of it
        if written != BYTES or os.pread(file, BYTES + 1, 0) != content:
            raise OSError("what was written is not what is read")
    finally:
        remove(name, inside)
    print(round((time.monotonic() - began) * 1000))
    return 0


def remove(name: str, inside: int) -> None:
    """Also what a probe left behind that was killed."""
    try:
        os.unlink(name, dir_fd=inside)
    except FileNotFoundError:
        pass


if __name__ == "__main__":
    try:
        code = main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    except OSError as error:
        print(error.strerror or error)
        code = 1
    raise SystemExit(code)
