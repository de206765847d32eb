"""One HTTP/1.1 request and its answer on a stream, with h11: what the unix socket and the health address share."""

from __future__ import annotations

import h11
import trio

RECEIVE_BYTES = 65536


class TooLong(Exception):
    """The request's body is longer than it may be."""


async def read_request(stream: trio.SocketStream, connection: h11.Connection, body_bytes_max: int) -> tuple[h11.Request, bytes] | None:
    """The next request with its body; None when the client has nothing more to ask. h11.RemoteProtocolError: it is no HTTP."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(RECEIVE_BYTES))
        elif isinstance(event, h11.Request):
            head = event
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
