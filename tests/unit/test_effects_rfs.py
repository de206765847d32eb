"""The command line that rfsmount gets, and one that holds its state directory without a word."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import trio
import trio.testing

from orchestrator.config import ClusterConfig, ModuleConfig, NodeConfig, ReplicatedConfig
from orchestrator.effects import processes
from orchestrator.effects.rfs import Rfs, view_from
from orchestrator.paths import Paths
from rfs import exit_codes
from rfs.control.client import ControlClient
from rfs.errors import SaidNo
from rfs.keys import KeyStore

NODES = {name: NodeConfig(name, {"lan": f"192.0.2.1{number}"}) for number, name in ((1, "node1"), (2, "node2"))}
CLUSTER = ClusterConfig("plant7", "availability", 0.5, 3.0, NODES, ())
TREES = (ReplicatedConfig("/srv/data", require=("PG_VERSION", "base")), ReplicatedConfig("/srv/wal", require=("archive",)))
CONFIG = ModuleConfig(
    name="pg", mode="mirror", nodes=("node1", "node2"), replication_network="lan", default_primary="alone", boot="auto", max_restarts=3,
    max_restarts_period_s=86400.0, replicated=TREES, vips=(), services=(), port=5600, scripts_dir=Path("/none"),
)  # fmt: skip
DEAF = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
os.write(file, b"%d\\n" % os.getpid())
print("locked", flush=True)
sys.stdin.read()
"""


def make(tmp_path: Path) -> Rfs:
    return Rfs(CONFIG, CLUSTER, "node1", Paths(tmp_path), keys=None, status=lambda *_: None, gone=lambda *_: None, log=lambda *_: None)


def deaf_holder(pid_file: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", DEAF, str(pid_file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def given(line: list[str], option: str) -> list[str]:
    return [line[index + 1] for index, word in enumerate(line) if word == option]


def required(line: list[str]) -> list[str]:
    return given(line, "--require")


def test_every_start_requires_what_makes_the_directories_whole(tmp_path: Path) -> None:
    rfs = make(tmp_path)
    for role in ("primary", "secondary"):
        assert required(rfs.command(role, replace_data=False)) == ["PG_VERSION", "base", "archive"]


def test_nothing_is_required_of_what_is_to_be_replaced(tmp_path: Path) -> None:
    line = make(tmp_path).command("secondary", replace_data=True)
    assert "--replace-data" in line
    assert required(line) == []


def test_patterns_are_those_of_their_directory(tmp_path: Path) -> None:
    trees = (ReplicatedConfig("/srv/a", exclude=("*.tmp", "cache/**")), ReplicatedConfig("/srv/b", only=("./db",)))
    rfs = Rfs(
        replace(CONFIG, replicated=trees),
        CLUSTER,
        "node1",
        Paths(tmp_path),
        keys=None,
        status=lambda *_: None,
        gone=lambda *_: None,
        log=lambda *_: None,
    )
    line = rfs.command("primary", replace_data=False)
    assert given(line, "--exclude") == ["/srv/a/**/*.tmp", "/srv/a/cache/**"]
    assert given(line, "--only") == ["/srv/b/db"]


async def test_an_rfsmount_that_answers_nobody_is_stopped_too(tmp_path: Path) -> None:
    rfs = make(tmp_path)
    rfs.state_directory.mkdir(parents=True)
    pid_file = rfs.state_directory / "rfsmount.pid"
    await rfs.stop()  # nothing there
    pid_file.write_text("1\n")
    await rfs.stop()  # a file that nobody holds says nothing about process 1
    pid_file.write_text("")
    with deaf_holder(pid_file) as deaf:
        assert deaf.stdout is not None and deaf.stdout.readline() == b"locked\n"
        process = processes.find(deaf.pid)
        assert process is not None
        with trio.fail_after(10):
            await rfs.stop()
        assert not process.alive()


def test_the_witness_is_named_to_rfsmount(tmp_path: Path) -> None:
    rfs = make(tmp_path)
    assert not any(word.startswith("--witness") for word in rfs.command("primary", False))
    rfs.cluster = replace(CLUSTER, witness=("http://192.0.2.21:2379", "http://192.0.2.22:2379"), witness_ca="/etc/lockstep/ca.pem")
    line = " ".join(rfs.command("primary", False))
    assert "--witness http://192.0.2.21:2379 --witness http://192.0.2.22:2379 --witness-ca /etc/lockstep/ca.pem" in line
    assert view_from({"witness": None}).witness_away is False
    assert view_from({"witness": {"state": "unreachable"}}).witness_away is True
    assert view_from({"witness": {"state": "ok"}}).witness_away is False


def test_how_the_links_of_rfsmount_are_protected(tmp_path: Path) -> None:
    assert "--insecure" in make(tmp_path).command("primary", False)
    secure = make(tmp_path)
    secure.keys = KeyStore("/etc/lockstep/keys")
    command = secure.command("primary", False)
    assert "--insecure" not in command
    assert command[command.index("--keys") + 1] == "/etc/lockstep/keys" and command[command.index("--peer-node") + 1] == "node2"


async def test_a_status_that_says_nothing_new_is_no_event(tmp_path: Path) -> None:
    """Unless it was asked for, or the core has forgotten what it knew and nobody answered its question."""
    told: list[tuple[int, str]] = []
    rfs = Rfs(
        CONFIG, CLUSTER, "node1", Paths(tmp_path), keys=None,
        status=lambda session, view: told.append((session, view.mode)), gone=lambda *_: None, log=lambda *_: None,
    )  # fmt: skip
    for since_s in range(3):
        rfs._publish(0, {"mode": "alone", "since_s": since_s}, asked=False)
    assert told == [(0, "alone")] and rfs.last["since_s"] == 2
    rfs._publish(0, {"mode": "paired"}, asked=False)
    rfs._publish(0, {"mode": "paired"})
    rfs._publish(7, {"mode": "frozen"})
    assert told == [(0, "alone"), (0, "paired"), (0, "paired")]
    await rfs.refresh()
    rfs._publish(0, {"mode": "paired"}, asked=False)
    assert told[3:] == [(0, "paired")]


class Growing:
    """An rfsmount whose first try fails on the way, and that meets its peer before the next one."""

    def __init__(self, rfs: Rfs) -> None:
        self.rfs, self.asked = rfs, 0

    async def call(self, method: str, params: object = None) -> dict[str, object]:
        if method == "status":
            return self.rfs.last
        self.asked += 1
        if self.asked == 1:
            self.rfs.last = {**self.rfs.last, "mode": "paired"}
            raise SaidNo("/srv/more: is half added (No space left on device); ask for it once more", exit_codes.FAILED)
        self.rfs.last = {**self.rfs.last, "directories": [{}] * len(self.rfs.config.replicated)}
        return self.rfs.last


async def test_a_half_added_directory_is_finished_beside_the_peer_too(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    rfs = make(tmp_path)
    rfs.last = {"role": "primary", "mode": "alone", "directories": [{}] * (len(rfs.config.replicated) - 1)}
    rfs._publish = lambda *_, **__: None  # type: ignore[method-assign]
    client = Growing(rfs)
    with trio.fail_after(60):
        await rfs._add_directories(1, cast(ControlClient, client))
    assert client.asked == 2


def test_what_a_module_refuses_is_said_on_the_command_line(tmp_path: Path) -> None:
    assert "refuse" not in make(tmp_path).command("primary", replace_data=False)
    refusing = replace(CONFIG, devices="refuse", setuid="refuse")
    rfs = Rfs(refusing, CLUSTER, "node1", Paths(tmp_path), keys=None, status=lambda *_: None, gone=lambda *_: None, log=lambda *_: None)
    said = " ".join(rfs.command("primary", replace_data=False))
    assert "--devices refuse" in said and "--setuid refuse" in said
