"""When a copy that had to leave its session tries again: not before a pause that doubles, and one that left for lack of room not before
there is some.

A resync begins by making this copy INCONSISTENT. To try one that must fail costs the last whole state of this copy, and the primary's
disk and network for nothing. So what has to change first is waited for: room here, or less to hold on the peer (its pulse says how much
room it has). Where no file system was short (a quota, say) only the pause is left.
"""

import errno
from collections.abc import Awaitable, Callable, Sequence

import trio

from rfs.engine import Space

FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
LOOK_EVERY_S = 1.0
RESERVE_BYTES_MAX, RESERVE_FILES_MAX = 32 << 20, 1024
SHARE = 20  # the reserve is at most this part of the whole

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
DISK_FAILURES = frozenset({errno.EIO, errno.EROFS, errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM})


class SecondTry:
    """Of one process."""

    def __init__(self) -> None:
        self.waits_for = ""  # for status: what has to change
        self._tries = 0
        self._not_before = 0.0
        self._short: list[Space] = []  # at the failure; empty: no room is waited for
        self._peer: Space | None = None

    def succeeded(self) -> None:
        """In sync again."""
        self.__init__()  # type: ignore[misc]

    def failed(self, error: int, spaces: Sequence[Space], peer: Space | None) -> None:
        """The session ended because this copy could not follow. `spaces` are those of the file systems here."""
        self._not_before = trio.current_time() + min(FIRST_PAUSE_S * 2**self._tries, LONGEST_PAUSE_S)
        self._tries = min(self._tries + 1, 16)
        short = error in NO_ROOM and any(map(_is_short, spaces))
        self._short = list(spaces) if short else []
        self._peer = peer if short else None
        self.waits_for = ""
        if short:
            fullest = min(spaces, key=lambda space: space.free_bytes)
            self.waits_for = f"it comes back when {_reserve(fullest)[0] >> 10} KiB more are free here ({fullest.free_bytes >> 10} KiB are)"

    async def wait(
        self, spaces: Callable[[], Sequence[Space]], peer: Callable[[], Space | None], make_room: Callable[[], Awaitable[None]]
    ) -> None:
        """Until there is a point in trying. `make_room`: what the session that failed has left behind is in the way now."""
        await trio.sleep_until(self._not_before)
        if self._short:
            await make_room()
        while self._short and not self._has_room(spaces(), peer()):
            await trio.sleep(LOOK_EVERY_S)

    def _has_room(self, spaces: Sequence[Space], peer: Space | None) -> bool:
        self._peer = self._peer or peer
        pairs = list(zip(self._short, spaces, strict=True))
        if self._peer is not None and peer is not None:
            pairs.append((self._peer, peer))
        return any(_has_grown(was, now) for was, now in pairs)


def _reserve(space: Space) -> tuple[int, int]:
    return min(RESERVE_BYTES_MAX, space.total_bytes // SHARE), min(RESERVE_FILES_MAX, space.files // SHARE)


def _is_short(space: Space) -> bool:
    """Of bytes, or of inodes where there is a number of them."""
    reserve_bytes, reserve_files = _reserve(space)
    return space.free_bytes < reserve_bytes or bool(space.files and space.files_free < reserve_files)


def _has_grown(was: Space, now: Space) -> bool:
    reserve_bytes, reserve_files = _reserve(now)
    more_files = now.files_free >= was.files_free + reserve_files and now.files > 0
    return now.free_bytes >= was.free_bytes + reserve_bytes or (more_files and _is_short(was))
