"""HTTP/1.1 on the unix socket, with h11. Who asks is known from the socket itself (access.py), so there is nothing to log in with; whether
they may is decided by the table (roles.py) when method and path are known, before anything more is read.

Whoever may ask must not use hactld up. A request has little time to arrive, and a size; connections and streams are bounded for each user,
and for all users but root together: root always finds room, and so does every user beside one who holds all that he can.
"""

from __future__ import annotations

import json
import math
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import h11
import trio

from orchestrator.api import access, http, roles
from orchestrator.api.access import Access, Asker
from orchestrator.api.roles import Role
from orchestrator.bugs import Bugs, unheard
from rfs import exit_codes

BODY_BYTES_MAX = 1 << 20
CONNECTION_DEADLINE_S = 180.0
SEND_DEADLINE_S = 10.0  # a stream's reader that takes nothing for so long is dropped; it can come back to where it was
REQUEST_DEADLINE_S = 15.0  # for all of it to arrive, from the moment when the one before is answered
STREAMS_MAX = 64
OTHERS_STREAMS_MAX = 48  # of others than root
STREAMS_MAX_PER_USER = 16
OTHERS_MAX = 128  # connections of others than root
CONNECTIONS_MAX_PER_USER = 48  # streams are among them
DIGITS_MAX = 15  # of a number; a peer takes 64 bits
NOBODY = Asker("", Role.NONE)
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
    asker: Asker = NOBODY  # the person at the other end of the socket

    @property
    def who(self) -> str:
        """For the history."""
        return self.asker.who


Send = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer without an end: `run` sends pieces until it is cancelled, or has nothing more to say."""

    run: Callable[[Send], Awaitable[None]]
    content_type: str = "text/event-stream"


Route = Callable[[Request], Awaitable[dict[str, Any] | Stream]]


def quiet(_: str) -> None:
    """Nobody listens."""


class ApiServer:
    """Serves one route function, which knows nothing of HTTP."""

    def __init__(
        self,
        path: Path,
        route: Route,
        grants: Callable[[], Access] | None = None,
        log: Callable[[str], None] = quiet,
        bugs: Bugs | None = None,
    ) -> None:
        self.path, self.route, self.log, self.bugs = path, route, log, bugs or unheard()
        self.grants: Callable[[], Access] = grants if grants is not None else dict
        self._connections, self._streams = Counter[int](), Counter[int]()  # by user
        self.sent_away: Counter[int] = Counter()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        sock = trio.socket.socket(socket.AF_UNIX)
        self.make_way()
        await sock.bind(str(self.path))
        await trio.to_thread.run_sync(access.open_door, self.path, self.grants(), self.log)
        sock.listen(64)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._serve, [trio.SocketListener(sock)])
            task_status.started()

    def make_way(self) -> None:
        """A socket left behind by a hactld that died is removed."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)

    async def _serve(self, stream: trio.SocketStream) -> None:
        """One connection. Whatever goes wrong in it ends it, and nothing else."""
        try:
            await self._converse(stream)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away
        except* Exception as group:
            self.bugs.told("a connection", group)  # most likely a stream: it has been answered already

    async def _converse(self, stream: trio.SocketStream) -> None:
        process = access.process_at(stream.socket)
        if not has_room(self._connections, process.uid, CONNECTIONS_MAX_PER_USER, OTHERS_MAX):
            self._send_away(process.uid)
            return
        self._connections[process.uid] += 1
        try:
            with trio.move_on_after(CONNECTION_DEADLINE_S) as scope:
                await self._answer_all(stream, process, scope)
        finally:
            self._connections[process.uid] -= 1

    def _send_away(self, uid: int) -> None:
        self.sent_away[uid] += 1
        if self.sent_away[uid] == 1:
            self.log(f"uid {uid} holds all connections that it may have, or all users do: it is sent away (counted, not logged again)")

    async def _answer_all(self, stream: trio.SocketStream, process: access.Process, scope: trio.CancelScope) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
        asker = await access.asker(process, self.grants())
        access.asking.set(asker)
        while connection.states == {h11.CLIENT: h11.IDLE, h11.SERVER: h11.IDLE}:
            answered = await self._exchange(stream, connection, asker, process.uid)
            if isinstance(answered, Stream):
                scope.deadline = math.inf
                await self._pour(stream, connection, answered, process.uid)
            if answered is not True:
                return
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _exchange(self, stream: trio.SocketStream, connection: h11.Connection, asker: Asker, uid: int) -> bool | Stream:
        """One request and its answer; False when the client has nothing more to ask."""
        what = "a request"

        async def admit(head: h11.Request) -> None:
            nonlocal what
            what = f"{head.method.decode('ascii', 'replace')} /{'/'.join(path_of(head))}"
            self._admit(head, asker)

        try:
            with trio.fail_after(REQUEST_DEADLINE_S):
                asked = await http.read_request(stream, connection, BODY_BYTES_MAX, admit)
            if asked is None:
                return False
            request = parse(*asked, asker)
            self._judge(request)
            answer = await self._routed(request)
            if isinstance(answer, Stream):
                full = self._streams.total() >= STREAMS_MAX
                if full or not has_room(self._streams, uid, STREAMS_MAX_PER_USER, OTHERS_STREAMS_MAX):
                    raise ApiError("too many event streams are open already: end one", exit_codes.FAILED, 503)
                return answer
            status, document = 200, answer
            status = HTTP_OF.get(document.get("code", 0), 500) if request.method == "POST" else status
            body = json.dumps(document).encode()
        except ApiError as error:
            status, body = error.http, failure(error.code, str(error))
        except trio.TooSlowError:
            return False  # it was never whole
        except http.TooLong:
            status, body = 400, failure(exit_codes.USAGE, "the request is too long")
        except h11.RemoteProtocolError as error:
            status, body = 400, failure(exit_codes.USAGE, f"not HTTP/1.1: {error}")
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise  # the client went away
        except Exception as error:
            status, body = 500, failure(exit_codes.FAILED, self.bugs.told(what, error))
        await http.answer(stream, connection, status, "application/json", body, head_only=what.startswith("HEAD "))
        return True

    async def _routed(self, request: Request) -> dict[str, Any] | Stream:
        """What the machine refuses is no client that went away."""
        try:
            return await self.route(request)
        except OSError as error:
            raise ApiError(str(error), exit_codes.FAILED) from error

    def _admit(self, head: h11.Request, asker: Asker) -> None:
        """May they ask this at all? Nothing but method and path is known."""
        method, path = head.method.decode("ascii", "replace"), path_of(head)
        what = path[-1] if path else "/"
        needed = roles.of_route(method, path, query_of(head))
        if asker.role is Role.NONE:
            self._refuse(what, needed or Role.VIEWER, asker)
        if needed is None:
            raise ApiError(f"there is no {method} /{'/'.join(path)}", exit_codes.USAGE, 404)
        if asker.role < needed:
            self._refuse(what, needed, asker)

    def _judge(self, request: Request) -> None:
        """And with these options?"""
        match request.method, request.path:
            case "POST", ("v1", "modules", _, verb):
                needed = roles.of_verb(verb, request.body)
                assert needed is not None, "the head was admitted"
                if request.asker.role < needed:
                    given = next(name for (of, name), role in roles.OPTIONS.items() if of == verb and role > request.asker.role)
                    self._refuse(f"{verb} --{given}", needed, request.asker)

    def _refuse(self, what: str, needed: Role, asker: Asker) -> None:
        may = access.who_may(needed, self.grants())
        raise ApiError(roles.refusal(what, needed, asker.name, asker.role, may), exit_codes.NOT_PERMITTED)

    async def _pour(self, stream: trio.SocketStream, connection: h11.Connection, answer: Stream, uid: int) -> None:
        """A stream, until the client goes, or takes nothing any more."""

        async def send(piece: bytes) -> None:
            with trio.fail_after(SEND_DEADLINE_S):
                await http.send_piece(stream, connection, piece)

        async def until_it_goes(scope: trio.CancelScope) -> None:
            while await stream.receive_some():
                pass  # nothing more is asked on this connection
            scope.cancel()

        self._streams[uid] += 1
        try:
            await http.begin_stream(stream, connection, answer.content_type)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_it_goes, nursery.cancel_scope)
                await answer.run(send)
                nursery.cancel_scope.cancel()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass  # it went away, or is too slow
        finally:
            self._streams[uid] -= 1


def has_room(held: Counter[int], uid: int, per_user: int, others: int) -> bool:
    """May this user have one more? root always may: it must be able to end what others do."""
    return uid == 0 or (held[uid] < per_user and held.total() - held[0] < others)


def failure(code: int, message: str) -> bytes:
    """The body of every answer that is no success."""
    return json.dumps({"schema": "hactl.error/1", "code": code, "message": message}).encode()


def path_of(head: h11.Request) -> tuple[str, ...]:
    """The pieces of the path."""
    place = head.target.decode("ascii", "replace").partition("?")[0]
    return tuple(unquote(piece) for piece in place.split("/") if piece)


def query_of(head: h11.Request) -> dict[str, str]:
    """The parameters behind the path. A browser that comes back to a stream says in a header where it was: that is newer than its
    address."""
    query = dict(parse_qsl(head.target.decode("ascii", "replace").partition("?")[2]))
    for name, value in head.headers:
        if name == b"last-event-id":
            query["after"] = value.decode("ascii", "replace")
    return query


def parse(head: h11.Request, body: bytes, asker: Asker = NOBODY) -> Request:
    """The request as the routes want it."""
    try:
        document = json.loads(whole_text(body)) if body.strip() else {}
    except (ValueError, RecursionError) as error:  # too deep is what nobody means
        raise ApiError(f"the body is no JSON: {error}", exit_codes.USAGE) from error
    if not isinstance(document, dict):
        raise ApiError("the body must be a JSON object", exit_codes.USAGE)
    return Request(head.method.decode(), path_of(head), query_of(head), document, asker)


def number_from(text: str) -> int | None:
    """A number that somebody typed; None for what is none: `²` is a digit as well, and `int` refuses it."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX else None


def whole_text(body: bytes) -> str:
    """JSON may hold halves of characters (`\\udce9`, from an argument that was not UTF-8), which nothing can write down: without them."""
    return json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8", "replace").decode()
