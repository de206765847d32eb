"""Asking a node's doctor: through hactld where it runs, and past it where it does not.

This node is then looked at by ourselves; a peer is called directly, with this node's key: a dead hactld here is what somebody calls for
help about, and must not be the end of it. Only root can look past a hactld; whoever has a role (api/roles.py) is answered by one that runs.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from orchestrator.api.client import ApiClient, ApiFailure
from orchestrator.config import own_name
from orchestrator.doctor import gather
from orchestrator.doctor.finding import Finding
from orchestrator.doctor.judge import judge_all
from orchestrator.doctor.preflight import before_first_copy
from orchestrator.doctor.scene import read_scene
from orchestrator.heartbeat import Network
from orchestrator.paths import Paths
from orchestrator.peer import PeerClient, PeerRefused, PeerUnreachable
from orchestrator.security import key_store
from orchestrator.snapshot import part
from rfs import exit_codes
from rfs.errors import SaidNo

API_TIMEOUT_S: Final = 15.0
CALL_TIMEOUT_S: Final = 12.0
SNAPSHOT_S: Final = 45.0  # for a node's whole part


@dataclass
class Examined:
    """Everybody's facts, and who gave none."""

    facts: list[dict[str, Any]] = field(default_factory=list)
    silent: dict[str, str] = field(default_factory=dict)


def is_root() -> bool:
    """Who may see everything on this machine, and read its key."""
    return os.geteuid() == 0


class Examiner:
    """One run of hactl."""

    def __init__(self, config_dir: Path, socket: Path) -> None:
        self.scene = read_scene(own_name(), config_dir, Paths())
        self.client = ApiClient(socket, API_TIMEOUT_S)
        self._daemon_trouble: str | None = None

    @property
    def node(self) -> str:
        """This one."""
        return self.scene.node

    @property
    def daemon_trouble(self) -> str:
        """Why hactld of this node does not answer; empty: it does. ApiFailure for whom it does not answer."""
        if self._daemon_trouble is None:
            try:
                self.client.doctor("clock")
                self._daemon_trouble = ""
            except ApiFailure as failure:
                if failure.code == exit_codes.NOT_PERMITTED:
                    raise
                if failure.code == exit_codes.DAEMON_NOT_REACHABLE and not is_root():
                    raise SaidNo(f"{failure}; only root can look past it: run hactl with sudo", exit_codes.NOT_PERMITTED) from None
                self._daemon_trouble = str(failure) if failure.code == exit_codes.DAEMON_NOT_REACHABLE else ""
        return self._daemon_trouble

    def nodes(self, wanted: str | None) -> list[str]:
        """Whom to ask: the one that is named, or all: this node and its peers."""
        known = [self.node, *self._peers()]
        if wanted in (None, "all"):
            return known
        if wanted not in known:
            raise SaidNo(f"there is no node {wanted} to be asked from here; there is {', '.join(known)}", exit_codes.USAGE)
        assert wanted is not None
        return [wanted]

    def _peers(self) -> list[str]:
        """As the files have them, or for who may not read them as hactld says."""
        if self.scene.peers or self.daemon_trouble:
            return list(self.scene.peers)
        return [str(peer["node"]) for peer in self.client.status().get("peers", ())]

    # ---- facts ------------------------------------------------------------------------------------------------------------

    def examine(self, nodes: Sequence[str]) -> Examined:
        """All at once; a node that does not answer is noted, and why."""
        found = Examined()
        trouble = self.daemon_trouble  # asked for once, before the threads
        with ThreadPoolExecutor(len(nodes)) as pool:
            answers = list(pool.map(self._facts_or_reason, nodes))
        offsets = {node: offset for node in nodes if node != self.node and (offset := self.clock_offset(node)) is not None}
        for node, answer in zip(nodes, answers, strict=True):
            if isinstance(answer, str):
                found.silent[node] = answer
            else:
                found.facts.append({**answer, "node": node} | ({"clock_offsets": offsets} if node == self.node else {}))
        if trouble:
            found.facts = [facts if facts["node"] != self.node else {**facts, "status": {"error": trouble}} for facts in found.facts]
        return found

    def _facts_or_reason(self, node: str) -> dict[str, Any] | str:
        try:
            if node == self.node and self.daemon_trouble:
                return gather.gather(node, self.scene.config_dir)
            return self.ask(node, "doctor", {"what": "facts"})
        except (ApiFailure, SaidNo, PeerUnreachable, PeerRefused) as failure:
            if node == self.node and is_root():
                try:
                    return gather.gather(node, self.scene.config_dir)
                except SaidNo as trouble:
                    return trouble.sentence
            return failure.sentence if isinstance(failure, SaidNo) else str(failure)

    def before_first_copy(self, module: str, source: str) -> list[Finding]:
        """What stands against copying a module from `source` to its other node, worst first; a node that does not answer is a finding, too.
        SaidNo when the module does not run here. (doctor/preflight.py judges; this asks.)"""
        config = self.scene.modules.get(module)
        if config is None or source not in config.nodes or len(config.nodes) != 2:
            raise SaidNo(f"{module} is no mirror module of {self.node} and {source}", exit_codes.USAGE)
        target = next(node for node in config.nodes if node != source)
        examined = self.examine([source, target])
        found = {str(facts["node"]): facts for facts in examined.facts}
        if examined.silent:
            return [finding for finding in judge_all([], examined.silent) if finding.check == "asked"]
        return before_first_copy(module, found[source], found[target])

    def clock_offset(self, node: str) -> float | None:
        """How many seconds a peer's clock is ahead of ours, as exactly as half a round trip; None: it did not say."""
        try:
            before = time.time()
            answer = self.ask(node, "doctor", {"what": "clock"})
            return float(answer["wall_s"]) - (before + time.time()) / 2
        except (ApiFailure, SaidNo, PeerUnreachable, PeerRefused, KeyError, TypeError, ValueError):
            return None

    # ---- asking -----------------------------------------------------------------------------------------------------------

    def ask(self, node: str, method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """One of the calls that hactld answers: through this node's, or past it."""
        if not self.daemon_trouble:
            return self._ask_daemon(None if node == self.node else node, method, parameters)
        if node == self.node:
            raise SaidNo(self.daemon_trouble, exit_codes.DAEMON_NOT_REACHABLE)
        client = PeerClient(self._cluster, self.node, node, tuple(self._networks(node)), self._keys)
        asked = {**parameters, "who": f"root on {self.node}", "role": "admin"}  # who reads this node's key is root
        return trio.run(client.call, method, asked, CALL_TIMEOUT_S)

    def _ask_daemon(self, node: str | None, method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        match method:
            case "doctor":
                more = {name: str(value) for name, value in parameters.items() if name != "what"}
                return self.client.doctor(str(parameters["what"]), node, **more)
            case "status":
                return self.client.status(node)
            case "why":
                return self.client.why(str(parameters["module"]), node)
            case _:
                assert method == "events", f"nobody asks for {method}"
                return self.client.events(0, node)

    @property
    def _cluster(self) -> str:
        return self.scene.cluster.name if self.scene.cluster is not None else ""

    @property
    def _keys(self) -> Any:
        store = key_store(self.scene.config_dir)
        return store if store.exists() else None

    def _networks(self, node: str) -> list[Network]:
        return [Network(way.network, way.here, way.there) for way in self.scene.ways() if way.peer == node]

    # ---- a node's part of a snapshot ----------------------------------------------------------------------------------------

    def part_of(self, node: str, tell: Callable[[str, float], None]) -> bytes:
        """The whole of it; `tell` hears what is done, and how much of it. SaidNo when there is none within the time."""
        end = time.monotonic() + SNAPSHOT_S
        if node == self.node and is_root():
            tell(f"{node}: collecting", 0.0)
            return part.collect(node, self.scene.config_dir)
        try:
            return self._fetch(node, tell, end)
        except (ApiFailure, PeerUnreachable, PeerRefused) as failure:
            raise SaidNo(str(failure), exit_codes.PEER_NOT_REACHABLE) from failure
        except (KeyError, TypeError, ValueError, OverflowError) as failure:
            raise SaidNo(f"{node} answers with something that is no part of a snapshot", exit_codes.FAILED) from failure

    def _fetch(self, node: str, tell: Callable[[str, float], None], end: float) -> bytes:
        token = str(self.ask(node, "doctor", {"what": "snapshot"})["token"])
        data = bytearray()
        while time.monotonic() < end:
            answer = self.ask(node, "doctor", {"what": "snapshot", "token": token, "offset": len(data)})
            if answer.get("pending"):
                tell(f"{node}: collecting", 0.0)
                continue
            data += base64.b64decode(answer["data"])
            total = int(answer["bytes"])
            if total > part.PART_BYTES_MAX:
                raise SaidNo(f"{node} sends more than a part may have", exit_codes.FAILED)
            tell(f"{node}: fetching", len(data) / max(total, 1))
            if len(data) >= total:
                return bytes(data)
            if not answer["data"]:
                break
        raise SaidNo(f"{node} did not hand over its part within {SNAPSHOT_S:.0f} s", exit_codes.TIMEOUT)
