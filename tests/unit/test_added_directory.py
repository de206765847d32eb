"""When a directory can be added to a node, for every state that it can be in; and what is no call for it."""

import pytest

from rfs.added_directory import Wanted, obstacle, read
from rfs.engine import Mode, Snapshot
from rfs.record import DataState
from rfs.session_state import Stage

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
