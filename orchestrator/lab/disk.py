"""A node's disk: a sparse image file that the node's init mounts through a loop device."""

from __future__ import annotations

import json
import os
from pathlib import Path

from orchestrator.lab.errors import LabError
from orchestrator.lab.tools import tool, wait_until

DETACH_TIMEOUT_S = 60.0


def create(image: Path, size_bytes: int) -> None:
    """A fresh, empty ext4 of this size."""
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        os.truncate(file.fileno(), size_bytes)
    options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    tool("mkfs.ext4", "-q", "-F", "-m", "0", "-L", image.stem, "-E", options, str(image))


def loop_devices(prefix: Path) -> list[str]:
    """Loop devices whose backing file (deleted or not) lies at or below this path."""
    listing = json.loads(tool("losetup", "--list", "--json", "--output", "NAME,BACK-FILE") or '{"loopdevices": []}')
    wanted = str(prefix)
    return [
        device["name"]
        for device in listing["loopdevices"]
        if (backing := (device["back-file"] or "").removesuffix(" (deleted)")) == wanted or backing.startswith(wanted + "/")
    ]


def wait_released(image: Path) -> None:
    """The disk must be unmounted for good before anybody mounts or copies it again: two mounts would ruin it."""
    if not wait_until(lambda: not loop_devices(image), DETACH_TIMEOUT_S):
        raise LabError(f"{image} is still attached to {loop_devices(image)[0]}: something holds a file on the dead node's disk open.")


def detach_all(directory: Path) -> None:
    """Whatever loop devices a crashed lab left; normally they have gone with their mounts, or go when these are written back."""
    for device in loop_devices(directory):
        tool("losetup", "--detach", device, check=False)
    if not wait_until(lambda: not loop_devices(directory), DETACH_TIMEOUT_S):
        raise LabError(f"{loop_devices(directory)[0]} does not let go of {directory}: something still uses a disk of the lab.")


def copy_frozen(init_pid: int, image: Path, copy: Path) -> None:
    """The image as of a sync made now: the file system is frozen while it is copied, else the copy would be of no one moment."""
    inside = ("nsenter", f"--target={init_pid}", "--mount")
    tool(*inside, "fsfreeze", "--freeze", "/srv")
    try:
        tool("cp", "--reflink=auto", "--sparse=always", str(image), str(copy))
    finally:
        tool(*inside, "fsfreeze", "--unfreeze", "/srv")
