"""The wrong peer, garbage on the port, an empty source: one clear sentence or a dropped connection, and nothing lost."""

from __future__ import annotations

import os
import random
import socket
import struct

import pytest

from rfs import exit_codes
from tests.posix.node import Node, needs_mounts

pytestmark = [pytest.mark.mount, needs_mounts]


def test_a_peer_of_another_cluster_is_refused(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    assert a.mount("primary", "--cluster", "plant7").returncode == 0
    refused = b.mount("secondary", "--cluster", "plant8")
    assert refused.returncode == exit_codes.REFUSED
    assert "plant7" in refused.stderr and "plant8" in refused.stderr and len(refused.stderr.strip().splitlines()) == 1
    (a.directories[0] / "file").write_text("still serving")
    assert a.status()["link"] in ("alone", "refused")
    assert b.status()["code"] == "UNRELATED"


def test_garbage_on_the_port_is_dropped(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    assert a.mount("primary").returncode == 0
    assert b.mount("secondary").returncode == 0
    a.until(link="paired")
    chance = random.Random(1)
    host, port = a.options[1].split(":")
    for size in (0, 1, 79, 80, 4096, 100_000):
        with socket.create_connection((host, int(port)), 5) as connection:
            try:
                connection.sendall(chance.randbytes(size))
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(10)
                while connection.recv(4096):
                    pass
            except TimeoutError:
                raise  # it was not dropped
            except OSError:
                pass  # it was, and we had more to say
    (a.directories[0] / "file").write_text("mirrored all the while")
    assert a.status()["link"] == "paired"
    assert (b.directories[0] / "file").read_text() == "mirrored all the while"


def test_an_empty_source_never_overwrites_a_filled_target(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    (b.directories[0] / "precious").write_text("data")
    assert a.mount("primary").returncode == 0
    refused = b.mount("secondary")
    assert refused.returncode == exit_codes.REFUSED
    assert len(refused.stderr.strip().splitlines()) == 1
    assert b.status()["link"] == "refused"
    assert (b.directories[0] / "precious").read_text() == "data"


def test_replaced_data_is_kept(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    (a.directories[0] / "ours").write_text("new")
    (b.directories[0] / "precious").write_text("old")
    assert a.mount("primary").returncode == 0
    assert b.mount("secondary", "--replace-data").returncode == 0
    a.until(link="paired")
    assert sorted(os.listdir(b.directories[0])) == ["ours"]
    kept = [path for path in (b.state / "kept").rglob("*") if path.name == "precious"]
    assert [path.read_text() for path in kept] == ["old"]


def test_resets_before_the_first_word_harm_nobody(nodes: tuple[Node, Node]) -> None:
    """A port scanner, a load balancer's health check: connected and reset at once."""
    a, b = nodes
    assert a.mount("primary").returncode == 0
    host, port = a.options[1].split(":")
    for _ in range(20):
        connection = socket.create_connection((host, int(port)), 5)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    assert b.mount("secondary").returncode == 0
    a.until(link="paired")
