"""The layers over the directories.

    FUSE mount   while primary: the only way in
    guard        a read-only clone of the plain tree: what a secondary, a stopped or a waiting node shows
    plain tree   reached by the engine through a detached clone, beneath whatever lies on top

Layers go on from the bottom and come off from the top. A guard is laid before anything else and is taken off last, by `unmount` alone,
so that nobody can write behind the mirror in between. Where that was possible (after an orderly unmount, in a boot without `rfsmount
guard`) the interval is *unguarded*, and what lies below is compared before anybody believes in it. An rfsmount that was killed leaves a
dead FUSE layer on its guard: the next start takes the dead one off and finds the guard beneath it. What we laid is remembered by mount id
and boot, to know it after a restart.
"""

import errno
import fcntl
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import trio

from rfs import directory_checks, engine, exit_codes
from rfs.engine import Engine
from rfs.errors import SaidNo
from rfs.foreign import from_json, whole
from rfs.mount_table import MountEntry, read_mount_table, stack_at
from rfs.small_file import write_small

log = logging.getLogger("rfs.mount")

ANSWER_TIMEOUT_S = 2.0  # a FUSE layer that does not answer a stat for so long belongs to somebody who lives (and is frozen)


class Layers:
    """The mounts of one module, by position."""

    def __init__(self, paths: Sequence[str], state_directory: str, boot: str) -> None:
        self.paths = list(paths)
        self.trees: list[int] = []
        self.mounted = False
        self._boot = boot
        self._guards: dict[str, int] = {}
        self._guards_file = Path(state_directory, "guards")
        self._trusted = False  # since the last session nobody could change the trees but us
        self._kernel_mount: int | None = None

    async def prepare(self, required_files: Sequence[str] = (), new: int = 0) -> None:
        """From whatever was left here to: guards on every directory, a descriptor of every plain tree. So many at the end are new: what was
        done in them is no doubt about the others."""
        self._read_guards()
        for path in self.paths:
            await self._take_off_left_mounts(path)
        table = read_mount_table()
        for path in self.paths:
            directory_checks.check_existing(path, table)
        unguarded = [path for path in self.paths if not self._is_guarded(path, table)]
        if unguarded:
            if set(unguarded) & set(self.paths[: len(self.paths) - new]):
                self._trusted = False
            self._write_guards()
            await trio.to_thread.run_sync(directory_checks.refuse_holders, unguarded)
        for path in self.paths:
            self.trees.append(await self._open_tree(path))
        for required in required_files:
            if not any(_holds(tree, required) for tree in self.trees):
                raise SaidNo(f"{self.paths[0]}: '{required}' is missing; is its file system not mounted?", exit_codes.CONFIGURATION_INVALID)
        for path in unguarded:
            await self._lay_guard(path)

    async def check(self, path: str) -> bool:
        """Could `path` be one more? SaidNo says why not; nothing is touched. Is it empty?"""
        if self._top_is_fuse(path):
            raise SaidNo(f"{path}: another rfsmount is mounted there; unmount that one first", exit_codes.REFUSED)
        table = read_mount_table()
        directory_checks.check_existing(path, table)
        if not self._is_guarded(path, table):
            await trio.to_thread.run_sync(directory_checks.refuse_holders, [path])
        tree = await self._open_tree(path)
        try:
            return directory_checks.is_empty(tree)
        finally:
            os.close(tree)

    async def add(self, path: str) -> None:
        """One more, at the end: guarded, and its tree open."""
        await self.check(path)
        tree = await self._open_tree(path)
        try:
            if not self._is_guarded(path, read_mount_table()):
                await self._lay_guard(path)
        except BaseException:
            os.close(tree)
            raise
        self.paths.append(path)
        self.trees.append(tree)

    async def take_back(self) -> None:
        """The last one was not added after all: its plain directory shows."""
        path = self.paths.pop()
        os.close(self.trees.pop())
        await self._take_off_guard(path)
        self._write_guards()

    async def attach_last(self, serving: Engine) -> None:
        """The FUSE layer of one that was added, where there is one over the others, and not over this one already."""
        if self._kernel_mount is not None and not self._top_is_fuse(self.paths[-1]):
            await serving.kernel_attach(self._kernel_mount, len(self.paths) - 1, self.paths[-1])
            log.info("mounted path=%s", self.paths[-1])

    async def guard(self) -> None:
        """Early in a boot, before anybody can write: the guards that lay there when the machine went down."""
        self._read_guards()
        table = read_mount_table()
        for path in self.paths:
            directory_checks.check_existing(path, table)
            if not self._is_guarded(path, table):
                await self._lay_guard(path)
        self._write_guards()

    async def unguard(self) -> None:
        """For maintenance, while nobody serves: the plain directories show. What is done there is compared later."""
        self._read_guards()
        for path in self.paths:
            await self._take_off_left_mounts(path)
        await self.take_off_guards()

    async def _lay_guard(self, path: str) -> None:
        await engine.lay_guard(path)
        self._guards[path] = stack_at(path, read_mount_table())[-1].mount_id
        self._write_guards()
        log.info("guard laid path=%s mount=%d", path, self._guards[path])

    @property
    def unguarded(self) -> bool:
        """Somebody may have changed the trees behind our back."""
        return not self._trusted

    def doubt(self) -> None:
        """Everything is to be compared."""
        self._trusted = False
        self._write_guards()

    def trust(self) -> None:
        """The doubt is noted elsewhere, durably."""
        self._trusted = True
        self._write_guards()

    async def mount(self, serving: Engine) -> None:
        """The FUSE layer over every directory."""
        assert not self.mounted
        self._kernel_mount = await serving.kernel_open()
        self.mounted = True
        for index, path in enumerate(self.paths):
            await serving.kernel_attach(self._kernel_mount, index, path)
        log.info("mounted paths=%s", ",".join(self.paths))

    async def unmount(self, serving: Engine, *, abort: bool) -> None:
        """The FUSE layers off again: the guards show."""
        if not self.mounted:
            return
        with trio.CancelScope(shield=True):
            for path in reversed(self.paths):
                if self._top_is_fuse(path):
                    await engine.detach_mount(path, abort_connection=abort)
            if self._kernel_mount is not None:
                os.close(self._kernel_mount)
                self._kernel_mount = None
            await serving.kernel_close()
            self.mounted = False
        log.info("unmounted paths=%s", ",".join(self.paths))

    async def take_off_guards(self) -> None:
        """The last step of an orderly unmount: the plain directories show."""
        assert not self.mounted
        self._trusted = False
        self._write_guards()
        for path in reversed(self.paths):
            await self._take_off_guard(path)
        self._write_guards()

    async def _take_off_guard(self, path: str) -> None:
        stack = stack_at(path, read_mount_table())
        if stack and stack[-1].mount_id == self._guards.get(path):
            await engine.detach_mount(path, abort_connection=False)
            del self._guards[path]
            log.info("guard taken off path=%s", path)
        elif path in self._guards:
            log.warning("guard not on top path=%s: left as it is; unmount what was mounted over it", path)

    def close(self) -> None:
        """Give the trees back."""
        for tree in self.trees:
            os.close(tree)
        self.trees = []

    def backing(self) -> str:
        """What the directories lie on. The same text after a restart means the same file systems."""
        devices = (os.fstat(tree).st_dev for tree in self.trees)
        return ",".join(f"{os.major(device)}:{os.minor(device)}" for device in devices)

    def empty_directories(self) -> int:
        """Bit i: directory i holds nothing."""
        return sum(1 << index for index, tree in enumerate(self.trees) if directory_checks.is_empty(tree))

    def is_empty(self) -> bool:
        """Does no directory hold anything?"""
        return self.empty_directories() == (1 << len(self.trees)) - 1

    async def _open_tree(self, path: str) -> int:
        tree = await engine.tree_open(path)
        try:
            self._claim(path, tree)
            reason = await engine.tree_probe(tree)
            if reason is not None:
                raise SaidNo(f"{path}: cannot hold a replica: {reason}", exit_codes.CONFIGURATION_INVALID)
        except BaseException:
            os.close(tree)
            raise
        return tree

    def _claim(self, path: str, tree: int) -> None:
        """A lock on the plain directory itself, beneath every layer: no two rfsmount have the same one, whatever their state."""
        try:
            fcntl.flock(tree, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as failure:
            raise SaidNo(f"{path}: is mirrored by another rfsmount already; unmount that one first", exit_codes.REFUSED) from failure

    # ---- what was left by another process ---------------------------------------------------------------------------------------------

    async def _take_off_left_mounts(self, path: str) -> None:
        while self._top_is_fuse(path):
            if not await _found_dead(path):
                raise SaidNo(f"{path}: is mounted by another rfsmount that is alive; unmount that one first", exit_codes.REFUSED)
            await engine.detach_mount(path, abort_connection=True)
            log.info("dead mount taken off path=%s", path)

    def _top_is_fuse(self, path: str) -> bool:
        stack = stack_at(path, read_mount_table())
        return bool(stack) and stack[-1].is_ours

    def _is_guarded(self, path: str, table: list[MountEntry]) -> bool:
        stack = stack_at(path, table)
        return bool(stack) and stack[-1].mount_id == self._guards.get(path) and stack[-1].is_read_only

    def _read_guards(self) -> None:
        """Mount ids mean something only within the boot (and the namespace) that gave them."""
        try:
            noted = from_json(self._guards_file.read_text())
            self._trusted = noted["trusted"] is True
            if noted["boot"] == self._boot and noted["namespace"] == _namespace():
                self._guards = {str(path): whole(mount) for path, mount in noted["guards"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._trusted = False

    def _write_guards(self) -> None:
        """Durably: to believe in a tree that was open is worse than to compare one that was not."""
        text = json.dumps({"boot": self._boot, "namespace": _namespace(), "guards": self._guards, "trusted": self._trusted})
        write_small(self._guards_file, text)


def _holds(tree: int, name: str) -> bool:
    try:
        os.stat(name.lstrip("/"), dir_fd=tree, follow_symlinks=False)
    except OSError as failure:
        return failure.errno == errno.ELOOP  # a link on the way is there; the engine's tree follows none (csrc/mounts.c)
    return True


def _namespace() -> str:
    return os.readlink("/proc/self/ns/mnt")


async def _found_dead(path: str) -> bool:
    with trio.move_on_after(ANSWER_TIMEOUT_S):
        return await trio.to_thread.run_sync(_is_dead, path, abandon_on_cancel=True)
    return False


def _is_dead(path: str) -> bool:
    """A FUSE mount whose process is gone answers ENOTCONN at once; one whose connection was aborted, ECONNABORTED.

    Asked by statvfs: the attributes of the root may still be in the kernel's cache, but nobody caches the answer to this."""
    try:
        os.statvfs(path)
    except OSError as failure:
        return failure.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False
