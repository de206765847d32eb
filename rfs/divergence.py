"""The way out of DIVERGED: what differs is shown (`rfsmount diff`), and one side yields (`rfsmount resolve`).

Two nodes that have diverged meet again and again, and part. Each time they say what they were asked to do; if there is something, they stay
together for it, outside every lock: both may be serving. The node that yields

    steps down → compares its tree with its peer's → saves what differs here (kept_differences.py), durably → gives its claim up, durably

in this order, so that at no moment the only copy of anything is without its owner's claim; then it hangs up, and the next handshake makes
it the target of an ordinary resync. A cut-off on the way leaves it DIVERGED and stepped down; it can be asked again.
"""

import logging
from dataclasses import asdict
from typing import Any, BinaryIO

import trio

from rfs import comparison, exit_codes, kept_differences, manifest, rules
from rfs.comparison import Summary, Trees
from rfs.errors import PeerProtocolError, SaidNo, SessionEnded
from rfs.peer_messages import Message
from rfs.record import Record
from rfs.replace_data import note_copy_begun
from rfs.replica import Replica
from rfs.resolution import Job, Wish, give_up_claim, job
from rfs.session_core import SessionCore

log = logging.getLogger("rfs.divergence")

MEET_TIMEOUT_S = 20.0  # they meet every two seconds
SAID_TIMEOUT_S = 5.0

Result = dict[str, Any]


class Asked:
    """What a person asked this node to do at its next meeting, and what came of it."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.begun = trio.Event()
        self._done = trio.Event()
        self._result: Result | SaidNo = SaidNo("it was not done")

    def finish(self, result: Result | SaidNo) -> None:
        """The first result counts."""
        if not self._done.is_set():
            self._result = result
            self._done.set()

    async def wait(self, peer: str) -> Result:
        """Until it is done; SaidNo when it cannot be."""
        with trio.move_on_after(MEET_TIMEOUT_S):
            await self.begun.wait()
        if not self.begun.is_set():
            self.finish(
                SaidNo(f"{peer} was not met within {MEET_TIMEOUT_S:.0f} s: is it running, and reachable?", exit_codes.PEER_NOT_REACHABLE)
            )
        await self._done.wait()
        if isinstance(self._result, SaidNo):
            raise self._result
        return self._result


async def ask(replica: Replica, wish: Wish) -> Result:
    """For the commands: one at a time."""
    if replica.refused is None or not replica.refused.is_diverged:
        raise SaidNo("the nodes have not diverged: 'status' says how they are, and 'verify' compares a pair")
    if replica.asked is not None:
        raise SaidNo("this node is comparing or resolving already; wait until that is done")
    replica.asked = Asked(wish)
    try:
        return await replica.asked.wait(replica.peer.node or "the peer")
    finally:
        replica.asked = None


async def estimate(replica: Replica) -> Result:
    """What a resync would have to look at: the places that are marked here (and those that are on the peer), or everything."""
    marked = replica.engine.statistics()
    if not marked.marked_everything:
        return {"kind": "marks", "places": marked.marked_places, "files": None, "compare_bytes": marked.marked_bytes}
    trees = trees_of(replica)
    files = size = 0
    with trees.scratch() as file:
        entries, _ = await manifest.write(trees.trees, trees.patterns, file, with_content=False)
        file.seek(0)
        files, size = await trio.to_thread.run_sync(_sizes, file)
    return {"kind": "full", "places": entries, "files": files, "compare_bytes": size}


def _sizes(file: BinaryIO) -> tuple[int, int]:
    files = size = 0
    numbers: set[tuple[int, int]] = set()
    for entry in manifest.read(file):
        known = (entry.directory, entry.number)
        if entry.kind == "file" and not (entry.number and known in numbers):
            files, size = files + 1, size + entry.size
            numbers |= {known} if entry.number else set()
    return files, size


# ---- the meeting ------------------------------------------------------------------------------------------------------------------------


async def meet(core: SessionCore, peer: Record, theirs: Message) -> None:
    """Both said DIVERGED. Returns when there is nothing (more) to do."""
    asked = core.replica.asked
    mine = asked.wish if asked is not None else Wish.NOTHING
    await core.link.send("divergence", wish=mine.value)
    said = await core.link.expect("divergence", timeout_s=SAID_TIMEOUT_S)
    try:
        wish = Wish(said["wish"])
    except ValueError as failure:
        raise PeerProtocolError("a wish that is none") from failure
    todo = job(mine, wish, dialed=core.link.dialed)
    if todo is Job.NOTHING:
        return
    log.info("diverged: mine=%s theirs=%s job=%s", mine.name, wish.name, todo.name)
    own = asked if asked is not None and todo in _MINE[mine] else None
    if own is not None:
        own.begun.set()
    try:
        result = await _do(core, todo, peer, theirs)
        if own is not None:
            own.finish(result)
    except SaidNo as refusal:
        if own is not None:
            own.finish(refusal)
        log.warning("diverged: job=%s refused cause=%s", todo.name, refusal.sentence)
    except (SessionEnded, PeerProtocolError, OSError) as failure:
        if own is not None:
            own.finish(SaidNo(f"it was cut off ({failure}); nothing was given up: ask again", exit_codes.FAILED))
        raise
    finally:
        if own is not None:
            own.finish(
                SaidNo("it was cut off: the link to the peer was lost; 'status' says how this node is", exit_codes.PEER_NOT_REACHABLE)
            )


_MINE = {
    Wish.NOTHING: frozenset[Job](),
    Wish.DIFF: frozenset({Job.COMPARE}),
    Wish.KEEP_MINE: frozenset({Job.STAY, Job.CONTRADICTION}),
    Wish.KEEP_YOURS: frozenset({Job.YIELD, Job.CONTRADICTION}),
}


async def _do(core: SessionCore, todo: Job, peer: Record, theirs: Message) -> Result:
    link, trees = core.link, trees_of(core.replica)
    match todo:
        case Job.COMPARE:
            summary = await comparison.compare(link, trees)
            await link.send("compared")
            return shown(summary)
        case Job.ANSWER:
            await comparison.answer(link, trees, ("compared",))
            return {}
        case Job.STAY:
            return _heard(link.theirs.node, await comparison.answer(link, trees, ("resolved", "not_resolved")))
        case Job.YIELD:
            return await _yield_or_say_why(core, peer, theirs, trees)
        case _:
            raise SaidNo("both nodes were told to resolve, and each to keep the other's data or each its own: tell one of them")


def trees_of(replica: Replica) -> Trees:
    return Trees(replica.layers.trees, replica.settings.patterns, replica.settings.state_directory)


def shown(summary: Summary) -> Result:
    return asdict(summary) | {"differences": summary.differences}


def _heard(node: str, message: Message) -> Result:
    if message["type"] == "not_resolved":
        code = message["code"] if message["code"] in exit_codes.MEANINGS and message["code"] else exit_codes.REFUSED
        raise SaidNo(f"{node} does not yield: {message['reason']}", code)
    return {"yields": node, "kept": message["kept"], "places": message["places"], "bytes": message["bytes"]}


# ---- yielding ---------------------------------------------------------------------------------------------------------------------------


async def _yield_or_say_why(core: SessionCore, peer: Record, theirs: Message, trees: Trees) -> Result:
    try:
        kept = await _yield_to(core, peer, theirs, trees)
    except SaidNo as refusal:
        await core.link.send("not_resolved", code=refusal.exit_code, reason=refusal.sentence[:1000])
        raise
    await core.link.send("resolved", kept=kept.place[:1000], places=kept.places, bytes=kept.bytes)
    core.again_s = 0.0
    return {"yields": core.replica.record.node, "kept": kept.place, "places": kept.places, "bytes": kept.bytes}


async def _yield_to(core: SessionCore, peer: Record, theirs: Message, trees: Trees) -> kept_differences.Kept:
    """See the module's text. Everything that can be refused is, before the application here is stopped."""
    replica, state_directory = core.replica, core.replica.settings.state_directory
    _claimless(replica, peer, theirs)
    if replica.is_primary:
        before = await comparison.compare(core.link, trees)
        await trio.to_thread.run_sync(kept_differences.check_room, trees.trees, before.file, state_directory)
        async with replica.changing:
            await replica.step_down(f"resolve: {peer.node}'s data is kept")
    summary = await comparison.compare(core.link, trees)
    kept = await trio.to_thread.run_sync(
        kept_differences.save, trees.trees, summary.file, state_directory, trio.from_thread.check_cancelled
    )
    log.info("differences saved to=%s places=%d bytes=%d", kept.place, kept.places, kept.bytes)
    async with replica.changing:
        if replica.is_primary or replica.stopping:
            raise SaidNo("this node was promoted or unmounted meanwhile: it keeps its claim")
        record = _claimless(replica, peer, theirs)
        if not record.generation:
            await trio.to_thread.run_sync(note_copy_begun, state_directory)  # what the directories still hold is saved, and may be replaced
        await replica.commit(record, f"resolve: gives way to {peer.node}")
        replica.refused = None
        replica.touch()
    return kept


def _claimless(replica: Replica, peer: Record, theirs: Message) -> Record:
    everything = (1 << theirs["directories"]) - 1
    given_up = give_up_claim(
        *(replica.record, peer),
        peer_running=theirs["running"],
        mine_empty=replica.layers.is_empty(), theirs_empty=theirs["empty"] == everything,
    )  # fmt: skip
    if isinstance(given_up, rules.Refusal):
        raise SaidNo(given_up.reason)
    return given_up
