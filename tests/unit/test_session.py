"""Sessions end to end over real sockets and fake engines: every story of PROTOCOL.md §4 that needs no data."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from rfs.engine import EventKind, Mode, Space
from rfs.errors import SaidNo
from rfs.record import DataState, Role
from rfs.settings import OnPeerLoss
from tests.unit.pair import Node, make_pair

Nodes = tuple[Node, Node]


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


@pytest.fixture
async def nodes(nursery: trio.Nursery, tmp_path: Path, no_relay: None) -> AsyncIterator[Nodes]:
    yield make_pair(nursery, tmp_path, free_ports())
    nursery.cancel_scope.cancel()


async def paired(nodes: Nodes) -> Nodes:
    a, b = nodes
    await a.start()
    await b.start()
    await a.until(link="paired", role="primary", code="PAIRED")
    await b.until(link="paired", role="secondary", data="UPTODATE")
    return a, b


async def test_a_new_primary_is_alone_at_once_and_a_new_secondary_waits(nodes: Nodes) -> None:
    a, b = nodes
    await a.start()
    await a.until(link="alone", role="primary", sole_owner=True, mode="alone")
    assert a.layers.mounted
    await a.kill()
    await b.start()
    await b.until(link="connecting", role="secondary", data="INCONSISTENT", promotable=False)
    assert not b.layers.mounted


async def test_the_first_copy(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    assert a.replica.record.generation == b.replica.record.generation != 0
    assert a.replica.record.session == b.replica.record.session != 0
    assert a.replica.record.peer_has and a.replica.record.shared and a.replica.record.peer_may_fit
    assert b.engine.calls == ["target", "sync", "purge what was asked for"]
    assert a.layers.mounted and not b.layers.mounted
    assert a.status["reason"] == "" and b.status["reason"] == ""


async def test_statfs_shows_what_both_have(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    assert a.engine.peer_space == b.engine.space()
    roomy, tight = Space(1000, 500, 400, 100, 50), Space(900, 600, 10, 200, 5)
    assert roomy.smaller(tight) == Space(900, 500, 10, 100, 5) and roomy.smaller(None) == roomy
    await b.kill()
    await a.until(link="frozen")
    assert a.engine.peer_space is None, "alone, this disk is all there is"


async def test_a_short_loss_of_the_link_is_resumed(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    generation = a.replica.record.generation
    await b.engine.cut()
    await a.until(link="frozen")
    await a.until(link="paired")
    await b.until(link="paired")
    assert "resume" in a.engine.calls and "target again" in b.engine.calls
    assert a.replica.record.generation == generation


async def test_a_lost_peer_freezes_until_the_grant_and_resyncs_when_it_returns(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    before = a.replica.record.generation
    await b.kill()
    await a.until(link="frozen", needs_grant=True)
    assert a.replica.record.generation == before
    a.engine.waiting_ops = 1
    await a.commands.grant({"reason": "silent on all networks"})
    await a.until(link="alone", mode="alone", needs_grant=False)
    assert a.replica.record.generation != before and a.replica.record.used and not a.replica.record.shared
    await b.restart()
    await b.until(link="paired", role="secondary", data="UPTODATE")
    assert b.replica.record.generation == a.replica.record.generation


async def test_a_grant_that_acknowledges_nothing_is_unused_until_the_first_op(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    await b.kill()
    await a.until(needs_grant=True)
    await a.commands.grant({"reason": "silent"})
    assert a.engine.mode is Mode.UNUSED and not a.replica.record.used
    a.engine.emit(EventKind.NEED_USED)
    await a.until(mode="alone")
    assert a.replica.record.used


async def test_the_policy_alone_grants_by_itself(nursery: trio.Nursery, tmp_path: Path, no_relay: None) -> None:
    a, b = make_pair(nursery, tmp_path, free_ports(), on_peer_loss=OnPeerLoss.ALONE)
    await paired((a, b))
    await b.kill()
    await a.until(link="alone")
    nursery.cancel_scope.cancel()


async def test_takeover_by_grant_and_the_old_primary_becomes_the_target(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    await a.kill()
    await b.until(link="connecting")
    with pytest.raises(SaidNo, match="a grant is needed"):
        await b.commands.promote({})
    await b.commands.promote({"granted": True, "reason": "a is silent"})
    await b.until(role="primary", link="alone")
    assert b.layers.mounted
    b.engine.waiting_ops = 1
    b.engine.emit(EventKind.NEED_USED)
    await b.until(mode="alone")
    await a.restart()
    await a.until(role="secondary", link="paired", data="UPTODATE")
    assert not a.layers.mounted
    assert a.replica.record.generation == b.replica.record.generation


async def test_a_restarted_secondary_is_never_promoted_by_a_grant(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    await a.kill()
    await b.kill()
    await b.restart()
    await b.until(data="CONSISTENT", promotable=False)
    with pytest.raises(SaidNo, match="promote --force"):
        await b.commands.promote({"granted": True})


async def test_a_restarted_primary_waits_mounted_and_frozen(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    await a.kill()
    await b.kill()
    await a.restart()
    await a.until(role="primary", link="frozen", mode="frozen", data="CONSISTENT")
    with pytest.raises(SaidNo, match="restarted"):
        await a.commands.grant({"reason": "silent"})
    await b.restart()
    await a.until(link="paired")
    await b.until(link="paired", role="secondary")


async def test_planned_swap(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    term = a.replica.record.term
    await a.commands.demote({})
    await a.until(role="secondary")
    assert not a.layers.mounted and a.replica.record.role is Role.SECONDARY
    await b.until(consent=True, promotable=True)
    await b.commands.promote({})
    await b.until(role="primary", link="paired", mode="paired")
    assert b.layers.mounted
    assert a.replica.record.term == b.replica.record.term > term
    assert a.engine.target and not b.engine.target
    await b.commands.demote({})
    await a.commands.promote({})
    await a.until(role="primary", link="paired", mode="paired")


async def test_the_whole_copy_is_compared_when_that_is_said(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    with pytest.raises(SaidNo, match="only a primary"):
        await b.commands.recopy({})
    await a.commands.recopy({})
    assert "mark everything" in a.engine.calls
    await a.until(link="paired")
    assert a.status["role"] == "primary" and b.status["data"] == "UPTODATE"


async def test_the_role_is_given_away_before_the_copy_is_whole(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = nodes
    await a.start()
    monkeypatch.setattr("tests.unit.fake_engine.DRAINS", False)
    await b.start()
    await a.until(link="resyncing")
    await b.until(link="resyncing")
    with pytest.raises(SaidNo, match="not complete yet"):
        await a.commands.demote({})
    await a.commands.demote({"alone": True})
    assert a.replica.record.role is Role.SECONDARY and a.replica.record.data is DataState.UPTODATE and not a.layers.mounted


async def test_the_secondary_says_goodbye(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    await b.commands.unmount({})
    await a.until(link="alone", code="PEER_LEFT")
    assert not a.replica.record.peer_may_fit
    assert b.replica.record.data is DataState.OUTDATED and b.replica.record.clean
    await b._ended.wait()
    await b.restart()
    await b.until(link="paired", data="UPTODATE")
    await a.until(link="paired", reason="")


async def test_the_primary_says_goodbye_and_its_peer_may_be_promoted(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    await a.commands.unmount({})
    await a._ended.wait()
    assert a.replica.record.role is Role.SECONDARY and a.replica.record.clean
    await b.until(link="connecting", consent=True, promotable=True)
    await b.commands.promote({})
    await b.until(role="primary", link="alone")
    await a.restart()
    await a.until(role="secondary", link="paired")


async def test_a_copy_that_cannot_keep_up_leaves_and_the_application_goes_on(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    b.engine.emit(EventKind.APPLY_FAILED, "No space left on device")
    await a.until(link="alone", code="PEER_LEFT")
    assert "No space left on device" in str(a.status["reason"])
    assert b.replica.record.data is DataState.OUTDATED
    await b.until(link="paired", data="UPTODATE")


async def test_a_failed_disk_of_the_primary_hands_over(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    a.engine.emit(EventKind.LOCAL_FAILED, "Input/output error")
    await a.until(role="secondary", data="FAILED", code="FAILED")
    assert not a.layers.mounted
    await b.until(consent=True)


async def test_two_primaries_are_diverged_and_the_loser_can_give_its_data_up(nodes: Nodes) -> None:
    a, b = nodes
    await a.start()
    await b.restart(wish_primary=True)
    await a.until(link="diverged", code="DIVERGED", mode="alone")
    await b.until(link="diverged", code="DIVERGED", mode="alone")
    await b.commands.unmount({})
    await b._ended.wait()
    await b.restart(wish_primary=False, replace_data=True)
    await b.until(link="paired", role="secondary", data="UPTODATE")
    await a.until(link="paired", role="primary")


async def test_files_of_a_new_secondary_are_not_overwritten_without_the_word(nodes: Nodes) -> None:
    a, b = nodes
    a.layers.empty = b.layers.empty = False
    await a.start()
    await b.start()
    await b.until(link="refused", code="NEEDS_REPLACE_DATA")
    await a.until(link="refused", code="NEEDS_REPLACE_DATA", mode="alone")
    await b.kill()
    await b.restart(replace_data=True)
    await b.until(link="paired", data="UPTODATE")


async def test_a_seeded_copy_is_compared_as_it_lies(nodes: Nodes) -> None:
    a, b = nodes
    a.layers.empty = b.layers.empty = False
    await a.start()
    await b.restart(seeded=True)
    await b.until(link="paired", data="UPTODATE", last_scope="everything")
    assert not (Path(b.settings.state_directory) / "kept").exists()


async def test_an_empty_source_never_meets_a_filled_target(nodes: Nodes) -> None:
    a, b = nodes
    b.layers.empty = False
    await a.start()
    await b.restart(replace_data=True)
    await b.until(link="refused", code="EMPTY_SOURCE")


async def test_another_module_on_the_other_end(nodes: Nodes) -> None:
    a, b = nodes
    await a.start()
    await b.restart(module="other")
    await a.until(link="refused", code="UNRELATED")
    await b.until(link="refused", code="UNRELATED")
    assert "'other'" in str(a.status["reason"])


async def test_a_loss_before_the_end_needs_no_grant(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = nodes
    await a.start()
    monkeypatch.setattr("tests.unit.fake_engine.DRAINS", False)
    await b.start()
    await a.until(link="resyncing")
    await b.until(link="resyncing", data="INCONSISTENT")
    await b.kill()
    await a.until(link="alone", mode="alone")
    monkeypatch.setattr("tests.unit.fake_engine.DRAINS", True)
    await b.restart()
    await b.until(link="paired", data="UPTODATE")


async def test_outdate_lets_the_peer_go_on(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    with pytest.raises(SaidNo, match="in a session"):
        await b.commands.outdate({})
    await a.kill()
    await b.until(link="connecting")
    await b.commands.outdate({"reason": "a asks"})
    await b.until(data="OUTDATED", promotable=False)


async def test_a_swap_cut_short_needs_no_luck(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    await a.commands.demote({})
    await b.until(consent=True)
    a.engine.mode = Mode.FROZEN  # as the real engine when its link is lost before the turn
    a.supervisor.hang_up()
    await b.until(consent=False)
    await a.until(role="primary", link="paired")
    await b.until(role="secondary", link="paired", data="UPTODATE")


async def test_no_consent_makes_a_failed_copy_primary(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    await a.commands.demote({})
    await b.until(consent=True)
    b.engine.emit(EventKind.LOCAL_FAILED, "Input/output error")
    await b.until(data="FAILED", promotable=False)
    with pytest.raises(SaidNo, match="FAILED"):
        await b.commands.promote({})


async def test_a_primary_that_lost_power_is_the_target_of_the_peer_that_ran_through(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    await a.kill()
    await a.restart(boot="boot-2")
    await a.until(role="secondary", link="paired", data="UPTODATE", rewound=False)
    await b.until(role="primary", link="paired")
    assert b.layers.mounted and not a.layers.mounted


async def test_both_lose_power_and_come_back(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    await a.kill()
    await b.kill()
    await b.restart(boot="boot-2")
    await b.until(rewound=True, promotable=False)
    await a.restart(boot="boot-2")
    await a.until(role="primary", link="paired")
    await b.until(role="secondary", link="paired", data="UPTODATE", rewound=False)


async def test_status_has_every_field_of_the_interface(nodes: Nodes) -> None:
    a, _ = await paired(nodes)
    wanted = {
        *("schema", "module", "node", "role", "link", "data", "generation", "term", "seq", "acked_seq", "marked_bytes", "hot_bytes"),
        *("resync", "directories", "peer", "since_s", "code", "reason", "insecure", "needs_grant", "promotable", "promotable_reason"),
        *("sole_owner", "rewound", "consent", "pid", "incarnation", "last_heard_s", "mode", "record"),
    }
    assert wanted <= set(a.status)
    assert a.status["schema"] == "rfsmount.status/1"
    peer = a.status["peer"]
    assert isinstance(peer, dict) and {"node", "data", "rtt_us"} <= set(peer)
