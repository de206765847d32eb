"""HTTP/1.1 on the unix socket, with h11: who asks is known from the socket itself, so there is nothing to log in with."""

from __future__ import annotations

import json
import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import h11
import trio

from orchestrator.api import http
from rfs import exit_codes

BODY_BYTES_MAX = 1 << 20
NAME_DEADLINE_S = 1.0
NOBODY_LOGGED_IN = 2**32 - 1  # loginuid of what no login started
CONNECTION_DEADLINE_S = 180.0
HTTP_OF = {
    exit_codes.DONE: 200,
    exit_codes.USAGE: 400,
    exit_codes.NOT_PERMITTED: 403,
    exit_codes.REFUSED: 409,
    exit_codes.PEER_NOT_REACHABLE: 502,
    exit_codes.TIMEOUT: 504,
}


class ApiError(Exception):
    """An answer that is no success: a sentence and an exit code."""

    def __init__(self, message: str, code: int, http: int | None = None) -> None:
        super().__init__(message)
        self.code, self.http = code, http if http is not None else HTTP_OF.get(code, 500)


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked."""

    method: str
    path: tuple[str, ...]
    query: dict[str, str]
    body: dict[str, Any]
    who: str = ""  # of a command: the person at the other end of the socket


Route = Callable[[Request], Awaitable[dict[str, Any]]]


class ApiServer:
    """Serves one route function, which knows nothing of HTTP."""

    def __init__(self, path: Path, route: Route) -> None:
        self.path, self.route = path, route

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        sock = trio.socket.socket(socket.AF_UNIX)
        self.make_way()
        await sock.bind(str(self.path))
        os.chmod(self.path, 0o600)
        sock.listen(64)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._serve, [trio.SocketListener(sock)])
            task_status.started()

    def make_way(self) -> None:
        """A socket left behind by a hactld that died is removed."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
        try:
            with trio.move_on_after(CONNECTION_DEADLINE_S):
                while connection.states == {h11.CLIENT: h11.IDLE, h11.SERVER: h11.IDLE}:
                    if not await self._exchange(stream, connection):
                        return
                    if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                        return
                    connection.start_next_cycle()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the client went away

    async def _exchange(self, stream: trio.SocketStream, connection: h11.Connection) -> bool:
        """One request and its answer; False when the client has nothing more to ask."""
        try:
            request = await self._read(stream, connection)
            if request is None:
                return False
            pid, uid = process_at(stream)
            if uid != 0:
                raise ApiError("only root may talk to hactld", exit_codes.NOT_PERMITTED)
            if request.method == "POST":
                request = replace(request, who=await person(pid, uid))
            status, document = 200, await self.route(request)
            status = HTTP_OF.get(document.get("code", 0), 500) if request.method == "POST" else status
        except ApiError as error:
            status, document = error.http, {"code": error.code, "message": str(error)}
        except http.TooLong:
            status, document = 400, {"code": exit_codes.USAGE, "message": "the request is too long"}
        except h11.RemoteProtocolError as error:
            status, document = 400, {"code": exit_codes.USAGE, "message": f"not HTTP/1.1: {error}"}
        await http.answer(stream, connection, status, "application/json", json.dumps(document).encode())
        return True

    async def _read(self, stream: trio.SocketStream, connection: h11.Connection) -> Request | None:
        asked = await http.read_request(stream, connection, BODY_BYTES_MAX)
        return parse(*asked) if asked is not None else None


def parse(head: h11.Request, body: bytes) -> Request:
    """The request as the routes want it."""
    place, _, query = head.target.decode("ascii", "replace").partition("?")
    try:
        document = json.loads(whole_text(body)) if body.strip() else {}
    except ValueError as error:
        raise ApiError(f"the body is no JSON: {error}", exit_codes.USAGE) from error
    if not isinstance(document, dict):
        raise ApiError("the body must be a JSON object", exit_codes.USAGE)
    path = tuple(unquote(piece) for piece in place.split("/") if piece)
    return Request(head.method.decode(), path, dict(parse_qsl(query)), document)


def whole_text(body: bytes) -> str:
    """JSON may hold halves of characters (`\\udce9`, from an argument that was not UTF-8), which nothing can write down: without them."""
    return json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8", "replace").decode()


def process_at(stream: trio.SocketStream) -> tuple[int, int]:
    """Process and user id at the other end."""
    credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid


async def person(pid: int, uid: int) -> str:
    """Who asks. A directory service that hangs must not hold a command up: then a number."""
    with trio.move_on_after(NAME_DEADLINE_S):
        return await trio.to_thread.run_sync(named, pid, uid, abandon_on_cancel=True)
    return f"uid {uid}"


def named(pid: int, uid: int) -> str:
    """The user, and who logged in as whom if that is another: sudo (blocking)."""
    try:
        login = int(Path(f"/proc/{pid}/loginuid").read_text())
    except (OSError, ValueError):
        login = uid
    return user_name(uid) + ("" if login in (uid, NOBODY_LOGGED_IN) else f", logged in as {user_name(login)}")


def user_name(uid: int) -> str:
    """Or its number (blocking)."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
