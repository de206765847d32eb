"""hactl's side of hactld's local interface: HTTP/1.1 over the unix socket, written out by hand. One request, one answer, and the end of the
connection: so little of HTTP is needed that its library would be a fifth of the time that `hactl status` takes, and a command that is typed
in an emergency should start fast. An event stream comes in chunks; a line of it is handed on when it is there."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from orchestrator import defaults
from orchestrator.sentence import Sentence
from rfs import exit_codes
from rfs.show import shown

DEFAULT_SOCKET = Path(defaults.DEFAULT_SOCKET)
TIMEOUT_S = 60.0
RECEIVE_BYTES = 1 << 16
PAUSES_S = (0.1, 0.2)  # a hactld that goes on with another configuration does not listen for a moment
Options = Mapping[str, bool | str]
Body = Mapping[str, bool | str | int]


class ApiFailure(Sentence):
    """hactld said no, or nothing."""


class Event(NamedTuple):
    """One of a stream: `kind` is empty for a line of the history, else `gone`, `silent` or `quiet`; `identity` is the place after it."""

    kind: str
    identity: str
    document: dict[str, Any]


QUIET = Event("quiet", "", {})


class ApiClient:
    """Each call is one connection: hactld may be restarted between any two. `for_people`: each text in an answer is on one line, and
    printable, whoever has put it there: a script, a peer, a name in a directory."""

    def __init__(self, path: Path = DEFAULT_SOCKET, timeout_s: float = TIMEOUT_S, *, for_people: bool = False) -> None:
        self.path, self.timeout_s, self.for_people = path, timeout_s, for_people

    def index(self) -> dict[str, Any]:
        """`hactl.index/1`: what there is to ask, and who asks."""
        return self._call("GET", "/v1", {})

    def status(self, node: str | None = None) -> dict[str, Any]:
        """`hactl.status/1`."""
        return self._call("GET", "/v1/status", {"node": node})

    def command(self, module: str, verb: str, options: Options, node: str | None = None) -> dict[str, Any]:
        """Ask for one of the verbs of routes.make_command."""
        return self._call("POST", f"/v1/modules/{quote(module, safe='')}/{verb}", {"node": node}, options)

    def note(self, module: str, level: str, text: str) -> None:
        """A script's line in the history: `level` is info or error."""
        self._call("POST", f"/v1/modules/{quote(module, safe='')}/note", {}, {"level": level, "text": text})

    def rotate_keys(self, node: str | None = None) -> dict[str, Any]:
        """Replace a node's key."""
        return self._call("POST", "/v1/cluster/rotate-keys", {"node": node})

    def logs(self, module: str, lines: int, node: str | None = None, run: str | None = None) -> dict[str, Any]:
        """The last lines of a module's logs, and of one run of a script (the newest unless named)."""
        return self._call("GET", f"/v1/modules/{quote(module, safe='')}/logs", {"lines": str(lines), "node": node, "run": run}, kept="\t")

    def contents(self, module: str, node: str | None = None, *, walk: bool = True) -> dict[str, Any]:
        """`hactl.contents/1`: what a module's directories hold."""
        return self._call("GET", f"/v1/modules/{quote(module, safe='')}/contents", {"node": node, "walk": None if walk else "no"})

    def why(self, module: str, node: str | None = None) -> dict[str, Any]:
        """Why a module is what it is on a node."""
        return self._call("GET", f"/v1/modules/{quote(module, safe='')}/why", {"node": node})

    def simulate(
        self, module: str, what: str, node: str | None = None, options: Iterable[str] = (), resource: str | None = None
    ) -> dict[str, Any]:
        """What would happen to a module on a node if …; `options`: of a command; `resource`: which one goes down."""
        query = {"what": what, "node": node, "options": ",".join(options) or None, "resource": resource}
        return self._call("GET", f"/v1/modules/{quote(module, safe='')}/simulate", query)

    def checked(self, module: str, resource: str, state: str, text: str = "") -> None:
        """Say how a resource is that nobody else looks at: `state` is up or down."""
        path = f"/v1/modules/{quote(module, safe='')}/checkers/{quote(resource, safe='')}"
        self._call("POST", path, {}, {"state": state, "text": text})

    def config(self, what: str = "", node: str | None = None, **query: str | None) -> dict[str, Any]:
        """The state of the configuration, its `history`, or a `diff`."""
        return self._call("GET", f"/v1/config/{what}".rstrip("/"), {"node": node, **query})

    def apply(self, order: Mapping[str, bool | str | int | None], verb: str = "apply") -> dict[str, Any]:
        """Apply the files, or with `rollback` a former generation."""
        return self._call("POST", f"/v1/config/{verb}", {}, {name: value for name, value in order.items() if value is not None})

    def events(self, after: int = 0, node: str | None = None) -> dict[str, Any]:
        """What happened since event number `after`."""
        return self._call("GET", "/v1/events", {"after": str(after), "node": node})

    def doctor(self, what: str, node: str | None = None, **more: str) -> dict[str, Any]:
        """`facts`, `clock` or `snapshot` of a node (api/doctor.py)."""
        return self._call("GET", "/v1/doctor", {"what": what, "node": node, **more}, raw=True)  # to be judged, not read

    def data(self, module: str, node: str | None = None) -> dict[str, Any]:
        """`hactl.data/1`: what a node's rfsmount says of a module's data."""
        return self._call("GET", f"/v1/modules/{quote(module, safe='')}/data", {"node": node})

    def work(self, module: str, node: str | None = None) -> dict[str, Any]:
        """`hactl.work/1`: the long work that runs on a module's data, or ran last."""
        return self._call("GET", f"/v1/modules/{quote(module, safe='')}/work", {"node": node})

    def stream(self, after: str | None = None, node: str | None = None, tick_s: float | None = None) -> Iterator[Event]:
        """What happens from now on, or from a place on. Whenever nothing has come for `tick_s`, QUIET. Ends with an ApiFailure."""
        with self._connected() as sock, self._translated():
            sock.sendall(_head("GET", _target("/v1/events/stream", {"after": after, "node": node})))
            buffer = bytearray()
            while b"\r\n\r\n" not in buffer and (piece := sock.recv(RECEIVE_BYTES)):
                buffer += piece
            status, rest = _parse(bytes(buffer))
            if status != 200:
                while piece := sock.recv(RECEIVE_BYTES):
                    rest += piece
                _document(status, rest)
            sock.settimeout(tick_s)
            for event in _events(sock, bytearray(rest)):
                yield event._replace(document=shown(event.document)) if self.for_people else event

    def _call(
        self, method: str, path: str, query: Mapping[str, str | None], body: Body | None = None, *, raw: bool = False, kept: str = ""
    ) -> dict[str, Any]:
        payload = json.dumps(body).encode() if body is not None else b""
        with self._connected() as sock, self._translated():
            sock.sendall(_head(method, _target(path, query), len(payload)) + payload)
            answer = bytearray()
            try:
                while piece := sock.recv(RECEIVE_BYTES):
                    answer += piece
            except ConnectionResetError:  # refused before it was read; the refusal is here
                if not answer:
                    raise
        document = _document(*_parse(bytes(answer)))
        return shown(document, kept) if self.for_people and not raw else document

    def _connected(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout_s)
            with self._translated():
                self._connect(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def _connect(self, sock: socket.socket) -> None:
        for pause_s in PAUSES_S:
            try:
                return sock.connect(str(self.path))
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(pause_s)
        return sock.connect(str(self.path))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What can go wrong with a socket, in sentences."""
        try:
            yield
        except (FileNotFoundError, ConnectionRefusedError):
            message = f"hactld is not running on this node (nobody listens on {self.path}); start it with: systemctl start hactld"
            raise ApiFailure(message, exit_codes.DAEMON_NOT_REACHABLE) from None
        except PermissionError:
            message = "you have no role here: root and those named in [access] of cluster.toml may talk to hactld; run hactl with sudo"
            raise ApiFailure(message, exit_codes.NOT_PERMITTED) from None
        except TimeoutError:
            raise ApiFailure(f"hactld did not answer within {self.timeout_s:.0f} s", exit_codes.DAEMON_NOT_REACHABLE) from None
        except OSError as error:
            raise ApiFailure(f"the connection to hactld broke ({error})", exit_codes.DAEMON_NOT_REACHABLE) from None


def _target(path: str, query: Mapping[str, str | None]) -> str:
    given = [f"{name}={quote(value, safe='')}" for name, value in query.items() if value is not None]
    return f"{path}?{'&'.join(given)}" if given else path


def _head(method: str, target: str, length: int = 0) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "host: localhost", "connection: close"]
    lines += ["content-type: application/json", f"content-length: {length}"] if length else []
    return "\r\n".join([*lines, "", ""]).encode()


def _parse(answer: bytes) -> tuple[int, bytes]:
    """Status and what follows the head."""
    head, end, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not end or len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ApiFailure("the connection to hactld broke in the middle of an answer", exit_codes.DAEMON_NOT_REACHABLE)
    return int(words[1]), body


def _chunks(buffer: bytearray) -> bytes:
    """The chunks that are whole, taken off the buffer."""
    taken = b""
    while (end := buffer.find(b"\r\n")) >= 0:
        size = int(bytes(buffer[:end]).partition(b";")[0], 16)
        if size == 0:
            raise ApiFailure("hactld ended the stream", exit_codes.DAEMON_NOT_REACHABLE)
        if len(buffer) < end + 2 + size + 2:
            break
        taken += buffer[end + 2 : end + 2 + size]
        del buffer[: end + 2 + size + 2]
    return taken


def _events(sock: socket.socket, buffer: bytearray) -> Iterator[Event]:
    """Server-Sent Events out of chunks."""
    text = bytearray(_chunks(buffer))
    while True:
        while (end := text.find(b"\n\n")) >= 0:
            fields = dict(line.split(": ", 1) for line in text[:end].decode().splitlines() if ": " in line and not line.startswith(":"))
            del text[: end + 2]
            if "data" in fields:
                yield Event(fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"]))
        try:
            piece = sock.recv(RECEIVE_BYTES)
        except TimeoutError:
            yield QUIET
            continue
        if not piece:
            raise ApiFailure("hactld ended the stream", exit_codes.DAEMON_NOT_REACHABLE)
        buffer += piece
        text += _chunks(buffer)


def _document(status: int, answer: bytes) -> dict[str, Any]:
    try:
        document = json.loads(answer)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ApiFailure(f"hactld answered with something that is no JSON object (HTTP {status})", exit_codes.FAILED)
    if status >= 400:
        code = document.get("code")
        raise ApiFailure(str(document.get("message", f"HTTP {status}")), code if isinstance(code, int) and code else exit_codes.FAILED)
    return document
