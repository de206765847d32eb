"""The C engine as Python sees it. The only module that imports `rfs._engine`.

Three kinds of calls, after the conventions of csrc/rfs_engine.h. Plain ones return at once. Those marked [worker] there do local I/O or
join threads: here they are coroutines that run in a worker thread. What completes later is submitted for a ticket, and its result comes
as an event through an eventfd: here a coroutine that waits for it. So nothing that the engine does can hold up the loop that has to
deliver a grant to it.

`run()` reads the events; tickets wake their waiters, everything else goes to the handler given to it, in order.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from types import ModuleType
from typing import Any

import trio

from rfs.errors import SaidNo
from rfs.patterns import Patterns
from rfs.refuses import Refuses

ROOT_FID = 1  # the virtual root; what is asked of it is asked of the first directory


class Mode(IntEnum):
    """What the engine does with a mutation: `enum rfs_mode`."""

    IDLE = 0
    FROZEN = 1
    UNUSED = 2
    ALONE = 3
    RESYNCING = 4
    PAIRED = 5
    FENCED = 6


class EventKind(IntEnum):
    """`enum rfs_event_kind`."""

    TICKET = 1
    LINK_LOST = 2
    NEED_USED = 3
    DRAINED = 4
    END_RECEIVED = 5
    APPLY_FAILED = 6
    LOCAL_FAILED = 7
    KERNEL_GONE = 8
    RELAY_LOST = 9
    VERIFIED = 10
    BEFORE_LOST = 11
    TREE_CHANGED = 12


class Snapshot(IntEnum):
    """Of what a resync overwrites (csrc/before.c)."""

    NONE = 0
    KEPT = 1
    RESTORING = 2  # cut off while it was put back, which is begun again


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """One event that is not a ticket."""

    kind: EventKind
    result: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Attributes:
    """`rfs_attributes`; times in nanoseconds."""

    ino: int
    size: int
    blocks: int
    rdev: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    nlink: int
    uid: int
    gid: int
    block_bytes: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """`rfs_statistics`."""

    mode: int = 0
    link_up: int = 0
    seq: int = 0
    acked_seq: int = 0
    applied_seq: int = 0
    waiting_ops: int = 0
    oldest_wait_us: int = 0
    tree_bytes: int = 0
    rtt_us: int = 0
    last_heard_us: int = 2**64 - 1
    resync_bytes_done: int = 0
    resync_total_bytes: int = 0
    resync_files_done: int = 0
    resync_total_files: int = 0
    resync_sent_bytes: int = 0
    marked_places: int = 0
    marked_bytes: int = 0
    marked_everything: int = 0
    to_do_bytes: int = 0
    failed: int = 0
    reads: int = 0
    writes: int = 0
    fsyncs: int = 0
    namespace_ops: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    frames_sent: int = 0
    frames_received: int = 0
    frame_bytes_sent: int = 0
    frame_bytes_received: int = 0
    inodes: int = 0
    open_files: int = 0
    relayed: int = 0


@dataclass(frozen=True, slots=True)
class Space:
    """Of the file system below the first directory, in bytes and files: all there is, what is free, what users may have."""

    total_bytes: int
    free_bytes: int
    available_bytes: int
    files: int
    files_free: int

    def __iter__(self) -> Iterator[int]:
        return iter((self.total_bytes, self.free_bytes, self.available_bytes, self.files, self.files_free))

    @staticmethod
    def of(numbers: Sequence[int]) -> "Space | None":
        """As the peer tells it; None when it tells nothing."""
        return Space(*numbers) if len(numbers) == 5 else None

    def smaller(self, other: "Space | None") -> "Space":
        """What both have: a mirrored write needs room on both."""
        return self if other is None else Space(*map(min, self, other))


@dataclass(frozen=True, slots=True)
class SessionParameters:
    """`rfs_session`."""

    session: int
    generation: int
    peer_applied_seq: int = 0
    seq: int = 0
    progress_timeout_us: int = 5_000_000
    fsync_timeout_us: int = 30_000_000
    keepalive_us: int = 1_000_000
    resync_bytes_per_s: int = 0
    ack_disk: int = 0
    everything: int = 0
    direct: int = 0
    fresh: int = 0


@dataclass(frozen=True, slots=True)
class Verification:
    """`rfs_verification`: how far a verify is, or how the last one ended."""

    running: int = 0
    result: int = 0
    bytes_done: int = 0
    total_bytes: int = 0
    files_done: int = 0
    total_files: int = 0
    differences: int = 0
    asked_again: int = 0
    listed: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """`rfs_difference`; the kinds by their names in small letters."""

    directory: int
    kinds: tuple[str, ...]
    fid: int
    offset: int
    length: int
    path: bytes


DIFFERS = (
    *("content", "size", "mode", "owner", "mtime", "xattrs", "target", "device", "type"),
    *("missing", "extra", "object", "unreadable"),
)  # RFS_DIFFERS_*, from the lowest bit on

EventHandler = Callable[[EngineEvent], None]


def _library() -> ModuleType:
    """The compiled module, loaded at first use: the command line's other verbs need none of it."""
    try:
        import rfs._engine as _engine
    except ImportError as failure:
        raise SaidNo(f"the engine is not built ({failure}); run script/bootstrap", 1) from failure
    module: ModuleType = _engine
    return module


def _check(result: int, what: str) -> int:
    """A negative result is -errno."""
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


def hold_memory() -> int:
    """Before any thread starts: see csrc/process.c. 0, or -errno of what the system refused."""
    return int(_library().lib.rfs_hold_memory())


def keep_secrets() -> int:
    """No core file: see csrc/privileges.c, as for the next two. 0, or -errno of what the system refused."""
    return int(_library().lib.rfs_keep_secrets())


def keep_capabilities(mask: int) -> int:
    """This thread and all that it starts; before any thread starts."""
    return int(_library().lib.rfs_keep_capabilities(mask))


def filter_calls() -> int:
    """In all threads, for good."""
    return int(_library().lib.rfs_filter_calls())


# ---- trees: plain directories, guards and mounts --------------------------------------------------------------------------------------


async def tree_open(path: str) -> int:
    """A descriptor of a writable clone of the plain tree at `path`."""
    library = _library().lib
    return _check(await trio.to_thread.run_sync(library.rfs_tree_open, os.fsencode(path)), f"cannot open the tree {path}")


async def tree_probe(tree: int) -> str | None:
    """None when this tree can hold replicas, else the reason."""
    engine = _library()
    reason = engine.ffi.new("char[]", engine.lib.RFS_REASON_BYTES)
    result = await trio.to_thread.run_sync(engine.lib.rfs_tree_probe, tree, reason)
    if result >= 0:
        return None
    text: str = engine.ffi.string(reason).decode(errors="replace")
    return text or os.strerror(-result)


async def lay_guard(path: str) -> None:
    """A read-only clone of what is at `path` over it. (A detached clone cannot be cloned again, so the path's own mount is named.)"""
    tree = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check(await trio.to_thread.run_sync(_library().lib.rfs_guard, tree, os.fsencode(path)), f"cannot lay the guard over {path}")
    finally:
        os.close(tree)


async def detach_mount(path: str, *, abort_connection: bool) -> None:
    """Take the topmost mount off `path`."""
    detach = _library().lib.rfs_detach_mount
    _check(await trio.to_thread.run_sync(detach, os.fsencode(path), int(abort_connection)), f"cannot take the mount off {path}")


class Channel:
    """The bytes of a data link, for a session of the engine: who takes it owns it, else `close` it."""

    def __init__(self, descriptor: int, pointer: Any = None) -> None:
        self.descriptor = descriptor
        self._pointer = pointer

    @staticmethod
    async def secure(descriptor: int, identity: str, peer: str, pins: Sequence[str], *, dialed: bool, timeout_s: float) -> "Channel":
        """The TLS handshake of a connected socket, which is owned by it in any case; OSError says why not."""
        module = _library()
        error, reason = module.ffi.new("int *"), module.ffi.new("char[]", module.lib.RFS_REASON_BYTES)
        path, name, digests = os.fsencode(identity), peer.encode(), b"".join(bytes.fromhex(pin) for pin in pins)
        held = [module.ffi.new("char[]", path), module.ffi.new("char[]", name), module.ffi.new("uint8_t[]", digests)]
        own = module.ffi.new("rfs_identity *", {"path": held[0], "peer": held[1], "pins": held[2], "pin_count": len(pins)})
        timeout_ms = int(timeout_s * 1000)
        with trio.CancelScope(shield=True):
            pointer = await trio.to_thread.run_sync(
                module.lib.rfs_channel_secure, descriptor, own, int(dialed), timeout_ms, error, reason
            )  # fmt: skip
        if pointer == module.ffi.NULL:
            raise OSError(-error[0], module.ffi.string(reason).decode(errors="replace") or os.strerror(-error[0]))
        return Channel(descriptor, pointer)

    def take(self) -> Any:
        """For the engine's calls, which own it from then on."""
        pointer = self._pointer if self._pointer is not None else _library().lib.rfs_channel_plain(self.descriptor)
        if pointer == _library().ffi.NULL:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        self._pointer, self.descriptor = None, -1
        return pointer

    def close(self) -> None:
        """Nobody took it."""
        if self._pointer is not None:
            _library().lib.rfs_channel_close(self._pointer)
        elif self.descriptor >= 0:
            os.close(self.descriptor)
        self._pointer, self.descriptor = None, -1


def _flags(patterns: Patterns) -> list[tuple[str, int]]:
    return [(pattern, 0) for pattern in patterns.exclude] + [(pattern, 1) for pattern in patterns.only]


class Engine:
    """One engine: what serves, mirrors and applies the operations of one module."""

    def __init__(self, trees: Sequence[int], patterns: Sequence[Patterns] = (), refuses: Refuses = Refuses.NOTHING) -> None:
        module = _library()
        self._ffi: Any = module.ffi
        self._lib: Any = module.lib
        error = self._ffi.new("int *")
        self._pointer = self._lib.rfs_engine_new(self._ffi.new("int[]", list(trees)), len(trees), error)
        if self._pointer == self._ffi.NULL:
            raise OSError(abs(error[0]), f"the engine does not start: {os.strerror(abs(error[0]))}")
        self._lib.rfs_set_policy(self._pointer, int(refuses))
        for index, own in enumerate(patterns):
            self.add_patterns(index, own)
        self.peer_space: Space | None = None  # as the peer last said, in a session
        self._tickets: dict[int, trio.MemorySendChannel[int]] = {}
        self._freed = False

    def add_patterns(self, index: int, patterns: Patterns) -> None:
        """Before anything else comes to this directory."""
        for pattern, only in _flags(patterns):
            _check(self._lib.rfs_add_pattern(self._pointer, index, pattern.encode(), only), f"the pattern {pattern}")

    async def add_directory(self, tree: int) -> int:
        """One more, at the end, while idle or alone and without a session (else OSError(EBUSY)); its position."""
        with trio.CancelScope(shield=True):
            index = await trio.to_thread.run_sync(self._lib.rfs_add_directory, self._handle, tree)
        return _check(index, "adding a directory")

    @property
    def _handle(self) -> Any:
        """The C engine, as long as there is one: whoever comes too late gets an error, not freed memory."""
        if self._freed:
            raise OSError(errno.ESHUTDOWN, "the engine was stopped")
        return self._pointer

    async def free(self) -> None:
        """Stop every thread. No call may follow."""
        if not self._freed:
            self._freed = True
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._lib.rfs_engine_free, self._pointer)
            for waiting in self._tickets.values():
                waiting.close()

    async def run(self, handler: EventHandler, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver events until cancelled."""
        descriptor = self._lib.rfs_event_fd(self._handle)
        event = self._ffi.new("rfs_event *")
        task_status.started()
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            try:
                os.read(descriptor, 8)
            except BlockingIOError:
                pass
            while self._lib.rfs_next_event(self._handle, event) == 1:
                if event.kind == EventKind.TICKET:
                    self._complete(event.ticket, event.result)
                else:
                    text = self._ffi.string(event.text).decode(errors="replace")
                    handler(EngineEvent(EventKind(event.kind), event.result, text))

    def _complete(self, ticket: int, result: int) -> None:
        waiting = self._tickets.pop(ticket, None)
        if waiting is not None:
            waiting.send_nowait(result)

    async def _wait(self, ticket: int, what: str) -> int:
        """The result of a submitted call. A waiter that is cancelled leaves the operation itself running."""
        assert ticket > 0, f"the engine gave no ticket for {what}"
        result_in, result_out = trio.open_memory_channel[int](1)
        self._tickets[ticket] = result_in
        try:
            return _check(await result_out.receive(), what)
        except trio.EndOfChannel as failure:
            raise OSError(errno.ESHUTDOWN, f"{what}: the engine was stopped") from failure

    def statistics(self) -> Statistics:
        """Counters of this moment."""
        if self._freed:
            return Statistics()
        raw = self._ffi.new("rfs_statistics *")
        self._lib.rfs_get_statistics(self._handle, raw)
        return Statistics(**{field.name: int(getattr(raw, field.name)) for field in fields(Statistics)})

    # ---- marks ----------------------------------------------------------------------------------------------------------------------

    async def open_marks(self, directory: str) -> bool:
        """Read the intent log that is kept there, before any operation. False: there was none, or it is damaged: everything is marked."""
        result = await trio.to_thread.run_sync(self._lib.rfs_open_marks, self._handle, os.fsencode(directory))
        return _check(result, f"the intent log in {directory}") == 1

    async def begin_checkpoint(self) -> None:
        """Until what was under way is answered; OSError(EAGAIN) when this is no time for one."""
        ticket = self._lib.rfs_submit_checkpoint(self._handle)
        if not ticket:
            raise BlockingIOError(errno.EAGAIN, "not paired as primary")
        await self._wait(ticket, "checkpoint")

    async def end_checkpoint(self) -> None:
        """Both nodes are durable, and `base` is: what was not touched since is marked no more."""
        with trio.CancelScope(shield=True):
            _check(await trio.to_thread.run_sync(self._lib.rfs_end_checkpoint, self._handle), "the end of the checkpoint")

    async def forget_marks(self) -> None:
        """The peer's checkpoint covers what is marked here."""
        with trio.CancelScope(shield=True):
            _check(await trio.to_thread.run_sync(self._lib.rfs_forget_marks, self._handle), "dropping the marks")

    async def mark_directory(self, index: int) -> None:
        """The entries of this directory may differ on the peer: the next session lists it."""
        with trio.CancelScope(shield=True):
            _check(await trio.to_thread.run_sync(self._lib.rfs_mark_directory, self._handle, index), "marking a directory")

    async def mark_everything(self) -> None:
        """Doubt: the next session compares everything."""
        with trio.CancelScope(shield=True):
            _check(await trio.to_thread.run_sync(self._lib.rfs_mark_everything, self._handle), "marking everything")

    # ---- the kernel side ------------------------------------------------------------------------------------------------------------

    async def kernel_open(self) -> int:
        """A new kernel connection; returns its mount's descriptor."""
        return _check(await trio.to_thread.run_sync(self._lib.rfs_kernel_open, self._handle), "cannot open a FUSE connection")

    async def kernel_attach(self, mount: int, index: int, path: str) -> None:
        """Move the subtree of one directory over its path."""
        attach = self._lib.rfs_kernel_attach
        result = await trio.to_thread.run_sync(attach, self._handle, mount, index, os.fsencode(path))
        _check(result, f"cannot mount over {path}")

    async def kernel_close(self) -> None:
        """End the kernel connection."""
        _check(await trio.to_thread.run_sync(self._lib.rfs_kernel_close, self._handle), "cannot close the FUSE connection")

    def relay_open(self) -> int:
        """A descriptor for pyfuse3, owned by the caller."""
        return _check(self._lib.rfs_relay_open(self._handle), "cannot open the relay")

    # ---- roles ----------------------------------------------------------------------------------------------------------------------

    # A change of state waits for the operations that are under way, and those for their disk: never on the loop's thread.

    async def become_primary(self, term: int, node_bit: int) -> None:
        """A primary starts, frozen."""
        become = self._lib.rfs_become_primary
        _check(await trio.to_thread.run_sync(become, self._handle, term, node_bit), "cannot become primary")

    async def demote(self) -> None:
        """Stop being primary in order; OSError(EAGAIN) when the link was lost meanwhile."""
        await self._wait(self._lib.rfs_submit_demote(self._handle), "demote")

    async def grant(self, generation: int, *, used: bool) -> None:
        """Go on without the peer under `generation`, which is durable."""
        _check(await trio.to_thread.run_sync(self._lib.rfs_grant, self._handle, generation, int(used)), "grant")

    async def set_used(self) -> None:
        """`used` is durable."""
        _check(await trio.to_thread.run_sync(self._lib.rfs_set_used, self._handle), "set used")

    async def fence(self) -> None:
        """The peer owns the data."""
        _check(await trio.to_thread.run_sync(self._lib.rfs_fence, self._handle), "fence")

    async def sync(self) -> None:
        """Make everything in all trees durable."""
        await self._wait(self._lib.rfs_submit_sync(self._handle), "sync")

    # ---- a session ------------------------------------------------------------------------------------------------------------------

    def _session(self, parameters: SessionParameters) -> Any:
        raw = self._ffi.new("rfs_session *")
        for field in fields(SessionParameters):
            setattr(raw, field.name, getattr(parameters, field.name))
        return raw

    async def _with_channel(
        self, start: Callable[..., int], channel: Channel, parameters: SessionParameters, *more: int, what: str
    ) -> None:
        """Not to be cancelled between the taking of the channel and the call that owns it."""
        with trio.CancelScope(shield=True):
            _check(await trio.to_thread.run_sync(start, self._handle, channel.take(), self._session(parameters), *more), what)

    async def session_source(self, channel: Channel, parameters: SessionParameters) -> None:
        """A full session as source; the engine owns the channel from here on."""
        await self._with_channel(self._lib.rfs_session_source, channel, parameters, what="session as source")

    async def session_resume(self, channel: Channel, parameters: SessionParameters) -> None:
        """Ship the waiting window again."""
        await self._with_channel(self._lib.rfs_session_resume, channel, parameters, what="resume the session")

    async def session_target(self, channel: Channel, parameters: SessionParameters, *, resume: bool) -> None:
        """A session as target."""
        await self._with_channel(self._lib.rfs_session_target, channel, parameters, int(resume), what="session as target")

    async def send_end(self) -> bool:
        """END into the stream of ops. False: an op has left something to do since DRAINED, which comes once more."""
        result = await trio.to_thread.run_sync(self._lib.rfs_send_end, self._handle)
        return result != -errno.EAGAIN and _check(result, "send the end of the resync") == 0

    async def purge_holding(self, *, arriving: bool = False, confirmed: bool = False) -> int:
        """Throw away what waited in the holding directory. Returns in how many directories it was more than what is left, and was set aside
        (csrc/brake.c): never where a person's word covers it."""
        what = self._lib.RFS_ARRIVING if arriving else self._lib.RFS_HELD | (self._lib.RFS_CONFIRMED if confirmed else 0)
        return _check(await trio.to_thread.run_sync(self._lib.rfs_purge_holding, self._handle, what), "purge the holding directory")

    async def discard_set_aside(self) -> None:
        """What the brake has set aside is gone for good."""
        _check(await trio.to_thread.run_sync(self._lib.rfs_discard_set_aside, self._handle), "remove what was set aside")

    async def begin_before(self, *, whole: bool) -> Snapshot:
        """Before INCONSISTENT is durable: what the resync overwrites is kept. `whole`: a new snapshot; else the one there is goes on."""
        with trio.CancelScope(shield=True):
            state = _check(await trio.to_thread.run_sync(self._lib.rfs_before_begin, self._handle, int(whole)), "the snapshot of before")
        return Snapshot(state)

    async def end_before(self) -> None:
        """The copy is whole: what it was before is thrown away."""
        _check(await trio.to_thread.run_sync(self._lib.rfs_before_end, self._handle), "throwing the snapshot of before away")

    async def restore_before(self) -> None:
        """Everything as it was before the resync, durably. Idle, without a session; may be done again."""
        with trio.CancelScope(shield=True):
            _check(await trio.to_thread.run_sync(self._lib.rfs_before_restore, self._handle), "putting the snapshot of before back")

    def snapshot(self) -> Snapshot:
        """What there is on this node's disks now."""
        return Snapshot(self._lib.rfs_before_state(self._handle))

    async def session_turn(self, *, now_source: bool) -> None:
        """The other side ships from here on."""
        _check(await trio.to_thread.run_sync(self._lib.rfs_session_turn, self._handle, int(now_source)), "turn the session")

    async def session_close(self) -> None:
        """End the session: a target has applied what it received, a source is frozen."""
        with trio.CancelScope(shield=True):
            _check(await trio.to_thread.run_sync(self._lib.rfs_session_close, self._handle), "close the session")

    # ---- verify ---------------------------------------------------------------------------------------------------------------------

    async def verify_start(self) -> None:
        """Compare both copies of a whole pair; OSError(EBUSY): that is being done, OSError(ENOTCONN): not the source of a pair."""
        _check(await trio.to_thread.run_sync(self._lib.rfs_verify_start, self._handle), "cannot verify")

    async def verify_stop(self) -> None:
        """What was found stands."""
        await trio.to_thread.run_sync(self._lib.rfs_verify_stop, self._handle)

    def verification(self) -> Verification:
        """Of this moment."""
        raw = self._ffi.new("rfs_verification *")
        self._lib.rfs_verify_progress(self._handle, raw)
        return Verification(**{field.name: int(getattr(raw, field.name)) for field in fields(Verification)})

    def difference(self, index: int) -> Difference | None:
        """What the verify has found, by its number; None: there is no more."""
        raw = self._ffi.new("rfs_difference *")
        if self._lib.rfs_verify_difference(self._handle, index, raw) < 0:
            return None
        kinds = tuple(name for bit, name in enumerate(DIFFERS) if raw.kinds >> bit & 1)
        return Difference(int(raw.directory), kinds, int(raw.fid), int(raw.offset), int(raw.length), self._ffi.string(raw.path))

    # ---- cold operations ------------------------------------------------------------------------------------------------------------

    def _attributes(self, raw: Any) -> Attributes:
        return Attributes(**{field.name: int(getattr(raw, field.name)) for field in fields(Attributes)})

    def lookup_attributes(self, fid: int) -> Attributes:
        """What is known of `fid` now."""
        raw = self._ffi.new("rfs_attributes *")
        _check(self._lib.rfs_lookup_attributes(self._handle, fid, raw), "attributes")
        return self._attributes(raw)

    def readlink(self, fid: int) -> bytes:
        """A symbolic link's target."""
        target = self._ffi.new("char[]", self._lib.RFS_TARGET_BYTES + 1)
        _check(self._lib.rfs_readlink(self._handle, fid, target), "readlink")
        value: bytes = self._ffi.string(target)
        return value

    def list_xattrs(self, fid: int) -> list[bytes]:
        """The names that applications may see."""
        size_bytes = 65536  # the kernel's own limit, XATTR_LIST_MAX
        names = self._ffi.new("char[]", size_bytes)
        used_bytes = _check(self._lib.rfs_list_xattrs(self._handle, fid, names, size_bytes), "listxattr")
        listed = bytes(self._ffi.buffer(names, used_bytes))
        return [name for name in listed.split(b"\0") if name]

    def statfs(self, fid: int) -> tuple[int, ...]:
        """bsize frsize blocks bfree bavail files ffree namemax"""
        out = self._ffi.new("uint64_t[8]")
        _check(self._lib.rfs_statfs(self._handle, fid, out), "statfs")
        return tuple(int(value) for value in out)

    def space(self) -> Space:
        """Of the first directory, on this node."""
        _, unit, blocks, free, available, files, files_free, _ = self.statfs(ROOT_FID)
        return Space(blocks * unit, free * unit, available * unit, files, files_free)

    async def symlink(self, parent: int, name: bytes, target: bytes, uid: int, gid: int) -> Attributes:
        """Make a symbolic link."""
        return await self._entry(self._lib.rfs_submit_symlink(self._handle, parent, name, target, uid, gid), "symlink")

    async def link(self, fid: int, parent: int, name: bytes) -> Attributes:
        """Make a hard link."""
        return await self._entry(self._lib.rfs_submit_link(self._handle, fid, parent, name), "link")

    async def mknod(self, parent: int, name: bytes, mode: int, umask: int, rdev: int, uid: int, gid: int) -> Attributes:
        """Make a special or empty file."""
        return await self._entry(self._lib.rfs_submit_mknod(self._handle, parent, name, mode, umask, rdev, uid, gid), "mknod")

    async def _entry(self, ticket: int, what: str) -> Attributes:
        await self._wait(ticket, what)
        raw = self._ffi.new("rfs_attributes *")
        _check(self._lib.rfs_take_entry(self._handle, ticket, raw), what)
        return self._attributes(raw)
