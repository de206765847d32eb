"""Pairing over real loopback connections: who knows the code gets in, once; nobody else learns or changes anything."""

import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rfs import exit_codes, pairing
from rfs.errors import SaidNo
from rfs.keys import KeyStore
from rfs.pairing import ATTEMPTS, Code, Files, Introduction, Inviter, Paired, join
from tests.unit.keyring import make_keys

HERE = "127.0.0.1"


@given(st.binary(min_size=16, max_size=16))
def test_a_code_is_what_it_was(secret: bytes) -> None:
    text = str(Code(secret))
    assert Code.parse(text).secret == secret
    assert Code.parse(text.lower().replace("-", " ")).secret == secret
    assert Code.parse(text.replace("0", "O").replace("1", "l")).secret == secret


def test_a_mistyped_code_is_told_at_once() -> None:
    text = str(Code())
    wrong = sum(
        isinstance(_parsed(text[:at] + other + text[at + 1 :]), SaidNo) for at in range(0, 34, 5) for other in "2K" if text[at] != other
    )
    assert wrong >= 12
    for bad in ("", "AAAA", text + "A", text.replace("-", "!"), "U" + text[1:]):
        assert isinstance(_parsed(bad), SaidNo)
    assert text not in repr(Code.parse(text))


def _parsed(text: str) -> Code | SaidNo:
    try:
        return Code.parse(text)
    except SaidNo as refusal:
        return refusal


def test_where_to_join() -> None:
    code = str(Code())
    assert pairing.parse_invitation(f"{code}@192.0.2.11")[1:] == ("192.0.2.11", pairing.PORT)
    assert pairing.parse_invitation(f" {code}@192.0.2.11:99\n")[1:] == ("192.0.2.11", 99)
    assert pairing.parse_invitation(f"{code}@[2001:db8::1]:99")[1:] == ("2001:db8::1", 99)
    assert pairing.parse_invitation(f"{code}@2001:db8::1")[1:] == ("2001:db8::1", pairing.PORT)
    for bad in (code, f"{code}@", f"{code}@1.2.3.4:x", f"{code}@1.2.3.4:99999"):
        with pytest.raises(SaidNo):
            pairing.parse_invitation(bad)


async def test_both_say_what_they_are_and_think_of_the_other(tmp_path: Path) -> None:
    heard: list[tuple[str, object]] = []
    mine = Introduction(lambda: {"says": "inviter"}, lambda facts: heard.append(("inviter", facts)) or "")  # type: ignore[func-returns-value]
    theirs = Introduction(lambda: {"says": "joiner"}, lambda facts: heard.append(("joiner", facts)) or "")  # type: ignore[func-returns-value]
    one, other = make_keys(tmp_path / "one", "node1"), make_keys(tmp_path / "two", "node2")
    invitation = Invitation(one, introduction=mine)
    async with trio.open_nursery() as nursery:
        await nursery.start(invitation.run, 10.0)
        joined = await join(other, other.own(), f"{invitation.inviter.code}@{HERE}:{invitation.port}", introduction=theirs)
        await invitation.ended.wait()
    assert heard == [("inviter", {"says": "joiner"}), ("joiner", {"says": "inviter"})]
    assert isinstance(invitation.result, Paired)
    assert (invitation.result.facts, joined.facts) == ({"says": "joiner"}, {"says": "inviter"})


@pytest.mark.parametrize("who", ["inviter", "joiner"])
async def test_who_cannot_work_together_is_not_paired(tmp_path: Path, who: str) -> None:
    """Nothing is stored on either side, and the code is good for another try."""
    refuses, welcomes = Introduction(suits=lambda facts: "another protocol"), Introduction()
    one, other = make_keys(tmp_path / "one", "node1"), make_keys(tmp_path / "two", "node2")
    invitation = Invitation(one, introduction=refuses if who == "inviter" else welcomes)
    async with trio.open_nursery() as nursery:
        await nursery.start(invitation.run, 10.0)
        place = f"{invitation.inviter.code}@{HERE}:{invitation.port}"
        with pytest.raises(SaidNo, match="another protocol") as caught:
            await join(other, other.own(), place, introduction=refuses if who == "joiner" else welcomes)
        assert caught.value.exit_code == exit_codes.REFUSED
        assert not one.trust().of("node2") and not other.trust().of("node1")
        assert (await join(other, other.own(), place)).peer == "node1" if who == "joiner" else True
        nursery.cancel_scope.cancel()


class Invitation:
    """An inviter that listens, and what became of it."""

    def __init__(self, keys: KeyStore, **more: object) -> None:
        self.keys = keys
        self.inviter = Inviter(keys, keys.own(), **more)  # type: ignore[arg-type]
        self.result: Paired | SaidNo | None = None
        self.port = 0
        self.ended = trio.Event()

    async def run(self, valid_s: float, *, task_status: trio.TaskStatus[None]) -> None:
        async def inner(task_status: trio.TaskStatus[int]) -> None:
            try:
                self.result = await self.inviter.run([(HERE, 0)], valid_s=valid_s, task_status=task_status)
            except SaidNo as refusal:
                self.result = refusal
            self.ended.set()

        async with trio.open_nursery() as nursery:
            self.port = await nursery.start(inner)
            task_status.started()

    @property
    def text(self) -> str:
        return f"{self.inviter.code}@{HERE}:{self.port}"


Invite = Callable[..., Awaitable[Invitation]]


@pytest.fixture
def invite(nursery: trio.Nursery) -> Invite:
    async def start(keys: KeyStore, valid_s: float = 30.0, **more: object) -> Invitation:
        invitation = Invitation(keys, **more)
        await nursery.start(invitation.run, valid_s)
        return invitation

    return start


async def test_two_nodes_pair_and_the_configuration_comes_along(tmp_path: Path, invite: Invite) -> None:
    one, two = make_keys(tmp_path, "node1"), make_keys(tmp_path, "node2")
    invitation = await invite(one, files={"cluster.toml": (0o640, b"name = 'plant7'\n"), "big": (0o600, b"x" * 200_000)})
    stored: list[Files] = []

    async def store(files: Files) -> None:
        assert not one.trust().of("node2"), "the inviter relies on it only after it is stored"
        stored.append(files)

    paired = await join(two, two.own(), invitation.text, store)
    with trio.fail_after(5):
        await invitation.ended.wait()
    assert isinstance(invitation.result, Paired)
    assert (paired.peer, invitation.result.peer) == ("node1", "node2")
    assert paired.words == invitation.result.words and stored[0]["cluster.toml"] == (0o640, b"name = 'plant7'\n")
    assert one.trust().of("node2")[0].pin == two.own().known.pin and two.trust().of("node1")[0].pin == one.own().known.pin
    assert one.trust().cluster == two.trust().cluster
    with pytest.raises(SaidNo) as again:
        await join(two, two.own(), invitation.text)
    assert again.value.exit_code == exit_codes.PEER_NOT_REACHABLE, "a code is good once"


async def test_three_nodes_become_one_cluster(tmp_path: Path, invite: Invite) -> None:
    """Whoever belongs to a cluster invites: by joining somebody outside it would leave the peers that it has."""
    one, two, three = (make_keys(tmp_path, f"node{number}") for number in (1, 2, 3))
    await join(one, one.own(), (await invite(three)).text)
    outsider = await invite(two)
    with pytest.raises(SaidNo, match="paired with node1 already, and node2 is not of that cluster: let this node invite") as refused:
        await join(three, three.own(), outsider.text)
    assert refused.value.exit_code == exit_codes.REFUSED and not three.trust().of("node2")
    await join(two, two.own(), (await invite(three)).text)
    assert one.trust().cluster == two.trust().cluster == three.trust().cluster
    await join(one, one.own(), (await invite(two)).text)
    assert sorted(one.trust().peers) == ["node2", "node3"], "all of one cluster: any two may pair"


async def test_a_peer_that_was_set_up_anew_may_be_joined(tmp_path: Path, invite: Invite) -> None:
    one, two = make_keys(tmp_path, "node1"), make_keys(tmp_path, "node2")
    await join(two, two.own(), (await invite(one)).text)
    anew = make_keys(tmp_path / "anew", "node1")
    await join(two, two.own(), (await invite(anew)).text)
    assert two.trust().cluster == anew.trust().cluster


async def test_wrong_codes_are_counted_and_void_the_right_one(tmp_path: Path, invite: Invite) -> None:
    one, two = make_keys(tmp_path, "node1"), make_keys(tmp_path, "node2")
    invitation = await invite(one)
    for _ in range(ATTEMPTS):
        with pytest.raises(SaidNo, match="does not accept this code"):
            await join(two, two.own(), f"{Code()}@{HERE}:{invitation.port}")
    with trio.fail_after(5):
        await invitation.ended.wait()
    assert isinstance(invitation.result, SaidNo) and "wrong codes" in invitation.result.sentence
    assert not one.trust().peers and not two.trust().peers


async def test_a_code_is_void_after_its_time(tmp_path: Path, invite: Invite, autojump_clock: trio.testing.MockClock) -> None:
    invitation = await invite(make_keys(tmp_path, "node1"), pairing.VALID_S)
    await invitation.ended.wait()
    assert isinstance(invitation.result, SaidNo) and invitation.result.exit_code == exit_codes.TIMEOUT
    assert trio.current_time() >= pairing.VALID_S


async def test_a_disk_that_says_no_ends_the_invitation_with_a_sentence(tmp_path: Path, invite: Invite) -> None:
    one, two = make_keys(tmp_path, "node1"), make_keys(tmp_path, "node2")
    invitation = await invite(one)
    (one.directory / "lock").unlink()
    (one.directory / "lock").mkdir()
    with pytest.raises(SaidNo):
        await join(two, two.own(), invitation.text)
    with trio.fail_after(5):
        await invitation.ended.wait()
    assert isinstance(invitation.result, SaidNo) and "cannot be written" in invitation.result.sentence
    assert not one.trust().peers


async def test_strangers_cost_nothing(tmp_path: Path, invite: Invite) -> None:
    """Garbage, silence and half a handshake use up neither the attempts nor the places."""
    one, two = make_keys(tmp_path, "node1"), make_keys(tmp_path, "node2")
    invitation = await invite(one)
    for raw in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00garbage", b""):
        stream = await trio.open_tcp_stream(HERE, invitation.port)
        if raw:
            await stream.send_all(raw)
        await stream.aclose()
    assert invitation.inviter.attempts_left == ATTEMPTS
    assert (await join(two, two.own(), invitation.text)).peer == "node1"


async def test_silent_strangers_keep_nobody_out(tmp_path: Path, invite: Invite) -> None:
    one, two = make_keys(tmp_path, "node1"), make_keys(tmp_path, "node2")
    invitation = await invite(one)
    silent = [await trio.open_tcp_stream(HERE, invitation.port, local_address=f"127.0.0.{3 + number % 3}") for number in range(12)]
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert invitation.inviter.turned_away == 6, "two an address"
    assert (await join(two, two.own(), invitation.text)).peer == "node1"
    for stream in silent:
        await stream.aclose()


async def test_only_the_peers_addresses_may_try(tmp_path: Path, invite: Invite) -> None:
    one, two = make_keys(tmp_path, "node1"), make_keys(tmp_path, "node2")
    invitation = await invite(one, callers=frozenset({"192.0.2.12"}))
    with pytest.raises(SaidNo):
        await join(two, two.own(), invitation.text)
    assert (invitation.inviter.turned_away, invitation.inviter.attempts_left) == (1, ATTEMPTS)


async def test_somebody_in_between_learns_nothing_and_pairs_with_nobody(tmp_path: Path, invite: Invite, nursery: trio.Nursery) -> None:
    """He takes the joiner's connection under a certificate of his own and passes everything on to the inviter under another."""
    one, two, spy = make_keys(tmp_path, "node1"), make_keys(tmp_path, "node2"), make_keys(tmp_path, "spy")
    invitation = await invite(one, files={"secret": (0o600, b"configuration")})
    seen = bytearray()

    async def between(stream: trio.SocketStream) -> None:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(spy.identity_path)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        joiner = trio.SSLStream(stream, server, server_side=True, https_compatible=True)
        inviter = trio.SSLStream(await trio.open_tcp_stream(HERE, invitation.port), client, https_compatible=True)

        async def pass_on(source: trio.SSLStream[trio.SocketStream], target: trio.SSLStream[trio.SocketStream]) -> None:
            while data := await source.receive_some():
                seen.extend(data)
                await target.send_all(data)
            await trio.aclose_forcefully(target)

        try:
            async with trio.open_nursery() as both:
                both.start_soon(pass_on, joiner, inviter)
                both.start_soon(pass_on, inviter, joiner)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    listeners = await nursery.start(trio.serve_tcp, between, 0)
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(SaidNo):
        await join(two, two.own(), f"{invitation.inviter.code}@{HERE}:{port}")
    assert invitation.inviter.attempts_left == ATTEMPTS - 1
    assert b"configuration" not in seen and not one.trust().peers and not two.trust().peers
    nursery.cancel_scope.cancel()


async def test_a_node_that_does_not_belong_is_refused_and_nothing_is_spent(tmp_path: Path, invite: Invite) -> None:
    one, two, other = make_keys(tmp_path, "node1"), make_keys(tmp_path, "node2"), make_keys(tmp_path, "node9")
    invitation = await invite(one, accepts=lambda node: "" if node == "node2" else f"there is no node {node} in this cluster")
    with pytest.raises(SaidNo, match="no node node9"):
        await join(other, other.own(), invitation.text)
    namesake = KeyStore(tmp_path / "namesake")
    namesake.make("node1")
    with pytest.raises(SaidNo, match="same name"):
        await join(namesake, namesake.own(), invitation.text)
    assert (await join(two, two.own(), invitation.text)).peer == "node1"
