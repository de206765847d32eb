"""One door for all peers: what comes from a peer's address is that peer's or nobody's, and what comes from elsewhere is counted."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from orchestrator import peer
from orchestrator.core.events import Heartbeat, PeerTold
from orchestrator.core.states import Summary
from orchestrator.doors import CallDoor, PulseDoor
from orchestrator.heartbeat import Heartbeats, Network
from orchestrator.seal import Secrets
from rfs.keys import KeyStore
from tests.unit.keyring import make_keys, pair_keys

ADDRESS = {node: f"127.0.3.{number}" for number, node in enumerate(("node1", "node2", "node3"), start=1)}


def free_port(kind: socket.SocketKind = socket.SOCK_DGRAM) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def network(here: str, there: str) -> Network:
    return Network("lan", ADDRESS[here], ADDRESS[there])


def backup_and_primaries(path: Path) -> dict[str, KeyStore]:
    """node3 is paired with both others, and they are not with each other."""
    keys = {node: make_keys(path, node) for node in ADDRESS}
    for node in ("node1", "node2"):
        pair_keys(keys["node3"], keys[node])
    return keys


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not condition():
            await trio.sleep(0.005)


Heard = list[Heartbeat | PeerTold]


def beats(here: str, there: str, port: int, keys: KeyStore | None, heard: Heard) -> Heartbeats:
    return Heartbeats(
        cluster="plant7", node=here, peer=there, boot="boot", incarnation=int(here[-1]) * 100, networks=(network(here, there),),
        interval_s=0.02, say=lambda: {f"{here}-{there}": Summary()}, deliver=heard.append, log=[].append,
        secrets=Secrets(keys, there), port=port,
    )  # fmt: skip


async def at_door(door: PulseDoor, *all_beats: Heartbeats, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    for each in all_beats:
        for one in each.networks:
            door.expect(one, partial(each.hear, one))
    async with trio.open_nursery() as nursery:
        await nursery.start(door.run)
        for each in all_beats:
            nursery.start_soon(each.run, door.sockets_of(each.networks))
        task_status.started()


async def test_each_peer_is_heard_by_its_own_pair(tmp_path: Path) -> None:
    port, keys = free_port(), backup_and_primaries(tmp_path)
    heard: dict[tuple[str, str], Heard] = {
        pair: [] for pair in (("node3", "node1"), ("node3", "node2"), ("node1", "node3"), ("node2", "node3"))
    }
    made = {pair: beats(*pair, port, keys[pair[0]], heard[pair]) for pair in heard}
    logged = list[str]()
    async with trio.open_nursery() as nursery:
        await nursery.start(at_door, PulseDoor(logged.append, port), made["node3", "node1"], made["node3", "node2"])
        await nursery.start(at_door, PulseDoor(logged.append, port), made["node1", "node3"])
        await nursery.start(at_door, PulseDoor(logged.append, port), made["node2", "node3"])
        await until(lambda: all(len(events) > 2 for events in heard.values()))
        nursery.cancel_scope.cancel()
    for (here, there), events in heard.items():
        assert {event.incarnation for event in events} == {int(there[-1]) * 100}
        assert set(events[-1].modules) == {f"{there}-{here}"}
    assert logged == []


async def test_no_peer_can_speak_for_another(tmp_path: Path) -> None:
    """node2, a member of the cluster with a key of its own, sends from node1's address."""
    port, keys = free_port(), backup_and_primaries(tmp_path)
    from_one, from_two = Heard(), Heard()
    pair_one, pair_two = beats("node3", "node1", port, keys["node3"], from_one), beats("node3", "node2", port, keys["node3"], from_two)
    forger = Heartbeats(
        cluster="plant7", node="node1", peer="node3", boot="boot", incarnation=7, networks=(network("node1", "node3"),), interval_s=0.02,
        say=dict, deliver=[].append, log=[].append, secrets=Secrets(keys["node2"], "node3"), port=port,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        await nursery.start(at_door, PulseDoor([].append, port), pair_one, pair_two)
        await nursery.start(at_door, PulseDoor([].append, port), forger)
        await until(lambda: pair_one.dropped["not-authentic on lan"] >= 5)
        nursery.cancel_scope.cancel()
    assert from_one == from_two == []
    assert not pair_two.dropped.keys() & {"not-authentic on lan", "malformed on lan"}


async def test_strangers_at_the_pulse_door() -> None:
    """Nor is a peer's address known that comes in where it is not expected: on another network's socket."""
    port, logged, heard = free_port(), list[str](), list[bytes]()
    door = PulseDoor(logged.append, port)
    door.expect(Network("lan", "127.0.3.3", "127.0.3.1"), heard.append)
    door.expect(Network("repl", "127.0.4.3", "127.0.4.1"), heard.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(door.run)
        for source, target in (("127.0.3.9", "127.0.3.3"), ("127.0.3.1", "127.0.4.3"), ("127.0.3.1", "127.0.3.3")):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((source, 0))
                for _ in range(3):
                    sock.sendto(source.encode(), (target, port))
        await until(lambda: len(heard) == 3 and door.dropped.total() == 6)
        nursery.cancel_scope.cancel()
    assert heard == [b"127.0.3.1"] * 3
    assert dict(door.dropped) == {"unknown-address on lan": 3, "unknown-address on repl": 3}
    assert len(logged) == 2


def server(of: str, keys: KeyStore | None) -> peer.PeerServer:
    async def handle(method: str, parameters: peer.Message, pin: str) -> peer.Message:
        return {"for": of}

    return peer.PeerServer("plant7", of, handle, keys, [].append)


async def test_a_call_is_answered_by_the_server_of_its_peer(tmp_path: Path) -> None:
    port, keys, logged = free_port(socket.SOCK_STREAM), backup_and_primaries(tmp_path), list[str]()
    door, servers = CallDoor(logged.append, port), {node: server(node, keys["node3"]) for node in ("node1", "node2")}
    for node, each in servers.items():
        door.expect(network("node3", node), each.serve)
    async with trio.open_nursery() as nursery:
        await nursery.start(door.run)
        for node in servers:
            client = peer.PeerClient("plant7", node, "node3", (network(node, "node3"),), keys[node], port)
            assert await client.call("hello", {}, 5.0) == {"for": node}
        forger = peer.PeerClient("plant7", "node1", "node3", (network("node1", "node3"),), keys["node2"], port)
        with pytest.raises(peer.PeerUnreachable):
            await forger.call("hello", {}, 5.0)
        assert dict(servers["node1"].refused) == {"wrong-key": 1} and not servers["node2"].refused
        for _ in range(2):
            stranger = peer.PeerClient("plant7", "node1", "node3", (Network("lan", "127.0.3.9", "127.0.3.3"),), keys["node1"], port)
            with pytest.raises(peer.PeerUnreachable):
                await stranger.call("hello", {}, 5.0)
        assert dict(door.refused) == {"unknown-address": 2} and len(logged) == 1
        nursery.cancel_scope.cancel()


async def test_a_flood_at_one_peers_server_keeps_no_other_out(tmp_path: Path) -> None:
    """Connections that say nothing are counted for the peer from whose address they come."""
    port, keys = free_port(socket.SOCK_STREAM), backup_and_primaries(tmp_path)
    door, servers = CallDoor([].append, port), {node: server(node, keys["node3"]) for node in ("node1", "node2")}
    for node, each in servers.items():
        door.expect(network("node3", node), each.serve)
    async with trio.open_nursery() as nursery:
        await nursery.start(door.run)
        silent = [socket.socket() for _ in range(peer.HALF_OPEN_MAX + 2)]
        for sock in silent:
            sock.bind((ADDRESS["node1"], 0))
            sock.connect((ADDRESS["node3"], port))
        await until(lambda: servers["node1"].refused["too-many"] == 2)
        client = peer.PeerClient("plant7", "node2", "node3", (network("node2", "node3"),), keys["node2"], port)
        assert await client.call("hello", {}, 5.0) == {"for": "node2"}
        for sock in silent:
            sock.close()
        nursery.cancel_scope.cancel()
