"""Two real rfsmount and a real etcd: nobody goes on alone but by a won compare-and-swap."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rfs import exit_codes
from rfs.control.blocking import BlockingClient
from tests.posix.cable import Cable
from tests.posix.node import Node, free_address, know_each_other, needs_mounts
from tests.unit.etcd_server import EtcdServer, needs_etcd

pytestmark = [pytest.mark.mount, needs_mounts, needs_etcd]
LINK_TIMEOUT = ("--link-timeout", "1")


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path / "witness")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def cables() -> Iterator[tuple[Cable, Cable]]:
    """To a, and to b."""
    both = Cable(free_address()), Cable(free_address())
    yield both
    for cable in both:
        cable.close()


@pytest.fixture
def nodes(tmp_path: Path, witness: EtcdServer, cables: tuple[Cable, Cable]) -> Iterator[tuple[Node, Node]]:
    to_a, to_b = cables
    a, b = Node(tmp_path, "a", to_a.target, to_b.address), Node(tmp_path, "b", to_b.target, to_a.address)
    know_each_other(a, b)
    for node in (a, b):
        node.options += ["--witness", witness.url, *LINK_TIMEOUT]
    yield a, b
    for node in (b, a):
        send(node, signal.SIGCONT)
        node.clean()


@pytest.fixture
def paired(nodes: tuple[Node, Node]) -> tuple[Node, Node]:
    a, b = nodes
    assert a.mount("primary").returncode == exit_codes.DONE
    assert b.mount("secondary").returncode == exit_codes.DONE
    a.until(link="paired")
    b.until(link="paired")
    until_witness(a, state="ok", armed=True)
    return a, b


def send(node: Node, number: int) -> None:
    """A signal, to one that may be gone already."""
    try:
        os.kill(int((node.state / "rfsmount.pid").read_text()), number)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        pass


def until_witness(node: Node, **wanted: object) -> dict[str, object]:
    """What `rfsmount witness status` says, once it says this."""
    for _ in range(200):
        shown: dict[str, object] = json.loads(node.run("witness", "status", "--json").stdout)
        if all(shown[name] == value for name, value in wanted.items()):
            return shown
    raise AssertionError(f"wanted {wanted}, is {shown}")


def write_in_background(path: Path, done: list[str]) -> threading.Thread:
    """Another process writes: it may wait for ever, and its outcome is told when it is known."""

    def run() -> None:
        code = f"open({str(path)!r}, 'w').write('x')"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        done.append(found.stderr or "acknowledged")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_a_takeover_fences_the_paused_primary(paired: tuple[Node, Node]) -> None:
    a, b = paired
    (a.directories[0] / "before").write_text("mirrored")
    send(a, signal.SIGSTOP)
    outcome: list[str] = []
    writer = write_in_background(a.directories[0] / "while paused", outcome)
    b.until(link="connecting")
    assert b.run("promote").returncode == exit_codes.DONE
    (b.directories[0] / "after").write_text("by the new primary")
    assert b.status()["link"] == "alone" and not outcome
    send(a, signal.SIGCONT)
    a.until(link="paired", role="secondary", data="UPTODATE")
    writer.join(20)
    assert outcome and outcome[0] != "acknowledged"
    assert a.tree() == b.tree() and not (b.directories[0] / "while paused").exists()


@pytest.mark.parametrize("primary_first", [True, False], ids=["the primary asks by itself", "the secondary may be first"])
def test_a_partition_gives_one_grant(paired: tuple[Node, Node], cables: tuple[Cable, Cable], primary_first: bool) -> None:
    a, b = paired
    for cable in cables:
        cable.cut()
    if primary_first:
        a.until(link="alone")
    else:
        b.until(link="connecting")
    promoted = b.run("promote")
    assert promoted.returncode in (exit_codes.DONE, exit_codes.REFUSED) and (promoted.returncode == exit_codes.REFUSED or not primary_first)
    won, lost = (b, a) if promoted.returncode == exit_codes.DONE else (a, b)
    won.until(link="alone", role="primary")
    lost.until(role="secondary", link="connecting")
    (won.directories[0] / "by the one").write_text("acknowledged")
    with pytest.raises(OSError, match="Read-only"):
        (lost.directories[0] / "by the other").write_text("never")
    assert lost.run("promote").returncode == exit_codes.REFUSED
    for cable in cables:
        cable.mend()
    lost.until(link="paired", role="secondary", data="UPTODATE")
    assert a.tree() == b.tree() and (lost.directories[0] / "by the one").exists()


def test_a_primary_that_sees_neither_peer_nor_witness_is_taken_over(
    paired: tuple[Node, Node], cables: tuple[Cable, Cable], witness: EtcdServer
) -> None:
    """Cut off from everything it acknowledges nothing, and what waits fails once it learns that its peer went on."""
    a, b = paired
    witness.stop()
    for cable in cables:
        cable.cut()
    a.until(link="frozen", needs_grant=True)
    outcome: list[str] = []
    writer = write_in_background(a.directories[0] / "waits", outcome)
    send(a, signal.SIGSTOP)  # now it does not hear that the witness is back
    witness.start()
    b.until(link="connecting")
    assert b.run("promote").returncode == exit_codes.DONE
    (b.directories[0] / "after").write_text("b's")
    send(a, signal.SIGCONT)
    a.until(role="secondary")
    writer.join(20)
    assert outcome and outcome[0] != "acknowledged"
    for cable in cables:
        cable.mend()
    a.until(link="paired", role="secondary", data="UPTODATE")
    assert a.tree() == b.tree() and not (a.directories[0] / "waits").exists()


def test_a_frozen_primary_of_hactld_asks_when_it_is_told_to(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    assert a.mount("primary", "--on-peer-loss", "freeze").returncode == exit_codes.DONE
    assert b.mount("secondary", "--on-peer-loss", "freeze").returncode == exit_codes.DONE
    a.until(link="paired")
    until_witness(a, state="ok", armed=True)
    b.kill()
    a.until(link="frozen", needs_grant=True)
    with BlockingClient(str(a.state), timeout_s=20.0) as client:
        assert client.call("grant", {"reason": "the peer is silent"})["link"] == "alone"
    register = until_witness(a, state="ok")["register"]
    assert register["generation"] == a.status()["generation"]  # type: ignore[index]


def test_a_primary_goes_on_by_the_witness_and_its_peer_does_not(paired: tuple[Node, Node]) -> None:
    """A paused peer is as good as one behind a cut cable, and it wakes with what it knew."""
    a, b = paired
    send(b, signal.SIGSTOP)
    a.until(link="alone", mode="unused")
    (a.directories[0] / "alone").write_text("a's")
    a.kill()
    send(b, signal.SIGCONT)
    b.until(link="connecting")
    refused = b.run("promote")
    assert refused.returncode == exit_codes.REFUSED and "witness" in refused.stderr
    assert b.status()["role"] == "secondary"
    assert a.mount("primary").returncode == exit_codes.DONE  # the sole owner needs nobody
    a.until(link="paired")
    assert a.tree() == b.tree()


def test_a_witness_that_is_away_changes_nothing_while_the_pair_is_healthy(paired: tuple[Node, Node], witness: EtcdServer) -> None:
    a, b = paired
    witness.stop()
    until_witness(a, state="unreachable")
    (a.directories[0] / "file").write_text("mirrored all the same")
    assert a.status()["link"] == "paired" and [warning["code"] for warning in a.status()["warnings"]] == ["WITNESS"]  # type: ignore[attr-defined]
    assert a.run("demote").returncode == exit_codes.DONE
    assert b.run("promote").returncode == exit_codes.DONE
    b.until(link="paired", role="primary")
    assert a.run("unmount").returncode == exit_codes.DONE  # an orderly leave needs no grant
    b.until(link="alone")
    (b.directories[0] / "alone").write_text("b's")


def test_without_a_witness_a_lost_peer_freezes_until_it_is_back(paired: tuple[Node, Node], witness: EtcdServer) -> None:
    a, b = paired
    witness.stop()
    b.kill()
    a.until(link="frozen", needs_grant=True)
    outcome: list[str] = []
    writer = write_in_background(a.directories[0] / "waits", outcome)
    for _ in range(100):
        reason = str(a.status()["reason"])
        if "cannot be reached" in reason:
            break
    assert "witness" in reason and "Connection refused" in reason
    assert not outcome
    refused = a.run("promote")
    assert refused.returncode != exit_codes.DONE and "cannot be reached" in refused.stderr
    witness.start()
    a.until(link="alone")
    writer.join(20)
    assert outcome == ["acknowledged"]


def test_an_emptied_register_grants_nothing_until_it_is_armed(paired: tuple[Node, Node], witness: EtcdServer) -> None:
    a, b = paired
    witness.lose_memory()
    until_witness(a, state="empty", armed=True)
    b.kill()
    a.until(link="frozen", needs_grant=True)
    refused = a.run("promote")
    assert refused.returncode == exit_codes.REFUSED and "arm --force" in refused.stderr
    assert a.run("witness", "arm").returncode == exit_codes.REFUSED
    assert a.run("witness", "arm", "--force").returncode == exit_codes.DONE
    a.until(link="alone")
    assert b.mount("secondary").returncode == exit_codes.DONE
    a.until(link="paired")
    assert a.tree() == b.tree()


def test_a_restarted_pair_of_which_one_never_returns(paired: tuple[Node, Node]) -> None:
    """Without a witness only force helps here."""
    a, b = paired
    a.kill()
    b.kill()
    assert b.mount("secondary", "--timeout", "0.5").returncode == exit_codes.TIMEOUT
    assert b.status()["data"] == "CONSISTENT"
    assert b.run("promote").returncode == exit_codes.DONE
    (b.directories[0] / "alone").write_text("b's")
    assert a.mount("primary").returncode == exit_codes.DONE
    a.until(link="paired", role="secondary")
    assert a.tree() == b.tree()


def test_force_writes_over_the_witness(paired: tuple[Node, Node]) -> None:
    a, b = paired
    send(b, signal.SIGSTOP)
    a.until(link="alone")
    (a.directories[0] / "alone").write_text("a's")
    a.kill()
    send(b, signal.SIGCONT)
    b.until(link="connecting")
    assert b.run("promote", "--force").returncode == exit_codes.DONE
    assert until_witness(b, state="ok")["register"]["generation"] == b.status()["generation"]  # type: ignore[index]
    assert a.mount("primary", "--timeout", "10").returncode in (exit_codes.DONE, exit_codes.REFUSED)
    b.until(link="diverged")
