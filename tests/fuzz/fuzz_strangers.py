"""Whoever can reach a port or answers a question: web servers that are looked at, whoever asks the health address, etcd, ICMP, ARP and
neighbour discovery, and whoever opens a connection to pair."""

from __future__ import annotations

import base64
import json
from ipaddress import IPv4Address, IPv6Address

import h11
import trio

from orchestrator.api.health import HealthServer
from orchestrator.bugs import Bugs
from orchestrator.checkers import http, ping, targets
from orchestrator.effects import arp, ndp, netlink
from rfs import pairing, witness
from rfs.errors import PeerProtocolError, SaidNo
from rfs.etcd import Etcd, Stored, WitnessSilent
from rfs.etcd_endpoint import Endpoint
from tests.fuzz.streams import Said, run


def web_server(data: bytes) -> None:
    """What it answers to a checker."""

    async def ask() -> None:
        try:
            status, body = await http.converse(Said(data[1:], piece=data[0]), "host", "/")
        except (OSError, h11.RemoteProtocolError, trio.BrokenResourceError):
            return
        assert 0 <= status < 1000 and len(body) <= http.BODY_BYTES_MAX + http.RECEIVE_BYTES

    if data:
        run(ask)


def health(data: bytes) -> None:
    """A load balancer, or anybody."""

    async def answer() -> None:
        bugs: list[str] = []
        stream = Said(data[1:], piece=data[0])
        await HealthServer("::", 1, {}, bugs.append, Bugs(bugs.append))._serve(stream)  # type: ignore[arg-type]
        assert not bugs, bugs
        assert not stream.sent or stream.sent.startswith(b"HTTP/1.1 ")

    if data:
        run(answer)


def etcd(data: bytes) -> None:
    """Bytes as its HTTP answer."""

    async def ask() -> None:
        async def connect(host: str, port: int) -> Said:
            return Said(data)

        real, trio.open_tcp_stream = trio.open_tcp_stream, connect  # type: ignore[assignment]
        try:
            client = Etcd([Endpoint("192.0.2.9", 2379, False)])
            for question in (
                lambda: client.get("a"),
                lambda: client.swap("a", Stored(b"x", 5), b"y", ["b"]),
                lambda: client.grant_lease(10),
                lambda: client.keep_lease(7),
            ):
                try:
                    answer = await question()
                except WitnessSilent as silent:
                    assert str(silent)
                else:
                    if isinstance(answer, Stored):
                        witness.decode(answer.value)
        finally:
            trio.open_tcp_stream = real

    run(ask)


def etcd_body(data: bytes) -> None:
    """JSON in a proper answer."""
    etcd(http_answer(data))


def register(data: bytes) -> None:
    """What somebody wrote into the witness."""
    held = witness.decode(data)
    if held is not None:
        assert witness.decode(witness.encode(held)) == held


def packets(data: bytes) -> None:
    """ICMP, ARP, neighbour discovery."""
    assert ping.is_answer(data, "192.0.2.1", 1, range(3)) in (True, False)
    assert ping.is_answer(data, "2001:db8::1", 1, range(3)) in (True, False)
    for claim, family in ((arp.claim, IPv4Address), (ndp.claim, IPv6Address)):
        said = claim(data)
        assert said is None or (isinstance(said[1], family) and len(said[0]) == 6)


def kernel(data: bytes) -> None:
    """Netlink. (Of the kernel, which is believed; what is too short must not turn for ever.)"""
    assert len(list(netlink.kinds_in(data))) <= len(data)
    for _, _, body in netlink.messages(data):
        netlink.attributes(body)


def joiner(data: bytes) -> None:
    """The messages of pairing, once the code was proven; and what a person typed."""

    async def receive() -> None:
        try:
            message = await pairing._receive(Said(data))
            pairing._files(message.get("files"))
            pairing._text(message, "node", 63)
            pairing._facts(message)
        except PeerProtocolError:
            return

    run(receive)


def typed(data: bytes) -> None:
    """An invitation, a URL, an address."""
    text = data.decode(errors="replace")
    try:
        code, host, port = pairing.parse_invitation(text)
        assert str(code) and host and 0 < port < 65536
    except SaidNo:
        pass
    for parse in (targets.parse_url, targets.parse_endpoint, targets.parse_status):
        try:
            parse(text)
        except ValueError:
            pass


PARSERS = {
    "web server": web_server,
    "health": health,
    "etcd": etcd,
    "etcd body": etcd_body,
    "register": register,
    "packets": packets,
    "kernel": kernel,
    "joiner": joiner,
    "typed": typed,
}


def http_answer(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n") -> bytes:
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def seeds() -> dict[str, dict[str, bytes]]:
    """By parser."""
    import msgpack

    held = witness.encode(witness.Held(7, 3, 5))
    value = {"kvs": [{"key": "YQ==", "mod_revision": "5", "value": base64.b64encode(held).decode()}]}
    swapped = {"header": {"revision": "9"}, "succeeded": True}
    not_swapped = {"responses": [{"response_range": value}, {"response_range": {}}]}
    chunked = b"\0HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    message = msgpack.packb({"node": "b", "files": {"cluster.toml": [0o644, b"x"]}, "facts": {}})
    return {
        "web server": {
            "one": b"\0" + http_answer(b"hello"),
            "chunks": chunked,
            "informed": b"\5HTTP/1.1 103 x\r\n\r\n" + http_answer(b"x"),
            "without end": b"\0HTTP/1.1 200 OK\r\n\r\nuntil it hangs up",
            "switch": b"\0HTTP/1.1 101 x\r\nupgrade: y\r\n\r\nabc",
        },
        "health": {
            "get": b"\0GET /health/pg HTTP/1.1\r\nhost: a\r\n\r\n",
            "head": b"\3HEAD /var/modules/pg/ready.txt HTTP/1.0\r\n\r\n",
            "post": b"\0POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
            "connect": b"\0CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
        },
        "etcd": {"one": http_answer(json.dumps(value).encode()), "refused": http_answer(b'{"message":"no"}', b"HTTP/1.1 503 x\r\n")},
        "etcd body": {
            **{name: json.dumps(each).encode() for name, each in (("value", value), ("swapped", swapped), ("not swapped", not_swapped))},
            "lease": b'{"ID":"7","result":{"TTL":"5"}}',
            "deep": b"[" * 2000,
            "infinite": b'{"ID":Infinity,"kvs":[{"mod_revision":Infinity}]}',
        },
        "register": {"one": held, "deep": b"[" * 2000},
        "packets": {
            "echo": b"\x45" + bytes(19) + b"\0\0\0\0\0\1\0\1",
            "echo 6": b"\x81\0\0\0\0\1\0\1",
            "arp": bytes(12) + b"\x08\x06\0\1\x08\0\6\4\0\2" + bytes(20),
            "ndp": bytes(12) + b"\x86\xdd" + bytes(6) + b"\x3a\xff" + bytes(32) + b"\x88\0\0\0" + bytes(20) + b"\2\1abcdef",
        },
        "kernel": {"one": netlink.message(16, 0, bytes(16) + netlink.pack_attributes({1: b"abcdef", 3: b"eth0\0"})), "empty": bytes(16)},
        "joiner": {"one": len(message).to_bytes(4, "big") + message, "deep": b"\0\0\3\0" + b"\x91" * 768},
        "typed": {
            "code": str(pairing.Code(bytes(16))).encode() + b"@192.0.2.1:5597",
            "port": str(pairing.Code(bytes(16))).encode() + "@a:²".encode(),
            "url": b"https://a.example:8443/x?y=z",
            "endpoint": b"[2001:db8::1]:80",
            "status": b"2xx",
        },
    }
