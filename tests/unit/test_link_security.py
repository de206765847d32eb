"""Who gets in at the port of rfsmount, with keys: the paired peer. Everybody else is counted, logged once, and costs little."""

import logging
import ssl
from pathlib import Path

import pytest
import trio

from rfs import handshake, tls
from rfs.control_link import ControlLink
from rfs.errors import PeerProtocolError, SaidNo
from rfs.handshake import Answer, Hello, Kind, Preamble
from rfs.keys import NEXT, KeyStore
from rfs.security import Security
from rfs.settings import Address
from rfs.supervisor import HALF_OPEN_MAX_PER_ADDRESS, Supervisor, listen_on
from tests.unit.keyring import make_keys, pair_keys, paired_keys

HERE = "127.0.0.1"
ONE = Hello("plant7", "pg", "node1", 7, "3f0b5c6e-boot", 0xABC)
TWO = Hello("plant7", "pg", "node2", 5, "aa0b5c6e-boot", 0xDEF)
SECURE = Preamble(Kind.CONTROL, secure=True)


class Host:
    def hello(self) -> Hello:
        return ONE

    def peer_refused(self, code: str, sentence: str) -> None:
        self.refused = code, sentence


class Port:
    """node1's port, with keys."""

    def __init__(self, keys: KeyStore, peer_host: str = HERE) -> None:
        self.security = Security(keys, "node2")
        self.sessions_in, self.sessions = trio.open_memory_channel[ControlLink](4)
        self.ended = trio.Event()
        self.supervisor = Supervisor(Host(), Address(HERE, 0), Address(peer_host, 1), self._enter, self.security)

    async def _enter(self, link: ControlLink) -> None:
        await self.sessions_in.send(link)
        try:
            await trio.sleep_forever()
        finally:
            self.ended.set()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        listener = await listen_on(Address(HERE, 0))
        self.number = listener.socket.getsockname()[1]
        task_status.started()
        await self.supervisor.run(listener)

    async def open(self, preamble: Preamble = SECURE) -> trio.SocketStream:
        stream = await trio.open_tcp_stream(HERE, self.number)
        assert await handshake.open_connection(stream, preamble) is Answer.ACCEPTED
        return stream

    async def call(self, keys: KeyStore, hello: Hello = TWO) -> Hello:
        """As the peer does it."""
        secured, _ = await tls.secure(await self.open(), keys, ["node1"], dialed=True)
        self.client = secured
        return await handshake.call(secured, hello)


@pytest.fixture
async def port(tmp_path: Path, nursery: trio.Nursery) -> Port:
    one, _ = paired_keys(tmp_path)
    made = Port(one)
    await nursery.start(made.run)
    return made


def keys_of(tmp_path: Path, node: str) -> KeyStore:
    return KeyStore(tmp_path / f"{node}.keys")


async def test_the_paired_peer_gets_in(tmp_path: Path, port: Port, nursery: trio.Nursery) -> None:
    assert (await port.call(keys_of(tmp_path, "node2"))).answer is Answer.ACCEPTED
    link = await port.sessions.receive()
    assert link.known is not None and link.known.node == "node2" and not port.security.refused
    nursery.cancel_scope.cancel()


async def refused(port: Port, kind: str, count: int = 1) -> None:
    with trio.fail_after(8):
        while port.security.refused[kind] < count:
            await trio.sleep(0.01)
    assert port.sessions.statistics().current_buffer_used == 0


async def test_a_key_that_is_not_paired(tmp_path: Path, port: Port, nursery: trio.Nursery) -> None:
    """Another cluster's node of the same name; the right cluster's third node; nobody's key at all."""
    one = port.security.keys
    assert one is not None
    namesake = KeyStore(tmp_path / "another-cluster")
    namesake.make("node2")
    namesake.pin("node1", one.own().known.certificate)
    third = make_keys(tmp_path, "node3")
    pair_keys(one, third)
    for count, keys in enumerate((namesake, third), start=1):
        with pytest.raises((PeerProtocolError, trio.BrokenResourceError)):
            await port.call(keys, TWO)
        await refused(port, "wrong-key", count)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    anonymous = trio.SSLStream(await port.open(), context, https_compatible=True)
    await anonymous.do_handshake()
    await refused(port, "no-key")
    nursery.cancel_scope.cancel()


async def test_a_node_that_calls_itself_otherwise(tmp_path: Path, port: Port, nursery: trio.Nursery) -> None:
    with pytest.raises(PeerProtocolError):
        await port.call(keys_of(tmp_path, "node2"), Hello("plant7", "pg", "node3", 5, "boot", 1))
    await refused(port, "wrong-name")
    nursery.cancel_scope.cancel()


async def test_plain_text_is_not_taken(port: Port, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        stream = await trio.open_tcp_stream(HERE, port.number)
        assert await handshake.open_connection(stream, Preamble(Kind.CONTROL, secure=False)) is Answer.NEEDS_TLS
        await stream.aclose()
    await refused(port, "plaintext", 3)
    assert sum("plaintext" in line for line in caplog.messages) == 1, "logged once"
    stream = await port.open()
    await stream.send_all(handshake.encode(TWO) * 3)  # promised TLS, and speaks plain
    await refused(port, "not-tls")
    nursery.cancel_scope.cancel()


async def test_tls_1_2_is_not_taken(tmp_path: Path, port: Port, nursery: trio.Nursery) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(keys_of(tmp_path, "node2").identity_path)
    with pytest.raises(trio.BrokenResourceError):
        await trio.SSLStream(await port.open(), context, https_compatible=True).do_handshake()
    await refused(port, "old-tls")
    nursery.cancel_scope.cancel()


async def test_an_expired_key_is_an_alarm_and_a_revoked_one_ends_the_session(tmp_path: Path, nursery: trio.Nursery) -> None:
    one, two = make_keys(tmp_path, "node1"), KeyStore(tmp_path / "old")
    two.make("node2", days=-1)
    pair_keys(one, two)
    port = Port(one)
    await nursery.start(port.run)
    assert (await port.call(two)).answer is Answer.ACCEPTED, "the clock has no say"
    await port.sessions.receive()
    assert any("node2 has expired" in alarm for alarm in port.security.alarms())
    one.forget("node2")
    with trio.fail_after(5):
        await port.ended.wait()
    with pytest.raises((PeerProtocolError, trio.BrokenResourceError)):
        await port.call(two)
    await refused(port, "not-paired")
    nursery.cancel_scope.cancel()


async def test_a_key_is_replaced_under_an_established_session(tmp_path: Path, port: Port, nursery: trio.Nursery) -> None:
    one, two = keys_of(tmp_path, "node1"), keys_of(tmp_path, "node2")
    await port.call(two)
    await port.sessions.receive()
    old = two.own().known.pin
    one.pin("node2", two.make("node2", name=NEXT).known.certificate)
    two.activate_next()
    assert (await port.call(two)).answer is Answer.ACCEPTED
    assert [pinned.pin for pinned in one.trust().of("node2")] == [two.own().known.pin] != [old], "the old key counts no longer"
    nursery.cancel_scope.cancel()


async def test_those_who_say_nothing_are_few_and_go_after_a_while(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow-loris: from an address that is not the peer's; the peer still gets in at once."""
    one, two = paired_keys(tmp_path)
    monkeypatch.setattr(handshake, "HELLO_TIMEOUT_S", 0.5)
    monkeypatch.setattr("rfs.tls.HANDSHAKE_TIMEOUT_S", 0.5)
    port = Port(one, peer_host="127.0.0.2")
    await nursery.start(port.run)
    silent = [await trio.open_tcp_stream(HERE, port.number) for _ in range(HALF_OPEN_MAX_PER_ADDRESS)]
    await trio.testing.wait_all_tasks_blocked(0.05)
    more = await trio.open_tcp_stream(HERE, port.number)
    assert await more.receive_some() == b"", "no place for it"
    assert port.security.refused["too-many"] == 1
    stream = await trio.open_tcp_stream(HERE, port.number, local_address="127.0.0.2")
    assert await handshake.open_connection(stream, SECURE) is Answer.ACCEPTED
    secured, _ = await tls.secure(stream, two, ["node1"], dialed=True)
    assert (await handshake.call(secured, TWO)).answer is Answer.ACCEPTED
    await port.sessions.receive()
    await refused(port, "silent", HALF_OPEN_MAX_PER_ADDRESS)
    trickling = await port.open()  # the preamble, and then a byte now and then
    with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
        while True:
            await trickling.send_all(b"\x16")
            await trio.sleep(0.1)
    for stream in (*silent, more):
        await stream.aclose()
    nursery.cancel_scope.cancel()


def test_what_is_missing_is_one_sentence(tmp_path: Path) -> None:
    lonely = make_keys(tmp_path, "lonely")
    one, two = paired_keys(tmp_path)
    pair_keys(one, make_keys(tmp_path, "node3"))
    for keys, peer, node, words in (
        (KeyStore(tmp_path / "none"), "", "node1", "rfsmount keys init"),
        (lonely, "", "lonely", "is not paired with any peer"),
        (two, "", "node9", "is the key of node 'node2'"),
        (one, "", "node1", "name one with --peer-node"),
    ):
        with pytest.raises(SaidNo, match=words) as refusal:
            Security(keys).check(peer, node, "/state")
        assert "\n" not in refusal.value.sentence
    security = Security(one)
    security.check("node2", "node1", "/state")
    assert security.peer == "node2" and not security.alarms()
    one.forget("node2")
    security.check("node2", "node1", "/state")
    assert "no key of node2 is paired" in security.alarms()[0], "it serves without its peer, and says so"
