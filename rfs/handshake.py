"""The first bytes of every connection between two nodes, before anything of variable length is read.

First a *preamble* each way, in the clear: 28 bytes that say what the connection is for (control or data), whether TLS follows, and
for a data connection the one-time number of the session it belongs to. A stranger learns nothing from it. Then TLS (tls.py, or the
engine's for data), unless both ends run with --insecure. Then, on a control connection, one fixed-size *hello* each way: who speaks.

A stranger's bytes cost one read of bounded size within five seconds: the connection is dropped, counted and logged once. Only the node with
the lower node id dials; until both know each other's id both try, and the wrong one is told to wait.
"""

import struct
import zlib
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

import trio

from rfs.errors import PeerProtocolError

MAGIC: Final = b"LOCKSTEP"
VERSION: Final = 2
HELLO_TIMEOUT_S: Final = 5.0
NAME_BYTES_MAX: Final = 63
_CHECKSUM: Final = struct.Struct("<I")
_PREAMBLE: Final = struct.Struct("<8sHBB?3xQ")
_BODY: Final = struct.Struct("<8sHBxQQ40s64s64s64s")
PREAMBLE_BYTES: Final = _PREAMBLE.size + _CHECKSUM.size
HELLO_BYTES: Final = _BODY.size + _CHECKSUM.size


class Kind(IntEnum):
    """What a connection is for."""

    CONTROL = 1
    DATA = 2


class Answer(IntEnum):
    """What the acceptor makes of a preamble or a hello. A dialer's own carries NONE."""

    NONE = 0
    ACCEPTED = 1
    WAIT_FOR_MY_CALL = 2  # the ids are the other way round: you wait, I dial
    UNRELATED = 3  # another cluster or module
    SAME_NODE = 4  # both ends have one node id: it called itself, or a state directory was copied
    NO_SUCH_SESSION = 5
    NEEDS_TLS = 6  # the acceptor takes no plain text
    HAS_NO_TLS = 7  # the acceptor runs with --insecure


@dataclass(frozen=True, slots=True)
class Preamble:
    """What a connection is for."""

    kind: Kind
    secure: bool  # TLS follows
    session: int = 0  # of a data connection
    answer: Answer = Answer.NONE


@dataclass(frozen=True, slots=True)
class Hello:
    """Who speaks."""

    cluster: str
    module: str
    node: str
    node_id: int
    boot: str
    incarnation: int
    answer: Answer = Answer.NONE


def _sealed(body: bytes) -> bytes:
    return body + _CHECKSUM.pack(zlib.crc32(body))


def _opened(raw: bytes, layout: struct.Struct, what: str) -> tuple[object, ...]:
    """The fields behind magic and version, if the checksum is right."""
    if len(raw) != layout.size + _CHECKSUM.size or raw[: len(MAGIC)] != MAGIC:
        raise PeerProtocolError(f"not a {what} of this protocol")
    body = raw[: layout.size]
    if _CHECKSUM.unpack(raw[layout.size :])[0] != zlib.crc32(body):
        raise PeerProtocolError(f"a {what} whose checksum is wrong")
    version, *fields = layout.unpack(body)[1:]
    if version != VERSION:
        raise PeerProtocolError(f"a {what} of protocol version {version}, this program speaks {VERSION}")
    return tuple(fields)


def encode_preamble(preamble: Preamble) -> bytes:
    """The fixed-size frame."""
    return _sealed(_PREAMBLE.pack(MAGIC, VERSION, preamble.kind, preamble.answer, preamble.secure, preamble.session))


def decode_preamble(raw: bytes) -> Preamble:
    """The preamble in `raw`, or PeerProtocolError."""
    kind, answer, secure, session = _opened(raw, _PREAMBLE, "preamble")
    assert isinstance(kind, int) and isinstance(answer, int) and isinstance(session, int)
    try:
        return Preamble(Kind(kind), bool(secure), session, Answer(answer))
    except ValueError as failure:
        raise PeerProtocolError(f"a preamble with {failure}") from failure


def encode(hello: Hello) -> bytes:
    """The fixed-size frame."""
    return _sealed(
        _BODY.pack(
            *(MAGIC, VERSION, hello.answer, hello.node_id, hello.incarnation),
            *(_padded(text) for text in (hello.boot, hello.cluster, hello.module, hello.node)),
        )
    )


def _padded(text: str) -> bytes:
    raw = text.encode()
    assert len(raw) <= NAME_BYTES_MAX, f"a name of ours is too long for a hello: {text}"
    return raw


def decode(raw: bytes) -> Hello:
    """The hello in `raw`, or PeerProtocolError."""
    answer, node_id, incarnation, *names = _opened(raw, _BODY, "hello")
    assert isinstance(answer, int) and isinstance(node_id, int) and isinstance(incarnation, int)
    boot, cluster, module, node = (_text(name) for name in names if isinstance(name, bytes))
    try:
        return Hello(cluster, module, node, node_id, boot, incarnation, Answer(answer))
    except ValueError as failure:
        raise PeerProtocolError(f"a hello with {failure}") from failure


def _text(field: bytes) -> str:
    raw = field.rstrip(b"\0")
    try:
        text = raw.decode()
    except UnicodeDecodeError as failure:
        raise PeerProtocolError("a hello with a name that is no UTF-8") from failure
    if not text or not text.isprintable() or len(raw) > NAME_BYTES_MAX:
        raise PeerProtocolError("a hello with a name that is empty, too long or unprintable")
    return text


def judge(mine: Hello, theirs: Hello) -> Answer:
    """The acceptor's answer to a dialer, as far as the two hellos decide it."""
    if (mine.cluster, mine.module) != (theirs.cluster, theirs.module):
        return Answer.UNRELATED
    if mine.node_id == theirs.node_id:
        return Answer.SAME_NODE
    if theirs.node_id > mine.node_id:
        return Answer.WAIT_FOR_MY_CALL
    return Answer.ACCEPTED


def unrelated_sentence(mine: Hello, theirs: Hello) -> str:
    """Why these two are no pair."""
    if mine.node_id == theirs.node_id:
        return f"the peer '{theirs.node}' carries this node's own id: it called itself, or the state directory was copied; remove one copy"
    return (
        f"the peer at the other end is '{theirs.module}' of cluster '{theirs.cluster}', this is '{mine.module}' of '{mine.cluster}'; "
        "check --peer, --module and --cluster on both nodes"
    )


async def open_connection(stream: trio.abc.Stream, mine: Preamble) -> Answer:
    """The dialer's preamble, and what the acceptor says to it."""
    with trio.fail_after(HELLO_TIMEOUT_S):
        await stream.send_all(encode_preamble(mine))
        theirs = decode_preamble(await receive_exactly(stream, PREAMBLE_BYTES))
    if theirs.answer is Answer.NONE or (theirs.kind, theirs.session) != (mine.kind, mine.session):
        raise PeerProtocolError("a preamble that answers nothing")
    return theirs.answer


async def hear_preamble(stream: trio.abc.Stream) -> Preamble:
    """The acceptor's side, first half."""
    with trio.fail_after(HELLO_TIMEOUT_S):
        theirs = decode_preamble(await receive_exactly(stream, PREAMBLE_BYTES))
    if theirs.answer is not Answer.NONE:
        raise PeerProtocolError("a dialer that answers before it was asked")
    return theirs


async def answer_preamble(stream: trio.abc.Stream, theirs: Preamble, verdict: Answer) -> None:
    """The acceptor's side, second half."""
    with trio.fail_after(HELLO_TIMEOUT_S):
        await stream.send_all(encode_preamble(replace(theirs, answer=verdict)))


async def call(stream: trio.abc.Stream, mine: Hello) -> Hello:
    """The dialer's side: my hello, then theirs with an answer."""
    with trio.fail_after(HELLO_TIMEOUT_S):
        await stream.send_all(encode(mine))
        theirs = decode(await receive_exactly(stream, HELLO_BYTES))
    if theirs.answer is Answer.NONE:
        raise PeerProtocolError("a hello that answers nothing")
    return theirs


async def hear(stream: trio.abc.Stream) -> Hello:
    """The acceptor's side, first half."""
    with trio.fail_after(HELLO_TIMEOUT_S):
        theirs = decode(await receive_exactly(stream, HELLO_BYTES))
    if theirs.answer is not Answer.NONE:
        raise PeerProtocolError("a dialer that answers before it was asked")
    return theirs


async def answer(stream: trio.abc.Stream, mine: Hello, verdict: Answer) -> None:
    """The acceptor's side, second half."""
    with trio.fail_after(HELLO_TIMEOUT_S):
        await stream.send_all(encode(replace(mine, answer=verdict)))


async def receive_exactly(stream: trio.abc.ReceiveStream, size_bytes: int) -> bytes:
    """`size_bytes` bytes, and not one more: what follows belongs to somebody else."""
    pieces = bytearray()
    while len(pieces) < size_bytes:
        piece = await stream.receive_some(size_bytes - len(pieces))
        if not piece:
            raise PeerProtocolError(f"the connection ended after {len(pieces)} of {size_bytes} bytes")
        pieces += piece
    return bytes(pieces)
