"""Small files of a state directory whose file system may be full: what exists already can always be written again."""

import errno
import os
from pathlib import Path

from rfs.durably import write_durably


def write_small(path: Path, text: str) -> None:
    """Durably; atomically where there is room for a second file, else over the first one, in the block that it has."""
    try:
        write_durably(path, text.encode())
    except OSError as failure:
        if failure.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        with path.open("r+b") as file:
            overwrite(file.fileno(), text.encode())
            os.fsync(file.fileno())


def overwrite(descriptor: int, content: bytes) -> None:
    """The file never becomes empty in between: its block would be somebody else's then. What is cut off after the first call has empty
    lines at its end, where the old content was longer: no reader minds."""
    left = max(os.fstat(descriptor).st_size - len(content), 0)
    os.pwrite(descriptor, content + b"\n" * left, 0)
    os.ftruncate(descriptor, len(content))
