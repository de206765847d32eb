"""This node's configuration while hactld runs: what is applied, what the files hold, what the peers have, and the way to the next one.

config_apply.py has the protocol and decides; generations.py keeps. Here is what happens in between: files are read and checked, peers are
asked, and at the end hactld is told to go on with another configuration (`over`). Everything that may wait for a disk is in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from orchestrator import config_apply, config_archive, config_check, config_effects
from orchestrator.config_apply import Fate, Relation, Resolution, Says
from orchestrator.config_check import Candidate, Facts
from orchestrator.config_errors import ConfigError
from orchestrator.generations import Generation, GenerationStore, Prepared, generation_from
from orchestrator.peer import Message, PeerRefused, PeerUnreachable
from rfs import exit_codes
from rfs.errors import SaidNo
from rfs.pairing import Files

LOOK_EVERY_S: Final = 2.0  # at the files
ASK_EVERY_S: Final = 15.0  # the peers; what is applied while both are there is told at once
DOUBT_EVERY_S: Final = 1.0  # the coordinator of what was promised
STATE_DEADLINE_S: Final = 4.0
PREPARE_DEADLINE_S: Final = 25.0
ANSWERS_S: Final = 0.3  # so long hactld stays what it is after a commit: the answers are to leave it
IDLE_PATIENCE_S: Final = 900.0  # and until nothing of a module is under way: each has a deadline of its own, this is for what has lost it
COMMITTED: Final = "committed"  # in the place of a transaction: until hactld goes on with it


class Call(Protocol):
    """A way to a peer (peer.PeerClient)."""

    async def call(self, method: str, parameters: Message, deadline_s: float) -> Message:
        """Its answer; PeerRefused or PeerUnreachable."""
        ...


@dataclass(slots=True)
class Known:
    """Of a peer."""

    says: Says | None = None
    stuck: str = ""  # why what it has applied is not taken over


@dataclass(slots=True)
class ConfigKeeper:
    """One for each run of hactld with one configuration."""

    node: str
    config_dir: Path
    store: GenerationStore
    facts: Facts
    peers: Mapping[str, Call]
    log: Callable[[str], None]
    reached: Callable[[str], None] = lambda step: None
    own_files_only: bool = False  # nothing is taken up that this node's own root has not put into its files
    over: trio.Event = field(default_factory=trio.Event)  # hactld is to go on with what is applied now
    files: str = ""  # the digest of the files; empty: they cannot be read
    known: dict[str, Known] = field(default_factory=dict)
    _signature: tuple[object, ...] | None = None  # of the files that were looked at last; none: look again
    under_way: str = ""  # the transaction that this node coordinates now
    holding: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by transaction: modules that must not start meanwhile
    _committed: trio.Event = field(default_factory=trio.Event)
    changing: trio.Lock = field(default_factory=trio.Lock)

    @property
    def applied(self) -> Generation:
        """What counts."""
        applied = self.store.past.applied
        assert applied is not None, "a hactld without a configuration"
        return applied

    @property
    def is_changing(self) -> bool:
        """Something newer is applied than what hactld runs with; in a moment it will."""
        return self._committed.is_set()

    def says(self) -> Says:
        """To peers and people."""
        stuck = next((known.stuck for known in self.known.values() if known.stuck), "")
        return config_apply.says(self.node, self.store.past, self.files, self.store.prepared, stuck)

    def held(self, module: str) -> str:
        """Why a module may not start now; empty: it may."""
        promised = self.store.prepared.held if self.store.prepared is not None else ()
        if module in promised or any(module in modules for modules in self.holding.values()):
            return f"a configuration that needs {module} stopped is being applied; 'hactl config history' shows when it is"
        return ""

    # ---- as long as hactld runs ---------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Before hactld serves: what was interrupted is finished."""
        self.known = {peer: Known() for peer in self.peers}
        await self.look_at_files()
        if not self.store.past.laid_out:
            await self._lay_out()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_for_ever)
            nursery.start_soon(self.hand_over)
            for peer in self.peers:
                nursery.start_soon(self._ask_for_ever, peer)

    async def _look_for_ever(self) -> None:
        while True:
            await trio.sleep(LOOK_EVERY_S)
            await self.look_at_files()

    async def look_at_files(self) -> None:
        """What do people's files hold now?"""
        self._signature, self.files = await trio.to_thread.run_sync(self._digest_of_files)

    def _digest_of_files(self) -> tuple[tuple[object, ...] | None, str]:
        """Whatever people do to their files, hactld runs on what is applied."""
        found = None
        try:
            found = config_archive.signature(self.config_dir)
            return found, self.files if found == self._signature else config_archive.digest(config_archive.gather(self.config_dir))
        except SaidNo:
            return found, ""  # until they are others
        except (OSError, ValueError):
            return None, ""

    async def hand_over(self) -> None:
        """After a commit: when nothing is under way, all were told, and the answers are out. Nothing is cut short by it: a database that
        recovers for minutes would have to begin anew."""
        await self._committed.wait()
        with trio.move_on_after(IDLE_PATIENCE_S) as patience:
            quiet = False
            while not quiet:  # nor what began while the answers left
                while self.under_way or self.facts.is_busy():
                    await trio.sleep(ANSWERS_S)
                await trio.sleep(ANSWERS_S)
                quiet = not self.under_way and not self.facts.is_busy()
        if patience.cancelled_caught:
            number, minutes = self.applied.number, IDLE_PATIENCE_S / 60
            what = f"something has been under way for {minutes:.0f} min and does not end"
            self.log(f"{what}: hactld goes on with generation {number} all the same")
        self.over.set()

    async def _ask_for_ever(self, peer: str) -> None:
        while True:
            await self.ask(peer)
            prepared = self.store.prepared
            in_doubt = prepared is not None and prepared.coordinator == peer
            await trio.sleep(DOUBT_EVERY_S if in_doubt else ASK_EVERY_S)

    async def ask(self, peer: str) -> None:
        """What a peer says, and what follows from it: a promise is kept or over, what it has applied since is taken over."""
        try:
            said = config_apply.says_from(peer, await self.peers[peer].call("config_state", {}, STATE_DEADLINE_S))
        except (PeerUnreachable, PeerRefused, ValueError):
            self.known[peer].says = None
            return
        self.known[peer].says = said
        if self.under_way or self._committed.is_set():
            return
        try:
            await self._resolve(peer)
            await self._follow(peer, said)
        except (PeerUnreachable, PeerRefused, ConfigError, SaidNo, OSError, ValueError) as failure:
            self.known[peer].stuck = str(failure)

    async def _resolve(self, peer: str) -> None:
        """What became of the promise?"""
        prepared = self.store.prepared
        if prepared is None or prepared.coordinator != peer:
            return
        transaction = prepared.generation.transaction
        answer = await self.peers[peer].call("config_fate", {"transaction": transaction}, STATE_DEADLINE_S)
        known = {each.value: each for each in Fate}
        match config_apply.RESOLUTIONS[known.get(str(answer.get("fate")), Fate.UNKNOWN)]:
            case Resolution.COMMIT:
                if running := [name for name in prepared.held if self.facts.why_not_stopped(name)]:
                    raise SaidNo(f"hactl stop {' '.join(running)} here: generation {prepared.generation.number} is applied then")
                await self.commit(transaction)
            case Resolution.RELEASE:
                await self.abort(transaction)
                self.log(f"generation {prepared.generation.number} was not applied by {peer}: this node forgets it")

    async def _follow(self, peer: str, said: Says) -> None:
        """What the peer has applied after ours, without us."""
        self.known[peer].stuck = ""
        if self.store.prepared is not None or self._committed.is_set():
            return
        match config_apply.relation(self.says(), said):
            case Relation.SAME if said.applied.number > self.applied.number:
                async with self.changing:
                    await trio.to_thread.run_sync(self.store.take_name, said.applied)
            case Relation.BEHIND:
                await self.look_at_files()
                self._refuse_what_is_not_in_our_files(said.applied.digest, peer)
                answer = await self.peers[peer].call("config_files", {"digest": said.applied.digest}, PREPARE_DEADLINE_S)
                candidate = await self.examine(config_archive.unpack(answer.get("files")))
                if candidate.digest != said.applied.digest:
                    raise SaidNo(f"{peer} sends other files than it says")
                if complaints := await self.complaints(candidate, free=False):
                    raise SaidNo("; ".join(complaints))
                async with self.changing:
                    if self.store.prepared is not None or self.under_way or self.is_changing:
                        return  # something else began meanwhile
                    await self.keep(candidate.files)
                    self.holding[said.applied.transaction] = tuple(config_effects.stopped_for(candidate.changes))
                    try:
                        await self.switch(said.applied, f"as {peer} has it")
                    finally:
                        del self.holding[said.applied.transaction]

    async def source(self, number: int | None) -> Files:
        """The files, or those of a generation; SaidNo when they cannot be had."""
        if number is None:
            await trio.to_thread.run_sync(config_archive.check_ownership, self.config_dir)  # after that nobody else can change them
            return await trio.to_thread.run_sync(config_archive.gather, self.config_dir)
        generation = self.store.past.numbered(number)
        if generation is None:
            kept = ", ".join(str(each.number) for each in self.store.past.generations)
            raise SaidNo(f"there is no generation {number} here; there is {kept}", exit_codes.USAGE)
        return await trio.to_thread.run_sync(self.store.files_of, generation.digest)

    async def keep(self, files: Files) -> None:
        """As a tree, durable when it returns, and no more open to others than what people have here."""
        await trio.to_thread.run_sync(lambda: self.store.keep(config_archive.as_open_here(files, self.config_dir)))

    async def examine(self, files: Files) -> Candidate:
        """Read and compared with what is applied; ConfigError with every complaint."""
        return await config_check.examine(self.store, self.config_dir, files)

    async def complaints(self, candidate: Candidate, *, free: bool = True) -> list[str]:
        """What of this node stands against it."""
        return await config_check.complaints(self.node, self.store, self.facts, candidate, free=free)

    # ---- taking part --------------------------------------------------------------------------------------------------------

    async def prepare(self, coordinator: str, parameters: Mapping[str, Any]) -> None:
        """The first phase here: durable when it returns; ConfigError or SaidNo is the no."""
        try:
            generation = generation_from(parameters["generation"])
        except (KeyError, TypeError, ValueError) as error:
            raise SaidNo(f"{coordinator} asks for something that is no generation", exit_codes.USAGE) from error
        force, dry_run = parameters.get("force") is True, parameters.get("dry_run") is True
        await self.look_at_files()
        self._refuse_what_is_not_in_our_files(generation.digest, coordinator)
        self._refuse_to_promise(generation, coordinator, force)
        candidate = await self.examine(config_archive.unpack(parameters.get("files")))
        if candidate.digest != generation.digest:
            raise SaidNo(f"{coordinator} sends other files than it says")
        held = tuple(config_effects.stopped_for(candidate.changes))
        self.holding[generation.transaction] = held
        try:
            if complaints := await self.complaints(candidate, free=not force):
                raise SaidNo("; ".join(complaints))
            if dry_run:
                return
            async with self.changing:
                self._refuse_to_promise(generation, coordinator, force)  # what began meanwhile goes before
                prepared = Prepared(generation, coordinator, held)
                await self.keep(candidate.files)
                await trio.to_thread.run_sync(self.store.prepare, prepared)
            self.reached("config-prepared")
        finally:
            self.holding.pop(generation.transaction, None)

    def _refuse_what_is_not_in_our_files(self, digest: str, peer: str) -> None:
        """A configuration names programs that run as root, and a peer may be in the wrong hands."""
        if self.own_files_only and digest != self.files:
            where = f"{self.config_dir} on {self.node}"
            raise SaidNo(f"{self.node} takes up only what its own files hold: put the files of {peer} into {where}, then apply it again")

    def _refuse_to_promise(self, generation: Generation, coordinator: str, force: bool) -> None:
        under_way = self.under_way or ("committed" if self.is_changing else "")
        if reason := config_apply.why_not_promise(self.says(), generation, coordinator, under_way, force=force):
            raise SaidNo(reason)

    async def commit(self, transaction: str) -> None:
        """The second phase here. Told twice is told once."""
        async with self.changing:
            if self.store.past.has_transaction(transaction):
                return
            prepared = self.store.prepared
            if prepared is None or prepared.generation.transaction != transaction:
                raise SaidNo(f"{self.node} has not promised that")
            await self.switch(prepared.generation, f"as {prepared.coordinator} says")

    async def abort(self, transaction: str) -> None:
        """It is not applied."""
        async with self.changing:
            if self.store.prepared is not None and self.store.prepared.generation.transaction == transaction:
                await trio.to_thread.run_sync(self.store.release)

    def fate(self, transaction: str) -> Fate:
        """What became of one that this node coordinated."""
        return config_apply.fate(self.store.past, self.under_way, transaction)

    # ---- the switch ---------------------------------------------------------------------------------------------------------

    async def switch(self, generation: Generation, how: str, *, laid_out: bool = False) -> None:
        prepared = self.store.prepared
        promised = prepared.held if prepared is not None and prepared.generation.transaction == generation.transaction else ()
        self.holding[COMMITTED] = (*self.holding.get(generation.transaction, ()), *promised)
        try:
            await trio.to_thread.run_sync(lambda: self.store.commit(generation, laid_out=laid_out))
        except OSError:
            del self.holding[COMMITTED]
            raise
        self.reached("config-switched")
        said = f": {generation.comment}" if generation.comment else ""
        self.log(f"generation {generation.number} ({generation.digest[:12]}) is applied, {how}{said}")
        self._committed.set()
        if not laid_out:
            await self._lay_out()

    async def _lay_out(self) -> None:
        """People's files become those of the applied generation. What cannot be written is a warning of `status`, and no more."""

        def put() -> list[str]:
            past = self.store.past
            base = past.generations[-2].digest if len(past.generations) > 1 else ""
            before: Files = self.store.files_of(base) if base and self.store.tree(base).exists() else {}
            changed = config_archive.lay_out(self.store.files_of(self.applied.digest), before, self.config_dir)
            self.store.note_laid_out()
            return changed

        try:
            changed = await trio.to_thread.run_sync(put)
        except (OSError, ValueError, SaidNo) as failure:
            self.log(f"{self.config_dir}: the files are not those of generation {self.applied.number} yet: {failure}")
            return
        if changed:
            self.log(f"{self.config_dir}: {', '.join(changed)} written, as generation {self.applied.number} has them")
        await self.look_at_files()

    # ---- warnings -----------------------------------------------------------------------------------------------------------

    def warnings(self) -> list[dict[str, str]]:
        """For `status`: what is not as it should be, with the command that puts it right."""
        found, mine = [], self.says()
        if self.files != mine.applied.digest:
            text = f"the files in {self.config_dir} differ from generation {mine.applied.number}, which is applied"
            found.append({"code": "CONFIG_NOT_APPLIED", "text": text, "fix": FIX_FILES})
        if mine.promised:
            text = f"this node has promised {mine.coordinator} a configuration and does not know what became of it"
            found.append({"code": "CONFIG_IN_DOUBT", "text": text, "fix": config_apply.IN_DOUBT_FIX})
        for peer, known in self.known.items():
            if known.says is None:
                continue
            match config_apply.relation(mine, known.says):
                case Relation.BEHIND if known.stuck:
                    text = f"{peer} has applied generation {known.says.applied.number}, which this node cannot take over yet"
                    found.append({"code": "CONFIG_DIFFERS", "text": text, "fix": known.stuck})
                case Relation.AHEAD if known.says.stuck:
                    text = f"{peer} cannot take over generation {mine.applied.number} yet, which is applied here"
                    found.append({"code": "CONFIG_DIFFERS", "text": text, "fix": known.says.stuck})
                case Relation.APART:
                    numbers = f"generations {known.says.applied.number} and {mine.applied.number}"
                    text = f"{peer} has another configuration than this node ({numbers})"
                    found.append({"code": "CONFIG_DIFFERS", "text": text, "fix": FIX_APART})
        return found


FIX_FILES = "hactl config diff; then hactl config apply, or hactl config rollback"
FIX_APART = "hactl config diff --peer; then 'hactl config apply --force-from-here' on the node whose files are right"
