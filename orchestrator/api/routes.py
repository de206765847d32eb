"""What can be asked of hactld over the unix socket: this node answers itself (here.py), or a peer is asked over the call channel.

A command goes to the module's own node or nodes. Only nodes with which this one is a pair can be asked from here: whoever asks after
another one is told so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from orchestrator.api import contents
from orchestrator.api.access import asking
from orchestrator.api.commands import make_command
from orchestrator.api.feed import Feed, cursors_from
from orchestrator.api.here import Here, Side, number_in
from orchestrator.api.index import index, schema_of
from orchestrator.api.maintenance import VERBS as MAINTENANCE
from orchestrator.api.server import ApiError, Request, Send, Stream
from orchestrator.config import listed
from orchestrator.core.states import State
from orchestrator.peer import PeerRefused, PeerUnreachable
from orchestrator.runner import Answer
from rfs import exit_codes

PEER_DEADLINE_S = 10.0
FOLLOWING_MAX = 4
ON_ONE_NODE = frozenset({"prim", "swap"})  # said to both, `prim` would be that either has the data
ON_THE_PRIMARY = frozenset({"verify", "repair", "resync"})


class Routes:
    """The answers to hactl."""

    def __init__(self, here: Here) -> None:
        self.here, self.roster, self.node = here, here.roster, here.node
        self._following = 0

    async def route(self, request: Request) -> dict[str, Any] | Stream:
        """One request."""
        wanted = request.query.get("node")
        asking.set(request.asker)
        match request.method, request.path:
            case "GET", ("v1",):
                return index(request)
            case "GET", ("v1", "schemas", name):
                return schema_of(name)
            case "GET", ("v1", "status"):
                return await self._status(wanted)
            case "GET", ("v1", "events"):
                parameters: dict[str, Any] = {"after": number_in(request.query, "after", 0)}
                return await self._here_or_there(wanted, "events", parameters)
            case "GET", ("v1", "doctor"):
                parameters = {name: request.query.get(name, "") for name in ("what", "token", "offset")}
                return await self._here_or_there(wanted, "doctor", parameters)
            case "GET", ("v1", "events", "stream"):
                nodes = self._nodes(wanted)
                return self._stream(nodes, request.query.get("after", ""))
            case "GET", ("v1", "modules", module, "why"):
                return await self._here_or_there(wanted, "why", {"module": module})
            case "GET", ("v1", "modules", module, "data"):
                return await self._here_or_there(wanted, "data", {"module": module})
            case "GET", ("v1", "modules", module, "work"):
                return await self._here_or_there(wanted, "work", {"module": module})
            case "GET", ("v1", "modules", module, "simulate"):
                names = ("what", "options", "resource")
                parameters = {"module": module, **{name: request.query.get(name, "") for name in names}}
                return await self._here_or_there(wanted, "simulate", parameters)
            case "GET", ("v1", "modules", module, "logs"):
                parameters = {"module": module, "lines": number_in(request.query, "lines", 50), "run": request.query.get("run", "")}
                return await self._here_or_there(wanted, "logs", parameters)
            case "GET", ("v1", "modules", module, "contents"):
                self.here.runner_of(module)
                parameters = {"module": module, "walk": request.query.get("walk") != "no"}
                return await contents.of_nodes(module, self._nodes_of(module, wanted), lambda node: self._of(node, "contents", parameters))
            case "POST", ("v1", "cluster", "rotate-keys"):
                return await self._rotate(wanted, f"{request.who} on {self.node}")
            case "GET", ("v1", "config", *what):
                return await self._here_or_there(wanted, "config", {**request.query, "what": "/".join(what)})
            case "POST", ("v1", "config", "apply" | "rollback" as what):
                if wanted not in (None, "", self.node):
                    raise ApiError(f"a configuration is applied where its files are: run the command on {wanted}", exit_codes.USAGE)
                return await self.here.configuration.order(what, request.body, f"{request.who} on {self.node}")
            case "POST", ("v1", "modules", module, "note"):
                self.here.runner_of(module)
                return self.here.note(module, request.body)
            case "POST", ("v1", "modules", module, "checkers", resource):
                return self.here.checked(module, resource, request.body)
            case "POST", ("v1", "modules", module, "verify" | "repair" | "resync" | "diff" | "resolve" | "discard" as verb):
                return await self._begin(module, verb, request.body, wanted, f"{request.who} on {self.node}")
            case "POST", ("v1", "modules", module, verb):
                return await self._command(module, verb, request.body, wanted, f"{request.who} on {self.node}")
        raise ApiError(f"there is no {request.method} /{'/'.join(request.path)}", exit_codes.USAGE, 404)

    def _stream(self, nodes: tuple[str, ...], after: str) -> Stream:
        """The events of nodes, from a place on. Who follows another node has a question open there all the time, and a peer answers a few
        at a time only: those of the daemons must always find room."""
        feed = Feed(self.here, self._ask, nodes, cursors_from(after, nodes))
        if nodes == (self.node,):
            return Stream(feed.run)
        if self._following >= FOLLOWING_MAX:
            raise ApiError(f"{FOLLOWING_MAX} readers follow other nodes from here already; follow them there", exit_codes.FAILED, 503)

        async def run(send: Send) -> None:
            self._following += 1
            try:
                await feed.run(send)
            finally:
                self._following -= 1

        return Stream(run)

    # ---- which nodes ------------------------------------------------------------------------------------------------------

    def _side_of(self, node: str) -> Side:
        """The pair with this node; ApiError when there is none."""
        for side in self.here.sides:
            if side.peer == node:
                return side
        if node in self.roster.nodes:
            sentence = f"{node} shares no mirror module with {self.node} and cannot be asked from here: run the command on {node}"
            raise ApiError(sentence, exit_codes.USAGE)
        raise ApiError(f"there is no node {node} in this cluster", exit_codes.USAGE, 404)

    def _nodes(self, wanted: str | None) -> tuple[str, ...]:
        """This node, the one that is named, or all that can be asked."""
        if wanted in (None, "", self.node):
            return (self.node,)
        if wanted == "all":
            return (self.node, *(side.peer for side in self.here.sides))
        assert wanted is not None
        return (self._side_of(wanted).peer,)

    def _nodes_of(self, module: str, wanted: str | None) -> tuple[str, ...]:
        """The same of a module that runs here; `all`: every node on which it runs."""
        places = self.roster.places[module]
        if wanted == "all":
            return (self.node, *(node for node in places if node != self.node))
        nodes = self._nodes(wanted)
        if nodes[0] not in places:
            raise ApiError(f"module {module} does not run on {nodes[0]} but on {listed(places)}", exit_codes.USAGE, 404)
        return nodes

    # ---- status -----------------------------------------------------------------------------------------------------------

    async def _status(self, wanted: str | None) -> dict[str, Any]:
        nodes = self._nodes(wanted)
        if nodes == (self.node,):
            return self.here.status()
        if wanted != "all":
            return await self._ask(nodes[0], "status", {})
        answers = dict[str, Any]()

        async def ask(node: str) -> None:
            try:
                answers[node] = await self._ask(node, "status", {})
            except ApiError:
                pass  # its lines stay what was last known here

        async with trio.open_nursery() as nursery:
            for node in nodes[1:]:
                nursery.start_soon(ask, node)
        document, merged = self.here.status(), set[str]()
        for node, theirs in answers.items():
            try:
                document = merge(document, theirs, node)
            except (KeyError, TypeError, AttributeError):  # not the document that it should be
                continue
            merged.add(node)
        peers = [{**peer, "silent": peer["node"] not in merged} for peer in document["peers"]]
        return {**document, "partial": len(merged) < len(peers), "peers": peers}

    # ---- commands ---------------------------------------------------------------------------------------------------------

    async def _command(self, module: str, verb: str, options: Mapping[str, Any], wanted: str | None, who: str) -> dict[str, Any]:
        if verb not in MAINTENANCE:
            make_command(verb, module, options)  # complains of what there is not
        shown = self.here.runner_of(module).node.modules[module].shown[0]
        if wanted == "all" and (verb in ON_ONE_NODE or options.get("fullsync")):
            raise ApiError(f"'{verb}' says what one node is to do: name it", exit_codes.USAGE)
        nodes = self._nodes_of(module, wanted)
        if verb == "swap" and not wanted and shown is State.SECOND:
            nodes = (self._other(module),)
        second_first = verb == "stop" and len(nodes) == 2
        if second_first and shown in (State.PRIM, State.ALONE):
            nodes = nodes[::-1]  # the secondary first: nothing is to be handed over
        results = []
        for node in nodes:
            if node == self.node:
                answer = await self.here.command(module, verb, options, who)
            else:
                answer = await self._command_there(node, module, verb, options, who)
            results.append({"node": node, "code": answer.code, "message": answer.message})
            if second_first and node == nodes[0]:
                await self._until_second_left(module, node)
        worst = max(results, key=lambda result: int(str(result["code"])))
        return {"schema": "hactl.answer/1", "code": worst["code"], "message": worst["message"], "results": results}

    async def _begin(self, module: str, verb: str, options: Mapping[str, Any], wanted: str | None, who: str) -> dict[str, Any]:
        """Long work; what only the primary can do is begun there."""
        shown = self.here.runner_of(module).node.modules[module].shown[0]
        node = self._nodes_of(module, wanted)[0]
        if verb in ON_THE_PRIMARY and not wanted and shown is State.SECOND:
            node = self._other(module)
        if verb == "resolve" and options.get("keep") not in self.roster.places[module]:
            raise ApiError(f"say whose data stays: --keep {' or --keep '.join(self.roster.places[module])}", exit_codes.USAGE)
        if node == self.node:
            return self.here.begin(module, verb, options, who)
        return await self._ask(node, "begin", {"module": module, "verb": verb, "options": dict(options), "who": who})

    def _other(self, module: str) -> str:
        """A mirror module's other node."""
        return next(node for node in self.roster.places[module] if node != self.node)

    async def _until_second_left(self, module: str, second: str) -> None:
        """Only then the primary is stopped: it would hand over to a second that still looks ready."""
        runner = self.here.runner_of(module)

        def left() -> bool:
            state = runner.node.modules[module].shown[0]
            return state is State.STOP if second == self.node else state is not State.PRIM

        with trio.move_on_after(PEER_DEADLINE_S):
            while not left():
                await runner.changed()

    async def _command_there(self, node: str, module: str, verb: str, options: Mapping[str, Any], who: str) -> Answer:
        try:
            answer = await self._ask(node, "command", {"module": module, "verb": verb, "options": dict(options), "who": who})
        except ApiError as error:
            return Answer(error.code, str(error))
        return Answer(int(answer.get("code", exit_codes.FAILED)), str(answer.get("message", "")))

    async def _rotate(self, wanted: str | None, who: str) -> dict[str, Any]:
        """One node after the other: each must find the others' keys as it knows them."""
        rotated = []
        for node in self._nodes(wanted):
            answer = await self.here.rotate(who) if node == self.node else await self._ask(node, "rotate", {"who": who})
            rotated.append({"node": node, "pin": answer.get("pin", ""), "not_told": answer.get("not_told", [])})
        return {"schema": "hactl.rotated/1", "rotated": rotated}

    # ---- asking -----------------------------------------------------------------------------------------------------------

    async def _here_or_there(self, wanted: str | None, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return await self._of(self._nodes(wanted)[0], method, parameters)

    async def _of(self, node: str, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return await self.here.look(method, parameters) if node == self.node else await self._ask(node, method, parameters)

    async def _ask(self, node: str, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """In the name of whoever this is for; the peer looks at their role once more."""
        wait_s = float(parameters.get("wait_s", 0.0)) if method == "events" else 0.0  # elsewhere it is whatever somebody asked with
        try:
            given = {**parameters, "role": asking.get().role.word}
            return await self._side_of(node).client.call(method, given, PEER_DEADLINE_S + wait_s)
        except PeerUnreachable as error:
            raise ApiError(str(error), exit_codes.PEER_NOT_REACHABLE) from error
        except PeerRefused as error:
            raise ApiError(f"{node}: {error}", error.code) from error


def merge(mine: dict[str, Any], theirs: Mapping[str, Any], peer: str) -> dict[str, Any]:
    """My document with a peer's lines as the peer itself sees them."""
    lines = {module["name"]: entry for module in theirs.get("modules", []) for entry in module["nodes"] if entry["node"] == peer}
    modules = [
        {**module, "nodes": [lines.get(module["name"], entry) if entry["node"] == peer else entry for entry in module["nodes"]]}
        for module in mine["modules"]
    ]
    return {**mine, "modules": modules, "partial": False}
