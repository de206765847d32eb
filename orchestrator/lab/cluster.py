"""A cluster in the lab: configuration on both nodes, hactld running, and what tests and the demo ask of it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.api.client import ApiClient, ApiFailure
from orchestrator.lab.errors import LabError
from orchestrator.lab.lab import Lab, kill_group
from orchestrator.lab.plan import ADDRESSES
from orchestrator.lab.rfs_status import RfsStatus
from orchestrator.lab.trees import differences, mirrored
from rfs.control.protocol import SOCKET_NAME

SERVERS = ("node1", "node2")
VIP = "10.77.0.100"
POLL_S = 0.05
HEARTBEAT = 'interval = "500ms", timeout = "3s"'

CLUSTER_TOML = """\
name = "{name}"
policy = "{policy}"
heartbeat = {{ {heartbeat} }}
[[node]]
name = "node1"
addresses = {{ lan = "{lan1}", repl = "{repl1}" }}
[[node]]
name = "node2"
addresses = {{ lan = "{lan2}", repl = "{repl2}" }}
[witness]
{third}
"""
PING = f'ping = ["{ADDRESSES["witness"]["lan"]}"]'


def ledger_module(directory: str, port: int, max_restarts: str) -> str:
    """The TOML of a module whose service is the ledger (ledger.py), in `directory`/lines."""
    return f"""\
mode = "mirror"
nodes = ["node1", "node2"]
replication_network = "repl"
boot = "auto"
max_restarts = "{max_restarts}"
port = 5600
[[replicated]]
directory = "{directory}"
[[vip]]
address = "{VIP}/24"
[[service]]
name = "ledger"
start = ["{sys.executable}", "-P", "-m", "orchestrator.lab.ledger", "serve", "{directory}/lines", "{port}"]
stop_signal = "TERM"
stop_timeout = "5s"
"""


class Trouble(Exception):
    """Something that should have happened did not; the text says what was found instead."""


def _fingerprint(text: str) -> str:
    return text.partition("fingerprint: ")[2].split()[0] if "fingerprint: " in text else ""


class LabCluster:
    """Both servers of a lab as one cluster with one module."""

    def __init__(
        self, lab: Lab, module: str, module_toml: str | Sequence[str], directories: Iterable[str], *, name: str = "lab",
        policy: str = "availability", third: str = PING, heartbeat: str = HEARTBEAT,
    ) -> None:  # fmt: skip
        self.lab, self.module, self.module_toml = lab, module, module_toml  # its text, or the words of `hactl module add`; empty: later
        self.directories = list(directories)
        self.name, self.policy, self.heartbeat = name, policy, heartbeat
        self.third = third  # what stands under [witness]
        self._rfs = {node: RfsStatus() for node in SERVERS}

    # ---- setting up -----------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        """The configuration on node1 and the directories on both; then two commands make them a cluster."""
        text = CLUSTER_TOML.format(
            name=self.name, lan1=ADDRESSES["node1"]["lan"], repl1=ADDRESSES["node1"]["repl"],
            lan2=ADDRESSES["node2"]["lan"], repl2=ADDRESSES["node2"]["repl"], policy=self.policy, third=self.third,
            heartbeat=self.heartbeat,
        )  # fmt: skip
        for node in SERVERS:
            self.lab.run(node, ["mkdir", "-p", *self.directories])
        self.lab.run("node1", ["mkdir", "-p", "/etc/lockstep/modules"])
        self.put("node1", "/etc/lockstep/cluster.toml", text)
        if isinstance(self.module_toml, str) and self.module_toml:
            self.put("node1", f"/etc/lockstep/modules/{self.module}.toml", self.module_toml)
        elif self.module_toml:
            self.lab.run("node1", ["hactl", "module", "add", *self.module_toml])
        self.pair()

    def pair(self, *more: str) -> float:
        """`hactl cluster init` on node1, `hactl cluster join` (with `more`) on node2; how long it took."""
        return self.introduce("node1", "node2", more=more)

    def introduce(self, inviter: str, joiner: str, invite: Iterable[str] = (), more: Iterable[str] = ()) -> float:
        """Pair two nodes: `hactl cluster init` (with `invite`) on the one, `hactl cluster join` (with `more`) on the other."""
        began = time.monotonic()
        read_end, write_end = os.pipe()
        with open(read_end) as shown:
            with open(write_end, "wb") as said:
                waiting = self.lab.spawn(inviter, ["hactl", "cluster", "init", *invite], log=said)
            try:
                invitation = next((line.split()[-1] for line in shown if "hactl cluster join" in line), "")
                joined = self.lab.run(joiner, ["hactl", "cluster", "join", "-", *more], input=invitation + "\n")
                rest = shown.read()
                if waiting.wait(10) != 0 or not _fingerprint(rest) or _fingerprint(rest) != _fingerprint(joined.stdout):
                    raise Trouble(f"pairing failed: {inviter} says {rest!r}, {joiner} says {joined.stdout!r}")
            finally:
                kill_group(waiting)
        return time.monotonic() - began

    def put(self, node: str, path: str, text: str) -> None:
        """Write a file on a node."""
        self.lab.run(node, ["sh", "-c", 'cat > "$0"', path], input=text)

    def apply(self, node: str = "node1") -> None:
        """`hactl config apply` of this node's files; both run with them when it returns."""
        self.lab.run(node, ["hactl", "config", "apply", "--yes"], timeout_s=60)
        wanted = self.api(node).config()["applied"]["number"]

        def taken_up() -> bool:
            try:
                found = [self.api(each).config() for each in SERVERS]
            except (ApiFailure, OSError):  # in the middle of it
                return False
            return all(each["applied"]["number"] == wanted and each["running"] for each in found)

        self.until(taken_up, f"not both nodes go on with generation {wanted}", 40)

    def begin_anew(self, node: str) -> None:
        """Its hactld, with the files as its first configuration, as on a node that was installed with them."""
        self.kill_daemon(node)
        self.lab.run(node, ["rm", "-rf", "/var/lib/lockstep/config"])
        self.start_daemon(node)

    def start_daemon(self, node: str, env: Mapping[str, str] | None = None) -> None:
        """hactld, as a service manager would start it."""
        home = Path(f"/var/log/lockstep/{node}.hactld.out")
        self.lab.spawn(node, ["sh", "-c", f"exec setsid hactld --foreground >>{home} 2>&1"], env=env)
        self.until(lambda: self.status(node) is not None, f"hactld of {node} does not answer", 15)

    def kill_daemon(self, node: str) -> None:
        """kill -9 of hactld alone."""
        self.lab.run(node, ["pkill", "-9", "-x", "hactld"])

    def boot(self, node: str) -> None:
        """Power on, and hactld with it."""
        self.lab.boot(node)
        self.lab.run(node, ["hactld", "--guard"], check=False)  # as lockstep-guard.service does
        self.start_daemon(node)

    def bring_up(self, first: str = "node1") -> None:
        """Both daemons, the first copy from `first`, and redundancy."""
        for node in SERVERS:
            self.start_daemon(node)
        self.command(first, "prim")
        self.command(self.other(first), "start")
        self.wait_redundant(first)

    def first_start(self, source: str = "node1") -> None:
        """The same as a person does it: both daemons, and one word which node has the data."""
        for node in SERVERS:
            self.start_daemon(node)
        self.lab.run("node1", ["hactl", "start", self.module, "--data-from", source, "--wait"], timeout_s=120)
        self.wait_redundant(source)

    # ---- asking -----------------------------------------------------------------------------------------------------------

    @staticmethod
    def other(node: str) -> str:
        """The other server."""
        return "node2" if node == "node1" else "node1"

    def api(self, node: str, timeout_s: float = 10.0) -> ApiClient:
        """hactld's interface on a node, over its own socket."""
        return ApiClient(self.lab.path(node, "/run/lockstep/hactld.sock"), timeout_s)

    def status(self, node: str) -> dict[str, Any] | None:
        """hactl.status/1 as this node sees it; None when its hactld does not answer."""
        try:
            return self.api(node).status()
        except (ApiFailure, LabError, OSError):
            return None

    def row(self, node: str, seen_from: str | None = None) -> dict[str, Any]:
        """The module's row of a node: state, readiness, data …"""
        status = self.status(seen_from or node) or {"modules": []}
        for module in status["modules"]:
            if module["name"] == self.module:
                for row in module["nodes"]:
                    if row["node"] == node:
                        return dict(row)
        return {"state": None, "readiness": None, "data": None, "reason": "no answer"}

    def command(self, node: str, verb: str, **options: bool) -> dict[str, Any]:
        """A command of hactl's to this node's hactld."""
        return self.api(node, 60.0).command(self.module, verb, options)

    def rfs_status(self, node: str) -> dict[str, Any]:
        """rfsmount.status/1."""
        found = self._rfs[node].ask(self.lab.path(node, f"/var/lib/lockstep/modules/{self.module}/{SOCKET_NAME}"))
        if found is None:
            raise LabError(f"rfsmount of {self.module} does not answer on {node}.")
        return found

    def events(self, node: str, after: int = 0) -> list[dict[str, Any]]:
        """hactld's history on a node."""
        return list(self.api(node).events(after)["events"])

    # ---- waiting ------------------------------------------------------------------------------------------------------------

    def until(self, test: Callable[[], bool], sentence: str, timeout_s: float) -> float:
        """Poll until true; how long it took. Trouble with what is so now when it does not come. Who does not answer yet may do so later."""
        began = time.monotonic()

        def holds() -> bool:
            try:
                return test()
            except LabError:
                return False

        while not holds():
            if time.monotonic() - began > timeout_s:
                raise Trouble(f"{sentence} (after {timeout_s:.0f} s)\n{self.describe()}")
            time.sleep(POLL_S)
        return time.monotonic() - began

    def wait_state(self, node: str, state: str, readiness: str | None = "Ready", timeout_s: float = 30) -> float:
        """Until the node says so itself."""

        def reached() -> bool:
            row = self.row(node)
            return row["state"] == state and readiness in (None, row["readiness"])

        return self.until(reached, f"{node} is not {state} {readiness or ''}", timeout_s)

    def wait_redundant(self, primary: str, timeout_s: float = 60) -> float:
        """PRIM Ready here and SECOND Ready there."""
        began = time.monotonic()
        self.wait_state(self.other(primary), "SECOND", timeout_s=timeout_s)
        self.wait_state(primary, "PRIM", timeout_s=timeout_s)
        return time.monotonic() - began

    def describe(self) -> str:
        """For a failure's text."""
        lines = []
        for node in SERVERS:
            try:
                row = self.row(node)
                lines.append(
                    f"  {node}: {row['state']} {row['readiness']} data={row.get('data')} link={row.get('link')} reason={row.get('reason')}"
                )
                tail = self.lab.run(
                    node, ["sh", "-c", f"tail -n 20 /var/log/lockstep/hactld.log /var/log/lockstep/{self.module}.rfs.log"], check=False
                )
                lines += [f"    {line}" for line in tail.stdout.splitlines()]
            except Exception as failure:  # noqa: BLE001 - a description of trouble must not be more trouble
                lines.append(f"  {node}: {failure}")
        return "\n".join(lines)

    # ---- comparing ----------------------------------------------------------------------------------------------------------

    def manifests(self, node: str) -> dict[str, Any]:
        """All replicated trees of a node."""
        out = self.lab.run(node, [sys.executable, "-P", "-m", "orchestrator.lab.trees", *self.directories], timeout_s=120)
        return dict(json.loads(out.stdout))

    def compare_trees(self, attempts: int = 10) -> None:
        """Both nodes' trees at one seq: Trouble if they differ, or if the application never pauses."""
        found: list[str] = ["the application never paused"]
        for _ in range(attempts):
            seq = self._settled_seq()
            one, other = self.manifests("node1"), self.manifests("node2")
            if seq is None or seq != self._settled_seq():
                continue
            exclude = {each["path"]: each["exclude"] for each in self.rfs_status("node1")["directories"]}
            found = []
            for directory in self.directories:
                ours, theirs = (mirrored(tree[directory], exclude.get(directory, [])) for tree in (one, other))
                found += differences(ours, theirs)
            break
        if found:
            raise Trouble("the trees differ: " + "; ".join(found))

    def _settled_seq(self) -> int | None:
        """The seq when everything sent is applied on both nodes."""
        one, other = self.rfs_status("node1"), self.rfs_status("node2")
        return int(one["seq"]) if one["seq"] == other["seq"] == one["acked_seq"] == other["acked_seq"] else None
