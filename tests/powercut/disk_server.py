"""The disks: a FUSE file system whose files are images and whose writes and flushes are all logged (log.py) before they are answered.

    python -m tests.powercut.disk_server IMAGES LOG MOUNTPOINT

A file N.img in IMAGES, N a number, is disk N; a loop device on its likeness below MOUNTPOINT makes it a disk. One thread serves all of
them: that is what gives all their writes one order. (qemu-storage-daemon's blklogwrites does the same in C, but with one log per disk.)
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FUSEError, InodeT, RequestContext

from tests.powercut.log import LogWriter


class Disks(pyfuse3.Operations):
    """Inode N + 2 is disk N."""

    def __init__(self, images: Path, log: LogWriter) -> None:
        super().__init__()
        self._images = images
        self._log = log
        self._open: dict[int, int] = {}

    def _image(self, disk: int) -> int:
        if disk not in self._open:
            try:
                self._open[disk] = os.open(self._images / f"{disk}.img", os.O_RDWR | os.O_CLOEXEC)
            except OSError as failure:
                raise FUSEError(failure.errno or errno.EIO) from failure
        return self._open[disk]

    async def lookup(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> EntryAttributes:
        number = name.removesuffix(b".img")
        if not number.isdigit():
            raise FUSEError(errno.ENOENT)
        return await self.getattr(InodeT(int(number) + 2), ctx)

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = inode
        entry.st_nlink = 1
        entry.entry_timeout = entry.attr_timeout = 300
        if inode == pyfuse3.ROOT_INODE:
            entry.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o700)
        else:
            entry.st_mode = pyfuse3.ModeT(stat.S_IFREG | 0o600)
            entry.st_size = os.fstat(self._image(inode - 2)).st_size
        return entry

    async def setattr(
        self, inode: InodeT, attr: EntryAttributes, fields: pyfuse3.SetattrFields, fh: FileHandleT | None, ctx: RequestContext
    ) -> EntryAttributes:
        return await self.getattr(inode, ctx)  # times: nobody's business here

    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        self._image(inode - 2)
        return FileInfo(fh=FileHandleT(inode - 2))

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return os.pread(self._image(fh), size, off)

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        self._log.write(fh, off, buf)
        return os.pwrite(self._image(fh), buf, off)

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        self._log.flush(fh)

    async def flush(self, fh: FileHandleT) -> None:
        pass  # a close; no barrier

    async def release(self, fh: FileHandleT) -> None:
        pass


def main(images: str, log: str, mountpoint: str) -> None:
    """Serve until unmounted."""
    options = {*pyfuse3.default_options, "fsname=powercut"}
    options.discard("default_permissions")
    pyfuse3.init(Disks(Path(images), LogWriter(Path(log))), mountpoint, options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
