"""`rfsmount verify`: are both copies equal, at one seq for each place, while the application writes? csrc/verify.c does it.

It is asked of the primary of a whole pair. It runs in the engine; who asked may go away and ask again for how far it is. `--repair` lets a
resync make the secondary's copy equal where it was found to be different.
"""

import errno
import logging
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from rfs import exit_codes
from rfs.engine import Difference
from rfs.errors import SaidNo
from rfs.replica import Replica
from rfs.session_state import SessionSlot, Stage

log = logging.getLogger("rfs.verify")

Params = dict[str, Any]
Method = Callable[[Params], Awaitable[Params]]

LISTED_BYTES = 256 * 1024  # of one answer: the control socket's frames are bounded
REPAIR_BEGINS_S = 30.0


def methods(replica: Replica) -> dict[str, Method]:
    """What the control socket offers."""
    return {"verify": partial(_begin, replica), "verification": partial(_progress, replica), "repair": partial(_repair, replica)}


async def _begin(replica: Replica, params: Params) -> Params:
    """Start, or find that it is running."""
    _paired_session(replica)
    try:
        await replica.engine.verify_start()
        log.info("verify begins")
    except OSError as failure:
        if failure.errno == errno.ENOTCONN:
            raise SaidNo("the pair was taken apart at this moment; look at 'status' and try again", exit_codes.FAILED) from failure
        if failure.errno != errno.EBUSY:
            raise
    return await _progress(replica, {})


async def _progress(replica: Replica, params: Params) -> Params:
    """How far it is and what was found from the difference number `after` on."""
    now = replica.engine.verification()
    first = params.get("after", 0)
    if not isinstance(first, int):
        raise ValueError("'after' is no number")
    shown: list[Params] = []
    size_bytes = 0
    while size_bytes < LISTED_BYTES and (found := replica.engine.difference(first + len(shown))) is not None:
        shown.append(_shown(replica, found))
        size_bytes += 200 + 4 * len(found.path)
    return {
        "running": bool(now.running),
        "cut_off": os.strerror(-now.result) if now.result < 0 else "",
        "bytes_done": now.bytes_done, "total_bytes": max(now.total_bytes, now.bytes_done),
        "files_done": now.files_done, "total_files": max(now.total_files, now.files_done),
        "differences": now.differences, "listed": now.listed, "shown": shown,
    }  # fmt: skip


def _shown(replica: Replica, found: Difference) -> Params:
    below = found.path.decode(errors="backslashreplace")
    directory = replica.layers.paths[found.directory]
    return {
        "path": f"{directory}/{below}" if below else directory,
        "kinds": list(found.kinds), "offset": found.offset, "length": found.length,
    }  # fmt: skip


async def _repair(replica: Replica, params: Params) -> Params:
    """What was found to be different is made equal; returns when the copies are a whole pair again."""
    async with replica.changing:
        session = _paired_session(replica)
        await resync_what_differs(replica)
    began = trio.current_time()
    while True:
        now = replica.session
        if now is not None and now is not session and now.stage is Stage.PAIRED:
            return {}
        begun = now is not None and now is not session and now.stage is Stage.RESYNCING_SOURCE
        if replica.stopping:
            raise SaidNo("this rfsmount is being unmounted")
        if not begun and trio.current_time() - began > REPAIR_BEGINS_S:
            raise SaidNo("the resync that repairs does not begin; look at 'status'", exit_codes.TIMEOUT)
        with trio.move_on_after(1.0):
            await replica.changed()


async def resync_what_differs(replica: Replica) -> None:
    """Everything is marked, durably, so that the next session compares everything and repairs whatever was found: whoever changed one place
    behind the mirror may have changed others since. The caller holds `changing`; operations wait until that session has begun."""
    log.info("repair: a session that compares everything follows")
    await recopy(replica)


async def recopy(replica: Replica) -> None:
    """The same without a session as well: then whenever the peer comes. The caller holds `changing`."""
    await replica.engine.mark_everything()
    replica.resumable = 0
    if replica.session is not None:
        await replica.session.hang_up()


def _paired_session(replica: Replica) -> SessionSlot:
    peer = replica.peer.node or "the peer"
    if not replica.is_primary:
        raise SaidNo(f"a verify is asked of the primary: run it on {peer}")
    if replica.session is None or replica.session.stage is not Stage.PAIRED:
        raise SaidNo(f"there is no second copy up to date to compare with; wait until 'status' says paired with {peer}")
    return replica.session
