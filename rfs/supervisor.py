"""Finding the peer and keeping exactly one control link to it.

Both nodes listen, both know the other's address. Until each knows the other's node id both dial; from then on only the lower id does, and
the other one waits to be called. A new control connection of the peer replaces the one before: the peer may have restarted, or noticed a
cut that we have not. A session's data connection comes in by the same port and names the session it belongs to; nobody else's is accepted.

A stranger on the port is dropped after one bounded read: counted, and logged once per kind of fault. Who has not proven its key yet is
half-open; there are few places for those, and those of the peer's address are its own, so that strangers cannot keep the peer out.
"""

import errno
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

import trio

from rfs import handshake
from rfs.control_link import ControlLink
from rfs.decide import Outcome
from rfs.engine import Channel
from rfs.errors import PeerProtocolError, SaidNo, SessionEnded
from rfs.handshake import Answer, Hello, Kind, Preamble
from rfs.security import Security
from rfs.settings import Address
from rfs.tls import Known, Refused

log = logging.getLogger("rfs.peer")

DIAL_TIMEOUT_S = 3.0
DIAL_BESIDE_S = 0.2  # a lost packet is sent again by the kernel after a second, then two: the next attempt finds a mended cable sooner
DIAL_AGAIN_S = 0.1
DIAL_AGAIN_MAX_S = 1.0
REFUSED_AGAIN_S = 5.0
DATA_LINK_TIMEOUT_S = 5.0
NOT_CALLED_S = 10.0  # whoever waits to be called for so long tries by itself: its knowledge of the peer may be old
HALF_OPEN_MAX = 32  # connections that have not proven who they are
HALF_OPEN_MAX_PER_ADDRESS = 8
REVOKED_CHECK_S = 1.0
VERDICTS = frozenset({"not-paired", "wrong-key", "no-key", "plaintext", "no-tls", "wrong-name", "own-keys", "not-taken"})
HUNG_UP_MAX = 3  # in a row, before we say that it is our key that is not liked


class SessionHost(Protocol):
    """What the supervisor needs of the replica."""

    def hello(self) -> Hello:
        """Who we are."""

    def peer_refused(self, code: str, sentence: str) -> None:
        """The configured peer turned out to be somebody else's, or does not take us for its own."""


class DataLinks:
    """Data connections on their way to the session that wants them."""

    def __init__(self) -> None:
        self._wanted: dict[int, trio.MemorySendChannel[trio.SocketStream]] = {}

    @asynccontextmanager
    async def expected(self, session: int) -> AsyncIterator[trio.MemoryReceiveChannel[trio.SocketStream]]:
        """Within the block a data connection that names `session` is accepted."""
        stream_in, stream_out = trio.open_memory_channel[trio.SocketStream](4)
        self._wanted[session] = stream_in
        try:
            yield stream_out
        finally:
            self._wanted.pop(session, None)
            try:
                while True:  # came too late for the one who wanted it
                    await trio.aclose_forcefully(stream_out.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                pass

    def is_wanted(self, session: int) -> bool:
        return session in self._wanted

    async def deliver(self, session: int, stream: trio.SocketStream) -> None:
        """Hand the connection over, or close it when nobody waits (any more)."""
        try:
            self._wanted[session].send_nowait(stream)
        except (KeyError, trio.WouldBlock, trio.BrokenResourceError):
            await trio.aclose_forcefully(stream)


async def _close_streams(outcomes: Sequence[trio.SocketStream | OSError]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, trio.SocketStream):
            await trio.aclose_forcefully(outcome)


def release_descriptor(stream: trio.SocketStream) -> int:
    """The engine owns the socket from here on."""
    return stream.socket.detach()


async def listen_on(address: Address) -> trio.SocketListener:
    """Take the address, or say who may have it."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await listening.bind((address.host, address.port))
        listening.listen(HALF_OPEN_MAX)
    except OSError as failure:
        listening.close()
        if failure.errno == errno.EADDRINUSE:
            raise SaidNo(f"--listen {address}: the address is in use; stop whoever has it or name another", 3) from failure
        raise SaidNo(f"--listen {address}: cannot listen there ({failure.strerror})", 3) from failure
    return trio.SocketListener(listening)


class Supervisor:
    """The listener, the dialer, and the one session there may be."""

    def __init__(
        self, host: SessionHost, listen: Address, peer: Address, enter: Callable[[ControlLink], Awaitable[None]], security: Security
    ) -> None:
        self.data_links = DataLinks()
        self.dropped_connections = 0
        self._security = security
        self._half_open: Counter[str] = Counter()  # by address
        self._host = host
        self._listen = listen
        self._peer = peer
        self._enter = enter  # runs one session on a control link until it ends
        self._logged: set[str] = set()
        self._current: trio.CancelScope | None = None
        self._turn = trio.Lock()  # the session that runs holds it
        self._told_to_wait = False
        self._hung_up = 0
        self._idle_since = trio.current_time()
        self._wake = trio.Event()

    async def run(self, listener: trio.SocketListener) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._dial)
            await trio.serve_listeners(self._accepted, [listener], handler_nursery=nursery)

    def hang_up(self) -> None:
        """End the session that runs; both sides will try again."""
        if self._current is not None:
            self._current.cancel()

    # ---- being called -----------------------------------------------------------------------------------------------------------------

    async def _accepted(self, stream: trio.SocketStream) -> None:
        remote = "?"
        try:
            remote = str(stream.socket.getpeername()[0])  # which fails when the caller has reset the connection already
            with self._as_half_open(remote), trio.fail_after(handshake.HELLO_TIMEOUT_S):
                preamble = await handshake.hear_preamble(stream)
                verdict = self._judge_preamble(preamble)
                await handshake.answer_preamble(stream, preamble, verdict)
                self._check_accepted(verdict)
                if preamble.kind is Kind.CONTROL:
                    secured, known = await self._security.control(stream, dialed=False)
                    theirs = await handshake.hear(secured)
                    verdict = self._judge_hello(theirs, known)
                    await handshake.answer(secured, self._host.hello(), verdict)
        except (PeerProtocolError, trio.TooSlowError, OSError, trio.BrokenResourceError) as failure:
            await self._drop(stream, remote, failure)
            return
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        if preamble.kind is Kind.DATA:
            # The listener closes what it accepted when we return; the session's connection goes on under a stream of its own.
            own = socket.socket(fileno=release_descriptor(stream))
            await self.data_links.deliver(preamble.session, trio.SocketStream(trio.socket.from_stdlib_socket(own)))
        elif verdict is Answer.ACCEPTED:
            await self._run_session(ControlLink(secured, theirs, dialed=False, known=known))
        else:
            await self._turned_away(stream, remote, theirs, verdict)

    @contextmanager
    def _as_half_open(self, remote: str) -> Iterator[None]:
        strangers = sum(count for address, count in self._half_open.items() if address != self._peer.host)
        if self._half_open[remote] >= HALF_OPEN_MAX_PER_ADDRESS or (remote != self._peer.host and strangers >= HALF_OPEN_MAX):
            raise Refused("too-many", "too many connections that do not say who they are")
        self._half_open[remote] += 1
        try:
            yield
        finally:
            self._half_open[remote] -= 1
            if not self._half_open[remote]:
                del self._half_open[remote]

    def _judge_preamble(self, preamble: Preamble) -> Answer:
        if preamble.secure != self._security.is_secure:
            return Answer.NEEDS_TLS if self._security.is_secure else Answer.HAS_NO_TLS
        if preamble.kind is Kind.DATA and not self.data_links.is_wanted(preamble.session):
            return Answer.NO_SUCH_SESSION
        return Answer.ACCEPTED

    def _check_accepted(self, verdict: Answer) -> None:
        """What a preamble was answered with. NEEDS_TLS and HAS_NO_TLS have one sentence, whoever of the two says it."""
        if verdict is Answer.NEEDS_TLS:
            raise Refused("plaintext", "one of the two nodes has keys, the other runs with --insecure: give both keys, or neither")
        if verdict is Answer.HAS_NO_TLS:
            raise Refused("no-tls", "one of the two nodes has keys, the other runs with --insecure: give both keys, or neither")
        if verdict is not Answer.ACCEPTED:
            raise Refused("no-session", f"a data connection that nobody waits for ({verdict.name})")

    def _judge_hello(self, theirs: Hello, known: Known | None) -> Answer:
        if known is not None and theirs.node != known.node:
            raise Refused("wrong-name", f"node '{known.node}', by its key, calls itself '{theirs.node}'")
        return handshake.judge(self._host.hello(), theirs)

    async def _turned_away(self, stream: trio.SocketStream, remote: str, theirs: Hello, verdict: Answer) -> None:
        if verdict is Answer.WAIT_FOR_MY_CALL:
            await trio.aclose_forcefully(stream)
            self._told_to_wait = False
            self._wake.set()
            return
        sentence = handshake.unrelated_sentence(self._host.hello(), theirs)
        if remote == self._peer.host:
            self._host.peer_refused(Outcome.UNRELATED.name, sentence)
        await self._drop(stream, remote, Refused("unrelated", sentence))

    async def _drop(self, stream: trio.abc.AsyncResource, remote: str, failure: Exception) -> None:
        """Whoever that was does not get in: counted by kind, logged once."""
        cause = str(failure) or "no hello in time"
        kind = failure.kind if isinstance(failure, Refused) else "silent" if isinstance(failure, trio.TooSlowError) else "garbage"
        self.dropped_connections += 1
        self._security.refused[kind] += 1
        first = kind if remote != self._peer.host else f"{kind} from the peer's address"
        if first not in self._logged:  # by kind: the cause holds what a stranger likes to send
            self._logged.add(first)
            log.warning("connection refused from=%s kind=%s cause=%s (logged once)", remote, kind, cause)
        await trio.aclose_forcefully(stream)

    # ---- calling ----------------------------------------------------------------------------------------------------------------------

    async def _dial(self) -> None:
        delay_s = DIAL_AGAIN_S
        while True:
            waits = self._told_to_wait and trio.current_time() - self._idle_since < NOT_CALLED_S
            if waits or self._turn.locked():
                with trio.move_on_after(1.0):
                    await self._wake.wait()
                self._wake = trio.Event()
                continue
            try:
                stream, theirs, known = await self._call()
            except Refused as failure:
                self._security.refused[failure.kind] += 1
                if failure.kind in VERDICTS:  # and not a peer that is slow, or is being restarted
                    self._host.peer_refused("NOT_PAIRED", f"at {self._peer}: {failure}")
                delay_s = DIAL_AGAIN_MAX_S
            except (OSError, trio.TooSlowError, trio.BrokenResourceError, PeerProtocolError) as failure:
                if isinstance(failure, trio.TooSlowError):
                    delay_s = DIAL_AGAIN_S  # it has taken its time already
                log.debug("cannot reach the peer at %s (%s), retrying in %.1f s", self._peer, failure or "timeout", delay_s)
            else:
                answered_s = await self._answered(stream, theirs, known)
                if answered_s is None:
                    delay_s = DIAL_AGAIN_S
                    continue
                delay_s = answered_s
            with trio.move_on_after(delay_s):
                await self._wake.wait()
            self._wake = trio.Event()
            delay_s = min(max(delay_s, DIAL_AGAIN_S) * 2, DIAL_AGAIN_MAX_S)

    async def _answered(self, stream: trio.abc.Stream, theirs: Hello, known: Known | None) -> float | None:
        """What the one we called said; how long to wait before the next call (None: a session took place)."""
        if theirs.answer is Answer.ACCEPTED:
            await self._run_session(ControlLink(stream, theirs, dialed=True, known=known))
            return None
        await trio.aclose_forcefully(stream)
        if theirs.answer is Answer.WAIT_FOR_MY_CALL:
            self._told_to_wait = True
            self._idle_since = trio.current_time()
            return DIAL_AGAIN_S
        if theirs.answer in (Answer.UNRELATED, Answer.SAME_NODE):
            self._host.peer_refused(Outcome.UNRELATED.name, handshake.unrelated_sentence(self._host.hello(), theirs))
            return REFUSED_AGAIN_S
        return DIAL_AGAIN_MAX_S

    async def _connect(self, preamble: Preamble) -> trio.SocketStream:
        """A connection to the peer whose preamble was accepted."""
        stream = await self._reach()
        try:
            self._check_accepted(await handshake.open_connection(stream, preamble))
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def _reach(self) -> trio.SocketStream:
        """The first of several attempts beside each other that has an outcome."""
        outcomes: list[trio.SocketStream | OSError] = []

        async def attempt(others: trio.CancelScope) -> None:
            outcome: trio.SocketStream | OSError
            try:
                outcome = await trio.open_tcp_stream(self._peer.host, self._peer.port, local_address=self._local_address())
            except OSError as failure:
                outcome = failure
            outcomes.append(outcome)
            others.cancel()

        try:
            with trio.fail_after(DIAL_TIMEOUT_S):
                async with trio.open_nursery() as nursery:
                    while True:
                        nursery.start_soon(attempt, nursery.cancel_scope)
                        await trio.sleep(DIAL_BESIDE_S)
        except BaseException:
            await _close_streams(outcomes)
            raise
        await _close_streams(outcomes[1:])
        if isinstance(outcomes[0], OSError):
            raise outcomes[0]
        return outcomes[0]

    async def _call(self) -> tuple[trio.abc.Stream, Hello, Known | None]:
        """A control connection whose hello was answered, by the peer itself."""
        stream = await self._connect(Preamble(Kind.CONTROL, self._security.is_secure))
        try:
            secured, known = await self._security.control(stream, dialed=True)
            theirs = await self._called(secured)
            self._judge_hello(theirs, known)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return secured, theirs, known

    async def _called(self, secured: trio.abc.Stream) -> Hello:
        """In TLS 1.3 we learn only here that our key was refused: the other end hangs up. So it does when it is being restarted."""
        try:
            theirs = await handshake.call(secured, self._host.hello())
        except (PeerProtocolError, trio.BrokenResourceError) as failure:
            self._hung_up += 1
            if self._security.is_secure and self._hung_up >= HUNG_UP_MAX:
                raise Refused("not-taken", "the other end hangs up when it sees this node's key: is it paired there?") from failure
            raise
        self._hung_up = 0
        return theirs

    def _local_address(self) -> str | None:
        """Call from the address that we listen on, so that the replication network is the one that was named."""
        return None if self._listen.host in ("0.0.0.0", "::") else self._listen.host

    async def open_data_link(self, link: ControlLink, session: int, arriving: trio.MemoryReceiveChannel[trio.SocketStream]) -> Channel:
        """The data connection of a session, whoever has to dial, its other end proven."""
        try:
            if link.dialed:
                stream = await self._connect(Preamble(Kind.DATA, self._security.is_secure, session))
                return await self._security.data(release_descriptor(stream), dialed=True)
            with trio.fail_after(DATA_LINK_TIMEOUT_S):
                while True:  # whoever read the session's number from the wire may be here first, and gets no further
                    stream = await arriving.receive()
                    try:
                        return await self._security.data(release_descriptor(stream), dialed=False)
                    except Refused as refused:
                        await self._drop(stream, "the data port", refused)
        except (OSError, trio.TooSlowError, trio.BrokenResourceError, PeerProtocolError) as failure:
            raise SessionEnded(f"the data link did not come up ({failure or 'timeout'})") from failure

    # ---- the one session --------------------------------------------------------------------------------------------------------------

    async def _run_session(self, link: ControlLink) -> None:
        self._told_to_wait = not link.dialed
        self.hang_up()
        try:
            async with self._turn:
                with trio.CancelScope() as self._current:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._until_revoked, link)
                        await self._enter(link)
                        nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await link.close()
            self._idle_since = trio.current_time()
            self._wake.set()

    async def _until_revoked(self, link: ControlLink) -> None:
        """A key that is replaced or expires changes nothing for an established session; one that is revoked ends it."""
        while link.known is not None:
            await trio.sleep(REVOKED_CHECK_S)
            if await trio.to_thread.run_sync(self._security.is_revoked, link.known):
                log.warning("session ended peer=%s cause=its key was revoked here", link.known.node)
                self.hang_up()
                return
