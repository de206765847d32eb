"""Whatever takes a path fails alike: what is missing, no directory, a loop, too long, or not to be searched or written."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from functools import partial

from tests.posix.rules import Case
from tests.posix.syscalls import AT_FDCWD, AT_SYMLINK_FOLLOW, UTIME_NOW, linkat, mkfifo_or_node, renameat2, utimensat

PathCall = Callable[[str], object]


def opened(path: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> None:
    os.close(os.open(path, flags | os.O_NONBLOCK, mode))


CALLS: dict[str, PathCall] = {
    "chmod": lambda path: os.chmod(path, 0o600),
    "chown": lambda path: os.chown(path, -1, -1),
    "lchown": lambda path: os.chown(path, -1, -1, follow_symlinks=False),
    "link from": lambda path: linkat(path, "new"),
    "link to": lambda path: linkat("mine", path),
    "link followed": lambda path: linkat(path, "new", AT_SYMLINK_FOLLOW, AT_FDCWD),
    "mkdir": os.mkdir,
    "mkfifo": lambda path: mkfifo_or_node(path, stat.S_IFIFO | 0o640),
    "mknod": lambda path: mkfifo_or_node(path, stat.S_IFCHR | 0o640, os.makedev(1, 3)),
    "mknod of a file": lambda path: mkfifo_or_node(path, stat.S_IFREG | 0o640),
    "open": opened,
    "open to write": lambda path: opened(path, os.O_WRONLY),
    "create": lambda path: opened(path, os.O_CREAT | os.O_WRONLY),
    "create exclusively": lambda path: opened(path, os.O_CREAT | os.O_EXCL | os.O_RDWR),
    "open a directory": lambda path: opened(path, os.O_DIRECTORY),
    "rename from": lambda path: renameat2(path, "new"),
    "rename to": lambda path: renameat2("mine", path),
    "rename a directory to": lambda path: renameat2("own", path),
    "rmdir": os.rmdir,
    "symlink": lambda path: os.symlink("target", path),
    "readlink": lambda path: os.readlink(path),
    "truncate": lambda path: os.truncate(path, 5),
    "unlink": os.unlink,
    "utimensat": lambda path: utimensat(path, (0, UTIME_NOW), (0, UTIME_NOW)),
    "stat": lambda path: os.stat(path).st_mode,
    "lstat": lambda path: os.lstat(path).st_mode,
    "access": lambda path: os.access(path, os.R_OK),
    "list": lambda path: sorted(os.listdir(path)),
    "statvfs": lambda path: os.statvfs(path).f_namemax,
    "getxattr": lambda path: os.getxattr(path, "user.none"),
    "setxattr": lambda path: os.setxattr(path, "user.some", b"1"),
}

NEEDED = {"link to": "file mine 644 one", "rename to": "file mine 644 one", "rename a directory to": "dir own 755 one"}

LONG = "x" * 255
FILE, LINK, LOOP = "dir d 755 one; file d/f 666 one", "dir d 755 one; file d/f 666 one; link to-f d/f; link to-d d", "link loop loop"
LOCKED, NARROW = "dir locked 700 root; file locked/f 666", "dir narrow 755 root; file narrow/f 644; dir narrow/d 755"
PATHS = {  # and what must be there for it
    "there": ("d/f", FILE),
    "a directory": ("e", "dir e 777 one"),
    "a directory that is not empty": ("d", FILE),
    "missing": ("d/none", FILE),
    "missing on the way": ("none/f", ""),
    "nothing": ("", ""),
    "below a file": ("d/f/x", FILE),
    "a file with a slash": ("d/f/", FILE),
    "missing with a slash": ("none/", ""),
    "a directory with a slash": ("e/", "dir e 777 one"),
    "a symbolic link": ("to-f", LINK),
    "a symbolic link to a directory": ("to-d", LINK),
    "... with a slash": ("to-d/", LINK),
    "through a symbolic link": ("to-d/f", LINK),
    "dangling": ("dangling", "link dangling nowhere"),
    "dangling with a slash": ("dangling/", "link dangling nowhere"),
    "a loop": ("loop", LOOP),
    "through a loop": ("loop/f", LOOP),
    "a FIFO": ("p", "fifo p 666 one"),
    "255 bytes": (LONG, ""),
    "256 bytes": (f"{LONG}x", ""),
    "256 bytes on the way": (f"{LONG}x/f", ""),
    "4095 bytes": ("./" * 2046 + "d/f", FILE),
    "4096 bytes": ("./" * 2046 + "d//f", FILE),
    "dot": ("e/.", "dir e 777 one"),
    "dot dot": ("e/..", "dir e 777 one"),
    "itself": (".", ""),
    "not to be searched": ("locked/f", LOCKED),
    "not to be searched, missing": ("locked/none", LOCKED),
    "not to be written": ("narrow/f", NARROW),
    "not to be written, a directory": ("narrow/d", NARROW),
    "not to be written, missing": ("narrow/none", NARROW),
}
ROOT_TOO = ("there", "a directory", "missing", "a symbolic link", "dot dot", "not to be searched", "not to be written", "4096 bytes")


def cases() -> Iterator[Case]:
    for call, do in CALLS.items():
        for name, (path, things) in PATHS.items():
            for user in ("one", "root") if name in ROOT_TOO else ("one",):
                yield Case(f"{call}: {name}", f"{things}; {NEEDED.get(call, '')}", user, partial(do, path))
        if call in ("rmdir", "unlink", "rename from", "rename to"):
            yield Case(f"{call}: the parent", "file mine 644 one", "one", partial(do, ".."))
