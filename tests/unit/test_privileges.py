"""Giving rights up, in processes of their own: what the kernel then refuses them, and what is said where it cannot be done."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rfs import engine, privileges

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs rights that can be given up")

# Run by a child after give_up(): each line says what it tried and the errno.
TRIES = """
import ctypes, os, socket, threading, time
from rfs import privileges
assert privileges.give_up() == []
libc = ctypes.CDLL(None, use_errno=True)

def tried(name, result):
    print(name, ctypes.get_errno() if result == -1 else 0)

def python(name, call):
    try:
        call()
        print(name, 0)
    except OSError as failure:
        print(name, failure.errno)

python("fork", os.fork)
python("exec", lambda: os.execv("/bin/true", ["true"]))
python("spawn", lambda: os.posix_spawn("/bin/true", ["true"], {}))
python("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
python("alg", lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET))
python("vsock", lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM))
tried("unshare", libc.unshare(0x00020000))
tried("mount", libc.mount(b"none", b"/mnt", b"tmpfs", 0, None))
tried("ptrace", libc.ptrace(0, 0, None, None))
tried("personality", libc.personality(0xffffffff))
python("settime", lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))
python("signal others", lambda: os.kill(os.getppid(), 0))
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
    python(family.name, lambda: socket.socket(family, socket.SOCK_DGRAM).close())
python("pair", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
thread = threading.Thread(target=lambda: print("thread", 0))
thread.start()
thread.join()
tried("clone3", libc.syscall(435, None, 0))
tried("open_tree", libc.syscall(428, -100, b"/", 1))
"""


@needs_root
def test_what_is_never_done_is_refused_and_the_rest_goes_on() -> None:
    done = subprocess.run([sys.executable, "-c", TRIES], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    answers = {name: int(code) for name, code in (line.rsplit(" ", 1) for line in done.stdout.splitlines())}
    refused = {name for name, code in answers.items() if code == errno.EPERM}
    assert refused == {"fork", "exec", "spawn", "packet", "alg", "vsock", "unshare", "mount", "ptrace", "personality", "settime"}
    assert answers.pop("clone3") == errno.ENOSYS, "the C library takes clone, whose flags can be seen"
    assert {name for name, code in answers.items() if code == 0} == set(answers) - refused


CRASH = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
os.chdir(sys.argv[1])
from rfs import engine
if sys.argv[2] == "keeps":
    assert engine.keep_secrets() == 0
os.abort()
"""


@needs_root
@pytest.mark.parametrize("does", ["keeps", "tells"])
def test_a_crash_leaves_no_core(tmp_path: Path, does: str) -> None:
    """The kernel says in the status whether it wrote one, whoever takes it."""
    child = subprocess.Popen([sys.executable, "-c", CRASH, str(tmp_path), does], stderr=subprocess.DEVNULL)
    _, status = os.waitpid(child.pid, 0)
    child.returncode = 0
    assert os.WIFSIGNALED(status)
    if does == "tells" and not os.WCOREDUMP(status):
        pytest.skip("no process leaves a core here")
    assert os.WCOREDUMP(status) == (does == "tells")


def test_the_table_is_the_kernels() -> None:
    """Names and numbers as in linux/capability.h."""
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("needs the kernel's headers")
    words = (line.split() for line in header.read_text().splitlines() if line.startswith("#define CAP_"))
    numbers = {words[1].removeprefix("CAP_"): words[2] for words in words if len(words) == 3}
    for table in (privileges.KEPT, privileges.LOOKING):
        assert {name: numbers[name] for name, _ in table.values()} == {name: str(number) for number, (name, _) in table.items()}


def test_a_kernel_without_means_is_told_and_served_all_the_same(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def answers(result: int) -> Callable[..., int]:
        return lambda *_: result

    monkeypatch.setattr(engine, "keep_secrets", answers(0))
    monkeypatch.setattr(engine, "keep_capabilities", answers(-errno.EPERM))
    monkeypatch.setattr(engine, "filter_calls", answers(-errno.EINVAL))
    said = privileges.give_up()
    assert said == [
        "capabilities cannot be given up (Operation not permitted)",
        "system calls are not filtered (Invalid argument)",
    ]
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == said


@needs_root
def test_hactld_leaves_no_core_and_its_services_may() -> None:
    program = """
import ctypes, subprocess, sys
from orchestrator.endurance import endure
endure()
dumpable = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)"
exec(dumpable)
subprocess.run([sys.executable, "-c", dumpable], check=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == ["0", "1"]


@needs_root
def test_a_child_that_only_looks_and_what_it_starts_can_do_no_more() -> None:
    program = "from rfs import privileges; privileges.only_look(); import os; os.execv('/bin/cat', ['cat', '/proc/self/status'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    own = int(Path("/proc/self/status").read_text().partition("CapPrm:")[2].split()[0], 16)
    for name in ("CapPrm:", "CapEff:", "CapBnd:"):
        assert int(done.stdout.partition(name)[2].split()[0], 16) == privileges.mask_of(privileges.LOOKING) & own


@needs_root
def test_who_only_looks_can_still_ask_a_program_as_nobody() -> None:
    asks = "subprocess.run(['id', '-u'], user=65534, group=65534, extra_groups=[])"
    program = f"import subprocess; from rfs import privileges; privileges.only_look(); {asks}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "65534\n"
