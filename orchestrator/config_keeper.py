"""This node's configuration while hactld runs: what is applied, what the files hold, what the peers have, and the way to the next one.

config_apply.py has the protocol and decides; generations.py keeps. Here is what happens in between: files are read and checked, peers are
asked, and at the end hactld is told to go on with another configuration (`over`). Everything that may wait for a disk is in a thread.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from orchestrator import config_apply, config_archive, config_effects
from orchestrator.config import VipConfig, listed
from orchestrator.config_apply import Fate, Relation, Resolution, Says, Verdict, Vote
from orchestrator.config_documents import Documents, read_documents
from orchestrator.config_effects import Change
from orchestrator.config_errors import Complaint, ConfigError
from orchestrator.generations import COMMENT_CHARACTERS_MAX, Generation, GenerationStore, Prepared, generation_from
from orchestrator.peer import Message, PeerRefused, PeerUnreachable
from rfs import exit_codes
from rfs.errors import SaidNo
from rfs.pairing import Files

LOOK_EVERY_S: Final = 2.0  # at the files
ASK_EVERY_S: Final = 5.0  # the peers
DOUBT_EVERY_S: Final = 1.0  # the coordinator of what was promised
STATE_DEADLINE_S: Final = 4.0
PREPARE_DEADLINE_S: Final = 25.0
COMMIT_DEADLINE_S: Final = 8.0
ANSWERS_S: Final = 0.3  # so long hactld stays what it is after a commit: the answers are to leave it
IDLE_PATIENCE_S: Final = 30.0  # and so long at most until nothing of a module is under way


class Call(Protocol):
    """A way to a peer (peer.PeerClient)."""

    async def call(self, method: str, parameters: Message, deadline_s: float) -> Message:
        """Its answer; PeerRefused or PeerUnreachable."""
        ...


class Facts(Protocol):
    """What of the running node counts when its configuration is to change."""

    def why_not_stopped(self, module: str) -> str:
        """What it is instead; empty: nothing of it runs here."""
        ...

    async def why_not_addresses(self, vips: Sequence[VipConfig]) -> list[str]:
        """What stands against taking these service addresses here."""
        ...

    def why_not_node(self, documents: Documents) -> str:
        """Could hactld run with that on this node? Its keys, say."""
        ...

    def is_busy(self) -> bool:
        """Is something of a module under way that should not be cut short?"""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """An administrator's word. `number`: back to that generation; none: the files as they are."""

    who: str
    comment: str = ""
    number: int | None = None
    expect: str = ""  # the digest of what was shown to the one who agreed
    dry_run: bool = False
    without_peer: bool = False
    force_from_here: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """Files that were read and are valid."""

    files: Files
    digest: str
    documents: Documents
    changes: list[Change]  # from what is applied here


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
    over: trio.Event = field(default_factory=trio.Event)  # hactld is to go on with what is applied now
    files: str = ""  # the digest of the files; empty: they cannot be read
    known: dict[str, Known] = field(default_factory=dict)
    _signature: tuple[object, ...] = ()
    _under_way: str = ""  # the transaction that this node coordinates now
    _holding: tuple[str, ...] = ()
    _committed: trio.Event = field(default_factory=trio.Event)
    _changing: trio.Lock = field(default_factory=trio.Lock)

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
        return config_apply.says(self.node, self.store.past, self.files, self.store.prepared)

    def held(self, module: str) -> str:
        """Why a module may not start now; empty: it may."""
        promised = self.store.prepared.held if self.store.prepared is not None else ()
        if module in (*self._holding, *promised):
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
            nursery.start_soon(self._hand_over)
            for peer in self.peers:
                nursery.start_soon(self._ask_for_ever, peer)

    async def _look_for_ever(self) -> None:
        while True:
            await trio.sleep(LOOK_EVERY_S)
            await self.look_at_files()

    async def look_at_files(self) -> None:
        """What do people's files hold now?"""
        self._signature, self.files = await trio.to_thread.run_sync(self._digest_of_files)

    def _digest_of_files(self) -> tuple[tuple[object, ...], str]:
        try:
            found = config_archive.signature(self.config_dir)
            same = found == self._signature and self.files
            return found, self.files if same else config_archive.digest(config_archive.gather(self.config_dir))
        except (OSError, SaidNo):
            return (), ""

    async def _hand_over(self) -> None:
        """After a commit: when the answers are out and nothing is under way."""
        await self._committed.wait()
        await trio.sleep(ANSWERS_S)
        with trio.move_on_after(IDLE_PATIENCE_S):
            while self.facts.is_busy():
                await trio.sleep(ANSWERS_S)
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
            said = says_of(peer, await self.peers[peer].call("config_state", {}, STATE_DEADLINE_S))
        except (PeerUnreachable, PeerRefused, ValueError):
            self.known[peer].says = None
            return
        self.known[peer].says = said
        if self._under_way or self._committed.is_set():
            return
        try:
            await self._resolve(peer)
            await self._follow(peer, said)
        except (PeerUnreachable, PeerRefused, SaidNo, OSError) as failure:
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
                    raise SaidNo(f"generation {prepared.generation.number} waits until {listed(running)} is stopped here")
                await self.commit(transaction)
            case Resolution.RELEASE:
                async with self._changing:
                    await trio.to_thread.run_sync(self.store.release)
                self.log(f"generation {prepared.generation.number} was not applied by {peer}: this node forgets it")

    async def _follow(self, peer: str, said: Says) -> None:
        """What the peer has applied after ours, without us."""
        self.known[peer].stuck = ""
        if self.store.prepared is not None or self._committed.is_set():
            return
        match config_apply.relation(self.says(), said):
            case Relation.SAME if said.applied.number > self.applied.number:
                async with self._changing:
                    await trio.to_thread.run_sync(self.store.take_name, said.applied)
            case Relation.BEHIND:
                answer = await self.peers[peer].call("config_files", {"digest": said.applied.digest}, PREPARE_DEADLINE_S)
                candidate = await self.examine(config_archive.unpack(answer.get("files")))
                if candidate.digest != said.applied.digest:
                    raise SaidNo(f"{peer} sends other files than it says")
                if complaints := await self._complaints(candidate, free=False):
                    raise SaidNo("; ".join(complaints))
                async with self._changing:
                    await trio.to_thread.run_sync(self.store.keep, candidate.files)
                    await self._switch(said.applied, f"as {peer} has it")

    # ---- checking -----------------------------------------------------------------------------------------------------------

    async def examine(self, files: Files) -> Candidate:
        """Read and compared with what is applied; ConfigError with every complaint, in the names of the files that people edit."""
        return await trio.to_thread.run_sync(self._examine, files)

    def _examine(self, files: Files) -> Candidate:
        self.store.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".check-", dir=self.store.root) as scratch:
            tree = Path(scratch, "tree")
            config_archive.write_tree(files, tree, durably=False)
            try:
                documents = read_documents(tree)
            except ConfigError as error:
                raise ConfigError(moved(error.complaints, tree, self.config_dir)) from None
        before = read_documents(self.store.tree(self.applied.digest))
        changes = config_effects.changes_between(before, documents, self.store.files_of(self.applied.digest), files)
        return Candidate(files, config_archive.digest(files), documents, changes)

    async def _complaints(self, candidate: Candidate, *, free: bool = True) -> list[str]:
        """What of this node stands against it, beside what is wrong with the files. `free`: added addresses must be nobody's yet."""
        documents = candidate.documents
        if self.node not in documents.config.nodes:
            return [f"{self.node} is not a node of it: take {self.node} out on a node that stays, while hactld is stopped on {self.node}"]
        if reason := self.facts.why_not_node(documents):
            return [reason]
        found = [
            f"{module} is {state} on {self.node} and must be stopped for {', '.join(dict.fromkeys(shown(change) for change in changes))}: "
            f"hactl stop {module} -H all"
            for module, changes in config_effects.stopped_for(candidate.changes).items()
            if (state := self.facts.why_not_stopped(module))
        ]
        if not free:
            return found
        before = await trio.to_thread.run_sync(read_documents, self.store.tree(self.applied.digest))
        for module, vips in config_effects.added_addresses(before, documents).items():
            if self.node in documents.configs[module].nodes:
                found += [f"{module}: {reason}" for reason in await self.facts.why_not_addresses(vips)]
        return found

    # ---- coordinating -------------------------------------------------------------------------------------------------------

    async def source(self, number: int | None) -> Files:
        """The files, or those of a generation; SaidNo when they cannot be had."""
        if number is None:
            return await trio.to_thread.run_sync(config_archive.gather, self.config_dir)
        generation = self.store.past.numbered(number)
        if generation is None:
            kept = ", ".join(str(each.number) for each in self.store.past.generations)
            raise SaidNo(f"there is no generation {number} here; there is {kept}", exit_codes.USAGE)
        return await trio.to_thread.run_sync(self.store.files_of, generation.digest)

    async def apply(self, order: Order) -> dict[str, Any]:
        """Both phases. ConfigError or SaidNo, and nothing has changed anywhere, or the answer."""
        if self._under_way or self._committed.is_set():
            raise SaidNo("another configuration is being applied at this moment; try again")
        self._under_way = secrets.token_hex(8)
        try:
            return await self._apply(order, self._under_way)
        finally:
            self._under_way, self._holding = "", ()

    async def _apply(self, order: Order, transaction: str) -> dict[str, Any]:
        candidate = await self.examine(await self.source(order.number))
        if order.expect and candidate.digest != order.expect:
            raise SaidNo("the files have changed since they were shown: look at them once more")
        await self.look_at_files()
        known = await self._ask_all(order)
        mine = self.says()
        everywhere = all(said.applied.digest == candidate.digest for said in (mine, *known.values()))
        if everywhere and not order.dry_run:
            await self._put_files(candidate, order)
            return outcome(exit_codes.DONE, f"nothing to do: generation {mine.applied.number} is that already", None, [], candidate.changes)
        await self._forget_promise(mine, order)
        number = config_apply.next_number([mine, *known.values()])
        comment = order.comment[:COMMENT_CHARACTERS_MAX]
        generation = Generation(number, candidate.digest, mine.applied.digest, transaction, order.who, time.time(), comment)
        self._holding = tuple(config_effects.stopped_for(candidate.changes))
        if complaints := await self._complaints(candidate, free=not order.force_from_here):
            raise SaidNo("; ".join(complaints))
        if not order.dry_run:
            await trio.to_thread.run_sync(self.store.keep, candidate.files)
        self.reached("config-kept")
        nodes = await self._prepare(candidate, generation, order, list(known))
        self.reached("config-promised")
        if order.dry_run:
            return outcome(exit_codes.DONE, "it could be applied; nothing was", None, nodes, candidate.changes)
        return await self._commit_everywhere(candidate, generation, order, list(known), nodes)

    async def _ask_all(self, order: Order) -> dict[str, Says]:
        """What the peers have; SaidNo when one is silent and nobody said that it may be."""
        async with trio.open_nursery() as nursery:
            for peer in self.peers:
                nursery.start_soon(self.ask, peer)
        silent = [peer for peer in self.peers if self.known[peer].says is None]
        if silent and not order.without_peer:
            names = listed(silent)
            sentence = f"{names} does not answer; --without-peer applies it here alone, and {names} takes it when it is back"
            raise SaidNo(sentence, exit_codes.PEER_NOT_REACHABLE)
        return {peer: said for peer in self.peers if (said := self.known[peer].says) is not None}

    async def _forget_promise(self, mine: Says, order: Order) -> None:
        """One whose coordinator is silent is given up by an administrator's word only."""
        if not mine.promised:
            return
        gone = mine.coordinator not in self.peers or self.known[mine.coordinator].says is None
        if not (gone and order.without_peer):
            sentence = f"this node has promised {mine.coordinator} a configuration and does not know yet what became of it"
            raise SaidNo(f"{sentence}: {config_apply.IN_DOUBT_FIX}" if gone else f"{sentence}; try again")
        if not order.dry_run:
            async with self._changing:
                await trio.to_thread.run_sync(self.store.release)
            self.log(f"what was promised {mine.coordinator} is given up, by {order.who}'s word")

    async def _prepare(self, candidate: Candidate, generation: Generation, order: Order, asked: Sequence[str]) -> list[dict[str, Any]]:
        """The first phase; SaidNo when not all promised, and those that did were told that it is over."""
        votes, reasons = dict[str, Vote](), dict[str, str]()
        codes: list[int] = []
        question = {
            "generation": generation.as_json(),
            "files": await trio.to_thread.run_sync(config_archive.pack, candidate.files),
            "force": order.force_from_here,
            "dry_run": order.dry_run,
        }

        async def ask(peer: str) -> None:
            try:
                await self.peers[peer].call("config_prepare", question, PREPARE_DEADLINE_S)
            except PeerRefused as refusal:
                votes[peer], reasons[peer] = Vote.NO, f"{peer}: {refusal}"
                codes.append(refusal.code)
            except PeerUnreachable as error:
                votes[peer], reasons[peer] = Vote.SILENT, str(error)
                codes.append(exit_codes.PEER_NOT_REACHABLE)
            else:
                votes[peer] = Vote.YES

        async with trio.open_nursery() as nursery:
            for peer in asked:
                nursery.start_soon(ask, peer)
        if config_apply.verdict(asked, votes) is not Verdict.COMMIT:
            if not order.dry_run:
                await self._abort([peer for peer in asked if votes[peer] is not Vote.NO], generation)
            raise SaidNo("; ".join(reasons.values()), codes[0])
        return [{"node": peer, "result": "agrees", "text": ""} for peer in asked]

    async def _abort(self, told: Iterable[str], generation: Generation) -> None:
        """Whoever does not hear it asks."""

        async def tell(peer: str) -> None:
            try:
                await self.peers[peer].call("config_abort", {"transaction": generation.transaction}, COMMIT_DEADLINE_S)
            except (PeerUnreachable, PeerRefused) as failure:
                self.log(f"{peer} was not told that generation {generation.number} is not applied, and will ask: {failure}")

        async with trio.open_nursery() as nursery:
            for peer in told:
                nursery.start_soon(tell, peer)

    async def _commit_everywhere(
        self, candidate: Candidate, generation: Generation, order: Order, asked: Sequence[str], nodes: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """The second phase: from the first line on it is so, whoever dies."""
        with trio.CancelScope(shield=True):
            async with self._changing:
                await self._switch(generation, f"by {order.who}", laid_out=order.number is None)
            self.reached("config-committed")
            told: dict[str, str] = {}

            async def tell(peer: str) -> None:
                try:
                    await self.peers[peer].call("config_commit", {"transaction": generation.transaction}, COMMIT_DEADLINE_S)
                    told[peer] = ""
                except (PeerUnreachable, PeerRefused) as failure:
                    told[peer] = str(failure)

            async with trio.open_nursery() as nursery:
                for peer in asked:
                    nursery.start_soon(tell, peer)
        nodes = [{"node": self.node, "result": "applied", "text": ""}]
        nodes += [{"node": peer, "result": "applied" if not told[peer] else "later", "text": told[peer]} for peer in asked]
        nodes += [{"node": peer, "result": "later", "text": "it does not answer"} for peer in self.peers if peer not in asked]
        late = [str(entry["node"]) for entry in nodes if entry["result"] == "later"]
        message = f"generation {generation.number} is applied" + (f"; {listed(late)} takes it as soon as it can" if late else "")
        return outcome(exit_codes.DONE, message, generation.number, nodes, candidate.changes)

    async def _put_files(self, candidate: Candidate, order: Order) -> None:
        """Back to what is applied: only the files change."""
        if order.number is not None and self.files != candidate.digest:
            await trio.to_thread.run_sync(config_archive.lay_out, candidate.files, candidate.files, self.config_dir)
            await self.look_at_files()

    # ---- taking part --------------------------------------------------------------------------------------------------------

    async def prepare(self, coordinator: str, parameters: Mapping[str, Any]) -> None:
        """The first phase here: durable when it returns; ConfigError or SaidNo is the no."""
        try:
            generation = generation_from(parameters["generation"])
        except (KeyError, TypeError, ValueError) as error:
            raise SaidNo(f"{coordinator} asks for something that is no generation", exit_codes.USAGE) from error
        force, dry_run = parameters.get("force") is True, parameters.get("dry_run") is True
        await self.look_at_files()
        under_way = self._under_way or ("committed" if self._committed.is_set() else "")
        if reason := config_apply.why_not_promise(self.says(), generation, coordinator, under_way, force=force):
            raise SaidNo(reason)
        candidate = await self.examine(config_archive.unpack(parameters.get("files")))
        if candidate.digest != generation.digest:
            raise SaidNo(f"{coordinator} sends other files than it says")
        held = tuple(config_effects.stopped_for(candidate.changes))
        self._holding = held
        try:
            if complaints := await self._complaints(candidate, free=not force):
                raise SaidNo("; ".join(complaints))
            if dry_run:
                return
            async with self._changing:
                prepared = Prepared(generation, coordinator, held)
                await trio.to_thread.run_sync(self.store.keep, candidate.files)
                await trio.to_thread.run_sync(self.store.prepare, prepared)
            self.reached("config-prepared")
        finally:
            self._holding = ()

    async def commit(self, transaction: str) -> None:
        """The second phase here. Told twice is told once."""
        async with self._changing:
            if self.store.past.has_transaction(transaction):
                return
            prepared = self.store.prepared
            if prepared is None or prepared.generation.transaction != transaction:
                raise SaidNo(f"{self.node} has not promised that")
            await self._switch(prepared.generation, f"as {prepared.coordinator} says")

    async def abort(self, transaction: str) -> None:
        """It is not applied."""
        async with self._changing:
            if self.store.prepared is not None and self.store.prepared.generation.transaction == transaction:
                await trio.to_thread.run_sync(self.store.release)

    def fate(self, transaction: str) -> Fate:
        """What became of one that this node coordinated."""
        return config_apply.fate(self.store.past, self._under_way, transaction)

    # ---- the switch ---------------------------------------------------------------------------------------------------------

    async def _switch(self, generation: Generation, how: str, *, laid_out: bool = False) -> None:
        await trio.to_thread.run_sync(lambda: self.store.commit(generation, laid_out=laid_out))
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
        except (OSError, SaidNo) as failure:
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
            found.append(warning("CONFIG_NOT_APPLIED", text, "hactl config diff; then hactl config apply, or hactl config rollback"))
        if mine.promised:
            text = f"this node has promised {mine.coordinator} a configuration and does not know what became of it"
            found.append(warning("CONFIG_IN_DOUBT", text, config_apply.IN_DOUBT_FIX))
        for peer, known in self.known.items():
            if known.says is None:
                continue
            match config_apply.relation(mine, known.says):
                case Relation.BEHIND if known.stuck:
                    text = f"{peer} has applied generation {known.says.applied.number}, which this node cannot take over yet"
                    found.append(warning("CONFIG_DIFFERS", text, known.stuck))
                case Relation.APART:
                    numbers = f"generations {known.says.applied.number} and {mine.applied.number}"
                    text = f"{peer} has another configuration than this node ({numbers})"
                    found.append(warning("CONFIG_DIFFERS", text, FIX_APART))
        return found


FIX_APART = "hactl config diff --peer; then 'hactl config apply --force-from-here' on the node whose files are right"


def warning(code: str, text: str, fix: str) -> dict[str, str]:
    """As `status` has them."""
    return {"code": code, "text": text, "fix": fix}


def shown(change: Change) -> str:
    """A change in a word, for a refusal."""
    return change.key or ("its removal" if change.after is None else "its addition")


def says_of(peer: str, message: Mapping[str, Any]) -> Says:
    """What a peer answered; ValueError for anything else."""
    return config_apply.says_from(peer, message)


def moved(complaints: Iterable[Complaint], tree: Path, config_dir: Path) -> list[Complaint]:
    """The same of the files that people edit."""
    return [replace(each, file=config_dir / each.file.relative_to(tree)) for each in complaints]


def outcome(code: int, message: str, number: int | None, nodes: list[dict[str, Any]], changes: Sequence[Change]) -> dict[str, Any]:
    """What `hactl config apply` prints."""
    return {
        "schema": "hactl.config-apply/1",
        "code": code,
        "message": message,
        "generation": number,
        "nodes": nodes,
        "changes": [change.as_json() for change in changes],
    }
