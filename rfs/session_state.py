"""What the replica and its status know of a session, without knowing how a session is made."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from rfs.engine import EngineEvent
from rfs.peer_messages import Message


class Stage(Enum):
    """How far a session has come."""

    HANDSHAKING = auto()
    REFUSED = auto()
    RESYNCING_SOURCE = auto()
    RESYNCING_TARGET = auto()
    PAIRED = auto()


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a resync. Only the source knows: it tells the target with its pulse."""

    bytes_done: int = 0
    total_bytes: int = 0
    files_done: int = 0
    total_files: int = 0


@dataclass(slots=True)
class PeerView:
    """The last that was heard of the peer."""

    node: str = ""
    data: str = ""
    generation: int = 0
    heard_at: float | None = None
    progress: Progress = Progress()


class SessionSlot(Protocol):
    """The running session, as the replica uses it."""

    stage: Stage
    was_reset: bool
    began_at: float
    left_with_consent: bool
    dialed: bool

    def on_event(self, event: EngineEvent) -> None:
        """An event of the engine that belongs to the session."""

    async def ask(self, kind: str, answers: tuple[str, ...], timeout_s: float, **fields: object) -> Message:
        """Say something to the peer and wait for one of these answers."""

    async def hang_up(self) -> None:
        """End the session."""

    async def leave(self, reason: str, *, consent: bool, orderly: bool = False) -> None:
        """Tell the peer that this node goes, as far as it can be told; the session ends."""
