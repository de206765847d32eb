"""What the kernel tells of this node's links and addresses, heard once for all who wait for it.

Nearly all of it is that a service address was renewed, every 3 s and for each module: that is read here and wakes nobody. The rest is
counted, so nothing is missed between a look and the waiting for what comes after it: who looks remembers the count from before.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Collection
from enum import Enum

import trio

from orchestrator.effects import netlink, rtnetlink

NEWS_BYTES = 1 << 18
DEAF = "the kernel tells nothing more of links and addresses ({}): checkers see what changed when they look"


class News(Enum):
    """What there is to hear of."""

    LINK = "link"  # came, went, or is another: on, off, with a carrier or without
    REMOVED = "removed"  # an address is gone
    ANY = "any"  # renewed addresses as well: for who waits for an address to come


KINDS = {
    rtnetlink.RTM_NEWLINK: (News.LINK, News.ANY),
    rtnetlink.RTM_DELLINK: (News.LINK, News.ANY),
    rtnetlink.RTM_DELADDR: (News.REMOVED, News.ANY),
    rtnetlink.RTM_NEWADDR: (News.ANY,),
}


class NetworkNews:
    """One for this node. Where nobody runs it there is no news."""

    def __init__(self) -> None:
        self._counts = Counter[News]()
        self._heard = {news: trio.Event() for news in News}
        self._is_heard = False

    @property
    def is_heard(self) -> bool:
        """Would something be told? Else nothing follows from there being no news."""
        return self._is_heard

    def count(self, news: News) -> int:
        """How often there was some."""
        return self._counts[news]

    async def after(self, news: News, count: int) -> int:
        """Until there was more of it than that; how much there was."""
        while self._counts[news] <= count:
            await self._heard[news].wait()
        return self._counts[news]

    async def run(self, log: Callable[[str], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; started when nothing is missed any more. Where the kernel tells nothing it says so, and ends."""
        try:
            news = rtnetlink.open_news()
        except OSError as error:
            log(DEAF.format(error.strerror or error))
            return task_status.started()
        self._is_heard = True
        task_status.started()
        with trio.socket.from_stdlib_socket(news) as sock:
            try:
                while True:
                    self._tell(await _received(sock))
            except OSError as error:
                log(DEAF.format(error.strerror or error))
            finally:
                self._is_heard = False

    def _tell(self, found: Collection[News]) -> None:
        for news in found:
            self._counts[news] += 1
            heard, self._heard[news] = self._heard[news], trio.Event()
            heard.set()


async def _received(sock: trio.socket.SocketType) -> Collection[News]:
    try:
        return {news for kind in netlink.kinds_in(await sock.recv(NEWS_BYTES)) for news in KINDS.get(kind, ())}
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
        return set(News)  # there was so much that some of it is lost
