"""Calls between the two hactld: one question and one answer per TCP connection, each a u32 length and a msgpack map.

A call tries the networks in the order of the configuration, each with its share of the deadline; the first that connects is
used. A question is never sent twice: what could have been heard is not asked again on another network, so a command cannot
run twice.

Every call is under TLS with the nodes' pinned keys (rfs/tls.py), so whoever asks is the peer, by its key. The server is given only
what comes from the peer's own addresses (doors.py); who has not proven its key within seconds is dropped, and only a few may try at a
time. The key is judged once more when the question is there: one that was revoked or replaced meanwhile asks nothing.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgpack
import trio

from orchestrator.bugs import Bugs, unheard
from orchestrator.heartbeat import IP_FREEBIND, Network
from rfs import exit_codes, tls
from rfs.errors import SaidNo
from rfs.foreign import from_msgpack
from rfs.keys import KeyStore
from rfs.tls import Refused

PORT: Final = 5598
VERSION: Final = 2
HALF_OPEN_MAX: Final = 8
MESSAGE_BYTES_MAX: Final = 1 << 20
CALLS_MAX: Final = 32
SERVER_DEADLINE_S: Final = 120.0
QUESTION_DEADLINE_S: Final = 5.0
CONNECT_DEADLINE_S: Final = 1.5
# Who was away while the cluster was given another name asks under the old one what became of it; that it is the peer, its key says.
UNDER_ANY_NAME: Final = frozenset({"config_state", "config_fate", "config_files"})
HEADER: Final = struct.Struct(">I")

Message = dict[str, Any]
Handler = Callable[[str, Message, str], Awaitable[Message]]  # method, parameters, the key under which it is asked ("": --insecure)


class PeerUnreachable(Exception):
    """No network led to the peer's hactld, or it did not answer in time."""


class PeerRefused(Exception):
    """The peer answered no; `code` as the CLI's exit codes."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


async def send(stream: trio.abc.SendStream, message: Message) -> None:
    """One frame."""
    body: bytes = msgpack.packb(message, unicode_errors="replace")  # a name that is not UTF-8 must not cost the answer
    if len(body) > MESSAGE_BYTES_MAX and "result" in message:  # of what was asked for there is too much: that is an answer, too
        reason = f"the answer has {len(body)} bytes; ask for less of it, or on that node itself"
        body = msgpack.packb({"error": {"code": exit_codes.FAILED, "message": reason}})
    assert len(body) <= MESSAGE_BYTES_MAX, "a question of ours is larger than the protocol allows"
    await stream.send_all(HEADER.pack(len(body)) + body)


async def receive(stream: trio.abc.ReceiveStream) -> Message:
    """One frame: a map with text keys, or ValueError for what is none, or EOFError at the end."""
    (length,) = HEADER.unpack(await receive_exactly(stream, HEADER.size))
    if not 0 < length <= MESSAGE_BYTES_MAX:
        raise ValueError(f"a frame of {length} bytes")
    message = from_msgpack(await receive_exactly(stream, length))
    if not isinstance(message, dict):
        raise ValueError("no map")
    return message


async def receive_exactly(stream: trio.abc.ReceiveStream, size_bytes: int) -> bytes:
    """`size_bytes` bytes, or EOFError."""
    pieces = bytearray()
    while len(pieces) < size_bytes:
        piece = await stream.receive_some(size_bytes - len(pieces))
        if not piece:
            raise EOFError
        pieces += piece
    return bytes(pieces)


class PeerClient:
    """Questions to the peer."""

    def __init__(self, cluster: str, node: str, peer: str, networks: tuple[Network, ...], keys: KeyStore | None, port: int = PORT) -> None:
        self.cluster, self.node, self.peer, self.networks, self.keys, self.port = cluster, node, peer, networks, keys, port

    async def call(self, method: str, parameters: Message, deadline_s: float) -> Message:
        """The peer's answer; PeerRefused when it says no, PeerUnreachable when it does not say anything."""
        request = {"lockstep": VERSION, "cluster": self.cluster, "node": self.node, "method": method, "params": parameters}
        try:
            with trio.fail_after(deadline_s):
                async with await self._connect() as stream:
                    secured: trio.abc.Stream = stream
                    if self.keys is not None:
                        secured, _ = await tls.secure(stream, self.keys, [self.peer], dialed=True)
                    await send(secured, request)
                    answer = await receive(secured)
        except (trio.TooSlowError, OSError, EOFError, ValueError, trio.BrokenResourceError, Refused, SaidNo) as error:
            raise PeerUnreachable(f"{self.peer} did not answer '{method}' ({str(error) or type(error).__name__})") from error
        if isinstance(failure := answer.get("error"), dict):
            code = failure.get("code")
            raise PeerRefused(str(failure.get("message", ""))[:1000], code if type(code) is int else exit_codes.FAILED)
        result = answer.get("result")
        return result if isinstance(result, dict) else {}

    async def _connect(self) -> trio.SocketStream:
        why: Exception | None = None
        for network in self.networks:
            sock = trio.socket.socket()
            try:
                with trio.fail_after(CONNECT_DEADLINE_S):
                    sock.setsockopt(trio.socket.IPPROTO_IP, IP_FREEBIND, 1)
                    await sock.bind((network.here, 0))
                    await sock.connect((network.there, self.port))
                return trio.SocketStream(sock)
            except (OSError, trio.TooSlowError) as error:
                sock.close()
                why = error
        raise OSError(f"no network leads to it: {why}")


class PeerServer:
    """Answers to one peer."""

    def __init__(
        self,
        cluster: str,
        peer: str,
        handle: Handler,
        keys: KeyStore | None,
        log: Callable[[str], None],
        bugs: Bugs | None = None,
    ) -> None:
        self.cluster, self.peer = cluster, peer
        self.handle, self.keys, self.log, self.bugs = handle, keys, log, bugs or unheard()
        self.limit = trio.Semaphore(CALLS_MAX)
        self.refused: Counter[str] = Counter()
        self._half_open = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection from an address of the peer's (doors.py): one question. Whatever goes wrong in it ends it, and nothing else."""
        try:
            await self._converse(stream)
        except* Exception as group:
            self.bugs.told(f"a call of {self.peer}'s", group)

    async def _converse(self, stream: trio.SocketStream) -> None:
        remote = f"an address of {self.peer}'s"
        try:
            remote = str(stream.socket.getpeername()[0])
            secured, pin = await self._known(stream)
            async with self.limit:
                with trio.fail_after(QUESTION_DEADLINE_S):
                    question = await receive(secured)
                if self.keys is not None and pin not in [pinned.pin for pinned in self.keys.trust().of(self.peer)]:
                    raise Refused("revoked", "a key that was revoked or replaced since the connection was made")
                with trio.move_on_after(SERVER_DEADLINE_S):
                    await send(secured, await self._answer(question, pin))
        except Refused as refusal:
            self._refuse(refusal.kind, f"from {remote}: {refusal}")
        except (trio.TooSlowError, SaidNo) as failure:
            self._refuse("silent" if isinstance(failure, trio.TooSlowError) else "own-keys", f"from {remote}: {failure}")
        except (EOFError, ValueError, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the peer went away (perhaps before we looked) or speaks nonsense: the connection is dropped, nothing else

    async def _known(self, stream: trio.SocketStream) -> tuple[trio.abc.Stream, str]:
        """The connection when whoever is there has proven to be the peer, and by which key."""
        if self.keys is None:
            return stream, ""
        if self._half_open >= HALF_OPEN_MAX:
            raise Refused("too-many", "too many connections that do not say who they are")
        self._half_open += 1
        try:
            secured, known = await tls.secure(stream, self.keys, [self.peer], dialed=False)
        except SaidNo as trouble:
            raise Refused("own-keys", trouble.sentence) from trouble
        finally:
            self._half_open -= 1
        return secured, known.pin

    def _refuse(self, kind: str, text: str) -> None:
        self.refused[kind] += 1
        if self.refused[kind] == 1:
            self.log(f"call refused: {kind} {text} (counted from now on, not logged again)")

    async def _answer(self, request: Message, pin: str) -> Message:
        method, parameters = request.get("method"), request.get("params")
        if request.get("lockstep") != VERSION or not isinstance(method, str) or not isinstance(parameters, dict):
            return {"error": {"code": exit_codes.FAILED, "message": "not a question of this protocol version"}}
        renamed = request.get("cluster") != self.cluster and method not in UNDER_ANY_NAME
        if renamed or request.get("node") != self.peer:
            return {"error": {"code": exit_codes.NOT_PERMITTED, "message": "not of this cluster"}}
        try:
            return {"result": await self.handle(method, parameters, pin)}
        except PeerRefused as refusal:
            return {"error": {"code": refusal.code, "message": str(refusal)}}
        except OSError as error:  # the machine's refusal, not our mistake
            return {"error": {"code": exit_codes.FAILED, "message": str(error)}}
        except Exception as error:
            return {"error": {"code": exit_codes.FAILED, "message": self.bugs.told(f"the call '{method}' of {self.peer}'s", error)}}
