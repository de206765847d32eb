"""System calls that `os` lacks, by ctypes; each raises OSError as `os` does."""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path

AnyPath = str | bytes | Path

AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = -100, 0x100, 0x400, 0x1000
NOREPLACE, EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE = 1, 2, 8, 16, 32
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2

_libc = ctypes.CDLL(None, use_errno=True)
Time = tuple[int, int]


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64)]


def _checked(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def renameat2(source: AnyPath, target: AnyPath, flags: int = 0) -> None:
    _checked(_libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags), "renameat2")


def linkat(source: AnyPath, target: AnyPath, flags: int = 0, source_directory: int = AT_FDCWD) -> None:
    _checked(_libc.linkat(source_directory, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags), "linkat")


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    _checked(_libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)), "fallocate")


def utimensat(path: AnyPath, atime: Time, mtime: Time, flags: int = 0) -> None:
    """Times as (seconds, nanoseconds), with UTIME_NOW and UTIME_OMIT for nanoseconds."""
    times = (_Timespec * 2)(_Timespec(*atime), _Timespec(*mtime))
    _checked(_libc.utimensat(AT_FDCWD, os.fsencode(path), times, flags), "utimensat")


def mkfifo_or_node(path: AnyPath, mode: int, device: int = 0) -> None:
    """mknod without libc's own idea of what is allowed."""
    _checked(_libc.mknod(os.fsencode(path), mode, ctypes.c_uint64(device)), "mknod")


def make_socket(path: AnyPath, mode: int = 0o644) -> None:
    mkfifo_or_node(path, stat.S_IFSOCK | mode)


def msync(address: int, length: int) -> None:
    """MS_SYNC."""
    _checked(_libc.msync(ctypes.c_void_p(address), ctypes.c_size_t(length), 4), "msync")


# ---- directories by cookie, and files by handle ----------------------------------------------------------------------------------------


class Directory:
    """opendir, readdir, telldir, seekdir; but for "." and ".."."""

    def __init__(self, path: AnyPath) -> None:
        for name in ("opendir", "readdir"):
            getattr(_libc, name).restype = ctypes.c_void_p
        _libc.telldir.restype = ctypes.c_long
        self._stream = ctypes.c_void_p(_libc.opendir(os.fsencode(path)))
        if not self._stream:
            raise OSError(ctypes.get_errno(), "opendir")

    def read(self) -> bytes | None:
        """The next name; None: the end."""
        while entry := _libc.readdir(self._stream):
            name = ctypes.string_at(entry + 19)  # ino 8, off 8, length 2, type 1
            if name not in (b".", b".."):
                return name
        return None

    def tell(self) -> int:
        return int(_libc.telldir(self._stream))

    def seek(self, cookie: int) -> None:
        _libc.seekdir(self._stream, ctypes.c_long(cookie))

    def close(self) -> None:
        _libc.closedir(self._stream)


class _Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint32), ("type", ctypes.c_int32), ("handle", ctypes.c_uint8 * 128)]


def name_to_handle_at(path: AnyPath) -> bytes:
    """A file handle, for open_by_handle_at()."""
    handle, mount_id = _Handle(128, 0), ctypes.c_int()
    _checked(_libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0), "name_to_handle_at")
    return bytes(handle)


def open_by_handle_at(mount: int, handle: bytes, flags: int) -> int:
    """Opened by its handle; `mount` is a descriptor of anything on the same file system."""
    return _checked(_libc.open_by_handle_at(mount, ctypes.byref(_Handle.from_buffer_copy(handle)), flags), "open_by_handle_at")
