"""etcd's gateway, the real one; and whatever else may answer at that address."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rfs import etcd
from rfs.errors import SaidNo
from rfs.etcd import Etcd, Stored, WitnessSilent
from rfs.etcd_endpoint import Endpoint
from rfs.settings import parse_witness
from tests.unit.etcd_server import EtcdServer, free_port, needs_etcd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    found = EtcdServer(tmp_path_factory.mktemp("etcd"))
    found.start()
    yield found
    found.stop()


def client(server: EtcdServer) -> Etcd:
    """With a member that is not there beside the one that is."""
    return Etcd([Endpoint("127.0.0.1", free_port()), parse_witness(server.url)])


@needs_etcd
async def test_compare_and_swap(server: EtcdServer) -> None:
    asked = client(server)
    assert await asked.get("swap") == Stored()
    one = await asked.swap("swap", Stored(), b"one")
    assert one.done and await asked.get("swap") == one.stored == Stored(b"one", one.stored.revision)
    late = await asked.swap("swap", Stored(), b"late")
    assert not late.done and late.stored == one.stored
    two = await asked.swap("swap", one.stored, b"two")
    assert two.done and two.stored.revision > one.stored.revision
    wrong_value = await asked.swap("swap", Stored(b"one", two.stored.revision), b"three")
    assert not wrong_value.done, "the revisions of another life of the witness"
    assert (await asked.swap("swap", one.stored, b"two")).done, "our own value: an earlier request whose answer was lost"


@needs_etcd
async def test_only_while_a_key_is_absent(server: EtcdServer) -> None:
    asked = client(server)
    lease = await asked.grant_lease(30)
    await asked.put("alive", b"b", lease)
    assert await asked.exists("alive") and await asked.keep_lease(lease)
    held = await asked.swap("guarded", Stored(), b"one", ["dead", "alive"])
    assert not held.done and held.in_the_way == ("alive",) and held.stored == Stored()
    await asked.revoke_lease(lease)
    assert not await asked.keep_lease(lease) and not await asked.exists("alive")
    assert (await asked.swap("guarded", Stored(), b"one", ["dead", "alive"])).done


@needs_etcd
async def test_who_answered_last_is_asked_first(server: EtcdServer) -> None:
    asked = client(server)
    await asked.get("anything")
    assert str(asked.endpoints[0]) == server.url


@needs_etcd
async def test_another_version_of_etcd_says_so(server: EtcdServer) -> None:
    with pytest.raises(WitnessSilent, match=r"it says 'Not Found' \(404\)|no JSON"):
        await Etcd([parse_witness(server.url)])._call("no/such/method", {})


@needs_etcd
async def test_one_of_three_members_grants_nothing_and_two_do(tmp_path: Path) -> None:
    members = [EtcdServer(tmp_path / name) for name in ("one", "two", "three")]
    try:
        for member in members:
            member.members = members
            member.launch()
        for member in members:
            await trio.to_thread.run_sync(member.wait)
        asked = Etcd([parse_witness(member.url) for member in members])
        first = await asked.swap("register", Stored(), b"one")
        assert first.done
        members[0].stop()
        members[1].stop()
        with pytest.raises(WitnessSilent) as silent:
            await asked.get("register")
        assert all(member.url in str(silent.value) for member in members)
        members[1].launch()
        await trio.to_thread.run_sync(members[1].wait)
        assert await asked.get("register") == first.stored
        assert (await asked.swap("register", first.stored, b"two")).done
    finally:
        for member in members:
            member.stop()


# ---- what is no etcd -------------------------------------------------------------------------------------------------------------------

ANSWERS: dict[str, tuple[bytes, str]] = {
    "it hangs up": (b"", "hangs up"),
    "half an answer": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "peer closed"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2p1\r\n", "hangs up"),
    "a page": (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "is that etcd's client port"),
    "a list": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "is that etcd's client port"),
    "an error": (b'HTTP/1.1 503 No\r\nContent-Length: 23\r\n\r\n{"message": "no leader"}'[:-1], "it says 'no leader'|no JSON"),
    "another map": (b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"kvs": {}}', "none of etcd's"),
    "another key": (b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"kvs": [7]}', "none of etcd's"),
    "no revision": (b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"kvs": [{}]}', "none of etcd's"),
    "no end": (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * (1 << 20), "without end"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_that_is_none(name: str, nursery: trio.Nursery) -> None:
    answer, sentence = ANSWERS[name]

    async def handle(stream: trio.SocketStream) -> None:
        try:
            await stream.receive_some()
            await stream.send_all(answer)
        except trio.BrokenResourceError:
            pass

    listeners = await nursery.start(trio.serve_tcp, handle, 0)
    with pytest.raises(WitnessSilent, match=sentence):
        await Etcd([Endpoint("127.0.0.1", listeners[0].socket.getsockname()[1])]).get("key")
    nursery.cancel_scope.cancel()


async def test_silence_has_a_deadline(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd, "REQUEST_TIMEOUT_S", 0.2)

    async def handle(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    listeners = await nursery.start(trio.serve_tcp, handle, 0)
    with trio.fail_after(5), pytest.raises(WitnessSilent, match="no answer within 0.2 s"):
        await Etcd([Endpoint("127.0.0.1", listeners[0].socket.getsockname()[1])]).get("key")
    nursery.cancel_scope.cancel()


# ---- https -----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def secure(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[tuple[int, Path]]:
    """Something that speaks TLS under a certificate of its own, which is written beside: its port, and that file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    file = tmp_path / "ca.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    both = tmp_path / "both.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    both.write_bytes(private + file.read_bytes())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(both)

    async def handle(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        except trio.BrokenResourceError:
            pass  # they did not like our certificate

    listeners = await nursery.start(trio.serve_ssl_over_tcp, handle, 0, context)
    yield listeners[0].transport_listener.socket.getsockname()[1], file
    nursery.cancel_scope.cancel()


async def test_https_with_a_ca_of_ones_own(secure: tuple[int, Path]) -> None:
    port, file = secure
    assert await Etcd([Endpoint("localhost", port, secure=True)], str(file)).get("key") == Stored()


async def test_a_certificate_of_somebody_else_is_refused(secure: tuple[int, Path]) -> None:
    port, file = secure
    with pytest.raises(WitnessSilent, match="certificate is not accepted"):
        await Etcd([Endpoint("localhost", port, secure=True)]).get("key")
    with pytest.raises(WitnessSilent, match="certificate is not accepted"):
        await Etcd([Endpoint("127.0.0.1", port, secure=True)], str(file)).get("key")


# ---- the option ------------------------------------------------------------------------------------------------------------------------


def test_urls() -> None:
    assert parse_witness("http://192.0.2.21:2379") == Endpoint("192.0.2.21", 2379)
    assert parse_witness("https://witness.example/") == Endpoint("witness.example", 2379, secure=True)
    assert str(parse_witness("http://[2001:db8::1]:99")) == "http://[2001:db8::1]:99"
    for wrong in (
        "192.0.2.21:2379",
        "http://",
        "ftp://x",
        "http://x/v3",
        "http://x:0x",
        "http://x:99999",
        "http://u:p@x",
        "http://x?y",
        "",
    ):
        with pytest.raises(SaidNo, match="expected the client address of an etcd"):
            parse_witness(wrong)
