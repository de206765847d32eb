"""The parts of the harness for themselves: what a cut leaves, and what the ledger allows."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.powercut import content
from tests.powercut.cut import Images
from tests.powercut.disk import Disk
from tests.powercut.ledger import Ledger, Needs
from tests.powercut.log import LogReader, LogWriter
from tests.powercut.oracle import check

BLOCK = 4096


def _disk(path: Path, number: int = 0) -> Disk:
    base = path / f"base{number}.img"
    base.write_bytes(b"\0" * BLOCK * 4)
    return Disk(number, path / "unused", base)


def _state(path: Path, log: LogReader, disk: Disk, cut: int, seed: int) -> bytes:
    images = Images(log, disk, path)
    images.build(path / "state.img", cut, random.Random(seed))
    images.close()
    return (path / "state.img").read_bytes()


def test_what_was_flushed_is_there_and_what_came_later_perhaps(tmp_path: Path) -> None:
    writer, disk = LogWriter(tmp_path / "log"), _disk(tmp_path)
    writer.write(0, 0, b"a" * BLOCK)
    writer.flush(1)  # another disk's: no barrier here
    writer.flush(0)
    writer.write(0, BLOCK, b"b" * BLOCK)
    writer.write(0, 2 * BLOCK, b"c" * BLOCK)
    writer.write(1, 3 * BLOCK, b"d" * BLOCK)
    log = LogReader(tmp_path / "log")
    seen = set()
    for seed in range(300):
        state = _state(tmp_path, log, disk, 6, seed)
        assert state[:BLOCK] == b"a" * BLOCK and state[3 * BLOCK :] == b"\0" * BLOCK
        sectors = {state[at : at + 512] for at in range(BLOCK, 2 * BLOCK, 512)}
        assert sectors <= {b"b" * 512, b"\0" * 512}
        seen.add((state[BLOCK : BLOCK + 1], state[2 * BLOCK : 2 * BLOCK + 1], len(sectors) > 1))
    assert len(seen) >= 6, "none, one, the other, both; whole and torn"


def test_a_cut_before_the_flush_keeps_nothing_for_sure_and_nothing_from_the_future(tmp_path: Path) -> None:
    writer, disk = LogWriter(tmp_path / "log"), _disk(tmp_path)
    writer.write(0, 0, b"a" * BLOCK)
    writer.write(0, BLOCK, b"b" * BLOCK)
    writer.flush(0)
    log = LogReader(tmp_path / "log")
    states = {_state(tmp_path, log, disk, 1, seed) for seed in range(100)}
    assert len(states) > 1 and all(state[BLOCK:] == b"\0" * BLOCK * 3 for state in states)
    assert _state(tmp_path, log, disk, 3, 1)[: 2 * BLOCK] == b"a" * BLOCK + b"b" * BLOCK


def _ledger(*notes: list[object]) -> Ledger:
    ledger = Ledger()
    for note in notes:
        ledger.note(note)
    return ledger


def test_the_ledger_allows_what_is_synced_and_what_was_begun_since() -> None:
    key = ["mode", "f"]
    ledger = _ledger(
        *(["start", 10, key, 1], ["done", 12, key], ["pin", 15, [key, 0]]),
        *(["start", 20, key, 2], ["done", 22, key], ["start", 30, key, 3]),
    )
    cell = ledger.cells[("mode", "f")]
    assert cell.allowed(14, Needs.SYNCED) == ([1], False)
    assert cell.allowed(15, Needs.SYNCED) == ([1], True)
    assert cell.allowed(25, Needs.SYNCED) == ([1, 2], True)
    assert cell.allowed(25, Needs.ACKNOWLEDGED) == ([2], True)
    assert cell.allowed(30, Needs.ACKNOWLEDGED) == ([2, 3], True)


@pytest.mark.parametrize("needs", list(Needs))
def test_the_oracle_sees_what_is_lost_old_torn_or_from_the_future(tmp_path: Path, needs: Needs) -> None:
    name, block, text = ["name", "table"], ["block", "table", "0"], ["whole", "text"]
    notes: list[list[object]] = []
    for key, values in ((name, ["file"]), (block, [0, 1]), (text, [1, 2])):
        for index, value in enumerate(values):
            notes += [["start", 1, key, value], ["done", 1, key], ["pin", 1, [key, index]]]
    ledger = _ledger(*notes, ["start", 5, block, 2], ["start", 9, block, 3])

    def wrong(table: bytes | None, saved: bytes, cut: int = 6) -> list[str]:
        (tmp_path / "table").unlink(missing_ok=True)
        if table is not None:
            (tmp_path / "table").write_bytes(table)
        (tmp_path / "text").write_bytes(saved)
        return check(tmp_path, ledger, cut, needs)

    versions = [content.block_of("table", 0, version) for version in range(4)]
    good = content.whole("text", 2)
    torn = versions[1][:512] + versions[2][512:]
    assert wrong(versions[1], good) == wrong(versions[2], good) == wrong(torn, good) == []
    assert wrong(versions[0], good) and wrong(versions[3], good) and wrong(versions[1][:-1] + b"?", good)
    assert wrong(versions[1], content.whole("text", 1)) and wrong(versions[1], good[:-1]) and wrong(versions[1], b"")
    assert wrong(None, good) and wrong(b"", good)
    os.unlink(tmp_path / "text")
    assert check(tmp_path, ledger, 6, needs)
