"""What can be asked of a node's configuration: by people over the unix socket (`/v1/config/…`), by a peer's hactld over the call channel.

People ask the daemon, not the files: it knows what is applied, what each change would do to what runs, and which nodes take part.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

import trio

from orchestrator import config_apply, config_archive, config_effects
from orchestrator.api.server import ApiError, number_from
from orchestrator.config_errors import Complaint, ConfigError
from orchestrator.config_keeper import PREPARE_DEADLINE_S, ConfigKeeper
from orchestrator.config_round import Order, apply
from orchestrator.peer import PeerRefused, PeerUnreachable
from rfs import exit_codes
from rfs.errors import SaidNo
from rfs.pairing import Files

FLAGS: Final = ("dry_run", "without_peer", "force_from_here")
FROM_PEERS: Final = frozenset({"config_state", "config_fate", "config_files", "config_prepare", "config_commit", "config_abort"})
LINES_MAX: Final = 2000
SHOWN_COMPLAINTS: Final = 5


class ConfigCalls:
    """The answers."""

    def __init__(self, keeper: ConfigKeeper) -> None:
        self.keeper = keeper

    # ---- people -------------------------------------------------------------------------------------------------------------

    async def look(self, what: str, query: Mapping[str, Any]) -> dict[str, Any]:
        """`` (the state), `history` or `diff`."""
        match what:
            case "":
                return self._state()
            case "history":
                return self._history()
            case "diff":
                return await self._diff(query)
        raise ApiError(f"there is nothing called config/{what}", exit_codes.USAGE, 404)

    async def order(self, what: str, body: Mapping[str, Any], who: str) -> dict[str, Any]:
        """`apply` or `rollback`."""
        number = body.get("number")
        if what not in ("apply", "rollback"):
            raise ApiError(f"the configuration has no order '{what}'", exit_codes.USAGE, 404)
        if (what == "rollback" and type(number) is not int) or (what == "apply" and number is not None):
            raise ApiError("'number' says which generation to go back to, and belongs to a rollback", exit_codes.USAGE)
        flags = {name: body.get(name) is True for name in FLAGS}
        comment, expect = str(body.get("comment") or ""), str(body.get("expect") or "")
        order = Order(who, comment or (f"back to generation {number}" if number else ""), number, expect, **flags)
        try:
            return await apply(self.keeper, order)
        except ConfigError as error:
            raise ApiError(in_one(error), exit_codes.CONFIGURATION_INVALID, 422) from error
        except SaidNo as refusal:
            raise ApiError(refusal.sentence, refusal.exit_code) from refusal
        except OSError as error:
            place = error.filename or self.keeper.store.root
            raise ApiError(f"{place}: {error.strerror}; 'hactl config history' shows what is applied", exit_codes.FAILED) from error

    def _state(self) -> dict[str, Any]:
        keeper = self.keeper
        mine = keeper.says()
        promised = {"coordinator": mine.coordinator, "transaction": mine.promised} if mine.promised else None
        peers = []
        for peer, known in keeper.known.items():
            related = config_apply.relation(mine, known.says).value if known.says is not None else None
            applied = known.says.applied.as_json() if known.says is not None else None
            peers.append({"node": peer, "answers": known.says is not None, "relation": related, "applied": applied, "reason": known.stuck})
        return {
            "schema": "hactl.config-state/1",
            "node": keeper.node,
            "directory": str(keeper.config_dir),
            "applied": mine.applied.as_json(),
            "files": {"digest": mine.files, "applied": mine.files == mine.applied.digest},
            "running": not keeper.is_changing,
            "promised": promised,
            "peers": peers,
        }

    def _history(self) -> dict[str, Any]:
        past = self.keeper.store.past
        entries = [{**each.as_json(), "applied": each is past.applied} for each in past.generations]
        return {"schema": "hactl.config-history/1", "node": self.keeper.node, "generations": entries}

    async def _diff(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """From what is applied (or `from`: a generation; `peer`: what a peer has applied) to the files (or `to`: a generation)."""
        keeper = self.keeper
        try:
            target = await keeper.source(number_of(query, "to"))
            named, base = await self._base(query)
        except SaidNo as refusal:
            raise ApiError(refusal.sentence, refusal.exit_code) from refusal
        except OSError as error:
            raise ApiError(f"{error.filename}: {error.strerror}", exit_codes.FAILED) from error
        problems: list[dict[str, Any]] = []
        changes: list[dict[str, Any]] = []
        running: dict[str, str] = {}
        try:
            candidate = await keeper.examine(target)
            changes = [change.as_json() for change in candidate.changes]
            found = {module: keeper.facts.why_not_stopped(module) for module in config_effects.stopped_for(candidate.changes)}
            running = {module: state for module, state in found.items() if state}
        except ConfigError as error:
            problems = [as_json(complaint) for complaint in error.complaints]
        return {
            "schema": "hactl.config-diff/1",
            "node": keeper.node,
            "from": named,
            "to": f"generation {query['to']}" if query.get("to") else str(keeper.config_dir),
            "digest": config_archive.digest(target),
            "equal": config_archive.digest(base) == config_archive.digest(target),
            "files": await trio.to_thread.run_sync(differences, base, target),
            "changes": changes,
            "problems": problems,
            "running": running,
        }

    async def _base(self, query: Mapping[str, Any]) -> tuple[str, Files]:
        keeper = self.keeper
        if peer := str(query.get("peer") or ""):
            return await self._base_of_peer(peer if peer != "any" else next(iter(keeper.peers)))
        number = number_of(query, "from") or keeper.applied.number
        return f"generation {number}", await keeper.source(number)

    async def _base_of_peer(self, peer: str) -> tuple[str, Files]:
        if (call := self.keeper.peers.get(peer)) is None:
            raise ApiError(f"{peer} is no peer of {self.keeper.node}", exit_codes.USAGE, 404)
        try:
            answer = await call.call("config_files", {}, PREPARE_DEADLINE_S)
        except PeerUnreachable as error:
            raise ApiError(str(error), exit_codes.PEER_NOT_REACHABLE) from error
        except PeerRefused as error:
            raise ApiError(f"{peer}: {error}", error.code) from error
        return f"generation {answer.get('number')} of {peer}", config_archive.unpack(answer.get("files"))

    # ---- a peer's hactld ------------------------------------------------------------------------------------------------------

    async def from_peer(self, method: str, parameters: Mapping[str, Any], peer: str) -> dict[str, Any]:
        """One of FROM_PEERS."""
        keeper, transaction = self.keeper, str(parameters.get("transaction", ""))
        try:
            match method:
                case "config_state":
                    return keeper.says().as_message()
                case "config_fate":
                    return {"fate": keeper.fate(transaction).value}
                case "config_files":
                    return await self._files(str(parameters.get("digest") or keeper.applied.digest))
                case "config_prepare":
                    await keeper.prepare(peer, parameters)
                    return {}
                case "config_commit":
                    await keeper.commit(transaction)
                    return {}
                case "config_abort":
                    await keeper.abort(transaction)
                    return {}
        except ConfigError as error:
            raise PeerRefused(in_one(error), exit_codes.CONFIGURATION_INVALID) from error
        except SaidNo as refusal:
            raise PeerRefused(refusal.sentence, refusal.exit_code) from refusal
        except OSError as error:
            raise PeerRefused(f"{error.filename or keeper.store.root}: {error.strerror}", exit_codes.FAILED) from error
        raise PeerRefused(f"there is no call '{method}'", exit_codes.USAGE)

    async def _files(self, digest: str) -> dict[str, Any]:
        generation = next((each for each in reversed(self.keeper.store.past.generations) if each.digest == digest), None)
        if generation is None:
            raise SaidNo("that configuration is not kept here", exit_codes.FAILED)
        files = await trio.to_thread.run_sync(self.keeper.store.files_of, digest)
        return {"number": generation.number, "files": config_archive.pack(files)}


def number_of(query: Mapping[str, Any], name: str) -> int | None:
    """A generation that was named."""
    if (value := query.get(name)) in (None, ""):
        return None
    if (number := number_from(str(value))) is None:
        raise ApiError(f"'{value}' is not the number of a generation; 'hactl config history' has them", exit_codes.USAGE)
    return number


def as_json(complaint: Complaint) -> dict[str, Any]:
    """As `hactl config check` has it."""
    return {"file": str(complaint.file), "line": complaint.line, "key": complaint.key, "text": complaint.sentence}


def in_one(error: ConfigError) -> str:
    """A few complaints in one sentence."""
    told = [str(complaint) for complaint in error.complaints[:SHOWN_COMPLAINTS]]
    more = len(error.complaints) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more else "") + " ('hactl config check' lists all)"


def differences(before: Files, after: Files) -> list[dict[str, Any]]:
    """Each file that differs, with its unified diff."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is not None and new is not None and old[1] == new[1]:
            if config_archive.may_be_executed(old[0]) == config_archive.may_be_executed(new[0]):
                continue
            words = ["not executable", "executable"]
            lines = [f"{words[config_archive.may_be_executed(mode)]}" for mode in (old[0], new[0])]
            found.append({"file": name, "kind": "mode", "lines": [f"-{lines[0]}", f"+{lines[1]}"]})
            continue
        kind = "added" if old is None else "removed" if new is None else "changed"
        found.append({"file": name, "kind": kind, "lines": unified(name, old[1] if old else b"", new[1] if new else b"")})
    return found


def unified(name: str, before: bytes, after: bytes) -> list[str]:
    """As `diff -u`, without the newlines."""
    try:
        old, new = before.decode().splitlines(), after.decode().splitlines()
    except UnicodeDecodeError:
        return [f"{name} is no text; {len(before)} bytes before, {len(after)} after"]
    lines = list(difflib.unified_diff(old, new, f"a/{name}", f"b/{name}", lineterm=""))
    return lines if len(lines) <= LINES_MAX else [*lines[:LINES_MAX], f"… and {len(lines) - LINES_MAX} lines more"]
