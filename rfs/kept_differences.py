"""Before a node gives its data up for its peer's: what is only here, or different here, goes to STATEDIR/kept/<time>/.

    kept/20261126T101500Z/manifest.jsonl     a line of the comparison for each difference, and how it was saved
    kept/20261126T101500Z/0/a/b              what directory 0 held as a/b

    "saved": "whole"        the file, with all it carries
             "ranges"       a large file of which little differs: only `ranges` are in it, at their places; the rest is as the peer's
             "attributes"   its content is the same: `here` has this node's mode, owner, times and extended attributes
             "nothing"      it is on the peer only

The trees stand still: this node has stepped down. It is checked before the first byte that everything fits, and all is on the disk before
the caller goes on. What cannot be saved whole is taken away again: the trees still have it.
"""

import errno
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfs import exit_codes
from rfs.errors import SaidNo

WHOLE_BYTES = 16 << 20  # smaller files are saved whole, so that a person can look at them
HIDDEN_ATTRIBUTES = "trusted.lockstep."
COPY_BYTES = 1 << 20
SPARE = 0.95

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """Where it went, and how much."""

    place: str
    places: int
    bytes: int


def check_room(trees: Sequence[int], differences: str, state_directory: str) -> None:
    """SaidNo when what differs here does not fit beside it."""
    kept = Path(state_directory, "kept")
    kept.mkdir(mode=0o700, exist_ok=True)
    needed_bytes = sum(_needed_bytes(trees, line) for line in _lines(differences))
    free = os.statvfs(kept)
    free_bytes = free.f_bavail * free.f_frsize
    if needed_bytes > free_bytes * SPARE:
        raise SaidNo(
            f"{kept}: what differs on this node ({_mib(needed_bytes)} MiB) does not fit into the {_mib(free_bytes)} MiB that are free; "
            "make room there, then resolve again: nothing was changed",
            exit_codes.REFUSED,
        )


def _go_on() -> None:
    pass


def save(trees: Sequence[int], differences: str, state_directory: str, go_on: Callable[[], None] = _go_on) -> Kept:
    """All that differs here, durably. `go_on` is asked all the time, and raises when this is to stop."""
    check_room(trees, differences, state_directory)
    place = _new_place(Path(state_directory, "kept"))
    saver = _Saver(trees, place, go_on)
    try:
        with open(place / "manifest.jsonl", "w", encoding="utf-8") as told:
            for line in _lines(differences):
                saver.save(line)
                told.write(json.dumps(line) + "\n")
        saver.dress_directories()
        os.sync()
    except BaseException as failure:
        shutil.rmtree(place, ignore_errors=True)
        if not isinstance(failure, OSError) or failure.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
            raise
        raise SaidNo(
            f"{place}: what differs here cannot be saved ({failure.strerror}); nothing was changed", exit_codes.REFUSED
        ) from failure
    return Kept(str(place), saver.places, saver.bytes)


def _mib(count: int) -> int:
    return (count + (1 << 20) - 1) >> 20


def _lines(differences: str) -> Iterator[Line]:
    with open(differences, encoding="utf-8") as file:
        for text in file:
            yield json.loads(text)


def _new_place(kept: Path) -> Path:
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for number in range(1, 1000):
        place = kept / (moment if number == 1 else f"{moment}-{number}")
        try:
            place.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return place
    raise AssertionError("a thousand resolutions in one second")


# ---- how a difference is saved ----------------------------------------------------------------------------------------------------------


def _way(line: Line) -> str:
    if line["where"] == "there":
        return "nothing"
    if line["where"] == "here" or {"type", "target", "device"} & set(line["what"]):
        return "whole"
    if "content" not in line["what"]:
        return "attributes"
    return "ranges" if line["size_here"] > WHOLE_BYTES and 2 * _ranged_bytes(line) < line["size_here"] else "whole"


def _ranged_bytes(line: Line) -> int:
    return sum(length for _, length in _own_ranges(line))


def _own_ranges(line: Line) -> list[tuple[int, int]]:
    """Those within this node's file."""
    size = line["size_here"]
    return [(offset, min(length, size - offset)) for offset, length in line["ranges"] if offset < size]


def _needed_bytes(trees: Sequence[int], line: Line) -> int:
    way = _way(line)
    if way == "ranges":
        return 8192 + _ranged_bytes(line)
    if way != "whole":
        return 512
    try:
        status = os.stat(os.fsencode(line["path"]) or b".", dir_fd=trees[line["directory"]], follow_symlinks=False)
    except FileNotFoundError:
        return 0
    return 8192 + (status.st_blocks * 512 if stat.S_ISREG(status.st_mode) else 0)


class _Saver:
    def __init__(self, trees: Sequence[int], place: Path, go_on: Callable[[], None]) -> None:
        self.places = 0
        self.bytes = 0
        self._go_on = go_on
        self._trees = trees
        self._place = os.fsencode(place)
        self._links: dict[tuple[int, int], bytes] = {}
        self._directories: list[tuple[str, bytes]] = []

    def save(self, line: Line) -> None:
        self._go_on()
        line["saved"] = _way(line)
        if line["saved"] == "nothing":
            return
        tree = self._trees[line["directory"]]
        source = f"/proc/self/fd/{tree}/{line['path']}" if line["path"] else f"/proc/self/fd/{tree}/."
        try:
            status = os.lstat(source)
        except FileNotFoundError:
            line["saved"] = "gone"  # removed beneath the guard meanwhile: there is nothing to save any more
            return
        self.places += 1
        line["here"] = _attributes(source, status)
        if line["saved"] == "attributes":
            return
        destination = os.path.join(self._place, b"%d" % line["directory"], os.fsencode(line["path"]))
        os.makedirs(os.path.dirname(destination), mode=0o700, exist_ok=True)
        self._copy(source, status, destination, line)

    def _copy(self, source: str, status: os.stat_result, destination: bytes, line: Line) -> None:
        if stat.S_ISDIR(status.st_mode):
            os.makedirs(destination, mode=0o700, exist_ok=True)
            self._directories.append((source, destination))
            return
        known = self._links.get((line["directory"], status.st_ino)) if status.st_nlink > 1 and line["saved"] == "whole" else None
        if known is not None:
            os.link(known, destination, follow_symlinks=False)
            return
        if stat.S_ISREG(status.st_mode):
            self._copy_bytes(source, destination, _own_ranges(line) if line["saved"] == "ranges" else None)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(os.fsencode(source)), destination)
        else:
            os.mknod(destination, status.st_mode, status.st_rdev)
        self._links[line["directory"], status.st_ino] = destination
        _dress(source, destination)

    def _copy_bytes(self, source: str, destination: bytes, ranges: list[tuple[int, int]] | None) -> None:
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        writing = -1
        try:
            writing = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            size = os.fstat(reading).st_size
            os.ftruncate(writing, size)
            for offset, length in _data_of(reading, size) if ranges is None else ranges:
                for part in range(offset, offset + length, COPY_BYTES):
                    self._go_on()
                    self.bytes += _copy_range(reading, writing, part, min(COPY_BYTES, offset + length - part))
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)

    def dress_directories(self) -> None:
        """Last: their times would be lost to what is made in them."""
        for source, destination in reversed(self._directories):
            _dress(source, destination)


def _data_of(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """What is no hole."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as failure:
            if failure.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        yield begin, end - begin


def _copy_range(reading: int, writing: int, offset: int, length: int) -> int:
    done = 0
    while done < length:
        data = os.pread(reading, min(COPY_BYTES, length - done), offset + done)
        if not data:
            break
        written = 0
        while written < len(data):
            written += os.pwrite(writing, data[written:], offset + done + written)
        done += len(data)
    return done


def _xattrs(path: str) -> dict[str, bytes]:
    names = [name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith(HIDDEN_ATTRIBUTES)]
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(names)}


def _attributes(path: str, status: os.stat_result) -> Line:
    return {
        "mode": f"{stat.S_IMODE(status.st_mode):04o}", "uid": status.st_uid, "gid": status.st_gid, "mtime_ns": status.st_mtime_ns,
        "names": status.st_nlink, "number": status.st_ino, "xattrs": {name: value.hex() for name, value in _xattrs(path).items()},
    }  # fmt: skip


def _dress(source: str, destination: bytes) -> None:
    """Owner, mode, times, extended attributes. What the other file system does not take (an attribute) stands in the manifest."""
    status = os.lstat(source)
    os.chown(destination, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(destination, stat.S_IMODE(status.st_mode))
    for name, value in _xattrs(source).items():
        try:
            os.setxattr(destination, name, value, follow_symlinks=False)
        except OSError as failure:
            if failure.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENOSPC, errno.E2BIG):
                raise
    os.utime(destination, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
