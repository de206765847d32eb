"""What the lab has to remember between two commands: a small JSON file below /run, gone with the machine's own boot."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from orchestrator.lab.errors import LabError
from orchestrator.lab.switch import Direction
from orchestrator.lab.tools import start_ticks

STATE_ROOT = Path("/run/lockstep-lab")


@dataclass(slots=True)
class NodeState:
    """A node, running or not: its init is known by id and start time, so a reused id deceives nobody."""

    init_pid: int | None = None
    init_ticks: int | None = None
    boot_id: str | None = None
    frozen: bool = False
    cuts: dict[str, Direction] = field(default_factory=dict)

    def running(self) -> bool:
        """Whether its init lives."""
        return self.init_pid is not None and start_ticks(self.init_pid) == self.init_ticks

    def power_off(self) -> None:
        """Forget what died; cuts stay, a cable does not mend because a machine went down."""
        self.init_pid = self.init_ticks = self.boot_id = None
        self.frozen = False


@dataclass(slots=True)
class LabState:
    """The lab as it was left by the last command."""

    directory: str
    disk_size_bytes: int
    nodes: dict[str, NodeState] = field(default_factory=dict)

    def image(self, node: str) -> Path:
        """The node's disk."""
        return Path(self.directory) / f"{node}.img"


class StateFile:
    """Load and save under one lock per lab."""

    def __init__(self, lab: str) -> None:
        self.lab = lab
        self.home = STATE_ROOT / lab
        self.path = self.home / "state.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One command at a time; the lock file lies beside the lab's directory because `down` removes that."""
        STATE_ROOT.mkdir(parents=True, exist_ok=True)
        lock_path = STATE_ROOT / f"{self.lab}.lock"
        while True:
            with lock_path.open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                # `down` unlinks the file: a lock on a name that is gone locks nobody out.
                if not lock_path.exists() or os.stat(lock_path).st_ino != os.fstat(lock.fileno()).st_ino:
                    continue
                yield
                return

    def load(self) -> LabState | None:
        """None when the lab is down, or when what a crash left cannot be read (`up` and `down` clean up either way)."""
        try:
            raw = json.loads(self.path.read_text())
            nodes = {name: NodeState(**node) for name, node in raw.pop("nodes").items()}
            return LabState(**raw, nodes=nodes)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            return None

    def require(self) -> LabState:
        """The state of a lab that is up."""
        state = self.load()
        if state is None:
            option = "" if self.lab == "lab" else f" --name {self.lab}"
            raise LabError(f"The lab is not up; `hactl lab up{option}` builds it.")
        return state

    def save(self, state: LabState) -> None:
        """Replace the file whole."""
        self.home.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(state), indent=1))
        draft.replace(self.path)

    def remove(self) -> None:
        """Forget the lab."""
        shutil.rmtree(self.home, ignore_errors=True)
        (STATE_ROOT / f"{self.lab}.lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another lab's state is in it
            STATE_ROOT.rmdir()
