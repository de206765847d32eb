"""What hactld is asked: over HTTP on its socket, by somebody with a role; over the call channel, by its peer. And what rfsmount tells it.

Whatever is asked is answered, and no answer is "hactld has made a mistake".
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable
from typing import Any

import h11
import msgpack
import trio

from orchestrator import config_archive, peer
from orchestrator.api.access import Asker
from orchestrator.api.config_calls import FROM_PEERS, ConfigCalls
from orchestrator.api.here import Here
from orchestrator.api.peer_calls import PeerCalls
from orchestrator.api.roles import Role
from orchestrator.api.routes import Routes
from orchestrator.api.server import ApiError, ApiServer, Stream
from orchestrator.bugs import Bugs
from orchestrator.core.states import Hold
from orchestrator.effects.rfs import view_from
from orchestrator.peer import PeerRefused, PeerServer
from rfs import exit_codes
from rfs.foreign import from_json
from tests.fuzz.place import own_place
from tests.fuzz.streams import Said, run
from tests.unit.test_api_routes import FakePeer, make_routes
from tests.unit.test_config import CLUSTER, MODULE
from tests.unit.test_config_rounds import World

DIRECTORY = own_place()
ADMIN = Asker("root", Role.ADMIN)
ROUNDS_MAX = 12
CONFIG_CALLS = frozenset(name.encode() for name in FROM_PEERS)
_routes: list[Routes] = []


async def with_routes(ask: Callable[[Routes, Bugs], Awaitable[None]], data: bytes) -> None:
    """The routes of a node whose module serves, made anew each time but for its keys, which take long to make, and its configuration, if
    nothing is said of that."""
    mistakes: list[str] = []
    if not _routes:
        _routes.append(make_routes(FakePeer({"code": 0, "message": "done"}), DIRECTORY))
    made = make_routes_again()
    if b"config" in data:
        home = DIRECTORY / "configuration"
        shutil.rmtree(home, ignore_errors=True)
        made.here.config = ConfigCalls(await World(home, ("node1",)).places["node1"].boot())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.here.sides[0].runner.run)
        await ask(made, Bugs(mistakes.append))
        nursery.cancel_scope.cancel()
    assert not mistakes, mistakes


class HereOrNotYet(Here):
    """In hactld there is always a configuration."""

    @property
    def configuration(self) -> ConfigCalls:
        if self.config is None:
            raise ApiError("an input that spells it in another way", exit_codes.REFUSED)
        return self.config


def make_routes_again() -> Routes:
    """With a runner of this run of the loop."""
    from dataclasses import replace

    from orchestrator.api.here import Roster
    from orchestrator.core.states import Readiness, State
    from orchestrator.effects.notify import History
    from tests.unit.test_api_routes import FakeSide
    from tests.unit.test_runner import FakeEffects, make_runner, serving

    first = _routes[0].here
    runner = make_runner(FakeEffects(), replace(serving(), shown=(State.PRIM, Readiness.READY), services=Hold.ON))
    side = FakeSide(FakePeer({"code": 0, "message": "done"}), runner)
    roster = Roster("node1", ("node1", "node2"), {"pg": ("node1", "node2")})
    return Routes(HereOrNotYet(roster, [side], History(None), first.status, first.logs_of, first.keys))


def http(data: bytes) -> None:
    """Bytes on the socket; the first says in what pieces they come, and in which role whoever sends them is."""

    async def serve(routes: Routes, bugs: Bugs) -> None:
        stream = Said(data[1:], piece=data[0] >> 2)
        server = ApiServer(DIRECTORY / "socket", routes.route, None, bugs=bugs)
        asker = ADMIN if data[0] & 3 else Asker("eve", Role.VIEWER)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
        try:
            while connection.states == {h11.CLIENT: h11.IDLE, h11.SERVER: h11.IDLE}:
                answered = await server._exchange(stream, connection, asker, 0)  # type: ignore[arg-type]
                if answered is not True or connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    assert isinstance(answered, bool | Stream)
                    break
                connection.start_next_cycle()
        except h11.LocalProtocolError as error:
            assert "ERROR" in str(error) or "MUST_CLOSE" in str(error) or "CLOSED" in str(error), error
        assert not stream.sent or stream.sent.startswith(b"HTTP/1.1 ")
        assert not stream.sent.startswith(b"HTTP/1.1 500 ") or b"mistake" not in stream.sent, bytes(stream.sent[:300])

    if data:
        run(with_routes, serve, data)


def request(data: bytes) -> None:
    """A proper request: a line of method and target, and a body."""
    line, _, body = data.partition(b"\n")
    head = b"%s HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (line, len(body))
    http(b"\1" + head + body)


class Socketless(Said):
    """The call channel's door asks the socket who is there."""

    @property
    def socket(self) -> Socketless:
        return self

    def getpeername(self) -> tuple[str, int]:
        return "192.0.2.2", 1


def call(data: bytes) -> None:
    """Bytes of the peer's, whose key was right."""

    async def serve(routes: Routes, bugs: Bugs) -> None:
        calls = PeerCalls(routes.here, routes.here.sides[0])
        stream = Socketless(data)
        await PeerServer("plant7", "node2", calls.answer, None, lambda text: None, bugs).serve(stream)  # type: ignore[arg-type]
        if stream.sent:
            answer = msgpack.unpackb(bytes(stream.sent[4:]))
            assert set(answer) <= {"result", "error"}

    run(with_routes, serve, data)


def question(data: bytes) -> None:
    """A proper frame with a question of this cluster: a method, and its parameters as JSON."""
    method, _, parameters = data.partition(b"\n")
    try:
        given = json.loads(parameters)
        body = msgpack.packb({"lockstep": peer.VERSION, "cluster": "plant7", "node": "node2", "method": method.decode(), "params": given})
    except (ValueError, RecursionError, OverflowError, TypeError):
        return
    call(len(body).to_bytes(4, "big") + body)


def rounds(data: bytes) -> None:
    """The peer's part of an apply, call after call: each line a method and its parameters as JSON. `files` are made of what is written
    there; a digest that is left empty is theirs."""

    async def serve(routes: Routes, bugs: Bugs) -> None:
        calls = PeerCalls(routes.here, routes.here.sides[0])
        for line in data.splitlines()[:ROUNDS_MAX]:
            method, _, text = line.partition(b"\t")
            try:
                parameters = from_json(text)
            except ValueError:
                continue
            if method in CONFIG_CALLS and isinstance(parameters, dict):
                await asked(calls, method.decode(), packed_in(parameters), bugs)

    run(with_routes, serve, data)


async def asked(calls: PeerCalls, method: str, parameters: dict[str, Any], bugs: Bugs) -> None:
    """As peer.py asks: whatever is no refusal is a mistake of ours."""
    try:
        await calls.answer(method, parameters)
    except (PeerRefused, OSError) as refusal:
        assert str(refusal)
    except Exception as error:
        bugs.told(method, error)


def packed_in(parameters: dict[str, Any]) -> dict[str, Any]:
    """What cannot be written in JSON."""
    files, generation = parameters.get("files"), parameters.get("generation")
    if isinstance(files, str):
        return {**parameters, "files": files.encode("latin-1", "replace")}
    if not isinstance(files, dict):
        return parameters
    found = {
        str(name): (0o755 if str(text).startswith("#!") else 0o644, str(text).encode(errors="replace")) for name, text in files.items()
    }
    if isinstance(generation, dict) and not generation.get("digest"):
        generation = {**generation, "digest": config_archive.digest(found)}
    return {**parameters, "files": config_archive.pack(found), "generation": generation}


def status(data: bytes) -> None:
    """What rfsmount says of itself."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(said, dict):
        view = view_from(said)
        assert type(view.term) is int and isinstance(view.data, str)


PARSERS = {"http": http, "request": request, "call": call, "question": question, "rounds": rounds, "status": status}

GETS = (
    "/config",
    "/config/history",
    "/config/diff?from=1",
    "",
    "/schemas/status",
    "/status?node=node1",
    "/events?after=0",
    "/events/stream?after=node1:3",
    "/doctor?what=ping",
    "/modules/pg/why",
    "/modules/pg/data",
    "/modules/pg/work",
    "/modules/pg/simulate?what=swap&options=nosync",
    "/modules/pg/logs?lines=5&run=x",
    "/modules/pg/contents?walk=no",
    "/status?node=all",
    "/modules/%70g/why?node=node2",
)
POSTS = {
    "/modules/pg/start": {},
    "/modules/pg/prim": {"force": True},
    "/modules/pg/note": {"text": "x", "level": "error"},
    "/modules/pg/verify": {"every": "1d"},
    "/modules/pg/checkers/custom.x": {"state": "up"},
    "/modules/pg/swap?node=node2": {"nosync": 1},
    "/modules/pg/failures-count": {"identity": "x"},
}
CALLS = {
    "hello": {},
    "pin": {"certificate": "x"},
    "tell": {"incarnation": 1, "counter": 2, "modules": {}, "resources": {}},
    "promote": {"module": "pg", "force": True},
    "outdate": {"module": "pg"},
    "command": {"module": "pg", "verb": "start", "options": {}, "role": "admin", "who": "x"},
    "status": {"role": "viewer"},
    "begin": {"module": "pg", "verb": "verify", "options": {"a": 1}, "role": "admin"},
    "logs": {"module": "pg", "lines": 4, "run": "x"},
    "events": {"after": 1, "wait_s": 0.1, "oldest": True},
    "why": {"module": "pg"},
    "simulate": {"module": "pg", "what": "resource-down", "resource": "tcp.x"},
    "contents": {"module": "pg"},
    "rfs_state": {"module": "pg"},
    "data": {"module": "pg"},
    "work": {"module": "pg"},
}


def applied(module: str, name: str = "modules/pg.toml") -> bytes:
    """A configuration that the peer applies here as well."""
    files = {"cluster.toml": CLUSTER, name: module, "modules/pg/start": "#!/bin/sh\n"}
    prepare = {"generation": {"number": 2, "digest": "", "transaction": "t", "who": "ann", "wall_s": 1.5}, "files": files, "force": True}
    lines = [
        ("config_prepare", prepare),
        ("config_state", {}),
        ("config_commit", {"transaction": "t"}),
        ("config_abort", {"transaction": "t"}),
    ]
    lines += [("config_fate", {"transaction": "t"}), ("config_files", {})]
    return b"\n".join(method.encode() + b"\t" + json.dumps(parameters).encode() for method, parameters in lines)


def seeds() -> dict[str, dict[str, bytes]]:
    """By parser."""
    get = b"GET /v1/status HTTP/1.1\r\nhost: a\r\n\r\n"
    frame = msgpack.packb({"lockstep": peer.VERSION, "cluster": "plant7", "node": "node2", "method": "hello", "params": {}})
    deep = msgpack.packb({"lockstep": peer.VERSION, "cluster": "plant7"})[:-7] + b"\x91" * 700 + b"\1"
    return {
        "http": {
            "two": b"\1" + get + get,
            "viewer": b"\0" + get,
            "pieces": b"\x0d" + get,
            "chunks": b"\1POST /v1/modules/pg/start HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        },
        "request": {
            **{f"get {number}": f"GET /v1{path}\n".encode() for number, path in enumerate(GETS)},
            **{f"post {number}": f"POST /v1{path}\n{json.dumps(body)}".encode() for number, (path, body) in enumerate(POSTS.items())},
            "deep": b"POST /v1/modules/pg/start\n" + b"[" * 1500,
            "halves": b'POST /v1/modules/pg/note\n{"text":"\\udce9"}',
            "head": b"HEAD /v1/status\n",
        },
        "call": {"hello": len(frame).to_bytes(4, "big") + frame, "deep": len(deep).to_bytes(4, "big") + deep},
        "rounds": {
            "apply": applied(MODULE),
            "odd": applied("[["),
            "wrong files": applied(MODULE, name="../x"),
            "state": b"config_state\t{}",
        },
        "question": {method: f"{method}\n{json.dumps(parameters)}".encode() for method, parameters in CALLS.items()},
        "status": {
            "one": b'{"role":"primary","term":3,"resync":{"a":1},"witness":{"state":"unreachable"}}',
            "odd": b'{"term":"x","resync":5,"reason":[]}',
        },
    }
