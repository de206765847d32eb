"""Two replicas in one process, over real loopback connections, on fake engines: what the session tests drive."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import trio

from rfs import rules
from rfs.arbiter import Arbiter, Register
from rfs.commands import Commands
from rfs.control_link import ControlLink
from rfs.engine import Engine
from rfs.mount import Layers
from rfs.record_file import RecordFile
from rfs.replica import Replica
from rfs.security import Security
from rfs.serve import load_record, start_role
from rfs.session import Session
from rfs.settings import Address, OnPeerLoss, Settings
from rfs.status import build_status
from rfs.supervisor import Supervisor, listen_on
from tests.unit.fake_engine import FakeEngine


class FakeLayers:
    """Directories that are only said to be mounted."""

    def __init__(self, path: Path) -> None:
        self.paths = [str(path)]
        self.trees: list[int] = []
        self.mounted = False
        self.empty = True
        self.unguarded = False

    def empty_directories(self) -> int:
        return (1 << len(self.paths)) - 1 if self.empty else 0

    def is_empty(self) -> bool:
        return self.empty

    async def mount(self, serving: Engine) -> None:
        self.mounted = True

    async def unmount(self, serving: Engine, *, abort: bool) -> None:
        self.mounted = False


class Node:
    """One rfsmount, without its process."""

    def __init__(self, nursery: trio.Nursery, path: Path, settings: Settings) -> None:
        self.settings = settings
        self.path = path
        self.layers = FakeLayers(path / "data")
        self.register: Register | None = None  # the witness
        self._outer = nursery
        self._scope = trio.CancelScope()

    async def start(self, boot: str = "boot-1") -> None:
        """As rfs.serve does it."""
        self.path.mkdir(exist_ok=True)
        self.layers.mounted = False
        self._ended = trio.Event()
        await self._outer.start(self._run, boot)

    async def _run(self, boot: str, *, task_status: trio.TaskStatus[None]) -> None:
        identity = rules.Identity(boot=boot, incarnation=id(self) + int(trio.current_time() * 1000) + 1, backing="8:1")
        file = RecordFile(str(self.path))
        record = load_record(self.settings, file, identity)
        self._scope = trio.CancelScope()
        with self._scope:
            make = cast(Callable[[Settings], Engine], lambda _: FakeEngine())
            self.replica = Replica(self.settings, cast(Layers, self.layers), file, record, identity, make, Security(None))
            self.commands = Commands(self.replica)
            supervisor = Supervisor(self.replica, self.settings.listen, self.settings.peer, self._enter, self.replica.security)
            self.supervisor = supervisor
            arbiter = Arbiter(self.replica, self.register) if self.register is not None else None
            self.replica.arbiter = arbiter
            async with await listen_on(self.settings.listen) as listener, trio.open_nursery() as nursery:
                await nursery.start(self.replica.run)
                await start_role(self.replica, record)
                if arbiter is not None:
                    nursery.start_soon(arbiter.run)
                nursery.start_soon(supervisor.run, listener)
                task_status.started()
                await self.replica.finished.wait()
                nursery.cancel_scope.cancel()
        file.close()
        self._ended.set()

    async def _enter(self, link: ControlLink) -> None:
        await Session(self.replica, self.supervisor, link).run()

    async def kill(self) -> None:
        """Without a word."""
        self._scope.cancel()
        await self._ended.wait()

    async def restart(self, boot: str = "boot-1", **changes: object) -> None:
        self.settings = replace(self.settings, **changes)  # type: ignore[arg-type]
        await self.start(boot)

    @property
    def engine(self) -> FakeEngine:
        return cast(FakeEngine, self.replica.engine)

    @property
    def status(self) -> dict[str, object]:
        return cast(dict[str, object], build_status(self.replica))

    async def until(self, **wanted: object) -> None:
        """Wait until status says so."""
        with trio.move_on_after(10):
            while any(self.status[name] != value for name, value in wanted.items()):
                await self.replica.changed()
            return
        status = self.status
        raise AssertionError(f"{self.settings.node}: wanted {wanted}, is {[(name, status[name]) for name in (*wanted, 'code', 'reason')]}")


Pair = Callable[..., Awaitable[tuple[Node, Node]]]


def make_pair(nursery: trio.Nursery, path: Path, ports: tuple[int, int], **changes: object) -> tuple[Node, Node]:
    """Two nodes that are not started yet: a the first primary, b a new secondary."""
    here, there = (Address("127.0.0.1", port) for port in ports)
    common = Settings(
        directories=(str(path),), state_directory=str(path / "a"), wish_primary=True, listen=here, peer=there,
        cluster="plant7", module="pg", node="a", on_peer_loss=OnPeerLoss.FREEZE, insecure=True,
    )  # fmt: skip
    a = replace(common, **changes)  # type: ignore[arg-type]
    b = replace(a, state_directory=str(path / "b"), wish_primary=False, listen=there, peer=here, node="b")
    return Node(nursery, path / "a", a), Node(nursery, path / "b", b)
