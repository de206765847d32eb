"""A tar of small files, 100 to a directory:  archive.py PATH FILES   (run inside a node of the lab)"""

from __future__ import annotations

import io
import random
import sys
import tarfile

FILES_PER_DIRECTORY = 100
BYTES_MIN, BYTES_MAX = 256, 1792  # 1 KiB on average


def write(path: str, files: int) -> None:
    """The same bytes at every run."""
    chance = random.Random(files)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for index in range(files):
            directory = f"d{index // FILES_PER_DIRECTORY:05d}"
            if index % FILES_PER_DIRECTORY == 0:
                entry = tarfile.TarInfo(directory)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            content = chance.randbytes(chance.randint(BYTES_MIN, BYTES_MAX))
            entry = tarfile.TarInfo(f"{directory}/f{index:06d}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]))
