"""The lab as a whole: what `hactl lab` and the tests call. Every method is one command, under the lab's lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from orchestrator.lab import disk, mount_points, wire
from orchestrator.lab.cgroups import NodeCgroup
from orchestrator.lab.errors import LabError
from orchestrator.lab.init import DISK, KEPT_DIRECTORIES, VOLATILE_DIRECTORIES
from orchestrator.lab.plan import ADDRESSES, LANS, NODES, members
from orchestrator.lab.power import find_inits, power_off, power_on
from orchestrator.lab.state import LabState, NodeState, StateFile
from orchestrator.lab.switch import Direction, Switch
from orchestrator.lab.tools import namespaces, processes_inside, tool

DEFAULT_NAME = "lab"
DEFAULT_DISK_SIZE_BYTES = 4 << 30
DISK_SIZE_BYTES_MIN = 64 << 20
RUN_TIMEOUT_S = 60.0
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEPT_ENVIRONMENT = ("LANG", "LC_ALL", "TERM", "NO_COLOR", "COLUMNS", "ASAN_OPTIONS", "UBSAN_OPTIONS")


def prefixed(name: str) -> str:
    """The name of a lab that tests build: $LOCKSTEP_LAB_PREFIX keeps two checkouts apart that test on one machine."""
    return os.environ.get("LOCKSTEP_LAB_PREFIX", "") + name


class Lab:
    """A lab by its name. Labs of different names do not meet; the object itself holds nothing that a new one lacks."""

    def __init__(
        self, name: str = DEFAULT_NAME, *, directory: Path | None = None, disk_size_bytes: int = DEFAULT_DISK_SIZE_BYTES, nodes: int = 2
    ) -> None:
        if not name.replace("-", "").isalnum():
            raise LabError(f'"{name}" cannot be a lab\'s name: use letters, digits and dashes.')
        if disk_size_bytes < DISK_SIZE_BYTES_MIN:
            raise LabError(f"A disk of {disk_size_bytes} bytes is too small for a file system with a journal: give at least 64MiB.")
        self.name = name
        self.directory = (directory or Path("/var/tmp")).absolute() / f"lockstep-{name}"  # ours alone: `down` empties it
        self.disk_size_bytes = disk_size_bytes
        self.servers = nodes
        self._file = StateFile(name)
        self._switch = Switch(name)

    def __enter__(self) -> Lab:
        self.up()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.down()

    # ------------------------------------------------------------------------------------------------ the whole lab

    def up(self) -> None:
        """Build everything anew and boot all nodes; what an earlier lab of this name left is removed first."""
        require_root()
        with self._file.locked():
            self._clean()
            state = LabState(directory=str(self.directory), disk_size_bytes=self.disk_size_bytes)
            self._file.save(state)
            try:
                mount_points.make([str(DISK), *KEPT_DIRECTORIES.values(), *VOLATILE_DIRECTORIES])
                self.directory.mkdir(parents=True, exist_ok=True)
                self._switch.build()
                for node in members(self.servers):
                    disk.create(state.image(node), self.disk_size_bytes)
                    state.nodes[node] = NodeState()
                    self._power_on(state, node)
            except BaseException:
                self._remove()
                raise

    def down(self) -> None:
        """Remove every trace: processes, mounts, loop devices, networks, images and state. May be repeated."""
        require_root()
        with self._file.locked():
            self._remove()

    def is_up(self) -> bool:
        """Whether `up` was and `down` was not."""
        return self._file.load() is not None

    def status(self) -> dict[str, Any]:
        """Everything worth showing, as plain data."""
        state = self._file.require()
        nodes = []
        for name, node in state.nodes.items():
            power = "off" if not node.running() else "frozen" if node.frozen else "on"
            used_bytes = state.image(name).stat().st_blocks * 512 if state.image(name).exists() else 0
            shown = {"node": name, "power": power, "addresses": dict(ADDRESSES[name]), "cuts": dict(node.cuts)}
            nodes.append(shown | {"boot_id": node.boot_id, "init_pid": node.init_pid, "disk_used_bytes": used_bytes})
        return {"schema": "hactl.lab/1", "name": self.name, "directory": state.directory, "nodes": nodes}

    # ------------------------------------------------------------------------------------------------ power

    def kill(self, node: str) -> None:
        """Pull the node's power: silence on its cables, then every process at once. Its disk stays, with its page cache."""
        with self._file.locked():
            state, which = self._running(node)
            assert which.init_pid is not None
            self._switch.silence(node)
            power_off(self.name, node, which.init_pid)
            self._switch.unplug(node)
            which.power_off()  # the kernel may go on writing the disk's pages back; boot and restore wait for that
            self._file.save(state)

    def boot(self, node: str) -> None:
        """Power on: a fresh boot id, empty /run and /tmp, the disk as it was left."""
        with self._file.locked():
            state, which = self._known(node)
            if which.running():
                raise LabError(f"{node} is running already; `hactl lab kill {node}` pulls its power.")
            self._power_on(state, node)

    def freeze(self, node: str) -> None:
        """Stop every process of the node where it stands, as SIGSTOP would; its clock goes on."""
        with self._file.locked():
            state, which = self._running(node)
            which.frozen = True
            self._file.save(state)
            assert which.init_pid is not None
            NodeCgroup(self.name, node).freeze(processes_inside(namespaces(which.init_pid)))

    def thaw(self, node: str) -> None:
        """Let a frozen node go on."""
        with self._file.locked():
            state, which = self._running(node)
            assert which.init_pid is not None
            NodeCgroup(self.name, node).thaw(processes_inside(namespaces(which.init_pid)))
            which.frozen = False
            self._file.save(state)

    # ------------------------------------------------------------------------------------------------ cables

    def cut(self, node: str, lan: str, one_way: Direction | None = None) -> None:
        """Lose every frame between node and network; `one_way="in"` those towards the node, `"out"` those it sends."""
        with self._file.locked():
            state, which = self._known(node)
            if lan not in ADDRESSES[node]:
                raise LabError(f"{node} is not on network {lan}; it is on {' and '.join(ADDRESSES[node])}.")
            which.cuts[lan] = one_way or "both"
            self._file.save(state)
            if which.running():
                self._switch.cut(node, lan, which.cuts[lan])

    def heal(self, node: str | None = None) -> None:
        """Mend every cable, or those of one node."""
        with self._file.locked():
            state = self._file.require()
            for name in state.nodes if node is None else (node,):
                state, which = self._known(name, state)
                which.cuts.clear()
                for lan in ADDRESSES[name] if which.running() else ():
                    self._mend(name, lan)
            self._file.save(state)

    def worsen(self, node: str, lan: str, flaws: wire.Flaws) -> None:
        """A bad cable instead of a cut one, until it is healed."""
        with self._file.locked():
            _, which = self._running(node)
            assert which.init_pid is not None
            wire.lay(self.name, node, lan, which.init_pid, flaws)

    def _mend(self, node: str, lan: str) -> None:
        wire.remove(self.name, node, lan)
        self._switch.heal(node, lan)

    # ------------------------------------------------------------------------------------------------ inside a node

    def command(self, node: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> list[str]:
        """What to execute on the host to run a command on the node, with its exit code and stdio as they are."""
        _, which = self._running(node)
        if which.frozen:
            raise LabError(f"{node} is frozen; `hactl lab thaw {node}` lets it go on.")
        enter = ["nsenter", f"--target={which.init_pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--wd=/"]
        environment = {"PATH": f"{Path(sys.prefix) / 'bin'}:{SYSTEM_PATH}", "HOME": "/root", "USER": "root", "LOGNAME": "root"}
        environment |= {name: value for name in KEPT_ENVIRONMENT if (value := os.environ.get(name)) is not None}
        environment |= {name: value for name, value in os.environ.items() if name.startswith(("LOCKSTEP_", "HACTL_"))} | dict(env or {})
        clean = ["env", "-i", *(f"{name}={value}" for name, value in environment.items())]
        return NodeCgroup(self.name, node).joining([*enter, *clean, *command])

    def run(
        self,
        node: str,
        command: Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - the name subprocess.run gives it
        timeout_s: float = RUN_TIMEOUT_S,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the node to its end; on a timeout all it started in its session is killed."""
        words = self.command(node, command, env)
        stdin = subprocess.PIPE if input is not None else subprocess.DEVNULL
        with subprocess.Popen(
            words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            try:
                stdout, stderr = process.communicate(input, timeout=timeout_s)
            except BaseException:
                kill_group(process)
                raise
        if check and process.returncode != 0:
            said = (stderr.strip() or stdout.strip()).splitlines()[-5:]
            raise LabError(f"on {node}: {' '.join(command)} ended with {process.returncode}: " + " / ".join(said))
        return subprocess.CompletedProcess(list(command), process.returncode, stdout, stderr)

    def spawn(
        self, node: str, command: Sequence[str], *, log: Path | IO[bytes] | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command on the node that goes on by itself, in a session of its own; its output goes to `log` on the host.

        The process returned is the nsenter that waits for the command: `wait` and `returncode` are the command's,
        `kill` is not; use `kill_group`, or kill it from within the node.
        """
        words = self.command(node, command, env)
        if log is None:
            return _spawn(words, subprocess.DEVNULL)
        if isinstance(log, Path):
            with log.open("ab") as opened:
                return _spawn(words, opened)
        return _spawn(words, log)

    def path(self, node: str, path: str) -> Path:
        """A node's file as the host reaches it, while the node is running."""
        _, which = self._running(node)
        return Path(f"/proc/{which.init_pid}/root{path}")

    def address(self, node: str, lan: str = "lan") -> str:
        """The node's address on a network."""
        return ADDRESSES[node][lan]

    # ------------------------------------------------------------------------------------------------ disks

    def sync_copy(self, node: str) -> Path:
        """Sync the node's disk and copy it as it then is: what `restore` brings back after a power loss.

        Take it as the last thing before the writes that are to be lost. Whatever the node syncs later is lost as well,
        which a real disk would not do: between the copy and `kill` nothing may be promised durable that the test counts.
        """
        with self._file.locked():
            state, which = self._running(node)
            assert which.init_pid is not None
            image = state.image(node)
            copy = image.with_name(f"{node}.synced.img")
            disk.copy_frozen(which.init_pid, image, copy)
            return copy

    def restore(self, node: str, copy: Path) -> None:
        """Put the copy in place of the disk of a node that is down: un-synced data is really lost. The copy stays."""
        with self._file.locked():
            state, which = self._known(node)
            if which.running():
                raise LabError(f"{node} is running; its disk can be put back only after `hactl lab kill {node}`.")
            image = state.image(node)
            disk.wait_released(image)
            draft = image.with_suffix(".draft")
            tool("cp", "--reflink=auto", "--sparse=always", str(copy), str(draft))
            draft.replace(image)

    def replace_disk(self, node: str) -> None:
        """A new, empty disk for a node that is down: a new machine in the place of the old one."""
        with self._file.locked():
            state, which = self._known(node)
            if which.running():
                raise LabError(f"{node} is running; its disk can be replaced only after `hactl lab kill {node}`.")
            disk.wait_released(state.image(node))
            disk.create(state.image(node), state.disk_size_bytes)

    # ------------------------------------------------------------------------------------------------ helpers

    def _known(self, node: str, state: LabState | None = None) -> tuple[LabState, NodeState]:
        state = state or self._file.require()
        if node not in state.nodes:
            raise LabError(f"There is no node {node} in the lab; it has {', '.join(state.nodes)}.")
        return state, state.nodes[node]

    def _running(self, node: str) -> tuple[LabState, NodeState]:
        state, which = self._known(node)
        if not which.running():
            raise LabError(f"{node} is powered off; `hactl lab boot {node}` starts it.")
        return state, which

    def _power_on(self, state: LabState, node: str) -> None:
        cuts = state.nodes[node].cuts
        booted = power_on(self.name, node, state.image(node), self._file.home / f"{node}.log")
        assert booted.init_pid is not None
        booted.cuts = cuts
        state.nodes[node] = booted
        self._file.save(state)
        self._switch.unplug(node)
        self._switch.plug(node, booted.init_pid, cuts)

    def _remove(self) -> None:
        self._clean()
        self._file.remove()
        mount_points.release(self.name)

    def _clean(self) -> None:
        """Remove what this lab, or one of its name that crashed, has left; needs no state but uses it."""
        state = self._file.load()
        for init_pid in find_inits(self.name):
            node = next((name for name in NODES if self._is_init_of(init_pid, name)), NODES[0])
            power_off(self.name, node, init_pid)
        for node in NODES:
            cgroup = NodeCgroup(self.name, node)
            cgroup.kill()
            cgroup.remove()
        wire.remove(self.name)
        self._switch.remove()
        directory = Path(state.directory) if state is not None else self.directory
        disk.detach_all(directory)
        self._remove_images(directory)

    def _is_init_of(self, pid: int, node: str) -> bool:
        return pid in find_inits(self.name, node)

    def _remove_images(self, directory: Path) -> None:
        for node in NODES:
            for name in (f"{node}.img", f"{node}.synced.img", f"{node}.draft"):
                (directory / name).unlink(missing_ok=True)
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()


def require_root() -> None:
    """Namespaces, loop devices and bridges are root's."""
    if os.geteuid() != 0:
        raise LabError("The lab needs root: run it with sudo.")


def kill_group(process: subprocess.Popen[Any]) -> None:
    """End a command started by `spawn` or `run` and whatever stayed in its process group."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def _spawn(words: list[str], output: int | IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


assert set(LANS) >= {lan for addresses in ADDRESSES.values() for lan in addresses}
