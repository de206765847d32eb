"""What a peer that has the key and means ill sends, and what must come of it. One row each: its name, the kind of weakness (and whose it
was), how it is played, and the outcome.

    REFUSED   no honest peer sends it: the link ends with a sentence, this copy is as it was, and nobody says that it cannot follow
    LEFT      it might be a difference of the copies: nothing is done, this copy says that it cannot follow, and the session ends
    HARMLESS  it is done, or nothing is, and the session goes on

In each of them nothing outside the tree changes, and the next session is served.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from tests.hostile.frames import FIRST_OBJECT, GENERATION, ROOT, SESSION, U32, U64, Body, Flag, Has, Header, Type, xattr
from tests.hostile.world import DIRECTORY, FIFO, FILE, INNER, LIB, LINK, NEW, World

REG, DIR, LNK = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK
SOCK, FIFO_TYPE, CHR, BLK = stat.S_IFSOCK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK
HALF = 2**63
OUTSIDE_NAME = b"../../outside/file"
HOLDING, KEPT, BEFORE = b".lockstep-holding", b".lockstep-kept", b".lockstep-before"
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, 7, U32) for tag in (1, 4, 32))


class Ends(Enum):
    """See the module's text."""

    REFUSED = auto()
    LEFT = auto()
    HARMLESS = auto()


@dataclass(frozen=True, slots=True)
class Case:
    """One of them."""

    name: str
    weakness: str
    ends: Ends
    play: Callable[[World], None]
    then: Callable[[World], None] | None = None  # what must be so afterwards
    refuses: int = 0  # the module's policy
    exclude: str = ""  # what is local
    code: int = 0  # of a LEFT: the errno that it is told with


CASES: list[Case] = []


def case(name: str, weakness: str, ends: Ends, play: Callable[[World], None], **more: object) -> None:
    """A row."""
    assert all(known.name != name for known in CASES), name
    CASES.append(Case(name, weakness, ends, play, **more))  # type: ignore[arg-type]


def op(type: int, **fields: object) -> Callable[[World], None]:
    """One frame after a tree was made."""

    def play(world: World) -> None:
        world.furnish()
        world.op(type, **fields)  # type: ignore[arg-type]

    return play


def listed(type: int, **fields: object) -> Callable[[World], None]:
    """The same in a listing of the root."""

    def play(world: World) -> None:
        world.furnish()
        world.op(Type.BEGIN)
        world.op(type, **fields)  # type: ignore[arg-type]

    return play


def wrote(fid: int, **fields: object) -> Callable[[World], None]:
    """Bytes after a tree was made."""

    def play(world: World) -> None:
        world.furnish()
        world.write(fid, **({"data": b"hostile"} | fields))  # type: ignore[arg-type]

    return play


def raw(header: Header, payload: bytes = b"") -> Callable[[World], None]:
    """A frame as it is, with the next number."""

    def play(world: World) -> None:
        world.furnish()
        world.frame(header, payload)

    return play


# ---- no name leads out of the tree ------------------------------------------------------------------------------------------------------

ESCAPE = "a name that leaves the directory (rsync 2022-29154, 53785; glusterfs 2018-14653)"
for label, bad in (
    ("dot-dot", b".."), ("dot", b"."), ("slashes", OUTSIDE_NAME), ("absolute", b"/etc/hostile"), ("empty", b""), ("a NUL", b"f\0g"),
):  # fmt: skip
    case(f"create with a name that is {label}", ESCAPE, Ends.REFUSED, op(Type.CREATE, name=bad, child=NEW, mode=REG | 0o644))
case("make a directory above", ESCAPE, Ends.REFUSED, op(Type.MKDIR, name=b"../made", child=NEW, mode=DIR | 0o755))
case("make a node above", ESCAPE, Ends.REFUSED, op(Type.MKNOD, name=b"../made", child=NEW, mode=FIFO_TYPE | 0o644))
case("make a link above", ESCAPE, Ends.REFUSED, op(Type.SYMLINK, name=b"../made", child=NEW, mode=LNK | 0o777, data=b"f"))
case("link to above", ESCAPE, Ends.REFUSED, op(Type.LINK, name=b"../made", other=FILE))
case("unlink above", ESCAPE, Ends.REFUSED, op(Type.UNLINK, name=OUTSIDE_NAME, child=FILE, header_flags=Flag.LAST_NAME))
case("remove the directory above", ESCAPE, Ends.REFUSED, op(Type.RMDIR, name=b"..", child=DIRECTORY))
case("rename to above", ESCAPE, Ends.REFUSED, op(Type.RENAME, name=b"f", name2=b"..", other=ROOT, child=FILE))
case("rename to the outside", ESCAPE, Ends.REFUSED, op(Type.RENAME, name=b"f", name2=OUTSIDE_NAME, other=ROOT, child=FILE))
case("rename from above", ESCAPE, Ends.REFUSED, op(Type.RENAME, name=b"../neighbour", name2=b"mine", other=ROOT, child=FILE))
case("place above", ESCAPE, Ends.REFUSED, op(Type.PLACE, name=b"..", child=FILE))
case("bind above", ESCAPE, Ends.REFUSED, op(Type.BIND, name=b"..", child=NEW))
case("list a name above", ESCAPE, Ends.REFUSED, listed(Type.ENTRY, name=b"..", child=NEW, mode=DIR | 0o755))
case(
    "list a small file outside",
    ESCAPE,
    Ends.REFUSED,
    listed(Type.SMALL_FILE, name=OUTSIDE_NAME, child=NEW, mode=REG | 0o644, data=b"x", length=1),
)
case("verify a name above", ESCAPE, Ends.REFUSED, op(Type.VERIFY_ATTRIBUTES, fid=NEW, other=ROOT, name=b"..", data=bytes(32)))

LENGTH = "lengths that lie (rsync 2024-12084; corosync 2025-30472)"
case("a name longer than any", LENGTH, Ends.REFUSED, op(Type.CREATE, name=b"n" * 256, child=NEW, mode=REG | 0o644))
case("a name longer than the frame", LENGTH, Ends.REFUSED, op(Type.CREATE, name=b"n", name_bytes=200, child=NEW, mode=REG | 0o644))
case(
    "data longer than the frame", LENGTH, Ends.REFUSED, op(Type.SYMLINK, name=b"n", child=NEW, mode=LNK | 0o777, data=b"f", data_bytes=U32)
)
case("a body that is cut off", LENGTH, Ends.REFUSED, raw(Header(type=Type.MKDIR, fid=ROOT), bytes(20)))
case("a target with a NUL", LENGTH, Ends.REFUSED, op(Type.SYMLINK, name=b"n", child=NEW, mode=LNK | 0o777, data=b"f\0g"))
case("a target longer than any", LENGTH, Ends.REFUSED, op(Type.SYMLINK, name=b"n", child=NEW, mode=LNK | 0o777, data=b"f" * 5000))

OURS = "names that are the engine's own"
for reserved in (HOLDING, KEPT, BEFORE):
    word = reserved.decode()
    case(f"create {word}", OURS, Ends.REFUSED, op(Type.CREATE, name=reserved, child=NEW, mode=REG | 0o644))
    case(f"rename over {word}", OURS, Ends.REFUSED, op(Type.RENAME, name=b"f", name2=reserved, other=ROOT, child=FILE))
    case(f"list {word}", OURS, Ends.REFUSED, listed(Type.ENTRY, name=reserved, child=NEW, mode=DIR | 0o755))
case("unlink the snapshot of before", OURS, Ends.REFUSED, op(Type.RMDIR, name=BEFORE, child=DIRECTORY))
case("bind the holding directory", OURS, Ends.REFUSED, op(Type.BIND, name=HOLDING, child=NEW))


def _verify_holding(world: World) -> None:
    world.furnish()
    (world.tree / HOLDING.decode()).mkdir(exist_ok=True)
    world.op(Type.VERIFY_ATTRIBUTES, fid=0, other=ROOT, name=HOLDING, data=bytes(32))


def _holding_has_no_id(world: World) -> None:
    assert os.listxattr(world.tree / HOLDING.decode()) == []


case("verify the holding directory", OURS, Ends.HARMLESS, _verify_holding, then=_holding_has_no_id)

# ---- no link is followed ----------------------------------------------------------------------------------------------------------------

FOLLOWED = "a link that is followed (rsync 2024-12087, 2024-12088, 53796; glusterfs 2018-14651)"
THROUGH = "attributes or ACLs set through a link (rsync 53799)"
case("write through a link", FOLLOWED, Ends.LEFT, wrote(LINK), code=errno.EINVAL)
case("write a block through a link", FOLLOWED, Ends.LEFT, wrote(LINK, type=Type.BLOCK), code=errno.EUCLEAN)
case("allocate through a link", FOLLOWED, Ends.LEFT, op(Type.FALLOCATE, fid=LINK, length=4096), code=errno.EINVAL)
case("copy from a link's target", FOLLOWED, Ends.LEFT, op(Type.COPY, fid=FILE, other=LINK, length=5), code=errno.EINVAL)
case("copy to a link's target", FOLLOWED, Ends.LEFT, op(Type.COPY, fid=LINK, other=FILE, length=5), code=errno.EINVAL)
case("sync a link's target", FOLLOWED, Ends.LEFT, op(Type.FSYNC, fid=LINK, header_flags=Flag.DURABLE), code=errno.EUCLEAN)
case("truncate through a link", FOLLOWED, Ends.LEFT, op(Type.SET_ATTRIBUTES, fid=LINK, flags=Has.SIZE, length=0), code=errno.EINVAL)
case("set a link's size", FOLLOWED, Ends.LEFT, op(Type.SIZE, fid=LINK, length=0), code=errno.EUCLEAN)
case("hash what a link leads to", "reading through a link (rsync 2024-12086)", Ends.LEFT,
     op(Type.HASHES, fid=LINK, length=4096, data=bytes(16)), code=errno.EUCLEAN)  # fmt: skip
case("chmod through a link", THROUGH, Ends.LEFT, op(Type.SET_ATTRIBUTES, fid=LINK, flags=Has.MODE, mode=LNK | 0o777), code=errno.EOPNOTSUPP)
case("chmod a link as if it were a file", THROUGH, Ends.REFUSED, op(Type.SET_ATTRIBUTES, fid=LINK, flags=Has.MODE, mode=REG | 0o777))
case("chown a link", THROUGH, Ends.HARMLESS, op(Type.SET_ATTRIBUTES, fid=LINK, flags=Has.UID | Has.GID, uid=65534, gid=65534))
case("times of a link", THROUGH, Ends.HARMLESS, op(Type.SET_ATTRIBUTES, fid=LINK, flags=Has.MTIME | Has.ATIME))
case("user attribute through a link", THROUGH, Ends.LEFT, op(Type.SET_XATTR, fid=LINK, name=b"user.hostile", data=b"1"), code=errno.EPERM)
case("trusted attribute of a link", THROUGH, Ends.HARMLESS, op(Type.SET_XATTR, fid=LINK, name=b"trusted.hostile", data=b"1"))
case(
    "ACL through a link", THROUGH, Ends.LEFT, op(Type.SET_XATTR, fid=LINK, name=b"system.posix_acl_access", data=ACL), code=errno.EOPNOTSUPP
)
case("attributes of a file for a link", THROUGH, Ends.LEFT, op(Type.ATTRIBUTES, fid=LINK, mode=REG | 0o777), code=errno.EUCLEAN)
case("all attributes of a link", THROUGH, Ends.HARMLESS, op(Type.ATTRIBUTES, fid=LINK, mode=LNK | 0o777, uid=65534, gid=65534))
case("create below a link", FOLLOWED, Ends.LEFT, op(Type.CREATE, fid=LINK, name=b"n", child=NEW, mode=REG | 0o644), code=errno.ENOTDIR)
case("unlink below a link", FOLLOWED, Ends.LEFT, op(Type.UNLINK, fid=LINK, name=b"below", child=NEW), code=errno.ENOTDIR)


def _list_link(world: World) -> None:
    world.furnish()
    world.op(Type.SYMLINK, name=b"way", child=NEW, mode=LNK | 0o777, data=os.fsencode(world.outside / "directory"))
    world.op(Type.BEGIN, fid=NEW)
    world.op(Type.ENTRY, fid=NEW, name=b"n", child=NEW + 1, mode=REG | 0o644)


case("list what a link leads to", FOLLOWED, Ends.LEFT, _list_link, code=errno.EUCLEAN)

SWAPPED = "a component swapped for a link behind the receiver's back (rsync 2024-12747, 2026-29518, 43619, 53797)"


def _swap(world: World, name: str, target: str) -> None:
    world.furnish()
    world.outcome()  # it is there
    os.rename(world.tree / name, world.tree / "elsewhere")
    os.symlink(world.outside / target, world.tree / name)
    world.watch()


def _swapped_directory(world: World) -> None:
    _swap(world, "d", "directory")
    world.op(Type.CREATE, fid=DIRECTORY, name=b"made", child=NEW, mode=REG | 0o644)
    world.op(Type.UNLINK, fid=DIRECTORY, name=b"inner", child=INNER, header_flags=Flag.LAST_NAME)


def _went_to_the_directory(world: World) -> None:
    assert (world.tree / "elsewhere" / "made").exists() and not (world.tree / "elsewhere" / "inner").exists()


case("a directory swapped for a link", SWAPPED, Ends.HARMLESS, _swapped_directory, then=_went_to_the_directory)


def _swapped_file(world: World) -> None:
    _swap(world, "f", "file")
    world.write(FILE, b"hostile")
    world.op(Type.SET_ATTRIBUTES, fid=FILE, flags=Has.MODE | Has.UID, mode=REG | 0o4777, uid=65534)
    world.op(Type.SET_XATTR, fid=FILE, name=b"user.hostile", data=b"1")
    world.op(Type.SET_XATTR, fid=FILE, name=b"system.posix_acl_access", data=ACL)


case("a file swapped for a link", SWAPPED, Ends.HARMLESS, _swapped_file)


def _swapped_removed(world: World) -> None:
    _swap(world, "f", "file")
    os.unlink(world.tree / "elsewhere")
    world.op(Type.SET_XATTR, fid=FILE, name=b"user.hostile", data=b"1")


case("a file gone and a link in its place", SWAPPED, Ends.HARMLESS, _swapped_removed)


def _swapped_unlink(world: World) -> None:
    _swap(world, "f", "file")
    world.op(Type.UNLINK, name=b"f", child=FILE, header_flags=Flag.LAST_NAME)


case("unlink a link that stands for a file", SWAPPED, Ends.LEFT, _swapped_unlink, code=errno.EUCLEAN)


def _swapped_listing(world: World) -> None:
    _swap(world, "d", "directory")
    os.rename(world.tree / "elsewhere", world.outside / "moved")
    world.watch()
    world.op(Type.BEGIN)
    world.op(Type.ENTRY, name=b"mine", child=DIRECTORY, mode=DIR | 0o755)  # not from where it is: another is made here


case("fetch a directory that was moved out of the tree", SWAPPED, Ends.HARMLESS, _swapped_listing)

# ---- what an object is ------------------------------------------------------------------------------------------------------------------

OPENED = "a device or a pipe that is opened (rsync 2020-14387's kin; 53786)"


def _small_into(mode: int, rdev: int = 0) -> Callable[[World], None]:
    def play(world: World) -> None:
        world.op(Type.MKNOD, name=b"n", child=NEW, mode=mode | 0o666, rdev=rdev)
        world.op(Type.BEGIN)
        world.op(Type.SMALL_FILE, name=b"n", child=NEW, mode=REG | 0o644, data=b"hostile", length=7)

    return play


case("a small file into a character device", OPENED, Ends.LEFT, _small_into(CHR, os.makedev(1, 8)), code=errno.EUCLEAN)
case("a small file into a block device", OPENED, Ends.LEFT, _small_into(BLK, os.makedev(7, 250)), code=errno.EUCLEAN)
case("a small file into a FIFO", OPENED, Ends.LEFT, _small_into(FIFO_TYPE), code=errno.EUCLEAN)
case("a small file into a socket", "a failing disk feigned by an open that cannot be", Ends.LEFT, _small_into(SOCK), code=errno.EUCLEAN)
case("write into a FIFO", OPENED, Ends.LEFT, wrote(FIFO), code=errno.EINVAL)
case("sync a FIFO", OPENED, Ends.LEFT, op(Type.FSYNC, fid=FIFO, header_flags=Flag.DURABLE), code=errno.EUCLEAN)

TYPES = "one id for two objects of different types"
case(
    "list a directory's id as a file",
    TYPES,
    Ends.LEFT,
    listed(Type.ENTRY, name=b"d", child=DIRECTORY, mode=REG | 0o644),
    code=errno.EUCLEAN,
)
case("list a file's id as a directory", TYPES, Ends.LEFT, listed(Type.ENTRY, name=b"f", child=FILE, mode=DIR | 0o755), code=errno.EUCLEAN)
case("list a file's id as a device", TYPES, Ends.LEFT, listed(Type.ENTRY, name=b"f", child=FILE, mode=BLK | 0o600), code=errno.EUCLEAN)
case("write to a directory", TYPES, Ends.LEFT, wrote(DIRECTORY), code=errno.EINVAL)
case("end a file's listing", TYPES, Ends.REFUSED, op(Type.END_OF_DIRECTORY, fid=FILE, mode=REG | 0o644))
case("a node that is a directory", TYPES, Ends.REFUSED, op(Type.MKNOD, name=b"n", child=NEW, mode=DIR | 0o755))
case("a node that is a link", TYPES, Ends.REFUSED, op(Type.MKNOD, name=b"n", child=NEW, mode=LNK | 0o777))
case("a node of no type", TYPES, Ends.REFUSED, op(Type.MKNOD, name=b"n", child=NEW, mode=U32))
case("an entry of no type", TYPES, Ends.REFUSED, listed(Type.ENTRY, name=b"n", child=NEW, mode=0o644))
case("a whiteout, which is a device", OPENED, Ends.REFUSED, op(Type.RENAME, name=b"f", name2=b"g", other=ROOT, child=FILE, flags=4))
case("rename with every flag", TYPES, Ends.REFUSED, op(Type.RENAME, name=b"f", name2=b"g", other=ROOT, child=FILE, flags=U32))

POLICY = "device nodes and setuid against the module's policy (rsync --no-devices, fake super)"
NO_DEVICES, NO_SETUID = LIB.RFS_REFUSE_DEVICES, LIB.RFS_REFUSE_SETUID
case(
    "a device where none may be",
    POLICY,
    Ends.REFUSED,
    op(Type.MKNOD, name=b"n", child=NEW, mode=BLK | 0o666, rdev=2048),
    refuses=NO_DEVICES,
)
case(
    "a listed device where none may be",
    POLICY,
    Ends.REFUSED,
    listed(Type.ENTRY, name=b"n", child=NEW, mode=CHR | 0o666),
    refuses=NO_DEVICES,
)
case("a setuid file where none may be", POLICY, Ends.REFUSED, op(Type.CREATE, name=b"n", child=NEW, mode=REG | 0o4755), refuses=NO_SETUID)
case(
    "setuid where none may be",
    POLICY,
    Ends.REFUSED,
    op(Type.SET_ATTRIBUTES, fid=FILE, flags=Has.MODE, mode=REG | 0o4755),
    refuses=NO_SETUID,
)
case("setuid in a directory's clothes", POLICY, Ends.REFUSED,
     op(Type.SET_ATTRIBUTES, fid=FILE, flags=Has.MODE, mode=DIR | 0o4755), refuses=NO_SETUID)  # fmt: skip
case("a small setgid file where none may be", POLICY, Ends.REFUSED,
     listed(Type.SMALL_FILE, name=b"n", child=NEW, mode=REG | 0o2755, data=b"x", length=1), refuses=NO_SETUID)  # fmt: skip
case("capabilities where none may be", POLICY, Ends.REFUSED,
     op(Type.SET_XATTR, fid=FILE, name=b"security.capability", data=bytes(20)), refuses=NO_SETUID)  # fmt: skip
case("capabilities in a row where none may be", POLICY, Ends.REFUSED,
     op(Type.ATTRIBUTES, fid=FILE, mode=REG | 0o755, data=xattr(b"security.capability", bytes(20))), refuses=NO_SETUID)  # fmt: skip
case("a setgid directory gives nobody rights", POLICY, Ends.HARMLESS,
     op(Type.MKDIR, name=b"n", child=NEW, mode=DIR | 0o2755), refuses=NO_SETUID)  # fmt: skip


def _owned_and_setuid(world: World) -> None:
    status = (world.tree / "n").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (65534, 0o4755)


case("setuid comes after the owner", POLICY, Ends.HARMLESS,
     op(Type.CREATE, name=b"n", child=NEW, mode=REG | 0o4755, uid=65534, gid=65534), then=_owned_and_setuid)  # fmt: skip

# ---- numbers ----------------------------------------------------------------------------------------------------------------------------

NOBODY = "an unknown owner becomes root (rsync 53798)"
case("create for nobody", NOBODY, Ends.REFUSED, op(Type.CREATE, name=b"n", child=NEW, mode=REG | 0o4755, uid=U32))
case("make a directory for no group", NOBODY, Ends.REFUSED, op(Type.MKDIR, name=b"n", child=NEW, mode=DIR | 0o755, gid=U32))
case("give to nobody", NOBODY, Ends.REFUSED, op(Type.SET_ATTRIBUTES, fid=FILE, flags=Has.UID, uid=U32))
case("give to no group", NOBODY, Ends.REFUSED, op(Type.SET_ATTRIBUTES, fid=FILE, flags=Has.GID, gid=U32))
case("attributes of nobody", NOBODY, Ends.REFUSED, op(Type.ATTRIBUTES, fid=FILE, mode=REG | 0o644, uid=U32))
case("a small file of nobody", NOBODY, Ends.REFUSED, listed(Type.SMALL_FILE, name=b"n", child=NEW, mode=REG | 0o644, uid=U32))

NEGATIVE = "numbers that become negative or wrap (rsync 53792)"
case("write before the beginning", NEGATIVE, Ends.REFUSED, wrote(FILE, offset=U64 - 2))
case("write at a negative offset", NEGATIVE, Ends.REFUSED, wrote(FILE, offset=HALF))
case("write beyond the largest offset", NEGATIVE, Ends.REFUSED, wrote(FILE, offset=HALF - 3))
case("a write of another length", NEGATIVE, Ends.REFUSED, wrote(FILE, length=5000))
case("a write that says that it is a hole", NEGATIVE, Ends.REFUSED, wrote(FILE, length=HALF, flags=Flag.ZERO))
case("a block of another length", NEGATIVE, Ends.REFUSED, wrote(FILE, type=Type.BLOCK, length=5000))
case("a hole with bytes", NEGATIVE, Ends.REFUSED, wrote(FILE, type=Type.BLOCK, flags=Flag.ZERO))
case("a hole that wraps", NEGATIVE, Ends.REFUSED, wrote(FILE, type=Type.BLOCK, flags=Flag.ZERO, data=b"", offset=5, length=U64))
case("allocate a negative range", NEGATIVE, Ends.REFUSED, op(Type.FALLOCATE, fid=FILE, offset=HALF, length=1))
case("allocate nothing", NEGATIVE, Ends.REFUSED, op(Type.FALLOCATE, fid=FILE))
case("allocate by collapsing", NEGATIVE, Ends.REFUSED, op(Type.FALLOCATE, fid=FILE, length=4096, flags=8))
case("copy more than is allowed", NEGATIVE, Ends.REFUSED, op(Type.COPY, fid=FILE, other=INNER, length=2**30))
case("copy from a negative offset", NEGATIVE, Ends.REFUSED, op(Type.COPY, fid=FILE, other=INNER, length=1, rdev=HALF))
case("truncate to a negative size", NEGATIVE, Ends.REFUSED, op(Type.SET_ATTRIBUTES, fid=FILE, flags=Has.SIZE, length=HALF))
case("a negative size", NEGATIVE, Ends.REFUSED, op(Type.SIZE, fid=FILE, length=U64))
case("attributes with a negative size", NEGATIVE, Ends.REFUSED, op(Type.ATTRIBUTES, fid=FILE, mode=REG | 0o644, length=HALF))
case(
    "a small file of another length",
    NEGATIVE,
    Ends.REFUSED,
    listed(Type.SMALL_FILE, name=b"n", child=NEW, mode=REG | 0o644, data=b"x", length=2),
)
case("hashes of nothing", NEGATIVE, Ends.REFUSED, op(Type.HASHES, fid=FILE))
case("hashes of too much", NEGATIVE, Ends.REFUSED, op(Type.HASHES, fid=FILE, length=2**40, data=bytes(16)))
case("fewer hashes than blocks", NEGATIVE, Ends.REFUSED, op(Type.HASHES, fid=FILE, length=8192, data=bytes(16)))
case("hashes at a negative offset", NEGATIVE, Ends.REFUSED, op(Type.HASHES, fid=FILE, offset=HALF, length=4096, data=bytes(16)))
case("verify more than is allowed", NEGATIVE, Ends.REFUSED, op(Type.VERIFY_RANGE, fid=FILE, length=2**40, data=bytes(64)))
case("verify a huge hole", NEGATIVE, Ends.REFUSED, op(Type.VERIFY_RANGE, fid=FILE, header_flags=Flag.ZERO, length=2**40))
case("names by too many bits", NEGATIVE, Ends.REFUSED, op(Type.VERIFY_NAMES, fid=ROOT, length=64))
case("names that are cut off", NEGATIVE, Ends.REFUSED, op(Type.VERIFY_NAMES, fid=ROOT, data=bytes(13)))
case("times that are now", "what the primary is to find out", Ends.REFUSED, op(Type.SET_ATTRIBUTES, fid=FILE, flags=Has.ATIME_NOW))
case("the first and the last of times", NEGATIVE, Ends.HARMLESS,
     op(Type.SET_ATTRIBUTES, fid=FILE, flags=Has.MTIME | Has.ATIME, child_mtime=-HALF, atime=HALF - 1))  # fmt: skip

# ---- ids --------------------------------------------------------------------------------------------------------------------------------

IDS = "ids that are not the peer's to give, or mean another object"
case("create below nothing", IDS, Ends.LEFT, op(Type.CREATE, fid=0, name=b"n", child=NEW, mode=REG | 0o644), code=errno.ESTALE)
case("create below the virtual root", IDS, Ends.LEFT, op(Type.CREATE, fid=1, name=b"n", child=NEW, mode=REG | 0o644), code=errno.ESTALE)
case("create under a root's id", IDS, Ends.REFUSED, op(Type.CREATE, name=b"n", child=ROOT, mode=REG | 0o644))
case(
    "create under an id that is reserved for roots", IDS, Ends.REFUSED, op(Type.MKDIR, name=b"n", child=FIRST_OBJECT - 1, mode=DIR | 0o755)
)
case("list a root as an entry", IDS, Ends.REFUSED, listed(Type.ENTRY, name=b"n", child=ROOT, mode=DIR | 0o755))
case("bind a root", IDS, Ends.REFUSED, op(Type.BIND, name=b"d", child=ROOT))
case("rename a root", IDS, Ends.REFUSED, op(Type.RENAME, name=b"d", name2=b"e", other=ROOT, child=ROOT))
case("remove a root", IDS, Ends.REFUSED, op(Type.RMDIR, name=b"d", child=ROOT))
case("link a root", IDS, Ends.REFUSED, op(Type.LINK, name=b"n", other=ROOT))
case("link a directory", IDS, Ends.LEFT, op(Type.LINK, name=b"n", other=DIRECTORY), code=errno.EPERM)
case("create under an id that is in use", IDS, Ends.LEFT, op(Type.CREATE, name=b"n", child=FILE, mode=REG | 0o644), code=errno.EEXIST)
case("make a directory under an id in use", IDS, Ends.LEFT, op(Type.MKDIR, name=b"n", child=FILE, mode=DIR | 0o755), code=errno.EEXIST)
case(
    "make without a place under an id in use",
    IDS,
    Ends.HARMLESS,
    op(Type.CREATE, name=b"-", child=INNER, mode=REG | 0o644, header_flags=Flag.HELD),
)
case("a directory without a place", IDS, Ends.REFUSED, op(Type.MKDIR, name=b"-", child=NEW, mode=DIR | 0o755, header_flags=Flag.HELD))
case("place what was not made", IDS, Ends.LEFT, op(Type.PLACE, name=b"n", child=NEW), code=errno.EUCLEAN)
case("write to an unknown id", IDS, Ends.LEFT, wrote(NEW), code=errno.ESTALE)
case(
    "unlink another object than is said",
    IDS,
    Ends.LEFT,
    op(Type.UNLINK, name=b"f", child=INNER, header_flags=Flag.LAST_NAME),
    code=errno.EUCLEAN,
)
case(
    "rename another object than is said",
    IDS,
    Ends.LEFT,
    op(Type.RENAME, name=b"f", name2=b"g", other=ROOT, child=INNER),
    code=errno.EUCLEAN,
)
case("remove a file as a directory", IDS, Ends.LEFT, op(Type.RMDIR, name=b"f", child=FILE, header_flags=Flag.LAST_NAME), code=errno.ENOTDIR)
case(
    "remove a directory that is full",
    IDS,
    Ends.LEFT,
    op(Type.RMDIR, name=b"d", child=DIRECTORY, header_flags=Flag.LAST_NAME),
    code=errno.ENOTEMPTY,
)
case("rename a directory into itself", IDS, Ends.REFUSED, op(Type.RENAME, name=b"d", name2=b"n", other=DIRECTORY, child=DIRECTORY))
case("bind what is nowhere", IDS, Ends.LEFT, op(Type.BIND, fid=0, child=NEW), code=errno.EUCLEAN)


def _circle(world: World) -> None:
    world.furnish()
    world.op(Type.MKDIR, fid=DIRECTORY, name=b"e", child=NEW, mode=DIR | 0o755)
    world.op(Type.BIND, fid=NEW, name=b"d", child=DIRECTORY)  # above what lies in it
    world.op(Type.CREATE, fid=NEW, name=b"n", child=NEW + 1, mode=REG | 0o644)
    world.op(Type.RENAME, fid=ROOT, name=b"d", other=ROOT, name2=b"c", child=DIRECTORY)


case("a directory bound below itself", IDS, Ends.HARMLESS, _circle)


def _into_own_child(world: World) -> None:
    world.furnish()
    world.op(Type.MKDIR, fid=DIRECTORY, name=b"e", child=NEW, mode=DIR | 0o755)
    world.op(Type.BEGIN, fid=NEW)
    world.op(Type.ENTRY, fid=NEW, name=b"d", child=DIRECTORY, mode=DIR | 0o755)


case("list a directory below itself", IDS, Ends.LEFT, _into_own_child, code=errno.EINVAL)

# ---- order and sessions -----------------------------------------------------------------------------------------------------------------

ORDER = "frames of another session, out of order, or that are none"
case("an op ahead of its turn", ORDER, Ends.REFUSED, op(Type.MKDIR, name=b"n", child=NEW, mode=DIR | 0o755, seq=99))
case("an op of another generation", ORDER, Ends.REFUSED, raw(Header(type=Type.FSYNC, fid=FILE, generation=GENERATION + 1), Body().encode()))
case("an op of another session", ORDER, Ends.REFUSED, raw(Header(type=Type.FSYNC, fid=FILE, session=SESSION + 1), Body().encode()))


def _again(world: World) -> None:
    world.furnish()
    for _ in range(3):
        world.op(Type.CREATE, name=b"f", child=FILE, mode=REG | 0o644, seq=1)
        world.op(Type.UNLINK, name=b"f", child=FILE, header_flags=Flag.LAST_NAME, seq=2)  # another op under an old number
    world.op(Type.SIZE, fid=FILE, length=10)


def _not_again(world: World) -> None:
    assert (world.tree / "f").read_bytes() == b"some bytes"


case("old numbers again", ORDER, Ends.HARMLESS, _again, then=_not_again)
case("another magic", ORDER, Ends.REFUSED, raw(Header(type=Type.FSYNC, fid=FILE, magic=0x5343), Body().encode()))
case("another version", ORDER, Ends.REFUSED, raw(Header(type=Type.FSYNC, fid=FILE, version=2), Body().encode()))
case("a header that fails its checksum", ORDER, Ends.REFUSED, raw(Header(type=Type.FSYNC, fid=FILE, header_crc=1), Body().encode()))
case("a payload that fails its checksum", ORDER, Ends.REFUSED, raw(Header(type=Type.FSYNC, fid=FILE, payload_crc=1), Body().encode()))
case("a type that is none", ORDER, Ends.REFUSED, raw(Header(type=31, fid=FILE), Body().encode()))
case("the engine's own type", ORDER, Ends.REFUSED, raw(Header(type=128, fid=FILE), Body().encode()))
case("flags that are none", ORDER, Ends.REFUSED, op(Type.FSYNC, fid=FILE, header_flags=0x4000))
case("an end that is durable", ORDER, Ends.REFUSED, op(Type.END, header_flags=Flag.DURABLE))
case("garbage", ORDER, Ends.REFUSED, lambda world: world.send(bytes(range(256)) * 4))
ALLOCATION = "an allocation as large as the peer likes (rsync 53794)"
case("a payload of four gigabytes", ALLOCATION, Ends.REFUSED, raw(Header(type=Type.WRITE, fid=FILE, length=U32, payload_bytes=U32)))
case("a keepalive of a megabyte", ALLOCATION, Ends.REFUSED, raw(Header(type=Type.KEEPALIVE), bytes(1 << 20)))
ROLE = "a target's answers from a source"
for answer in (Type.ACK, Type.SYNCED, Type.DIFFERENT, Type.ACK_ALONE, Type.VERIFIED):
    case(f"{answer.name} of what was never sent", ROLE, Ends.REFUSED, raw(Header(type=answer, seq=77)))
case("a mark from the source", ROLE, Ends.REFUSED, raw(Header(type=Type.PEER_MARK, fid=FILE), Body(flags=1, data=b"f\0").encode()))
case("the end of marks from the source", ROLE, Ends.REFUSED, raw(Header(type=Type.PEER_MARKS), Body().encode()))

# ---- listings: what is deleted ----------------------------------------------------------------------------------------------------------

SCOPE = "deleting more than was listed (rsync 53789)"
case("an entry of a directory that is not listed", SCOPE, Ends.REFUSED, op(Type.ENTRY, name=b"n", child=NEW, mode=REG | 0o644))
case("an entry of another directory", SCOPE, Ends.REFUSED, listed(Type.ENTRY, fid=DIRECTORY, name=b"n", child=NEW, mode=REG | 0o644))
case("the end of no listing", SCOPE, Ends.REFUSED, op(Type.END_OF_DIRECTORY, mode=DIR | 0o755))
case("the end of another directory's listing", SCOPE, Ends.REFUSED, listed(Type.END_OF_DIRECTORY, fid=DIRECTORY, mode=DIR | 0o755))


def _listed_twice(world: World) -> None:
    world.furnish()
    world.op(Type.BEGIN)
    for child in (FILE, NEW):
        world.op(Type.ENTRY, name=b"f", child=child, mode=REG | 0o644)


case("one name twice", SCOPE, Ends.REFUSED, _listed_twice)


def _empties(world: World) -> None:
    world.furnish()
    world.op(Type.MKDIR, name=b"other", child=NEW, mode=DIR | 0o755)
    world.op(Type.CREATE, fid=NEW, name=b"stays", child=NEW + 1, mode=REG | 0o644)
    world.op(Type.BEGIN, fid=DIRECTORY)
    world.op(Type.END_OF_DIRECTORY, fid=DIRECTORY, mode=DIR | 0o755)


def _emptied_alone(world: World) -> None:
    assert not os.listdir(world.tree / "d") and (world.tree / "other" / "stays").exists() and (world.tree / "f").exists()
    assert len(os.listdir(world.tree / HOLDING.decode())) == 1  # put away, and not destroyed


case("an empty listing empties its directory alone", SCOPE, Ends.HARMLESS, _empties, then=_emptied_alone)


def _listed_link(world: World) -> None:
    world.furnish()
    world.op(Type.BEGIN, fid=LINK)
    world.op(Type.END_OF_DIRECTORY, fid=LINK, mode=DIR | 0o755)


case("empty what a link leads to", SCOPE, Ends.LEFT, _listed_link, code=errno.EUCLEAN)

# ---- extended attributes ----------------------------------------------------------------------------------------------------------------

ROWS = "extended attributes that are cut off, or the engine's own"
for label, row in (
    ("cut off in its head", xattr(b"user.a", b"1")[:5]),
    ("longer than the frame", xattr(b"user.a", b"1", value_bytes=4000)),
    ("larger than any", xattr(b"user.a", b"v" * 70000)),
    ("without a name", xattr(b"", b"1")),
    ("with a NUL in its name", xattr(b"user.a\0b", b"1")),
    ("with a name longer than any", xattr(b"user." + b"n" * 251, b"1")),
    ("with the engine's id", xattr(b"user.a", b"1") + xattr(b"trusted.lockstep.id", b"0000000000000002")),
    ("with more names than can be listed", b"".join(xattr(b"user.%d" % number, b"") for number in range(10000))),
):
    case(f"a row {label}", ROWS, Ends.REFUSED, op(Type.ATTRIBUTES, fid=FILE, mode=REG | 0o644, length=10, data=row),
         then=lambda world: _no_xattrs(world))  # fmt: skip
case("set the engine's id", ROWS, Ends.REFUSED, op(Type.SET_XATTR, fid=FILE, name=b"trusted.lockstep.id", data=b"0000000000000002"))
case("remove the engine's id", ROWS, Ends.REFUSED, op(Type.REMOVE_XATTR, fid=FILE, name=b"trusted.lockstep.id"))
case("an attribute larger than any", ROWS, Ends.REFUSED, op(Type.SET_XATTR, fid=FILE, name=b"user.a", data=b"v" * 70000))


def _no_xattrs(world: World) -> None:
    assert os.listxattr(world.tree / "f") == ["trusted.lockstep.id"]  # nothing of a row that is refused is used


# ---- what is local ----------------------------------------------------------------------------------------------------------------------

LOCAL = "files that are not replicated, and so none of the peer's business"
TEMPORARY = "*.tmp"


OWN = 0x1000  # its id, which is a guess away


def local(*frames: Callable[[World], None]) -> Callable[[World], None]:
    """With a local file, and a peer that has found it."""

    def play(world: World) -> None:
        (world.tree / "own.tmp").write_text("this node's own")
        os.setxattr(world.tree / "own.tmp", "trusted.lockstep.id", b"%016x" % OWN)
        world.furnish()
        world.op(Type.BIND, name=b"own.tmp", child=OWN)
        for frame in frames:
            frame(world)

    return play


def then_op(type: int, **fields: object) -> Callable[[World], None]:
    """One more frame."""
    return lambda world: world.op(type, **fields)  # type: ignore[arg-type]


def _own_is_there(world: World) -> None:
    own = world.tree / "own.tmp"
    assert own.read_text() == "this node's own" and (own.stat().st_uid, own.stat().st_nlink) == (0, 1)


for label, frames, ends, code in (
    ("create a local name", [then_op(Type.CREATE, name=b"n.tmp", child=NEW, mode=REG | 0o644)], Ends.REFUSED, 0),
    ("rename over a local name", [then_op(Type.RENAME, name=b"f", name2=b"own.tmp", other=ROOT, child=FILE)], Ends.REFUSED, 0),
    ("rename a local name", [then_op(Type.RENAME, name=b"own.tmp", name2=b"g", other=ROOT, child=OWN)], Ends.REFUSED, 0),
    ("exchange a local name", [then_op(Type.RENAME, name=b"f", name2=b"own.tmp", other=ROOT, child=FILE, flags=2)], Ends.REFUSED, 0),
    ("link to a local name", [then_op(Type.LINK, name=b"n.tmp", other=FILE)], Ends.REFUSED, 0),
    ("unlink a local name", [then_op(Type.UNLINK, name=b"own.tmp", child=OWN, header_flags=Flag.LAST_NAME)], Ends.REFUSED, 0),
    ("list a local name", [then_op(Type.BEGIN), then_op(Type.ENTRY, name=b"own.tmp", child=NEW, mode=REG | 0o644)], Ends.REFUSED, 0),
    ("place over a local name", [
        then_op(Type.CREATE, name=b"-", child=NEW, mode=REG | 0o644, header_flags=Flag.HELD),
        then_op(Type.PLACE, name=b"own.tmp", child=NEW, header_flags=Flag.LAST_NAME),
    ], Ends.REFUSED, 0),
    ("write to a local file", [lambda world: world.write(OWN, b"hostile")], Ends.LEFT, errno.ESTALE),
    ("write a block to a local file", [lambda world: world.write(OWN, b"hostile", type=Type.BLOCK)], Ends.LEFT, errno.EUCLEAN),
    ("truncate a local file", [then_op(Type.SET_ATTRIBUTES, fid=OWN, flags=Has.SIZE)], Ends.LEFT, errno.ESTALE),
    ("give a local file away", [then_op(Type.ATTRIBUTES, fid=OWN, mode=REG | 0o4777, uid=65534, length=15)], Ends.LEFT, errno.EUCLEAN),
    ("a replicated name for a local file", [then_op(Type.LINK, name=b"n", other=OWN)], Ends.LEFT, errno.ESTALE),
    ("read a local file by copying it", [then_op(Type.COPY, fid=FILE, other=OWN, length=5)], Ends.LEFT, errno.ESTALE),
    ("read a local file by guessing its hash", [then_op(Type.HASHES, fid=OWN, length=15, data=bytes(16))], Ends.LEFT, errno.EUCLEAN),
):  # fmt: skip
    case(label, LOCAL, ends, local(*frames), then=_own_is_there, exclude=TEMPORARY, code=code)
