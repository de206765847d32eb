"""What hactld must remember over its own death and the machine's boots: for each module what people asked for, and in which boot.

A damaged file means that nothing is remembered: what people asked for can be asked for again, and nothing starts that should not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from orchestrator.core.states import Memory
from rfs.durably import write_durably
from rfs.foreign import from_json

TRY_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Kept:
    """Of one module: what was remembered, in the boot of that id."""

    boot_id: str = ""
    memory: Memory = field(default_factory=Memory)


Remembered = Mapping[str, Kept]


def read(path: Path) -> dict[str, Kept]:
    """By module."""
    try:
        document = from_json(path.read_text())
        if "wanted" in document:  # as the first release wrote it
            return {str(name): Kept(str(document["boot"]), Memory(wanted=bool(value))) for name, value in document["wanted"].items()}
        return {str(name): _kept(entry) for name, entry in document["modules"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _kept(entry: Mapping[str, Any]) -> Kept:
    flags = {name: bool(entry.get(name, False)) for name in ("paused", "led", "unchecked")}
    memory = Memory(wanted=bool(entry["wanted"]), boot=str(entry["boot"]), **flags)
    return Kept(str(entry["boot_id"]), memory)


def write(path: Path, remembered: Remembered) -> None:
    """Durable when it returns: either the old content or the new one is there after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    modules = {name: {"boot_id": kept.boot_id, **asdict(kept.memory)} for name, kept in remembered.items()}
    write_durably(path, json.dumps({"modules": modules}).encode())


def wanted_at_start(kept: Kept | None, boot_policy: str, boot_id: str) -> bool:
    """Should the module run when hactld starts? Within one boot the last word stands; after it the switch or the configuration."""
    if kept is None:
        return boot_policy == "on"
    if kept.boot_id == boot_id:
        return kept.memory.wanted
    return {"auto": kept.memory.wanted, "on": True, "off": False}[kept.memory.boot or boot_policy]


class Memories:
    """The file as long as hactld runs. It has one owner, whom all pairs tell what they remember: the file is always whole."""

    def __init__(self, path: Path, boot_id: str, log: Callable[[str], None]) -> None:
        self.path, self.boot_id, self.log = path, boot_id, log
        self._remembered = self._on_disk = read(path)
        self._writing = trio.Lock()
        self.machine_goes_down = False  # then to stop is nobody's wish, and is not remembered

    def of(self, module: str) -> Kept | None:
        """What is remembered of a module."""
        return self._remembered.get(module)

    def remember(self, module: str, memory: Memory) -> None:
        """From now on; `write_down` makes it durable."""
        if self.machine_goes_down and (before := self.of(module)) is not None:
            memory = replace(memory, wanted=before.memory.wanted)
        self._remembered = {**self._remembered, module: Kept(self.boot_id, memory)}

    async def write_down(self) -> None:
        """Durable when it returns, or said to be not. In a thread: a busy disk keeps an fsync for seconds. Who waits together is written
        together."""
        async with self._writing:
            remembered = self._remembered
            if remembered is self._on_disk:
                return
            try:
                await trio.to_thread.run_sync(write, self.path, remembered)
            except OSError as error:
                self.log(f"{self.path}: {error.strerror}; tried again, until then a restart knows only what was remembered before")
                return
            self._on_disk = remembered

    async def keep_trying(self) -> None:
        """What could not be written is written as soon as the disk takes it; until cancelled."""
        while True:
            await trio.sleep(TRY_EVERY_S)
            if self._remembered is not self._on_disk:
                await self.write_down()
