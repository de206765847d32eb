"""hactl's side of hactld's local interface: plain HTTP over the unix socket, with the standard library alone, because
a command that is typed in an emergency should start fast."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from orchestrator.sentence import Sentence
from rfs import exit_codes

DEFAULT_SOCKET = Path("/run/lockstep/hactld.sock")
TIMEOUT_S = 60.0
PAUSES_S = (0.1, 0.2)  # a hactld that goes on with another configuration does not listen for a moment
Options = Mapping[str, bool | str]
Body = Mapping[str, bool | str | int]


class ApiFailure(Sentence):
    """hactld said no, or nothing."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        for pause_s in (*PAUSES_S, None):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            try:
                return self.sock.connect(str(self._path))
            except (FileNotFoundError, ConnectionRefusedError):
                self.sock.close()
                if pause_s is None:
                    raise
                time.sleep(pause_s)
        return None


class ApiClient:
    """Each call is one connection: hactld may be restarted between any two."""

    def __init__(self, path: Path = DEFAULT_SOCKET, timeout_s: float = TIMEOUT_S) -> None:
        self.path, self.timeout_s = path, timeout_s

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
        return self._call("GET", f"/v1/modules/{quote(module, safe='')}/logs", {"lines": str(lines), "node": node, "run": run})

    def contents(self, module: str, node: str | None = None, *, walk: bool = True) -> dict[str, Any]:
        """`hactl.contents/1`: what a module's directories hold."""
        return self._call("GET", f"/v1/modules/{quote(module, safe='')}/contents", {"node": node, "walk": None if walk else "no"})

    def why(self, module: str, node: str | None = None) -> dict[str, Any]:
        """Why a module is what it is on a node."""
        return self._call("GET", f"/v1/modules/{quote(module, safe='')}/why", {"node": node})

    def simulate(self, module: str, what: str, node: str | None = None, resource: str | None = None) -> dict[str, Any]:
        """What would happen to a module on a node if …"""
        asked = {"what": what, "node": node, "resource": resource}
        return self._call("GET", f"/v1/modules/{quote(module, safe='')}/simulate", asked)

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
        return self._call("GET", "/v1/doctor", {"what": what, "node": node, **more})

    def _call(self, method: str, path: str, query: Mapping[str, str | None], body: Body | None = None) -> dict[str, Any]:
        given = {name: value for name, value in query.items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        connection = _UnixConnection(self.path, self.timeout_s)
        try:
            payload = json.dumps(body) if body is not None else None
            connection.request(method, target, payload, {"content-type": "application/json"} if payload else {})
            response = connection.getresponse()
            status, answer = response.status, response.read()
        except (FileNotFoundError, ConnectionRefusedError):
            message = f"hactld is not running on this node (nobody listens on {self.path}); start it with: systemctl start hactld"
            raise ApiFailure(message, exit_codes.DAEMON_NOT_REACHABLE) from None
        except PermissionError:
            raise ApiFailure("only root may talk to hactld; run hactl with sudo", exit_codes.NOT_PERMITTED) from None
        except TimeoutError:
            raise ApiFailure(f"hactld did not answer within {self.timeout_s:.0f} s", exit_codes.DAEMON_NOT_REACHABLE) from None
        except (OSError, http.client.HTTPException) as error:
            raise ApiFailure(f"the connection to hactld broke ({error or type(error).__name__})", exit_codes.DAEMON_NOT_REACHABLE) from None
        finally:
            connection.close()
        return _document(status, answer)


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
