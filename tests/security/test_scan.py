"""The scan of a real rfsmount: its control link by whoever reaches the port, its data link by somebody on the path between both nodes."""

from __future__ import annotations

import contextlib
import queue
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rfs.handshake import PREAMBLE_BYTES, Answer, Kind, Preamble, decode_preamble, encode_preamble
from rfs.keys import KeyStore
from tests.posix.node import Node, free_address, know_each_other, needs_mounts
from tests.security import scan
from tests.security.scan import Connect, Probe, control_door, door, key_probe
from tests.unit.keyring import make_keys, pair_keys

pytestmark = [pytest.mark.mount, needs_mounts, pytest.mark.timeout(180)]

ELSEWHERE = "127.0.0.9"  # not the peer's address


def keys_of(node: Node) -> KeyStore:
    return KeyStore(node.state / "keys")


def place_of(address: str) -> tuple[str, int]:
    host, port = address.split(":")
    return host, int(port)


def counted(node: Node) -> dict[str, int]:
    found = node.status()["refused_connections"]
    assert isinstance(found, dict)
    return found


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[Node, Node, str, str]]:
    """Two nodes that know each other, and their addresses; neither runs."""
    here, there = free_address(), free_address()
    a, b = Node(tmp_path, "a", here, there), Node(tmp_path, "b", there, here)
    know_each_other(a, b)
    yield a, b, here, there
    b.clean()
    a.clean()


def test_the_control_link(sides: tuple[Node, Node, str, str], tmp_path: Path) -> None:
    """Everything that a scanner tries, by an address that is not the peer's, with the peer's key and with others."""
    a, b, here, _ = sides
    namesake = KeyStore(tmp_path / "another-cluster")
    namesake.make("b")
    third = make_keys(tmp_path, "c")
    pair_keys(keys_of(a), third)  # known here, as another node
    assert a.mount("primary", "--peer-node", "b").returncode == 0
    connect = control_door(*place_of(here), ELSEWHERE)
    found = scan.scan(connect, keys_of(b).identity_path, namesake.identity_path)
    found.append(key_probe("another node's valid key", connect, third.identity_path))
    assert scan.wrong_in(found) == [], found
    names = {probe.name for probe in found}
    assert {"plaintext", "TLSv1", "TLSv1_1", "TLSv1_2", "no key", "a stranger's key"} <= names
    assert {"right key", "tickets and compression", "resumption"} <= names
    assert "0-RTT" not in names or "offered: True" in {probe.text for probe in found}, "it had a ticket to try it with"
    refused = counted(a)
    assert refused["wrong-key"] >= 2 and refused["old-tls"] >= 3 and refused["no-key"] == 1 and refused["not-tls"] >= 1
    log = (a.state / "rfsmount.log").read_text()
    for kind in ("wrong-key", "old-tls", "no-key", "not-tls"):
        assert len(re.findall(rf"connection refused .*kind={kind} ", log)) == 1, f"{kind} is logged once"


def test_before_tls(sides: tuple[Node, Node, str, str]) -> None:
    """No plain text, nothing too long, nobody who says nothing, and not many of those."""
    a, _, here, _ = sides
    assert a.mount("primary").returncode == 0
    plain = Preamble(Kind.CONTROL, secure=False)
    told = encode_preamble(replace(plain, answer=Answer.NEEDS_TLS))
    door(*place_of(here), ELSEWHERE, encode_preamble(plain), told)().close()
    data = Preamble(Kind.DATA, secure=True, session=7)
    door(*place_of(here), ELSEWHERE, encode_preamble(data), encode_preamble(replace(data, answer=Answer.NO_SUCH_SESSION)))().close()
    with contextlib.closing(door(*place_of(here), ELSEWHERE)()) as raw, contextlib.suppress(OSError):
        raw.settimeout(5)
        raw.sendall(b"LOCKSTEP" * 100_000)
        assert raw.recv(100) == b""
    silent = [door(*place_of(here), ELSEWHERE)() for _ in range(12)]
    for one in silent:
        one.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert one.recv(1) == b"", "each is sent away: at once, or after five seconds"
        one.close()
    refused = counted(a)
    assert refused["plaintext"] == 1 and refused["no-session"] == 1 and refused["garbage"] >= 1
    assert refused["too-many"] == 4 and refused["silent"] == 8


def test_expired_and_revoked(sides: tuple[Node, Node, str, str], tmp_path: Path) -> None:
    """An expired key that is paired is let in, and an alarm; one that was revoked is not, from one connection to the next."""
    a, b, here, _ = sides
    old = KeyStore(tmp_path / "old")
    old.make("b", days=-1)
    keys_of(a).pin("b", old.own().known.certificate)
    assert a.mount("primary", "--peer-node", "b").returncode == 0
    connect = control_door(*place_of(here), ELSEWHERE)
    assert key_probe("expired", connect, old.identity_path).verdict == "accepted"
    warnings = a.status()["warnings"]
    assert isinstance(warnings, list) and any("expired" in warning["text"] for warning in warnings)
    keys_of(a).forget("b")
    for revoked in (old, keys_of(b)):
        assert key_probe("revoked", connect, revoked.identity_path).verdict == "refused"
    assert counted(a)["not-paired"] >= 2


class Between:
    """Somebody on the path: passes on what both say, and sees which session a data connection is for (a preamble is in the clear). As long
    as something is `wanted`, each data connection becomes its own; the real one never arrives."""

    def __init__(self, listen: str, target: str, dialer: KeyStore) -> None:
        self.target, self.identity = target, dialer.identity_path
        self.wanted: queue.Queue[Callable[[Connect, Path], Probe]] = queue.Queue()
        self.found: queue.Queue[Probe] = queue.Queue()
        self.listening = socket.create_server(place_of(listen))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                threading.Thread(target=self._pass_on, args=(self.listening.accept()[0],), daemon=True).start()
            except OSError:
                return

    def _pass_on(self, here: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            raw = here.recv(PREAMBLE_BYTES, socket.MSG_WAITALL)
            preamble = decode_preamble(raw)
            if preamble.kind is Kind.DATA and not self.wanted.empty():
                probe = self.wanted.get()
                granted = encode_preamble(replace(preamble, answer=Answer.ACCEPTED))
                self.found.put(probe(door(*place_of(self.target), "", raw, granted), self.identity))
                here.close()
                return
            there = socket.create_connection(place_of(self.target), 5)
            there.settimeout(None)
            there.sendall(raw)
            threading.Thread(target=pump, args=(there, here), daemon=True).start()
            pump(here, there)
        here.close()


def pump(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := one.recv(65536):
            other.sendall(piece)
    for each in (one, other):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def test_the_data_link(tmp_path: Path) -> None:
    """Whoever stands between has the session's number and the port; without the peer's key that is worth nothing, and plain text, an older
    TLS or somebody else's key end the attempt. When it stops, the two are a pair again, and nothing is lost."""
    a_listens, b_listens, a_dials, b_dials = (free_address() for _ in range(4))
    a, b = Node(tmp_path, "a", a_listens, a_dials), Node(tmp_path, "b", b_listens, b_dials)
    know_each_other(a, b)
    stranger = KeyStore(tmp_path / "stranger")
    stranger.make("b")
    paths = [Between(a_dials, b_listens, keys_of(a)), Between(b_dials, a_listens, keys_of(b))]
    probes: list[Callable[[Connect, Path], Probe]] = [
        lambda connect, _: scan.plain_probe(connect),
        lambda connect, own: scan.closed(scan.attempt("TLSv1", connect, scan.context_of(own, ssl.TLSVersion.TLSv1))),
        lambda connect, own: scan.closed(scan.attempt("TLSv1_2", connect, scan.context_of(own, ssl.TLSVersion.TLSv1_2))),
        lambda connect, _: key_probe("no key", connect, None),
        lambda connect, _: key_probe("a stranger's key", connect, stranger.identity_path),
        scan.ticket_probe,
        scan.resumption_probe,
    ]
    try:
        for probe in probes:
            for path in paths:
                path.wanted.put(probe)
        assert a.mount("primary").returncode == 0
        b.mount("secondary", "--timeout", "1")  # it will take longer: somebody meddles
        found = []
        dialed = None
        for _ in probes:
            for path in paths if dialed is None else [dialed]:
                with contextlib.suppress(queue.Empty):
                    found.append(path.found.get(timeout=20 if path is dialed or path is paths[-1] else 8))
                    dialed = path
                    break
        assert len(found) == len(probes) and scan.wrong_in(found) == [], found
        a.until(link="paired")
        (a.directories[0] / "file").write_text("after all that")
        assert a.tree() == b.tree()
        refused = counted(a).get("data-link", 0) + counted(b).get("data-link", 0)
        assert refused >= 5, (counted(a), counted(b))
    finally:
        b.clean()
        a.clean()
        for path in paths:
            path.listening.close()
