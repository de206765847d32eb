"""The oracle that looks on while a scenario runs: never the service address on two nodes, never two nodes that acknowledge by themselves.

Several times a second it reads each node's routing table (the host can, through /proc) and asks its rfsmount. It sees both not in one
instant, so what looks like two is looked at again in the order first, second, first: only what the first still has counts.

Exactly what is promised (docs/guarantees.md), and what is therefore excused, for the address alone: a node that stands still, is cut off
from the clients' network or has no hactld cannot give it up at once; the kernel takes it off 15 s after its last renewal. One that is
frozen acknowledges nothing, and keeps it until it knows that another one serves. A node that is back (thawed, healed, fenced, its hactld
started) has AFTERWARDS_S to learn that. Nothing is excused of those who acknowledge: a node whose mode is `paired` needs the other one for
each answer, so at most one may be in a mode that does not, whatever stood still.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from orchestrator.lab.cluster import SERVERS, VIP
from orchestrator.lab.rfs_status import RfsStatus
from orchestrator.lab.scenarios.pair import STATE, LedgerPair
from orchestrator.lab.state import NodeState, StateFile
from rfs.control.protocol import SOCKET_NAME

PERIOD_S = 0.08
AFTERWARDS_S = 4.0
PATIENCE_S = 0.2
BY_ITSELF = ("unused", "alone", "resyncing")  # modes in which a primary acknowledges without the other node's word


class Watch:
    """A thread that looks on until the block ends; what it saw stands in `seen`."""

    def __init__(self, pair: LedgerPair, *, two_may_serve: bool = False) -> None:
        self.pair, self.two_may_serve = pair, two_may_serve
        self.seen: list[str] = []
        self.looks = 0
        self.both_hold_since: float | None = None
        self.longest_both_s = 0.0  # also what is excused
        self._file = StateFile(pair.lab.name)
        self._rfs = {node: RfsStatus() for node in SERVERS}
        self._doubtful_until = dict.fromkeys(SERVERS, 0.0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="oracle", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for asked in self._rfs.values():
            asked.close()

    def _run(self) -> None:
        while not self._over.wait(PERIOD_S):
            self.look()

    def look(self) -> None:
        """Once."""
        state = self._file.load()
        if state is None:
            return
        self.looks += 1
        now = time.monotonic()
        nodes = {node: state.nodes[node] for node in SERVERS if node in state.nodes and state.nodes[node].running()}
        awake = {node: found for node, found in nodes.items() if not found.frozen}
        modes = {node: self._mode(node, found) for node, found in awake.items()}
        for node in SERVERS:
            if node not in awake or "lan" in awake[node].cuts or node in self.pair.headless or modes[node] == "frozen":
                self._doubtful_until[node] = now + AFTERWARDS_S
        self._look_at_addresses(awake, now)
        if all(modes.get(node) in BY_ITSELF for node in SERVERS) and not self.two_may_serve:
            self._look_again_at_modes(awake)

    def _look_at_addresses(self, awake: dict[str, NodeState], now: float) -> None:
        holders = [node for node, found in awake.items() if holds_address(found)]
        if len(holders) < 2 or not holds_address(awake[holders[0]]):
            self.both_hold_since = None
            return
        self.both_hold_since = self.both_hold_since or now
        self.longest_both_s = max(self.longest_both_s, now - self.both_hold_since)
        if not self.two_may_serve and all(now > self._doubtful_until[node] for node in SERVERS):
            self._tell(f"the service address is on {' and '.join(holders)}")

    def _look_again_at_modes(self, awake: dict[str, NodeState]) -> None:
        first, second = SERVERS
        if all(self._mode(node, awake[node]) in BY_ITSELF for node in (second, first)):
            self._tell("both nodes acknowledge writes, each by itself")

    def _mode(self, node: str, found: NodeState) -> str:
        status = self._rfs[node].ask(Path(f"/proc/{found.init_pid}/root{STATE}/{SOCKET_NAME}"), PATIENCE_S)
        return str(status["mode"]) if status is not None and status.get("role") == "primary" else ""

    def _tell(self, what: str) -> None:
        if not any(told.endswith(what) for told in self.seen):
            self.seen.append(f"at {time.monotonic():.2f}: {what}")


def holds_address(found: NodeState) -> bool:
    """By the node's own routing table: an address whose lifetime is over, or whose interface is down, is not in it."""
    try:
        return f"|-- {VIP}\n" in Path(f"/proc/{found.init_pid}/net/fib_trie").read_text()
    except OSError:
        return False
