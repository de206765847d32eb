"""How a service ends that does not end: a real process that hangs in a real FUSE mount, beyond the reach of SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from orchestrator.effects import EffectFailed, ending, mount_abort, processes, service_command
from orchestrator.effects.processes import Process
from orchestrator.effects.service_command import CommandMembers, Group

FILE_SYSTEM = Path(__file__).with_name("hanging_file_system.py")
pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and /dev/fuse")


class Stuck:
    """A mount whose server is stopped in the middle of a question, and the process that asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server = subprocess.Popen([sys.executable, str(FILE_SYSTEM), str(directory)], stdout=subprocess.PIPE)
        assert self.server.stdout is not None
        assert self.server.stdout.readline() == b"mounted\n"
        self.asker = subprocess.Popen(["/bin/sh", "-c", f"[ -e '{directory}/hang' ]"], start_new_session=True)
        process = processes.find(self.asker.pid)
        assert process is not None
        self.process = process

    def close(self) -> None:
        mount_abort.abort([str(self.directory)])
        self.server.kill()
        self.server.wait()
        self.asker.kill()
        self.asker.wait()
        assert self.server.stdout is not None
        self.server.stdout.close()
        subprocess.run(["umount", "--lazy", str(self.directory)], check=False, capture_output=True)


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Stuck]:
    directory = tmp_path / "mount point"  # the kernel writes the space as \040
    directory.mkdir()
    made = Stuck(directory)
    yield made
    made.close()


def is_stopped(pid: int) -> bool:
    stat = processes.read_stat(pid)
    return stat is not None and stat.state == "T"


async def hangs(stuck: Stuck) -> None:
    with trio.fail_after(10):
        while not is_stopped(stuck.server.pid):
            await trio.sleep(0.01)


def members_of(process: Process) -> CommandMembers:
    return CommandMembers(process, Group("", None), [], 0)


async def test_what_hangs_in_the_mount_ends_with_it(stuck: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "KILL_PATIENCE_S", 0.5)
    await hangs(stuck)
    log: list[str] = []
    given_up: list[str] = []

    async def abandon(reason: str) -> None:
        assert stuck.process.alive(), "SIGKILL does not end it: else there is nothing to give up"
        given_up.append(reason)
        assert len(mount_abort.abort([str(stuck.directory)])) == 1

    await ending.end("app", members_of(stuck.process), abandon, lambda kind, text: log.append(f"{kind}: {text}"))
    assert not stuck.process.alive()
    assert given_up == ["processes of service app hang in it"]
    assert any("survived SIGKILL" in line and f"{stuck.process.pid} (sh) in state D" in line for line in log), log
    assert log[-1].startswith("service-kill: app: nothing is left after") and log[-1].endswith("now that the mount is given up")


async def test_what_survives_everything_is_named(stuck: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "KILL_PATIENCE_S", 0.2)
    await hangs(stuck)

    async def abandon(reason: str) -> None:
        """As if the wait were for a disk, which nobody can abort."""

    with pytest.raises(EffectFailed) as failure:
        await ending.end("app", members_of(stuck.process), abandon, lambda kind, text: None)
    assert f"{stuck.process.pid} (sh) in state D, waiting in " in str(failure.value)
    assert "look at it, or restart the node" in str(failure.value)


async def test_by_force_of_umount_where_there_is_no_switch(stuck: Stuck, tmp_path: Path) -> None:
    await hangs(stuck)
    assert len(mount_abort.abort([str(stuck.directory)], control=tmp_path / "no-fusectl")) == 1
    processes.send_signal(stuck.process, signal.SIGKILL)
    assert await processes.all_dead([stuck.process], 5.0)


async def test_nobody_is_frozen_and_left(tmp_path: Path) -> None:
    """A newer order may come at any time: who was stopped for the kill is killed all the same."""
    child = await trio.to_thread.run_sync(lambda: subprocess.Popen(["sleep", "1000"], start_new_session=True))
    process = processes.find(child.pid)
    assert process is not None

    async def abandon(reason: str) -> None:
        raise AssertionError(reason)

    with trio.CancelScope() as scope:
        members = members_of(process)
        original = members.freeze

        async def freeze() -> bool:
            scope.cancel()
            return await original()

        members.freeze = freeze  # type: ignore[method-assign]
        await ending.end("app", members, abandon, lambda kind, text: None)
    assert await processes.all_dead([process], 5.0)
    await trio.to_thread.run_sync(child.wait)


def test_which_connection_is_ours() -> None:
    mountinfo = (
        "40 23 0:51 / /srv/a\\040b rw - fuse.lockstep lockstep rw\n"
        "41 23 0:51 /x /srv/c rw - fuse.lockstep lockstep rw\n"
        "42 23 0:52 / /srv/d rw - fuse.sshfs other rw\n"
        "43 23 0:53 / /srv/e rw - fuse.lockstep lockstep rw\n"
        "44 23 8:1 / /srv/f rw - ext4 /dev/sda1 rw\n"
    )
    assert mount_abort.connections(mountinfo, ["/srv/a b", "/srv/c", "/srv/d", "/srv/f"]) == {51: "/srv/a b"}


THREADS = """
import os, sys, threading
threading.Thread(target=os.stat, args=(sys.argv[1] + "/hang",), daemon=True).start()
threading.Event().wait()
"""


async def test_a_process_lives_as_long_as_its_last_thread(stuck: Stuck) -> None:
    """The first thread is a zombie at once, and one hangs: to take that for dead would start the next service beside it."""
    child = await trio.to_thread.run_sync(lambda: subprocess.Popen([sys.executable, "-c", THREADS, str(stuck.directory)]))
    await hangs(stuck)
    process = processes.find(child.pid)
    assert process is not None
    with trio.fail_after(10):
        while "in state D" not in processes.describe(process):
            await trio.sleep(0.01)
    processes.send_signal(process, signal.SIGKILL)
    with trio.fail_after(10):
        while (stat := processes.read_stat(child.pid)) is not None and stat.state != "Z":
            await trio.sleep(0.01)
    assert process.alive() and processes.find(child.pid) == process
    assert not await processes.all_dead([process], 0.1)
    mount_abort.abort([str(stuck.directory)])
    assert await processes.all_dead([process], 5.0)
    await trio.to_thread.run_sync(child.wait)

async def test_processes_that_hang_whoever_reads_of_them_leave_few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked again and again who is left: trio's own threads, on which the service address depends, stay free."""
    free, began = threading.Event(), list[str]()

    def hang(mark: str, found: list[Process]) -> None:
        began.append(mark)
        free.wait(30)

    monkeypatch.setattr(service_command, "SCAN_PATIENCE_S", 0.05)
    monkeypatch.setattr(processes, "marked", hang)
    members = CommandMembers(None, Group("of this start", None), [], 0)
    try:
        for _ in range(8):
            assert await members.alive() == []
        assert len(began) == service_command.SCANS_MAX
        assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    finally:
        free.set()
