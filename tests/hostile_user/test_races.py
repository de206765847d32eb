"""A user without root races renames and links in the mirrored trees: through the mount, and in the plain trees through descriptors that he
opened before anything lay over them and hid from the scan that looks for such. Nothing outside changes, nothing of outside comes in, nobody
dies or hangs, and when he is gone the pair comes together and both trees are equal.

`LOCKSTEP_RACE_SECONDS` (default 20) says how long; `script/soak hostile-user` takes ten minutes.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lab.trees import HIDDEN_NAMES, differences, manifest
from rfs import exit_codes
from rfs.control.blocking import BlockingClient
from rfs.errors import SaidNo
from tests.hostile_user.canary import build, fingerprint, holds_secret
from tests.hostile_user.racer import LINKS, Racer, all_ended, compile_preload, compile_racer
from tests.posix.node import Node, free_address, know_each_other, needs_mounts

SECONDS = float(os.environ.get("LOCKSTEP_RACE_SECONDS", "20"))
pytestmark = [pytest.mark.mount, needs_mounts, pytest.mark.timeout(SECONDS * 2 + 240)]
USER, OTHER_USER = 40001, 40002
DEPTH, MANY = 1500, 300


class Race:
    """A pair, and everything that the user may reach."""

    def __init__(self, place: Path) -> None:
        place.chmod(0o755)
        self.place, self.canary = place, build(place)
        self.program = compile_racer(place)
        here, there = free_address(), free_address()
        self.a, self.b = Node(place, "a", here, there), Node(place, "b", there, here)
        know_each_other(self.a, self.b)
        for node in (self.a, self.b):
            for directory in (node.directories[0] / "shared", node.directories[1]):
                directory.mkdir(exist_ok=True)
                directory.chmod(0o777)
        for number in range(200):
            (self.a.directories[0] / f"file{number}").write_bytes(os.urandom(number * 37))

    def places(self, node: Node) -> list[Path]:
        return [node.directories[0] / "shared", node.directories[1]]

    def racer(self, uid: int, seconds: float, node: Node, **more: Any) -> Racer:
        return Racer(self.program, uid, os.getpid() + uid + len(more), seconds, self.canary, *self.places(node), **more)

    def check_equal(self) -> None:
        """Both trees, but for what he left under Lockstep's own names: that is nobody's."""
        for here, there in zip(self.a.directories, self.b.directories, strict=True):
            found = differences(manifest(str(here)), manifest(str(there)))
            assert [line for line in found if not any(name in line for name in HIDDEN_NAMES)] == []

    def clean(self) -> None:
        self.b.clean()
        self.a.clean()

    def disturb(self, until: float) -> dict[str, int]:
        """What a pair goes through meanwhile: the secondary dies and is brought up to date by marks, all is compared, a verify runs."""
        count = {"rejoined": 0, "compared": 0, "verified": 0}
        while time.monotonic() < until:
            self.b.kill()
            if self.b.mount("secondary", "--timeout", "3").returncode == exit_codes.DONE:
                count["rejoined"] += 1
            self.call(self.a, "recopy")
            count["compared"] += self.comes_together(3)
            count["verified"] += "error" not in self.call(self.a, "verify")
        return count

    def call(self, node: Node, method: str) -> dict[str, object]:
        """What it answers; a refusal is an answer too, silence is not."""
        with BlockingClient(str(node.state), 10.0) as client:
            try:
                return client.call(method)
            except SaidNo as no:
                assert no.exit_code not in (exit_codes.TIMEOUT, exit_codes.DAEMON_NOT_REACHABLE), no.sentence
                return {"error": no.sentence}

    def comes_together(self, within_s: float) -> bool:
        """Is it a whole pair within that time?"""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            status = self.call(self.a, "status")
            assert status["code"] != "FAILED", status["reason"]
            if status["link"] == "paired" and not status["everything_marked"]:  # what was asked to be compared has been
                return True
            self.call(self.a, "stats")
        return False


@pytest.fixture
def race() -> Iterator[Race]:
    """Not mounted yet."""
    place = tempfile.mkdtemp(prefix="lockstep-race-", dir="/var/tmp")
    made = Race(Path(place))
    try:
        yield made
    finally:
        made.clean()
        subprocess.run(["rm", "-rf", place], check=True, timeout=300)  # what lies there may be too deep for Python


def test_nothing_outside_changes_and_nothing_comes_in(race: Race) -> None:
    a, b = race.a, race.b
    before = fingerprint(race.canary)
    hidden = [race.racer(USER, SECONDS, node, hidden=True) for node in (a, b)]
    with all_ended(hidden):
        assert a.mount("primary").returncode == 0
        serving = (a.state / "rfsmount.pid").read_text()
        assert b.mount("secondary", "--seeded").returncode == 0
        mounted = [race.racer(uid, SECONDS, a) for uid in (USER, OTHER_USER)]
        with all_ended(mounted):
            begun = time.monotonic()
            clean = race.disturb(begun + SECONDS / 4)  # the mount alone: nobody is behind the mirror's back
            assert clean["rejoined"] and clean["compared"], clean
            for racer in reversed(hidden):
                racer.go()
                count = race.disturb(time.monotonic() + SECONDS * 3 / 8)
            print(clean, count, [racer.end() for racer in (*hidden, *mounted)])
    assert fingerprint(race.canary) == before
    assert (a.state / "rfsmount.pid").read_text() == serving
    b.kill()
    b.mount("secondary", "--timeout", "3")
    race.call(a, "recopy")
    assert race.comes_together(60), race.call(a, "status")
    for node in (a, b):
        assert [path for directory in node.directories for path in holds_secret(directory)] == []
    race.check_equal()
    assert fingerprint(race.canary) == before


def test_a_build_that_follows_links_is_found_out(race: Race, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same race against a secondary whose every open follows a link: it cannot pass."""
    a, b = race.a, race.b
    before = fingerprint(race.canary)
    library = compile_preload(race.place)
    hidden = race.racer(USER, 60, b, hidden=True, kind=LINKS)
    with all_ended([hidden]):
        for number in range(24):  # what is compared with what lies under these names on the secondary
            (a.directories[1] / f"n{number}").mkdir()
        assert a.mount("primary").returncode == 0
        hiding = True
        while fingerprint(race.canary) == before and hidden.is_racing():
            with monkeypatch.context() as context:
                context.setenv("LD_PRELOAD", str(library))
                b.mount("secondary", "--seeded", "--timeout", "2")
            if hiding:
                hidden.go()
            hiding = False
            race.call(a, "recopy")
            race.comes_together(2)
            b.kill()
        assert fingerprint(race.canary) != before


def test_nobody_comes_through_the_guard(race: Race) -> None:
    """A secondary's tree is there to be read: he finds no name, no link and no descriptor that lets him change it."""
    a, b = race.a, race.b
    assert a.mount("primary").returncode == 0
    assert b.mount("secondary", "--seeded").returncode == 0
    for name in ("n0", "n1"):
        (a.directories[1] / name).write_text("there")
        (a.directories[1] / name).chmod(0o666)
    a.until(link="paired")
    racer = race.racer(USER, 1, b)
    with all_ended([racer]):
        racer.wait()
        done = racer.end()
    assert done.pop("walk") > 0 and not any(done.values()), done
    race.check_equal()
    held = Path("/proc", (b.state / "rfsmount.pid").read_text().strip(), "fd")
    tried = subprocess.run(["ls", str(held)], capture_output=True, user=USER, group=USER, extra_groups=[], check=False)
    assert tried.returncode != 0, "the plain tree's descriptors are rfsmount's alone"


def dig(top: Path, depth: int) -> None:
    """Deeper than any path can say; a file at the bottom."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
    os.close(fd)


def litter(top: Path) -> None:
    """Of everything that a user can make, much, and with the longest names."""
    for number in range(MANY):
        name = f"{number:0255d}"
        os.symlink("x" * 4095, top / f"{name[1:]}l")
        os.mkfifo(top / f"{name[1:]}f", 0o600)
        os.mknod(top / f"{name[1:]}s", stat.S_IFSOCK | 0o600)
    (top / "many-names").write_text("one file")
    for number in range(MANY):
        os.link(top / "many-names", top / f"name{number}")
    for number in range(30):
        os.setxattr(top / "many-names", f"user.{number}", b"x" * 60)


def test_the_limits_of_names_depth_and_number(race: Race) -> None:
    """Neither side waits for a pipe, runs out of stack or descriptors, or loses count: it is copied, compared, verified and removed."""
    a, b = race.a, race.b
    top = a.directories[0] / "shared"
    assert a.mount("primary").returncode == 0
    assert b.mount("secondary", "--seeded").returncode == 0
    a.until(link="paired")
    dig(top, DEPTH)  # mirrored one by one
    litter(top)
    race.call(a, "recopy")
    assert race.comes_together(60), race.call(a, "status")
    command = [sys.executable, "-m", "rfs.cli", "verify", "--state", str(a.state)]
    verified = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    b.kill()
    a.until(link="alone")
    subprocess.run(["rm", "-rf", *map(str, top.iterdir())], check=True, timeout=60)
    assert b.mount("secondary").returncode == 0
    assert race.comes_together(60), race.call(a, "status")
    race.check_equal()
    b.until(data="UPTODATE")
