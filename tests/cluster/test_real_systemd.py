"""The same as with the scripted systemd, with a real one: a user manager on a bus of its own, in namespaces of its own.

Skips where no systemd is installed or none can run like this. Its cgroups lie in one directory of each hierarchy and go with the test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

SYSTEMD = Path("/usr/lib/systemd/systemd")
ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.skipif(not SYSTEMD.exists() or shutil.which("dbus-daemon") is None, reason="needs systemd and dbus"),
    pytest.mark.skipif(not Path("/usr/lib/systemd/user/dbus.socket").exists(), reason="needs dbus-user-session"),
]

SCRIPT = r"""
import os, pathlib, signal, subprocess, sys, trio

def mount(*words):
    subprocess.run(["mount", *words], check=True)

mount("--make-rprivate", "/")
mount("-t", "tmpfs", "tmpfs", "/run/systemd")
home = pathlib.Path("/run/systemd/home")
runtime = pathlib.Path("/run/systemd/runtime")
units = home / ".config/systemd/user"
units.mkdir(parents=True)
runtime.mkdir(mode=0o700)
pathlib.Path("/run/systemd/system").mkdir()  # "this machine was booted with systemd"
service = "[Service]\nExecStart={start}\n{more}\n[Install]\nWantedBy=default.target\n"
STUBBORN = '/bin/sh -c \'trap "" TERM; touch /run/systemd/deaf; while :; do sleep 0.1; done\''
for name, start, more in (
    ("app", "/bin/sleep 1000", ""),
    ("again", "/bin/sleep 1000", "Restart=always\nRestartSec=200ms"),
    ("bad", "/bin/false", "Type=oneshot"),
    ("stubborn", STUBBORN, "TimeoutStopSec=100"),
):
    (units / f"{name}.service").write_text(service.format(start=start, more=more))
(units / "masked.service").symlink_to("/dev/null")
# As hactld.service, with a program in its place that starts one command in a cgroup of its own, and is found by its note when started anew.
KEEPER = '''
import pathlib, time
from orchestrator.effects import cgroups, commands
note = pathlib.Path("/run/systemd/kept")
if not note.exists():
    group = cgroups.Cgroup(cgroups.find_place() / "pg.app.mark")
    inside = group.path if group.create() else None
    child = commands.spawn(["/bin/sleep", "1000"], commands.identity_of(None), {}, pathlib.Path("/run/systemd/kept.log"), inside)
    note.write_text(f"{child.pid} {inside}")
time.sleep(1000)
'''
pathlib.Path("/run/systemd/keeper.py").write_text(KEEPER)
installed = dict(line.split("=", 1) for line in open("orchestrator/systemd/hactld.service") if "=" in line and not line.startswith("#"))
kept_lines = [f"{key}={installed[key].strip()}" for key in ("KillMode", "Delegate", "TasksMax", "OOMPolicy")]
kept_lines += [f"Environment=PYTHONPATH={os.getcwd()}"]
(units / "keeper.service").write_text(
    service.format(start=f"{sys.executable} /run/systemd/keeper.py", more="\n".join(kept_lines))
)
environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
for name in ("DBUS_SESSION_BUS_ADDRESS", "NOTIFY_SOCKET", "LISTEN_FDS"):
    environment.pop(name, None)
said = open("/run/systemd/said", "w")
manager = subprocess.Popen(
    [sys.argv[1], "--user", "--log-target=console", "--unit=basic.target"],
    env=environment, stdout=said, stderr=said, stdin=subprocess.DEVNULL,
)

def systemctl(*words):
    return subprocess.run(["systemctl", "--user", *words], env=environment, capture_output=True, text=True)

from orchestrator.checkers.checker import Finding
from orchestrator.checkers.service import ServiceChecker
from orchestrator.config import ModuleConfig, ReplicatedConfig, ServiceConfig
from orchestrator.effects import EffectFailed
from orchestrator.effects.rfs import SCOPE_ORDER
from orchestrator.effects.services import Services
from orchestrator.shutdown import machine_goes_down
from orchestrator.paths import Paths

paths = Paths(pathlib.Path("/run/systemd/root"))
paths.make()
deaths, log = [], []

def module(*services):
    return Services(
        ModuleConfig(
            name="pg", mode="mirror", nodes=("node1", "node2"), replication_network="repl", default_primary="alone", boot="auto",
            max_restarts=3, max_restarts_period_s=86400.0, replicated=(ReplicatedConfig("/run/systemd/data"),), vips=(),
            services=services, port=5600, scripts_dir=pathlib.Path("/run/systemd/scripts"),
        ),
        "node1", paths, lambda name, why: deaths.append(why), lambda kind, text: log.append(text), bus=f"unix:path={runtime}/bus",
    )

def unit(name, **options):
    return module(ServiceConfig(name=name, unit=name, **options))

async def until(condition):
    with trio.fail_after(15):
        while not condition():
            await trio.sleep(0.02)

async def refused(services, nursery):
    try:
        await services.start(nursery, "ALONE")
    except EffectFailed as failure:
        return str(failure)
    raise AssertionError("it started")

def main_pid(name):
    return int(systemctl("show", "--property=MainPID", "--value", name).stdout)

async def main():
    with trio.move_on_after(20):
        while systemctl("start", "dbus.socket", "dbus.service").returncode != 0:
            if manager.poll() is not None:
                print("SKIP " + pathlib.Path("/run/systemd/said").read_text()[-300:])
                return
            await trio.sleep(0.1)
        await tests()
        print("DONE")

async def tests():
    assert not await machine_goes_down(f"unix:path={runtime}/bus")
    scope = ["systemd-run", "--user", "--scope", "--quiet", "--collect", "--unit=lockstep-rfs-pg"]
    scope += [f"--property={word}" for word in SCOPE_ORDER]
    running = subprocess.Popen([*scope, "sleep", "1000"], env=environment)
    await until(lambda: systemctl("is-active", "lockstep-rfs-pg.scope").returncode == 0)
    order = dict(line.split("=") for line in systemctl("show", "--property=Before,After", "lockstep-rfs-pg.scope").stdout.splitlines())
    assert "hactld.service" in order["Before"] and "network-online.target" in order["After"], order
    running.kill()

    async with trio.open_nursery() as nursery:
        app = unit("app")
        assert systemctl("enable", "app.service").returncode == 0
        await app.prepare()
        assert systemctl("is-enabled", "app.service").stdout == "disabled\n", log
        assert any("was started at boot: disabled" in line for line in log), log
        assert not await app.running()
        await app.start(nursery, "ALONE")
        assert await app.running() and systemctl("is-active", "app.service").returncode == 0
        os.kill(main_pid("app.service"), signal.SIGKILL)
        await until(lambda: deaths)
        assert deaths == ["unit app.service is failed (failed): signal 9"], deaths
        deaths.clear()
        await app.start(nursery, "ALONE")
        checker = ServiceChecker("app", f"unix:path={runtime}/bus")
        with trio.fail_after(15):
            assert await checker.look() == Finding(True, "app.service is active (running)")
            async with trio.open_nursery() as told:
                told.start_soon(checker.changed)
                await trio.sleep(0.2)
                assert told.child_tasks, "it was told of nothing"
                os.kill(main_pid("app.service"), signal.SIGKILL)
            assert not (finding := await checker.look()).up and "app.service is failed (failed)" in finding.text, finding
            assert "does not exist" in (await ServiceChecker("nosuch", f"unix:path={runtime}/bus").look()).text
        await until(lambda: deaths)
        deaths.clear()
        await app.start(nursery, "ALONE")
        await app.stop(False, "ALONE")
        assert not await app.running() and not deaths

        again = unit("again")
        await again.start(nursery, "ALONE")
        await trio.sleep(0.2)
        before = main_pid("again.service")
        os.kill(before, signal.SIGKILL)
        await until(lambda: any("was restarted by systemd" in line for line in log))
        assert main_pid("again.service") != before and not deaths, deaths
        systemctl("daemon-reexec")  # it leaves the bus for a moment
        await until(lambda: any("is watched again" in line for line in log))
        assert not deaths, deaths
        await again.stop(True, "ALONE")
        assert not await again.running(), "killed, and not restarted"

        systemctl("start", "keeper.service")
        kept = pathlib.Path("/run/systemd/kept")
        await until(kept.exists)
        await until(lambda: " " in kept.read_text())
        pid, group = kept.read_text().split()
        before = main_pid("keeper.service")
        for verb in ("restart", "stop", "start"):
            assert systemctl(verb, "keeper.service").returncode == 0
        assert main_pid("keeper.service") != before
        members = open(f"{group}/cgroup.procs").read().split() if group != "None" else [pid]
        assert members == [pid] and "sleep" in open(f"/proc/{pid}/cmdline").read(), "a service must not notice that hactld is started anew"
        print("IN A CGROUP" if group != "None" else "WITHOUT CGROUPS")
        os.kill(int(pid), signal.SIGKILL)
        systemctl("stop", "keeper.service")

        for name, words in (("bad", "did not start: exit-code 1"), ("masked", "is masked"), ("nosuch", "does not exist on this node")):
            said = await refused(unit(name), nursery)
            assert words in said, said
        stubborn = unit("stubborn", stop_timeout_s=0.5, ready=("/usr/bin/test", "-e", "/run/systemd/deaf"))
        await stubborn.start(nursery, "ALONE")
        await stubborn.stop(False, "ALONE")
        assert not await stubborn.running()
        assert any("freezing and killing" in line for line in log), log

        # The bus dies, and with it what most of the above went through: systemd's own socket is left.
        addresses = f"unix:path={runtime}/bus;unix:path={runtime}/systemd/private"
        direct = Services(
            again.config, "node1", paths, lambda name, why: deaths.append(why), lambda kind, text: log.append(text), bus=addresses
        )
        await direct.start(nursery, "ALONE")
        await until(lambda: direct.services[0]._main is not None)  # it is watched
        (runtime / "bus").unlink()  # nobody starts it by asking for it
        os.kill(main_pid("dbus.service"), signal.SIGKILL)
        await until(lambda: any("is watched again" in line for line in log[-2:]))
        assert not deaths, deaths
        os.kill(main_pid("again.service"), signal.SIGKILL)
        await until(lambda: "was restarted by systemd" in log[-1])
        await direct.stop(True, "ALONE")
        assert not await direct.running() and not deaths
        nursery.cancel_scope.cancel()

try:
    trio.run(main)
finally:
    for line in log:
        print(line, file=sys.stderr)
    systemctl("exit")
    try:
        manager.wait(5)
    except subprocess.TimeoutExpired:
        manager.kill()
"""


@pytest.fixture
def cgroups() -> Iterator[list[Path]]:
    """A directory in each hierarchy, for the manager to be in: where it is, there it puts its units."""
    name = f"lockstep-test-systemd-{os.getpid()}"
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    roots = [Path(line[1]) for line in lines if line[2] in ("cgroup", "cgroup2")]
    with suppress(OSError):
        for root in roots:
            (root / name).mkdir()
    yield [root / name for root in roots if (root / name).is_dir()]
    for root in roots:
        for directory, _, _ in os.walk(root / name, topdown=False):
            with suppress(OSError):
                os.rmdir(directory)


def test_against_a_real_systemd(cgroups: list[Path]) -> None:
    join = "; ".join(f"echo $$ > {path}/cgroup.procs" for path in cgroups) or ":"
    command = ["sh", "-c", f'{{ {join}; }} 2>/dev/null; exec unshare --mount --pid --fork --kill-child --mount-proc "$@"', "sh"]
    result = subprocess.run(
        [*command, sys.executable, "-c", SCRIPT, str(SYSTEMD)], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )  # fmt: skip
    if "SKIP" in result.stdout:
        pytest.skip(f"no systemd can run here: {result.stdout.strip()[-200:]}")
    assert result.returncode == 0 and result.stdout.endswith("DONE\n"), result.stdout + result.stderr
