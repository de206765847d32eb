"""Files, as they come to be: never with a wider mode first, secrets with O_EXCL and 0600 from the first moment; by the system calls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.hactl.snapshot_command import _keep_catalogue
from orchestrator.snapshot.bundle import Bundle
from tests.posix.node import Node, free_address, know_each_other, needs_mounts
from tests.security.modes import CALLS, Judge

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
ROOT = Path(__file__).resolve().parents[2]
KEYS = """
from pathlib import Path
from rfs.keys import NEXT, KeyStore
one, two = KeyStore(Path("one")), KeyStore(Path("two"))
one.make("node1"); two.make("node2")
one.pin("node2", two.own().known.certificate)
one.make("node1", name=NEXT); one.activate_next(); one.drop_former()
one.forget("node2")
"""


def traced(trace: Path, *words: str) -> list[str]:
    return ["strace", "-f", "-y", "-qq", "-s", "400", "-o", str(trace), "-e", f"trace={CALLS}", "-e", "signal=none", *words]


def test_the_judge_sees_what_it_must() -> None:
    judge = Judge('1 openat(AT_FDCWD, "k", O_WRONLY|O_CREAT, 0666) = 3</k>\n1 fchmod(3</k>, 0600) = 0\n')
    assert len(judge.wrong) == 1 and judge.made[0].mode == 0o644
    split = '1 openat(AT_FDCWD, "k", O_WRONLY|O_CREAT|O_EXCL <unfinished ...>\n2 close(4) = 0\n1 <... openat resumed>, 0600) = 3</k>\n'
    assert Judge(split).made[0].exclusively and Judge(split + '1 chmod("/k", 0640) = 0\n').wrong == []
    assert Judge('1 umask(000) = 022\n1 mkdir("d", 0777) = 0\n1 chmod("d", 0700) = 0\n').wrong
    socket = '1 bind(3<socket:[1]>, {sa_family=AF_UNIX, sun_path="s"}, 110) = 0\n1 chmod("s", 0600) = 0\n1 listen(3<socket:[1]>, 64) = 0\n'
    assert Judge(socket).made[-1].mode == 0o600 and not Judge(socket).wrong


@needs_strace
def test_keys(tmp_path: Path) -> None:
    words, environment = traced(tmp_path / "trace", sys.executable, "-c", KEYS), {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, umask=0o022, check=False, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    judge = Judge((tmp_path / "trace").read_text())
    ours = [made for made in judge.made if made.path.startswith((str(tmp_path), "one", "two"))]
    assert len(ours) >= 8 and judge.wrong == []
    for made in ours:
        directory = made.path.rstrip("/").endswith(("one", "two"))
        assert made.mode == (0o700 if directory else 0o600), made.line
        assert directory or made.exclusively or made.path.endswith("lock"), made.line


def wait_for(node: Node) -> None:
    """Until it answers that it serves: mounted, and marked as alone."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        done = node.run("status", "--json")
        if done.returncode == 0 and all(entry["mounted"] for entry in json.loads(done.stdout)["directories"]):
            return
    raise AssertionError(f"it does not serve: {done.stdout}{done.stderr}")


@needs_strace
@pytest.mark.mount
@needs_mounts
def test_a_life_of_rfsmount(tmp_path: Path) -> None:
    """Mounted, written to, stopped: in the state directory nothing that anybody else could read but its process' number."""
    here, there = free_address(), free_address()
    a, b = Node(tmp_path, "a", here, there), Node(tmp_path, "b", there, here)
    know_each_other(a, b)
    words = [sys.executable, "-m", "rfs.cli", "mount", *map(str, a.directories), "--role", "primary", "--state", str(a.state), *a.options]
    try:
        with (tmp_path / "said").open("wb") as said:
            running = subprocess.Popen(traced(tmp_path / "trace", *words, "--foreground"), umask=0o022, stdout=said, stderr=said)
            wait_for(a)
            (a.directories[0] / "file").write_text("data")
            assert a.run("unmount").returncode == 0
            running.wait(30)
    finally:
        a.clean()
    judge = Judge((tmp_path / "trace").read_text())
    ours = [made for made in judge.made if str(a.state) in made.path]
    assert len(ours) >= 4 and judge.wrong == [], judge.wrong
    for made in ours:
        assert not made.mode & 0o022 and (not made.mode & 0o044 or made.path.endswith("rfsmount.pid")), made.line
    sockets = [made for made in ours if made.path.endswith("control.sock")]
    assert [made.mode for made in sockets] == [0] or not sockets[0].mode & 0o077, "made under a umask, before anybody can connect"


def test_a_link_that_somebody_has_planted_is_not_followed(tmp_path: Path) -> None:
    """root takes a snapshot in /tmp: whoever guesses the names has put links there, which lead to what only root may write."""
    victim, target = tmp_path / "victim", tmp_path / "help.tar.gz"
    victim.write_text("precious")
    for name in ("help.tar.gz", "help.tar.gz.part", ".help.tar.gz.part", "help.names.json"):
        (tmp_path / name).symlink_to(victim)
    bundle = Bundle("plant7")
    bundle.add_missing("node2", "is away")
    bundle.write(target, bundle.manifest(version="0", began=1.0, anonymised=True))
    kept = _keep_catalogue(target, {"node1": "nodeA"})
    assert victim.read_text() == "precious" and not target.is_symlink() and not Path(kept).is_symlink()
    assert target.stat().st_mode & 0o777 == Path(kept).stat().st_mode & 0o777 == 0o600
    assert json.loads(Path(kept).read_text()) == {"node1": "nodeA"}
