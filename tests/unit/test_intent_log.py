"""csrc/marks.c and csrc/intent_log.c by themselves: marks against a naive model, and a log that is torn, rotten, short or stale."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datasim import native
from tests.datasim.disk import File
from tests.datasim.native import ANY, CHUNK, MAX_U64, TAIL, Log, Mark, Marks, attributes, chunk, entries, tail

SLOT = 64
EBADMSG, ENOENT = -74, -2


class Files:
    """The two files, written as the log says."""

    def __init__(self) -> None:
        self.files = [File(), File()]

    def write(self, write: tuple[int, int, bytes] | None, *, sync: bool = True) -> None:
        assert write is not None
        file, offset, data = write
        self.files[file].write(offset, data)
        if sync:
            self.files[file].sync()

    def images(self) -> tuple[bytes, bytes]:
        return bytes(self.files[0].durable), bytes(self.files[1].durable)


def load(images: tuple[bytes, bytes]) -> tuple[int, Marks, Log]:
    marks, log = Marks(), Log(99)
    return log.load(*images, marks), marks, log


def opened(nonce: int = 5) -> tuple[Files, Log, Marks]:
    """A log that was stopped in order, and a process that begins."""
    files, log, marks = Files(), Log(nonce), Marks()
    files.write(log.compact(marks, clean=True))
    log.written()
    log.note_opened()
    files.write(log.batch())
    log.written()
    return files, log, marks


def add(files: Files, log: Log, marks: Marks, *new: Mark) -> None:
    for mark in new:
        log.note(mark)
    files.write(log.batch())
    log.written()
    for mark in new:
        marks.add(mark)


def found(marks: Marks) -> set[Mark]:
    return set(marks.each())


# ---- reading ---------------------------------------------------------------------------------------------------------------------------


def test_no_log_is_said() -> None:
    assert load((b"", b""))[0] == ENOENT
    assert load((bytes(4096), b"garbage" * 100))[0] == ENOENT


def test_what_was_noted_is_found_and_widened_after_a_crash() -> None:
    files, log, marks = opened()
    add(files, log, marks, chunk(7, 3, 0b101), attributes(8), entries(1), tail(9, 2))
    result, read, _ = load(files.images())
    assert result == 0 and not read.everything
    assert found(read) == {(CHUNK, 7, 3, MAX_U64), attributes(8), entries(1), tail(9, 2)}


def test_grains_are_exact_after_a_clean_end_only() -> None:
    files, log, marks = opened()
    add(files, log, marks, chunk(7, 3, 0b101))
    marks.touch(chunk(7, 3, 0b1000))
    files.write(log.compact(marks, clean=True))
    log.written()
    assert found(load(files.images())[1]) == {chunk(7, 3, 0b1101)}
    result, again, log = load(files.images())
    log.note_opened()
    files.write(log.batch())
    assert found(load(files.images())[1]) == {chunk(7, 3, MAX_U64)}


def test_a_compaction_without_the_clean_word_is_not_exact() -> None:
    files, log, marks = opened()
    add(files, log, marks, chunk(7, 3, 1))
    files.write(log.compact(marks))
    log.written()
    assert found(load(files.images())[1]) == {chunk(7, 3, MAX_U64)}


def test_born_is_kept() -> None:
    files, log, marks = opened()
    marks.set_born(1234)
    files.write(log.compact(marks))
    log.written()
    assert load(files.images())[1].born == 1234


@pytest.mark.parametrize("torn", range(6))
def test_a_torn_batch_costs_only_itself(torn: int) -> None:
    """Whatever slot of a batch did not arrive: what was durable before is there, and nothing is called damaged."""
    files, log, marks = opened()
    add(files, log, marks, attributes(1))
    for fid in range(10, 16):
        log.note(attributes(fid))
    write = log.batch()
    assert write is not None
    file, offset, data = write
    image = bytearray(files.files[file].durable)
    image += bytes(offset + len(data) - len(image))
    image[offset:] = data
    image[offset + torn * SLOT : offset + (torn + 1) * SLOT] = bytes(SLOT)
    images = list(files.images())
    images[file] = bytes(image)
    result, read, _ = load((images[0], images[1]))
    assert result == 0 and attributes(1) in found(read) and not read.everything


@pytest.mark.parametrize("torn", range(6))
def test_a_mark_in_memory_is_a_mark_on_the_disk(torn: int) -> None:
    """The regression: what stood behind the gap of a torn batch was taken for hot, and the next process' first batch hid it on the disk."""
    files, log, marks = opened()
    for fid in range(10, 16):
        log.note(attributes(fid))
    file, offset, data = log.batch() or (0, 0, b"")
    files.write((file, offset, data))
    gap = files.files[file]
    gap.write(offset + torn * SLOT, bytes(SLOT))
    gap.sync()
    result, hot, log = load(files.images())
    assert result == 0
    log.note_opened()
    files.write(log.batch())
    log.written()
    assert found(hot) <= found(load(files.images())[1])


def test_a_broken_record_of_before_means_damage() -> None:
    files, log, marks = opened()
    add(files, log, marks, attributes(1), attributes(2))
    at = log.end - 2 * SLOT
    add(files, log, marks, attributes(3))
    live = max(files.files, key=lambda file: len(file.durable))
    for bit in range(0, SLOT * 8, 37):
        rotten = bytearray(live.durable)
        rotten[at + bit // 8] ^= 1 << bit % 8
        images = [bytes(rotten) if file is live else bytes(file.durable) for file in files.files]
        result, read, _ = load((images[0], images[1]))
        assert result == EBADMSG and read.everything


def test_any_bit_that_is_wrong_never_makes_a_mark_vanish_unnoticed_before_the_last_batch() -> None:
    files, log, marks = opened()
    for fid in range(1, 9):
        add(files, log, marks, attributes(fid))
    add(files, log, marks, attributes(99))
    live = max(files.files, key=lambda file: len(file.durable))
    first = len(live.durable) - 9 * SLOT
    for at in range(first, len(live.durable) - SLOT, 5):
        rotten = bytearray(live.durable)
        rotten[at] ^= 0x10
        images = [bytes(rotten) if file is live else bytes(file.durable) for file in files.files]
        result, read, _ = load((images[0], images[1]))
        assert read.everything and result == EBADMSG


# ---- writing ---------------------------------------------------------------------------------------------------------------------------


def test_a_compaction_counts_from_its_last_byte_on() -> None:
    """At every prefix of its write there is a whole log: that of before, and in the end the new one."""
    files, log, marks = opened()
    add(files, log, marks, *(attributes(fid) for fid in range(1, 20)))
    number = marks.checkpoint_begin(500)
    marks.touch(attributes(5))
    marks.checkpoint_end(number)
    file, offset, data = log.compact(marks)
    before, after = {attributes(fid) for fid in range(1, 20)}, {attributes(5)}
    for end in range(len(data) + 1):
        images = list(files.images())
        images[file] = data[:end] + images[file][end:]
        result, read, _ = load((images[0], images[1]))
        assert result == 0
        assert found(read) == (after if end == len(data) else before) or (end > len(data) - SLOT and found(read) == after)


def test_a_torn_compaction_does_not_complete_a_later_one() -> None:
    """The regression: both had one nonce, so a later compaction that was torn too was completed by what the first had left."""
    rng = random.Random(1)
    for _ in range(300):
        files, log, marks = opened(rng.getrandbits(60))
        add(files, log, marks, *(attributes(fid) for fid in range(1, 30)))
        durable = found(marks)
        for nonce in (11, 12, 13):
            file, offset, data = log.compact(marks)
            files.files[file].write(offset, data)
            for one in files.files:
                one.power_cut(rng)
            marks, log = Marks(), Log(rng.getrandbits(60) ^ nonce)
            assert log.load(*files.images(), marks) == 0
            assert durable <= found(marks)
            new = attributes(100 + nonce)
            log.note_opened()
            files.write(log.batch())
            log.written()
            add(files, log, marks, new)
            durable = found(marks)


def test_a_compaction_that_is_given_up_leaves_the_file_of_before() -> None:
    files, log, marks = opened()
    add(files, log, marks, attributes(1))
    file, offset, data = log.compact(marks)
    files.write((file, offset, data[: len(data) - SLOT]))
    log.not_written()
    add(files, log, marks, attributes(2))
    assert found(load(files.images())[1]) == {attributes(1), attributes(2)}
    files.write(log.compact(marks))
    log.written()
    assert found(load(files.images())[1]) == {attributes(1), attributes(2)}


def test_what_is_noted_while_a_batch_is_written_is_in_the_next() -> None:
    files, log, marks = opened()
    log.note(attributes(1))
    write = log.batch()
    log.note(attributes(2))
    files.write(write)
    log.written()
    assert found(load(files.images())[1]) == {attributes(1)}
    files.write(log.batch())
    log.written()
    assert found(load(files.images())[1]) == {attributes(1), attributes(2)} and log.batch() is None


def test_without_room_one_record_says_everything() -> None:
    files, log, marks = opened()
    add(files, log, marks, attributes(1))
    for fid in range(10, 40):
        log.note(attributes(fid))
    write = log.batch()
    assert write is not None
    files.write((write[0], write[1], write[2][:200]))  # ENOSPC in the middle
    log.note_everything()
    files.write(log.batch())
    log.written()
    result, read, _ = load(files.images())
    assert result == 0 and read.everything and attributes(1) in found(read)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30))
def test_power_cuts_at_any_time_never_lose_a_durable_mark(seed: int) -> None:
    rng = random.Random(seed)
    files, log, marks = opened(rng.getrandbits(60))
    durable: set[Mark] = set()
    for _ in range(60):
        act = rng.random()
        if act < 0.5:
            new = [attributes(rng.randrange(1, 40)) for _ in range(rng.randrange(1, 12))]
            for mark in new:
                log.note(mark)
            files.write(log.batch(), sync=False)
        elif act < 0.7:
            new = []
            files.write(log.compact(marks), sync=False)
        else:
            for file in files.files:
                file.power_cut(rng)
            marks, log = Marks(), Log(rng.getrandbits(60))
            assert log.load(*files.images(), marks) == 0
            assert durable <= found(marks)
            log.note_opened()
            files.write(log.batch())
            log.written()
            durable = found(marks)
            continue
        if rng.random() < 0.3:  # the power goes before it is durable
            continue_with = rng.random() < 1
            assert continue_with
            for file in files.files:
                file.power_cut(rng)
            marks, log = Marks(), Log(rng.getrandbits(60))
            assert log.load(*files.images(), marks) == 0
            assert durable <= found(marks)
            log.note_opened()
            files.write(log.batch())
        else:
            for file in files.files:
                file.sync()
            for mark in new:
                marks.add(mark)
        log.written()
        durable = found(marks)


# ---- marks against a naive model --------------------------------------------------------------------------------------------------------


@dataclass
class Naive:
    """The same, said with sets. Epochs are kept for each mark."""

    epoch: int = 1
    plain: dict[tuple[int, int], int] = field(default_factory=dict)  # (kind, fid) → epoch last touched
    tails: dict[int, int] = field(default_factory=dict)
    chunks: dict[tuple[int, int], list[int]] = field(default_factory=dict)  # grains, epoch

    def hot(self, mark: Mark) -> bool:
        kind, fid, index, _ = mark
        if kind == CHUNK:
            return (fid, index) in self.chunks or self.tails.get(fid, MAX_U64) <= index
        return self.tails.get(fid, MAX_U64) <= index if kind == TAIL else (kind, fid) in self.plain

    def everything_of(self, fid: int) -> None:
        """One epoch serves all plain marks and the tail of an inode: the real one is as coarse."""
        for key in [key for key in self.plain if key[1] == fid]:
            self.plain[key] = self.epoch

    def touch(self, mark: Mark) -> bool:
        kind, fid, index, grains = mark
        if not self.hot(mark):
            return False
        if kind == CHUNK and (fid, index) in self.chunks:
            self.chunks[fid, index][0] |= grains
            self.chunks[fid, index][1] = self.epoch
        else:
            self.everything_of(fid)
        return True

    def add(self, mark: Mark) -> None:
        kind, fid, index, grains = mark
        if kind == CHUNK:
            had = self.chunks.get((fid, index), [0, 0])
            self.chunks[fid, index] = [had[0] | grains, self.epoch]
            return
        self.plain[kind, fid] = self.epoch
        if kind == TAIL:
            self.tails[fid] = min(index, self.tails.get(fid, MAX_U64))
        self.everything_of(fid)

    def checkpoint_end(self, number: int) -> None:
        self.chunks = {key: value for key, value in self.chunks.items() if value[1] > number}
        self.plain = {key: epoch for key, epoch in self.plain.items() if epoch > number}
        self.tails = {fid: index for fid, index in self.tails.items() if (TAIL, fid) in self.plain}

    def each(self) -> set[Mark]:
        plain = {(kind, fid, self.tails[fid] if kind == TAIL else 0, 0) for kind, fid in self.plain}
        return plain | {(CHUNK, fid, index, grains) for (fid, index), (grains, _) in self.chunks.items()}


FIDS, INDEXES = st.integers(1, 6), st.integers(0, 5)
MARKS = st.one_of(
    st.builds(entries, FIDS),
    st.builds(attributes, FIDS),
    st.builds(tail, FIDS, INDEXES),
    st.builds(chunk, FIDS, INDEXES, st.integers(1, MAX_U64)),
)
ACTS = st.lists(
    st.one_of(st.tuples(st.sampled_from(("touch", "add")), MARKS), st.just(("begin", None)), st.just(("end", None))), max_size=60
)


@settings(max_examples=300, deadline=None)
@given(ACTS)
def test_marks_are_what_a_naive_model_says(acts: list[tuple[str, Mark | None]]) -> None:
    marks, naive, number = Marks(), Naive(), 0
    for act, mark in acts:
        if mark is not None and act == "touch":
            assert marks.is_hot(mark) == naive.hot(mark)
            assert marks.touch(mark) == naive.touch(mark)
        elif mark is not None:
            marks.add(mark)
            naive.add(mark)
        elif act == "begin":
            number = marks.checkpoint_begin(1000)
            assert number == naive.epoch
            naive.epoch += 1
        elif number:
            marks.checkpoint_end(number)
            naive.checkpoint_end(number)
            number = 0
        assert found(marks) == naive.each()
        assert marks.count().places == len(naive.each())


@settings(max_examples=200, deadline=None)
@given(st.lists(MARKS, min_size=1, max_size=30), st.lists(MARKS, max_size=10))
def test_a_session_takes_each_mark_once_and_what_was_set_again(hot: list[Mark], again: list[Mark]) -> None:
    marks = Marks()
    for mark in hot:
        marks.add(mark)
    wanted = found(marks)
    marks.all_to_do()
    assert drain(marks) == wanted and found(marks) == wanted
    for mark in again:
        if marks.touch(mark):
            marks.set_to_do(mark)
    taken = drain(marks)
    for kind, fid, index, grains in again:
        covered = [one for one in taken if one[1] == fid and (one[0] == kind or one[0] == TAIL)]
        if not marks.is_hot((kind, fid, index, grains)):
            continue
        if kind == CHUNK:
            assert any(
                (one[0] == CHUNK and one[2] == index and one[3] & grains == grains) or (one[0] == TAIL and one[2] <= index)
                for one in covered
            )
        else:
            assert any(one[0] == kind and (kind != TAIL or one[2] <= index) for one in covered)


def drain(marks: Marks) -> set[Mark]:
    taken: set[Mark] = set()
    while fid := marks.next_to_do(ANY):
        mark = marks.take(fid, ANY)
        assert mark is not None and mark not in taken
        taken.add(mark)
    return taken


def test_what_is_still_to_do_outlives_a_checkpoint() -> None:
    marks = Marks()
    marks.add(chunk(1, 1, 1))
    marks.add(attributes(2))
    number = marks.checkpoint_begin(10)
    marks.all_to_do()
    marks.checkpoint_end(number)
    assert found(marks) == {chunk(1, 1, 1), attributes(2)}


def test_what_is_new() -> None:
    marks = Marks()
    assert not marks.is_new(1 << 45)
    marks.set_born(100)
    assert marks.is_new(100) and marks.covers_new(100) and not marks.is_new(99)
    assert not marks.is_new((1 << 39) | 100), "a found fid says nothing of its age"
    number = marks.checkpoint_begin(150)
    assert marks.is_new(120) and not marks.covers_new(120), "between begin and end what was made before needs marks of its own"
    marks.checkpoint_end(number)
    assert not marks.is_new(149) and marks.is_new(150)
    marks.forget()
    assert not marks.is_new(200) and marks.is_empty


def test_everything_covers_until_a_checkpoint_begins_which_drops_it() -> None:
    marks = Marks()
    marks.add_everything()
    assert marks.touch(attributes(76))
    number = marks.checkpoint_begin(10)
    assert not marks.touch(attributes(77)), "what comes now has a mark of its own, else nothing would ever be dropped under load"
    marks.add(attributes(77))
    marks.checkpoint_end(number)
    assert not marks.everything and found(marks) == {attributes(77)}


def test_constants() -> None:
    assert native.lib.LOG_SLOT_BYTES == SLOT and native.lib.MARK_CHUNK_BYTES == 64 * native.lib.MARK_GRAIN_BYTES
