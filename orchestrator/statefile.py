"""What hactld must remember over its own death: which modules are wanted, and in which boot that was said."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Remembered:
    """The content of the file."""

    boot: str = ""
    wanted: Mapping[str, bool] = field(default_factory=dict)


def read(path: Path) -> Remembered:
    """The last thing written; nothing remembered when there is no file or it is damaged (a wish can be said again)."""
    try:
        document = json.loads(path.read_text())
        wanted = {str(name): bool(value) for name, value in document["wanted"].items()}
        return Remembered(boot=str(document["boot"]), wanted=wanted)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return Remembered()


def write(path: Path, remembered: Remembered) -> None:
    """Durable when it returns: either the old content or the new one is there after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    with new.open("w") as file:
        json.dump({"boot": remembered.boot, "wanted": dict(remembered.wanted)}, file)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def wanted_at_start(remembered: Remembered, module: str, boot_policy: str, boot: str) -> bool:
    """Should the module run when hactld starts? Within one boot the last word stands; after a boot the policy `boot` decides."""
    before = remembered.wanted.get(module, False)
    if remembered.boot == boot:
        return before if module in remembered.wanted else boot_policy == "on"
    return {"auto": before, "on": True, "off": False}[boot_policy]
