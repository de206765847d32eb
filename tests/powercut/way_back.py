"""The way back from a resync that never ends: its target loses power anywhere within it, the source is gone for good, and a person says
`promote --force`. What is served then is the tree of before, all of it, also when power is lost again while it is put back.

Only on a file system that can clone files (XFS); elsewhere there is nothing to go back to, and `status` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.lab.trees import Manifest, differences
from rfs.errors import SaidNo
from tests.powercut.campaign import Campaign
from tests.powercut.cut import Images
from tests.powercut.disk import STATE, Disk, copy_sparse
from tests.powercut.node import Node, manifest_of, wait_for
from tests.powercut.pair import Violation
from tests.powercut.static import Shelf, read_record

TARGET = "b"
NAP_S = (0.5, 1.2)


@dataclass(slots=True)
class Resync:
    """One that was recorded: its target's disk between two entries of the log, and its trees and generation before the first."""

    disk: Disk
    begin: int
    end: int
    before: Manifest
    generation: int


def live(life: Campaign) -> Resync:
    """The secondary is without power while the application goes on; the return after that is what is cut later. Then both end."""
    life.begin()
    for _ in range(2):
        life.work()
        life.sleep(*NAP_S)
        life.end_job()
    life.power_off(TARGET)
    life.work()
    life.sleep(*NAP_S)
    life.restore(TARGET)
    disk = life.disk_of[TARGET]
    before, generation = _what_is_on(disk.base, life)
    begin = life.disks.clock.now()
    life.nodes[TARGET].start(disk, "secondary", guards=True)
    life.await_pair()
    end = life.disks.clock.now()
    life.sleep(*NAP_S)
    life.end_job()
    life.end()
    return Resync(disk, begin, end, before, generation)


def _what_is_on(image: Path, life: Campaign) -> tuple[Manifest, int]:
    shelf = Shelf(life.directory, "before")
    copy_sparse(image, shelf.image)  # the log of the file system is replayed in it
    try:
        shelf.mount(life.kind)
        record = read_record(shelf.place / STATE)
        assert record is not None
        return manifest_of(shelf.place), record.generation
    finally:
        shelf.close()
        shelf.image.unlink()
        shelf.place.rmdir()


def go_back(life: Campaign, resync: Resync) -> str:
    """One state: a cut anywhere within the resync, and perhaps another one within the way back. Returns what was found there."""
    node = life.nodes[TARGET]
    cut = _cut_within(life, resync.disk, resync.begin, resync.end)
    found = _awake(life, node, resync.disk, cut)
    if found == "whole":
        found = "not begun" if int(node.status()["generation"], 16) == resync.generation else "over"
    if found == "kept":
        disk, begin = _disk_of(node), life.disks.clock.now()
        _force(node)
        _must_be(node, resync.before, "the tree after the way back is not the one of before")
        end = life.disks.clock.now()
        if life.chance.random() < 0.5:
            _power_off(life, node)
            found = f"{found}, then {_awake(life, node, disk, _cut_within(life, disk, begin, end))}"
            if found.endswith("kept"):
                _force(node)
            _must_be(node, resync.before, "the tree after the second way back is not the one of before")
    elif found == "not begun":
        _must_be(node, resync.before, "nothing was overwritten, it says, and the tree is not the one of before")
    _power_off(life, node)
    life.events = []
    return found


def _cut_within(life: Campaign, disk: Disk, begin: int, end: int) -> int:
    """After any entry of this disk, and not of the application's on the other node, which are many more."""
    numbers = [entry.number for entry in life.disks.log.entries(disk.number) if begin <= entry.number <= end]
    cut = life.chance.choice([begin, *numbers])
    life.say(f"cut at {cut} of {begin}..{end}")
    return cut


def _awake(life: Campaign, node: Node, disk: Disk, cut: int) -> str:
    """The node alone on its disk as a cut there has left it: "kept" (what it was before) or "whole"."""
    image = life.directory / "back.img"
    images = Images(life.disks.log, disk, life.directory, life.kind)
    images.build(image, cut, life.chance)
    images.close()
    life.disk_of[TARGET] = life.disks.new(image)
    node.start(life.disk_of[TARGET], "secondary", guards=True)
    wait_for("the target is awake", lambda: node.status().get("link") in ("connecting", "alone"))  # the latter once it was forced
    status = node.status()
    if status["data"] != "INCONSISTENT":
        return "whole"
    if status["snapshot"] != "kept":
        raise Violation(f"inside a resync, without a snapshot of before: {status['snapshot']}, {status['reason']}")
    return "kept"


def _disk_of(node: Node) -> Disk:
    assert node.disk is not None
    return node.disk


def _force(node: Node) -> None:
    try:
        node.call("promote", force=True, granted=False, reason="the peer is gone for good")
    except SaidNo as refusal:
        raise Violation(f"there is a snapshot, and no way back to it: {refusal.sentence}") from refusal
    if not node.is_so(role="primary", data="UPTODATE"):
        raise Violation(f"forced, and it is {node.status()}")


def _must_be(node: Node, before: Manifest, sentence: str) -> None:
    different = differences(before, node.manifest())
    if different:
        raise Violation(f"{sentence}: {different[:4]}")


def _power_off(life: Campaign, node: Node) -> None:
    node.cut()
    life.await_released(life.disk_of[TARGET])
