"""Two replicas and a witness: who goes on, who is fenced, what a crash or a lost answer leaves behind."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from rfs import exit_codes, rules, witness
from rfs.errors import NotGranted, SaidNo
from rfs.record import DataState, Role
from rfs.record_file import RecordFile
from rfs.session_state import Stage
from rfs.settings import OnPeerLoss
from rfs.witness import Held
from tests.unit.fake_register import FakeRegister
from tests.unit.pair import Node, make_pair
from tests.unit.test_session import Nodes, free_ports, paired

KEY = witness.register_key("plant7", "pg")


@pytest.fixture
def register() -> FakeRegister:
    return FakeRegister()


@pytest.fixture
async def nodes(nursery: trio.Nursery, tmp_path: Path, no_relay: None, register: FakeRegister) -> AsyncIterator[Nodes]:
    for node in (pair := make_pair(nursery, tmp_path, free_ports(), on_peer_loss=OnPeerLoss.ALONE)):
        node.register = register
    yield pair
    nursery.cancel_scope.cancel()


@pytest.fixture
async def armed(nodes: Nodes) -> Nodes:
    """Paired, and the register exists."""
    a, b = await paired(nodes)
    await until(a, lambda: a.replica.record.armed)
    return a, b


async def until(node: Node, condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():
            await node.replica.changed()


async def refused(call: Awaitable[object], code: int = exit_codes.REFUSED) -> str:
    with pytest.raises(SaidNo) as no:
        await call
    assert no.value.exit_code == code
    return no.value.sentence


def held(register: FakeRegister) -> Held:
    found = witness.decode(register.keys[KEY].value)
    assert found is not None
    return found


async def test_the_first_primary_creates_the_register_once(nodes: Nodes, register: FakeRegister) -> None:
    a, b = nodes
    await a.start()
    await until(a, lambda: a.replica.record.armed)
    assert held(register).generation == a.replica.record.generation
    await b.start()
    await b.until(link="paired")
    assert b.replica.record.armed, "a register is known to exist by both"
    del register.keys[KEY]
    await a.kill()
    await a.restart()
    await a.until(link="paired")
    await until(a, lambda: a.status["witness"]["state"] == "empty")  # type: ignore[index]
    assert KEY not in register.keys


async def test_one_of_two_goes_on(armed: Nodes, register: FakeRegister) -> None:
    a, b = armed
    before = held(register).generation
    await b.kill()
    await a.until(link="alone")
    assert held(register).generation == a.replica.record.generation != before
    assert a.replica.record.tried[-1] == a.replica.record.generation


async def test_both_cut_off_from_each_other_and_one_is_granted(armed: Nodes, register: FakeRegister) -> None:
    a, b = armed
    a.replica.settings = replace(a.settings, on_peer_loss=OnPeerLoss.FREEZE)
    a.supervisor.hang_up()
    held_back = trio.Event()

    async def never(*_: object) -> None:
        held_back.set()
        await trio.sleep_forever()

    a.supervisor._call = b.supervisor._call = never  # type: ignore[method-assign]
    a.supervisor._dial = b.supervisor._dial = never  # type: ignore[method-assign]
    await a.until(link="frozen", needs_grant=True)
    await b.commands.promote({"granted": True})
    await b.until(link="alone", role="primary")
    sentence = await refused(a.commands.grant({"reason": "the peer is silent"}))
    assert "gave the grant to the peer" in sentence
    await a.until(role="secondary", mode="idle")
    assert a.replica.record.generation != b.replica.record.generation == held(register).generation


async def test_a_restarted_secondary_is_promoted_by_the_witness(armed: Nodes, register: FakeRegister) -> None:
    a, b = armed
    await a.kill()
    await b.kill()
    await b.restart()
    assert b.status["data"] == "CONSISTENT" and b.status["promotable"] is False
    await b.commands.promote({"granted": True})
    await b.until(link="alone", role="primary")
    assert held(register) == Held(b.replica.record.generation, b.replica.record.term, b.replica.record.node_id)


async def test_a_restarted_primary_asks_after_a_while(armed: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfs.arbiter.START_PATIENCE_S", 0.2)
    a, b = armed
    await b.kill()
    await a.until(link="alone")
    await b.restart()
    await a.until(link="paired")
    await a.kill()
    await b.kill()
    await a.restart()
    await a.until(mode="frozen")
    await a.until(link="alone")


async def test_a_rewound_node_lets_its_intact_peer_go_first(armed: Nodes, register: FakeRegister, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfs.arbiter.START_PATIENCE_S", 0.1)
    a, b = armed
    peers_key = witness.intact_key("plant7", "pg", b.replica.record.node_id)
    await register.until(peers_key)
    await a.kill()
    await b.kill()  # orderly for its lease: it is given back
    register._put(peers_key, b"b")  # but it lives, behind a cut cable
    await a.restart("boot-2")
    assert a.replica.record.rewound
    await until(a, lambda: "lost power" in a.replica.note)
    assert a.status["link"] == "frozen"
    del register.keys[peers_key]
    await a.until(link="alone")


async def test_a_lost_answer_blocks_nobody(armed: Nodes, register: FakeRegister) -> None:
    """The swap was carried out, its sender does not know: the name is abandoned, and known to both after the next handshake."""
    a, b = armed
    register.loses_answers = True
    a.replica.settings = replace(a.settings, on_peer_loss=OnPeerLoss.FREEZE)
    a.supervisor.hang_up()  # both are back at once
    async with a.replica.changing:
        with pytest.raises(NotGranted, match="cannot be reached"):
            await a.replica.win("a test")
    lost = held(register).generation
    assert lost in witness.abandoned(a.replica.record) and lost not in b.replica.record.tried
    register.loses_answers = False
    await b.kill()
    await a.until(link="frozen")
    await b.restart()
    await b.until(link="paired")
    assert lost in b.replica.record.tried
    await a.kill()
    await b.commands.promote({"granted": True})
    await b.until(link="alone")
    assert lost not in b.replica.record.lineage


async def test_a_name_that_was_tried_before_a_crash_is_no_grant(armed: Nodes, register: FakeRegister) -> None:
    a, b = armed
    await b.kill()
    await a.kill()
    # As if it had died between the won swap and the mint.
    record = rules.try_name(a.replica.record, 77, held(register).generation)
    file = RecordFile(str(a.path))
    file.write(record)
    file.close()
    register._put(KEY, witness.encode(Held(77, 1, record.node_id)))
    await a.restart(on_peer_loss=OnPeerLoss.FREEZE)
    await a.until(mode="frozen")
    assert 77 not in a.replica.record.lineage
    await a.commands.grant({})
    assert held(register).generation == a.replica.record.generation != 77 and 77 not in a.replica.record.lineage


async def test_a_witness_that_is_away_keeps_no_handshake_waiting(armed: Nodes, register: FakeRegister) -> None:
    a, b = armed
    register.away = True
    await b.kill()
    await until(a, lambda: "cannot be reached" in a.replica.note)
    assert a.status["link"] == "frozen" and "Connection refused" in str(a.status["reason"])
    assert [warning["code"] for warning in a.status["warnings"]] == ["WITNESS", "INSECURE"]  # type: ignore[attr-defined]
    await b.restart()
    await a.until(link="paired", reason="")
    await b.kill()
    await a.until(link="frozen")
    register.away = False
    await a.until(link="alone")


async def test_no_handshake_comes_between_a_won_swap_and_its_mint(armed: Nodes, register: FakeRegister) -> None:
    a, b = armed
    asked, answer = trio.Event(), trio.Event()

    async def wait() -> None:
        asked.set()
        await answer.wait()

    register.after_swap = wait
    await b.kill()
    await asked.wait()
    await b.restart()
    await until(a, lambda: a.replica.session is not None)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert a.replica.session is not None and a.replica.session.stage is Stage.HANDSHAKING
    assert held(register).generation not in a.replica.record.lineage
    answer.set()
    await a.until(link="paired")
    assert held(register).generation in a.replica.record.lineage, "it was minted before the handshake"


async def test_an_emptied_register_is_armed_by_a_person(armed: Nodes, register: FakeRegister) -> None:
    a, b = armed
    register._put(KEY, b"")
    await b.kill()
    await until(a, lambda: "empty" in a.replica.note)
    assert "with --force" in await refused(a.commands.arm({}))
    await a.commands.arm({"force": True})
    await a.until(link="alone")


async def test_force_writes_over_the_register(armed: Nodes, register: FakeRegister) -> None:
    a, b = armed
    register._put(KEY, witness.encode(Held(4711, 9, 9)))
    await a.kill()
    await b.until(link="connecting")
    assert "gave the grant" in await refused(b.commands.promote({"granted": True}))
    assert b.replica.record.role is Role.SECONDARY
    await b.commands.promote({"force": True})
    assert held(register).generation == b.replica.record.generation
    register.away = True
    await b.commands.unmount({})


async def test_force_goes_on_where_the_witness_cannot_be_reached(armed: Nodes, register: FakeRegister) -> None:
    a, b = armed
    register.away = True
    await a.kill()
    await b.until(link="connecting")
    assert "cannot be reached" in await refused(b.commands.promote({"granted": True}))
    await b.commands.promote({"force": True})
    assert b.status["link"] == "alone" and "arm --force" in str(b.status["reason"])


async def test_who_is_not_whole_asks_for_nothing(armed: Nodes, register: FakeRegister) -> None:
    a, b = armed
    await b.commands.unmount({})
    await a.until(link="alone")
    swaps = register.swaps
    await b.restart()
    await b.until(link="paired")
    await a.kill()
    await b.until(link="connecting")
    await b.replica.commit(rules.fail(b.replica.record), "a test")
    assert "FAILED" in await refused(b.commands.promote({"granted": True}))
    assert register.swaps == swaps and b.replica.record.data is DataState.FAILED


async def test_a_module_without_a_witness_says_so(nodes: Nodes) -> None:
    a, _ = nodes
    a.register = None
    await a.start()
    assert "no witness" in await refused(a.commands.witness({}), exit_codes.CONFIGURATION_INVALID)
    assert "no witness" in await refused(a.commands.arm({}), exit_codes.CONFIGURATION_INVALID)
