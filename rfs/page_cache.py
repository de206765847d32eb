"""What the kernel remembers of files whose disk has lied.

After a failed write-back the pages are called clean and keep what never reached the disk. To compare them with the peer's would find no
difference, and the resync of a FAILED copy would leave the hole where it is. So they are thrown away before: what is read then is the disk.
"""

import os
import stat
from collections.abc import Sequence


def forget(trees: Sequence[int]) -> int:
    """Drop the clean pages of every file below; returns of how many. What cannot be opened is left: the resync will find out."""
    count = 0
    for tree in trees:
        for _, _, names, directory in os.fwalk(".", dir_fd=tree):
            for name in names:
                try:
                    if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                        continue
                    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
                except OSError:
                    continue
                try:
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                    count += 1
                finally:
                    os.close(file)
    return count
