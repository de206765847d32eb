"""The control link: typed messages between the two nodes, with a pulse.

Somebody who waits for a certain message gets it from `expect`; what may come at any time goes to a handler. A peer that says nothing for
SILENCE_S is gone: the link ends, and with it the session. Ends are told as SessionEnded with what was seen.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable

import trio

from rfs import peer_messages
from rfs.errors import PeerProtocolError, SessionEnded
from rfs.handshake import Hello, receive_exactly
from rfs.peer_messages import Message
from rfs.tls import Known

log = logging.getLogger("rfs.link")

PULSE_S = 1.0
SILENCE_S = 5.0
STEP_TIMEOUT_S = 5.0
SYNC_TIMEOUT_S = 600.0  # a step that makes a whole tree durable first; a dead peer is noticed by its silence, not by this
UNREAD_MAX = 64  # messages that arrived before anybody asked for them
HANDLED_MAX = 32  # that are being followed, each in its task; an honest peer has two or three under way

Handler = Callable[[Message], Awaitable[None]]


class ControlLink:
    """One control connection whose hellos are done."""

    def __init__(self, stream: trio.abc.Stream, theirs: Hello, *, dialed: bool, known: Known | None = None) -> None:
        self.theirs = theirs
        self.known = known  # whose key it was; None with --insecure
        self.dialed = dialed
        self.last_heard = trio.current_time()
        self.was_reset = False  # the other end was closed: we know it at once, and need not wait out a silence
        self._stream = stream
        self._lock = trio.Lock()
        self._unread: deque[Message] = deque()
        self._handled = 0
        self._arrived = trio.Condition()
        self._ended: str | None = None

    async def send(self, kind: str, **fields: object) -> None:
        """Say something."""
        frame = peer_messages.encode({"type": kind, **fields})
        try:
            async with self._lock:
                with trio.fail_after(SILENCE_S):
                    await self._stream.send_all(frame)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as failure:
            raise SessionEnded(self._ended or f"cannot send to the peer ({failure or 'timeout'})") from failure

    async def expect(self, *kinds: str, timeout_s: float = STEP_TIMEOUT_S, number: int | None = None) -> Message:
        """The next message of one of these types; with `number` the answer to the question of that number."""
        try:
            with trio.fail_after(timeout_s):
                async with self._arrived:
                    while True:
                        for message in self._unread:
                            if message["type"] in kinds and number in (None, message.get("number")):
                                self._unread.remove(message)
                                return message
                        if self._ended is not None:
                            raise SessionEnded(self._ended)
                        await self._arrived.wait()
        except trio.TooSlowError as failure:
            raise SessionEnded(f"the peer did not say '{' or '.join(kinds)}' within {timeout_s:.0f} s") from failure

    async def run(self, pulse: Callable[[], Message], heard: Callable[[Message], None], handled: frozenset[str], handler: Handler) -> None:
        """Read, and keep the pulse, until the link ends: then raises SessionEnded for everybody.

        Types in `handled` go to `handler`, each in its own task: it may wait for further messages."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_pulse, pulse)
                await self._read(nursery, heard, handled, handler)
        except* SessionEnded as ended:
            raise SessionEnded(self._ended or str(_first(ended))) from ended
        finally:
            await self._end(self._ended or "the session was closed here")

    async def _read(self, nursery: trio.Nursery, heard: Callable[[Message], None], handled: frozenset[str], handler: Handler) -> None:
        while True:
            try:
                with trio.fail_after(SILENCE_S):
                    length = peer_messages.decode_length(await receive_exactly(self._stream, peer_messages.HEADER.size))
                    message = peer_messages.decode(await receive_exactly(self._stream, length))
            except PeerProtocolError as failure:
                self.was_reset = "ended after" in str(failure)
                await self._end("the peer closed the connection" if self.was_reset else f"the peer sent {failure}")
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as failure:
                self.was_reset = True
                await self._end(f"the connection broke ({failure.__cause__ or failure})")
            except trio.TooSlowError:
                await self._end(f"the peer was silent for {SILENCE_S:.0f} s")
            if self._ended is not None:
                raise SessionEnded(self._ended)
            self.last_heard = trio.current_time()
            if message["type"] == "ping":
                heard(message)
            elif message["type"] in handled:
                if self._handled >= HANDLED_MAX:
                    raise SessionEnded("the peer asks for more at once than there is to ask")
                self._handled += 1
                nursery.start_soon(self._handle, handler, message)
            else:
                await self._deliver(message)

    async def _handle(self, handler: Handler, message: Message) -> None:
        try:
            await handler(message)
        finally:
            self._handled -= 1

    async def _deliver(self, message: Message) -> None:
        async with self._arrived:
            if len(self._unread) >= UNREAD_MAX:
                raise SessionEnded("the peer sent more than was asked for")
            self._unread.append(message)
            self._arrived.notify_all()

    async def _keep_pulse(self, pulse: Callable[[], Message]) -> None:
        while True:
            await self.send("ping", **pulse())
            await trio.sleep(PULSE_S)

    async def _end(self, reason: str) -> None:
        with trio.CancelScope(shield=True):
            async with self._arrived:
                self._ended = self._ended or reason
                self._arrived.notify_all()

    async def close(self) -> None:
        """Hang up."""
        await self._end("the session was closed here")
        await trio.aclose_forcefully(self._stream)


def _first(group: BaseExceptionGroup[SessionEnded]) -> BaseException:
    """Any one leaf: they all end the same session."""
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return inner
