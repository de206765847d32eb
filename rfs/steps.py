"""Named steps of what this process does, at which a test can make it die or stop.

Costs nothing unless LOCKSTEP_STEPS names a file when the process starts. Then each step looks into that file: with "NAME:kill:3" in it
the third visit of NAME since then is this process' end (SIGKILL: no handler, no flush), with "NAME:stop:1" it stops until SIGCONT. Names
visited at least once are appended to the same path with ".visited". The engine has the same at its STEP(...) (csrc/steps.h), in test
builds only.

`STEPS` holds every name; tests/unit/test_steps.py holds it against the source, tests/faults/ dies at each of them.
"""

import os
import signal

STEPS = {
    # going on without the peer
    "alone-before-mint": "a primary is about to go on without its peer",
    "alone-minted": "the new generation is durable, every op still waits",
    "alone-thawed": "the engine acknowledges without the peer",
    "primary-durable": "the record says primary, the engine does not know it",
    "primary-frozen": "the engine is primary and frozen",
    "promoted-unmounted": "a promoted node goes on alone, its layers are not mounted",
    # the handshake
    "state-sent": "this node's record has left",
    "verdict-sent": "this node's verdict has left",
    "source-renewed": "the source's boot and term are durable and told",
    "target-renewed": "the target's boot and the source's term are durable, not told",
    "resume-source": "the source has its data link, to ship its window again",
    "resume-target": "the target has its data link, to be shipped the window again",
    # a resync, as source
    "source-synced": "the source's copy is durable",
    "degrade-asked": "the target was told to become INCONSISTENT",
    "source-recorded": "the target is INCONSISTENT, and the source's record says so",
    "source-attached": "the source's data link carries ops",
    "source-drained": "nothing is marked any more",
    "end-promised": "the record says that the peer may be whole; END has not left",
    "end-sent": "END is in the stream of ops",
    "adopted-heard": "the target has adopted; the source's record does not say so yet",
    "source-paired": "the source's record says so, the target has not been told",
    # a resync, as target
    "degrade-heard": "the target is asked to become INCONSISTENT",
    "target-inconsistent": "INCONSISTENT is durable, and not confirmed",
    "target-attached": "the target's data link carries ops",
    "end-received": "everything up to END is applied here, in memory",
    "target-synced": "and on the disk",
    "target-adopted": "the target's record is UPTODATE, the source does not know",
    "adopted-sent": "the source was told",
    "target-paired": "the target is paired, and has not thrown away what it held",
    # leaving in order
    "leave-durable": "a leaving secondary's record is OUTDATED, its peer does not know",
    "leave-told": "the peer knows that this node leaves",
    "leave-heard": "the peer's leave is in this node's record; it has not been answered",
    # a swap
    "demote-drained": "every op of the primary is answered, none is taken any more",
    "demote-synced": "both copies are durable",
    "demote-durable": "the old primary's record is secondary, its peer does not know",
    "demote-agreed": "and its peer knows",
    "demoted-heard": "the peer has demoted itself; it has not been answered",
    "turn-durable": "the new primary's record has the new term",
    "turn-answered": "the other side applies from here on",
    "turn-done": "the new primary's engine ships, nothing is mounted",
    "turn-heard": "the new term is durable on the new secondary",
    "turn-applied": "the new secondary's engine applies; it has not said so",
    # bad disks, and giving way
    "fail-durable": "FAILED is on record, nobody was told",
    "fail-told": "and the peer was told",
    "fenced": "the engine has failed every op that waited",
    "stepped-down": "the record is secondary after a fence",
    # a checkpoint, on the primary
    "checkpoint-begun": "the ops of before are answered: both nodes have them in memory",
    "checkpoint-peer-synced": "the peer's copy is durable, and its record says so",
    "checkpoint-synced": "and this one",
    "checkpoint-recorded": "`base` is durable, every mark is there still",
    "marks-dropped": "the marks of before are gone, the peer does not know",
    "checkpoint-told": "the peer was told",
    # a checkpoint, on the secondary
    "target-checkpoint-synced": "its copy is durable and its record says so; the peer does not know",
    "checkpoint-heard": "`base` is durable here too, this node's own marks are there still",
    "marks-forgotten": "and are gone",
    # two copies of which nothing is marked
    "direct-source-recorded": "the source's record says paired, the peer was not told to begin",
    "direct-open-sent": "the peer was told",
    "direct-peer-paired": "the peer's record says so too; no data link yet",
    "direct-target-recorded": "the target's record says paired, the source does not know",
    "direct-paired-sent": "the source was told; no data link yet",
    # a directory is added
    "add-left": "the secondary has left its session for it",
    "add-recorded": "it is recorded as pending, and neither marked nor served",
    "add-marked": "and marked; the record does not know its disk yet",
    "add-mounted": "the primary serves it, or it is a secondary's now",
    # a copy that will be compared in full
    "new-again-noted": "what it holds may be overwritten; its record says what it was",
    "new-again-recorded": "and its record is a new copy's",
    # the engine: the intent log
    "mark-noted": "ops wait for their places, which are in memory alone",
    "mark-written": "they are in the log's file and not durable",
    "mark-durable": "they are durable; the ops still wait",
    "compaction-written": "all marks are in the log's other file and not durable",
    "compaction-durable": "they are durable; this process goes by the older file still",
    # the engine: the write path (csrc/)
    "op-applied": "an op is applied here and not in the stream",
    "op-enqueued": "it is in the stream and not sent",
    "op-sent": "it is handed to the kernel's socket",
    "op-acknowledged": "the peer has it, the application does not know",
    "target-op-applied": "it is applied on the target and not acknowledged",
    "sync-done-here": "an fsync's own half is done",
    "target-sync-done": "the target's half is done, the source does not know",
    "resync-shipped": "the walk has put a frame into the stream",
    "resync-applied": "a frame of the walk is applied on the target",
}  # fmt: skip

KNOWN = set(STEPS)  # and those of others that import this
_FILE = os.environ.get("LOCKSTEP_STEPS")
_visited: set[str] = set()
_armed = ""
_visits = 0


def reached(name: str) -> None:
    """This process is at the step `name`."""
    if _FILE is not None:
        _visit(name, _FILE)


def _visit(name: str, path: str) -> None:
    global _armed, _visits
    assert name in KNOWN, f"{name} is no step"
    if name not in _visited:
        _visited.add(name)
        with open(f"{path}.visited", "a") as visited:
            visited.write(f"{name}\n")
    try:
        with open(path) as file:
            armed = file.read().strip()
    except FileNotFoundError:
        return
    if armed != _armed:
        _armed, _visits = armed, 0
    wanted, _, rest = armed.partition(":")
    action, _, number = rest.partition(":")
    if wanted == name:
        _visits += 1
        if _visits == int(number or 1):
            os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
