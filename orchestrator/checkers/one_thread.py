"""What may hang in the kernel runs in a thread that nobody waits for, and there is never more than one of it.

A file system that is frozen, or a process that is stuck, hangs whoever asks about it. The look is given up at its deadline; the thread
stays where it is, and until it is free the next look waits for its place and ends at its own deadline: down, and no heap of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class OneThread:
    """The place of one thread."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """The function's result; a cancellation leaves the thread to itself."""
        return await trio.to_thread.run_sync(function, *arguments, limiter=self._limiter, abandon_on_cancel=True)
