"""The pair under test: a ledger behind the service address, and a client whose writer never stops.

A scenario finds it redundant (`repair`: node1 PRIM, the writer answered) and leaves it so that it can become redundant again. What must be
true of it then is asked here: every acknowledged line is on both nodes exactly once, both trees are equal, each decision has its reason.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.api.client import ApiFailure
from orchestrator.lab.cluster import SERVERS, VIP, LabCluster, Trouble, ledger_module
from orchestrator.lab.lab import Lab, kill_group

DIRECTORY = "/srv/ledger"
LEDGER = f"{DIRECTORY}/lines"
PORT = 7000
MODULE = "ledger"
OTHER = "other"
STATE = f"/var/lib/lockstep/modules/{MODULE}"
SERVICE = "orchestrator.lab.ledger serve"
WRITER = "orchestrator.lab.ledger write"
DECISIONS = ("takeover", "grant", "fence", "failback")


class LedgerPair(LabCluster):
    """The cluster, its writer, and what must always be true of them."""

    def __init__(
        self, lab: Lab, scratch: Path, *, max_restarts: str = "20 per 24h", service_words: str = "", tables: str = "", beside: str = "",
        **more: str,
    ) -> None:  # fmt: skip
        module = ledger_module(DIRECTORY, PORT, max_restarts)
        if service_words:  # the ledger started another way, or with flags
            module = "\n".join(service_words if line.startswith("start = ") else line for line in module.splitlines()) + "\n"
        super().__init__(lab, MODULE, module + tables, [DIRECTORY], name="tests", **more)
        self.beside = beside  # another module's file
        self.acknowledged = scratch / "acknowledged"
        self.headless: set[str] = set()  # nodes whose hactld was killed or stopped: nobody keeps their address
        self._acks: dict[int, float] = {}
        self._read_bytes = 0

    def pair(self, *more: str) -> float:
        """With the other module, where there is one."""
        if self.beside:
            self.put("node1", f"/etc/lockstep/modules/{OTHER}.toml", self.beside)
        return super().pair(*more)

    # ---- the client -------------------------------------------------------------------------------------------------------

    def start_writer(self) -> None:
        """Until stop_writer."""
        words = [sys.executable, "-P", "-m", *WRITER.split(), VIP, str(PORT), str(self.acknowledged)]
        self.writer = self.lab.spawn("client", words)

    def stop_writer(self) -> None:
        """For good."""
        kill_group(self.writer)

    def pause_writer(self, pause: bool) -> None:
        """So that both trees stand still while they are compared."""
        self.lab.run("client", ["pkill", "-STOP" if pause else "-CONT", "-f", WRITER])

    def acks(self) -> dict[int, float]:
        """Line number -> when the writer was told of it. Reads only what is new."""
        if self.acknowledged.exists():
            with self.acknowledged.open("rb") as file:
                file.seek(self._read_bytes)
                whole = file.read().rpartition(b"\n")[0]
            if whole:
                self._read_bytes += len(whole) + 1
                self._acks |= {int(number): float(when) for number, when in (line.split() for line in whole.splitlines())}
        return self._acks

    def wait_acks(self, more: int = 20, timeout_s: float = 30) -> float:
        """Until the writer was told of so many more; how long it took."""
        before = len(self.acks())
        return self.until(lambda: len(self.acks()) >= before + more, f"the writer got no {more} more answers", timeout_s)

    def longest_silence(self, since: float) -> float:
        """The longest time without an answer since then."""
        times = [since, *sorted(when for when in self.acks().values() if when > since)]
        return max((after - before for before, after in zip(times, times[1:], strict=False)), default=0.0)

    def give_up(self, numbers: set[str]) -> None:
        """Lines that an administrator gave up, with the side of a split brain that had them: they are not asked for again."""
        self._acks = {number: when for number, when in self.acks().items() if str(number) not in numbers}

    # ---- who does what ------------------------------------------------------------------------------------------------------

    def serving(self) -> list[str]:
        """Who says that it serves."""
        return [node for node in SERVERS if self.row(node)["state"] in ("PRIM", "ALONE")]

    def primary(self) -> str:
        """Who serves, as soon as it is one (a node that was cut off learns of its successor when it is healed)."""
        found: list[str] = []

        def one() -> bool:
            found[:] = self.serving()
            return len(found) == 1

        self.until(one, "not exactly one node serves", 40)
        return found[0]

    def wait_together(self, timeout_s: float = 60) -> str:
        """Until one is PRIM Ready and the other one SECOND Ready, whichever; who serves."""
        roles: dict[str, str] = {}

        def together() -> bool:
            rows = {node: self.row(node) for node in SERVERS}
            roles.clear()
            roles.update({str(row["state"]): node for node, row in rows.items() if row["readiness"] == "Ready"})
            return set(roles) == {"PRIM", "SECOND"}

        self.until(together, "the pair is not redundant", timeout_s)
        return roles["PRIM"]

    def swap(self, primary: str) -> None:
        """As soon as hactld agrees: both nodes must have heard of each other's readiness."""

        def accepted() -> bool:
            try:
                self.command(primary, "swap")
            except ApiFailure:
                return False
            return True

        self.until(accepted, "the swap is refused", 15)

    def say(self, node: str, verb: str, **options: bool) -> str:
        """A command that may be refused; what it is answered. A refusal without a sentence is Trouble."""
        try:
            return str(self.command(node, verb, **options).get("message", ""))
        except ApiFailure as failure:
            if not str(failure):
                raise Trouble(f"'{verb}' on {node} was refused without a reason") from None
            return str(failure)

    def has_address(self, node: str) -> bool:
        """Is the service address on one of the node's interfaces?"""
        return f" {VIP}/" in self.lab.run(node, ["ip", "-4", "-o", "addr"]).stdout

    def service_pid(self, node: str) -> str:
        """The ledger's process there; empty: none."""
        return self.lab.run(node, ["pgrep", "-f", SERVICE], check=False).stdout.strip()

    # ---- what scenarios do to it ------------------------------------------------------------------------------------------

    def start_daemon(self, node: str, env: Mapping[str, str] | None = None) -> None:
        """hactld, as a service manager would start it."""
        super().start_daemon(node, env)
        self.headless.discard(node)

    def kill_daemon(self, node: str) -> None:
        """kill -9 of hactld alone."""
        self.headless.add(node)
        super().kill_daemon(node)

    def stop_process(self, node: str, program: str, go_on: bool = False) -> None:
        """SIGSTOP (or SIGCONT) for hactld or rfsmount."""
        pid = f"cat {STATE}/rfsmount.pid" if program == "rfsmount" else "pgrep -x hactld"
        if program == "hactld" and not go_on:
            self.headless.add(node)
        self.lab.run(node, ["sh", "-c", f"kill -{'CONT' if go_on else 'STOP'} $({pid})"])
        if program == "hactld" and go_on:
            self.headless.discard(node)

    def kill_rfsmount(self, node: str) -> None:
        """kill -9."""
        self.lab.run(node, ["sh", "-c", f"kill -9 $(cat {STATE}/rfsmount.pid)"])

    def kill_service(self, node: str) -> None:
        """kill -9."""
        self.lab.run(node, ["pkill", "-9", "-f", SERVICE])

    def power_off(self, *nodes: str) -> None:
        """Nothing on them happens any more."""
        for node in nodes:
            self.lab.kill(node)

    # ---- what must be true --------------------------------------------------------------------------------------------------

    def check_lines(self, nodes: tuple[str, ...] = ()) -> None:
        """Every acknowledged line is in the ledger exactly once: as the application reads it, or on each of `nodes`."""
        for node in nodes or (self.primary(),):
            told = self.acks().copy()
            lines = Counter(int(line) for line in self.lab.run(node, ["cat", LEDGER]).stdout.splitlines())
            lost = [number for number in told if lines[number] != 1]
            if lost:
                raise Trouble(
                    f"{len(lost)} of {len(told)} acknowledged lines are not exactly once on {node}: "
                    f"{lost[:5]} (the first is there {lines[lost[0]]} times)"
                )

    def settle(self) -> None:
        """The end of every scenario: redundant, answered, equal."""
        self.calm()
        self.compare()

    def calm(self) -> None:
        """Redundant, and the writer is answered."""
        self.wait_together()
        self.wait_acks()

    def compare(self) -> None:
        """Every acknowledged line on both nodes exactly once, and both trees equal in everything."""
        self.pause_writer(True)
        try:
            self.compare_trees()
            self.check_lines(SERVERS)
        finally:
            self.pause_writer(False)

    def repair(self) -> None:
        """The beginning of every scenario, whatever the last one left."""
        self.lab.heal()
        for row in self.lab.status()["nodes"]:
            if row["power"] == "off":
                self.lab.boot(row["node"])
            elif row["power"] == "frozen":
                self.lab.thaw(row["node"])
        for node in SERVERS:
            if self.status(node) is None:
                self.start_daemon(node)
            if self.row(node)["state"] == "STOP":
                self.command(node, "start")
        if self.primary() != "node1":
            self.wait_redundant("node2")
            self.swap("node2")
        self.wait_redundant("node1")
        self.until(self.all_heard, "a network is still silent, or a node not trusted yet", 15)
        self.wait_acks()

    def all_heard(self) -> bool:
        """Nothing of an earlier fault is left: every network heard, both nodes ready to judge the next loss."""
        found = [self.status(node) or {} for node in SERVERS]
        networks = [verdict for status in found for verdict in status.get("networks", {"?": "?"}).values()]
        return all(verdict == "ok" for verdict in networks) and all(status["failover"]["state"] == "armed" for status in found)

    # ---- what was decided -----------------------------------------------------------------------------------------------------

    def last_numbers(self) -> dict[str, int]:
        """Where each node's history ends now."""
        return {node: max((event["number"] for event in self.events(node)), default=0) for node in SERVERS}

    def told_since(self, numbers: Mapping[str, int]) -> list[dict[str, Any]]:
        """Both histories from there on."""
        return [{**event, "node": node} for node in SERVERS for event in self.events(node, numbers[node])]

    @staticmethod
    def unexplained(told: list[dict[str, Any]]) -> list[str]:
        """Decisions without a sentence or without what they rest on, and refusals without a sentence."""
        bare = [event for event in told if event["kind"] in DECISIONS and not (event["text"] and event.get("inputs"))]
        mute = [event for event in told if event["kind"] == "command" and event["text"].rstrip().endswith(":")]
        return [f"{event['node']}: {event['kind']} '{event['text']}' has no reason" for event in (*bare, *mute)]
