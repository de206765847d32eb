"""What the replica, the commands and the status know of a witness, without knowing how it is asked."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from rfs.witness import Held


@dataclass(frozen=True, slots=True)
class Won:
    """A compare-and-swap that this process has won: the name to mint, and the term that the register held before."""

    name: int
    term: int


class WitnessState(Enum):
    """How the witness was, the last time it was asked."""

    NOT_ASKED = "not-asked"
    OK = "ok"
    UNREACHABLE = "unreachable"
    EMPTY = "empty"  # it answers and holds nothing, though it was armed
    UNKNOWN_NAME = "unknown-name"  # it holds a name that this node knows nothing of


@dataclass(frozen=True, slots=True)
class WitnessView:
    """What status shows."""

    state: WitnessState = WitnessState.NOT_ASKED
    reason: str = ""
    held: Held | None = None


class Arbitration(Protocol):
    """Who hands out grants instead of a policy."""

    view: WitnessView

    async def win(self, cause: str) -> Won:
        """A grant, or NotGranted; the caller holds the lock and mints the name before it lets go."""

    async def arm(self, *, force: bool, cause: str) -> None:
        """Make the register name this node's generation."""

    async def write_over(self, cause: str) -> str:
        """After a force: the register is this node's, if it can be reached; else a sentence."""
