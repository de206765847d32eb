"""Services with real processes: started, watched, adopted after a restart, stopped politely or not, with all their descendants."""

from __future__ import annotations

import errno
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from orchestrator.config import ModuleConfig, ReplicatedConfig, ServiceConfig
from orchestrator.effects import EffectFailed, cgroups, commands, processes
from orchestrator.effects.service_command import signal_number
from orchestrator.effects.services import Services
from orchestrator.effects.systemd import systemd_runs
from orchestrator.paths import Paths


def module(tmp_path: Path, *services: ServiceConfig) -> ModuleConfig:
    return ModuleConfig(
        name="pg", mode="mirror", nodes=("node1", "node2"), replication_network="repl", default_primary="alone", boot="auto",
        max_restarts=3, max_restarts_period_s=86400.0, replicated=(ReplicatedConfig(str(tmp_path / "data")),), vips=(),
        services=services, port=5600, scripts_dir=tmp_path / "scripts",
    )  # fmt: skip


def service(script: str, **options: object) -> ServiceConfig:
    return ServiceConfig(name="app", start=("/bin/sh", "-c", script), **options)  # type: ignore[arg-type]


def can_have_groups() -> bool:
    place = cgroups.find_place()
    group = cgroups.Cgroup(place / f"test.{os.getpid()}") if place else None
    if group is None or not group.create():
        return False
    group.remove()
    return True


HAVE_GROUPS = can_have_groups()


@pytest.fixture(params=["signals", pytest.param("cgroup", marks=pytest.mark.skipif(not HAVE_GROUPS, reason="no cgroup can be made here"))])
def place(request: pytest.FixtureRequest) -> Iterator[Path | None]:
    """With a cgroup for each service, and as where there are none."""
    found = cgroups.find_place() if request.param == "cgroup" else None
    yield found
    for group in found.glob("pg.*") if found else ():
        cgroups.Cgroup(group).kill()
        cgroups.Cgroup(group).remove()


class Bench:
    """Services over a temporary root, and what they reported."""

    def __init__(self, tmp_path: Path, *services: ServiceConfig, place: Path | None = None) -> None:
        self.tmp_path, self.place = tmp_path, place
        self.paths = Paths(tmp_path)
        self.paths.make()
        self.deaths: list[tuple[str, str]] = []
        self.log: list[str] = []
        self.said: list[str] = []
        self.config = module(tmp_path, *services)
        self.services = self.fresh()

    def fresh(self) -> Services:
        """As a restarted hactld would see them."""

        def died(name: str, why: str) -> None:
            self.deaths.append((name, why))

        async def abandon(reason: str) -> None:
            raise AssertionError("no mount was to be given up")

        def log(kind: str, text: str) -> None:
            self.log.append(kind)
            self.said.append(text)

        return Services(self.config, "node1", self.paths, died, log, abandon=abandon, place=lambda: self.place)

    def process(self) -> processes.Process | None:
        return processes.read_pid_file(self.paths.run / "services" / "pg.app.pid")


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.01)


async def test_start_environment_and_polite_stop(tmp_path: Path, place: Path | None) -> None:
    said = tmp_path / "said"
    variables = "$LOCKSTEP_MODULE $LOCKSTEP_NODE $LOCKSTEP_STATE $A"
    script = f'trap "echo bye >> {said}; exit 0" INT; echo {variables} > {said}; while :; do sleep 0.05; done'
    bench = Bench(tmp_path, service(script, stop_signal="INT", environment={"A": "b"}), place=place)
    async with trio.open_nursery() as nursery:
        await bench.services.start(nursery, "ALONE")
        assert await bench.services.running()
        await until(said.exists)
        await bench.services.stop(kill=False, state="ALONE")
        assert said.read_text() == "pg node1 ALONE b\nbye\n"
        assert bench.process() is None
        assert bench.deaths == []
        nursery.cancel_scope.cancel()


async def test_a_death_is_reported_with_its_cause(tmp_path: Path) -> None:
    bench = Bench(tmp_path, service("exec sleep 1000"))
    async with trio.open_nursery() as nursery:
        await bench.services.start(nursery, "ALONE")
        process = bench.process()
        assert process is not None
        processes.send_signal(process, signal.SIGKILL)
        await until(lambda: bool(bench.deaths))
        assert bench.deaths == [("app", "it ended (SIGKILL)")]
        await bench.services.stop(kill=True, state="ALONE")
        nursery.cancel_scope.cancel()


async def test_only_some_restart_and_the_others_notice_nothing(tmp_path: Path, place: Path | None) -> None:
    """All of one user, and all working in the module's directory: what is another service's is not taken for a stray of this one."""
    (tmp_path / "data").mkdir()
    user, here = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name, tmp_path / "data"
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(directory.stat().st_mode | 0o055)
    names = ("db", "web", "cache")
    script = f"cd {here} && exec sleep 1000"
    services = [ServiceConfig(name=name, start=("/bin/sh", "-c", script), user=user) for name in names]
    bench = Bench(tmp_path, *services, place=place)

    def running() -> dict[str, processes.Process | None]:
        return {name: processes.read_pid_file(bench.paths.run / "services" / f"pg.{name}.pid") for name in names}

    async with trio.open_nursery() as nursery:
        await bench.services.start(nursery, "PRIM")
        before = running()
        await bench.services.restart(("web", "db"), nursery, "PRIM")
        after = running()
        assert after["cache"] == before["cache"] and after["cache"] is not None and after["cache"].alive()
        assert all(after[name] is not None and after[name] != before[name] for name in ("db", "web"))
        assert bench.deaths == [], "what is stopped on purpose has not died"
        stopped = [text for kind, text in zip(bench.log, bench.said, strict=True) if kind == "service-stop" and " ended" in text]
        assert [text.split()[0] for text in stopped] == ["web", "db"], "in reverse order"
        web = after["web"]
        assert web is not None
        processes.send_signal(web, signal.SIGKILL)
        await until(lambda: bool(bench.deaths))
        assert bench.deaths == [("web", "it ended (SIGKILL)")], "it is watched again"
        await bench.services.stop(kill=True, state="PRIM")
        nursery.cancel_scope.cancel()


async def test_a_restarted_hactld_adopts_and_disturbs_nothing(tmp_path: Path, place: Path | None) -> None:
    bench = Bench(tmp_path, service("exec sleep 1000"), place=place)
    async with trio.open_nursery() as nursery:
        await bench.services.start(nursery, "ALONE")
        nursery.cancel_scope.cancel()
    before = bench.process()
    assert before is not None
    again = bench.fresh()
    assert await again.running()
    async with trio.open_nursery() as nursery:
        again.adopt(nursery)
        await again.start(nursery, "ALONE")
        assert bench.process() == before
        processes.send_signal(before, signal.SIGKILL)
        await until(lambda: bool(bench.deaths))
        nursery.cancel_scope.cancel()


async def test_a_start_that_was_interrupted_begins_again(tmp_path: Path, place: Path | None) -> None:
    bench = Bench(tmp_path, service("exec sleep 1000", ready=("/bin/false",)), place=place)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.services.start, nursery, "ALONE")
        await until(lambda: bench.process() is not None)
        nursery.cancel_scope.cancel()
    again = bench.fresh()
    assert await again.running()
    async with trio.open_nursery() as nursery:
        again.adopt(nursery)
        assert bench.deaths == [("pg", "the start was interrupted")]
        await again.stop(kill=True, state="ALONE")
        nursery.cancel_scope.cancel()


async def test_stubborn_services_and_their_children_in_other_sessions_are_killed(tmp_path: Path, place: Path | None) -> None:
    child = tmp_path / "child"
    script = f'trap "" TERM; setsid sh -c "echo \\$\\$ > {child}; exec sleep 1000" & while :; do sleep 0.05; done'
    bench = Bench(tmp_path, service(script, stop_timeout_s=0.2), place=place)
    async with trio.open_nursery() as nursery:
        await bench.services.start(nursery, "ALONE")
        await until(lambda: child.exists() and child.read_text().strip() != "")
        orphan = processes.find(int(child.read_text()))
        assert orphan is not None
        await bench.services.stop(kill=False, state="ALONE")
        assert not orphan.alive()
        nursery.cancel_scope.cancel()


def double_forked(note: Path) -> str:
    """A service that stays, and an orphan of its in a session of its own whose parents are dead."""
    return f"setsid sh -c 'setsid sh -c \"echo \\$\\$ > {note}; exec sleep 1000\" & exit' & wait $!; "


async def orphan_of(note: Path) -> processes.Process:
    await until(lambda: read(note) != "")
    orphan = processes.find(int(read(note)))
    assert orphan is not None
    await until(lambda: (stat := processes.read_stat(orphan.pid)) is not None and stat.parent in reapers())
    return orphan


def read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def noted(bench: Bench) -> list[Path]:
    groups = bench.place.glob("pg.app.*") if bench.place is not None and bench.place.exists() else ()
    return [*(bench.paths.run / "services").iterdir(), *groups]


def reapers() -> set[int]:
    """Who adopts orphans here: init, or a subreaper above us."""
    found, pid = {1}, os.getpid()
    while (stat := processes.read_stat(pid)) is not None and stat.parent > 0:
        found.add(pid := stat.parent)
    return found


@pytest.mark.parametrize("kill", [False, True])
async def test_orphans_in_sessions_of_their_own_do_not_outlive_the_service(tmp_path: Path, place: Path | None, kill: bool) -> None:
    note = tmp_path / "orphan"
    bench = Bench(tmp_path, service(double_forked(note) + "exec sleep 1000"), place=place)
    async with trio.open_nursery() as nursery:
        await bench.services.start(nursery, "ALONE")
        orphan = await orphan_of(note)
        await bench.services.stop(kill=kill, state="ALONE")
        assert not orphan.alive()
        assert noted(bench) == [], "nothing is noted of what is gone, and it has no cgroup"
        nursery.cancel_scope.cancel()


async def test_orphans_of_a_dead_service_are_found_by_a_restarted_hactld(tmp_path: Path, place: Path | None) -> None:
    note = tmp_path / "orphan"
    bench = Bench(tmp_path, service(double_forked(note) + "exec sleep 1000"), place=place)
    async with trio.open_nursery() as nursery:
        await bench.services.start(nursery, "ALONE")
        orphan = await orphan_of(note)
        process = bench.process()
        assert process is not None
        processes.send_signal(process, signal.SIGKILL)
        await until(lambda: bool(bench.deaths))
        assert orphan.alive()
        again = bench.fresh()
        await again.start(nursery, "ALONE")  # a start sweeps before it starts
        assert not orphan.alive()
        assert bench.process() not in (None, process)
        await again.stop(kill=True, state="ALONE")
        nursery.cancel_scope.cancel()


async def test_who_forks_all_the_time_does_not_get_away(tmp_path: Path, place: Path | None) -> None:
    seconds = f"1000.{os.getpid()}"  # in nobody's command line but theirs
    script = f'trap "" TERM; while :; do setsid sleep {seconds} & sleep 0.001; done'
    bench = Bench(tmp_path, service(script, stop_timeout_s=0.2), place=place)
    async with trio.open_nursery() as nursery:
        await bench.services.start(nursery, "ALONE")
        await bench.services.stop(kill=False, state="ALONE")
        assert any("freezing and killing" in line for line in bench.said)
        assert not [stat for stat in processes.everybody() if seconds.encode() in command_line(stat.pid)]
        nursery.cancel_scope.cancel()


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


async def test_a_frozen_service_is_ended_too(tmp_path: Path, place: Path | None) -> None:
    bench = Bench(tmp_path, service("exec sleep 1000", stop_timeout_s=0.2), place=place)
    async with trio.open_nursery() as nursery:
        await bench.services.start(nursery, "ALONE")
        process = bench.process()
        assert process is not None
        processes.send_signal(process, signal.SIGSTOP)
        await bench.services.stop(kill=False, state="ALONE")
        assert not process.alive() and any("did not end after 0.2 s" in line for line in bench.said)
        nursery.cancel_scope.cancel()


async def test_started_in_the_order_of_the_file_and_stopped_in_reverse(tmp_path: Path) -> None:
    def named(name: str) -> ServiceConfig:
        script = f'echo +{name} >> {tmp_path}/order; trap "echo -{name} >> {tmp_path}/order; exit" TERM; touch {tmp_path}/{name}; '
        return ServiceConfig(
            name=name, start=("/bin/sh", "-c", script + "while :; do sleep 0.02; done"), ready=("/usr/bin/test", "-e", f"{tmp_path}/{name}")
        )

    bench = Bench(tmp_path, named("disk"), named("db"), named("web"))
    async with trio.open_nursery() as nursery:
        await bench.services.start(nursery, "ALONE")
        await bench.services.stop(kill=False, state="ALONE")
        assert (tmp_path / "order").read_text().split() == ["+disk", "+db", "+web", "-web", "-db", "-disk"]
        nursery.cancel_scope.cancel()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
async def test_stopping_one_service_spares_another_of_the_same_user(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for directory in (tmp_path, *tmp_path.parents[:-2]):
        directory.chmod(0o755)
    script = f'cd {data}; trap "echo bye; exit" TERM; while :; do sleep 0.02; done'
    first, second = (ServiceConfig(name=name, user="nobody", start=("/bin/sh", "-c", script)) for name in ("first", "second"))
    bench = Bench(tmp_path, first, second)
    async with trio.open_nursery() as nursery:
        await bench.services.start(nursery, "ALONE")
        await bench.services.stop(kill=False, state="ALONE")
        assert bench.paths.module_log("pg").read_text() == "bye\nbye\n", "each was asked, none was killed for the other one"
        nursery.cancel_scope.cancel()


async def test_a_service_that_cannot_work_says_so(tmp_path: Path) -> None:
    for start, words in ((("/no/such/program",), "cannot be started"), (("/bin/sh", "-c", "exit 3"), "exit code 3")):
        bench = Bench(tmp_path, ServiceConfig(name="app", start=start))
        async with trio.open_nursery() as nursery:
            with pytest.raises(EffectFailed, match=words):
                await bench.services.start(nursery, "ALONE")
            nursery.cancel_scope.cancel()


async def test_ready_is_waited_for(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    bench = Bench(tmp_path, service(f"sleep 0.3; touch {flag}; exec sleep 1000", ready=("/usr/bin/test", "-e", str(flag))))
    async with trio.open_nursery() as nursery:
        await bench.services.start(nursery, "ALONE")
        assert flag.exists()
        await bench.services.stop(kill=True, state="ALONE")
        nursery.cancel_scope.cancel()


async def test_never_ready_is_a_failure(tmp_path: Path) -> None:
    bench = Bench(tmp_path, service("exec sleep 1000", ready=("/bin/false",), start_timeout_s=0.5))
    async with trio.open_nursery() as nursery:
        with pytest.raises(EffectFailed, match="not ready"):
            await bench.services.start(nursery, "ALONE")
        await bench.services.stop(kill=True, state="ALONE")
        assert bench.process() is None
        nursery.cancel_scope.cancel()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
async def test_user(tmp_path: Path) -> None:
    code = await commands.run(["/bin/sh", "-c", "id -un; id -gn; echo $HOME"], commands.identity_of("nobody"), {}, tmp_path / "log", 5.0)
    assert code == 0
    assert (tmp_path / "log").read_text().split() == ["nobody", "nogroup", "/nonexistent"]
    with pytest.raises(EffectFailed, match="no user"):
        commands.identity_of("no-such-user")


async def test_a_command_that_hangs_is_killed(tmp_path: Path) -> None:
    with pytest.raises(EffectFailed, match="not finished"):
        await commands.run(["/bin/sleep", "1000"], commands.identity_of(None), {}, tmp_path / "log", 0.2)


@pytest.mark.skipif(systemd_runs(), reason="systemd runs here")
async def test_a_unit_needs_systemd(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ServiceConfig(name="app", unit="app.service"))
    async with trio.open_nursery() as nursery:
        with pytest.raises(EffectFailed, match="systemd does not run"):
            await bench.services.start(nursery, "ALONE")
        nursery.cancel_scope.cancel()


def test_a_reused_pid_is_not_our_process(tmp_path: Path) -> None:
    mine = processes.find(os.getpid())
    assert mine is not None
    other = processes.Process(mine.pid, mine.start_ticks + 1)
    processes.write_pid_file(tmp_path / "pid", other)
    assert processes.read_pid_file(tmp_path / "pid") is None


def test_signal_names() -> None:
    assert signal_number("INT") == signal_number("SIGINT") == signal.SIGINT


def test_a_process_may_call_itself_anything() -> None:
    name = b"\xe9\xff) S 1 ("
    naming = "ctypes.CDLL(None).prctl(15, sys.stdin.buffer.read(), 0, 0, 0)"
    code = f"import ctypes, sys, time; {naming}; print('named', flush=True); time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(name)
        child.stdin.close()
        assert child.stdout.readline() == b"named\n"
        process = processes.find(child.pid)
        assert process is not None and process.alive() and process in processes.family(process)
        child.kill()


async def test_a_pid_that_is_no_process_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    process = processes.find(os.getpid())
    assert process is not None
    for number in (errno.ESRCH, errno.EINVAL, errno.ENOENT):
        monkeypatch.setattr(os, "pidfd_open", lambda pid, number=number: (_ for _ in ()).throw(OSError(number, "gone")))
        with trio.fail_after(1):
            await processes.wait_dead(process)
        processes.send_signal(process, signal.SIGKILL)
