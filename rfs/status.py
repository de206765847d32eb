"""What people and programs see of a replica: `rfsmount.status/1`, and the same for a person at three in the morning.

Everything is derived here from what the replica and the engine know; the order of the questions in `_link` and `_code_and_reason` is the
order of what matters most to somebody who has to act.
"""

from typing import Any

import trio

from rfs.decide import Outcome
from rfs.engine import Mode, Snapshot, Statistics
from rfs.patterns import Patterns
from rfs.promotion import NOT_IN_THIS_RUN, promotable
from rfs.record import DataState
from rfs.replica import Replica
from rfs.session_state import Progress, Stage

SCHEMA = "rfsmount.status/1"
NEVER_US = 2**64 - 1
NO_SNAPSHOT = (
    "this copy is inside a resync and there is no snapshot of what it was before: only its peer makes it whole, force does not help"
)

Status = dict[str, Any]


def build_status(replica: Replica) -> Status:
    """The whole status, of this moment."""
    record, statistics = replica.record, replica.engine.statistics()
    link = _link(replica, Mode(statistics.mode))
    code, reason = _code_and_reason(replica, link)
    may_promote, promotable_reason = promotable(replica)
    resync = _resync(replica, statistics)
    marked_bytes = _marked_bytes(statistics, resync)
    is_hot = link == "paired"  # what both hold in memory and perhaps not on their disks: a resync only if one of them loses power
    return {
        "schema": SCHEMA,
        "module": record.module,
        "node": record.node,
        "role": record.role.name.lower(),
        "link": link,
        "data": shown_data(replica),
        "generation": f"{record.generation:016x}",
        "term": record.term,
        "seq": statistics.seq,
        "acked_seq": statistics.acked_seq,
        "marked_bytes": 0 if is_hot else marked_bytes,
        "hot_bytes": marked_bytes if is_hot else 0,
        "everything_marked": bool(statistics.marked_everything),
        "resync": resync,
        "snapshot": shown_snapshot(replica),
        "last_scope": replica.scope,
        "directories": [_directory(replica, position) for position in range(_whole_directories(replica))],
        "peer": _peer(replica, statistics),
        "since_s": round(trio.current_time() - replica.changed_at, 1),
        "code": code,
        "reason": reason,
        "ack": "disk" if replica.settings.ack_disk else "memory",
        "insecure": replica.settings.insecure,
        "warnings": _warnings(replica),
        "refused_connections": dict(replica.security.refused),
        "peer_faults": replica.peer_faults,
        "needs_grant": replica.needs_grant,
        "witness": build_witness(replica) if replica.arbiter is not None else None,
        "promotable": may_promote,
        "promotable_reason": promotable_reason,
        "sole_owner": record.is_sole_owner,
        "rewound": bool(record.rewound),
        "consent": replica.consent,
        "pid": replica.pid,
        "incarnation": f"{replica.identity.incarnation:016x}",
        "last_heard_s": _last_heard_s(replica, statistics),
        "mode": Mode(statistics.mode).name.lower(),
        "waiting_ops": statistics.waiting_ops,
        "record": {
            "number": record.number,
            "data": record.data.name,
            "base": f"{record.base:016x}",
            "peer_may_fit": bool(record.peer_may_fit),
            "shared": bool(record.shared),
            "peer_has": bool(record.peer_has),
            "used": bool(record.used),
            "clean": bool(record.clean),
            "node_id": f"{record.node_id:016x}",
        },
    }


def build_witness(replica: Replica) -> Status:
    """The witness as this node sees it; the caller knows that there is one."""
    assert replica.arbiter is not None
    view = replica.arbiter.view
    held = view.held
    return {
        "endpoints": [str(endpoint) for endpoint in replica.settings.witness],
        "state": view.state.value,
        "reason": view.reason,
        "armed": replica.record.armed,
        "register": {"generation": f"{held.generation:016x}", "term": held.term, "owner": f"{held.owner:016x}"} if held else None,
    }


def build_statistics(replica: Replica) -> Status:
    """The engine's counters as they are, and two ages of ours."""
    statistics = replica.engine.statistics()
    return {"schema": "rfsmount.stats/1"} | {
        name: getattr(statistics, name) for name in Statistics.__dataclass_fields__ if name != "last_heard_us"
    } | {"last_heard_s": _last_heard_s(replica, statistics)}  # fmt: skip


def shown_data(replica: Replica) -> str:
    """CONSISTENT is never stored: it is a copy that calls itself up to date but has not been beside its peer in this run."""
    record = replica.record
    if record.data is DataState.UPTODATE and not (replica.paired_in_run or replica.served or record.is_sole_owner):
        return "CONSISTENT"
    return record.data.name


def shown_snapshot(replica: Replica) -> str | None:
    """Of what a resync has overwritten here; None: this copy is not inside one."""
    if replica.record.data is not DataState.INCONSISTENT:
        return None
    return "kept" if replica.record.generation and replica.engine.snapshot() is not Snapshot.NONE else "none"


def _warnings(replica: Replica) -> list[Status]:
    found = []
    if replica.arbiter is not None and replica.arbiter.view.reason:
        view = replica.arbiter.view
        found.append({"code": "WITNESS", "text": f"no grant could be had now: the witness is {view.state.value} ({view.reason})"})
    if replica.arbiter is None and replica.record.armed:
        found.append({"code": "WITNESS", "text": "this module has a witness, and this node does not ask it: mount it with --witness"})
    if replica.record.generation and shown_snapshot(replica) == "none":  # without one there was nothing to go back to
        found.append({"code": "NO_SNAPSHOT", "text": NO_SNAPSHOT})
    found += [{"code": "RIGHTS", "text": f"rfsmount runs with more rights than it needs: {what}"} for what in replica.unprotected]
    state_directory = replica.settings.state_directory
    found += [{"code": "MUCH_REMOVED", "text": removal.sentence(state_directory)} for removal in replica.removals]
    if replica.settings.insecure:
        return [*found, {"code": "INSECURE", "text": "links are not protected (--insecure): pair the nodes and mount without it"}]
    return [*found, *({"code": "KEY_EXPIRES", "text": alarm} for alarm in replica.security.alarms())]


def _last_heard_s(replica: Replica, statistics: Statistics) -> float | None:
    ages_s = [] if statistics.last_heard_us == NEVER_US else [statistics.last_heard_us / 1e6]
    if replica.peer.heard_at is not None:
        ages_s.append(trio.current_time() - replica.peer.heard_at)
    return round(min(ages_s), 2) if ages_s else None


def _whole_directories(replica: Replica) -> int:
    """Not one that is just being added: its layers come before its settings, and there are waits between the two."""
    return len(replica.settings.directories) - (replica.unfinished is not None)


def _directory(replica: Replica, position: int) -> dict[str, Any]:
    patterns = replica.settings.patterns[position] if replica.settings.patterns else Patterns()
    is_pending = position >= len(replica.layers.paths) - replica.pending_directories
    shown = {"path": replica.layers.paths[position], "mounted": replica.layers.mounted, "pending": is_pending}
    return shown | {"exclude": list(patterns.exclude), "only": list(patterns.only)}


def _link(replica: Replica, mode: Mode) -> str:
    session = replica.session
    if mode is Mode.FENCED:
        return "fenced"
    if session is not None and session.stage is Stage.PAIRED:
        return "paired"
    if session is not None and session.stage in (Stage.RESYNCING_SOURCE, Stage.RESYNCING_TARGET):
        return "resyncing"
    serves_alone = replica.is_primary and mode in (Mode.ALONE, Mode.UNUSED)
    if replica.refused is not None and not (serves_alone and replica.refused.code == "NOT_PAIRED"):
        return "diverged" if replica.refused.is_diverged else "refused"
    if serves_alone:
        return "alone"
    if session is not None:
        return "handshaking"
    if replica.is_primary and mode is Mode.FROZEN:
        return "frozen"
    return "connecting"


def _code_and_reason(replica: Replica, link: str) -> tuple[str, str]:
    record, note = replica.record, replica.note
    peer = replica.peer.node or "the peer"
    if record.data is DataState.FAILED:
        return "FAILED", note or "this copy's disk failed; repair it, then resync from the peer"
    if replica.refused is not None and link in ("refused", "diverged"):
        return replica.refused.code, replica.refused.reason
    if link == "fenced":
        return "FENCED", note or f"{peer} owns the data; this node comes back as secondary"
    if link == "paired":
        return "PAIRED", f"{peer} has demoted itself and waits for this node's promotion" if replica.consent else ""
    if link == "resyncing":
        direction = "to" if replica.is_primary else "from"
        without = "; no copy of before is kept: should the peer be lost now, this node waits for it"
        no_way_back = without if shown_snapshot(replica) == "none" else ""
        return "RESYNCING", f"resyncing {direction} {peer}: redundancy is back when it is finished{no_way_back}"
    if link == "alone":
        why = note or f"serving without {peer}: there is no second copy up to date"
        return "PEER_LEFT" if note else "ALONE", why + (f"; {replica.refused.reason}" if replica.refused is not None else "")
    if link == "frozen":
        if not (replica.served or replica.paired_in_run or replica.arbiter is not None):
            return "FROZEN", f"writes wait for {peer}: {NOT_IN_THIS_RUN}"
        grant = "a grant" if replica.arbiter is None else "the witness's grant"
        waits = f"{grant}, or its peer" if replica.needs_grant else "its peer"
        return "FROZEN", f"writes wait: this primary has lost {peer} and waits for {waits}" + (f" ({note})" if note else "")
    if link == "handshaking":
        return "HANDSHAKING", note if replica.second_try.waits_for else f"comparing records with {peer}"
    if replica.consent:
        return "PEER_LEFT", f"{peer} has demoted itself and left: this node may be promoted"
    reason = f"waiting for {peer} at {replica.settings.peer}" + (f"; {note}" if note else "")
    return "CONNECTING" if replica.paired_in_run else "WAITING_FOR_PEER", reason + (f"; {replica.mismatch}" if replica.mismatch else "")


def _resync(replica: Replica, statistics: Statistics) -> Status | None:
    session = replica.session
    if session is None or session.stage not in (Stage.RESYNCING_SOURCE, Stage.RESYNCING_TARGET):
        return None
    is_source = session.stage is Stage.RESYNCING_SOURCE
    progress = replica.peer.progress
    if is_source:
        progress = Progress(
            *(statistics.resync_bytes_done, statistics.resync_total_bytes, statistics.resync_files_done, statistics.resync_total_files)
        )
    done, total = progress.bytes_done, max(progress.total_bytes, progress.bytes_done)
    elapsed_s = max(trio.current_time() - session.began_at, 0.001)
    bytes_per_s = int(done / elapsed_s)
    return {
        "snapshot": shown_snapshot(replica),
        "direction": "to-peer" if is_source else "from-peer",
        "scope": replica.scope,
        "percent_done": round(100.0 * done / total, 1) if total else 0.0,
        "bytes_done": done,
        "total_bytes": total,
        "files_done": progress.files_done,
        "total_files": progress.total_files,
        "seconds_remaining": round((total - done) / bytes_per_s, 1) if bytes_per_s else None,
        "bytes_per_s": bytes_per_s,
    }


def _marked_bytes(statistics: Statistics, resync: Status | None) -> int:
    """What a resync would look at. Of a tree that nobody has walked yet, nothing is known."""
    if resync:
        return int(max(resync["total_bytes"] - resync["bytes_done"], 0))
    return statistics.tree_bytes if statistics.marked_everything else statistics.marked_bytes


def _peer(replica: Replica, statistics: Statistics) -> Status | None:
    if not replica.peer.node:
        return None
    return {"node": replica.peer.node, "data": replica.peer.data or "UNKNOWN", "rtt_us": statistics.rtt_us}


assert Outcome.DIVERGED.name == "DIVERGED", "the code that people see"
