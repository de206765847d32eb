"""The first bytes of every connection between two nodes: one fixed-size hello each way, before anything of variable length is read.

The dialer says who it is and what the connection is for (control or data); the acceptor answers with its own hello and a verdict. A
stranger's bytes cost one read of bounded size within five seconds: the connection is dropped, counted and logged once. Only the node with
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
VERSION: Final = 1
HELLO_TIMEOUT_S: Final = 5.0
NAME_BYTES_MAX: Final = 63
_BODY: Final = struct.Struct("<8sHBBQQQ40s64s64s64s")
_CHECKSUM: Final = struct.Struct("<I")
HELLO_BYTES: Final = _BODY.size + _CHECKSUM.size


class Kind(IntEnum):
    """What a connection is for."""

    CONTROL = 1
    DATA = 2


class Answer(IntEnum):
    """What the acceptor makes of a hello. A dialer's own hello carries NONE."""

    NONE = 0
    ACCEPTED = 1
    WAIT_FOR_MY_CALL = 2  # the ids are the other way round: you wait, I dial
    UNRELATED = 3  # another cluster or module
    SAME_NODE = 4  # both ends have one node id: it called itself, or a state directory was copied
    NO_SUCH_SESSION = 5


@dataclass(frozen=True, slots=True)
class Hello:
    """Who speaks, and what for."""

    kind: Kind
    cluster: str
    module: str
    node: str
    node_id: int
    boot: str
    incarnation: int
    session: int = 0
    answer: Answer = Answer.NONE


def encode(hello: Hello) -> bytes:
    """The fixed-size frame."""
    body = _BODY.pack(
        *(MAGIC, VERSION, hello.kind, hello.answer, hello.node_id, hello.incarnation, hello.session),
        *(_padded(text) for text in (hello.boot, hello.cluster, hello.module, hello.node)),
    )
    return body + _CHECKSUM.pack(zlib.crc32(body))


def _padded(text: str) -> bytes:
    raw = text.encode()
    assert len(raw) <= NAME_BYTES_MAX, f"a name of ours is too long for a hello: {text}"
    return raw


def decode(raw: bytes) -> Hello:
    """The hello in `raw`, or PeerProtocolError."""
    if len(raw) != HELLO_BYTES or raw[: len(MAGIC)] != MAGIC:
        raise PeerProtocolError("not a hello of this protocol")
    body = raw[: _BODY.size]
    if _CHECKSUM.unpack(raw[_BODY.size :])[0] != zlib.crc32(body):
        raise PeerProtocolError("a hello whose checksum is wrong")
    _, version, kind, answer, node_id, incarnation, session, boot, cluster, module, node = _BODY.unpack(body)
    if version != VERSION:
        raise PeerProtocolError(f"a hello of protocol version {version}, this program speaks {VERSION}")
    try:
        known_kind, known_answer = Kind(kind), Answer(answer)
    except ValueError as failure:
        raise PeerProtocolError(f"a hello with {failure}") from failure
    return Hello(known_kind, _text(cluster), _text(module), _text(node), node_id, _text(boot), incarnation, session, known_answer)


def _text(field: bytes) -> str:
    raw = field.rstrip(b"\0")
    try:
        text = raw.decode()
    except UnicodeDecodeError as failure:
        raise PeerProtocolError("a hello with a name that is no UTF-8") from failure
    if not text or not text.isprintable():
        raise PeerProtocolError("a hello with an empty or unprintable name")
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


async def call(stream: trio.abc.Stream, mine: Hello) -> Hello:
    """The dialer's side: my hello, then theirs with an answer."""
    with trio.fail_after(HELLO_TIMEOUT_S):
        await stream.send_all(encode(mine))
        theirs = decode(await receive_exactly(stream, HELLO_BYTES))
    if theirs.answer is Answer.NONE or theirs.kind is not mine.kind:
        raise PeerProtocolError("a hello that answers nothing")
    return theirs


async def hear(stream: trio.abc.Stream) -> Hello:
    """The acceptor's side, first half."""
    with trio.fail_after(HELLO_TIMEOUT_S):
        theirs = decode(await receive_exactly(stream, HELLO_BYTES))
    if theirs.answer is not Answer.NONE:
        raise PeerProtocolError("a dialer that answers before it was asked")
    return theirs


async def answer(stream: trio.abc.Stream, mine: Hello, theirs: Hello, verdict: Answer) -> None:
    """The acceptor's side, second half."""
    with trio.fail_after(HELLO_TIMEOUT_S):
        await stream.send_all(encode(replace(mine, kind=theirs.kind, session=theirs.session, answer=verdict)))


async def receive_exactly(stream: trio.abc.ReceiveStream, size_bytes: int) -> bytes:
    """`size_bytes` bytes, and not one more: what follows belongs to somebody else."""
    pieces = bytearray()
    while len(pieces) < size_bytes:
        piece = await stream.receive_some(size_bytes - len(pieces))
        if not piece:
            raise PeerProtocolError(f"the connection ended after {len(pieces)} of {size_bytes} bytes")
        pieces += piece
    return bytes(pieces)
