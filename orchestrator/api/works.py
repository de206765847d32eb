"""Long work on a module's data: comparing both copies, making them equal, ending a divergence. Minutes or hours, so it is begun with one
question and looked at with others; who began it may go away and come back.

rfsmount does it (its control socket knows `verify`, `repair`, `diff`, `resolve`, `discard`); here is one place for each module, with what
runs or ran there last. A second work while one runs is refused: both would be about the same copies.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from orchestrator.api.server import ApiError
from orchestrator.bugs import Bugs, unheard
from rfs import exit_codes
from rfs.control.client import ControlLost
from rfs.errors import SaidNo
from rfs.foreign import from_json

LOOK_S = 0.5
FRESH_DEADLINE_S = 2.0  # for a status of now; then the newest that it has sent
SHOWN_MAX = 1000  # differences in an answer; all are counted
SHOWN_BYTES_MAX = 200 << 10
NOT_LISTED: Final = 2**31
FILE_COST_BYTES = 4096  # many small files take their time as well


class Copy(Protocol):
    """A module's rfsmount (effects/rfs.py)."""

    @property
    def last(self) -> Mapping[str, Any]:
        """Its newest status; empty when none runs."""
        ...

    @property
    def state_directory(self) -> Path:
        """Where it keeps what it knows."""
        ...

    async def ask(self, method: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """A question on the control socket. SaidNo, ControlLost."""
        ...


@dataclass(slots=True)
class Work:
    """What runs on a module, or ran last."""

    number: int
    verb: str
    who: str
    began_at: float
    state: str = "running"  # running, done, failed
    progress: dict[str, Any] = field(default_factory=dict)
    code: int = exit_codes.DONE
    message: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    ended_at: float | None = None

    def as_json(self) -> dict[str, Any]:
        """As the API shows it."""
        until = self.ended_at if self.ended_at is not None else trio.current_time()
        return {
            "number": self.number,
            "verb": self.verb,
            "who": self.who,
            "state": self.state,
            "seconds": round(until - self.began_at, 1),
            "progress": self.progress,
            "code": self.code,
            "message": self.message,
            "result": self.result,
        }


Doing = Callable[[Copy, Work, Mapping[str, Any]], Awaitable[None]]


class Works:
    """One place for each module that is mirrored on this node. `note`: a line for the history when one ends."""

    def __init__(
        self,
        copies: Mapping[str, Copy],
        note: Callable[[str, str], None] = lambda module, text: None,
        node: str = "",
        bugs: Bugs | None = None,
    ) -> None:
        self.copies, self.note, self.node, self.bugs = copies, note, node, bugs or unheard()
        self._works: dict[str, Work] = {}
        self._nursery: trio.Nursery | None = None
        self._number = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def begin(self, module: str, verb: str, options: Mapping[str, Any], who: str) -> int:
        """The number of the work that has begun; ApiError when it cannot."""
        copy = self._copy(module)
        before = self._works.get(module)
        if before is not None and before.state == "running":
            sentence = f"'{before.verb}' of {module} still runs (begun by {before.who}); wait for its end"
            raise ApiError(sentence, exit_codes.REFUSED)
        if verb not in DOINGS:
            raise ApiError(f"there is no command '{verb}'", exit_codes.USAGE, 404)
        assert self._nursery is not None, "works run in hactld's own nursery"
        self._number += 1
        work = self._works[module] = Work(self._number, verb, who, trio.current_time())
        self._nursery.start_soon(self._do, module, copy, work, dict(options))
        return self._number

    def look(self, module: str) -> dict[str, Any] | None:
        """What runs, or ran last."""
        work = self._works.get(module)
        return work.as_json() if work is not None else None

    async def data(self, module: str) -> dict[str, Any]:
        """What rfsmount says of a module's data, and what was put aside of it."""
        copy, now = self._copy(module), None
        with trio.move_on_after(FRESH_DEADLINE_S), suppress(SaidNo, ControlLost):
            now = await copy.ask("status", {})
        return {
            "module": module,
            "rfs": dict(now or copy.last) or None,
            "state_directory": str(copy.state_directory),
            "kept": await trio.to_thread.run_sync(kept_in, copy.state_directory / "kept"),
        }

    def _copy(self, module: str) -> Copy:
        if module not in self.copies:
            raise ApiError(f"module {module} mirrors nothing on this node: it has no data to look at", exit_codes.USAGE)
        return self.copies[module]

    async def _do(self, module: str, copy: Copy, work: Work, options: Mapping[str, Any]) -> None:
        try:
            await DOINGS[work.verb](copy, work, {**options, "node": self.node})
            work.state = "done"
        except SaidNo as refusal:
            work.state, work.code, work.message = "failed", refusal.exit_code, refusal.sentence
        except (ControlLost, OSError) as failure:
            work.state, work.code, work.message = "failed", exit_codes.FAILED, str(failure)
        except Exception as error:
            sentence = self.bugs.told(f"{work.verb} {module}", error)
            work.state, work.code, work.message = "failed", exit_codes.FAILED, sentence
        work.ended_at = trio.current_time()
        self.note(module, f"{work.verb}: {work.message or work.state}")


# ---- what there is to do -----------------------------------------------------------------------------------------------------------


async def verify(copy: Copy, work: Work, options: Mapping[str, Any]) -> None:
    """Compare both copies while the application writes."""
    began = trio.current_time()
    now = await copy.ask("verify", {})
    while now["running"]:
        work.progress = progress_of(now, trio.current_time() - began)
        await trio.sleep(LOOK_S)
        now = await copy.ask("verification", {"after": NOT_LISTED})
    work.progress = progress_of(now, trio.current_time() - began)
    if now["cut_off"]:
        sentence = f"it was cut off before its end ({now['cut_off']}), with {now['differences']} differences so far; look at 'hactl status'"
        raise SaidNo(sentence, exit_codes.FAILED)
    found: list[Any] = []
    while len(found) < min(now["listed"], SHOWN_MAX):
        found += (await copy.ask("verification", {"after": len(found)}))["shown"]
    counted = {name: now[name] for name in ("differences", "bytes_done", "files_done")}
    work.result = {"equal": not now["differences"], **counted, "found": within(found)}
    work.code = exit_codes.FAILED if now["differences"] else exit_codes.DONE
    work.message = f"{now['differences']} differences" if now["differences"] else "both copies are equal"


async def repair(copy: Copy, work: Work, options: Mapping[str, Any]) -> None:
    """The same; what differs is made equal and compared once more."""
    await verify(copy, work, options)
    differed = work.result["differences"]
    if not differed:
        return
    repaired = work.result["found"]
    work.message = f"{differed} differences: a resync repairs them"
    await _compare_everything(copy, work)
    await verify(copy, work, options)
    work.result |= {"repaired": differed, "repaired_places": repaired}
    if not work.result["differences"]:
        work.message = f"{differed} differences were repaired; both copies are equal"


async def resync(copy: Copy, work: Work, options: Mapping[str, Any]) -> None:
    """The peer's whole copy is compared, and made equal where it is not."""
    await _compare_everything(copy, work)
    work.message = "both copies are a pair again"


async def _compare_everything(copy: Copy, work: Work) -> None:
    """A session that compares all; meanwhile its progress is rfsmount's."""

    async def watch() -> None:
        while True:
            if isinstance(now := copy.last.get("resync"), dict):
                work.progress = dict(now)
            await trio.sleep(LOOK_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            await copy.ask("repair", {})
        except (SaidNo, ControlLost, OSError) as refusal:  # out of the nursery it would come as a group
            raised: Exception | None = refusal
        else:
            raised = None
        nursery.cancel_scope.cancel()
    if raised is not None:
        raise raised


async def diff(copy: Copy, work: Work, options: Mapping[str, Any]) -> None:
    """What differs between two nodes that have diverged."""
    found = dict(await copy.ask("diff", {}))
    lines = await trio.to_thread.run_sync(head, Path(str(found.get("file", ""))))
    directories = [entry["path"] for entry in copy.last.get("directories", ())]
    work.result = {**found, "directories": directories, "found": within(lines)}
    work.message = f"{found['differences']} differences"


async def resolve(copy: Copy, work: Work, options: Mapping[str, Any]) -> None:
    """One node gives its data up; what differs on it is saved first."""
    keep = "here" if options.get("keep") == options["node"] else "peer"
    work.result = dict(await copy.ask("resolve", {"keep": keep}))
    where = f"saved on it in {work.result.get('kept')}"
    work.message = f"{work.result.get('yields')} gives its data up: {work.result.get('places')} places that differed are {where}"


async def discard(copy: Copy, work: Work, options: Mapping[str, Any]) -> None:
    """A person's word: what a resync took away on this node is gone for good."""
    await copy.ask("discard", {})
    work.message = "what was set aside on this node is gone for good"


DOINGS: Final[Mapping[str, Doing]] = {
    "verify": verify, "repair": repair, "resync": resync, "diff": diff, "resolve": resolve, "discard": discard,
}  # fmt: skip


def progress_of(now: Mapping[str, Any], elapsed_s: float) -> dict[str, Any]:
    """In the words of a resync."""
    done, total, files, all_files = (now[name] for name in ("bytes_done", "total_bytes", "files_done", "total_files"))
    share = (done + FILE_COST_BYTES * files) / max(total + FILE_COST_BYTES * all_files, 1)
    left_s = elapsed_s / share - elapsed_s if share > 0.01 and elapsed_s > 1 else None
    counted = {"bytes_done": done, "total_bytes": total, "files_done": files, "total_files": all_files}
    rate = round(done / elapsed_s) if elapsed_s > 0 else 0
    return {"percent_done": round(100 * min(share, 1.0), 1), **counted, "seconds_remaining": left_s, "bytes_per_s": rate}


def within(found: list[Any]) -> list[Any]:
    """As many as an answer may have."""
    left, kept = SHOWN_BYTES_MAX, list[Any]()
    for entry in found[:SHOWN_MAX]:
        if (left := left - len(json.dumps(entry)) - 2) <= 0:
            break
        kept.append(entry)
    return kept


def head(path: Path) -> list[Any]:
    """The first lines of a file with a JSON object in each (blocking)."""
    found: list[Any] = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if len(found) >= SHOWN_MAX:
                break
            try:
                found.append(from_json(line))
            except ValueError:  # torn: what comes before it is whole, and all are counted
                break
    return found


def kept_in(directory: Path) -> list[dict[str, Any]]:
    """What was put aside, oldest first (blocking)."""
    try:
        places = sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime)
        return [{"path": str(path), "wall_s": path.stat().st_mtime} for path in places]
    except OSError:
        return []
