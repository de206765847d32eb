#!/usr/bin/env python3
"""Writes the fuzzers' hand-made seeds into tests/fuzz/corpus/: one small input for each way through the engine.

The fuzzers make lengths, sums, seqs and ids fit (see fuzz_*.c), so here only what each message means is said.
"""

import importlib
import struct
import sys
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus"

# ---- messages of the kernel: node ids and file handles are counted in the order in which they were given out

ROOT, FIRST, SECOND = 1, 2, 3
OPCODES = {
    name: number
    for number, name in enumerate(
        [
            "lookup",
            "forget",
            "getattr",
            "setattr",
            "readlink",
            "symlink",
            "7",
            "mknod",
            "mkdir",
            "unlink",
            "rmdir",
            "rename",
            "link",
            "open",
            "read",
            "write",
            "statfs",
            "release",
            "19",
            "fsync",
            "setxattr",
            "getxattr",
            "listxattr",
            "removexattr",
            "flush",
            "init",
            "opendir",
            "readdir",
            "releasedir",
            "fsyncdir",
            "getlk",
            "setlk",
            "setlkw",
            "access",
            "create",
            "interrupt",
            "bmap",
            "destroy",
            "ioctl",
            "poll",
            "notify_reply",
            "batch_forget",
            "fallocate",
            "readdirplus",
            "rename2",
            "lseek",
            "copy_file_range",
        ],
        start=1,
    )
}


def message(name: str, node: int, body: bytes = b"") -> bytes:
    return struct.pack("<IIQQIIIHH", 40 + len(body), OPCODES[name], 0, node, 1000, 1000, 1, 0, 0) + body


def text(*names: str) -> bytes:
    return b"".join(name.encode() + b"\0" for name in names)


def lookup(name: str, parent: int = ROOT) -> bytes:
    return message("lookup", parent, text(name))


def opened(node: int, flags: int = 2) -> bytes:
    return message("open", node, struct.pack("<II", flags, 0))


def create(name: str, parent: int = ROOT, flags: int = 2) -> bytes:
    return message("create", parent, struct.pack("<IIII", flags, 0o104755, 0o022, 0) + text(name))


def mkdir(name: str, parent: int = ROOT) -> bytes:
    return message("mkdir", parent, struct.pack("<II", 0o755, 0o022) + text(name))


def read(name: str, size: int, offset: int = 0) -> bytes:
    return message(name, ROOT, struct.pack("<QQIIQII", 0, offset, size, 0, 0, 0, 0))


def write(data: bytes, offset: int = 0, write_flags: int = 0, flags: int = 2) -> bytes:
    return message("write", 0, struct.pack("<QQIIQII", 0, offset, len(data), write_flags, 0, flags, 0) + data)


def setattr_(node: int, valid: int, size: int = 0, time: int = 0, mode: int = 0o4755) -> bytes:
    return message("setattr", node, struct.pack("<IIQQQQQQIIIIIIII", valid, 0, 0, size, 0, time, time, 0, 5, 6, 0, mode, 0, 12, 34, 0))


def setxattr(node: int, name: str, value: bytes, extended: bool = True, flags: int = 0) -> bytes:
    fixed = struct.pack("<IIII", len(value), 0, flags, 0) if extended else struct.pack("<II", len(value), 0)
    return message("setxattr", node, fixed + text(name) + value)


def getxattr(node: int, name: str, size: int) -> bytes:
    return message("getxattr", node, struct.pack("<II", size, 0) + text(name))


RELEASE = message("release", 0, struct.pack("<QIIQ", 0, 0, 0, 0))
FSYNC = message("fsync", 0, struct.pack("<QII", 0, 0, 0))

REQUESTS = {
    "file": lookup("f")
    + opened(FIRST)
    + write(b"abc", 10)
    + read("read", 4096)
    + FSYNC
    + message("lseek", 0, struct.pack("<QQII", 0, 0, 3, 0))
    + RELEASE,
    "durable": create("n", flags=1 | 0o4010000) + write(b"abc", flags=0o4010001) + RELEASE,
    "suid": create("n")
    + setattr_(FIRST, 1)
    + write(b"abc", write_flags=4)
    + setattr_(FIRST, 8 | 1 << 11, size=2)
    + message("getattr", FIRST, bytes(16))
    + RELEASE,
    "space": lookup("f")
    + opened(FIRST)
    + message("fallocate", 0, struct.pack("<QQQII", 0, 0, 9000, 0, 0))
    + message("fallocate", 0, struct.pack("<QQQII", 0, 4096, 4096, 3, 0)),
    "copy": lookup("f") + create("n") + opened(FIRST) + message("copy_file_range", 0, struct.pack("<QQQQQQQ", 1, 0, 0, 0, 7, 5000, 0)),
    "attributes": lookup("f")
    + setattr_(FIRST, 0x3F, size=100, time=1700000000)
    + setattr_(FIRST, 0x180)
    + setattr_(FIRST, 0x30, time=10**11)
    + message("getattr", FIRST, bytes(16)),
    "names": mkdir("a")
    + create("b", FIRST)
    + message("rename", FIRST, struct.pack("<Q", ROOT) + text("b", "c"))
    + message("rename2", ROOT, struct.pack("<QII", ROOT, 2, 0) + text("c", "f"))
    + message("rename2", ROOT, struct.pack("<QII", FIRST, 1, 0) + text("c", "f"))
    + message("unlink", ROOT, text("c"))
    + message("rmdir", ROOT, text("a")),
    "orphan": create("n")
    + message("unlink", ROOT, text("n"))
    + write(b"abc")
    + setattr_(FIRST, 8, size=1)
    + message("getattr", FIRST, bytes(16))
    + FSYNC
    + RELEASE,
    "overwritten": lookup("f")
    + opened(FIRST)
    + create("n")
    + message("rename", ROOT, struct.pack("<Q", ROOT) + text("n", "f"))
    + write(b"abc")
    + RELEASE,
    "xattrs": lookup("f")
    + setxattr(FIRST, "user.a", b"value")
    + getxattr(FIRST, "user.a", 0)
    + getxattr(FIRST, "user.a", 100)
    + message("removexattr", FIRST, text("user.a")),
    "acl": lookup("d")
    + setxattr(FIRST, "system.posix_acl_default", bytes.fromhex("0200000001000700ffffffff04000500ffffffff20000500ffffffff"), flags=1)
    + mkdir("e", FIRST)
    + create("g", FIRST),
    "hidden": getxattr(ROOT, "trusted.lockstep.id", 100)
    + setxattr(ROOT, "trusted.lockstep.id", b"x")
    + lookup(".lockstep-holding")
    + mkdir(".lockstep-holding"),
    "directory": lookup("d")
    + read("readdirplus", 4096)
    + read("readdir", 100)
    + read("readdir", 4096, 2)
    + message("fsyncdir", FIRST, bytes(16)),
    "dots": lookup("..") + lookup(".") + lookup("0", 0) + lookup("link", FIRST),
    "special": lookup("p")
    + lookup("s")
    + opened(FIRST)
    + opened(SECOND)
    + setattr_(SECOND, 1)
    + setattr_(SECOND, 0x30, time=5)
    + setxattr(FIRST, "trusted.x", b"y"),
    "forget": lookup("f")
    + message("forget", FIRST, struct.pack("<Q", 1))
    + message("batch_forget", 0, struct.pack("<II", 2, 0) + struct.pack("<QQQQ", 2, 1, 3, 1))
    + opened(FIRST),
    "rare": message("init", 0, struct.pack("<IIII", 7, 38, 0, 0xFFFFFFFF))
    + message("symlink", ROOT, text("l", "target"))
    + message("mknod", ROOT, bytes(16) + text("m"))
    + message("link", ROOT, struct.pack("<Q", 2) + text("h"))
    + message("statfs", ROOT)
    + message("ioctl", ROOT)
    + message("flush", ROOT)
    + message("interrupt", 0, bytes(8)),
}

# What is *.tmp is local: files go in, out, and where they may not.
BORDER = (
    create("x.tmp")
    + write(b"abc")
    + setxattr(FIRST, "user.a", b"b")
    + message("rename", ROOT, struct.pack("<Q", ROOT) + text("x.tmp", "f"))
    + write(b"more", 3)
    + message("rename", ROOT, struct.pack("<Q", ROOT) + text("f", "y.tmp"))
    + mkdir("m.tmp")
    + message("rename2", ROOT, struct.pack("<QII", ROOT, 2, 0) + text("y.tmp", "d"))
    + message("rename", ROOT, struct.pack("<Q", ROOT) + text("m.tmp", "m"))
    + message("rename", ROOT, struct.pack("<Q", SECOND) + text("y.tmp", "z"))
    + message("unlink", SECOND, text("z"))
)

# Messages that are less than they say, each on its own.
MALFORMED = {
    "forgets": message("batch_forget", 0, struct.pack("<II", 1000, 0) + bytes(32)),
    "forget": message("forget", FIRST, bytes(7)),
    "write": lookup("f") + opened(FIRST) + message("write", 0, struct.pack("<QQIIQII", 0, 0, 5000, 0, 0, 2, 0) + b"abc"),
    "value": setxattr(ROOT, "user.a", b"value")[:-1],
    "name": message("lookup", ROOT, b"f"),
    "second name": message("rename", ROOT, struct.pack("<Q", ROOT) + b"f\0g"),
    "no body": message("setattr", ROOT)
    + message("open", ROOT)
    + message("readdir", ROOT)
    + message("getxattr", ROOT)
    + message("create", ROOT),
    "way out": mkdir("/proc/self/fd/100/new") + mkdir("..") + message("unlink", ROOT, text("d/link")) + lookup("/proc/self/fd/100/file"),
    "asks for much": read("readdir", 0xFFFFFFFF) + read("readdirplus", 1 << 20),
}

# ---- frames of the peer: id 0 is the root; 2 to 7 are what the tree has (f, d, d/e, d/g, s, p); from 8 on they are new

FRAMES = {
    name: number
    for number, name in enumerate(
        [
            "write",
            "fsync",
            "create",
            "mkdir",
            "mknod",
            "symlink",
            "link",
            "unlink",
            "rmdir",
            "rename",
            "set_attributes",
            "set_xattr",
            "remove_xattr",
            "fallocate",
            "copy",
            "place",
        ],
        start=1,
    )
}
FRAMES |= {
    name: number
    for number, name in enumerate(["begin", "entry", "end_directory", "hashes", "block", "attributes", "end", "marked"], start=32)
}
FRAMES |= {name: number for number, name in enumerate(["ack", "synced", "different", "keepalive", "ack_alone"], start=64)} | {
    "verified": 72
}
FRAMES |= {name: number for number, name in enumerate(["verify_range", "verify_attributes", "verify_entries", "verify_names"], start=48)}
FRAMES |= {"bind": 40, "size": 41, "small_file": 42}
F, D, E, G, S, P, NEW = 2, 3, 4, 5, 6, 7, 8
FILE, DIRECTORY, SYMLINK, FIFO = 0o100644, 0o40755, 0o120777, 0o10644


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def frame(name: str, fid: int, payload: bytes, flags: int = 0, seq: int = 1, offset: int = 0, length: int = 0) -> bytes:
    header = struct.pack(
        "<HHHHIIQQQQQQqI", 0x4C53, 1, FRAMES[name], flags, len(payload), crc32c(payload), seq, 7, 9, fid, offset, length, 10**18, 0
    )
    return header + struct.pack("<I", crc32c(header)) + payload


def op(
    kind: str,
    fid: int,
    name: str = "",
    name2: str = "",
    data: bytes = b"",
    *,
    other: int = 0,
    child: int = 0,
    rdev: int = 0,
    flags: int = 0,
    mode: int = 0,
    header_flags: int = 0,
    offset: int = 0,
    length: int = 0,
) -> bytes:
    first, second = name.encode(), name2.encode()
    body = struct.pack(
        "<QQQqqqIIIIIHH", other, child, rdev, 10**18, 10**18, 10**18, flags, mode, 12, 34, len(data), len(first), len(second)
    )
    return frame(kind, fid, body + first + second + data, header_flags, offset=offset, length=length)


def xattrs(**values: bytes) -> bytes:
    return b"".join(struct.pack("<HI", len(name) + 5, len(value)) + b"user." + name.encode() + value for name, value in values.items())


def bytes_of(kind: str, fid: int, data: bytes, offset: int = 0, flags: int = 0) -> bytes:
    return frame(kind, fid, data, flags, offset=offset, length=len(data) or 65536)


STREAMS = {
    "writes": bytes_of("write", F, b"abc", 5)
    + bytes_of("write", G, b"durable", flags=1)
    + op("fsync", D, header_flags=1)
    + op("fallocate", F, length=9000)
    + op("fallocate", F, offset=4096, length=4096, flags=3),
    "copy": op("create", 0, "n", child=NEW, mode=FILE) + op("copy", NEW, other=F, rdev=10, length=1000),
    "make": op("create", 0, "n", child=NEW, mode=FILE)
    + op("mkdir", 0, "m", child=NEW + 1, mode=DIRECTORY)
    + op("create", NEW + 1, "o", child=NEW + 2, mode=FILE)
    + op("mknod", 0, "q", child=NEW + 3, mode=FIFO)
    + op("symlink", 0, "l", data=b"/proc/self/fd/100/file", child=NEW + 4, mode=SYMLINK)
    + op("link", D, "h", other=G),
    "devices": op("mknod", 0, "null", child=NEW, mode=0o20666, rdev=0x103)
    + op("fsync", NEW, header_flags=1)
    + op("set_attributes", NEW, flags=1, mode=0o600),
    "remove": op("unlink", 0, "f", child=F)
    + op("unlink", D, "g", child=G, header_flags=2)
    + op("rmdir", D, "e", child=E, header_flags=2)
    + op("unlink", 0, "p", child=P),
    "rename": op("rename", 0, "f", "t", other=D, child=F)
    + op("rename", D, "t", "e", other=0, child=F)
    + op("rename", 0, "e", "s", other=0, child=F, header_flags=2)
    + op("rename", 0, "s", "d", other=0, child=F, flags=2),
    "attributes": op("set_attributes", F, flags=0x3F, mode=0o4711, length=99)
    + op("set_attributes", S, flags=0x36)
    + op("set_xattr", F, "user.a", data=b"b")
    + op("set_xattr", S, "trusted.a", data=b"b")
    + op("remove_xattr", F, "user.a")
    + op("set_xattr", F, "trusted.lockstep.id", data=b"x"),
    "listing": op("begin", 0)
    + op("entry", 0, "f", child=F, mode=FILE)
    + op("entry", 0, "d", child=D, mode=DIRECTORY)
    + op("entry", 0, "s", data=b"elsewhere", child=NEW, mode=SYMLINK)
    + op("entry", 0, "n", child=NEW + 1, mode=FILE)
    + op("entry", 0, "g2", child=G, mode=FILE)
    + op("end_directory", 0, mode=DIRECTORY, data=xattrs(a=b"b"))
    + op("end", 0),
    "small files": op("begin", 0)
    + op("small_file", 0, "n", data=b"its content", length=11, child=NEW, mode=FILE)
    + op("small_file", 0, "empty", child=NEW + 1, mode=0o106755)
    + op("small_file", 0, "f", data=b"shorter", length=7, child=F, mode=FILE)
    + op("small_file", 0, "d", data=b"a directory was", length=15, child=NEW + 2, mode=FILE)
    + op("small_file", 0, "g2", data=b"known under another name", length=24, child=G, mode=FILE)
    + op("small_file", 0, "n", data=b"again", length=5, child=NEW + 3, mode=FILE)
    + op("end_directory", 0, mode=DIRECTORY),
    "a small file that is none": op("begin", 0) + op("small_file", 0, "n", data=b"short", length=99, child=NEW, mode=FILE),
    "a small link": op("begin", 0) + op("small_file", 0, "n", data=b"target", length=6, child=NEW, mode=SYMLINK),
    "moved": op("begin", 0)
    + op("entry", 0, "e", child=E, mode=DIRECTORY)
    + op("end_directory", 0, mode=DIRECTORY)
    + op("begin", E)
    + op("entry", E, "d", child=D, mode=DIRECTORY)
    + op("end_directory", E, mode=DIRECTORY),
    "inside out": op("begin", E)
    + op("entry", E, "d", child=D, mode=DIRECTORY)
    + op("end_directory", E, mode=DIRECTORY)
    + op("marked", D)
    + op("rename", 0, "d", "x", other=E, child=D),
    "content": op("hashes", F, length=100000, data=bytes(32))
    + bytes_of("block", F, b"some bytes")
    + bytes_of("block", F, b"", 65536, 4)
    + op("attributes", F, mode=FILE, length=70000, data=xattrs(a=b"b", c=b"")),
    "arrival": op("create", 0, "-", child=NEW, mode=FILE, header_flags=32)
    + bytes_of("block", NEW, b"whole")
    + op("attributes", NEW, mode=FILE, length=5)
    + op("place", 0, "f", child=NEW, header_flags=2)
    + op("create", 0, "-", child=F, mode=FILE, header_flags=32)
    + op("mkdir", 0, "-", child=D, mode=DIRECTORY, header_flags=32)
    + op("place", D, "e", child=F),
    "leftovers": op("unlink", D, "g", child=G, header_flags=2)
    + op("mkdir", 0, "m", child=NEW, mode=DIRECTORY)
    + op("rename", 0, "m", "e", other=D, child=NEW, header_flags=2)
    + op("begin", 0)
    + op("end_directory", 0, mode=DIRECTORY),
    "verify": op("verify_range", F, length=100000, data=bytes(32))
    + op("verify_range", G, length=1 << 20, header_flags=4)
    + op("verify_attributes", F, mode=FILE, length=5, flags=1, data=bytes(32))
    + op("verify_entries", D, data=bytes(1024))
    + op("verify_names", D, data=struct.pack("<QIH", G, 0o100000, 1) + b"g" + struct.pack("<QIH", E, 0o40000, 1) + b"x")
    + frame("verified", 0, b"\0\1\0g", seq=3, offset=1),
    "answers": frame("ack_alone", 0, b"", seq=3)
    + frame("ack", 0, b"", seq=1)
    + frame("synced", 0, b"", seq=2)
    + frame("ack", 0, b"", seq=3)
    + frame("synced", 0, b"", seq=4)
    + frame("different", 0, b"", seq=1)
    + frame("keepalive", 0, b""),
    "hostile names": op("mkdir", 0, "m", child=NEW, mode=DIRECTORY)
    + op("create", 0, "/proc/self/fd/100/new", child=NEW + 1, mode=FILE)
    + op("unlink", 0, ".."),
    "through a link": op("attributes", S, mode=SYMLINK, length=3)
    + op("unlink", 0, "s", child=S)
    + op("entry", S, "file", child=NEW, mode=FILE)
    + bytes_of("write", S, b"x"),
}

# ---- records: (kind, content)


def piece(kind: int, content: bytes) -> bytes:
    return struct.pack("<BH", kind, len(content)) + content


DATA, HANDSHAKE, ALERT = 0, 4 | 22 << 3, 4 | 21 << 3
RECORDS = {
    "data": piece(DATA, b"one") + piece(DATA, b"") + piece(DATA, b"two"),
    "key update": piece(DATA, b"one")
    + piece(HANDSHAKE, b"\x18\0\0\1\0")
    + piece(DATA, b"two")
    + piece(HANDSHAKE, b"\x18\0\0\1\1")
    + piece(DATA, b"three"),
    "alert": piece(DATA, b"one") + piece(ALERT, b"\1\0") + piece(DATA, b"two"),
    "padding": piece(4, b"one\x17\0\0\0") + piece(4, b"\0\0"),
    "damaged": piece(DATA, b"one") + piece(2, b"two") + piece(DATA, b"three"),
    "plain": piece(1, b"\x17\3\3\0\x20" + bytes(32)) + piece(DATA, b"one"),
    "ticket": piece(HANDSHAKE, b"\4\0\0\5ticket") + piece(DATA, b"one"),
}


# ---- the intent log's files: the fuzzer makes sums fit


def log_header(born: int = 40, nonce: int = 9) -> bytes:
    return struct.pack("<8sQQQII", b"LSTPLOG", 1, born, nonce, 1, 0).ljust(64, b"\0")


def log_record(kind: int, body: bytes = b"", *, batch: int = 1, slots: int = 1, left: int = 0, mark: int = 0) -> bytes:
    return (struct.pack("<IIHBBi", 0, batch, left, kind, slots, mark) + body).ljust(slots * 64, b"\0")


def log_mark(fid: int, mark: int, index: int = 0, grains: int = 0, **more: int) -> bytes:
    return log_record(1, struct.pack("<QQQ", fid, index, grains), mark=mark, **more)


def log_where(fid: int, path: bytes, fids: tuple[int, ...] = (), **more: int) -> bytes:
    text = path + b"\0" + b"".join(struct.pack("<Q", each) for each in fids)
    return log_record(2, struct.pack("<QiHHHB28s", fid, 1, 0, len(fids), len(text), 8, b"handle") + text, slots=3, **more)


COMPLETE, CLEAN, OPENED, EVERYTHING = log_record(4), log_record(5, batch=3), log_record(6, batch=2), log_record(3, batch=2)
MARKS = log_mark(5, 1) + log_mark(6, 8, 3, 0xFF) + log_mark(6, 4, 9) + log_where(6, b"d/e", (5,))
LOGS = {
    "one": log_header() + MARKS + COMPLETE,
    "stopped": log_header() + MARKS + COMPLETE + log_mark(7, 2, batch=2) + CLEAN,
    "opened": log_header() + MARKS + COMPLETE + OPENED + log_mark(8, 8, 1, 1, batch=3),
    "everything": log_header() + COMPLETE + EVERYTHING,
    "torn": log_header() + MARKS + COMPLETE + log_mark(7, 2, batch=2, left=1) + log_record(1, batch=5, left=0xFFFF),
}

# ---- patterns and names


SCOPES = {
    "one": b"\1*.tmp\0a.tmp\0b\0",
    "deep": b"\2cache/**/x\0+./keep/[a-c]?\0cache\0y\0x\0",
    "brackets": b"\3[!]-]*\0+[a-\0[]]b\0]b\0z[\0",
    "stars": b"\1a*a*a*b\0aaaaaaaaaaaaaaaa\0",
    "any depth": b"\1**/a/**\0x\0a\0y\0",
}

# ---- records of the snapshot of before


def before(xattrs: bytes = b"", more: bytes = b"", mode: int = 0o100644) -> bytes:
    return struct.pack("<QQqqIIIIII", 0, 0, 10**18, 10**18, mode, 1, 2, len(xattrs), len(more), 0) + xattrs + more


XATTR = struct.pack("<HI", 6, 5) + b"user.a" + b"value"
BEFORE = {
    "file": b"\0" + before(XATTR),
    "two": b"\0" + before(XATTR + struct.pack("<HI", 6, 0) + b"user.b", mode=0o104755),
    "directory": b"\2" + before(XATTR, b"1.0102030405\0name\x002.ff\0other\0", 0o40755),
    "odd keys": b"\2" + before(b"", b"zz\0a\x001.0\0b\x001." + b"ab" * 200 + b"\0c\0", 0o40755),
    "raw": b"\1" + before(XATTR) + struct.pack("<QQII", 0x31656250526B634C, 0, 75, 0),
}

# ---- what a target answers


def peer_mark(kind: int, path: bytes, fids: tuple[int, ...] = (), index: int = 0) -> bytes:
    text = path + b"\0" + b"".join(struct.pack("<Q", each) for each in fids)
    return op("peer_mark", F, data=text, other=len(fids), flags=kind, offset=index)


FRAMES |= {"peer_mark": 69, "peer_marks": 70, "fresh": 71}
ANSWERS = {
    "marks": peer_mark(1, b"d/e", (2,)) + peer_mark(8, b"f", index=3) + op("peer_marks", 0, offset=0, length=40),
    "everything": op("peer_marks", 0, offset=1),
    "paths": peer_mark(1, b"../x") + peer_mark(1, b"a//b"),
    "walk": frame("fresh", F, b"") + frame("fresh", D, b"") + frame("different", 0, b"", seq=2, offset=5),
    "verified": frame("verified", 0, b"\0\1\0a\1\2\0xy\2\0\0", seq=3, offset=1) + frame("verified", 0, b"", seq=1, offset=1 << 63),
}


def save(fuzzer: str, name: str, content: bytes) -> None:
    directory = CORPUS / fuzzer
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"seed-{name.replace(' ', '-')}").write_bytes(content)


def save_python() -> None:
    """What the fuzzers in Python say of themselves: the first byte chooses the parser."""
    sys.path.insert(0, str(CORPUS.parents[2]))
    for path in sorted(CORPUS.parent.glob("fuzz_*.py")):
        fuzzer = importlib.import_module(f"tests.fuzz.{path.stem}")
        for place, parser in enumerate(fuzzer.PARSERS):
            for name, content in fuzzer.seeds()[parser].items():
                save(path.stem.removeprefix("fuzz_"), f"{parser} {name}", bytes([place]) + content)


def main() -> None:
    save_python()
    for name, content in REQUESTS.items():
        for mode, suffix in enumerate(("", "-paired", "-frozen")):
            save("requests", name + suffix, bytes([mode]) + content)
    for mode in range(3):
        save("requests", f"border {mode}", bytes([16 | mode]) + BORDER)
    for name, content in MALFORMED.items():
        save("requests", f"malformed {name}", b"\0" + content)
    save("requests", "short setxattr", b"\4" + lookup("f") + setxattr(FIRST, "user.a", b"value", extended=False))
    save("requests", "lease lost", b"\x09" + lookup("f") + read("readdir", 4096))
    for name, content in STREAMS.items():
        save("frames", name, b"\0" + content)
        save("frames", name + " raw", b"\1" + content)
        options = 2 if name == "answers" else 0
        save("apply", name, bytes([options]) + content)
        save("apply", name + " in pieces", bytes([options | 8 | 0x80]) + content)
        save("apply", name + " in parallel", bytes([options | 0x30]) + content)
    save("apply", "raw", b"\1" + STREAMS["writes"])
    for name, content in LOGS.items():
        save("log", name, b"\0\xff" + content)
        save("log", name + " both", bytes([2, len(content) // 64]) + content + LOGS["one"])
    save("log", "raw", b"\1\4" + LOGS["stopped"])
    for name, content in SCOPES.items():
        save("scope", name, content)
    for name, content in BEFORE.items():
        save("before", name, content)
    for name, content in ANSWERS.items():
        save("answers", name, b"\0" + content)
        save("answers", name + " raw", b"\1" + content)
    for suite in range(3):
        for name, content in RECORDS.items():
            save("records", f"{name} {suite}", bytes([suite | (0x80 if suite else 0)]) + content)


if __name__ == "__main__":
    main()
