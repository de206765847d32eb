"""What a session does when a step of a swap, or the word of the command line, goes against it."""

import errno
import os

import pytest
import trio

from rfs.engine import EventKind, Mode, SessionParameters
from rfs.errors import SaidNo
from tests.unit.fake_engine import FakeEngine
from tests.unit.test_session import Nodes, nodes, paired  # noqa: F401 - a fixture


async def test_a_turn_that_is_cut_off_pairs_again(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The real engine refuses to resume what was not a whole pair: the session after the doubt must be a full one."""
    become_primary, send_end, session_resume, session_turn = (
        FakeEngine.become_primary, FakeEngine.send_end, FakeEngine.session_resume, FakeEngine.session_turn,
    )  # fmt: skip
    resumable: set[int] = set()
    cut: list[bool] = []

    async def become(self: FakeEngine, term: int, node_bit: int) -> None:
        await become_primary(self, term, node_bit)
        resumable.discard(id(self))

    async def end(self: FakeEngine) -> bool:
        resumable.add(id(self))
        return await send_end(self)

    async def resume(self: FakeEngine, descriptor: int, parameters: SessionParameters) -> None:
        if id(self) not in resumable:
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not resumable")
        await session_resume(self, descriptor, parameters)

    async def turn(self: FakeEngine, *, now_source: bool) -> None:
        if now_source and not cut:
            cut.append(True)
            await self._hang_up()
            self.emit(EventKind.LINK_LOST, "reset")
            raise OSError(errno.ENOTCONN, "link lost at the turn")
        await session_turn(self, now_source=now_source)

    for name, method in (("become_primary", become), ("send_end", end), ("session_resume", resume), ("session_turn", turn)):
        monkeypatch.setattr(FakeEngine, name, method)
    a, b = await paired(nodes)
    await a.commands.demote({})
    await b.until(consent=True)
    with pytest.raises(SaidNo):
        await b.commands.promote({})
    with trio.fail_after(60):
        await b.until(link="paired")
        await a.until(link="paired")


async def test_who_was_told_to_give_its_data_up_never_becomes_the_source(nodes: Nodes) -> None:  # noqa: F811
    a, b = await paired(nodes)
    await b.commands.unmount({})
    await b._ended.wait()
    await a.until(link="alone")
    a.layers.empty = b.layers.empty = False
    await a.commands.unmount({})
    await a._ended.wait()
    await a.restart(wish_primary=False, replace_data=True)
    await b.start()
    await b.until(code="NEWER_DATA")
    await a.until(code="NEWER_DATA")
    assert b.replica.record.data.name == "OUTDATED", "nothing was overwritten"


async def test_a_demotion_that_times_out_ends_the_session(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("rfs.commands.SYNC_TIMEOUT_S", 0.5)
    a, b = await paired(nodes)
    session = a.replica.session

    async def slow() -> None:
        await trio.sleep(2)

    monkeypatch.setattr(b.engine, "sync", slow)
    with pytest.raises(SaidNo):
        await a.commands.demote({})
    with trio.fail_after(30):
        while a.replica.session is session:
            await a.replica.changed()
    assert a.engine.mode is not Mode.PAIRED or a.replica.session is not session
