"""Making, linking, renaming and removing: rights of directories, sticky bits, what is inherited, and the times of all concerned."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

from tests.posix.rules import Case
from tests.posix.syscalls import AT_SYMLINK_FOLLOW, EXCHANGE, NOREPLACE, linkat, make_socket, mkfifo_or_node, renameat2

KINDS = ("file", "dir", "fifo", "sock", "char", "link")


def opened(path: str, flags: int, mode: int = 0o666) -> None:
    os.close(os.open(path, flags | os.O_NONBLOCK, mode))


# ---- making --------------------------------------------------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[str, int], object]] = {
    "open": lambda path, mode: opened(path, os.O_CREAT | os.O_WRONLY, mode),
    "mkdir": os.mkdir,
    "mkfifo": os.mkfifo,
    "mknod": lambda path, mode: mkfifo_or_node(path, stat.S_IFREG | mode),
    "socket": make_socket,
    "device": lambda path, mode: mkfifo_or_node(path, stat.S_IFBLK | mode, os.makedev(7, 300)),
    "symlink": lambda path, mode: os.symlink("t" * max(1, mode), path),
}


def _with_umask(make: Callable[[str, int], object], umask: int, mode: int) -> None:
    os.umask(umask)
    make("d/new", mode)


def making() -> Iterator[Case]:
    for (name, make), mode, umask, user in product(MAKERS.items(), (0, 0o755, 0o7777), (0o022, 0o077), ("root", "one", "member")):
        for directory in ("777 two", "2777 two:team", "1777 two"):
            yield Case(f"{name} {mode:o} under {umask:o}", f"dir d {directory}", user, partial(_with_umask, make, umask, mode))
    for (name, make), kind in product(MAKERS.items(), KINDS):
        there = "link d/new nowhere one" if kind == "link" else f"{kind} d/new 644 one"
        yield Case(
            f"{name} over a {kind}", f"dir d 777; {there}", "one", partial(make, "d/new", 0o755), None if name == "open" else "EEXIST"
        )
    for (name, make), mode, user in product(MAKERS.items(), (0o555, 0o333, 0o666), ("root", "one", "two")):
        yield Case(f"{name} in {mode:o}", f"dir d {mode:o} one", user, partial(make, "d/new", 0o644))
    for bytes_ in (1, 59, 60, 4094, 4095, 4096):
        yield Case(f"symlink to {bytes_} bytes", "", "one", partial(os.symlink, "x" * bytes_, "new"))
    yield Case("symlink to nothing", "", "one", partial(os.symlink, "", "new"), "ENOENT")
    for type_ in (stat.S_IFDIR, stat.S_IFLNK, 0o130000):
        yield Case(f"mknod of type {type_:o}", "", "root", partial(mkfifo_or_node, "new", type_ | 0o600))


# ---- sticky directories --------------------------------------------------------------------------------------------------------------


def _removed(kind: str) -> Callable[[], object]:
    return partial(os.rmdir if kind == "dir" else os.unlink, "d/f")


def sticky() -> Iterator[Case]:
    people = ("root", "one", "two")
    for mode, directory, owner, kind in product(("1777", "777", "1775", "1757"), people, people, ("file", "dir", "link")):
        if kind != "file" and mode != "1777":
            continue
        thing = f"link d/f x {owner}" if kind == "link" else f"{kind} d/f 755 {owner}"
        things, away = f"dir d {mode} {directory}; {thing}", "dir e 777; " + ("dir" if kind == "dir" else "file")
        for user in people if mode == "1777" else ("two",):
            yield Case(f"remove a {kind}", things, user, _removed(kind))
            yield Case(f"rename a {kind} away", f"{things}; dir e 777", user, partial(os.rename, "d/f", "e/new"))
            yield Case(f"rename a {kind} within", things, user, partial(os.rename, "d/f", "d/new"))
            yield Case(f"rename over a {kind}", f"{things}; {away} e/other 755 {user}", user, partial(os.rename, "e/other", "d/f"))
            if kind == "file":
                yield Case("exchange", f"{things}; {away} e/other 755 {user}", user, partial(renameat2, "e/other", "d/f", EXCHANGE))
                yield Case("link in it", things, user, partial(os.link, "d/f", "d/new"))
                yield Case("rename one over another in it", f"{things}; file d/third 644 two", user, partial(os.rename, "d/f", "d/third"))


# ---- unlink, rmdir, link -------------------------------------------------------------------------------------------------------------


def removing() -> Iterator[Case]:
    for kind, user in product(KINDS, ("root", "one")):
        thing = f"link d/f {'x' * 5} one" if kind == "link" else f"{kind} d/f 644 one"
        yield Case(f"unlink a {kind}", f"dir d 777; {thing}", user, partial(os.unlink, "d/f"), "EISDIR" if kind == "dir" else "ok")
        yield Case(f"rmdir a {kind}", f"dir d 777; {thing}", user, partial(os.rmdir, "d/f"), "ok" if kind == "dir" else "ENOTDIR")
        if kind != "dir":
            linked = f"dir d 777; {thing}; dir e; hard e/g d/f"
            yield Case(f"unlink one of two names of a {kind}", linked, user, partial(os.unlink, "d/f"), "ok")
            yield Case(f"link a {kind}", f"dir d 777; {thing}", user, partial(linkat, "d/f", "d/g"), "ok")
            yield Case(
                f"link a {kind}, followed",
                f"dir d 777; {thing}; file d/xxxxx 644 one",
                user,
                partial(linkat, "d/f", "d/g", AT_SYMLINK_FOLLOW),
                "ok",
            )
    yield Case("link a directory", "dir d", "root", partial(linkat, "d", "e"), "EPERM")
    yield Case("link over itself", "file f", "root", partial(linkat, "f", "f"), "EEXIST")
    for owner, mode, user in product(("one", "two", "root"), ("644", "666", "600", "4777", "2777"), ("one", "two", "root", "member")):
        yield Case(f"link a file of {owner} {mode}", f"file f {mode} {owner}:team", user, partial(linkat, "f", "g"))
    for name in (".", "..", "d/.", "d/..", "d/e/..", "d/e/."):
        yield Case(f"rmdir {name}", "dir d; dir d/e", "root", partial(os.rmdir, name))
        yield Case(f"unlink {name}", "dir d; dir d/e", "root", partial(os.unlink, name))
    for inside in ("file d/f", "dir d/f", "link d/f x", "fifo d/f"):
        yield Case(f"rmdir with a {inside.split()[0]} in it", f"dir d; {inside}", "root", partial(os.rmdir, "d"), "ENOTEMPTY")
    for mode, call in product(("555", "333", "666", "0"), (os.unlink, os.rmdir)):
        things = f"dir d 755 one; file d/f 644 one; dir d/g 755 one; dir . {mode} one"
        yield Case(f"{call.__name__} below {mode}", things, "one", partial(call, "d/f" if call is os.unlink else "d/g"))
        things = f"dir d {mode} one; file d/f 644 one; dir d/g 755 one"
        yield Case(f"{call.__name__} in {mode}", things, "one", partial(call, "d/f" if call is os.unlink else "d/g"))


# ---- rename --------------------------------------------------------------------------------------------------------------------------

TARGETS = ("nothing", *KINDS, "full")


def _thing(kind: str, path: str, owner: str = "one") -> str:
    return {"nothing": "", "link": f"link {path} x {owner}", "full": f"dir {path} 755 {owner}; file {path}/in 644 {owner}"}.get(
        kind, f"{kind} {path} 755 {owner}"
    )


def renaming() -> Iterator[Case]:
    for kind, target, flags in product((*KINDS, "full"), TARGETS, (0, NOREPLACE, EXCHANGE)):
        things = f"dir d 777; dir e 777; {_thing(kind, 'd/f')}; {_thing(target, 'e/g')}"
        for user in ("root", "one"):
            yield Case(f"rename a {kind} over {target}, flags {flags}", things, user, partial(renameat2, "d/f", "e/g", flags))
        things = f"dir d 777; {_thing(kind, 'd/f')}; {_thing(target, 'd/g')}"
        yield Case(f"rename a {kind} over {target} within, flags {flags}", things, "one", partial(renameat2, "d/f", "d/g", flags))
    for kind in KINDS[:1] + KINDS[2:]:
        things = f"dir d 777; dir e 777; {_thing(kind, 'd/f')}; hard e/g d/f"
        yield Case(f"rename over another name of itself, a {kind}", things, "one", partial(os.rename, "d/f", "e/g"), "ok")
        yield Case(f"rename a {kind} with two names", f"{things}; file e/h", "one", partial(os.rename, "d/f", "e/h"), "ok")
        yield Case(f"rename over a {kind} with two names", f"{things}; file d/h 644 one", "one", partial(os.rename, "d/h", "e/g"), "ok")
    tree = "dir d 777 one; dir d/e 777 one; dir d/e/f 777 one; file d/h 666 one; dir o 777 one; link l d"
    for source, target in (
        *(("d", "d/e"), ("d", "d/e/new"), ("d", "d/e/f"), ("d/e", "d"), ("d/e/f", "d/e"), ("d", "d"), ("d/h", "d/h"), ("d/e", "d/e/")),
        *((".", "new"), ("..", "new"), ("d/.", "new"), ("d/..", "new"), ("d", "."), ("d", "o/."), ("d", "o/.."), ("o", "d/..")),
        *(("d/h", "new/"), ("d", "new/"), ("d/", "new"), ("d/h/", "new"), ("l/", "new"), ("l", "new/"), ("d/h", "o/"), ("o/", "d/e/f/")),
        *(("l", "o"), ("o", "l"), ("d/h", "l"), ("l", "d/h"), ("d/h", "new/x"), ("none", "none"), ("none", "o/new"), ("d/h", "d/h/x")),
    ):
        for flags in (0, NOREPLACE, EXCHANGE):
            yield Case(f"rename {source} to {target}, flags {flags}", tree, "one", partial(renameat2, source, target, flags))
    yield Case("rename with both flags", tree, "one", partial(renameat2, "d", "o", NOREPLACE | EXCHANGE), "EINVAL")
    yield Case("rename with other flags", tree, "one", partial(renameat2, "d", "o", 64), "EINVAL")
    for mode_from, mode_to, kind, user in product(
        ("777", "555", "333", "666"), ("777", "555", "333", "666"), ("file", "dir"), ("one", "two")
    ):
        things = f"dir d {mode_from} one; dir e {mode_to} one; {_thing(kind, 'd/f')}"
        yield Case(f"rename a {kind} from {mode_from} to {mode_to}", things, user, partial(os.rename, "d/f", "e/f"))
    for mode, owner, user in product(("755", "555", "777"), ("one", "two"), ("one", "root")):  # another parent: ".." is written
        things = f"dir d 777; dir e 777; dir d/f {mode} {owner}; dir e/g {mode} {owner}"
        yield Case(f"move a directory {mode} of {owner}", things, user, partial(os.rename, "d/f", "e/new"))
        yield Case(f"move a directory {mode} of {owner} over one", things, user, partial(os.rename, "d/f", "e/g"))
        yield Case(f"rename a directory {mode} of {owner} within", things, user, partial(os.rename, "d/f", "d/new"))
        yield Case(f"exchange directories {mode} of {owner}", things, user, partial(renameat2, "d/f", "e/g", EXCHANGE))


# ---- open ----------------------------------------------------------------------------------------------------------------------------

FLAGS = {
    "O_RDONLY": os.O_RDONLY,
    "O_WRONLY": os.O_WRONLY,
    "O_RDWR": os.O_RDWR,
    "O_APPEND": os.O_WRONLY | os.O_APPEND,
    "O_CREAT": os.O_CREAT | os.O_WRONLY,
    "O_CREAT to read": os.O_CREAT,
    "O_CREAT|O_EXCL": os.O_CREAT | os.O_EXCL | os.O_WRONLY,
    "O_CREAT|O_TRUNC": os.O_CREAT | os.O_TRUNC | os.O_WRONLY,
    "O_CREAT|O_NOFOLLOW": os.O_CREAT | os.O_NOFOLLOW | os.O_WRONLY,
    "O_CREAT|O_DIRECTORY": os.O_CREAT | os.O_DIRECTORY,
    "O_TRUNC": os.O_TRUNC | os.O_WRONLY,
    "O_TRUNC to read": os.O_TRUNC,
    "O_NOFOLLOW": os.O_NOFOLLOW,
    "O_DIRECTORY": os.O_DIRECTORY,
    "O_DIRECTORY to write": os.O_DIRECTORY | os.O_RDWR,
    "O_PATH": os.O_PATH,
    "O_PATH|O_NOFOLLOW": os.O_PATH | os.O_NOFOLLOW,
    "O_NOATIME": os.O_NOATIME,
    "O_DIRECT": os.O_DIRECT | os.O_RDWR,
    "O_SYNC": os.O_SYNC | os.O_RDWR,
    "3": 3,
}


def opening() -> Iterator[Case]:
    for (name, flags), kind, user in product(FLAGS.items(), (*KINDS, "nothing", "to a file", "to a directory"), ("root", "one", "two")):
        things = {
            "nothing": "",
            "link": "link f nowhere",
            "to a file": "file g 644 one; link f g",
            "to a directory": "dir g 777 one; link f g",
        }.get(kind, f"{kind} f 644 one")
        yield Case(f"open {kind} with {name}", things, user, partial(opened, "f", flags))
    for mode, user, how in product(
        (0, 0o4, 0o2, 0o40, 0o20, 0o400, 0o200, 0o600, 0o66, 0o606), ("one", "two", "member", "root"), (0, 1, 2)
    ):
        yield Case(f"open {mode:o} for {how}", f"file f {mode:o} one:team", user, partial(opened, "f", how))
    for mode, user, wanted in product((0o1, 0o4, 0o2, 0o10, 0o40, 0o100, 0o400, 0), ("one", "two", "member", "root"), (1, 2, 4)):
        for kind in ("file", "dir"):
            yield Case(
                f"access {wanted} to a {kind} {mode:o}",
                f"{kind} f {mode:o} one:team",
                user,
                partial(os.access, "f", wanted, effective_ids=True),
            )
    for mode, user in product((0o1, 0o4, 0o5, 0o10, 0o50, 0o100, 0o500, 0), ("one", "two", "member", "root")):
        yield Case(f"list {mode:o}", f"dir f {mode:o} one:team", user, lambda: sorted(os.listdir("f")))
        yield Case(f"look into {mode:o}", f"dir f {mode:o} one:team; file f/g", user, lambda: os.stat("f/g").st_size)
    for bits in (0o4755, 0o2755, 0o1755):
        yield Case(f"create {bits:o}, not over", "file f", "one", partial(opened, "f", os.O_CREAT | os.O_RDONLY, bits), "ok")
        yield Case(f"create {bits:o}", "", "one", partial(opened, "f", os.O_CREAT | os.O_RDWR, bits), "ok")


CHAPTERS = {"making": making, "sticky": sticky, "removing": removing, "renaming": renaming, "opening": opening}
