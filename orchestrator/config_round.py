"""An apply, on the node where the command runs: both phases, in the order of config_apply.py."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio

from orchestrator import config_apply, config_archive, config_effects
from orchestrator.config import listed
from orchestrator.config_apply import Says, Verdict, Vote
from orchestrator.config_check import Candidate
from orchestrator.config_effects import Change
from orchestrator.config_keeper import PREPARE_DEADLINE_S, ConfigKeeper
from orchestrator.generations import COMMENT_CHARACTERS_MAX, Generation
from orchestrator.peer import PeerRefused, PeerUnreachable
from rfs import exit_codes
from rfs.errors import SaidNo

COMMIT_DEADLINE_S: Final = 8.0
MOVES: Final = frozenset({"cluster.node.addresses", "cluster.node.addresses-"})


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


async def apply(keeper: ConfigKeeper, order: Order) -> dict[str, Any]:
    """Both phases. ConfigError or SaidNo, and nothing has changed anywhere, or the answer."""
    if keeper.under_way or keeper.is_changing:
        raise SaidNo("another configuration is being applied at this moment; try again")
    keeper.under_way = transaction = secrets.token_hex(8)
    try:
        return await _apply(keeper, order, transaction)
    finally:
        keeper.under_way = ""
        keeper.holding.pop(transaction, None)


async def _apply(keeper: ConfigKeeper, order: Order, transaction: str) -> dict[str, Any]:
    candidate = await keeper.examine(await keeper.source(order.number))
    if order.expect and candidate.digest != order.expect:
        raise SaidNo("the files have changed since they were shown: look at them once more")
    await keeper.look_at_files()
    known = await _ask_all(keeper, order)
    mine = keeper.says()
    everywhere = all(said.applied.digest == candidate.digest for said in (mine, *known.values()))
    if everywhere and not order.dry_run:
        await keeper.keep(candidate.files)  # perhaps others may run a script now
        await _put_files(keeper, candidate, order)
        return outcome(exit_codes.DONE, f"nothing to do: generation {mine.applied.number} is that already", None, [], candidate.changes)
    await _forget_promise(keeper, mine, order)
    number = config_apply.next_number([mine, *known.values()])
    comment = order.comment[:COMMENT_CHARACTERS_MAX]
    generation = Generation(number, candidate.digest, mine.applied.digest, transaction, order.who, time.time(), comment)
    keeper.holding[transaction] = tuple(config_effects.stopped_for(candidate.changes))
    _refuse_to_lose(keeper, candidate, [peer for peer in keeper.peers if peer not in known])
    if complaints := await keeper.complaints(candidate, free=not order.force_from_here):
        raise SaidNo("; ".join(complaints))
    if not order.dry_run:
        await keeper.keep(candidate.files)
    keeper.reached("config-kept")
    nodes = await _prepare(keeper, candidate, generation, order, list(known))
    keeper.reached("config-promised")
    if order.dry_run:
        return outcome(exit_codes.DONE, "it could be applied; nothing was", None, nodes, candidate.changes)
    return await _commit_everywhere(keeper, candidate, generation, order, list(known), nodes)


async def _ask_all(keeper: ConfigKeeper, order: Order) -> dict[str, Says]:
    """What the peers have; SaidNo when one is silent and nobody said that it may be."""
    async with trio.open_nursery() as nursery:
        for peer in keeper.peers:
            nursery.start_soon(keeper.ask, peer)
    silent = [peer for peer in keeper.peers if keeper.known[peer].says is None]
    if silent and not order.without_peer:
        names = listed(silent)
        sentence = f"{names} does not answer; --without-peer applies it here alone, and {names} takes it when it is back"
        raise SaidNo(sentence, exit_codes.PEER_NOT_REACHABLE)
    return {peer: said for peer in keeper.peers if (said := keeper.known[peer].says) is not None}


def _refuse_to_lose(keeper: ConfigKeeper, candidate: Candidate, absent: Sequence[str]) -> None:
    """A node that is away comes back with its old addresses, and from those it must be let in."""
    moved = [change.key.partition("[")[2].partition("]")[0] for change in candidate.changes if change.place in MOVES]
    if lost := [peer for peer in absent if peer in moved]:
        raise SaidNo(f"{listed(lost)} does not answer, and could not be reached under its old address: apply it when {lost[0]} is there")


async def _forget_promise(keeper: ConfigKeeper, mine: Says, order: Order) -> None:
    """One whose coordinator is silent is given up by an administrator's word only."""
    if not mine.promised:
        return
    gone = mine.coordinator not in keeper.peers or keeper.known[mine.coordinator].says is None
    if not (gone and order.without_peer):
        sentence = f"this node has promised {mine.coordinator} a configuration and does not know yet what became of it"
        raise SaidNo(f"{sentence}: {config_apply.IN_DOUBT_FIX}" if gone else f"{sentence}; try again")
    if not order.dry_run:
        async with keeper.changing:
            await trio.to_thread.run_sync(keeper.store.release)
        keeper.log(f"what was promised {mine.coordinator} is given up, by {order.who}'s word")


async def _prepare(
    keeper: ConfigKeeper, candidate: Candidate, generation: Generation, order: Order, asked: Sequence[str]
) -> list[dict[str, Any]]:
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
            await keeper.peers[peer].call("config_prepare", question, PREPARE_DEADLINE_S)
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
            await _abort(keeper, [peer for peer in asked if votes[peer] is not Vote.NO], generation)
        raise SaidNo("; ".join(reasons.values()), codes[0])
    return [{"node": peer, "result": "agrees", "text": ""} for peer in asked]


async def _abort(keeper: ConfigKeeper, told: Iterable[str], generation: Generation) -> None:
    """Whoever does not hear it asks."""

    async def tell(peer: str) -> None:
        try:
            await keeper.peers[peer].call("config_abort", {"transaction": generation.transaction}, COMMIT_DEADLINE_S)
        except (PeerUnreachable, PeerRefused) as failure:
            keeper.log(f"{peer} was not told that generation {generation.number} is not applied, and will ask: {failure}")

    async with trio.open_nursery() as nursery:
        for peer in told:
            nursery.start_soon(tell, peer)


async def _commit_everywhere(
    keeper: ConfigKeeper, candidate: Candidate, generation: Generation, order: Order, asked: Sequence[str], nodes: list[dict[str, Any]]
) -> dict[str, Any]:
    """The second phase: from the first line on it is so, whoever dies."""
    with trio.CancelScope(shield=True):
        async with keeper.changing:
            await keeper.switch(generation, f"by {order.who}", laid_out=order.number is None)
        keeper.reached("config-committed")
        told: dict[str, str] = {}

        async def tell(peer: str) -> None:
            try:
                await keeper.peers[peer].call("config_commit", {"transaction": generation.transaction}, COMMIT_DEADLINE_S)
                told[peer] = ""
            except (PeerUnreachable, PeerRefused) as failure:
                told[peer] = str(failure)

        async with trio.open_nursery() as nursery:
            for peer in asked:
                nursery.start_soon(tell, peer)
    nodes = [{"node": keeper.node, "result": "applied", "text": ""}]
    nodes += [{"node": peer, "result": "applied" if not told[peer] else "later", "text": told[peer]} for peer in asked]
    nodes += [{"node": peer, "result": "later", "text": "it does not answer"} for peer in keeper.peers if peer not in asked]
    late = [str(entry["node"]) for entry in nodes if entry["result"] == "later"]
    message = f"generation {generation.number} is applied" + (f"; {listed(late)} takes it as soon as it can" if late else "")
    return outcome(exit_codes.DONE, message, generation.number, nodes, candidate.changes)


async def _put_files(keeper: ConfigKeeper, candidate: Candidate, order: Order) -> None:
    """Back to what is applied: only the files change."""
    if order.number is not None and keeper.files != candidate.digest:
        await trio.to_thread.run_sync(config_archive.lay_out, candidate.files, candidate.files, keeper.config_dir)
        await keeper.look_at_files()


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
