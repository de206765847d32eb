"""Every file is found, whatever lies around it."""

import os
import subprocess
from pathlib import Path

from rfs import page_cache

DEEP = 1100  # deeper than Python calls itself


def test_every_file_is_found_in_a_tree_deeper_than_a_stack(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    at = os.open(tmp_path, os.O_RDONLY)
    tree = os.dup(at)
    for level in range(DEEP):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
        if level % 500 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    try:
        assert page_cache.forget([tree]) == 1 + len(range(0, DEEP, 500))
    finally:
        os.close(tree)
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)
