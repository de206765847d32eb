"""The local sockets: no moment in which others could connect, nothing at the path is followed or lost, the kernel says who asks."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator.api.server import ApiServer, Request
from rfs.control import protocol, server
from rfs.control.client import ControlLost, open_client
from rfs.errors import SaidNo

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="asks as somebody else")
# Somebody who is nobody: what he gets by connecting, and by reading.
STRANGER = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX) as asking:
    try:
        asking.connect(sys.argv[1])
        asking.settimeout(5)
        print(len(asking.recv(100)))
    except OSError as failure:
        print(failure.strerror)
"""


async def echo(request: Request) -> dict[str, Any]:
    return {}


def start_hactld(path: Path) -> Callable[..., Awaitable[None]]:
    return ApiServer(path, echo).run


def start_rfsmount(path: Path) -> Callable[..., Awaitable[None]]:
    async def run(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        service = server.Service("pg", {}, dict, trio.sleep_forever)
        await server.serve(str(path.parent), service, task_status=task_status)

    return run


BOTH = {"hactld.sock": start_hactld, protocol.SOCKET_NAME: start_rfsmount}


@pytest.mark.parametrize("name", BOTH)
async def test_nobody_can_connect_before_its_permissions_are_right(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the most careless umask, at every change of the permissions: it refuses, because nobody listens yet."""
    path, tried, real = tmp_path / name, [], os.chmod

    def chmod(target: Any, mode: int, **options: Any) -> None:
        if Path(target) == path:
            for moment in ("before", "after"):
                with socket.socket(socket.AF_UNIX) as asking, pytest.raises(ConnectionRefusedError):
                    asking.connect(str(path))
                tried.append(moment)
                real(target, mode, **options)

    monkeypatch.setattr(os, "chmod", chmod)
    before = os.umask(0)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(BOTH[name](path))
            assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0
            assert tried
            assert os.umask(0) == 0, "the umask is the process's: other threads make files"
            nursery.cancel_scope.cancel()
    finally:
        os.umask(before)


@pytest.mark.parametrize("name", BOTH)
async def test_a_link_at_its_path_is_not_followed(name: str, tmp_path: Path) -> None:
    path, other = tmp_path / name, tmp_path / "other"
    with socket.socket(socket.AF_UNIX) as somebodys:
        somebodys.bind(str(other))
        somebodys.listen(1)
        path.symlink_to(other)
        async with trio.open_nursery() as nursery:
            if name == "hactld.sock":
                await nursery.start(BOTH[name](path))
                assert stat.S_ISSOCK(path.lstat().st_mode)
            else:
                with pytest.raises(SaidNo, match="is in the way, .*move it away"):
                    await server.serve(str(tmp_path), server.Service("pg", {}, dict, trio.sleep_forever))
                assert path.is_symlink()
            nursery.cancel_scope.cancel()
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(other))


async def test_a_file_in_the_way_of_rfsmounts_socket_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / protocol.SOCKET_NAME).write_text("somebody's")
    with pytest.raises(SaidNo, match="is in the way"):
        await server.serve(str(tmp_path), server.Service("pg", {}, dict, trio.sleep_forever))
    assert (tmp_path / protocol.SOCKET_NAME).read_text() == "somebody's"


def let_everybody_through(directory: Path) -> None:
    """Down to it, from pytest's own."""
    for above in (directory, *directory.parents[:3]):
        above.chmod(above.stat().st_mode | 0o011)


@needs_root
async def test_rfsmount_asks_the_kernel_who_it_is(tmp_path: Path) -> None:
    path = tmp_path / protocol.SOCKET_NAME
    let_everybody_through(tmp_path)

    async def ask() -> str:
        done = await trio.run_process([sys.executable, "-c", STRANGER, str(path)], capture_stdout=True)
        return done.stdout.decode().strip()

    async with trio.open_nursery() as nursery:
        await nursery.start(start_rfsmount(path))
        assert await ask() == "Permission denied"
        os.chmod(path, 0o666)  # and if the door stood open
        assert await ask() in ("0", "Connection reset by peer")
        async with open_client(str(tmp_path)):
            pass
        nursery.cancel_scope.cancel()
    with pytest.raises(ControlLost):
        async with open_client(str(tmp_path)):
            pass
