"""A connection: one FIFO per direction for the control and the data link together. It breaks at any time and loses what was on its way
from some point on; each side notices by itself. Nothing that was sent before is reordered, and nothing of one connection arrives on the
next (but for frames that the world replays on purpose)."""

import random
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Message:
    """A control message, or a frame of the data link (`kind` "frame", "ack", "end")."""

    kind: str
    body: dict[str, Any]
    session: int = 0
    generation: int = 0


@dataclass
class Connection:
    number: int
    queues: list[list[Message]] = field(default_factory=lambda: [[], []])  # by receiver
    is_cut: bool = False
    closed: list[bool] = field(default_factory=lambda: [False, False])  # by side: has noticed the end
    lost: list[Message] = field(default_factory=list)

    def send(self, to: int, message: Message) -> None:
        if not self.is_cut:
            self.queues[to].append(message)

    def cut(self, choose: random.Random) -> None:
        """Of what is on its way, a beginning still arrives."""
        if self.is_cut:
            return
        self.is_cut = True
        for queue in self.queues:
            kept = choose.randint(0, len(queue)) if queue else 0
            self.lost += queue[kept:]
            del queue[kept:]

    def has_ended(self, side: int) -> bool:
        """Nothing more arrives here."""
        return self.is_cut and not self.queues[side]
