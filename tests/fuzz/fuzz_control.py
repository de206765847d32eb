"""The control socket of rfsmount, from both ends: whoever misbehaves harms nobody but itself."""

from __future__ import annotations

from typing import Any

import msgpack
import trio

from rfs import added_directory
from rfs.control import protocol
from rfs.control.client import ControlClient, ControlLost, receive
from rfs.control.server import Service, converse
from rfs.errors import PeerProtocolError, SaidNo
from tests.fuzz.streams import Said, run


async def answers(params: protocol.Message) -> protocol.Message:
    """A method that looks at what it is given."""
    added_directory.read(params)
    return {"given": len(params)}


async def refuses(params: protocol.Message) -> protocol.Message:
    raise SaidNo("not now")


async def never() -> None:
    await trio.sleep_forever()


def server(data: bytes) -> None:
    """A client says these bytes, after a proper hello or instead of one: the first byte."""

    async def serve() -> None:
        said = data[1:] if data[0] & 1 else protocol.encode(protocol.client_hello()) + data[1:]
        stream = Said(said, piece=data[0] >> 1)
        service = Service("m", {"add_directories": answers, "grant": refuses}, lambda: {"state": 1}, never)
        await converse(stream, service)
        sent = bytes(stream.sent)
        while sent:  # what was said is whole frames
            length = protocol.decode_length(sent[:4])
            protocol.decode_body(sent[4 : 4 + length])
            sent = sent[4 + length :]

    if data:
        run(serve)


def frame(data: bytes) -> None:
    """One frame's body."""
    try:
        message = protocol.decode_body(data)
    except PeerProtocolError:
        return
    for expected in ("client", "rfsmount.control"):
        try:
            protocol.check_hello(message, expected)
        except PeerProtocolError:
            continue
        assert message["version"] == protocol.VERSION


def client(data: bytes) -> None:
    """An rfsmount that says these bytes, while it is asked something."""

    async def ask() -> None:
        stream = Said(data[1:], piece=data[0])
        try:
            hello = await receive(stream)
        except (ControlLost, PeerProtocolError):
            return
        asking = ControlClient(stream, hello)  # type: ignore[arg-type]

        async def question() -> None:
            try:
                await asking.call("status")
            except (ControlLost, SaidNo):
                pass

        with trio.move_on_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(question)
                nursery.start_soon(asking.read)

    if data:
        run(ask)


PARSERS = {"server": server, "frame": frame, "client": client}


def seeds() -> dict[str, dict[str, bytes]]:
    """By parser."""

    def asked(number: Any, method: str, params: Any) -> bytes:
        return protocol.encode({"id": number, "method": method, "params": params})

    adds = {"directories": ["/srv"], "exclude": ["*.tmp"], "only": []}
    questions = asked(1, "add_directories", adds) + asked(2, "grant", {}) + asked(3, "subscribe", {}) + asked(4, "none", {})
    hello = protocol.encode(protocol.server_hello(1, "m"))
    deep = b"\x82\xa5hello\xa6client\xa7version" + b"\x91" * 700 + b"\1"
    return {
        "server": {
            "asks": b"\0" + questions,
            "pieces": b"\6" + questions,
            "no hello": b"\1" + questions,
            "wrong": b"\0" + asked("x", "grant", 5),
            "wrong parameters": b"\0" + asked(1, "add_directories", {"directories": 5}),
            "deep": b"\1" + len(deep).to_bytes(4, "big") + deep,
        },
        "frame": {"hello": msgpack.packb(protocol.client_hello()), "deep": deep},
        "client": {
            "answer": b"\0" + hello + protocol.encode(protocol.result(1, {"a": 1})),
            "refusal": b"\0" + hello + protocol.encode(protocol.error(1, 6, "no")),
            "status": b"\4" + hello + protocol.encode({"event": "status", "status": {"link": "up"}}),
            "odd": b"\0" + hello + protocol.encode({"id": 1, "error": 7}),
            "odd code": b"\0" + hello + protocol.encode({"id": 1, "error": {"code": "x"}}),
            "odd number": b"\0" + hello + protocol.encode({"id": [], "result": 1}),
        },
    }
