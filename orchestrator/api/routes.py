"""What can be asked of hactld, by hactl over the unix socket and by the peer over the call channel: one table for both."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from orchestrator.api.server import ApiError, Request
from orchestrator.core import events as ev
from orchestrator.core.states import State
from orchestrator.core.what_if import QUESTIONS
from orchestrator.peer import PeerClient, PeerRefused, PeerUnreachable
from orchestrator.pulse import BadPulse, modules_from_wire
from orchestrator.runner import Answer, Runner
from orchestrator.security import Keys
from orchestrator.view import DECISIONS, simulated, why
from rfs import exit_codes
from rfs.errors import SaidNo

PEER_DEADLINE_S = 10.0
LINES_MAX = 5000
WHO_CHARACTERS_MAX = 200
IDENTITY_CHARACTERS_MAX = 64
NOTE_CHARACTERS_MAX = 2000
SHOWN_DECISIONS = 5


class History(Protocol):
    """What happened, newest last."""

    def after(self, number: int) -> list[Any]:
        """Everything newer than `number`."""
        ...

    def add(self, module: str, kind: str, text: str, *, who: str = "") -> None:
        """One line more."""
        ...


COMMANDS: Final[dict[str, tuple[type[ev.Command], dict[str, Any]]]] = {
    "start": (ev.Start, {}),
    "stop": (ev.Stop, {}),
    "restart": (ev.Restart, {}),
    "stopstart": (ev.StopStart, {}),
    "swap": (ev.Swap, {}),
    "prim": (ev.Prim, {}),
    "second": (ev.Second, {}),
    "pause": (ev.Switch, {"switch": "failover", "value": "off"}),
    "resume": (ev.Switch, {"switch": "failover", "value": "on"}),
    **{f"checkers-{word}": (ev.Switch, {"switch": "checkers", "value": word}) for word in ("on", "off")},
    **{f"boot-{word}": (ev.Switch, {"switch": "boot", "value": word}) for word in ("on", "off", "auto", "config")},
    **{f"failures-{word}": (ev.Count, {"what": word}) for word in ("count", "check", "reset")},
}
FLAGS: Final = {"prim": {"force", "fullsync"}, "second": {"fullsync"}, "swap": {"nosync"}}
ALL_FLAGS: Final = {name for names in FLAGS.values() for name in names}
BY_CHECKERS: Final = {"stop", "restart", "stopstart", "swap", "failures-count", "failures-check", "failures-reset"}


def make_command(verb: str, module: str, options: Mapping[str, Any]) -> Callable[[float, int], ev.Command]:
    """The core's event for a verb; ApiError for a verb or option that does not exist."""
    if verb not in COMMANDS:
        raise ApiError(f"there is no command '{verb}'", exit_codes.USAGE, 404)
    allowed = FLAGS.get(verb, set()) | ({"identity"} if verb in BY_CHECKERS else set())
    wrong = [name for name, value in options.items() if name not in ALL_FLAGS | {"identity"} or (value and name not in allowed)]
    if wrong:
        raise ApiError(f"'{verb}' takes no option '{wrong[0]}'", exit_codes.USAGE)
    kind, fixed = COMMANDS[verb]
    flags = {name: True for name in FLAGS.get(verb, ()) if options.get(name) is True}
    checker = str(options.get("identity") or "")[:IDENTITY_CHARACTERS_MAX]
    return lambda now, request: kind(now, module, request, checker=checker, **fixed, **flags)


class Routes:
    """The answers."""

    def __init__(
        self,
        runner: Runner,
        peer: PeerClient,
        history: History,
        status: Callable[[], dict[str, Any]],
        logs: Callable[[str], tuple[Path, Path, Path]],
        shared: Collection[str],
        keys: Keys,
    ) -> None:
        self.runner, self.peer, self.history, self.status, self.logs_of = runner, peer, history, status, logs
        self.shared = shared  # the modules that name the peer: it may act for no other
        self.keys = keys
        self.told: Callable[[ev.PeerTold], None] = runner.deliver  # what the peer says over the call channel

    @property
    def node(self) -> str:
        """This node's name."""
        return self.runner.node.around.node

    @property
    def peer_name(self) -> str:
        """The other node's name."""
        return self.runner.node.around.peer

    # ---- from hactl ---------------------------------------------------------------------------------------------------

    async def route(self, request: Request) -> dict[str, Any]:
        """One request of the unix socket."""
        match request.method, request.path:
            case "GET", ("v1", "status"):
                return await self._status(request.query.get("node"))
            case "GET", ("v1", "events"):
                parameters: dict[str, Any] = {"after": number_in(request.query, "after", 0)}
                return await self._here_or_there(request.query.get("node"), "events", parameters)
            case "GET", ("v1", "modules", module, "why"):
                return await self._here_or_there(request.query.get("node"), "why", {"module": module})
            case "GET", ("v1", "modules", module, "simulate"):
                parameters = {"module": module, "what": request.query.get("what", "")}
                return await self._here_or_there(request.query.get("node"), "simulate", parameters)
            case "GET", ("v1", "modules", module, "logs"):
                parameters = {"module": module, "lines": number_in(request.query, "lines", 50), "run": request.query.get("run", "")}
                return await self._here_or_there(request.query.get("node"), "logs", parameters)
            case "POST", ("v1", "cluster", "rotate-keys"):
                return await self._rotate(request.query.get("node"))
            case "POST", ("v1", "modules", module, "note"):
                return self._note(self._known({"module": module}), request.body)
            case "POST", ("v1", "modules", module, verb):
                return await self._command(module, verb, request.body, request.query.get("node"), f"{request.who} on {self.node}")
        raise ApiError(f"there is no {request.method} /{'/'.join(request.path)}", exit_codes.USAGE, 404)

    def _nodes(self, wanted: str | None) -> tuple[str, ...]:
        if wanted in (None, "", self.node):
            return (self.node,)
        if wanted == "all":
            return (self.node, self.peer_name)
        if wanted != self.peer_name:
            raise ApiError(f"there is no node {wanted} in this cluster", exit_codes.USAGE, 404)
        return (self.peer_name,)

    async def _status(self, wanted: str | None) -> dict[str, Any]:
        nodes = self._nodes(wanted)
        if nodes == (self.node,):
            return self.status()
        if nodes == (self.peer_name,):
            return await self._ask("status", {})
        document = self.status()
        try:
            theirs = await self._ask("status", {})
        except ApiError:
            return {**document, "partial": True}
        try:
            return merge(document, theirs, self.peer_name)
        except (KeyError, TypeError, AttributeError):  # not the document that it should be
            return {**document, "partial": True}

    async def _command(self, module: str, verb: str, options: Mapping[str, Any], wanted: str | None, who: str) -> dict[str, Any]:
        make_command(verb, module, options)  # complains of what there is not
        if module not in self.runner.node.modules:
            raise ApiError(f"there is no module {module}", exit_codes.USAGE, 404)
        nodes = self._nodes(wanted)
        if verb == "swap" and not wanted and self.runner.node.modules[module].shown[0] is State.SECOND:
            nodes = (self.peer_name,)
        if verb == "stop" and len(nodes) == 2 and self.runner.node.modules[module].shown[0] in (State.PRIM, State.ALONE):
            nodes = nodes[::-1]  # the secondary first: nothing is to be handed over
        results = []
        for node in nodes:
            here = node == self.node
            answer = await self._command_here(module, verb, options, who) if here else await self._command_there(module, verb, options, who)
            results.append({"node": node, "code": answer.code, "message": answer.message})
            if verb == "stop" and len(nodes) == 2 and node == nodes[0]:
                await self._until_second_left(module, node)
        worst = max(results, key=lambda result: int(str(result["code"])))
        return {"code": worst["code"], "message": worst["message"], "results": results}

    async def _rotate(self, wanted: str | None) -> dict[str, Any]:
        rotated = [
            {"node": node, "pin": await self._rotate_here() if node == self.node else (await self._ask("rotate", {})).get("pin", "")}
            for node in self._nodes(wanted)
        ]
        return {"rotated": rotated}

    async def _rotate_here(self) -> str:
        try:
            return await self.keys.rotate(self.peer)
        except PeerUnreachable as error:
            again = f"{self.peer_name} could not be told of the new key; try again: {error}"
            raise ApiError(again, exit_codes.PEER_NOT_REACHABLE) from error
        except PeerRefused as error:
            raise ApiError(f"{self.peer_name} refuses: {error}", error.code) from error
        except SaidNo as refusal:
            raise ApiError(refusal.sentence, refusal.exit_code) from refusal

    async def _until_second_left(self, module: str, second: str) -> None:
        """Only then the primary is stopped: it would hand over to a second that still looks ready."""

        def left() -> bool:
            state = self.runner.node.modules[module].shown[0]
            return state is State.STOP if second == self.node else state is not State.PRIM

        with trio.move_on_after(PEER_DEADLINE_S):
            while not left():
                await self.runner.changed()

    async def _command_here(self, module: str, verb: str, options: Mapping[str, Any], who: str) -> Answer:
        answer = await self.runner.ask(make_command(verb, module, options))
        if verb == "failures-check":
            return answer
        given = "".join(f" --{name}" + (f" {value}" if isinstance(value, str) else "") for name, value in options.items() if value)
        self.history.add(module, "command", f"{verb}{given}: {answer.message}", who=who)
        return answer

    async def _command_there(self, module: str, verb: str, options: Mapping[str, Any], who: str) -> Answer:
        try:
            answer = await self._ask("command", {"module": module, "verb": verb, "options": dict(options), "who": who})
        except ApiError as error:
            return Answer(error.code, str(error))
        return Answer(int(answer.get("code", exit_codes.FAILED)), str(answer.get("message", "")))

    async def _here_or_there(self, wanted: str | None, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if self._nodes(wanted)[0] == self.node:
            return await self._look(method, parameters)
        return await self._ask(method, parameters)

    async def _look(self, method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        match method:
            case "events":
                return self._events(parameters)
            case "why":
                return self._why(parameters)
            case "simulate":
                return self._simulate(parameters)
        return await self._logs(parameters)

    async def _ask(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self.peer.call(method, parameters, PEER_DEADLINE_S)
        except PeerUnreachable as error:
            raise ApiError(f"{self.peer_name}: {error}", exit_codes.PEER_NOT_REACHABLE) from error
        except PeerRefused as error:
            raise ApiError(f"{self.peer_name}: {error}", error.code) from error

    # ---- from the peer ------------------------------------------------------------------------------------------------

    async def answer_peer(self, method: str, parameters: Mapping[str, Any], pin: str = "") -> dict[str, Any]:
        """One call of the peer's hactld, asked under the key `pin`."""
        module = str(parameters.get("module", ""))
        if module and module not in self.shared:
            raise PeerRefused(f"{self.peer_name} has no part in a module '{module}'", exit_codes.NOT_PERMITTED)
        try:
            match method:
                case "hello":
                    return {"node": self.node}
                case "pin":
                    return await self._pinned(parameters, pin)
                case "rotate":
                    return {"pin": await self._rotate_here()}
                case "tell":
                    self._told(parameters)
                    return {}
                case "promote":
                    force = parameters.get("force") is True
                    return self._raise(await self.runner.ask(lambda now, request: ev.PeerAskedPromote(now, module, request, force)))
                case "outdate":
                    return self._raise(await self.runner.ask(lambda now, request: ev.PeerAskedOutdate(now, module, request)))
                case "command":
                    options = parameters.get("options")
                    who = str(parameters.get("who", "") or self.peer_name)[:WHO_CHARACTERS_MAX]
                    given = options if isinstance(options, dict) else {}
                    answer = await self._command_here(module, str(parameters.get("verb")), given, who)
                    return {"code": answer.code, "message": answer.message}
                case "status":
                    return self.status()
                case "rfs_state":
                    return next((entry for entry in self.status()["modules"] if entry["name"] == module), {})
                case "logs" | "events" | "why" | "simulate":
                    return await self._look(method, parameters)
        except ApiError as error:
            raise PeerRefused(str(error), error.code) from error
        raise PeerRefused(f"there is no call '{method}'", exit_codes.USAGE)

    async def _pinned(self, parameters: Mapping[str, Any], pin: str) -> dict[str, Any]:
        try:
            await self.keys.pin(str(parameters.get("certificate", "")), pin)
        except (ValueError, SaidNo, OSError) as error:
            raise PeerRefused(f"the new key is refused: {error}", exit_codes.REFUSED) from error
        return {}

    def _told(self, parameters: Mapping[str, Any]) -> None:
        try:
            modules = modules_from_wire(parameters.get("modules"))
        except BadPulse as error:
            raise PeerRefused("malformed", exit_codes.USAGE) from error
        incarnation, counter = parameters.get("incarnation"), parameters.get("counter")
        if type(incarnation) is not int or type(counter) is not int:
            raise PeerRefused("malformed", exit_codes.USAGE)
        shared = {name: summary for name, summary in modules.items() if name in self.shared}
        self.told(ev.PeerTold(trio.current_time(), incarnation, counter, shared))

    def _raise(self, answer: Answer) -> dict[str, Any]:
        if answer.code != exit_codes.DONE:
            raise PeerRefused(answer.message, answer.code)
        return {"message": answer.message}

    # ---- answers ------------------------------------------------------------------------------------------------------

    def _events(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        after = whole(parameters.get("after"), 0)
        events = [line.as_json(self.node) for line in self.history.after(after)][-LINES_MAX:]
        return {"node": self.node, "events": events, "last": events[-1]["number"] if events else after}

    def _why(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        module = self._known(parameters)
        decided = [line for line in self.history.after(0) if line.module == module and line.kind in DECISIONS]
        return why(self.runner.node, module, [line.as_json(self.node) for line in decided[-SHOWN_DECISIONS:]])

    def _simulate(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        module, what = self._known(parameters), str(parameters.get("what", ""))
        if what not in QUESTIONS:
            raise ApiError(f"'{what}' cannot be imagined; there are {', '.join(QUESTIONS)}", exit_codes.USAGE)
        return simulated(self.runner.node, module, what)

    def _note(self, module: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A line of a script's."""
        kind = "script-error" if body.get("level") == "error" else "script-says"
        self.history.add(module, kind, str(body.get("text", ""))[:NOTE_CHARACTERS_MAX])
        return {"code": exit_codes.DONE}

    def _known(self, parameters: Mapping[str, Any]) -> str:
        module = str(parameters.get("module", ""))
        if module not in self.runner.node.modules:
            raise ApiError(f"there is no module {module}", exit_codes.USAGE, 404)
        return module

    async def _logs(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        module = self._known(parameters)
        lines = max(1, min(whole(parameters.get("lines"), 50), LINES_MAX))
        services, rfs, scripts = self.logs_of(module)
        runs = await trio.to_thread.run_sync(runs_in, scripts)
        run = str(parameters.get("run") or (runs[-1] if runs else ""))
        if run and run not in runs:
            raise ApiError(f"no run of a script is kept as '{run}'; 'hactl logs --runs {module}' lists them", exit_codes.USAGE, 404)
        return {
            "node": self.node,
            "module": module,
            "lines": await trio.to_thread.run_sync(tail, services, lines),
            "rfs_lines": await trio.to_thread.run_sync(tail, rfs, lines),
            "runs": runs,
            "run": run,
            "run_lines": await trio.to_thread.run_sync(tail, scripts / f"{run}.log", lines) if run else [],
        }


def runs_in(directory: Path) -> list[str]:
    """The runs of scripts that are kept, oldest first (blocking)."""
    return sorted(path.stem for path in directory.glob("*.log"))


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log, at most 256 KiB of them (blocking)."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - (256 << 10)))
            return list(deque(file.read().decode(errors="replace").splitlines(), maxlen=lines))
    except FileNotFoundError:
        return []


def whole(value: object, default: int) -> int:
    """A number that the peer sent, or the default for anything else."""
    return value if type(value) is int else default


def number_in(query: Mapping[str, str], name: str, default: int) -> int:
    """A number of the query string."""
    try:
        return int(query.get(name, default))
    except ValueError as error:
        raise ApiError(f"'{name}' must be a number", exit_codes.USAGE) from error


def merge(mine: dict[str, Any], theirs: Mapping[str, Any], peer: str) -> dict[str, Any]:
    """My document with the peer's lines as the peer itself sees them."""
    lines = {module["name"]: entry for module in theirs.get("modules", []) for entry in module["nodes"] if entry["node"] == peer}
    modules = [
        {**module, "nodes": [lines.get(module["name"], entry) if entry["node"] == peer else entry for entry in module["nodes"]]}
        for module in mine["modules"]
    ]
    return {**mine, "modules": modules, "partial": False}
