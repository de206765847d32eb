"""Two nodes that are being paired look each other over: what each says of itself travels with its certificate, and both judge it.

Only what cannot work refuses the pairing. What could go wrong later is told at once, with its fix: before there is data to lose.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from orchestrator.doctor import gather
from orchestrator.doctor.finding import Finding
from orchestrator.doctor.preflight import at_pairing, cannot_work
from orchestrator.hactl.doctor_command import findings
from orchestrator.hactl.output import say
from rfs.errors import SaidNo
from rfs.pairing import Facts, Introduction, Paired

AFTERWARDS = ("paths", "network", "configuration")  # when both know the cluster's addresses
WORTH_TELLING = ("bad", "warn")


class Acquaintance:
    """One pairing, as this node sees it (blocking: looks at this node for a second)."""

    def __init__(self, node: str, config_dir: Path) -> None:
        self.node, self.config_dir = node, config_dir
        self.mine: Facts = self._look(gather.BEFORE_PAIRING)
        self.offset_s: float | None = None
        self.introduction = Introduction(self._told_now, self._suits)

    def _look(self, only: tuple[str, ...]) -> Facts:
        if os.geteuid() != 0:
            return {"node": self.node}
        try:
            return gather.gather(self.node, self.config_dir, only=only)
        except SaidNo:
            return {"node": self.node}  # whatever hinders the doctor is no reason not to pair

    def _told_now(self) -> Facts:
        return {**self.mine, "wall_s": time.time()}

    def _suits(self, theirs: Facts) -> str:
        """Why not; and how far the other clock is from ours, as well as one message can tell."""
        wall_s: Any = theirs.get("wall_s")
        if isinstance(wall_s, int | float):
            self.offset_s = wall_s - time.time()
        return cannot_work(self.mine, theirs)

    def findings(self, paired: Paired) -> list[Finding]:
        """What is worth telling, now that the networks between the two are known (blocking)."""
        offsets = {paired.peer: self.offset_s} if self.offset_s is not None else {}
        mine = {**self.mine, **self._look(AFTERWARDS), "node": self.node, "clock_offsets": offsets}
        return [each for each in at_pairing(mine, {**paired.facts, "node": paired.peer}) if each.verdict in WORTH_TELLING]

    def say(self, paired: Paired, *, colour: bool) -> None:
        """For people."""
        found = self.findings(paired)
        if found:
            say("\nBefore you go on:")
            for line in findings(found, colour=colour):
                say(line, styled=colour)
            say("\n'hactl doctor' asks all of this and more again, at any time")
