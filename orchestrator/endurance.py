"""hactld goes on when the machine is busy: a daemon that is not scheduled, or waits for its own pages, is taken for dead by its peer.

Its loop gets more of the processors than others (a few milliseconds now and then is all it needs), and its memory stays in memory. Neither
is inherited: what hactld starts is an application, and has to fit in as it would without us. What the system refuses is told, and changes
nothing else.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

NICENESS: Final = -10
CAP_IPC_LOCK: Final = 14
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
PR_SET_DUMPABLE: Final = 4


def endure() -> list[str]:
    """Before any thread starts; what was refused."""
    return [refusal for refusal in (_be_scheduled(), _stay_in_memory(), _keep_secrets()) if refusal]


def _be_scheduled() -> str:
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    except OSError as error:
        return f"no priority over other processes: {error.strerror}"
    return ""


def _stay_in_memory() -> str:
    if not has_capability(CAP_IPC_LOCK):  # without it the lock is bounded, and would make memory fail later that is asked for then
        return "memory is not locked: hactld has no right to"
    if ctypes.CDLL(None, use_errno=True).mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0:
        return f"memory is not locked: {os.strerror(ctypes.get_errno())}"
    return ""


def _keep_secrets() -> str:
    """Its memory holds the node's key: no core of it, and nobody but root looks into it. By a switch that a program which is started does
    not inherit: what becomes of a crash of theirs is the services' own business, so there is no limit on cores."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        return f"a crash may leave keys in a core file: {os.strerror(ctypes.get_errno())}"
    return ""


def has_capability(number: int) -> bool:
    """Is it in effect?"""
    line = next((line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(line.split()[1], 16) >> number & 1)
