"""What a real rfsmount may do, in every role and through a whole life, held against one table; and that what is refused is refused."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from rfs import exit_codes, privileges
from tests.posix.node import Node, needs_mounts

pytestmark = [pytest.mark.mount, needs_mounts]

# Of the threads that read and apply what the peer sent (csrc/privileges.c): nothing of other processes, no port.
NOT_OF_THE_LINK = {"SYS_PTRACE", "NET_BIND_SERVICE"}
FILTERED = 2  # "Seccomp:" with a filter
PROCESS_FILTERS, LINK_FILTERS = 2, 3
OWN_RIGHTS = int(re.findall(r"CapPrm:\s*(\w+)", Path("/proc/self/status").read_text())[0], 16)
PROCESS = privileges.mask_of(privileges.KEPT) & OWN_RIGHTS
LINK = privileges.mask_of({n: row for n, row in privileges.KEPT.items() if row[0] not in NOT_OF_THE_LINK}) & OWN_RIGHTS


@dataclass(frozen=True)
class Rights:
    """Of one thread."""

    permitted: int
    effective: int
    inheritable: int
    bounding: int
    ambient: int
    no_new: int
    seccomp: int
    filters: int


def rights_of(status: Path) -> Rights:
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    sets = (int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"))
    return Rights(*sets, *(int(fields[name]) for name in ("NoNewPrivs", "Seccomp", "Seccomp_filters")))


def refused_calls(pids: set[object]) -> list[str]:
    """What the kernel's log says that it refused one of these processes."""
    log = subprocess.run(["dmesg"], capture_output=True, text=True, check=False).stdout.splitlines()
    return [line for line in log if "type=1326" in line and any(f" pid={pid} " in line for pid in pids)]


def check(node: Node, pids: set[object], *, meets_peer: bool) -> None:
    """Every thread of it; those of the link, if there is one, are known by one filter more."""
    pid = node.status()["pid"]
    pids.add(pid)
    threads = [rights_of(task / "status") for task in Path(f"/proc/{pid}/task").iterdir()]
    links = [each for each in threads if each.filters == LINK_FILTERS]
    for each in threads:
        wanted = LINK if each.filters == LINK_FILTERS else PROCESS
        assert (each.permitted, each.effective, each.bounding) == (wanted, wanted, PROCESS)
        assert (each.inheritable, each.ambient, each.no_new, each.seccomp) == (0, 0, 1, FILTERED)
        assert each.filters in (PROCESS_FILTERS, LINK_FILTERS)
    assert bool(links) is meets_peer, f"{len(links)} of {len(threads)} threads"
    assert re.search(r"Max core file size +0 +0 ", Path(f"/proc/{pid}/limits").read_text())
    assert node.status()["warnings"] == []


def test_through_a_whole_life_nobody_has_more_than_the_table(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    data, pids = a.directories[0], set[object]()
    (data / "before").write_text("was here")
    assert a.mount("primary").returncode == exit_codes.DONE
    check(a, pids, meets_peer=False)
    assert b.mount("secondary").returncode == exit_codes.DONE
    a.until(link="paired", role="primary")
    check(a, pids, meets_peer=True)
    check(b, pids, meets_peer=True)

    # What needs a right of the table on the secondary, each through its own frame.
    (data / "file").write_bytes(b"x" * 100_000)
    os.chown(data / "file", 1234, 4321)
    os.chmod(data / "file", 0o4711)
    os.setxattr(data / "file", "trusted.ours", b"1")
    os.setxattr(data / "file", "user.theirs", b"2")
    os.setxattr(data / "file", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.mknod(data / "null", 0o20600, os.makedev(1, 3))
    os.mkfifo(data / "fifo", 0o600)
    (data / "closed").mkdir(0o000)
    (data / "closed" / "in it").write_text("root only")
    os.link(data / "file", data / "hard")
    (data / "link").symlink_to("file")
    os.utime(data / "link", ns=(1, 2), follow_symlinks=False)
    assert a.tree() == b.tree()

    assert a.run("demote").returncode == exit_codes.DONE
    assert b.run("promote").returncode == exit_codes.DONE
    b.until(link="paired", role="primary")
    check(a, pids, meets_peer=True)
    check(b, pids, meets_peer=True)
    (b.directories[1] / "of b").write_text("b")

    a.kill()
    b.run("promote")
    b.until(link="alone")
    check(b, pids, meets_peer=False)
    (b.directories[1] / "alone").write_text("b")
    assert a.mount("secondary").returncode == exit_codes.DONE
    b.until(link="paired")
    check(a, pids, meets_peer=True)
    assert a.tree() == b.tree()
    assert a.run("unmount").returncode == exit_codes.DONE
    assert b.run("unmount").returncode == exit_codes.DONE
    assert refused_calls(pids) == [], "nothing that it needs is refused"
