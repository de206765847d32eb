"""A witness in memory, with a test's hand on it: away, deaf to answers, or asked in an unfortunate order."""

from collections.abc import Awaitable, Callable, Sequence

import trio

from rfs.etcd import Stored, Swapped, WitnessSilent


class FakeRegister:
    """What two nodes share."""

    def __init__(self) -> None:
        self.keys: dict[str, Stored] = {}
        self.leases: dict[int, set[str]] = {}
        self.revision = 0
        self.away = False
        self.loses_answers = False  # a swap is carried out, and nobody hears of it
        self.after_swap: Callable[[], Awaitable[None]] | None = None  # what happens while the answer is under way
        self.swaps = 0
        self._written = trio.Event()

    async def until(self, key: str) -> None:
        """Until somebody has put it there."""
        with trio.fail_after(10):
            while key not in self.keys:
                await self._written.wait()

    def _answer(self) -> None:
        if self.away:
            raise WitnessSilent("http://192.0.2.21:2379: Connection refused")

    def _put(self, key: str, value: bytes) -> Stored:
        self.revision += 1
        self.keys[key] = Stored(value, self.revision)
        written, self._written = self._written, trio.Event()
        written.set()
        return self.keys[key]

    async def get(self, key: str) -> Stored:
        self._answer()
        return self.keys.get(key, Stored())

    async def exists(self, key: str) -> bool:
        self._answer()
        return key in self.keys

    async def swap(self, key: str, expected: Stored, value: bytes, absent: Sequence[str] = ()) -> Swapped:
        self._answer()
        self.swaps += 1
        stored = self.keys.get(key, Stored())
        blocking = tuple(other for other in absent if other in self.keys)
        if stored != expected or blocking:
            return Swapped(False, stored, blocking)
        written = self._put(key, value)
        if self.after_swap is not None:
            await self.after_swap()
        if self.loses_answers:
            raise WitnessSilent("http://192.0.2.21:2379: no answer within 1.5 s")
        return Swapped(True, written)

    async def grant_lease(self, seconds: int) -> int:
        self._answer()
        self.revision += 1
        self.leases[self.revision] = set()
        return self.revision

    async def keep_lease(self, lease: int) -> bool:
        self._answer()
        return lease in self.leases

    async def revoke_lease(self, lease: int) -> None:
        self._answer()
        for key in self.leases.pop(lease, set()):
            self.keys.pop(key, None)

    async def put(self, key: str, value: bytes, lease: int) -> None:
        self._answer()
        self._put(key, value)
        self.leases[lease].add(key)
