"""The control socket for a trio program (hactld): questions by number, and the stream of status.

    async with open_client(state_directory) as client:
        await client.call("promote", {"granted": True, "reason": "node1 is silent"})
        async for status in client.subscribe():
            ...

A refusal by rfsmount is raised as SaidNo with its sentence and exit code; a connection that ends, as ControlLost.
"""

import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import trio

from rfs.control import protocol
from rfs.errors import PeerProtocolError

CONNECT_TIMEOUT_S = 5.0


class ControlLost(Exception):
    """rfsmount does not answer on its control socket (any more)."""


class ControlClient:
    """One connection. Calls may run at the same time; each waits for the answer with its number."""

    def __init__(self, stream: trio.SocketStream, server: protocol.Message) -> None:
        self._stream = stream
        self._lock = trio.Lock()
        self._number = 0
        self._answers: dict[int, trio.MemorySendChannel[protocol.Message]] = {}
        self._status_in, self._status_out = trio.open_memory_channel[protocol.Message](math.inf)
        self._lost = False
        self.server = server

    async def call(self, method: str, params: protocol.Message | None = None) -> protocol.Message:
        """Ask and wait for the answer; the caller sets the deadline."""
        self._number += 1
        number = self._number
        answer_in, answer_out = trio.open_memory_channel[protocol.Message](1)
        if self._lost:
            raise ControlLost("the control connection is closed")
        self._answers[number] = answer_in
        try:
            async with self._lock:
                await self._stream.send_all(protocol.encode(protocol.request(number, method, params or {})))
            answer = await answer_out.receive()
        except (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError) as failure:
            raise ControlLost(f"rfsmount went away while '{method}' was asked") from failure
        finally:
            self._answers.pop(number, None)
        if "error" in answer:
            raise protocol.refusal_in(answer)
        value = answer.get("result")
        return value if isinstance(value, dict) else {}

    async def subscribe(self) -> AsyncGenerator[protocol.Message, None]:
        """Every status from now on; ends when the connection does. A slow reader gets the newest, not all."""
        await self.call("subscribe")
        while True:
            try:
                status = await self._status_out.receive()
                while True:
                    status = self._status_out.receive_nowait()
            except trio.WouldBlock:
                yield status
            except trio.EndOfChannel:
                return

    async def read(self) -> None:
        """Deliver what arrives, until the connection ends."""
        try:
            while True:
                message = await receive(self._stream)
                if message.get("event") == "status" and isinstance(message.get("status"), dict):
                    self._status_in.send_nowait(message["status"])
                elif isinstance(number := message.get("id"), int) and (waiting := self._answers.pop(number, None)) is not None:
                    waiting.send_nowait(message)  # once: whoever decodes the peer's bytes must not end hactld by answering twice
        except (ControlLost, PeerProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._lost = True
            self._status_in.close()
            for waiting in list(self._answers.values()):
                waiting.close()


@asynccontextmanager
async def open_client(state_directory: str) -> AsyncIterator[ControlClient]:
    """Connect, greet, read in the background until the block ends. Raises ControlLost when nobody answers."""
    path = f"{state_directory}/{protocol.SOCKET_NAME}"
    stream: trio.SocketStream | None = None
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            stream = await trio.open_unix_socket(path)
            server = await receive(stream)
            protocol.check_hello(server, "rfsmount.control")
            await stream.send_all(protocol.encode(protocol.client_hello()))
    except (OSError, trio.TooSlowError, trio.BrokenResourceError, PeerProtocolError) as failure:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        raise ControlLost(f"{path}: no rfsmount answers here ({failure or 'timeout'})") from failure
    client = ControlClient(stream, server)
    raised: Exception | None = None  # the block's own exception leaves as it is, not wrapped in a group by our nursery
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.read)
        try:
            yield client
        except Exception as failure:
            raised = failure
        finally:
            nursery.cancel_scope.cancel()
            await trio.aclose_forcefully(stream)
    if raised is not None:
        raise raised


async def receive(stream: trio.abc.ReceiveStream) -> protocol.Message:
    """The next frame on `stream`; ControlLost at its end."""
    length = protocol.decode_length(await receive_exactly(stream, protocol.HEADER.size))
    return protocol.decode_body(await receive_exactly(stream, length))


async def receive_exactly(stream: trio.abc.ReceiveStream, size_bytes: int) -> bytes:
    """`size_bytes` bytes; ControlLost when the stream ends before."""
    pieces = bytearray()
    while len(pieces) < size_bytes:
        piece = await stream.receive_some(size_bytes - len(pieces))
        if not piece:
            raise ControlLost("connection closed")
        pieces += piece
    return bytes(pieces)
