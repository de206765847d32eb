"""Where load balancers ask which node to send clients to, where no service address is possible.

    GET /health/MODULE                      200 where the module serves, 503 where it does not, 404 where there is no such module
    GET /var/modules/MODULE/ready.txt       200 or 404: the place and the codes that SafeKit's users have in their load balancers

The body is one line with the state. What is said comes from the core's state alone; a node that stood still a moment ago, or whose
loop has not taken a step for longer than it may, does not know what it is, and says 503. Anybody may ask, so a request is small, has
little time, and when too many are open the oldest goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import unquote

import h11
import trio

from orchestrator.api import http
from orchestrator.bugs import Bugs, unheard
from orchestrator.core.states import Readiness
from orchestrator.runner import Runner

SERVING = frozenset({"PRIM", "ALONE", "UP"})
REQUEST_BYTES_MAX = 4096
DEADLINE_S = 2.0
CONNECTIONS_MAX = 64
AGAIN_S = 5.0


def judge(runners: Mapping[str, Runner], module: str) -> tuple[bool, str] | None:
    """Does the module serve here, and in which words; None: there is no such module on this node."""
    runner = runners.get(module)
    if runner is None:
        return None
    state, readiness = runner.node.modules[module].shown
    if runner.is_late or runner.node.around.unsure:
        return False, "unsure"
    return state.value in SERVING and readiness is Readiness.READY, f"{state.value} {readiness.value}"


def respond(runners: Mapping[str, Runner], method: str, target: str) -> tuple[int, str]:
    """Status and line."""
    if method not in ("GET", "HEAD"):
        return 405, "only GET and HEAD"
    match tuple(unquote(piece) for piece in target.partition("?")[0].split("/") if piece):
        case ("health", module):
            otherwise = 503
        case ("var", "modules", module, "ready.txt"):
            otherwise = 404
        case _:
            return 404, "not here"
    verdict = judge(runners, module)
    if verdict is None:
        return 404, "no such module"
    serves, words = verdict
    return 200 if serves else otherwise, f"{module} {words}"


class HealthServer:
    """Answers on TCP. `runners`: by module, whose core decides about it. A place that is in use, or an address that is not there yet, is
    tried again: failover does not depend on it."""

    def __init__(self, host: str, port: int, runners: Mapping[str, Runner], log: Callable[[str], None], bugs: Bugs | None = None) -> None:
        self.host, self.port, self.runners, self.log, self.bugs = host, port, runners, log, bugs or unheard()
        self._open: dict[int, trio.CancelScope] = {}
        self._number = 0

    async def run(self, *, task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        told = ""
        while True:
            try:
                listeners = await trio.open_tcp_listeners(self.port, host=None if self.host == "::" else self.host)  # None: both families
                break
            except OSError as error:
                if (sentence := f"{self.host}:{self.port}: {error.strerror or error}; tried again every {AGAIN_S:.0f} s") != told:
                    self.log(told := sentence)
                await trio.sleep(AGAIN_S)
        await trio.serve_listeners(self._serve, listeners, task_status=task_status)

    async def _serve(self, stream: trio.SocketStream) -> None:
        """One request; then the connection ends, so that nothing hangs on to an answer of before."""
        if len(self._open) >= CONNECTIONS_MAX:
            oldest = next(iter(self._open))
            self._open.pop(oldest).cancel()
        self._number += 1
        number = self._number
        with trio.move_on_after(DEADLINE_S) as scope:
            self._open[number] = scope
            try:
                await self._exchange(stream)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError):
                pass  # the client went away, or is none
            except Exception as error:
                self.bugs.told("the health address", error)
        self._open.pop(number, None)

    def _judged(self, method: str, target: str) -> tuple[int, str]:
        try:
            return respond(self.runners, method, target)
        except Exception as error:  # who does not know does not serve
            return 500, self.bugs.told("the health address", error)

    async def _exchange(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_BYTES_MAX)
        head_only = False

        async def admit(head: h11.Request) -> None:
            nonlocal head_only
            head_only = head.method == b"HEAD"

        try:
            asked = await http.read_request(stream, connection, 0, admit)
            if asked is None:
                return
            method = asked[0].method.decode("ascii", "replace")
            status, line = self._judged(method, asked[0].target.decode("ascii", "replace"))
        except http.TooLong:
            status, line = 413, "no body, please"
        except h11.RemoteProtocolError as error:
            status, line = error.error_status_hint, "not a request that is answered here"
        more: Mapping[str, str] = {"connection": "close", "cache-control": "no-store"} | ({"allow": "GET, HEAD"} if status == 405 else {})
        await http.answer(stream, connection, status, "text/plain; charset=utf-8", f"{line}\n".encode(), tuple(more.items()), head_only)
