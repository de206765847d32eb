"""The event stream: what happens, as it happens, as Server-Sent Events.

    id: 812                                   the number; of several nodes `node1:812,node2:77`
    data: {"schema": "hactl.event/1", …}      a line of the history

Who was cut off comes back with the last id (`Last-Event-ID`, or `after=`) and gets what happened meanwhile out of the history's ring. Where
that is not kept any more, an event `gone` says what is missing, in a sentence. An event `silent` says that a peer does not answer.

There is no queue for a reader: the ring is one, and a reader is a place in it. Whoever is too slow to take what is sent is dropped by the
server (server.py) and can resume. The peers' lines are asked for over the call channel, which has no streams: each question waits there
until there is something to answer.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import trio

from orchestrator.api.here import Here
from orchestrator.api.server import ApiError, Send, number_from
from rfs import exit_codes

EVENT_SCHEMA: Final = "hactl.event/1"
GONE_SCHEMA: Final = "hactl.gone/1"
KEEPALIVE_S = 15.0
ASK_FOR_S = 10.0  # so long a peer waits for something to say
AGAIN_S = 1.0
RETRY_MS = 1000  # what a browser waits before it comes back
WAITING_MAX = 64  # pieces of several nodes that are to be sent; who has more to say waits

AskPeer = Callable[[str, str, dict[str, Any]], Awaitable[dict[str, Any]]]
Piece = tuple[str, dict[str, Any]]  # event, document


def cursors_from(text: str, nodes: Sequence[str]) -> dict[str, int]:
    """Where a reader was on each node; nodes of which it says nothing are read from now on. ApiError for what nobody has sent."""
    found: dict[str, int] = {}
    for part in text.split(",") if text else ():
        node, colon, digits = part.rpartition(":")
        if (number := number_from(digits)) is None:
            raise ApiError(f"'{text}' is no place in the events: it is a number, or NODE:NUMBER of each node", exit_codes.USAGE)
        found[node if colon else nodes[0]] = number
    return found


def encode(event: str, data: Mapping[str, Any], identity: str) -> bytes:
    """One event on the wire; JSON has no line feeds."""
    lines = [f"id: {identity}"] if identity else []
    lines += [f"event: {event}"] if event else []
    return "\n".join([*lines, f"data: {json.dumps(data)}", "", ""]).encode()


class Feed:
    """What one reader gets. `nodes`: this one, another one, or all; the first is answered for when a place has no name."""

    def __init__(self, here: Here, ask: AskPeer, nodes: Sequence[str], cursors: Mapping[str, int]) -> None:
        self.here, self.ask, self.nodes = here, ask, tuple(nodes)
        self.places: dict[str, int] = {}
        self.wanted = cursors

    @property
    def identity(self) -> str:
        """Where the reader is, to come back to."""
        if self.nodes == (self.here.node,):
            return str(self.places.get(self.here.node, ""))
        return ",".join(f"{node}:{number}" for node, number in self.places.items())

    async def run(self, send: Send) -> None:
        """Until cancelled."""
        await send(f": hactl.events/1\nretry: {RETRY_MS}\n\n".encode())
        into, out = trio.open_memory_channel[Piece](WAITING_MAX)
        async with trio.open_nursery() as nursery:
            for node in self.nodes:
                nursery.start_soon(self._of_this_node if node == self.here.node else self._of_peer, node, into)
            while True:
                piece: Piece | None = None
                with trio.move_on_after(KEEPALIVE_S):
                    piece = await out.receive()
                await (send(b":\n\n") if piece is None else self._send(send, *piece))

    async def _send(self, send: Send, event: str, document: dict[str, Any]) -> None:
        if not event:
            self.places[document["node"]] = document["number"]
        await send(encode(event, document, self.identity))

    async def _of_this_node(self, node: str, into: trio.MemorySendChannel[Piece]) -> None:
        history = self.here.history
        place = self.wanted.get(node, history.last)
        self.places[node] = place
        while True:
            if missing := gap(node, place, history.first, history.last):
                await into.send(("gone", missing))
                place = history.first - 1
            for line in history.after(place):
                await into.send(("", {"schema": EVENT_SCHEMA, **line.as_json(node)}))
                place = line.number
            while history.last <= place:
                await history.news()

    async def _of_peer(self, node: str, into: trio.MemorySendChannel[Piece]) -> None:
        place, silent = self.wanted.get(node), False
        while True:
            question = {"after": -1 if place is None else place, "wait_s": 0.0 if silent or place is None else ASK_FOR_S, "oldest": True}
            try:
                answer = await self.ask(node, "events", question)
                first, last = int(answer.get("first", 0)), int(answer["newest"])
                events = list(answer["events"])
            except (ApiError, KeyError, TypeError, ValueError) as error:
                if not silent:
                    await into.send(("silent", {"schema": GONE_SCHEMA, "node": node, "text": f"{node} does not answer: {error}"}))
                silent = True
                await trio.sleep(AGAIN_S)
                continue
            silent = False
            if place is None:
                place = self.places[node] = last
                continue
            if missing := gap(node, place, first, last):
                await into.send(("gone", missing))
                place = first - 1
                continue
            for event in events:
                await into.send(("", {"schema": EVENT_SCHEMA, **event}))
                place = int(event["number"])


def gap(node: str, place: int, first: int, last: int) -> dict[str, Any] | None:
    """What a reader at `place` has missed for good, in a sentence; who asked for everything there is has missed nothing."""
    if place > last:
        text = f"the history of {node} began anew; event {place} is not in it"
    elif 0 < place < first - 1:
        text = f"events {place + 1} to {first - 1} of {node} are not kept in memory any more; history.jsonl there may have them"
    else:
        return None
    return {"schema": GONE_SCHEMA, "node": node, "text": text}
