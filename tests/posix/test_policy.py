"""What a module refuses, whoever asks: device nodes, and files that give their owner's rights. And what a guard gives nobody."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.node import Node, needs_mounts

pytestmark = [pytest.mark.mount, needs_mounts]
REFUSE = ("--devices", "refuse", "--setuid", "refuse")
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service, permitted


def _refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except OSError as failure:
        return failure.errno == errno.EPERM
    return False


def _options(path: Path) -> set[str]:
    """Of the mount that is on top."""
    found: set[str] = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == str(path):
            found = set(fields[5].split(","))
    return found


def test_what_a_module_refuses(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    assert a.mount("primary", *REFUSE).returncode == 0
    assert b.mount("secondary", *REFUSE).returncode == 0
    a.until(link="paired")
    root, file = a.directories[0], a.directories[0] / "file"
    file.write_text("a program")
    file.chmod(0o755)
    assert {"nodev", "nosuid"} <= _options(root)
    assert _refused(lambda: os.mknod(root / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3)))
    assert _refused(lambda: os.mknod(root / "block", stat.S_IFBLK | 0o600, os.makedev(7, 250)))
    assert _refused(lambda: file.chmod(0o4755)) and _refused(lambda: file.chmod(0o2755))
    assert _refused(lambda: os.close(os.open(root / "made", os.O_CREAT | os.O_WRONLY, 0o4755)))
    assert _refused(lambda: os.mknod(root / "made", stat.S_IFREG | 0o4755))
    assert _refused(lambda: os.setxattr(file, "security.capability", CAPABILITY))
    os.mkfifo(root / "pipe")
    (root / "shared").mkdir()
    (root / "shared").chmod(0o2775)  # a directory's setgid gives nobody rights
    assert sorted(path.name for path in root.iterdir()) == ["file", "pipe", "shared"]
    a.until(link="paired")
    assert a.tree().keys() == b.tree().keys()
    assert b.status()["peer_faults"] == 0


def test_both_nodes_refuse_the_same(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    assert a.mount("primary", "--devices", "refuse").returncode == 0
    refused = b.mount("secondary")
    assert refused.returncode != 0 and "--devices" in refused.stderr
    assert b.status()["code"] == "PATTERNS_DIFFER"


def test_by_default_everything_is_mirrored_and_a_guard_gives_no_rights(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    assert a.mount("primary").returncode == 0
    assert b.mount("secondary").returncode == 0
    a.until(link="paired")
    root, other = a.directories[0], b.directories[0]
    os.mknod(root / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (root / "program").write_text("#!/bin/true\n")
    (root / "program").chmod(0o4755)
    os.setxattr(root / "program", "security.capability", CAPABILITY)
    assert not {"nodev", "nosuid"} & _options(root)
    assert (other / "device").lstat().st_rdev == os.makedev(1, 3)
    assert stat.S_IMODE((other / "program").lstat().st_mode) == 0o4755
    assert {"ro", "nodev", "nosuid"} <= _options(other)
    with pytest.raises(PermissionError):
        os.close(os.open(other / "device", os.O_RDONLY))
