"""One HTTP/1.1 request and its answer on a stream, with h11: what the unix socket and the health address share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import h11
import trio

RECEIVE_BYTES = 65536


class TooLong(Exception):
    """The request's body is longer than it may be."""


async def read_request(
    stream: trio.SocketStream,
    connection: h11.Connection,
    body_bytes_max: int,
    admit: Callable[[h11.Request], Awaitable[None]] | None = None,
) -> tuple[h11.Request, bytes] | None:
    """The next request with its body; None when the client has nothing more to ask. h11.RemoteProtocolError: it is no HTTP. `admit` sees
    the head before anything of the body is read, and may raise."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(RECEIVE_BYTES))
        elif isinstance(event, h11.Request):
            head = event
            if admit is not None:
                await admit(head)
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > body_bytes_max:
                raise TooLong
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            return head, bytes(body)
        else:
            return None


async def answer(
    stream: trio.SocketStream,
    connection: h11.Connection,
    status: int,
    content_type: str,
    body: bytes,
    more: tuple[tuple[str, str], ...] = (),
    head_only: bool = False,
) -> None:
    """Status, headers and body, in one piece. `head_only`: what HEAD is answered with."""
    headers = [("content-type", content_type), ("content-length", str(len(body))), *more]
    data = connection.send(h11.Response(status_code=status, headers=headers)) or b""
    if not head_only:
        data += connection.send(h11.Data(data=body)) or b""
    data += connection.send(h11.EndOfMessage()) or b""
    await stream.send_all(data)


async def begin_stream(stream: trio.SocketStream, connection: h11.Connection, content_type: str) -> None:
    """The head of an answer whose end nobody knows."""
    headers = [("content-type", content_type), ("cache-control", "no-store"), ("connection", "close")]
    await stream.send_all(connection.send(h11.Response(status_code=200, headers=headers)) or b"")


async def send_piece(stream: trio.SocketStream, connection: h11.Connection, data: bytes) -> None:
    """A piece of it, sent when this returns."""
    await stream.send_all(connection.send(h11.Data(data=data)) or b"")
