"""What a peer's hactld may ask over the call channel (peer.py): of the modules that run on both nodes, and of this node as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from orchestrator.api import roles
from orchestrator.api.access import Asker, asking
from orchestrator.api.config_calls import FROM_PEERS
from orchestrator.api.here import Here, Side
from orchestrator.api.server import ApiError
from orchestrator.core import events as ev
from orchestrator.peer import PeerRefused
from orchestrator.pulse import BadPulse, modules_from_wire, with_resources
from orchestrator.runner import Answer
from rfs import exit_codes
from rfs.errors import SaidNo

WHO_CHARACTERS_MAX = 200


class PeerCalls:
    """The answers to one peer."""

    def __init__(self, here: Here, side: Side) -> None:
        self.here, self.side = here, side

    async def answer(self, method: str, parameters: Mapping[str, Any], pin: str = "") -> dict[str, Any]:
        """One call of the peer's hactld, asked under the key `pin`."""
        module = str(parameters.get("module", ""))
        if module and module not in self.side.shared:
            raise PeerRefused(f"{self.side.peer} has no part in a module '{module}'", exit_codes.NOT_PERMITTED)
        who = str(parameters.get("who", "") or self.side.peer)[:WHO_CHARACTERS_MAX]
        self._judge(method, parameters, who)
        try:
            match method:
                case "hello":
                    return {"node": self.here.node}
                case "pin":
                    return await self._pinned(parameters, pin)
                case "rotate":
                    return await self.here.rotate(who)
                case "tell":
                    self._told(parameters)
                    return {}
                case "promote":
                    force = parameters.get("force") is True
                    return await self._ask(module, lambda now, request: ev.PeerAskedPromote(now, module, request, force))
                case "outdate":
                    return await self._ask(module, lambda now, request: ev.PeerAskedOutdate(now, module, request))
                case "command":
                    answer = await self.here.command(module, str(parameters.get("verb")), options_in(parameters), who)
                    return {"code": answer.code, "message": answer.message}
                case asked if asked in FROM_PEERS:
                    return await self.here.configuration.from_peer(method, parameters, self.side.peer)
                case "begin":
                    return self.here.begin(module, str(parameters.get("verb")), options_in(parameters), who)
                case "status":
                    return self.here.status()
                case "rfs_state":
                    return next((entry for entry in self.here.status()["modules"] if entry["name"] == module), {})
                case "logs" | "events" | "why" | "simulate" | "config" | "contents" | "doctor" | "data" | "work":
                    return await self.here.look(method, parameters)
        except ApiError as error:
            raise PeerRefused(str(error), error.code) from error
        raise PeerRefused(f"there is no call '{method}'", exit_codes.USAGE)

    def _judge(self, method: str, parameters: Mapping[str, Any], who: str) -> None:
        """May whoever asked the peer for this? It has looked already; this node's table counts here."""
        needed, role = roles.of_call(method, parameters), roles.role_named(parameters.get("role"))
        if needed is None:
            what = parameters.get("verb") if method in roles.CALLS_WITH_A_VERB else method
            raise PeerRefused(f"there is no call '{what}'", exit_codes.USAGE)
        if needed is roles.Role.NONE:
            return
        asking.set(Asker(who, role))
        if role < needed:
            what = str(parameters.get("verb") or method)
            may = f"ask an administrator on {self.here.node}"
            raise PeerRefused(roles.refusal(what, needed, who, role, may), exit_codes.NOT_PERMITTED)

    async def _ask(self, module: str, make: Any) -> dict[str, Any]:
        answer: Answer = await self.here.runner_of(module).ask(make)
        if answer.code != exit_codes.DONE:
            raise PeerRefused(answer.message, answer.code)
        return {"message": answer.message}

    async def _pinned(self, parameters: Mapping[str, Any], pin: str) -> dict[str, Any]:
        try:
            await self.here.keys.pin(self.side.peer, str(parameters.get("certificate", "")), pin)
        except (ValueError, SaidNo, OSError) as error:
            raise PeerRefused(f"the new key is refused: {error}", exit_codes.REFUSED) from error
        return {}

    def _told(self, parameters: Mapping[str, Any]) -> None:
        try:
            modules = with_resources(modules_from_wire(parameters.get("modules")), parameters.get("resources"))
        except BadPulse as error:
            raise PeerRefused("malformed", exit_codes.USAGE) from error
        incarnation, counter = parameters.get("incarnation"), parameters.get("counter")
        if type(incarnation) is not int or type(counter) is not int:
            raise PeerRefused("malformed", exit_codes.USAGE)
        shared = {name: summary for name, summary in modules.items() if name in self.side.shared}
        self.side.told(ev.PeerTold(trio.current_time(), incarnation, counter, shared))


def options_in(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Of a verb."""
    options = parameters.get("options")
    return options if isinstance(options, dict) else {}
