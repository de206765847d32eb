"""One side of one session: its link, and how far it has come."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from tests.datasim.modes import Mode, SessionEnded
from tests.datasim.network import Connection, Message
from tests.datasim.node_log import Steps

if TYPE_CHECKING:
    from tests.datasim.ops import Op
    from tests.datasim.process import Process


class Stage(Enum):
    HANDSHAKING = auto()
    RESYNCING_SOURCE = auto()
    RESYNCING_TARGET = auto()
    PAIRED = auto()


class SessionBase:
    """See the module's text."""

    def __init__(self, process: Process, connection: Connection, number: int) -> None:
        self.process, self.connection, self.number = process, connection, number
        self.me, self.peer = process.node.index, 1 - process.node.index
        self.world = process.world
        self.stage = Stage.HANDSHAKING
        self.inbox: list[Message] = []
        self.ended = False
        self.end_received = False
        self.names_of_peer: tuple[int, ...] = ()
        self.attached = False  # the data link is there
        # One has demoted itself, the other is not promoted yet: whoever leaves now is no older than its peer.
        self.between_primaries = False
        self.left_with_consent = False
        self.generation = 0  # of the frames

    # ---- the link ---------------------------------------------------------------------------------------------------------------------

    def send(self, kind: str, **body: Any) -> None:
        self.connection.send(self.peer, Message(kind, body, self.number, self.generation))

    def send_frame(self, op: Op) -> None:
        self.send("frame", seq=op.seq, body=op.body)

    def hang_up(self) -> None:
        self.connection.cut(self.world.random)

    def expect(self, kind: str) -> Steps:
        while not self.inbox:
            if self.ended:
                raise SessionEnded(f"waiting for {kind}")
            yield lambda: bool(self.inbox) or self.ended
        message = self.inbox.pop(0)
        if message.kind != kind:
            raise SessionEnded(f"{message.kind} instead of {kind}")
        return message.body

    def ask(self, kind: str, answer: str, **body: Any) -> Steps:
        """None: the session ended, or the peer said no."""
        self.send(kind, **body)
        while not (self.ended or self.inbox):
            yield lambda: self.ended or bool(self.inbox)
        if not self.inbox or self.inbox[0].kind != answer:
            return None
        return self.inbox.pop(0).body

    def notice(self) -> None:
        """The end is known here: a primary freezes in this instant."""
        self.ended = True
        self.process.is_target_of = 0
        if self.process.mode in (Mode.SOURCE, Mode.PAIRED):
            self.process.mode = Mode.FROZEN

    def peer_runs_on(self) -> bool:
        """For the oracle: the process at the other end is the one that this session began with."""
        process = self.world.nodes[self.peer].process
        if process is None or process.session is None or process.session.connection is not self.connection:
            return False
        return process.is_target_of == self.number  # not so any more when it leaves, or its disk has failed
