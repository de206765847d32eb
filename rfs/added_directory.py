"""`rfsmount add`: one more directory for a pair that runs, without stopping the application (docs/decisions/0028).

The secondary first. It leaves the session in order, so it is OUTDATED, durably: nobody promotes it, and the primary goes on ALONE without a
grant. Then the directory, which must be empty there, joins its set. Two nodes that have another number of directories make no session
(DIRECTORIES_DIFFER), so nothing of it is ever taken for mirrored before both have it. Then the primary, which is alone: guarded, known to
the engine, marked, and put over its place; its application may use it from then on, and everything it does there is marked. The session
that follows copies what is marked, the new directory among it.

On a node each step is durable before the next one relies on it: the directory is recorded as pending, then marked, then mounted. A start
marks what is pending again, whatever the last process came to; whoever asks once more has finished what failed on the way, and until then
status does not list it. A directory with ids of an earlier mirror in it has everything compared, for they may be the same as others' here.
So long as the pair has not been whole with it, a start without it is accepted too, and takes it back.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import trio

from rfs import directory_checks, exit_codes, rules
from rfs.engine import Mode, Snapshot
from rfs.errors import SaidNo
from rfs.patterns import Patterns, by_directory
from rfs.record import DataState
from rfs.replica import Replica, Unfinished
from rfs.session_state import Stage
from rfs.state_directory import Directories, write_directories
from rfs.steps import reached

log = logging.getLogger("rfs.directories")

DIRECTORIES_MAX = 32
GOES_ALONE_S = 10.0
WHY_WE_LEAVE = "a directory is being added: this copy is back when both nodes have it"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be added, with the options that `mount` would be given."""

    directories: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()


def read(params: dict[str, Any]) -> Wanted:
    """The control call's parameters. ValueError: they are none."""
    return Wanted(_texts(params, "directories"), _texts(params, "exclude"), _texts(params, "only"))


def _texts(params: dict[str, Any], name: str) -> tuple[str, ...]:
    value = params.get(name, [])
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
        raise ValueError(f"'{name}' is no list of texts")
    return tuple(value)


def holds_files(path: str) -> str:
    """Why this cannot be a secondary's."""
    return f"{path}: holds files, which the primary's would replace; empty it here, or move them away"


def obstacle(*, is_primary: bool, mode: Mode, stage: Stage | None, data: DataState, snapshot: Snapshot) -> str | None:
    """Why no directory can be added to this node now; None: it can. `stage`: of the session, if there is one."""
    if is_primary and mode in (Mode.ALONE, Mode.UNUSED):
        return None
    if is_primary and mode in (Mode.PAIRED, Mode.RESYNCING):
        return "add it on the secondary first: that one leaves the pair for it, and is back when both have the directory"
    if is_primary or mode is not Mode.IDLE:
        return "this node waits for its peer or a grant; a directory is added to a primary that serves"
    if stage in (Stage.RESYNCING_SOURCE, Stage.RESYNCING_TARGET) or data in (DataState.INCONSISTENT, DataState.FAILED):
        return "this copy is not whole; wait for the end of the resync"
    if snapshot is not Snapshot.NONE:
        return "a snapshot of what this copy was before a resync is kept still; wait for the end of the resync"
    if stage is not Stage.PAIRED and data is not DataState.OUTDATED:
        return "this copy is not beside its peer now, and may be needed in its place: connect the nodes first"
    return None


async def add(replica: Replica, wanted: Wanted, *, check_only: bool) -> None:
    """All of them, or SaidNo before anything was touched. What this node has already is left out, so it can be asked again; what failed on
    its way is finished then."""
    # Long for a large tree, so without the lock; a check need not know.
    doubtful = set() if check_only else await trio.to_thread.run_sync(_with_ids, _new(replica, wanted)[0])
    with trio.move_on_after(GOES_ALONE_S):
        while _is_going_alone(replica):
            await replica.changed()
    async with replica.changing:
        if not check_only:
            await _finish(replica)
        paths, patterns = _new(replica, wanted)
        if not paths:
            return
        session = replica.session
        reason = obstacle(
            is_primary=replica.is_primary, mode=replica.mode, stage=session.stage if session is not None else None,
            data=replica.record.data, snapshot=replica.engine.snapshot(),
        )  # fmt: skip
        if reason is not None and not (check_only and replica.is_primary and replica.mode is Mode.PAIRED):  # it will be alone by then
            raise SaidNo(reason)
        for path in paths:
            if not await replica.layers.check(path) and not replica.is_primary:
                raise SaidNo(holds_files(path))
        if check_only:
            return
        if session is not None and session.stage is Stage.PAIRED:
            await session.leave(WHY_WE_LEAVE, consent=False, orderly=True)
            reached("add-left")
            await replica.end_session(session)
        for path, own in zip(paths, patterns, strict=True):
            with trio.CancelScope(shield=True):  # half a directory is none
                await _add_one(replica, path, own, doubtful=path in doubtful)


def _with_ids(paths: Sequence[str]) -> set[str]:
    return {path for path in paths if directory_checks.carries_ids(path)}


def _is_going_alone(replica: Replica) -> bool:
    """The secondary has left for this a moment ago."""
    return replica.is_primary and not replica.record.peer_may_fit and replica.mode in (Mode.PAIRED, Mode.FROZEN)


def _new(replica: Replica, wanted: Wanted) -> tuple[list[str], tuple[Patterns, ...]]:
    settings, known = replica.settings, replica.layers.paths
    given = directory_checks.resolve_directories(wanted.directories, settings.state_directory)
    paths = [path for path in given if path not in known]
    if len(known) + len(paths) > DIRECTORIES_MAX:
        raise SaidNo(f"{len(known) + len(paths)} directories: a module has at most {DIRECTORIES_MAX}", exit_codes.CONFIGURATION_INVALID)
    directory_checks.resolve_directories([*known, *paths], settings.state_directory)  # none in another
    return paths, by_directory([*known, *paths], wanted.exclude, wanted.only)[len(known) :]


async def _add_one(replica: Replica, path: str, patterns: Patterns, *, doubtful: bool) -> None:
    before = Directories(tuple(replica.layers.paths), replica.pending_directories)
    await replica.layers.add(path)
    try:
        tree = replica.layers.trees[-1]
        if not replica.is_primary and not directory_checks.is_empty(tree):  # looked at beneath the guard
            raise SaidNo(holds_files(path))
        if doubtful:  # durable before the directory is recorded: a start would not look again
            log.info("everything is marked: ids of an earlier mirror lie in path=%s", path)
            await replica.engine.mark_everything()
        await _record(replica, Directories(tuple(replica.layers.paths), before.pending + 1))
        reached("add-recorded")
        try:
            position = await replica.engine.add_directory(tree)
        except OSError as failure:
            await _record(replica, before)
            raise SaidNo(f"{path}: cannot be added now ({failure.strerror}); try again in a moment", exit_codes.FAILED) from failure
    except BaseException:
        await replica.layers.take_back()
        raise
    replica.pending_directories = before.pending + 1
    replica.settings = replace(
        replica.settings, directories=(*replica.settings.directories, path), patterns=(*_all_patterns(replica, position), patterns)
    )
    replica.unfinished = Unfinished(position)
    replica.engine.add_patterns(position, patterns)
    await _finish(replica)


async def _finish(replica: Replica) -> None:
    """From what the engine knows to what the application uses. There is no way back: what fails is done when it is asked for once more."""
    if (unfinished := replica.unfinished) is None:
        return
    position, path = unfinished.position, replica.layers.paths[unfinished.position]
    with trio.CancelScope(shield=True):
        try:
            if not unfinished.marked:
                await replica.engine.mark_directory(position)
                unfinished.marked = True
            reached("add-marked")
            replica.identity = replace(replica.identity, backing=replica.layers.backing())
            await replica.commit(rules.on_more_disks(replica.record, replica.identity), f"{path} is added")
            await replica.layers.attach_last(replica.engine)
        except OSError as failure:
            log.error("directory not added yet path=%s position=%d cause=%s", path, position, failure.strerror)
            raise SaidNo(f"{path}: is half added ({failure.strerror}); ask for it once more", exit_codes.FAILED) from failure
        replica.unfinished = None
        reached("add-mounted")
        log.info("directory added path=%s position=%d", path, position)
        replica.touch()


def _all_patterns(replica: Replica, count: int) -> Sequence[Patterns]:
    return replica.settings.patterns or (Patterns(),) * count


async def _record(replica: Replica, directories: Directories) -> None:
    await trio.to_thread.run_sync(write_directories, replica.settings.state_directory, directories)
