"""Pairing: two nodes that have never met learn each other's keys, by a code that a person carries from one to the other.

The inviting node shows a one-time code (128 bits of chance) and listens; the joining node is given the code and the address. TLS comes
first, without knowing whom: the inviter shows its certificate, nobody's is checked. Then both prove, by HMACs keyed with the code, that
they know it, over *both* certificates and a fresh number of each side. Somebody in the middle has another certificate, so no proof of one
side fits the other; 128 bits cannot be guessed, neither now nor from a recording, so no PAKE is needed. Nothing but two messages of
fixed size is looked at before that. Only then certificates, the cluster's id and its configuration are exchanged.

    joiner                                          inviter
      ── TLS ──────────────────────────────────────▶
      ◀───────────────── greeting: number ───────────
      ── claim: number, hash of certificate, HMAC ──▶   wrong: one of ATTEMPTS is used up
      ◀───────────────── proof: HMAC ────────────────   wrong: the joiner leaves
      ── node, certificate, facts ──────────────────▶   unsuitable: told so, and nothing is stored
      ◀── node, certificate, facts, cluster's id, files
      (stores all of it)
      ── stored ────────────────────────────────────▶   (pins the joiner's key: the code is spent)
      ◀───────────────────────────────────── done ──

The code is worth nothing after TEN minutes, after the first success, or after five wrong claims. If the last message is lost the joiner
knows the inviter and not the other way round: the same code, given once more, mends that. No wall clock is read.
"""

import hashlib
import hmac
import secrets
import ssl
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack
import trio

from rfs import exit_codes
from rfs.errors import PeerProtocolError, SaidNo
from rfs.foreign import from_msgpack
from rfs.handshake import receive_exactly
from rfs.keys import KeyStore, Own, fingerprint

PORT: Final = 5597
VALID_S: Final = 600.0
ATTEMPTS: Final = 5
STEP_S: Final = 5.0
HALF_OPEN_MAX: Final = 8
HALF_OPEN_MAX_PER_ADDRESS: Final = 2
MESSAGE_BYTES_MAX: Final = 4 << 20
MAGIC: Final = b"LSPAIR01"
_GREETING: Final = struct.Struct("8s32s")
_CLAIM: Final = struct.Struct("8s32s32s32s")
_PROOF: Final = struct.Struct("8s32s")
_LENGTH: Final = struct.Struct(">I")
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O, U

Files = dict[str, tuple[int, bytes]]  # path -> permissions, content
Facts = dict[str, Any]  # what a node says of itself: of no concern here


# ---- the code ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Code:
    """128 bits, and eight more that tell a mistyped code from a wrong one."""

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False)

    def __str__(self) -> str:
        number = int.from_bytes(self.secret + _check(self.secret), "big")
        letters = "".join(_ALPHABET[number >> shift & 31] for shift in range(135, -1, -5))
        return "-".join(letters[at : at + 4] for at in range(0, 28, 4))

    @staticmethod
    def parse(text: str) -> "Code":
        """The code in what a person typed."""
        letters = text.upper().replace("-", "").replace(" ", "").translate(str.maketrans("ILO", "110"))
        if len(letters) != 28 or any(letter not in _ALPHABET for letter in letters):
            raise SaidNo("that is no pairing code: it has seven groups of four letters and digits", exit_codes.USAGE)
        number = 0
        for letter in letters:
            number = number << 5 | _ALPHABET.index(letter)
        raw = (number & (1 << 136) - 1).to_bytes(17, "big")
        if number >> 136 or not hmac.compare_digest(_check(raw[:16]), raw[16:]):
            raise SaidNo("the pairing code is mistyped: its last letters do not fit the others", exit_codes.USAGE)
        return Code(raw[:16])


def _check(secret: bytes) -> bytes:
    return hashlib.sha256(b"lockstep pairing code" + secret).digest()[:1]


def parse_invitation(text: str) -> tuple[Code, str, int]:
    """`CODE@ADDRESS[:PORT]`."""
    code, separator, address = text.strip().partition("@")
    host, colon, port = address.rpartition(":") if address.count(":") == 1 or "]:" in address else (address, "", "")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or (colon and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536)):
        raise SaidNo("expected CODE@ADDRESS, as the other node shows it", exit_codes.USAGE)
    return Code.parse(code), host, int(port) if colon else PORT


# ---- what both sides share --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Paired:
    """What came of it: who the peer is, and the words that both nodes show."""

    peer: str
    words: str
    files: Files = field(default_factory=dict)
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a node says of itself when it is asked who it is, and what it thinks of what the other one says: why not, or nothing."""

    facts: Callable[[], Facts] = dict
    suits: Callable[[Facts], str] = lambda facts: ""


@dataclass(frozen=True, slots=True)
class _Transcript:
    """What the proofs are about. Whoever is in the middle has to change it, and cannot."""

    code: Code
    inviter_certificate: bytes
    joiner_certificate: bytes
    inviter_number: bytes
    joiner_number: bytes

    def proof(self, role: bytes) -> bytes:
        key = hashlib.sha256(b"lockstep pairing/1" + self.code.secret).digest()
        parts = (self.inviter_certificate, self.joiner_certificate, self.inviter_number, self.joiner_number)
        return hmac.digest(key, role + b"".join(parts), "sha256")


def certificate_digest(pem: str) -> bytes:
    """SHA-256 of a certificate."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest()


async def _send(stream: trio.abc.Stream, message: dict[str, Any]) -> None:
    body: bytes = msgpack.packb(message)
    assert len(body) <= MESSAGE_BYTES_MAX, "a configuration of more than 4 MiB"
    await stream.send_all(_LENGTH.pack(len(body)) + body)


async def _receive(stream: trio.abc.Stream) -> dict[str, Any]:
    (length,) = _LENGTH.unpack(await receive_exactly(stream, _LENGTH.size))
    if not 0 < length <= MESSAGE_BYTES_MAX:
        raise PeerProtocolError(f"a message of {length} bytes")
    try:
        message = from_msgpack(await receive_exactly(stream, length))
    except ValueError as failure:
        raise PeerProtocolError("a message that is no msgpack") from failure
    if not isinstance(message, dict):
        raise PeerProtocolError("a message that is no map")
    return message


def _text(message: dict[str, Any], name: str, at_most: int) -> str:
    value = message.get(name)
    if not isinstance(value, str) or len(value) > at_most:
        raise PeerProtocolError(f"a message without '{name}'")
    return value


# ---- inviting ---------------------------------------------------------------------------------------------------------------------------


class Inviter:
    """Shows a code and waits for the one who knows it."""

    def __init__(
        self,
        keys: KeyStore,
        own: Own,
        files: Files | None = None,
        accepts: Callable[[str], str] = lambda node: "",
        callers: frozenset[str] | None = None,
        introduction: Introduction = Introduction(),  # noqa: B008 - frozen
    ) -> None:
        self.code = Code()
        self.turned_away = 0
        self._callers = callers  # the addresses from which somebody may join; None: any
        self.attempts_left = ATTEMPTS
        self._keys, self._own, self._files, self._accepts, self._introduction = keys, own, files or {}, accepts, introduction
        self._result: Paired | None = None
        self._trouble: SaidNo | None = None
        self._spent = trio.Event()
        self._half_open: Counter[str] = Counter()
        self._claimed = trio.Lock()

    async def run(
        self, addresses: list[tuple[str, int]], *, valid_s: float = VALID_S, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> Paired:
        """Until somebody has joined; SaidNo when the code's time or attempts are over. Reports the port once it listens."""
        async with trio.open_nursery() as nursery:
            listeners = [await _listen(host, port) for host, port in addresses]
            nursery.start_soon(trio.serve_listeners, self._serve, listeners)
            task_status.started(int(listeners[0].socket.getsockname()[1]))
            with trio.move_on_after(valid_s):
                await self._spent.wait()
            nursery.cancel_scope.cancel()
        if self._result is not None:
            return self._result
        if self._trouble is not None:
            raise self._trouble
        if not self.attempts_left:
            raise SaidNo(f"{ATTEMPTS} wrong codes were tried: this one is void; if it was not you, look who else is on that network")
        others = f" ({self.turned_away} connections were turned away)" if self.turned_away else ""
        raise SaidNo(f"nobody joined within {valid_s / 60:.0f} minutes{others}: the code is void, ask for a new one", exit_codes.TIMEOUT)

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            remote = str(stream.socket.getpeername()[0])
        except OSError:
            return
        stranger = self._callers is not None and remote not in self._callers
        if stranger or self._half_open[remote] >= HALF_OPEN_MAX_PER_ADDRESS or self._half_open.total() >= HALF_OPEN_MAX:
            self.turned_away += 1
            return
        self._half_open[remote] += 1
        try:
            await self._answer(stream)
        except (PeerProtocolError, ValueError, OSError, trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            self.turned_away += 1  # whoever that was: a wrong claim has been counted, everything else costs nothing
        except SaidNo as trouble:  # this node's own: its keys cannot be read or written
            self._trouble = trouble
            self._spent.set()
        finally:
            self._half_open[remote] -= 1

    async def _answer(self, stream: trio.SocketStream) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        context.load_cert_chain(self._keys.directory / self._own_file())
        secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        number = secrets.token_bytes(32)
        with trio.fail_after(STEP_S):
            await secured.do_handshake()
            await secured.send_all(_GREETING.pack(MAGIC, number))
            magic, joiner_number, certificate, proof = _CLAIM.unpack(await receive_exactly(secured, _CLAIM.size))
        async with self._claimed:  # one claim at a time: attempts are counted, and the code is spent once
            if magic != MAGIC or self._spent.is_set():
                return
            transcript = _Transcript(self.code, certificate_digest(self._own.known.certificate), certificate, number, joiner_number)
            if not hmac.compare_digest(proof, transcript.proof(b"join")):
                self.attempts_left -= 1
                if not self.attempts_left:
                    self._spent.set()
                raise PeerProtocolError("a wrong code")
            with trio.fail_after(STEP_S):
                await secured.send_all(_PROOF.pack(MAGIC, transcript.proof(b"invite")))
                await self._exchange(secured, certificate)

    def _own_file(self) -> str:
        return next(name for name in ("next.pem", "identity.pem") if self._is_own(name))

    def _is_own(self, name: str) -> bool:
        return (self._keys.directory / name).exists() and self._keys.own(name).known.pin == self._own.known.pin

    async def _exchange(self, stream: trio.abc.Stream, expected: bytes) -> None:
        theirs = await _receive(stream)
        node, certificate = _text(theirs, "node", 63), _text(theirs, "certificate", 8192)
        facts = _facts(theirs)
        refusal = "both nodes have the same name" if node == self._own.node else self._accepts(node) or self._introduction.suits(facts)
        if refusal or certificate_digest(certificate) != expected:
            await _send(stream, {"refused": refusal or "the certificate is not the one that was claimed"})
            return
        cluster = self._keys.trust().cluster
        mine = {"node": self._own.node, "certificate": self._own.known.certificate, "cluster": cluster, "files": self._files}
        await _send(stream, mine | {"facts": self._introduction.facts()})
        if (await _receive(stream)).get("stored") is not True:
            return
        try:
            pinned = await trio.to_thread.run_sync(self._keys.pin, node, certificate)
        except ValueError as failure:
            await _send(stream, {"refused": str(failure)})
            return
        self._result = Paired(node, fingerprint(cluster, [pinned.pin, self._own.known.pin]), facts=facts)
        await _send(stream, {"done": True})
        self._spent.set()


async def _listen(host: str, port: int) -> trio.SocketListener:
    family = trio.socket.AF_INET6 if ":" in host else trio.socket.AF_INET
    sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    try:
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
        await sock.bind((host, port))
        sock.listen(HALF_OPEN_MAX)
    except OSError as failure:
        sock.close()
        raise SaidNo(f"cannot listen on {host}:{port} ({failure.strerror})", exit_codes.CONFIGURATION_INVALID) from failure
    return trio.SocketListener(sock)


# ---- joining ----------------------------------------------------------------------------------------------------------------------------


async def join(
    keys: KeyStore,
    own: Own,
    invitation: str,
    store: Callable[[Files], Awaitable[None]] | None = None,
    timeout_s: float = 15.0,
    introduction: Introduction = Introduction(),  # noqa: B008 - frozen
) -> Paired:
    """Learn the inviter's key and tell ours. `store` gets the configuration that comes along, before the inviter relies on it."""
    code, host, port = parse_invitation(invitation)
    try:
        with trio.fail_after(timeout_s):
            stream = await trio.open_tcp_stream(host, port)
            async with stream:
                return await _join(stream, keys, own, code, store, introduction)
    except trio.TooSlowError as failure:
        raise SaidNo(f"{host}:{port} does not answer like a node that waits to be joined", exit_codes.TIMEOUT) from failure
    except (OSError, ValueError, trio.BrokenResourceError, trio.ClosedResourceError, PeerProtocolError) as failure:
        raise SaidNo(
            f"{host}:{port} does not pair ({failure or type(failure).__name__}): does 'init' still wait there, and is it this code?",
            exit_codes.PEER_NOT_REACHABLE,
        ) from failure


async def _join(
    stream: trio.abc.Stream,
    keys: KeyStore,
    own: Own,
    code: Code,
    store: Callable[[Files], Awaitable[None]] | None,
    introduction: Introduction,
) -> Paired:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the proof below stands in for it
    secured = trio.SSLStream(stream, context, https_compatible=True)
    await secured.do_handshake()
    shown = secured.getpeercert(binary_form=True)
    assert shown, "a TLS server has a certificate"
    magic, inviter_number = _GREETING.unpack(await receive_exactly(secured, _GREETING.size))
    number, certificate = secrets.token_bytes(32), certificate_digest(own.known.certificate)
    transcript = _Transcript(code, hashlib.sha256(shown).digest(), certificate, inviter_number, number)
    await secured.send_all(_CLAIM.pack(MAGIC, number, certificate, transcript.proof(b"join")))
    try:
        answer = await receive_exactly(secured, _PROOF.size)
    except (PeerProtocolError, trio.BrokenResourceError) as failure:
        raise SaidNo("the other node does not accept this code: it is wrong, spent or too old", exit_codes.REFUSED) from failure
    if magic != MAGIC or not hmac.compare_digest(_PROOF.unpack(answer)[1], transcript.proof(b"invite")):
        raise SaidNo("the other end does not know the code: somebody stands between the two nodes; nothing was told", exit_codes.REFUSED)
    await _send(secured, {"node": own.node, "certificate": own.known.certificate, "facts": introduction.facts()})
    theirs = await _receive(secured)
    if "refused" in theirs:
        raise SaidNo(f"the other node refuses: {_text(theirs, 'refused', 500)}", exit_codes.REFUSED)
    if unsuitable := introduction.suits(_facts(theirs)):
        raise SaidNo(f"{_text(theirs, 'node', 63)} is no peer for this node: {unsuitable}", exit_codes.REFUSED)
    return await _accept(secured, keys, own, theirs, hashlib.sha256(shown).digest(), store)


def _facts(message: dict[str, Any]) -> Facts:
    """What a peer says of itself; an older release says nothing."""
    found = message.get("facts")
    return found if isinstance(found, dict) else {}


def _files(wire: object) -> Files:
    found: Files = {}
    for name, entry in wire.items() if isinstance(wire, dict) else ():
        match entry:
            case [int(mode), bytes(data)] if isinstance(name, str):
                found[name] = (mode & 0o777, data)
            case _:
                raise PeerProtocolError("files that are none")
    return found


async def _accept(
    stream: trio.abc.Stream,
    keys: KeyStore,
    own: Own,
    theirs: dict[str, Any],
    shown: bytes,
    store: Callable[[Files], Awaitable[None]] | None,
) -> Paired:
    peer, pem, cluster = _text(theirs, "node", 63), _text(theirs, "certificate", 8192), _text(theirs, "cluster", 64)
    files = _files(theirs.get("files"))
    if certificate_digest(pem) != shown:
        raise PeerProtocolError("a certificate that is not the one of this connection")
    trust = await trio.to_thread.run_sync(keys.trust)
    if (others := [name for name in trust.peers if name != peer and trust.of(name)]) and trust.cluster != cluster:
        raise SaidNo(
            f"this node is paired with {', '.join(others)} already, and {peer} is not of that cluster: let this node invite, "
            f"'init' here and 'join' on {peer}",
            exit_codes.REFUSED,
        )
    if store is not None:
        await store(files)
    try:
        pinned = await trio.to_thread.run_sync(lambda: keys.pin(peer, pem, cluster=cluster))
    except ValueError as failure:
        raise PeerProtocolError(str(failure)) from failure
    await _send(stream, {"stored": True})
    done = await _receive(stream)
    if done.get("done") is not True:
        raise PeerProtocolError(_text(done, "refused", 500))
    return Paired(peer, fingerprint(cluster, [pinned.pin, own.known.pin]), files, _facts(theirs))
