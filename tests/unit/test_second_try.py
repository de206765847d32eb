"""When a copy that had to leave tries again: never hot, and not before something has changed that makes it worth while."""

import errno

import pytest
import trio
import trio.testing

from rfs.engine import Space
from rfs.second_try import FIRST_PAUSE_S, LONGEST_PAUSE_S, SecondTry

MIB = 1 << 20


def space(free_bytes: int, files_free: int = 5000) -> Space:
    return Space(1000 * MIB, free_bytes, free_bytes, 10000, files_free)


class World:
    """What a copy sees of its file systems and of its peer."""

    def __init__(self) -> None:
        self.spaces = [space(500 * MIB), space(0)]
        self.peer: Space | None = space(100 * MIB)
        self.rooms_made = 0

    async def make_room(self) -> None:
        self.rooms_made += 1

    async def waited_s(self, tried: SecondTry) -> float:
        began = trio.current_time()
        await tried.wait(lambda: self.spaces, lambda: self.peer, self.make_room)
        return trio.current_time() - began


@pytest.fixture
def world() -> World:
    return World()


async def test_nothing_failed_and_nothing_is_waited_for(world: World, autojump_clock: trio.testing.MockClock) -> None:
    assert await world.waited_s(SecondTry()) == 0


async def test_the_pause_doubles_up_to_a_limit_and_success_forgets_it(world: World, autojump_clock: trio.testing.MockClock) -> None:
    tried = SecondTry()
    for pause_s in (FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S):
        tried.failed(errno.EUCLEAN, world.spaces, world.peer)
        assert await world.waited_s(tried) == pytest.approx(pause_s)
    for _ in range(100):
        tried.failed(errno.EUCLEAN, world.spaces, world.peer)
    assert await world.waited_s(tried) == pytest.approx(LONGEST_PAUSE_S)
    tried.succeeded()
    tried.failed(errno.EUCLEAN, world.spaces, world.peer)
    assert await world.waited_s(tried) == pytest.approx(FIRST_PAUSE_S)
    assert not tried.waits_for and not world.rooms_made


@pytest.mark.parametrize("change", ["room here", "inodes here", "less on the peer"])
async def test_a_full_copy_waits_for_a_change(world: World, autojump_clock: trio.testing.MockClock, change: str) -> None:
    tried = SecondTry()
    if change == "inodes here":
        world.spaces = [space(500 * MIB), space(400 * MIB, files_free=0)]
    tried.failed(errno.ENOSPC, world.spaces, world.peer)
    assert "free here" in tried.waits_for
    async with trio.open_nursery() as nursery:
        waited = trio.Event()

        async def wait() -> None:
            await world.waited_s(tried)
            waited.set()

        nursery.start_soon(wait)
        await trio.sleep(10 * LONGEST_PAUSE_S)
        assert not waited.is_set() and world.rooms_made == 1
        world.spaces[0], world.peer = space(510 * MIB), space(110 * MIB)  # less than a reserve
        await trio.sleep(10 * LONGEST_PAUSE_S)
        assert not waited.is_set()
        match change:
            case "room here":
                world.spaces[1] = space(40 * MIB)
            case "inodes here":
                world.spaces[1] = space(400 * MIB, files_free=2000)
            case _:
                world.peer = space(200 * MIB)
        with trio.fail_after(5):
            await waited.wait()


async def test_a_quota_shows_nowhere_and_is_only_paused_for(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.spaces = [space(500 * MIB)]
    tried = SecondTry()
    tried.failed(errno.EDQUOT, world.spaces, None)
    assert await world.waited_s(tried) == pytest.approx(FIRST_PAUSE_S)
