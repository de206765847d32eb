"""The doctor's desk of a node: facts for whoever asks, the time of its clock, and its part of a snapshot, in bounded pieces.

    GET /v1/doctor?what=facts                        hactl.facts/1: what the probes found, and the gist of status and history
    GET /v1/doctor?what=clock                        {"node", "wall_s"}, at once
    GET /v1/doctor?what=snapshot                     {"token"}: the collection has begun
    GET /v1/doctor?what=snapshot&token=T&offset=N    {"pending": true}, or {"bytes", "offset", "data" (base64)}; 0 bytes left: forgotten

`?node=NAME` there instead of here. What takes time is done by a child; a file system that hangs holds neither hactld nor one of its threads
for longer than the deadline. One collection runs at a time: who asks meanwhile gets the same.
"""

from __future__ import annotations

import base64
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from orchestrator.api.server import ApiError, number_from
from orchestrator.doctor import gather
from orchestrator.doctor.history import history_facts
from orchestrator.snapshot import part
from rfs import exit_codes
from rfs.errors import SaidNo

PIECE_BYTES: Final = 384 << 10
PATIENCE_S: Final = 5.0
KEPT_S: Final = 300.0


@dataclass(slots=True)
class Collection:
    """One node's part of a snapshot while it is made, and until it is fetched."""

    token: str
    began: float
    ready: threading.Event = field(default_factory=threading.Event)
    data: bytes = b""
    trouble: str = ""


class Doctor:
    """Answers for this node."""

    def __init__(
        self,
        node: str,
        config_dir: Path,
        root: Path,
        insecure: bool,
        status: Callable[[], dict[str, Any]],
        events: Callable[[], Sequence[Mapping[str, Any]]],
    ) -> None:
        self.node, self.config_dir, self.root, self.insecure, self.status, self.events = node, config_dir, root, insecure, status, events
        self._one = trio.Lock()
        self._collection: Collection | None = None

    async def answer(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """One question; ApiError for one that there is not."""
        match str(parameters.get("what") or "facts"):
            case "facts":
                return await self.facts()
            case "clock":
                return {"node": self.node, "wall_s": time.time()}
            case "snapshot":
                token = str(parameters.get("token") or "")
                return await self._piece(token, _whole(parameters.get("offset"))) if token else {"token": self._begin().token}
        raise ApiError("a doctor is asked for facts, clock or snapshot", exit_codes.USAGE)

    async def facts(self) -> dict[str, Any]:
        """What the probes found, and what only hactld knows."""
        status, history = self.status(), history_facts(self.events(), time.time())

        def look() -> dict[str, Any]:
            return gather.gather(self.node, self.config_dir, self.root, insecure=self.insecure)

        try:
            async with self._one:
                found = await trio.to_thread.run_sync(look, abandon_on_cancel=True)
        except SaidNo as trouble:
            raise ApiError(trouble.sentence, trouble.exit_code) from trouble
        except OSError as trouble:
            raise ApiError(f"no probe can be started on {self.node}: {trouble.strerror or trouble}", exit_codes.FAILED) from trouble
        return {**found, "status": brief(status), "history": history}

    # ---- snapshot -----------------------------------------------------------------------------------------------------------

    def _begin(self) -> Collection:
        current = self._collection
        if current is not None and not current.ready.is_set():
            return current
        self._collection = current = Collection(secrets.token_hex(16), trio.current_time())
        threading.Thread(target=self._collect, args=(current,), daemon=True, name="snapshot").start()
        return current

    def _collect(self, collection: Collection) -> None:
        """In a thread, which reads from a child against a deadline."""
        try:
            collection.data = part.collect(self.node, self.config_dir, self.root, insecure=self.insecure)
        except SaidNo as trouble:
            collection.trouble = trouble.sentence
        except OSError as trouble:
            collection.trouble = trouble.strerror or str(trouble)
        finally:
            collection.ready.set()

    async def _piece(self, token: str, offset: int) -> dict[str, Any]:
        collection = self._collection
        if collection is None or collection.token != token or trio.current_time() - collection.began > KEPT_S:
            self._collection = None if collection is None or collection.ready.is_set() else collection
            raise ApiError("there is no such snapshot any more; ask for a new one", exit_codes.USAGE, 404)
        if not await trio.to_thread.run_sync(collection.ready.wait, PATIENCE_S, abandon_on_cancel=True):
            return {"pending": True}
        if collection.trouble:
            self._collection = None
            raise ApiError(collection.trouble, exit_codes.FAILED)
        piece = collection.data[max(0, offset) : max(0, offset) + PIECE_BYTES]
        if offset + len(piece) >= len(collection.data):
            self._collection = None
        return {"bytes": len(collection.data), "offset": offset, "data": base64.b64encode(piece).decode()}


def brief(status: Mapping[str, Any]) -> dict[str, Any]:
    """Of `hactl.status/1` what judgements read."""
    return {name: status.get(name) for name in ("verdict", "failover", "warnings", "peers", "refused", "insecure", "partial")}


def _whole(value: object) -> int:
    if (number := number_from(str(value or 0))) is None:
        raise ApiError("'offset' must be a number", exit_codes.USAGE)
    return number
