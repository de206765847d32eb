"""Role × verb × interface, on real sockets: children with real user and group ids at the unix socket, a real call channel between two."""

from __future__ import annotations

import ast
import grp
import json
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator import peer
from orchestrator.api import access, roles
from orchestrator.api.access import Asker, asking
from orchestrator.api.commands import COMMANDS, FLAGS
from orchestrator.api.config_calls import FROM_PEERS
from orchestrator.api.maintenance import VERBS as MAINTENANCE
from orchestrator.api.peer_calls import PeerCalls
from orchestrator.api.roles import CALLS, CALLS_OF_DAEMONS, OPTIONS, PARAMETERS, ROUTES, VERBS, Role, of_call, of_route, of_verb
from orchestrator.api.server import ApiServer, Request
from orchestrator.api.works import DOINGS
from tests.unit.test_api_routes import ANN, FakePeer, ask, make_routes
from tests.unit.test_heartbeat import HERE, THERE, free_port, listening

API = Path(roles.__file__).parent
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="children of other users")


# ---- the table is total ---------------------------------------------------------------------------------------------------------------


def patterns_of(path: Path) -> list[tuple[str, ...]]:
    """Every `case` that takes method and path, in which `*` is a name that is bound."""
    found = []
    for case in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(case, ast.match_case) and isinstance(case.pattern, ast.MatchSequence) and len(case.pattern.patterns) == 2):
            continue
        method, pieces = case.pattern.patterns
        if isinstance(method, ast.MatchValue) and isinstance(pieces, ast.MatchSequence):
            alternatives = [[]]
            for piece in pieces.patterns:
                alternatives = [[*before, word] for before in alternatives for word in words_of(piece)]
            found += [(ast.literal_eval(method.value), *words) for words in alternatives]
    return found


def words_of(pattern: ast.pattern) -> list[str]:
    """What a piece of a path may be."""
    match pattern:
        case ast.MatchValue():
            return [ast.literal_eval(pattern.value)]
        case ast.MatchOr():
            return [word for each in pattern.patterns for word in words_of(each)]
        case ast.MatchAs(pattern=None) | ast.MatchStar():
            return ["*"]
        case ast.MatchAs():
            return words_of(pattern.pattern)
    raise AssertionError(f"a pattern that this test does not know: {ast.dump(pattern)}")


def in_the_table(method: str, path: list[str]) -> bool:
    """A `*` of the source may be several words of the table: those that are not there are refused."""

    def fits(pattern: str) -> bool:
        pieces = pattern.strip("/").split("/")
        return len(pieces) == len(path) and all("*" in (one, other) or one == other for one, other in zip(pieces, path, strict=True))

    verbs = [("POST", f"/v1/modules/*/{verb}") for verb in VERBS]
    return any(known == method and fits(pattern) for known, pattern in (*ROUTES, *verbs))


def test_every_route_of_the_daemon_has_a_role() -> None:
    routes = patterns_of(API / "routes.py")
    assert len(routes) > 12
    for method, *path in routes:
        if path[-1] == "*" and path[:2] == ["v1", "modules"]:
            continue  # a verb: each is in the table of verbs, or refused
        assert in_the_table(method, path), f"{method} /{'/'.join(path)} has no entry in orchestrator/api/roles.py"


def test_nothing_is_in_the_table_that_is_not_there() -> None:
    routes = patterns_of(API / "routes.py")

    def is_there(method: str, pattern: str) -> bool:
        pieces = pattern.strip("/").split("/")
        for known, *path in routes:
            if known == method and len(path) == len(pieces) and all(word in ("*", piece) for word, piece in zip(path, pieces, strict=True)):
                return True
        return (method, pattern) == ("GET", "/v1/config")  # `*what` may be nothing

    assert [route for route in ROUTES if not is_there(*route)] == []
    assert set(VERBS) == {*COMMANDS, *MAINTENANCE, *DOINGS, "note"}
    assert set(CALLS) | CALLS_OF_DAEMONS | roles.CALLS_WITH_A_VERB == {*methods_of_a_peer(), *FROM_PEERS}
    assert {name for name, *_ in PARAMETERS} <= set(CALLS)


def test_every_verb_of_the_core_has_a_role() -> None:
    assert set(COMMANDS) <= set(VERBS)
    assert {(verb, flag) for verb, flags in FLAGS.items() for flag in flags} <= set(OPTIONS)


def test_every_call_of_a_peer_has_a_role() -> None:
    methods = methods_of_a_peer()
    assert len(methods) > 10
    for method in methods:
        assert of_call(method, {"verb": "stop"}) is not None, f"the call '{method}' has no entry in orchestrator/api/roles.py"


def methods_of_a_peer() -> list[str]:
    """`answer` of peer_calls.py, method by method."""
    tree = ast.parse((API / "peer_calls.py").read_text())
    answer = next(node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef) and node.name == "answer")
    found = [word for case in ast.walk(answer) if isinstance(case, ast.match_case) for word in words_of(case.pattern)]
    return [word for word in found if word != "*"]  # what a guard picks out of a table of its own


def test_what_is_not_in_the_table_is_refused() -> None:
    assert of_route("GET", ("v1", "explode")) is None
    assert of_route("DELETE", ("v1", "status")) is None
    assert of_route("POST", ("v1", "modules", "pg", "explode")) is None
    assert of_call("explode", {}) is None and of_call("command", {"verb": "explode"}) is None


def test_a_parameter_may_make_more_of_a_question() -> None:
    assert of_route("GET", ("v1", "doctor")) is of_route("GET", ("v1", "doctor"), {"what": "facts"}) is Role.VIEWER
    assert of_route("GET", ("v1", "doctor"), {"what": "snapshot"}) is of_call("doctor", {"what": "snapshot"}) is Role.OPERATOR
    assert of_call("doctor", {"what": "facts"}) is Role.VIEWER


def test_an_option_may_be_more_than_its_verb() -> None:
    assert of_verb("prim", {}) is Role.OPERATOR and of_verb("prim", {"force": False}) is Role.OPERATOR
    assert of_verb("prim", {"force": True}) is Role.ADMIN
    assert of_call("command", {"verb": "swap", "options": {"nosync": True}}) is Role.ADMIN


# ---- who is who -----------------------------------------------------------------------------------------------------------------------


def me(uid: int, *groups: int) -> access.Process:
    return access.Process(os.getpid(), uid, frozenset(groups))


DAEMON, BIN, GAMES = pwd.getpwnam("daemon").pw_uid, pwd.getpwnam("bin").pw_uid, grp.getgrnam("games").gr_gid


def test_the_access_table() -> None:
    table = {"viewer": ("daemon",), "operator": ("%games",), "admin": ("bin",)}
    assert access.role_of(me(0), table) is Role.ADMIN
    assert access.role_of(me(DAEMON), table) is Role.VIEWER
    assert access.role_of(me(DAEMON, GAMES), table) is Role.OPERATOR, "the highest that fits"
    assert access.role_of(me(BIN), table) is Role.ADMIN
    assert access.role_of(me(65534), table) is Role.NONE
    assert access.role_of(me(BIN), {"admin": ("no-such-user", "%no-such-group")}) is Role.NONE


def test_groups_where_the_table_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "GROUPS", {Role.ADMIN: "sys", Role.OPERATOR: "games", Role.VIEWER: "mail"})
    sys_, mail = grp.getgrnam("sys").gr_gid, grp.getgrnam("mail").gr_gid
    silent = {"viewer": (), "operator": (), "admin": ()}
    assert [access.role_of(me(1000, group), silent) for group in (mail, GAMES, sys_, 65534)] == [
        Role.VIEWER, Role.OPERATOR, Role.ADMIN, Role.NONE,
    ]  # fmt: skip
    assert access.role_of(me(1000, sys_), {"viewer": ("daemon",)}) is Role.NONE, "what is written replaces the groups"


def test_who_may_is_said() -> None:
    assert access.who_may(Role.OPERATOR, {}) == "root may, and members of lockstep-admin, members of lockstep"
    assert access.who_may(Role.ADMIN, {"operator": ("ann",)}) == "only root may"
    assert Asker("root", Role.ADMIN).who == "root" and Asker("root, logged in as ann", Role.ADMIN).who == "root, logged in as ann"
    assert ANN.who == "ann (operator)" and Asker("rooter", Role.ADMIN).who == "rooter (admin)"


# ---- the unix socket ------------------------------------------------------------------------------------------------------------------

# Plain Python, for whoever it runs as: a line on stdin is a request, one on stdout the status and the body of its answer.
CHILD = r"""
import json, socket, sys
for line in sys.stdin:
    path, method, target, body = json.loads(line)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(path)
            data = body.encode()
            head = f"{method} {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\nconnection: close\r\n\r\n"
            sock.sendall(head.encode() + data)
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
        head, _, rest = answer.partition(b"\r\n\r\n")
        print(json.dumps([int(head.split()[1]), rest.decode()]), flush=True)
    except OSError as error:
        print(json.dumps([0, error.strerror]), flush=True)
"""


@dataclass
class Child:
    """A process of somebody's."""

    uid: int
    groups: tuple[int, ...] = ()

    def ask(self, path: Path, requests: list[tuple[str, str, str]]) -> list[tuple[int, Any]]:
        lines = "".join(json.dumps([str(path), *request]) + "\n" for request in requests)
        done = subprocess.run(
            ["/usr/bin/python3", "-I", "-S", "-c", CHILD], input=lines, capture_output=True, text=True, check=True, timeout=60,
            user=self.uid, group=self.uid, extra_groups=self.groups, cwd="/",
        )  # fmt: skip
        return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


class Echo:
    """Whatever reaches it was let in."""

    def __init__(self) -> None:
        self.reached: list[tuple[str, ...]] = []

    async def route(self, request: Request) -> dict[str, Any]:
        self.reached.append(request.path)
        return {"code": 0, "who": request.who}


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may go into: pytest's own is root's."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o755)
    yield directory / "hactld.sock"
    shutil.rmtree(directory)


TABLE = {"viewer": ("daemon",), "operator": ("%games",), "admin": ("bin",)}
PEOPLE = {Role.VIEWER: Child(DAEMON), Role.OPERATOR: Child(65534, (GAMES,)), Role.ADMIN: Child(BIN)}
EVERY_ROUTE = [(method, path.replace("*", "x"), "", role) for (method, path), role in ROUTES.items()]
EVERY_VERB = [("POST", f"/v1/modules/pg/{verb}", "{}", role) for verb, role in VERBS.items()]
EVERY_PARAMETER = [("GET", f"/v1/{name}?{key}={value}", "", role) for (name, key, value), role in PARAMETERS.items()]
EVERY_OPTION = [("POST", f"/v1/modules/pg/{verb}", json.dumps({option: True}), role) for (verb, option), role in OPTIONS.items()]


@needs_root
@pytest.mark.parametrize("role", PEOPLE, ids=lambda role: role.word)
async def test_the_matrix_at_the_unix_socket(role: Role, place: Path) -> None:
    echo, everything = Echo(), EVERY_ROUTE + EVERY_VERB + EVERY_OPTION + EVERY_PARAMETER
    async with trio.open_nursery() as nursery:
        await nursery.start(ApiServer(place, echo.route, lambda: TABLE).run)
        requests = [(method, path, body) for method, path, body, _ in everything]
        answers = await trio.to_thread.run_sync(PEOPLE[role].ask, place, requests)
        nursery.cancel_scope.cancel()
    assert len(answers) == len(everything)
    for (method, path, body, needed), (status, answer) in zip(everything, answers, strict=True):
        expected = 200 if role >= needed else 403
        assert status == expected, f"{role.word}: {method} {path} {body}: {status} {answer}"
        if expected == 403:
            refusal = json.loads(answer)
            assert refusal["code"] == 8 and "root may" in refusal["message"] and "needs the role" in refusal["message"]
    assert len(echo.reached) == sum(role >= needed for *_, needed in everything), "what was refused has reached nothing"


@needs_root
async def test_who_has_no_role_cannot_connect(place: Path) -> None:
    stranger = Child(65534)
    async with trio.open_nursery() as nursery:
        await nursery.start(ApiServer(place, Echo().route, lambda: TABLE).run)
        assert await trio.to_thread.run_sync(stranger.ask, place, [("GET", "/v1/status", "")]) == [(0, "Permission denied")]
        await trio.Path(place).chmod(0o666)  # and if the door stood open
        [(status, body)] = await trio.to_thread.run_sync(stranger.ask, place, [("GET", "/v1/status", "")])
        assert status == 403 and "nobody has no role here" in json.loads(body)["message"]
        nursery.cancel_scope.cancel()


@needs_root
async def test_the_door_by_groups(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a group lockstep: 0660, its own; the other two groups come through by the access list."""
    monkeypatch.setattr(access, "GROUPS", {Role.ADMIN: "sys", Role.OPERATOR: "games", Role.VIEWER: "mail"})
    monkeypatch.setattr(access, "DOOR_GROUP", "games")
    mail, echo = grp.getgrnam("mail").gr_gid, Echo()
    async with trio.open_nursery() as nursery:
        await nursery.start(ApiServer(place, echo.route).run)
        found = await trio.Path(place).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, GAMES)
        for groups, expected in (((GAMES,), [200, 200]), ((mail,), [200, 403]), ((), [0, 0])):
            wanted = [("GET", "/v1/status", ""), ("POST", "/v1/modules/pg/swap", "{}")]
            answers = await trio.to_thread.run_sync(Child(65534, groups).ask, place, wanted)
            assert [status for status, _ in answers] == expected
        nursery.cancel_scope.cancel()


@needs_root
async def test_a_body_is_not_waited_for_when_it_may_not_be_sent(place: Path) -> None:
    """Refused by method and path; what follows is not read."""
    head = "POST /v1/modules/pg/swap HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: 1000000\\r\\n\\r\\n"
    child = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect('{place}'); s.sendall(b'{head}'); print(s.recv(65536).decode())"
    async with trio.open_nursery() as nursery:
        await nursery.start(ApiServer(place, Echo().route, lambda: TABLE).run)
        with trio.fail_after(10):
            done = await trio.run_process(["/usr/bin/python3", "-I", "-S", "-c", child], capture_stdout=True, user=DAEMON, cwd="/")
        assert done.stdout.startswith(b"HTTP/1.1 403")
        nursery.cancel_scope.cancel()


# ---- the call channel -----------------------------------------------------------------------------------------------------------------


async def test_the_matrix_at_the_call_channel(tmp_path: Path) -> None:
    """What a peer's hactld passes on, in each role that it may say somebody has."""
    routes, port = make_routes(FakePeer({}), tmp_path), free_port()
    server = peer.PeerServer("plant7", "node2", PeerCalls(routes.here, routes.here.sides[0]).answer, None, [].append)
    client = peer.PeerClient("plant7", "node2", "node1", (THERE,), None, port)
    # Of each call, something that comes to nothing when it is let in: `web` is refused after the role.
    calls = [(method, {"module": "pg"}, needed) for method, needed in CALLS.items()]
    calls += [("command", {"module": "pg", "verb": verb}, needed) for verb, needed in VERBS.items()]
    calls += [("command", {"module": "pg", "verb": verb, "options": {name: True}}, needed) for (verb, name), needed in OPTIONS.items()]
    calls += [("begin", {"module": "pg", "verb": "repair"}, Role.ADMIN)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(routes.here.sides[0].runner.run)
        await nursery.start(listening(server, port))
        for method, parameters, needed in calls:
            for word, role in {"viewer": Role.VIEWER, "operator": Role.OPERATOR, "": Role.VIEWER, "emperor": Role.VIEWER}.items():
                if role >= needed and method != "logs":
                    continue  # it does it
                refused = False
                try:
                    await client.call(method, {**parameters, "role": word, "who": "ann on node2"}, 5.0)
                except peer.PeerRefused as refusal:
                    refused = refusal.code == 8
                assert refused == (role < needed), f"{word}: {method} {parameters}"
        assert routes.here.history.after(1) == [], "nothing of it was done"
        for method in ("hello", "rfs_state"):
            assert method in CALLS_OF_DAEMONS
            await client.call(method, {"module": "pg"}, 5.0)  # who speaks is the peer: there is nobody behind it
        answer = await client.call("command", {"module": "pg", "verb": "pause", "role": "operator", "who": "ann (operator) on node2"}, 5.0)
        nursery.cancel_scope.cancel()
    assert answer["code"] == 0
    last = routes.here.history.after(0)[-1].as_json("node1")
    assert (last["who"], last["role"]) == ("ann (operator) on node2", "operator")


async def test_a_question_goes_on_in_the_askers_role(tmp_path: Path) -> None:
    there = FakePeer({"code": 0, "message": "done"})
    await ask(make_routes(there, tmp_path), "POST", "/v1/modules/pg/swap", {"node": "node2"})
    assert there.asked[0][1]["role"] == "operator" and there.asked[0][1]["who"] == "ann (operator) on node1"


def test_the_daemon_itself_asks_as_admin() -> None:
    assert asking.get().role is Role.ADMIN
    assert HERE.name == "lan"
