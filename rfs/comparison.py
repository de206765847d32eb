"""Two nodes that are no pair compare their trees over the control link: one asks, the other answers.

Each lists its own tree (csrc/manifest.c). The asking side fetches the other one's manifest in bounded pieces, compares both in one pass,
and asks for block hashes of those files alone whose content is not the same. What it finds goes to STATEDIR/comparison/differences.jsonl,
one JSON object a line, whose paths are what `os.fsdecode` makes of the bytes:

    {"directory": 0, "path": "a/b", "where": "here" | "there" | "both", "type": "file", "what": ["content", "mode"], "ranges": [[0, 65536]],
     "size_here": 70000, "size_there": 70000}
"""

import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import trio

from rfs import manifest
from rfs.control_link import ControlLink
from rfs.errors import PeerProtocolError, SaidNo
from rfs.manifest import BLOCK_BYTES, HASH_BYTES, BadManifest, Difference, Where
from rfs.patterns import Patterns
from rfs.peer_messages import BYTES_MAX, Message

log = logging.getLogger("rfs.comparison")

WORK_TIMEOUT_S = 7 * 86400.0  # listing and hashing a tree takes what it takes; a dead peer is noticed by its silence
BLOCKS_AT_ONCE = 2048
MANIFEST_BYTES_MAX = 2**40
ROOM_SHARE = 0.5  # of what is free: the record and the intent log are written there too
ANSWERS = ("manifest", "manifest_read", "blocks")


@dataclass(slots=True)
class Summary:
    """What a comparison has found."""

    file: str  # the differences, one JSON object a line
    only_here: int = 0
    only_there: int = 0
    different: int = 0
    differing_bytes: int = 0  # of content, in blocks, and of what is on one side only
    entries: int = 0
    read_bytes: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def differences(self) -> int:
        return self.only_here + self.only_there + self.different


class Trees:
    """This node's trees, for both sides of a comparison."""

    def __init__(self, trees: Sequence[int], patterns: Sequence[Patterns], state_directory: str) -> None:
        self.trees = trees
        self.patterns = patterns
        self.place = Path(state_directory, "comparison")
        self.place.mkdir(mode=0o700, exist_ok=True)

    def scratch(self) -> BinaryIO:
        """A file without a name: gone with whoever has it open."""
        return tempfile.TemporaryFile("w+b", dir=self.place)

    def block_hashes(self, directory: int, path: bytes, offset: int, count: int) -> tuple[int, bytes]:
        """Blocks. A file that is not there (any more) is as one that is empty."""
        try:
            return manifest.block_hashes(self.trees[directory], path, offset, count)
        except OSError as failure:
            log.info("no block hashes of directory=%d path=%s cause=%s", directory, os.fsdecode(path), failure.strerror)
            return 0, b""

    @property
    def local_mtimes(self) -> frozenset[int]:
        return frozenset(index for index, patterns in enumerate(self.patterns) if patterns.exclude or patterns.only)


# ---- the side that answers --------------------------------------------------------------------------------------------------------------


async def answer(link: ControlLink, trees: Trees, until: tuple[str, ...]) -> Message:
    """Answer until the peer says one of `until`, which is returned."""
    with trees.scratch() as file:
        while True:
            message = await link.expect(*ANSWERS, *until, timeout_s=WORK_TIMEOUT_S)
            kind = message["type"]
            if kind in until:
                return message
            if kind == "manifest":
                file.truncate(0)
                file.seek(0)
                await manifest.write(trees.trees, trees.patterns, file, with_content=True)
                await link.send("manifest_ready", bytes=os.fstat(file.fileno()).st_size)
            elif kind == "manifest_read":
                await link.send("manifest_part", data=os.pread(file.fileno(), BYTES_MAX, min(message["offset"], MANIFEST_BYTES_MAX)))
            else:
                await _answer_blocks(link, trees, message)


async def _answer_blocks(link: ControlLink, trees: Trees, message: Message) -> None:
    if (
        message["directory"] >= len(trees.trees)
        or message["count"] > BLOCKS_AT_ONCE
        or message["offset"] % BLOCK_BYTES
        or b"\0" in message["path"]
    ):
        raise PeerProtocolError("a question about blocks that cannot be")
    size, data = await trio.to_thread.run_sync(
        trees.block_hashes, message["directory"], message["path"], min(message["offset"], 2**62), message["count"]
    )
    await link.send("block_hashes", size=size, data=data)


# ---- the side that asks -----------------------------------------------------------------------------------------------------------------


async def compare(link: ControlLink, trees: Trees) -> Summary:
    """Find what differs; the caller says afterwards that it is done."""
    with trees.scratch() as mine, trees.scratch() as theirs:
        await link.send("manifest")
        entries, read_bytes = await manifest.write(trees.trees, trees.patterns, mine, with_content=True)
        await _fetch(link, theirs)
        summary = Summary(str(trees.place / "differences.jsonl"), entries=entries, read_bytes=read_bytes)
        mine.seek(0)
        theirs.seek(0)
        await trio.to_thread.run_sync(_find, link, trees, mine, theirs, summary)
    log.info(
        "compared only_here=%d only_there=%d different=%d differing_bytes=%d",
        *(summary.only_here, summary.only_there, summary.different, summary.differing_bytes),
    )
    return summary


async def _fetch(link: ControlLink, file: BinaryIO) -> None:
    ready = await link.expect("manifest_ready", timeout_s=WORK_TIMEOUT_S)
    room = os.fstatvfs(file.fileno())
    room_bytes = int(room.f_bavail * room.f_frsize * ROOM_SHARE)
    if ready["bytes"] > room_bytes:
        raise SaidNo(
            f"the peer's list of its files takes {ready['bytes'] >> 20} MiB, and there is room for {room_bytes >> 20} MiB of it "
            "in the state directory: make room there, then ask again"
        )
    offset = 0
    while offset < ready["bytes"]:
        await link.send("manifest_read", offset=offset)
        part: bytes = (await link.expect("manifest_part"))["data"]
        if not part or offset + len(part) > min(ready["bytes"], MANIFEST_BYTES_MAX):
            raise PeerProtocolError("a manifest that ends too early or not at all")
        file.write(part)
        offset += len(part)
    file.flush()


def _find(link: ControlLink, trees: Trees, mine: BinaryIO, theirs: BinaryIO, summary: Summary) -> None:
    """One pass over both manifests, in a worker: a tree may hold millions of names, and the loop has a pulse to keep."""
    temporary = summary.file + ".new"
    try:
        with open(temporary, "w", encoding="utf-8") as out:
            for difference in manifest.compare(manifest.read(mine), manifest.read(theirs, len(trees.trees)), trees.local_mtimes):
                trio.from_thread.check_cancelled()
                line = line_of(difference)
                if "content" not in line["what"] or trio.from_thread.run(_refine, link, trees, line):
                    _count(line, summary)
                    out.write(json.dumps(line) + "\n")
    except BadManifest as failure:
        raise PeerProtocolError(f"a manifest that is none: {failure}") from failure
    os.replace(temporary, summary.file)


def line_of(difference: Difference) -> dict[str, Any]:
    """As it is told and kept."""
    mine, theirs, entry = difference.mine, difference.theirs, difference.entry
    return {
        "directory": entry.directory, "path": os.fsdecode(entry.path), "where": difference.where.value, "type": entry.kind,
        "what": list(difference.what), "ranges": [],
        "size_here": mine.size if mine else 0, "size_there": theirs.size if theirs else 0,
    }  # fmt: skip


async def _refine(link: ControlLink, trees: Trees, line: dict[str, Any]) -> bool:
    """Where its content differs. What turns out to be equal (it was written meanwhile) is no difference: False, if there is no other."""
    line["ranges"] = await _ranges(link, trees, line)
    if not line["ranges"]:
        line["what"].remove("content")
    return bool(line["what"])


def _count(line: dict[str, Any], summary: Summary) -> None:
    if line["where"] == Where.HERE:
        summary.only_here += 1
    elif line["where"] == Where.THERE:
        summary.only_there += 1
    else:
        summary.different += 1
    whole = line["size_here"] + line["size_there"] if line["where"] != Where.BOTH else 0
    summary.differing_bytes += whole + sum(length for _, length in line["ranges"])
    for what in line["what"]:
        summary.counts[what] = summary.counts.get(what, 0) + 1


async def _ranges(link: ControlLink, trees: Trees, line: dict[str, Any]) -> list[tuple[int, int]]:
    path, directory = os.fsencode(line["path"]), line["directory"]
    found: list[tuple[int, int]] = []
    offset, size = 0, max(line["size_here"], line["size_there"])
    while offset < size:
        await link.send("blocks", directory=directory, path=path, offset=offset, count=BLOCKS_AT_ONCE)
        own_size, own = await trio.to_thread.run_sync(trees.block_hashes, directory, path, offset, BLOCKS_AT_ONCE)
        answered = await link.expect("block_hashes", timeout_s=WORK_TIMEOUT_S)
        if len(answered["data"]) > BLOCKS_AT_ONCE * HASH_BYTES:
            raise PeerProtocolError("more block hashes than were asked for")
        size = max(size, own_size)
        part = min(size - offset, BLOCKS_AT_ONCE * BLOCK_BYTES)
        found += ((offset + at, length) for at, length in manifest.ranges(own, answered["data"], part))
        offset += part
    if line["size_here"] != line["size_there"] and not found:  # zeros, and more zeros
        shorter = min(line["size_here"], line["size_there"])
        found.append((shorter, size - shorter))
    return found
