"""What this node answers about itself: to hactl over the unix socket (routes.py), to a peer over the call channel (peer_calls.py)."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import trio

from orchestrator.api import contents
from orchestrator.api.access import asking
from orchestrator.api.commands import COMMANDS, make_command
from orchestrator.api.config_calls import ConfigCalls
from orchestrator.api.doctor import Doctor
from orchestrator.api.maintenance import VERBS as MAINTENANCE
from orchestrator.api.maintenance import Maintenance
from orchestrator.api.server import ApiError, number_from
from orchestrator.api.works import Works
from orchestrator.checkers.watch import SAID_BY_OTHERS
from orchestrator.config import ReplicatedConfig, listed
from orchestrator.core import events as ev
from orchestrator.core.rules_language import ResourceState
from orchestrator.core.states import Resource
from orchestrator.core.what_if import QUESTIONS
from orchestrator.peer import PeerClient
from orchestrator.runner import Answer, Runner
from orchestrator.security import Keys
from orchestrator.view import DECISIONS, simulated, why
from rfs import exit_codes
from rfs.errors import SaidNo

STARTING = frozenset({"start", "prim", "second", "stopstart"})
LINES_MAX = 5000
ANSWER_BYTES_MAX = 200 << 10  # of each list; several are in one answer, and a peer takes a megabyte
NOTE_CHARACTERS_MAX = 2000
WAIT_S_MAX = 30.0
SHOWN_DECISIONS = 5


class History(Protocol):
    """What happened, newest last."""

    def after(self, number: int) -> list[Any]:
        """Everything newer than `number`."""
        ...

    def add(self, module: str, kind: str, text: str, *, who: str = "", role: str = "") -> None:
        """One line more."""
        ...

    async def news(self) -> None:
        """Until the next line."""
        ...

    @property
    def first(self) -> int:
        """The oldest number that is kept."""
        ...

    @property
    def last(self) -> int:
        """The newest."""
        ...


class Side(Protocol):
    """What is asked of a pair (pair.py)."""

    @property
    def peer(self) -> str:
        """The other node."""
        ...

    @property
    def shared(self) -> Collection[str]:
        """The modules that run on both: the peer may act for no other."""
        ...

    @property
    def runner(self) -> Runner:
        """The core, with the modules that live in this pair."""
        ...

    @property
    def client(self) -> PeerClient:
        """Questions to the peer."""
        ...

    @property
    def told(self) -> Callable[[ev.PeerTold], None]:
        """What the peer says over the call channel."""
        ...


@dataclass(frozen=True, slots=True)
class Roster:
    """Who is in the cluster, and where its modules run."""

    node: str  # this one
    nodes: tuple[str, ...]
    places: Mapping[str, tuple[str, ...]]  # module -> its nodes
    replicated: Mapping[str, Sequence[ReplicatedConfig]] = field(default_factory=dict)


class Here:
    """The answers."""

    def __init__(
        self,
        roster: Roster,
        sides: Sequence[Side],
        history: History,
        status: Callable[[], dict[str, Any]],
        logs: Callable[[str], tuple[Path, Path, Path]],
        keys: Keys,
        works: Works | None = None,
    ) -> None:
        self.roster, self.sides, self.history, self.status, self.logs_of, self.keys = roster, sides, history, status, logs, keys
        self.works = works if works is not None else Works({})
        self.node = roster.node
        self.config: ConfigCalls | None = None  # what can be asked of the configuration; in hactld always there
        self.maintenance: Maintenance | None = None  # the same of directories that are open
        self.doctor: Doctor | None = None  # given by who knows where the files are

    @property
    def configuration(self) -> ConfigCalls:
        """What can be asked of it."""
        assert self.config is not None, "a hactld without a configuration"
        return self.config

    def runner_of(self, module: str) -> Runner:
        """The core that decides about a module; ApiError when it does not run here."""
        for side in self.sides:
            if module in side.runner.node.modules:
                return side.runner
        if (places := self.roster.places.get(module)) is not None:
            sentence = f"module {module} does not run on {self.node} but on {listed(places)}: ask there"
            raise ApiError(sentence, exit_codes.USAGE, 404)
        raise ApiError(f"there is no module {module}", exit_codes.USAGE, 404)

    async def rotate(self, who: str) -> dict[str, Any]:
        """Replace this node's key; every peer is told. Who wanted that is in the history."""
        try:
            pin, not_told = await self.keys.rotate({side.peer: side.client for side in self.sides})
        except SaidNo as refusal:
            self.note_command("", "rotate-keys", {}, refusal.sentence, who)
            raise ApiError(refusal.sentence, refusal.exit_code) from refusal
        self.note_command("", "rotate-keys", {}, f"the key of this node is {pin[:16]} now", who)
        return {"node": self.node, "pin": pin, "not_told": not_told}

    async def command(self, module: str, verb: str, options: Mapping[str, Any], who: str) -> Answer:
        """Carried out on this node, and in its history."""
        answer = await self._carry_out(module, verb, options)
        if verb != "failures-check":
            self.note_command(module, verb, options, answer.message, who)
        return answer

    def note_command(self, module: str, verb: str, options: Mapping[str, Any], became: str, who: str) -> None:
        """A line for what somebody asked for."""
        given = "".join(f" --{name}" + (f" {value}" if isinstance(value, str) else "") for name, value in options.items() if value)
        self.history.add(module, "command", f"{verb}{given}: {became}", who=who, role=asking.get().role.word)

    def begin(self, module: str, verb: str, options: Mapping[str, Any], who: str) -> dict[str, Any]:
        """Long work on a module's data begins, and is in the history."""
        self.runner_of(module)
        work = self.works.begin(module, verb, options, who)
        self.note_command(module, verb, options, "begun", who)
        return self._work({"module": module}) | {"code": exit_codes.DONE, "message": f"{verb} {module}: {work} begun"}

    async def _carry_out(self, module: str, verb: str, options: Mapping[str, Any]) -> Answer:
        """What opens and closes directories is no affair of the core's; and while they are open, or a configuration is about to change that
        needs the module stopped, nothing starts."""
        runner = self.runner_of(module)
        if self.maintenance is not None and verb in MAINTENANCE:
            return await self.maintenance.carry_out(module, verb)
        if verb in STARTING:
            reasons = [self.config.keeper.held(module)] if self.config is not None else []
            reasons += [self.maintenance.held(module)] if self.maintenance is not None else []
            if reason := next(filter(None, reasons), ""):
                return Answer(exit_codes.REFUSED, reason)
        return await runner.ask(make_command(verb, module, options))

    def note(self, module: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A line of a script's."""
        kind = "script-error" if body.get("level") == "error" else "script-says"
        self.history.add(module, kind, str(body.get("text", ""))[:NOTE_CHARACTERS_MAX])
        return {"schema": "hactl.answer/1", "code": exit_codes.DONE, "message": "", "results": []}

    async def look(self, method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """`events`, `why`, `simulate`, `data`, `work`, `config`, `contents`, `doctor` or `logs`."""
        match method:
            case "config":
                return await self.configuration.look(str(parameters.get("what", "")), parameters)
            case "doctor" if self.doctor is not None:
                return await self.doctor.answer(parameters)
            case "events":
                return await self._events(parameters)
            case "data":
                return await self._data(parameters)
            case "work":
                return self._work(parameters)
            case "why":
                return self._why(parameters)
            case "simulate":
                return self._simulate(parameters)
            case "contents":
                module = self._known(parameters)
                runner, directories = self.runner_of(module), self.roster.replicated.get(module, ())
                return await contents.of_this_node(self.node, runner, module, directories, parameters.get("walk") is not False)
        return await self._logs(parameters)

    async def _events(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """What is newer than `after`: the newest of it that fit, or the `oldest`. `wait_s`: when there is nothing, wait so long."""
        after, wait_s = whole(parameters.get("after"), 0), parameters.get("wait_s")
        if isinstance(wait_s, float) and wait_s > 0 and 0 <= after <= self.history.last:
            with trio.move_on_after(min(wait_s, WAIT_S_MAX)):
                while self.history.last <= after:
                    await self.history.news()
        lines = [line.as_json(self.node) for line in self.history.after(after)]
        events = first_within(lines) if parameters.get("oldest") is True else within(lines[-LINES_MAX:])
        return {
            "schema": "hactl.events/1",
            "node": self.node,
            "events": events,
            "last": events[-1]["number"] if events else after,
            "first": self.history.first,
            "newest": self.history.last,
        }

    async def _data(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {"schema": "hactl.data/1", "node": self.node, **await self.works.data(self._known(parameters))}

    def _work(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        module = self._known(parameters)
        return {"schema": "hactl.work/1", "node": self.node, "module": module, "work": self.works.look(module)}

    def _why(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        module = self._known(parameters)
        decided = [line for line in self.history.after(0) if line.module == module and line.kind in DECISIONS]
        return why(self.runner_of(module).node, module, [line.as_json(self.node) for line in decided[-SHOWN_DECISIONS:]])

    def _simulate(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        module, what = self._known(parameters), str(parameters.get("what", ""))
        make = None
        if what not in QUESTIONS:
            if what not in COMMANDS:
                raise ApiError(f"'{what}' cannot be imagined; there are {', '.join(QUESTIONS)}", exit_codes.USAGE)
            given = [name for name in str(parameters.get("options", "")).split(",") if name]
            make = make_command(what, module, dict.fromkeys(given, True))
        resource = str(parameters.get("resource", ""))
        if what == "resource-down":
            self._watched(module, resource)
        return simulated(self.runner_of(module).node, module, what, make, resource)

    def _watched(self, module: str, resource: str) -> Resource | None:
        """What is known of a resource; None: nobody looks at it now. ApiError for one that there is not."""
        mine = self.runner_of(module).node.modules[module]
        if resource not in mine.watched:
            has = f"it has {listed(mine.watched)}" if mine.watched else "it has none"
            raise ApiError(f"module {module} has no checker {resource}; {has}", exit_codes.USAGE, 404)
        return mine.resources.get(resource)

    def checked(self, module: str, resource: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A loop of the administrator's says how a resource is, as SafeKit's custom checkers do."""
        known, words = self._watched(module, resource), {"up": ResourceState.UP, "down": ResourceState.DOWN}
        if resource.partition(".")[0] != SAID_BY_OTHERS:
            raise ApiError(f'{resource} is looked at by hactld itself; only a checker of type "{SAID_BY_OTHERS}" is told', exit_codes.USAGE)
        if not isinstance(said := body.get("state"), str) or said not in words:
            raise ApiError(f"a resource is up or down, not {said!r}", exit_codes.USAGE)
        if known is None:
            raise ApiError(f"{resource} is not looked at now: {module} is not in the state that its 'when' names", exit_codes.REFUSED)
        text = str(body.get("text", ""))[:NOTE_CHARACTERS_MAX]
        now, state = trio.current_time(), words[said]
        self.runner_of(module).deliver(ev.Checked(now, module, resource, state, text, known.window))
        return {"schema": "hactl.answer/1", "code": exit_codes.DONE, "message": "", "results": []}

    def _known(self, parameters: Mapping[str, Any]) -> str:
        module = str(parameters.get("module", ""))
        self.runner_of(module)
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
            "schema": "hactl.log/1",
            "node": self.node,
            "module": module,
            "lines": within(await trio.to_thread.run_sync(tail, services, lines)),
            "rfs_lines": within(await trio.to_thread.run_sync(tail, rfs, lines)),
            "runs": runs,
            "run": run,
            "run_lines": within(await trio.to_thread.run_sync(tail, scripts / f"{run}.log", lines)) if run else [],
        }


def within(entries: list[Any], bytes_max: int = ANSWER_BYTES_MAX) -> list[Any]:
    """The newest of them that fit into an answer to a peer."""
    left, first = bytes_max, len(entries)
    while first > 0 and (left := left - len(json.dumps(entries[first - 1])) - 2) > 0:
        first -= 1
    return entries[first:]


def first_within(entries: list[Any], bytes_max: int = ANSWER_BYTES_MAX) -> list[Any]:
    """The oldest of them that fit; at least one."""
    left, count = bytes_max, 0
    while count < len(entries) and (left := left - len(json.dumps(entries[count])) - 2) > 0:
        count += 1
    return entries[: max(count, 1)]


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
    if name not in query:
        return default
    if (number := number_from(query[name])) is None:
        raise ApiError(f"'{name}' must be a number", exit_codes.USAGE)
    return number
