"""When a directory can be added to a node, for every state that it can be in; what is no call for it; and what fails on the way."""

import errno
import socket
from pathlib import Path

import pytest
import trio

from rfs.added_directory import Wanted, add, obstacle, read
from rfs.engine import Engine, Mode, Snapshot
from rfs.errors import SaidNo
from rfs.patterns import Patterns
from rfs.record import DataState
from rfs.record_file import RecordFile
from rfs.replica import Unfinished
from rfs.session_state import Stage
from tests.unit.fake_engine import FakeEngine
from tests.unit.pair import FakeLayers, make_pair

EVERY = [
    (is_primary, mode, stage, data, snapshot)
    for is_primary in (True, False)
    for mode in Mode
    for stage in (None, *Stage)
    for data in DataState
    for snapshot in Snapshot
]


def test_a_primary_has_to_be_alone_and_a_secondary_paired_or_gone_in_order() -> None:
    for is_primary, mode, stage, data, snapshot in EVERY:
        reason = obstacle(is_primary=is_primary, mode=mode, stage=stage, data=data, snapshot=snapshot)
        if is_primary:
            assert (reason is None) == (mode in (Mode.ALONE, Mode.UNUSED))
            continue
        is_whole = data in (DataState.UPTODATE, DataState.OUTDATED) and snapshot is Snapshot.NONE
        is_busy = mode is not Mode.IDLE or stage in (Stage.RESYNCING_SOURCE, Stage.RESYNCING_TARGET)
        may = is_whole and not is_busy and (stage is Stage.PAIRED or data is DataState.OUTDATED)
        assert (reason is None) == may, (mode, stage, data, snapshot, reason)


def test_a_copy_that_may_be_promoted_gets_no_directory_that_its_peer_lacks() -> None:
    reason = obstacle(is_primary=False, mode=Mode.IDLE, stage=None, data=DataState.UPTODATE, snapshot=Snapshot.NONE)
    assert reason is not None and "may be needed" in reason


def test_a_call_is_lists_of_texts() -> None:
    assert read({"directories": ["/a"], "exclude": ["*.tmp"]}) == Wanted(("/a",), ("*.tmp",))
    for params in ({"directories": "/a"}, {"directories": [3]}, {"directories": [""]}, {"directories": ["/a"], "only": {}}):
        with pytest.raises(ValueError, match="is no list of texts"):
            read(params)


class GrowingLayers(FakeLayers):
    """Directories may be added, and are said to be attached."""

    attached = 0

    async def check(self, path: str) -> bool:
        return True

    async def add(self, path: str) -> None:
        self.paths.append(path)
        self.trees.append(-1)

    def backing(self) -> str:
        return ",".join(["8:1"] * len(self.paths))

    async def attach_last(self, serving: Engine) -> None:
        self.attached += 1


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


@pytest.mark.parametrize("failing", ["mark", "commit", "attach"])
async def test_what_fails_on_the_way_is_finished_when_it_is_asked_for_again(
    failing: str, nursery: trio.Nursery, tmp_path: Path, no_relay: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = make_pair(nursery, tmp_path, free_ports())
    first, more = tmp_path / "data", tmp_path / "more"
    first.mkdir()
    more.mkdir()
    layers = a.layers = GrowingLayers(first)
    a.path.mkdir()
    b.path.mkdir()
    given, fails = list[str](), [failing]

    def fail_once(step: str) -> None:
        given.append(step)
        if step in fails:
            fails.remove(step)
            raise OSError(errno.ENOSPC, "No space left on device")

    async def add_directory(engine: FakeEngine, tree: int) -> int:
        return len(layers.paths) - 1

    async def mark_directory(engine: FakeEngine, index: int) -> None:
        fail_once("mark")

    async def attach_last(serving: Engine) -> None:
        fail_once("attach")
        layers.attached += 1

    def add_patterns(engine: FakeEngine, index: int, patterns: Patterns) -> None:
        given.append("patterns")

    for method in (add_directory, mark_directory, add_patterns):
        monkeypatch.setattr(FakeEngine, method.__name__, method)
    monkeypatch.setattr(layers, "attach_last", attach_last)
    await a.start()
    await a.until(link="alone", mode="alone")
    write = RecordFile.write
    with monkeypatch.context() as patched:
        patched.setattr(RecordFile, "write", lambda file, record: (fail_once("commit"), write(file, record))[1])
        with pytest.raises(SaidNo, match=r"more: is half added \(.*No space left"):
            await add(a.replica, Wanted((str(more),)), check_only=False)
        shown = a.status["directories"]
        assert isinstance(shown, list) and [each["path"] for each in shown] == [str(first)], "whoever reads that asks again"
        assert a.replica.unfinished is not None and a.replica.unfinished.marked is (failing != "mark")
        await add(a.replica, Wanted((str(more),)), check_only=False)
    shown = a.status["directories"]
    assert isinstance(shown, list) and [each["path"] for each in shown] == [str(first), str(more)]
    steps = ["patterns", "mark", "commit", "attach"]
    failed_at = steps.index(failing)
    again = {"mark": steps[1:], "commit": steps[2:], "attach": steps[3:]}[failing]
    assert (given, layers.attached) == (steps[: failed_at + 1] + again, 1)
    assert a.replica.record.backing == "8:1,8:1"
    await add(a.replica, Wanted((str(more),)), check_only=False)
    assert layers.attached == 1, "and once"


async def test_what_is_not_marked_is_in_no_session(nursery: trio.Nursery, tmp_path: Path, no_relay: None) -> None:
    """It would be taken for mirrored."""
    a, b = make_pair(nursery, tmp_path, free_ports())
    await a.start()
    await a.until(mode="alone")
    a.replica.unfinished = Unfinished(0)
    await b.start()
    await a.until(code="DIRECTORIES_DIFFER")
    await b.until(code="DIRECTORIES_DIFFER")
    a.replica.unfinished.marked = True
    await b.until(link="paired")
