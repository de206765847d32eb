"""Finding the peer and keeping exactly one control link to it.

Both nodes listen, both know the other's address. Until each knows the other's node id both dial; from then on only the lower id does, and
the other one waits to be called. A new control connection of the peer replaces the one before: the peer may have restarted, or noticed a
cut that we have not. A session's data connection comes in by the same port and names the session it belongs to; nobody else's is accepted.

A stranger on the port is dropped after one bounded read: counted, and logged once per kind of fault.
"""

import errno
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol

import trio

from rfs import handshake
from rfs.control_link import ControlLink
from rfs.errors import PeerProtocolError, SaidNo, SessionEnded
from rfs.handshake import Answer, Hello, Kind
from rfs.settings import Address

log = logging.getLogger("rfs.peer")

DIAL_TIMEOUT_S = 3.0
DIAL_AGAIN_S = 0.1
DIAL_AGAIN_MAX_S = 1.0
REFUSED_AGAIN_S = 5.0
DATA_LINK_TIMEOUT_S = 5.0
NOT_CALLED_S = 10.0  # whoever waits to be called for so long tries by itself: its knowledge of the peer may be old
GREETING_MAX = 32  # connections that have not said who they are


class SessionHost(Protocol):
    """What the supervisor needs of the replica."""

    def hello(self, kind: Kind, session: int = 0) -> Hello:
        """Who we are."""

    def peer_unrelated(self, sentence: str) -> None:
        """The configured peer turned out to be somebody else's."""


class DataLinks:
    """Data connections on their way to the session that wants them."""

    def __init__(self) -> None:
        self._wanted: dict[int, trio.MemorySendChannel[trio.SocketStream]] = {}

    @asynccontextmanager
    async def expected(self, session: int) -> AsyncIterator[trio.MemoryReceiveChannel[trio.SocketStream]]:
        """Within the block a data connection that names `session` is accepted."""
        stream_in, stream_out = trio.open_memory_channel[trio.SocketStream](1)
        self._wanted[session] = stream_in
        try:
            yield stream_out
        finally:
            self._wanted.pop(session, None)
            try:
                await trio.aclose_forcefully(stream_out.receive_nowait())  # came too late for the one who wanted it
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


def release_descriptor(stream: trio.SocketStream) -> int:
    """The engine owns the socket from here on."""
    return stream.socket.detach()


class Supervisor:
    """The listener, the dialer, and the one session there may be."""

    def __init__(self, host: SessionHost, listen: Address, peer: Address, enter: Callable[[ControlLink], Awaitable[None]]) -> None:
        self.data_links = DataLinks()
        self.dropped_connections = 0
        self._host = host
        self._listen = listen
        self._peer = peer
        self._enter = enter  # runs one session on a control link until it ends
        self._logged: set[str] = set()
        self._current: trio.CancelScope | None = None
        self._turn = trio.Lock()  # the session that runs holds it
        self._told_to_wait = False
        self._idle_since = trio.current_time()
        self._wake = trio.Event()
        self._greeting = trio.CapacityLimiter(GREETING_MAX)

    async def bind(self) -> trio.SocketListener:
        """Take the address, or say who may have it."""
        family = socket.AF_INET6 if ":" in self._listen.host else socket.AF_INET
        listening = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await listening.bind((self._listen.host, self._listen.port))
            listening.listen(GREETING_MAX)
        except OSError as failure:
            listening.close()
            if failure.errno == errno.EADDRINUSE:
                raise SaidNo(f"--listen {self._listen}: the address is in use; stop whoever has it or name another", 3) from failure
            raise SaidNo(f"--listen {self._listen}: cannot listen there ({failure.strerror})", 3) from failure
        return trio.SocketListener(listening)

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
            async with self._greeting:
                theirs = await handshake.hear(stream)
                verdict = self._judge(theirs)
                await handshake.answer(stream, self._host.hello(theirs.kind), theirs, verdict)
        except (PeerProtocolError, trio.TooSlowError, OSError, trio.BrokenResourceError) as failure:
            self._drop(remote, str(failure) or "no hello in time")
            await trio.aclose_forcefully(stream)
            return
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        if verdict is not Answer.ACCEPTED:
            await trio.aclose_forcefully(stream)
            if verdict is Answer.WAIT_FOR_MY_CALL:
                self._told_to_wait = False
                self._wake.set()
            elif verdict in (Answer.UNRELATED, Answer.SAME_NODE):
                sentence = handshake.unrelated_sentence(self._host.hello(Kind.CONTROL), theirs)
                self._drop(remote, sentence)
                if remote == self._peer.host and theirs.kind is Kind.CONTROL:
                    self._host.peer_unrelated(sentence)
        elif theirs.kind is Kind.DATA:
            # The listener closes what it accepted when we return; the session's connection goes on under a stream of its own.
            own = socket.socket(fileno=release_descriptor(stream))
            await self.data_links.deliver(theirs.session, trio.SocketStream(trio.socket.from_stdlib_socket(own)))
        else:
            await self._run_session(ControlLink(stream, theirs, dialed=False))

    def _judge(self, theirs: Hello) -> Answer:
        verdict = handshake.judge(self._host.hello(theirs.kind), theirs)
        if verdict is Answer.ACCEPTED and theirs.kind is Kind.DATA and not self.data_links.is_wanted(theirs.session):
            return Answer.NO_SUCH_SESSION
        return verdict

    def _drop(self, remote: str, cause: str) -> None:
        self.dropped_connections += 1
        if cause not in self._logged and len(self._logged) < 100:
            self._logged.add(cause)
            log.warning("connection dropped from=%s cause=%s (logged once)", remote, cause)

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
                stream, theirs = await self.connect(self._host.hello(Kind.CONTROL))
            except (OSError, trio.TooSlowError, trio.BrokenResourceError, PeerProtocolError) as failure:
                log.debug("cannot reach the peer at %s (%s), retrying in %.1f s", self._peer, failure or "timeout", delay_s)
            else:
                answered_s = await self._answered(stream, theirs)
                if answered_s is None:
                    delay_s = DIAL_AGAIN_S
                    continue
                delay_s = answered_s
            with trio.move_on_after(delay_s):
                await self._wake.wait()
            self._wake = trio.Event()
            delay_s = min(max(delay_s, DIAL_AGAIN_S) * 2, DIAL_AGAIN_MAX_S)

    async def _answered(self, stream: trio.SocketStream, theirs: Hello) -> float | None:
        """What the one we called said; how long to wait before the next call (None: a session took place)."""
        if theirs.answer is Answer.ACCEPTED:
            await self._run_session(ControlLink(stream, theirs, dialed=True))
            return None
        await trio.aclose_forcefully(stream)
        if theirs.answer is Answer.WAIT_FOR_MY_CALL:
            self._told_to_wait = True
            self._idle_since = trio.current_time()
            return DIAL_AGAIN_S
        if theirs.answer in (Answer.UNRELATED, Answer.SAME_NODE):
            self._host.peer_unrelated(handshake.unrelated_sentence(self._host.hello(Kind.CONTROL), theirs))
            return REFUSED_AGAIN_S
        return DIAL_AGAIN_MAX_S

    async def connect(self, mine: Hello) -> tuple[trio.SocketStream, Hello]:
        """A connection to the peer whose hello was answered."""
        with trio.fail_after(DIAL_TIMEOUT_S):
            stream = await trio.open_tcp_stream(self._peer.host, self._peer.port, local_address=self._local_address())
        try:
            return stream, await handshake.call(stream, mine)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    def _local_address(self) -> str | None:
        """Call from the address that we listen on, so that the replication network is the one that was named."""
        return None if self._listen.host in ("0.0.0.0", "::") else self._listen.host

    async def open_data_link(self, link: ControlLink, session: int, arriving: trio.MemoryReceiveChannel[trio.SocketStream]) -> int:
        """The data connection of a session, whoever has to dial; returns its descriptor, which the caller owns."""
        try:
            if not link.dialed:
                with trio.fail_after(DATA_LINK_TIMEOUT_S):
                    return release_descriptor(await arriving.receive())
            stream, theirs = await self.connect(replace(self._host.hello(Kind.DATA), session=session))
        except (OSError, trio.TooSlowError, trio.BrokenResourceError, PeerProtocolError) as failure:
            raise SessionEnded(f"the data link did not come up ({failure or 'timeout'})") from failure
        if theirs.answer is not Answer.ACCEPTED or theirs.incarnation != link.theirs.incarnation:
            await trio.aclose_forcefully(stream)
            raise SessionEnded(f"the peer refused the data link ({theirs.answer.name})")
        return release_descriptor(stream)

    # ---- the one session --------------------------------------------------------------------------------------------------------------

    async def _run_session(self, link: ControlLink) -> None:
        self._told_to_wait = not link.dialed
        self.hang_up()
        try:
            async with self._turn:
                with trio.CancelScope() as self._current:
                    await self._enter(link)
        finally:
            with trio.CancelScope(shield=True):
                await link.close()
            self._idle_since = trio.current_time()
            self._wake.set()
