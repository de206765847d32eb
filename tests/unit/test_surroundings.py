"""What a command of the administrator's finds around it, whoever started hactld and how."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from orchestrator.effects import EffectFailed, commands

LOOK = """
import json, os, signal
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(json.dumps({
    "environment": dict(os.environ), "directory": os.getcwd(), "umask": int(status["Umask"], 8), "groups": sorted(os.getgroups()),
    "blocked": int(status["SigBlk"], 16), "user": os.getuid(), "group": os.getgid(),
    "ignored": int(open("/proc/%d/status" % os.getpid()).read().split("SigIgn:")[1].split()[0], 16),
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")), "session": os.getsid(0) == os.getpid(),
    "stdin": os.readlink("/proc/self/fd/0"), "rights": (int(status["NoNewPrivs"]), status["CapBnd"], int(status["Seccomp"])),
}))
"""
PYTHON_IGNORES = {signal.SIGPIPE, signal.SIGXFSZ}  # the interpreter that looks does so itself


def own_rights() -> list[object]:
    status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return [0, status["CapBnd"], int(status["Seccomp"])]


async def look(tmp_path: Path, identity: commands.Identity, **environment: str) -> dict[str, object]:
    log = tmp_path / "log"
    code = await commands.run([sys.executable, "-I", "-S", "-c", LOOK], identity, environment, log, 20.0)
    assert code == 0, log.read_text()
    return dict(json.loads(log.read_text()))


async def test_nothing_of_ours_is_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("LD_PRELOAD_OF_OURS", "x")
    monkeypatch.setenv("LANG", "C.UTF-8")
    mask_before = os.umask(0o077)
    hup_before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup would
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
        found = await look(tmp_path, commands.identity_of(None), LOCKSTEP_MODULE="pg")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.close(leak)
        signal.signal(signal.SIGHUP, hup_before)
        os.umask(mask_before)
    own = commands.identity_of(None)
    assert found["environment"] == {"PATH": commands.SAFE_PATH, "LANG": "C.UTF-8", "LOCKSTEP_MODULE": "pg", "PWD": "/", **own.environment}
    assert (found["directory"], found["umask"], found["blocked"]) == ("/", 0o022, 0)
    assert found["session"] and found["stdin"] == "/dev/null"
    assert found["descriptors"] == [0, 1, 2, 3], "the fourth is the directory that it reads"
    assert found["rights"] == own_rights(), "a service may need all of them, and sudo"
    ignored = found["ignored"]
    assert isinstance(ignored, int)
    assert {number for number in signal.valid_signals() if ignored >> (number - 1) & 1} <= PYTHON_IGNORES


async def test_sigpipe_ends_a_writer(tmp_path: Path) -> None:
    script = "(sleep 0.1; exec yes) | :; exit ${PIPESTATUS[0]}"
    code = await commands.run(["/bin/bash", "-c", script], commands.identity_of(None), {}, tmp_path / "log", 20.0)
    assert code == 128 + signal.SIGPIPE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
async def test_somebody_else(tmp_path: Path) -> None:
    found = await look(tmp_path, commands.identity_of("nobody"))
    assert found["user"] == found["group"] == 65534 and found["groups"] == [65534]


def test_what_spares_and_hurries_hactld_is_its_own(tmp_path: Path) -> None:
    """Told of a hactld with -900 and nice -5, which this machine may not let us be: the score is set, and the niceness taken back."""
    shown = "cat /proc/self/oom_score_adj; nice"
    words = commands.wrapped(["/bin/sh", "-c", shown], commands.Identity(0, (), {}), None, -900, -5, os.SCHED_OTHER)
    other = ["/bin/sh", "-c", 'echo 300 >/proc/self/oom_score_adj; exec "$@"', "sh", *words]
    niceness = str(os.getpriority(os.PRIO_PROCESS, 0) + 5)
    assert subprocess.run(other, capture_output=True, text=True, check=True).stdout.split() == ["0", niceness]


@pytest.mark.parametrize("policy", [os.SCHED_OTHER, os.SCHED_RR])
def test_only_what_is_needed_is_in_between(policy: int) -> None:
    nobody = commands.Identity(65534, ("/usr/bin/setpriv", "--reuid=65534", "--"), {})
    words = commands.wrapped(["/bin/app", "x y"], nobody, Path("/cg/one"), -900, 0, policy)
    assert words[:4] == ["/bin/sh", "-c", commands.PRELUDE, "sh"] and words[4:6] == ["/cg/one/cgroup.procs", "0"]
    between = ["/usr/bin/chrt", "--other", "0"] if policy == os.SCHED_RR else []
    assert words[6:] == [*between, "/usr/bin/env", "--default-signal", "/usr/bin/setpriv", "--reuid=65534", "--", "/bin/app", "x y"]


async def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("no program")
    for command, words in (("/no/such", "there is no such program"), (str(tmp_path / "plain"), "not executable"), ("nosuch", "no such")):
        with pytest.raises(EffectFailed, match=words):
            await commands.run([command], commands.identity_of(None), {}, tmp_path / "log", 5.0)


async def test_a_cgroup_that_is_gone_is_no_reason_not_to_run(tmp_path: Path) -> None:
    child = commands.spawn(["/bin/true"], commands.identity_of(None), {}, tmp_path / "log", tmp_path / "gone")
    assert await trio.to_thread.run_sync(child.wait) == 0
    assert "gone/cgroup.procs" in (tmp_path / "log").read_text()
