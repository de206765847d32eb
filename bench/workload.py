"""One workload in one directory; prints one number. Runs inside a node of the lab.

workload.py NAME DIRECTORY
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

FILE_BYTES = 64 << 20
SMALL, LARGE = 4096, 1 << 20


def _warm(directory: str) -> int:
    """A file of 64 MiB that exists already, so that nothing but the write is measured."""
    fd = os.open(os.path.join(directory, "bench.dat"), os.O_RDWR | os.O_CREAT)
    if os.fstat(fd).st_size != FILE_BYTES:
        block = os.urandom(LARGE)
        for at in range(0, FILE_BYTES, LARGE):
            os.pwrite(fd, block, at)
        os.fsync(fd)
    return fd


def _median_us(do: Callable[[int], object], count: int) -> float:
    times = []
    for index in range(count):
        began = time.perf_counter()
        do(index)
        times.append(time.perf_counter() - began)
    return sorted(times)[count // 2] * 1e6


def write_4k(directory: str) -> float:
    """p50, µs."""
    fd, block = _warm(directory), os.urandom(SMALL)
    return _median_us(lambda index: os.pwrite(fd, block, index * SMALL % FILE_BYTES), 4000)


def write_1m(directory: str) -> float:
    """Bytes per second, of the median write."""
    fd, block = _warm(directory), os.urandom(LARGE)
    return LARGE / _median_us(lambda index: os.pwrite(fd, block, index * LARGE % FILE_BYTES), 192) * 1e6


def write_fsync_4k(directory: str) -> float:
    """p50, µs."""
    fd, block = _warm(directory), os.urandom(SMALL)

    def one(index: int) -> None:
        os.pwrite(fd, block, index * SMALL % FILE_BYTES)
        os.fdatasync(fd)

    return _median_us(one, 300)


def read_4k(directory: str) -> float:
    """p50, µs, from the page cache."""
    fd = _warm(directory)
    os.close(fd)
    fd = os.open(os.path.join(directory, "bench.dat"), os.O_RDONLY)
    for at in range(0, FILE_BYTES, LARGE):
        os.pread(fd, LARGE, at)
    return _median_us(lambda index: os.pread(fd, SMALL, index * 7919 * SMALL % FILE_BYTES), 20000)


def create_unlink(directory: str) -> float:
    """create + close + unlink, per second."""
    path, count = os.path.join(directory, "bench.tmp"), 1500
    began = time.perf_counter()
    for _ in range(count):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.unlink(path)
    return count / (time.perf_counter() - began)


WORKLOADS = {one.__name__: one for one in (write_4k, write_1m, write_fsync_4k, read_4k, create_unlink)}

if __name__ == "__main__":
    print(WORKLOADS[sys.argv[1]](sys.argv[2]))
