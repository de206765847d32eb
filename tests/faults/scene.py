"""A mirrored pair with an application on it, and an operator who stands alone: what the fault tests have in common.

Everything waits for a condition with a deadline; a wait that ends is a hang, and fails the test with what both nodes say.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.lab.trees import differences, manifest
from rfs.control.blocking import BlockingClient
from rfs.errors import SaidNo
from tests.faults import application
from tests.faults.cold import ColdFiles
from tests.faults.variant import ROOT, with_steps
from tests.posix.node import Node

DEADLINE_S = 25.0
COLD = "cold"
ALLOWED_ENDS = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.EROFS, errno.ENODEV}
Status = dict[str, Any]


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"within {timeout_s:g} s not: {what}"
        time.sleep(0.01)


class FaultNode(Node):
    """A node whose rfsmount has named steps."""

    def __init__(self, path: Path, name: str, listen: str, peer: str, *more: str) -> None:
        super().__init__(path, name, listen, peer)
        # Checkpoints as often as may be: any step may meet one.
        self.options += ["--on-peer-loss", "freeze", "--link-timeout", "1", "--checkpoint", "1", *more]
        self.steps = path / name / "steps"
        self.prefix: list[str] = []  # what a start is run by

    def run(self, verb: str, *more: str) -> subprocess.CompletedProcess[str]:
        command = [*self.prefix, sys.executable, "-m", "rfs.cli", verb, *more, "--state", str(self.state)]
        environment = os.environ | {"LOCKSTEP_STEPS": str(self.steps)}
        # Into files: a tracer that stays with what was started holds a pipe open.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(command, stdout=out, stderr=err, timeout=60, check=False, cwd=with_steps(), env=environment)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, out.read(), err.read())

    def arm(self, name: str, visit: int = 1) -> None:
        """The process dies at this visit of the step."""
        fresh = self.steps.with_suffix(".new")
        fresh.write_text(f"{name}:kill:{visit}")
        fresh.rename(self.steps)

    def disarm(self) -> None:
        self.steps.unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        try:
            return int((self.state / "rfsmount.pid").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def is_alive(self) -> bool:
        """A zombie, or the number of somebody else, is not us."""
        pid = self.pid
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return pid != 0 and state not in "ZX" and b"rfs.cli" in command and os.fsencode(self.state) in command

    def kill(self) -> None:
        """It, and not whoever has got its number since."""
        if not self.is_alive():
            raise ProcessLookupError
        super().kill()
        wait_until(lambda: not self.is_alive(), f"{self.name} dies")

    def call(self, method: str, timeout_s: float = 60.0, **params: object) -> Status:
        with BlockingClient(str(self.state), timeout_s) as client:
            return client.call(method, params)

    def shown(self) -> Status:
        """Its status; nothing when it does not answer (any more)."""
        try:
            return self.call("status", 10.0)
        except SaidNo:
            return {}

    def promote(self, *, granted: bool = True) -> None:
        """`rfsmount promote`, where the administrator's word is the grant. He tries again when he is told to."""

        def promoted() -> bool:
            try:
                self.call("promote", granted=granted, force=False, reason="promoted by the administrator")
            except SaidNo as refusal:
                if "try again" in refusal.sentence and self.is_alive():
                    return False
                raise
            return True

        wait_until(promoted, f"{self.name} is promoted")

    def start(self, *more: str) -> None:
        """As whatever its record says; does not wait for its peer."""
        result = self.run("mount", *map(str, self.directories), "--role", "secondary", *self.options, "--timeout", "0.1", *more)
        assert self.is_alive() or self.steps.exists(), f"{self.name} does not start: {result.stderr}"


class Application:
    """application.py on a node's first directory; its log lies elsewhere."""

    def __init__(self, log: Path, below: str) -> None:
        self.log, self.below = log, below
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, node: Node, count: int | None = None) -> None:
        """Until it is stopped; or so many operations, whatever becomes of each."""
        first = 0
        if self.log.exists():
            done, doubtful, _ = application.noted(str(self.log))
            first = (max([*done, *doubtful]) // application.GROUP + 1) * application.GROUP
        place = node.directories[0] / self.below
        if first == 0:  # later it may be a hanging or a dead mount: that is the application's part to find out
            place.mkdir()
        command = [sys.executable, "-S", "-E", str(ROOT / "tests/faults/application.py"), str(place), str(self.log), str(first)]
        command += [] if count is None else [str(count)]
        self.process = subprocess.Popen(command)

    def has_ended(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def acknowledged(self) -> int:
        return self.log.read_text().count("done") if self.log.exists() else 0

    def wait_more(self, more: int = 20) -> None:
        before = self.acknowledged()
        wait_until(lambda: self.acknowledged() >= before + more or self.has_ended(), f"the application goes on after {before} operations")
        assert not self.has_ended(), f"the application ended: {application.noted(str(self.log))[2][-1:]}"

    def stop(self) -> None:
        """Its last operation returns, or its end is an error that it may see."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        wait_until(self.has_ended, "the application's last operation returns")
        self.process = None
        for error in self.errors():
            assert int(error.split()[0]) in ALLOWED_ENDS, f"the application saw error {error}"

    def errors(self) -> list[str]:
        return application.noted(str(self.log))[2] if self.log.exists() else []

    def abandon(self) -> None:
        """After a failure."""
        if self.process is not None and not self.has_ended():
            self.process.kill()


class Scene:
    """Two nodes, whoever is primary, and the application on it."""

    def __init__(self, path: Path, a: FaultNode, b: FaultNode) -> None:
        self.path, self.a, self.b = path, a, b
        self.number = 0
        self.application = Application(path / "log", "app")
        self.cold: ColdFiles | None = None

    # ---- who is what ------------------------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[FaultNode, FaultNode]:
        return self.a, self.b

    def other(self, node: FaultNode) -> FaultNode:
        return self.b if node is self.a else self.a

    def primary(self) -> FaultNode | None:
        """Of a finished pair."""
        for node in self.nodes:
            status = node.shown()
            if status.get("role") == "primary" and status["link"] == "paired" and status["data"] == "UPTODATE":
                peer = self.other(node).shown()
                if peer.get("role") == "secondary" and peer["link"] == "paired" and peer["data"] == "UPTODATE":
                    return node
        return None

    def wait_paired(self) -> FaultNode:
        deadline = time.monotonic() + DEADLINE_S
        while (primary := self.primary()) is None:
            assert time.monotonic() < deadline, f"no pair comes about: {self.told()}"
            time.sleep(0.02)
            self.revive()  # one that was leaving may end only now
        return primary

    def told(self) -> str:
        """What both nodes say, for the report of a failure."""
        names = ("role", "link", "data", "code", "reason", "mode", "generation", "needs_grant", "promotable_reason", "waiting_ops")
        return "; ".join(
            f"{node.name}: { ({name: status[name] for name in names} if (status := node.shown()) else 'dead') }" for node in self.nodes
        )

    def build(self) -> None:
        """A new pair on empty directories."""
        for node, role in zip(self.nodes, ("primary", "secondary"), strict=True):
            result = node.mount(role)
            assert result.returncode == 0, result.stderr

    def rebuild(self) -> None:
        """When no copy is whole any more there is only the backup."""
        for node in self.nodes:
            node.clean()
            for leftover in [*node.state.iterdir(), *(entry for directory in node.directories for entry in directory.iterdir())]:
                if leftover.name != "keys":
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        self.build()

    # ---- one case ---------------------------------------------------------------------------------------------------------------------

    def said(self, node: FaultNode, words: str) -> int:
        """How often it stands in the node's log."""
        return (node.state / "rfsmount.log").read_text().count(words)

    def begin(self) -> FaultNode:
        """Paired, a fresh application busy on the primary, which is returned."""
        for node in self.nodes:
            node.disarm()
        self.revive()
        primary = self.wait_paired()
        wait_until(lambda: not any(node.shown().get("everything_marked", True) for node in self.nodes), "a checkpoint ends a full compare")
        for directory in primary.directories:
            for leftover in directory.iterdir():
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        self.number += 1
        self.cold = None
        self.application = Application(self.path / f"log{self.number}", f"app{self.number}")
        self.application.start(primary)
        self.application.wait_more()
        return primary

    def revive(self) -> None:
        """The operator starts what is dead, and adds what a node has not heard of yet."""
        for node in self.nodes:
            if not node.is_alive():
                node.disarm()
                node.start()
            if len(node.shown().get("directories", node.directories)) < len(node.directories):
                try:
                    node.call("add_directories", directories=[str(directory) for directory in node.directories])
                except SaidNo:
                    pass  # not now: he looks again

    def make_directory(self, primary: FaultNode) -> None:
        """One more on both, with something in it on the primary. It stays."""
        number = len(primary.directories)
        for node in self.nodes:
            node.directories.append(node.state.parent / f"more{number}")
            node.directories[-1].mkdir()
        (primary.directories[-1] / "tree").mkdir()
        for file in range(10):
            (primary.directories[-1] / "tree" / f"file{file}").write_bytes(os.urandom(30_000))

    def go_on_alone(self, survivor: FaultNode) -> bool:
        """The operator's word for a node whose peer is dead; False when the rules do not let it."""
        # One that has not noticed yet is a primary that serves already: it would say yes, and freeze a moment later.
        noticed = "the survivor notices that its peer is gone"
        wait_until(lambda: survivor.shown().get("link") not in ("paired", "resyncing"), noticed)
        try:
            survivor.promote()
        except SaidNo:
            return False
        return True

    def settle(self, *, takeover: bool) -> str:
        """The end of every case, whatever has died: a pair again, all that was acknowledged there, the trees equal. Returns what the
        session that brought the pair together has compared."""
        alive = [node for node in self.nodes if node.is_alive()]
        for node in alive:
            node.disarm()
        if takeover and len(alive) == 1 and self.go_on_alone(alive[0]):
            self.application.stop()
            self.application.start(alive[0])
            self.application.wait_more()
        self.revive()
        primary = self.wait_paired()
        scope = str(primary.shown()["last_scope"])
        self.application.stop()
        self.check(primary)
        self.application.start(primary)
        self.application.wait_more()
        self.application.stop()
        self.check(primary)
        return scope

    def check(self, primary: FaultNode) -> None:
        lost = application.wrong(str(primary.directories[0] / self.application.below), str(self.application.log))
        lost += self.cold.wrong(primary.directories[0] / COLD) if self.cold is not None else []
        assert not lost, lost
        for here, there in zip(primary.directories, self.other(primary).directories, strict=True):
            differ = differences(manifest(str(here)), manifest(str(there)))
            assert not differ, differ[:10]
