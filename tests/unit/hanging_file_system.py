"""A FUSE file system that takes a question and never answers: the lookup of `hang` stops its process. For tests of how such a wait ends.

    python hanging_file_system.py DIRECTORY        prints "mounted" once it is
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys

import pyfuse3
import trio


class Hanging(pyfuse3.Operations):
    """Nothing but a root directory."""

    async def getattr(self, inode: int, context: object = None) -> pyfuse3.EntryAttributes:
        """The root's."""
        entry = pyfuse3.EntryAttributes()
        entry.st_mode, entry.st_ino = stat.S_IFDIR | 0o755, inode
        return entry

    async def lookup(self, parent: int, name: bytes, context: object = None) -> pyfuse3.EntryAttributes:
        """Never answered, or always no."""
        if name == b"hang":
            os.kill(os.getpid(), signal.SIGSTOP)
        raise pyfuse3.FUSEError(errno.ENOENT)


async def serve() -> None:
    """Until unmounted or killed."""
    print("mounted", flush=True)
    await pyfuse3.main()


if __name__ == "__main__":
    pyfuse3.init(Hanging(), sys.argv[1], {"fsname=test", "subtype=lockstep"})
    trio.run(serve)
