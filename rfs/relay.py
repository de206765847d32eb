"""pyfuse3, unmodified, on a socket instead of /dev/fuse.

libfuse takes "/dev/fd/N" as a device that is already open; the engine keeps the other end, replays an INIT and relays the cold
operations. pyfuse3's death is not the mount's: the C threads go on serving, and a new pyfuse3 session is started on a new socket.
A broken handler costs one operation (the engine answers it with EIO), not the module.
"""

import logging

import pyfuse3
import trio

from rfs.engine import Engine
from rfs.operations import ColdOperations

log = logging.getLogger("rfs.relay")

RESTART_DELAY_S = 0.2
RESTART_DELAY_MAX_S = 5.0


async def _run_once(engine: Engine) -> None:
    """One pyfuse3 session, until it ends or we are cancelled."""
    descriptor = engine.relay_open()
    options = set(pyfuse3.default_options)
    options.add("fsname=lockstep")
    pyfuse3.init(ColdOperations(engine), f"/dev/fd/{descriptor}", options)
    try:
        await pyfuse3.main()
    finally:
        # libfuse closes the descriptor with the session; no unmount happens, it mounted nothing.
        pyfuse3.close(unmount=True)


async def run(engine: Engine) -> None:
    """Keep a pyfuse3 session on the engine until cancelled. There can be only one in a process: pyfuse3 keeps it in globals."""
    delay_s = RESTART_DELAY_S
    while True:
        began = trio.current_time()
        try:
            await _run_once(engine)
        except* Exception as failures:  # whatever it died of: it must not take the mount with it
            log.warning("relay ended cause=%s, starting it again in %.1f s", failures.exceptions[0], delay_s)
        else:
            log.info("relay ended, starting it again in %.1f s", delay_s)
        await trio.sleep(delay_s)
        delay_s = RESTART_DELAY_S if trio.current_time() - began > 60 else min(delay_s * 2, RESTART_DELAY_MAX_S)
