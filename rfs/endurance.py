"""Going on when memory or descriptors are short: an application on the mount must not suffer for what the rest of the machine does."""

import errno
import logging
import os
import resource
from pathlib import Path

from rfs.engine import hold_memory

log = logging.getLogger(__name__)

OOM_SCORE_ADJ = -900  # of -1000 (never) to 1000: almost everything else is killed first


def endure() -> None:
    """Before any thread starts. What the system refuses is said in the log, and is no reason not to serve."""
    _raise_descriptor_limit()
    try:
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ))
    except OSError as failure:
        log.warning("cannot ask to be spared when memory runs out: %s", failure.strerror)
    if result := hold_memory():
        log.warning("cannot lock memory: %s; under memory pressure operations may be slow", os.strerror(-result))


def _raise_descriptor_limit() -> None:
    """Every file that an application has open costs one here."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        most = int(Path("/proc/sys/fs/nr_open").read_text())
    except OSError:
        most = hard
    for limit in (most, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, hard)))
            return
        except (ValueError, OSError) as failure:
            if isinstance(failure, OSError) and failure.errno != errno.EPERM:
                raise
    log.warning("cannot raise the number of descriptors")
