"""A connection at whose other end somebody says bytes, and then nothing more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from trio.testing import MockClock

READS_AFTER_END_MAX = 100
Result = TypeVar("Result")


class Said(trio.abc.Stream):
    """What is sent to it is kept."""

    def __init__(self, data: bytes, piece: int = 0) -> None:
        self.left, self.piece, self.sent = data, piece, bytearray()
        self._reads_after_end = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self.left:
            self._reads_after_end += 1
            assert self._reads_after_end < READS_AFTER_END_MAX, "reads on and on where nothing comes any more"
            await trio.lowlevel.checkpoint()
        size = min(max_bytes or len(self.left), self.piece or len(self.left))
        data, self.left = self.left[:size], self.left[size:]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        pass

    async def aclose(self) -> None:
        self.left = b""


def run(ask: Callable[..., Awaitable[Result]], *given: object) -> Result:
    """To its end; time passes only where everybody waits for it."""
    return trio.run(ask, *given, clock=MockClock(autojump_threshold=0))  # type: ignore[arg-type]
