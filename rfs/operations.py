"""The cold operations, through pyfuse3: what is rare, or a matter of policy. Everything else is answered in C and never comes here.

The inode numbers are fids, the same on both nodes; the engine owns the inode table, so lookups and forgets are not ours. Mutations go
through the same engine functions as the C side's, so they have their place in the one order and are mirrored alike.
"""

import errno
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import pyfuse3
from pyfuse3 import EntryAttributes, FUSEError, InodeT, Operations, RequestContext, StatvfsData

from rfs.engine import Attributes, Engine

P = ParamSpec("P")
R = TypeVar("R")


def errno_to_fuse(operation: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """The one place where an engine error becomes pyfuse3's."""

    @wraps(operation)
    async def translated(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await operation(*args, **kwargs)
        except OSError as failure:
            raise FUSEError(failure.errno or errno.EIO) from failure

    return translated


def entry_attributes(attributes: Attributes) -> EntryAttributes:
    """As pyfuse3 wants them. The kernel may keep what it has seen: this connection is the only way to change it."""
    entry = EntryAttributes()
    entry.st_ino = InodeT(attributes.ino)
    entry.generation = 0
    entry.entry_timeout = 0
    entry.attr_timeout = 0
    entry.st_mode = pyfuse3.ModeT(attributes.mode)
    entry.st_nlink = attributes.nlink
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = attributes.rdev
    entry.st_size = attributes.size
    entry.st_blksize = attributes.block_bytes
    entry.st_blocks = attributes.blocks
    entry.st_atime_ns = attributes.atime_ns
    entry.st_mtime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns
    return entry


class ColdOperations(Operations):
    """pyfuse3's handlers for what the engine relays."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return entry_attributes(self._attributes(inode))

    def _attributes(self, inode: InodeT) -> Attributes:
        try:
            return self._engine.lookup_attributes(inode)
        except OSError as failure:
            raise FUSEError(failure.errno or errno.EIO) from failure

    @errno_to_fuse
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> pyfuse3.FileNameT:
        return pyfuse3.FileNameT(self._engine.readlink(inode))

    @errno_to_fuse
    async def symlink(
        self, parent_inode: InodeT, name: pyfuse3.FileNameT, target: pyfuse3.FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        return entry_attributes(await self._engine.symlink(parent_inode, name, target, ctx.uid, ctx.gid))

    @errno_to_fuse
    async def link(self, inode: InodeT, new_parent_inode: InodeT, new_name: pyfuse3.FileNameT, ctx: RequestContext) -> EntryAttributes:
        return entry_attributes(await self._engine.link(inode, new_parent_inode, new_name))

    @errno_to_fuse
    async def mknod(
        self, parent_inode: InodeT, name: pyfuse3.FileNameT, mode: pyfuse3.ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        return entry_attributes(await self._engine.mknod(parent_inode, name, mode, ctx.umask, rdev, ctx.uid, ctx.gid))

    @errno_to_fuse
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[pyfuse3.XAttrNameT]:
        return [pyfuse3.XAttrNameT(name) for name in self._engine.list_xattrs(inode)]

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        # pyfuse3 does not say which inode was asked about; the virtual root stands for the first directory.
        try:
            block_bytes, unit, *_, names_bytes = self._engine.statfs(pyfuse3.ROOT_INODE)
            space = self._engine.space().smaller(self._engine.peer_space)
        except OSError as failure:
            raise FUSEError(failure.errno or errno.EIO) from failure
        data = StatvfsData()
        data.f_bsize, data.f_frsize, data.f_namemax = block_bytes, unit, names_bytes
        data.f_blocks, data.f_bfree, data.f_bavail = (
            count // unit for count in (space.total_bytes, space.free_bytes, space.available_bytes)
        )
        data.f_files, data.f_ffree, data.f_favail = space.files, space.files_free, space.files_free
        return data

    # ---- answered in C. pyfuse3's own default is ENOSYS, which the kernel would remember for the whole mount. -------------------------

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        return None

    async def access(self, inode: InodeT, mode: pyfuse3.ModeT, ctx: RequestContext) -> bool:
        return True


async def _not_ours(*_args: object, **_keywords: object) -> NoReturn:
    raise FUSEError(errno.EOPNOTSUPP)


ANSWERED_IN_C = (
    *("lookup", "setattr", "mkdir", "unlink", "rmdir", "rename", "open", "create", "read", "write", "flush", "release", "fsync"),
    *("opendir", "readdir", "releasedir", "fsyncdir", "setxattr", "getxattr", "removexattr"),
)
for _name in ANSWERED_IN_C:
    setattr(ColdOperations, _name, _not_ours)
