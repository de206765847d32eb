"""The pulse over loopback, the call channel, and what strangers can do to both: nothing."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio
import trio.testing

from orchestrator import peer, pulse
from orchestrator.core.detector import Detector
from orchestrator.core.events import Heartbeat, PeerTold
from orchestrator.core.states import Readiness, State, Summary
from orchestrator.doors import CallDoor, PulseDoor
from orchestrator.heartbeat import FirstHeard, Heartbeats, Network
from orchestrator.pulse import BadPulse, Pulse, Share, Speech, decode, encode
from orchestrator.seal import UNPROVEN_MAX, Sealer, Secrets
from rfs import tls
from rfs.control import protocol
from rfs.keys import NEXT, KeyStore
from tests.unit.keyring import paired_keys

SUMMARY = Summary(state=State.PRIM, readiness=Readiness.READY, data="UPTODATE", role="primary", term=3, serves=True, rfs_alive=True)
PULSE = Pulse("plant7", "node1", "boot", 7, 12, {b"r" * 16: 11}, Share(modules={"pg": SUMMARY}))
HERE, THERE = Network("lan", "127.0.0.11", "127.0.0.12"), Network("lan", "127.0.0.12", "127.0.0.11")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def make(
    network: Network, port: int, events: list[Heartbeat], logged: list[str], keys: KeyStore | None = None, incarnation: int = 0,
    modules: Mapping[str, Summary] | None = None,
) -> Heartbeats:  # fmt: skip
    node, other = ("node1", "node2") if network is HERE else ("node2", "node1")

    def deliver(event: Heartbeat | PeerTold) -> None:
        assert isinstance(event, Heartbeat)
        events.append(event)

    said = {"pg": SUMMARY} if modules is None else modules
    return Heartbeats(
        cluster="plant7", node=node, peer=other, boot="boot", networks=(network,),
        incarnation=incarnation or (100 if network is HERE else 200),
        interval_s=0.02, say=lambda: said, deliver=deliver, log=logged.append, port=port,
        secrets=Secrets(keys, other),
    )  # fmt: skip


Start = Callable[..., Awaitable[None]]


def at_door(beats: Heartbeats, door: PulseDoor | None = None) -> Start:
    """What runs these heartbeats at a door of their own."""
    door = door or PulseDoor(beats.log, beats.port)
    for network in beats.networks:
        door.expect(network, partial(beats.hear, network))

    async def run(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(door.run)
            task_status.started()
            await beats.run(door.sockets_of(beats.networks))

    return run


def listening(server: peer.PeerServer, port: int) -> Start:
    """What answers calls with this server at a door of its own."""
    door = CallDoor([].append, port)
    door.expect(HERE, server.serve)
    return door.run


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not condition():
            await trio.sleep(0.005)


def test_a_pulse_survives_the_wire() -> None:
    assert decode(encode(PULSE), "plant7", "node1") == PULSE


WATCHED = replace(SUMMARY, catalogue=2**32 - 1, up=2**60 - 2, down=1, unfit=True)


def test_what_checkers_found_goes_beside_the_summaries() -> None:
    said = replace(PULSE, share=Share(modules={"pg": WATCHED, "quiet": SUMMARY}))
    assert decode(encode(said), "plant7", "node1") == said
    document = msgpack.unpackb(encode(said))
    assert document["lockstep"] == pulse.VERSION == 3, "a release that does not know it still hears this node"
    assert all(len(summary) == 5 + len(pulse.TEXTS) for summary in msgpack.unpackb(document["modules"]).values())
    assert list(msgpack.unpackb(document["resources"])) == ["pg"]


def test_a_release_that_says_nothing_of_checkers_is_heard_and_nothing_is_known_of_them() -> None:
    document = msgpack.unpackb(encode(replace(PULSE, share=Share(modules={"pg": WATCHED}))))
    del document["resources"]
    assert decode(msgpack.packb(document), "plant7", "node1").share.modules == {"pg": SUMMARY}
    assert pulse.with_resources({"pg": SUMMARY}, None) == {"pg": SUMMARY}
    assert pulse.with_resources({"pg": SUMMARY}, pulse.resources_to_wire({"pg": WATCHED})) == {"pg": WATCHED}


@pytest.mark.parametrize("count", [0, 1, 12, 32, 64])
def test_no_datagram_is_cut_into_pieces_by_any_path(count: int) -> None:
    """However many modules, and whatever is said of them; together the datagrams say it all, each about a range of its own."""
    long = Summary(state=State.WAIT, readiness=Readiness.TRANSIENT, data="INCONSISTENT", generation="f" * 16, reason="\u00fc" * 5000,
                   catalogue=2**32 - 1, up=2**60 - 2, down=1, unfit=True)  # fmt: skip
    modules = {f"{number:02}" + "m" * 30: long for number in range(count)}
    cluster, node, echoes = "c" * 64, "n" * 63, {bytes([run]) * 16: 2**63 for run in range(pulse.ECHOES_MAX)}
    known: dict[str, Summary] = {}
    upto = ""
    for share, packed in Speech(cluster, node, "b" * 36).parts(modules):
        data = encode(Pulse(cluster, node, "b" * 36, 2**63, 2**63, echoes, share), packed)
        assert len(data) <= pulse.PULSE_BYTES_MAX
        heard = decode(data, cluster, node).share
        assert heard.after == upto
        known, upto = {**known, **heard.modules}, heard.upto
    assert upto == "" and list(known) == list(modules)
    assert all(len(summary.reason.encode()) == pulse.REASON_BYTES_MAX for summary in known.values())


def test_32_modules_are_three_datagrams() -> None:
    usual = replace(SUMMARY, generation="9f3c61d0a2b47e15", link="paired", service="on")
    assert len(Speech("plant7", "node1", "b" * 36).parts({f"module{number}": usual for number in range(32)})) == 3


def test_what_is_said_is_packed_once() -> None:
    speech = Speech("plant7", "node1", "boot")
    first = speech.parts({"pg": SUMMARY})
    assert speech.parts({"pg": replace(SUMMARY)}) is first
    assert speech.parts({"pg": replace(SUMMARY, term=4)})[0][0].modules["pg"].term == 4


def altered(**changes: Any) -> bytes:
    document = msgpack.unpackb(encode(PULSE))
    document.update(changes)
    packed: bytes = msgpack.packb(document)
    return packed


def summaries(wire: Any) -> bytes:
    return altered(modules=msgpack.packb(wire))


def spoiled(place: int, value: Any) -> list[Any]:
    wire = pulse.summary_to_wire(SUMMARY)
    wire[place] = value
    return wire


SPOILED_RESOURCES: tuple[tuple[str, Any], ...] = (
    ("web", [1, 0, 0, 0]),  # a module that is not spoken of
    ("pg", [1, 0, 0]),
    ("pg", [1, 0, 0, 2]),
    ("pg", [1, True, 0, 0]),
    ("pg", [1, 3, 2, 0]),  # up and down at once
    ("pg", [1, -1, 0, 0]),
    ("pg", [1, 2**63, 0, 0]),
    ("pg", "up"),
)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "malformed"),
        (b"\xff" * 40, "malformed"),
        (msgpack.packb([1, 2]), "malformed"),
        (b"x" * 9000, "too-long"),
        (altered(lockstep=2), "other-version"),
        (altered(cluster="plant8"), "other-cluster"),
        (altered(node="node3"), "unknown-node"),
        (altered(counter=-1), "malformed"),
        (altered(counter="5"), "malformed"),
        (altered(incarnation=True), "malformed"),
        (altered(modules=[]), "malformed"),
        (altered(modules={"pg": pulse.summary_to_wire(SUMMARY)}), "malformed"),
        (altered(modules=b"\xff"), "malformed"),
        (altered(range=["a"]), "malformed"),
        (altered(range=["q", ""]), "malformed"),
        (altered(range=["", "p"]), "malformed"),
        (altered(range=["", "x" * 65]), "malformed"),
        (altered(echoes={}), "malformed"),
        (altered(echoes=[[b"short", 1]]), "malformed"),
        (altered(echoes=[[b"r" * 16, True]]), "malformed"),
        (altered(echoes=[[b"r" * 16, -1]]), "malformed"),
        (altered(echoes=[[b"r" * 16, 1]] * 5), "malformed"),
        *((altered(resources=wire), "malformed") for wire in ({}, [], b"\xff", msgpack.packb([1]))),
        *((altered(resources=msgpack.packb({name: wire})), "malformed") for name, wire in SPOILED_RESOURCES),
        (summaries({"pg": {}}), "malformed"),
        (summaries({"": pulse.summary_to_wire(SUMMARY)}), "malformed"),
        (summaries({"pg": [*pulse.summary_to_wire(SUMMARY), 1]}), "malformed"),
        (summaries({"pg": spoiled(0, "GOD")}), "malformed"),
        (summaries({"pg": spoiled(0, ["STOP"])}), "malformed"),
        (summaries({"pg": spoiled(2, 1 << 7)}), "malformed"),
        (summaries({"pg": spoiled(2, True)}), "malformed"),
        (summaries({"pg": spoiled(3, "9")}), "malformed"),
        (summaries({"pg": spoiled(4, 5)}), "malformed"),
        (summaries({"pg": spoiled(4, "x" * 41)}), "malformed"),
        (summaries({"pg": spoiled(-1, "x" * 201)}), "malformed"),
    ],
)
def test_what_is_no_pulse_is_named(data: bytes, kind: str) -> None:
    with pytest.raises(BadPulse) as bad:
        decode(data, "plant7", "node1")
    assert bad.value.kind == kind


def test_flipped_bytes_never_escape_as_anything_else() -> None:
    chance, good = random.Random(5), bytearray(encode(PULSE))
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            decode(bytes(data), "plant7", "node1")
        except BadPulse:
            pass


async def test_two_nodes_hear_each_other_and_the_echo() -> None:
    port, at_one, at_two = free_port(), list[Heartbeat](), list[Heartbeat]()
    async with trio.open_nursery() as nursery:
        one, two = make(HERE, port, at_one, []), make(THERE, port, at_two, [])
        await nursery.start(at_door(one))
        await nursery.start(at_door(two))
        await until(lambda: any(event.echo > 0 for event in at_one) and any(event.echo > 0 for event in at_two))
        assert at_two[0].modules == {"pg": SUMMARY}
        assert at_one[0].incarnation == 200
        counters = [event.counter for event in at_two]
        assert counters == sorted(counters)
        nursery.cancel_scope.cancel()


async def test_many_modules_arrive_whole() -> None:
    port, at_one, at_two = free_port(), list[Heartbeat](), list[Heartbeat]()
    modules = {f"module{number}": replace(SUMMARY, term=number) for number in range(64)}
    async with trio.open_nursery() as nursery:
        await nursery.start(at_door(make(HERE, port, at_one, [], modules=modules)))
        await nursery.start(at_door(make(THERE, port, at_two, [])))
        await until(lambda: bool(at_two) and at_two[-1].modules == modules)
        heard = len(at_two)
        await until(lambda: len(at_two) > heard + 10)
        assert all(event.modules is at_two[heard].modules for event in at_two[heard:]), "nothing new is the same object"
        nursery.cancel_scope.cancel()


async def test_strangers_are_counted_and_logged_once() -> None:
    port, events, logged = free_port(), list[Heartbeat](), list[str]()
    async with trio.open_nursery() as nursery:
        beats, door = make(HERE, port, events, logged), PulseDoor(logged.append, port)
        await nursery.start(at_door(beats, door))
        for source, data in (("127.0.0.99", encode(PULSE)), ("127.0.0.12", b"garbage")):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((source, 0))
                for _ in range(20):
                    sock.sendto(data, (HERE.here, port))
        await until(lambda: door.dropped["unknown-address on lan"] + beats.dropped["malformed on lan"] == 40)
        assert events == []
        assert len([line for line in logged if "from" in line]) == 2
        nursery.cancel_scope.cancel()


async def test_keys_that_cannot_be_read_are_why_nothing_is_sent(tmp_path: Path) -> None:
    one, _ = paired_keys(tmp_path)
    one.identity_path.chmod(0o644)
    logged = list[str]()
    async with trio.open_nursery() as nursery:
        beats = make(HERE, free_port(), [], logged, one)
        await nursery.start(at_door(beats))
        await until(lambda: beats.dropped["nothing is sent"] > 1)
        assert len(logged) == 1 and "chmod 600" in logged[0]
        nursery.cancel_scope.cancel()


async def test_with_keys_only_the_peer_is_heard(tmp_path: Path) -> None:
    """Nor one with keys of its own, nor one without, nor what was recorded: neither in this run of ours nor in an earlier one."""
    one, two = paired_keys(tmp_path)
    stranger = KeyStore(tmp_path / "stranger")
    stranger.make("node2")
    stranger.pin("node1", one.own().known.certificate)
    port, events, logged = free_port(), list[Heartbeat](), list[str]()
    recorded: list[bytes] = []
    async with trio.open_nursery() as nursery:
        here = make(HERE, port, events, logged, one)
        listen = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        await listen.bind((HERE.here, port))
        async with trio.open_nursery() as earlier:  # somebody records what the peer says to a node1 of before
            await earlier.start(at_door(make(THERE, port, [], [], two, 300)))
            for _ in range(5):
                recorded.append((await listen.recvfrom(9000))[0])
            earlier.cancel_scope.cancel()
        listen.close()
        await nursery.start(at_door(here))
        for keys in (stranger, None):
            async with trio.open_nursery() as other:
                await other.start(at_door(make(THERE, port, [], [], keys, 400)))
                await until(lambda: here.dropped["not-authentic on lan"] >= 5)
                other.cancel_scope.cancel()
            here.dropped.clear()
        sender = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        await sender.bind((THERE.here, 0))
        for data in recorded * 3:
            await sender.sendto(data, (HERE.here, port))
        await until(lambda: here.dropped["replayed on lan"] == 10)
        assert events == [], "a run that was only recorded cannot prove that it is there"
        await nursery.start(at_door(make(THERE, port, [], [], two, 200)))
        await until(lambda: len(events) > 3)
        assert {event.incarnation for event in events} == {200}
        nursery.cancel_scope.cancel()
    sender.close()


async def test_keys_are_replaced_and_revoked_under_the_pulse(tmp_path: Path) -> None:
    one, two = paired_keys(tmp_path)
    port, at_one, at_two = free_port(), list[Heartbeat](), list[Heartbeat]()

    async def go_on() -> None:
        counts = len(at_one), len(at_two)
        await until(lambda: len(at_one) > counts[0] + 3 and len(at_two) > counts[1] + 3)

    async with trio.open_nursery() as nursery:
        await nursery.start(at_door(make(HERE, port, at_one, [], one)))
        await nursery.start(at_door(make(THERE, port, at_two, [], two)))
        await go_on()
        staged = two.make("node2", name=NEXT)
        await go_on()
        one.pin("node2", staged.known.certificate)
        await go_on()
        two.activate_next()
        await go_on()
        one.proven("node2", staged.known.pin)
        two.drop_former()
        await go_on()
        echoes = [event.echo for event in at_one]
        assert echoes[5:] == sorted(echoes[5:]) and echoes[-1] > 0, "the peer hears us all the while"
        one.forget("node2")
        await trio.sleep(0.1)
        counts = len(at_one), len(at_two)
        await trio.sleep(0.2)
        assert (len(at_one), len(at_two)) == counts, "nothing is believed of a revoked key, and nothing is said to it"
        nursery.cancel_scope.cancel()


def test_a_pulse_that_was_held_back_stands_for_the_time_when_it_was_said() -> None:
    """One network is healthy until the peer dies at 100 s; on the other one everything since 10 s was stored and is let go bit by bit."""
    heard, detector = FirstHeard(), Detector.new(("lan", "repl"), 3.0, 0.0)
    for counter in range(1, 201):
        at = heard.note(counter, counter * 0.5)
        detector = detector.heard("repl", 7, counter, counter, at)
        if counter <= 20:
            detector = detector.heard("lan", 7, counter, counter, at)
    assert not detector.silent(101.0)
    for released in range(21, 200):
        now = 100.0 + (released - 20) * 2.0
        detector = detector.heard("lan", 7, released, released, heard.note(released, now))
        assert detector.silent(now) is (now - 100.0 >= 3.0), "the death is seen all the same"


async def test_who_begins_anew_with_every_datagram_is_not_remembered() -> None:
    """Whoever has the peer's key could fill the memory with a number for each of its runs."""
    ours = make(HERE, 1, [], [])
    for number in range(3 * UNPROVEN_MAX):
        theirs = Sealer(Secrets(None, "node1"), "node2")
        theirs.renew()
        text = encode(replace(PULSE, node="node2", counter=number, echoes={}))
        ours.hear(HERE, theirs.seal(text, 0, HERE.name, number))
    assert not ours.dropped
    assert len(ours._opener.unproven) <= UNPROVEN_MAX and len(ours._newest) <= UNPROVEN_MAX


async def test_a_flood_from_forged_addresses_is_one_line() -> None:
    port, logged = free_port(), list[str]()
    async with trio.open_nursery() as nursery:
        door = PulseDoor(logged.append, port)
        await nursery.start(at_door(make(HERE, port, [], logged), door))
        for last in range(1, 255):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((f"127.0.9.{last}", 0))
                sock.sendto(b"garbage", (HERE.here, port))
        await until(lambda: door.dropped["unknown-address on lan"] == 254)
        assert len([line for line in logged if "dropped" in line and "send on" not in line]) == 1
        nursery.cancel_scope.cancel()


# ---- the call channel ---------------------------------------------------------------------------------------------------------------


async def handle(method: str, parameters: peer.Message, pin: str) -> peer.Message:
    if method == "refuse":
        raise peer.PeerRefused("no", 6)
    if method == "hang":
        await trio.sleep_forever()
    if method == "tell everything":
        return {"lines": ["x" * 600] * 2000}
    return {"method": method, **parameters}


async def test_calls() -> None:
    port = free_port()
    server = peer.PeerServer("plant7", "node2", handle, None, [].append)
    dead = Network("repl", "127.0.0.12", "127.0.0.13")
    client = peer.PeerClient("plant7", "node2", "node1", (dead, THERE), None, port)
    async with trio.open_nursery() as nursery:
        await nursery.start(listening(server, port))
        assert await client.call("hello", {"a": 1}, 5.0) == {"method": "hello", "a": 1}
        with pytest.raises(peer.PeerRefused) as refused:
            await client.call("refuse", {}, 5.0)
        assert refused.value.code == 6
        with pytest.raises(peer.PeerUnreachable):
            await client.call("hang", {}, 0.1)
        with pytest.raises(peer.PeerRefused, match="ask for less"):
            await client.call("tell everything", {}, 5.0)
        for cluster, node in (("plant8", "node2"), ("plant7", "node3")):
            wrong = peer.PeerClient(cluster, node, "node1", (THERE,), None, port)
            with pytest.raises(peer.PeerRefused):
                await wrong.call("hello", {}, 5.0)
        nursery.cancel_scope.cancel()
    with pytest.raises(peer.PeerUnreachable):
        await client.call("hello", {}, 5.0)


async def test_calls_with_keys(tmp_path: Path) -> None:
    port, logged = free_port(), list[str]()
    one, two = paired_keys(tmp_path)
    stranger = KeyStore(tmp_path / "stranger")
    stranger.make("node2")
    stranger.pin("node1", one.own().known.certificate)
    server = peer.PeerServer("plant7", "node2", handle, one, logged.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(listening(server, port))
        client = peer.PeerClient("plant7", "node2", "node1", (THERE,), two, port)
        assert await client.call("hello", {"a": 1}, 5.0) == {"method": "hello", "a": 1}
        for keys in (stranger, None):
            for _ in range(2):
                with pytest.raises(peer.PeerUnreachable):
                    await peer.PeerClient("plant7", "node2", "node1", (THERE,), keys, port).call("hello", {}, 5.0)
        assert dict(server.refused) == {"wrong-key": 2, "not-tls": 2}
        assert len(logged) == 2
        assert await client.call("hello", {}, 5.0) == {"method": "hello"}
        nursery.cancel_scope.cancel()


async def test_a_key_that_is_revoked_meanwhile_asks_nothing(tmp_path: Path) -> None:
    """A connection that was proven before, and keeps silent until its key is revoked."""
    port, asked = free_port(), list[str]()

    async def handle_it(method: str, parameters: peer.Message, pin: str) -> peer.Message:
        asked.append(method)
        return {}

    one, two = paired_keys(tmp_path)
    server = peer.PeerServer("plant7", "node2", handle_it, one, [].append)
    async with trio.open_nursery() as nursery:
        await nursery.start(listening(server, port))
        sock = trio.socket.socket()
        await sock.bind((THERE.here, 0))
        await sock.connect((HERE.here, port))
        secured, _ = await tls.secure(trio.SocketStream(sock), two, ["node1"], dialed=True)
        await trio.testing.wait_all_tasks_blocked(0.05)
        one.forget("node2")
        question = {"lockstep": peer.VERSION, "cluster": "plant7", "node": "node2", "method": "pin", "params": {}}
        await peer.send(secured, question)
        await until(lambda: server.refused["revoked"] == 1)
        assert asked == []
        nursery.cancel_scope.cancel()


async def test_a_few_silent_callers_do_not_keep_the_peer_out_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfs.tls.HANDSHAKE_TIMEOUT_S", 0.3)
    port = free_port()
    one, two = paired_keys(tmp_path)
    server = peer.PeerServer("plant7", "node2", handle, one, [].append)
    async with trio.open_nursery() as nursery:
        await nursery.start(listening(server, port))
        silent = []
        for _ in range(peer.HALF_OPEN_MAX + 2):
            sock = trio.socket.socket()
            await sock.bind((THERE.here, 0))
            await sock.connect((HERE.here, port))
            silent.append(sock)
        await until(lambda: server.refused["too-many"] == 2 and server.refused["silent"] == peer.HALF_OPEN_MAX)
        client = peer.PeerClient("plant7", "node2", "node1", (THERE,), two, port)
        assert await client.call("hello", {}, 5.0) == {"method": "hello"}
        for sock in silent:
            sock.close()
        nursery.cancel_scope.cancel()


async def test_garbage_on_the_call_port_drops_the_connection_only() -> None:
    port = free_port()
    server = peer.PeerServer("plant7", "node2", handle, None, [].append)
    client = peer.PeerClient("plant7", "node2", "node1", (THERE,), None, port)
    async with trio.open_nursery() as nursery:
        await nursery.start(listening(server, port))
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", struct.pack(">I", 4) + b"\xc1\xc1\xc1\xc1", struct.pack(">I", 1 << 31), b"\0"):
            sock = trio.socket.socket()
            await sock.bind((THERE.here, 0))
            await sock.connect((HERE.here, port))
            stream = trio.SocketStream(sock)
            await stream.send_all(garbage)
            await stream.send_eof()
            with trio.fail_after(5), suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""
        assert await client.call("hello", {}, 5.0) == {"method": "hello"}
        nursery.cancel_scope.cancel()


async def test_a_connection_reset_before_it_is_accepted_ends_nothing() -> None:
    port = free_port()
    server = peer.PeerServer("plant7", "node2", handle, None, [].append)
    client = peer.PeerClient("plant7", "node2", "node1", (THERE,), None, port)
    async with trio.open_nursery() as nursery:
        await nursery.start(listening(server, port))
        for _ in range(3):
            with socket.socket() as sock:  # blocking, on loopback: no task runs between the connection and its reset
                sock.bind((THERE.here, 0))
                sock.connect((HERE.here, port))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert await client.call("hello", {}, 5.0) == {"method": "hello"}
        nursery.cancel_scope.cancel()


async def test_a_name_that_is_not_utf_8_costs_no_answer() -> None:
    """A file's name may be any bytes, and gets into texts; such a one once cost the connection, and the asker took it for silence."""
    odd = os.fsdecode(b"caf\xe9")
    near, far = trio.testing.memory_stream_pair()
    await peer.send(near, {"result": {odd: [odd]}})
    assert await peer.receive(far) == {"result": {"caf?": ["caf?"]}}
    assert protocol.decode_body(protocol.encode({"result": odd})[protocol.HEADER.size :]) == {"result": "caf?"}
    summary = Summary(State.STOP, Readiness.NOT_READY, reason=odd)
    assert pulse.pack({"pg": summary})
