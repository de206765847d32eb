"""Random steps on one file, each checked against a model in memory: what fsx does, for the ways in which a file may be open here.

    python -m tests.posix.fsx FILE VARIANT SEED STEPS [REGION REGIONS]

After each step the whole file (or the process's own region of it) is read back by another descriptor and compared with the model. The
log of all steps is in the error, so a failure is its own reproducer.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
from collections.abc import Callable
from typing import NoReturn

from tests.posix.syscalls import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fallocate

PAGE, LIMIT = 4096, 256 << 10
VARIANTS = ("buffered", "write-only", "direct", "mapped", "mixed")


class Fsx:
    """One file, or a region of it that is this process's own (then nothing changes its size)."""

    def __init__(self, path: str, variant: str, seed: int, region: int = 0, regions: int = 1) -> None:
        self.path, self.variant = path, variant
        self.chance = random.Random(f"{variant} {seed} {region}")
        self.alone = regions == 1
        self.start, self.limit = region * LIMIT, LIMIT
        self.model = bytearray() if self.alone else bytearray(LIMIT)
        self.log: list[str] = []
        self.reader = os.open(path, os.O_RDONLY)
        self.direct_reader = os.open(path, os.O_RDONLY | os.O_DIRECT)
        self.fd = self.appender = -1
        self._open()
        self.unit = 512 if variant == "direct" else 1

    def _open(self) -> None:
        how = {"write-only": os.O_WRONLY, "direct": os.O_RDWR | os.O_DIRECT}.get(self.variant, os.O_RDWR)
        if self.variant == "mixed":
            how = self.chance.choice((os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_SYNC, os.O_WRONLY | os.O_DSYNC))
        self.fd = os.open(self.path, how)
        self.appender = os.open(self.path, self.chance.choice((os.O_WRONLY, os.O_RDWR)) | os.O_APPEND)
        self.mapping = os.open(self.path, os.O_RDWR)

    def _close(self) -> None:
        for fd in (self.fd, self.appender, self.mapping):
            os.close(fd)

    # ---- places and bytes ----------------------------------------------------------------------------------------------------------

    def _aligned(self, value: int) -> int:
        return value - value % self.unit

    def _place(self, bound: int) -> tuple[int, int]:
        """An offset below the bound and a length of at most what is left of it; often at a page's border."""
        offset = self.chance.randrange(bound)
        if self.chance.random() < 0.3:
            offset -= offset % PAGE
        length = self.chance.choice((1, 10, 511, PAGE, PAGE + 1, 20_000, 70_000))
        length = min(1 + self.chance.randrange(length), bound - offset)
        return self._aligned(offset), max(self._aligned(length), self.unit)

    def _bytes(self, length: int) -> bytes:
        return self.chance.randbytes(min(length, 64)).ljust(length, bytes([1 + self.chance.randrange(255)]))

    def _put(self, offset: int, data: bytes | bytearray) -> None:
        if offset > len(self.model):
            self.model.extend(bytes(offset - len(self.model)))
        self.model[offset : offset + len(data)] = data

    def _resize(self, size: int) -> None:
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    # ---- steps ----------------------------------------------------------------------------------------------------------------------

    def write(self) -> str:
        offset, length = self._place(self.limit)
        data = self._bytes(length)
        if self.variant == "direct":
            with mmap.mmap(-1, length) as memory:  # aligned
                memory[:] = data
                wrote = os.pwritev(self.fd, [memory], self.start + offset)
        else:
            wrote = os.pwrite(self.fd, data, self.start + offset)
        assert wrote == length
        self._put(offset, data)
        return f"write {offset} {length}"

    def append(self) -> str:
        length = min(1 + self.chance.randrange(9000), self.limit - len(self.model))
        data = self._bytes(self._aligned(length))
        assert os.write(self.appender, data) == len(data)
        self._put(len(self.model), data)
        return f"append {len(data)}"

    def truncate(self) -> str:
        size = self._aligned(self.chance.randrange(self.limit))
        os.ftruncate(self.fd, size) if self.chance.random() < 0.5 else os.truncate(self.path, size)
        self._resize(size)
        return f"truncate {size}"

    def read(self) -> str:
        offset, length = self._place(self.limit)
        with mmap.mmap(-1, max(length, PAGE)) as memory:
            fd = self.direct_reader if self.unit > 1 else self.mapping
            got = os.preadv(fd, [memoryview(memory)[:length]], self.start + offset)
            self._same(memory[:got], self.model[offset : offset + length], offset)
        return f"read {offset} {length}"

    def map_read(self) -> str:
        if not self.model:
            return "nothing to map"
        offset, length = self._place(len(self.model))
        base = (self.start + offset) // PAGE * PAGE
        with mmap.mmap(self.mapping, self.start + offset + length - base, prot=mmap.PROT_READ, offset=base) as memory:
            self._same(memory[self.start + offset - base :], self.model[offset : offset + length], offset)
        return f"map and read {offset} {length}"

    def map_write(self) -> str:
        if not self.model:
            return "nothing to map"
        offset, length = self._place(len(self.model))
        length = min(length, len(self.model) - offset)
        base = (self.start + offset) // PAGE * PAGE
        data = self._bytes(length)
        with mmap.mmap(self.mapping, self.start + offset + length - base, offset=base) as memory:
            memory[self.start + offset - base :] = data
            memory.flush()
        self._put(offset, data)
        return f"map and write {offset} {length}"

    def punch(self) -> str:
        offset, length = self._place(self.limit)
        fallocate(self.fd, PUNCH_HOLE | KEEP_SIZE, self.start + offset, length)
        end = min(offset + length, len(self.model))
        if end > offset:
            self.model[offset:end] = bytes(end - offset)
        return f"punch {offset} {length}"

    def zero(self) -> str:
        offset, length = self._place(self.limit)
        keep = self.chance.random() < 0.5
        fallocate(self.fd, ZERO_RANGE | (KEEP_SIZE if keep else 0), self.start + offset, length)
        end = min(offset + length, len(self.model)) if keep else offset + length
        if end > offset:
            self._put(offset, bytes(end - offset))
        return f"zero {offset} {length} keep {keep}"

    def allocate(self) -> str:
        offset, length = self._place(self.limit)
        keep = self.chance.random() < 0.5
        fallocate(self.fd, KEEP_SIZE if keep else 0, self.start + offset, length)
        if not keep and offset + length > len(self.model):
            self._resize(offset + length)
        return f"allocate {offset} {length} keep {keep}"

    def copy(self) -> str:
        offset, length = self._place(self.limit)
        target = self._aligned(self.chance.randrange(self.limit))
        length = min(length, abs(target - offset), self.limit - target, len(self.model) - offset)
        if length <= 0:
            return "nothing to copy"
        done = 0
        while done < length:
            done += os.copy_file_range(self.mapping, self.fd, length - done, self.start + offset + done, self.start + target + done)
        self._put(target, self.model[offset : offset + length])
        return f"copy {offset} {length} to {target}"

    def reopen(self) -> str:
        self._close()
        self._open()
        return "open again"

    def sync(self) -> str:
        self.chance.choice((os.fsync, os.fdatasync))(self.fd)
        return "sync"

    # ---- checking -------------------------------------------------------------------------------------------------------------------

    def _same(self, got: bytes, wanted: bytes | bytearray, offset: int) -> None:
        if got != wanted:
            at = next((n for n, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted)))
            self.fail(
                f"byte {offset + at} differs, {len(got)} bytes of {len(wanted)}: {got[at : at + 8]!r} instead of {wanted[at : at + 8]!r}"
            )

    def fail(self, text: str) -> NoReturn:
        raise AssertionError(f"{self.variant} {self.path} from {self.start}: {text}\n" + "\n".join(self.log[-40:]))

    def check(self) -> None:
        if self.alone and os.fstat(self.fd).st_size != len(self.model):
            self.fail(f"size {os.fstat(self.fd).st_size} instead of {len(self.model)}")
        if self.variant == "direct":
            with mmap.mmap(-1, self.limit) as memory:
                got = os.preadv(self.direct_reader, [memory], self.start)
                self._same(memory[:got], self.model, 0)
        else:
            self._same(os.pread(self.reader, self.limit, self.start), self.model, 0)

    def steps(self) -> list[Callable[[], str]]:
        alone = [self.append, self.truncate, self.truncate] if self.alone else []
        mapped = [] if self.variant == "direct" else [self.map_read, self.map_write]
        if self.variant == "mapped":
            mapped *= 5
        return [self.write] * 5 + [
            self.read,
            self.punch,
            self.zero,
            self.allocate,
            self.copy,
            self.copy,
            self.reopen,
            self.sync,
            *mapped,
            *alone,
        ]

    def run(self, count: int) -> None:
        steps = self.steps()
        self.check()
        for number in range(count):
            self.log.append(f"{number}")
            self.log[-1] = f"{number}: {self.chance.choice(steps)()}"
            self.check()
        self._close()
        os.close(self.reader)
        os.close(self.direct_reader)


def main(path: str, variant: str, seed: str, steps: str, region: str = "0", regions: str = "1") -> None:
    Fsx(path, variant, int(seed), int(region), int(regions)).run(int(steps))


if __name__ == "__main__":
    main(*sys.argv[1:])
