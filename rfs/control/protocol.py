"""The frames of the control socket: a big-endian u32 length, then one msgpack map.

The server speaks first, so that a client of another version can tell before it asks anything:

    server  {"hello": "rfsmount.control", "version": 1, "pid": 812, "module": "pg"}
    client  {"hello": "client", "version": 1}
    client  {"id": 1, "method": "status", "params": {}}
    server  {"id": 1, "result": {...}}   or   {"id": 1, "error": {"code": 6, "message": "one sentence"}}

After `subscribe` the server also pushes {"event": "status", "status": {...}}: always the whole status, because a reader that missed
one must not be wrong for longer than until the next.
"""

import struct
from typing import Any, Final

import msgpack

from rfs import exit_codes
from rfs.errors import PeerProtocolError, SaidNo
from rfs.foreign import from_msgpack

VERSION: Final = 1
SOCKET_NAME: Final = "control.sock"
HEADER: Final = struct.Struct(">I")
FRAME_BYTES_MAX: Final = 1 << 20  # a status is about 2 KiB; whoever sends more than this is not speaking this protocol

Message = dict[str, Any]


def encode(message: Message) -> bytes:
    """The frame that carries `message`."""
    body: bytes = msgpack.packb(message, use_bin_type=True, unicode_errors="replace")
    assert len(body) <= FRAME_BYTES_MAX, "a control message of ours is larger than the protocol allows"
    return HEADER.pack(len(body)) + body


def decode_length(header: bytes) -> int:
    """The length of the body that follows `header`."""
    length: int = HEADER.unpack(header)[0]
    if not 0 < length <= FRAME_BYTES_MAX:
        raise PeerProtocolError(f"a control frame of {length} bytes")
    return length


def decode_body(body: bytes) -> Message:
    """The message in `body`: a map with text keys, or PeerProtocolError."""
    try:
        message = from_msgpack(body)
    except ValueError as error:
        raise PeerProtocolError(f"a control frame that is no msgpack: {error}") from error
    if not isinstance(message, dict):
        raise PeerProtocolError("a control frame that is no map")
    if not all(isinstance(key, str) for key in message):
        raise PeerProtocolError("a control frame whose keys are not text")
    return message


def server_hello(pid: int, module: str) -> Message:
    """What the server says first."""
    return {"hello": "rfsmount.control", "version": VERSION, "pid": pid, "module": module}


def client_hello() -> Message:
    """What the client answers."""
    return {"hello": "client", "version": VERSION}


def check_hello(message: Message, expected: str) -> None:
    """Is this the other side's hello, in a version that we speak?"""
    if message.get("hello") != expected:
        raise PeerProtocolError(f"the other side of the control socket is no {expected}")
    if message.get("version") != VERSION:
        raise PeerProtocolError(f"control protocol version {message.get('version')!r}, this program speaks {VERSION}")


def request(number: int, method: str, params: Message) -> Message:
    """A question."""
    return {"id": number, "method": method, "params": params}


def result(number: int, value: Message) -> Message:
    """Its answer."""
    return {"id": number, "result": value}


def refusal_in(answer: Message) -> SaidNo:
    """What an answer with an "error" says; in whatever form, it is a no."""
    said = answer["error"] if isinstance(answer["error"], dict) else {}
    code = said.get("code")
    return SaidNo(str(said.get("message")), code if type(code) is int else exit_codes.FAILED)


def error(number: int, code: int, sentence: str) -> Message:
    """Its refusal."""
    return {"id": number, "error": {"code": code, "message": sentence}}
