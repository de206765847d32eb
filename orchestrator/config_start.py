"""With which configuration hactld begins: the one that was applied last; at the very first start, the files that it finds.

A node that was away (it was switched off, or died in the middle of an apply) first asks its peers, briefly, before it starts anything: what
it promised may have been applied meanwhile, or something newer. Who does not answer is asked again while it serves (config_keeper.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from orchestrator import config_archive
from orchestrator.config import load_cluster, load_modules
from orchestrator.config_keeper import ConfigKeeper
from orchestrator.generations import Generation, GenerationStore
from rfs.errors import SaidNo

ASK_DEADLINE_S: Final = 2.0
FOUND = "found by the first hactld here"


def tree_of(store: GenerationStore, config_dir: Path) -> Path:
    """Where the configuration is that counts, without changing anything: what is applied, else the files (blocking). SaidNo when others
    than root could change it."""
    store.read()
    applied = store.past.applied
    tree = store.tree(applied.digest) if applied is not None else config_dir
    config_archive.check_ownership(tree)
    return tree


def adopt(store: GenerationStore, config_dir: Path) -> Path:
    """The files become the first generation, if there is none; ConfigError when they cannot (blocking)."""
    if store.past.applied is None:
        config_archive.check_ownership(config_dir)
        load_modules(config_dir, load_cluster(config_dir))
        digest = store.keep(config_archive.gather(config_dir))
        # The same name on every node that was installed with the same files.
        store.commit(Generation(1, digest, "", f"found-{digest[:16]}", "hactld", time.time(), FOUND), laid_out=True)
    else:
        with suppress(OSError, SaidNo):  # a disk that refuses leaves it closed to others, and no more
            store.make_place()
            store.keep(config_archive.as_open_here(store.files_of(store.past.applied.digest), config_dir))
    assert store.past.applied is not None
    return store.tree(store.past.applied.digest)


async def catch_up(keeper: ConfigKeeper, log: Callable[[str], None]) -> None:
    """Ask every peer once; what follows is applied when it returns. Nothing of a module runs yet that could stand against it."""
    with trio.move_on_after(ASK_DEADLINE_S) as patience:
        async with trio.open_nursery() as nursery:
            for peer in keeper.peers:
                nursery.start_soon(keeper.ask, peer)
    if patience.cancelled_caught and keeper.store.prepared is not None:
        log(f"{keeper.store.prepared.coordinator} does not say what became of a configuration that this node has promised to apply")
