"""rfsmount's side of the control socket.

The server knows no method by itself: it gets a table of coroutines and a way to wait for a change of status. A client that
misbehaves or is slow harms nobody but itself: frames are bounded, each connection is its own task, and a status that could not be
sent yet is replaced by the next one instead of being queued.
"""

import errno
import logging
import math
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import trio

from rfs import exit_codes
from rfs.control import protocol
from rfs.control.client import ControlLost, receive
from rfs.errors import PeerProtocolError, SaidNo

log = logging.getLogger("rfs.control")

Method = Callable[[protocol.Message], Awaitable[protocol.Message]]
HELLO_TIMEOUT_S = 5.0
SEND_TIMEOUT_S = 2.0  # the answer to `unmount` is still sent while everything else already ends
CONNECTIONS_MAX = 64
IDLE_PUSH_EVERY_S = 5.0  # 32 idle modules would wake hactld 32 times a second to tell it that time passes
AGES = ("since_s", "last_heard_s")  # they grow by themselves


@dataclass(frozen=True, slots=True)
class Service:
    """What the control socket offers. `changed` returns when the status may differ from what it was when called."""

    module: str
    methods: Mapping[str, Method]
    status: Callable[[], protocol.Message]
    changed: Callable[[], Awaitable[None]]


class _Connection:
    def __init__(self, stream: trio.abc.Stream, service: Service) -> None:
        self._stream = stream
        self._service = service
        self._lock = trio.Lock()
        self._subscribed = False

    async def run(self) -> None:
        await self._send(protocol.server_hello(os.getpid(), self._service.module))
        with trio.fail_after(HELLO_TIMEOUT_S):
            protocol.check_hello(await receive(self._stream), "client")
        async with trio.open_nursery() as nursery:
            while True:
                message = await self._receive_or_none()
                if message is None:
                    break
                number, method, params = message.get("id"), message.get("method"), message.get("params", {})
                if not isinstance(number, int) or not isinstance(method, str) or not isinstance(params, dict):
                    raise PeerProtocolError("a request without number, method or parameters")
                if method == "subscribe":
                    await self._send(protocol.result(number, {}))
                    if not self._subscribed:
                        self._subscribed = True
                        nursery.start_soon(self._push_status)
                else:
                    nursery.start_soon(self._answer, number, method, params)
            nursery.cancel_scope.cancel()

    async def _receive_or_none(self) -> protocol.Message | None:
        try:
            return await receive(self._stream)
        except (ControlLost, trio.BrokenResourceError, trio.ClosedResourceError):
            return None

    async def _answer(self, number: int, method: str, params: protocol.Message) -> None:
        """One answer. A command that has begun is finished even if the one who asked goes away."""
        coroutine = self._service.methods.get(method)
        if coroutine is None:
            answer = protocol.error(number, exit_codes.USAGE, f"rfsmount knows no method '{method}'")
        else:
            with trio.CancelScope(shield=True):
                try:
                    answer = protocol.result(number, await coroutine(params))
                except SaidNo as refusal:
                    answer = protocol.error(number, refusal.exit_code, refusal.sentence)
                except (TypeError, ValueError) as failure:
                    answer = protocol.error(number, exit_codes.USAGE, f"'{method}' was asked with wrong parameters: {failure}")
                except (OSError, trio.TooSlowError) as failure:
                    log.warning("control method=%s failed cause=%r", method, failure)
                    answer = protocol.error(number, exit_codes.FAILED, f"'{method}' failed: {failure or 'timeout'}")
        with trio.CancelScope(deadline=trio.current_time() + SEND_TIMEOUT_S, shield=True):
            await self._send(answer)

    async def _push_status(self) -> None:
        pushed, pushed_at = protocol.Message(), -math.inf
        while True:
            status, now = self._service.status(), trio.current_time()
            apart_from_ages = {name: value for name, value in status.items() if name not in AGES}
            if apart_from_ages != pushed or now - pushed_at >= IDLE_PUSH_EVERY_S:
                pushed, pushed_at = apart_from_ages, now
                await self._send({"event": "status", "status": status})
            await self._service.changed()

    async def _send(self, message: protocol.Message) -> None:
        async with self._lock:
            try:
                await self._stream.send_all(protocol.encode(message))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                log.debug("control: a client went away")


async def _serve_connection(stream: trio.SocketStream, service: Service) -> None:
    async with stream:
        if is_ours(stream.socket):
            await converse(stream, service)
        else:
            log.warning("control: a connection of another user than root was refused")


async def converse(stream: trio.abc.Stream, service: Service) -> None:
    """With whoever was let in, until either has enough."""
    try:
        await _Connection(stream, service).run()
    except* (PeerProtocolError, ControlLost, trio.TooSlowError, trio.BrokenResourceError) as failures:
        log.info("control: connection dropped cause=%s", failures.exceptions[0])


async def serve(state_directory: str, service: Service, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Listen on STATEDIR/control.sock (root only) until cancelled. The state directory's lock makes a socket of before stale."""
    path = f"{state_directory}/{protocol.SOCKET_NAME}"
    _make_way(path)
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listening:
        # Nobody can connect before listen(), so there is no moment in which others could. Not by the umask: it is the process's, and the
        # engine's threads make files meanwhile.
        await listening.bind(path)
        os.chmod(path, 0o600)
        listening.listen(CONNECTIONS_MAX)
        limit = trio.CapacityLimiter(CONNECTIONS_MAX)
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    nursery.start_soon(_serve_limited, await _accept(listening), service, limit)
        finally:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass


def _make_way(path: str) -> None:
    """What a process of before has left, never what somebody else has put there."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise SaidNo(f"{path}: is in the way, and no socket of rfsmount's; move it away", exit_codes.REFUSED)
        os.unlink(path)
    except FileNotFoundError:
        pass


def is_ours(connection: trio.socket.SocketType) -> bool:
    """Root, or who runs rfsmount: the kernel says who connected, whatever became of the socket's permissions."""
    _, user_id, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return user_id in (0, os.geteuid())


async def _accept(listening: trio.socket.SocketType) -> trio.SocketStream:
    """The next connection. Running out of descriptors is waited out, not died of."""
    while True:
        try:
            connection, _ = await listening.accept()
        except OSError as failure:
            if failure.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED):
                raise
            log.warning("control: cannot accept cause=%s, retrying in 1 s", failure)
            await trio.sleep(1)
        else:
            return trio.SocketStream(connection)


async def _serve_limited(stream: trio.SocketStream, service: Service, limit: trio.CapacityLimiter) -> None:
    async with limit:
        await _serve_connection(stream, service)
