"""Who may mount (any user, by fusermount3) chooses the names in /proc/self/mountinfo: no name is the end of a line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.effects import cgroups, mount_abort
from rfs.mount_table import lines_of, parse_mount_table, read_mount_table, read_mountinfo, stack_at

NAME = b"a\r\n\x0b\x0c\x1c\x1d\x1e \\\t#\xc2\x85\xe2\x80\xa8\xff"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_a_mount_of_any_name_is_one_line(tmp_path: Path) -> None:
    place = os.fsencode(tmp_path) + b"/" + NAME
    os.mkdir(place)
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        table = read_mount_table()
        assert len(stack_at(os.fsdecode(place), table)) == 1
        assert len(table) == len(lines_of(read_mountinfo()))
        assert mount_abort.connections(read_mountinfo(), [os.fsdecode(place)]) == {}
        cgroups.find_place()
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("byte", [byte for byte in range(1, 256) if byte not in b" \t\n\\/"])
def test_each_byte(byte: int) -> None:
    line = b"36 35 0:51 / /srv/x%cy rw - fuse.lockstep lockstep rw\n" % byte
    text = line.decode(errors="surrogateescape")
    (entry,) = parse_mount_table(lines_of(text))
    assert os.fsencode(entry.path) == b"/srv/x%cy" % byte
    assert mount_abort.connections(text, [entry.path]) == {51: entry.path}
    assert cgroups.own_groups(text, "0::/a\n") == []
