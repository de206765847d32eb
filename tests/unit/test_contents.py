"""What lies in a directory: counted within bounds, and told over hactld's interface by both nodes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator.api import contents as api
from orchestrator.api.here import Here, Roster
from orchestrator.api.peer_calls import PeerCalls
from orchestrator.api.routes import Routes
from orchestrator.api.server import Request
from orchestrator.config import ReplicatedConfig
from orchestrator.core.states import Hold, Module, RfsView, Wish
from orchestrator.effects import contents
from orchestrator.effects.contents import Contents, survey
from orchestrator.effects.notify import History
from orchestrator.peer import PeerRefused, PeerUnreachable
from orchestrator.security import Keys
from rfs import directory_checks
from tests.unit.keyring import paired_keys
from tests.unit.test_api_routes import FakePeer, FakeSide
from tests.unit.test_runner import FakeEffects, make_runner, serving


def fill(root: Path) -> Path:
    """Three files, of which the newest lies deeper, a link, and what is not counted."""
    (root / "base" / "1").mkdir(parents=True)
    (root / "PG_VERSION").write_text("15\n")
    (root / "base" / "1" / "newest").write_bytes(bytes(1000))
    (root / "odd").write_bytes(b"\0\1")
    (root / "link").symlink_to("/usr")
    for hidden in ("lost+found", ".lockstep-kept"):
        (root / hidden).mkdir()
        (root / hidden / "x").write_bytes(bytes(5000))
    for path in (root / "PG_VERSION", root / "odd"):
        os.utime(path, (1_000_000, 1_000_000))
    return root


# ---------------------------------------------------------------------------------------------- the walk


def test_what_there_is(tmp_path: Path) -> None:
    found = survey(str(fill(tmp_path)), ("PG_VERSION", "odd", "missing"))
    assert (found.files, found.bytes, found.newest, found.whole) == (4, 1005, "base/1/newest", True)
    assert found.newest_age_s is not None and 0 <= found.newest_age_s < 60
    assert dict(found.markers) == {"PG_VERSION": "15", "odd": "there"} and found.lacking == ("missing",)


def test_nothing_and_nowhere(tmp_path: Path) -> None:
    assert survey(str(tmp_path), ()) == Contents(str(tmp_path), empty=True)
    assert survey(str(tmp_path / "none"), ("x",)) == Contents(str(tmp_path / "none"), exists=False, lacking=("x",))
    (tmp_path / "file").touch()
    assert survey(str(tmp_path / "file"), ()).problem == "it is no directory"


def test_a_walk_that_is_too_long_says_at_least(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / str(number)).write_text("x")
    found = survey(str(tmp_path), (), entries_max=10)
    assert (found.whole, found.files) == (False, 10)
    assert survey(str(tmp_path), (), walk_s=-1).whole is False


def test_long_or_binary_markers_are_only_there(tmp_path: Path) -> None:
    (tmp_path / "long").write_text("x" * 200)
    (tmp_path / "rows").write_text("one\ntwo\n")
    (tmp_path / "directory").mkdir()
    assert dict(survey(str(tmp_path), ("long", "rows", "directory")).markers) == dict.fromkeys(("long", "rows", "directory"), "there")


def test_subdirectories_alone_are_something_as_for_rfsmount(tmp_path: Path) -> None:
    for own in directory_checks.NOT_CONTENT:
        (tmp_path / own).mkdir()
    assert survey(str(tmp_path), ()).empty
    (tmp_path / "base").mkdir()
    found = survey(str(tmp_path), ())
    assert (found.files, found.empty) == (0, False) and not directory_checks.is_empty(str(tmp_path))


def test_a_name_that_is_not_utf_8_can_be_told(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    assert survey(str(tmp_path), ()).newest == "caf\ufffd.txt"


def test_a_marker_leads_nowhere_and_is_not_waited_for(tmp_path: Path) -> None:
    """The directory is the application's, hactld is root, and a viewer may ask: what is shown lies there, as a file."""
    (tmp_path / "secret").write_text("hunter2\n")
    data, outside = tmp_path / "data", tmp_path / "outside"
    for place in (data / "base", outside):
        place.mkdir(parents=True)
    (outside / "PG_VERSION").write_text("hunter2\n")
    (data / "base" / "PG_VERSION").write_text("15\n")
    (data / "link").symlink_to(tmp_path / "secret")
    (data / "way").symlink_to(outside)
    os.mkfifo(data / "fifo")
    names = ("link", "way/PG_VERSION", "../secret", str(tmp_path / "secret"), "fifo", "base/PG_VERSION")
    assert list(survey(str(data), names).markers.values()) == [*["there"] * 5, "15"]
    (tmp_path / "here").symlink_to(data)
    assert survey(str(tmp_path / "here"), ("base/PG_VERSION",)).markers == {"base/PG_VERSION": "15"}, "the directory itself may be a link"


# ---------------------------------------------------------------------------------------------- the interface


def routes_for(peer: FakePeer, tmp_path: Path, module: Module, directory: Path) -> Routes:
    runner = make_runner(FakeEffects(), module)
    logs = (tmp_path / "a", tmp_path / "b", tmp_path / "c")
    roster = Roster(
        "node1", ("node1", "node2"), {"pg": ("node1", "node2")}, {"pg": (ReplicatedConfig(str(directory), require=("PG_VERSION",)),)}
    )
    keys = Keys(paired_keys(tmp_path)[0], "node1", ["node2"])
    return Routes(Here(roster, [FakeSide(peer, runner)], History(None), dict, lambda module: logs, keys))


async def ask(routes: Routes, **query: str) -> dict[str, Any]:
    return await routes.route(Request("GET", ("v1", "modules", "pg", "contents"), query, {}))


THERE = {"node": "node2", "known": False, "serves": False, "directories": [], "problem": ""}
STOPPED = Module("pg")


async def test_both_nodes_at_once(tmp_path: Path) -> None:
    peer = FakePeer(THERE)
    document = await ask(routes_for(peer, tmp_path, STOPPED, fill(tmp_path / "data")), node="all")
    assert (document["schema"], document["module"]) == ("hactl.contents/1", "pg")
    here, there = document["nodes"]
    assert (here["node"], here["known"], here["directories"][0]["files"]) == ("node1", False, 4)
    assert there == THERE and [(method, words["walk"]) for method, words in peer.asked] == [("contents", True)]


async def test_without_a_walk_nothing_is_looked_at(tmp_path: Path) -> None:
    peer = FakePeer(THERE)
    document = await ask(routes_for(peer, tmp_path, STOPPED, tmp_path / "none"), walk="no", node="all")
    assert document["nodes"][0]["directories"] is None and peer.asked[0][1]["walk"] is False


@pytest.mark.parametrize("answer", [PeerUnreachable("node2 does not answer"), PeerRefused("there is no call 'contents'", 2)])
async def test_a_peer_that_cannot_say(answer: Exception, tmp_path: Path) -> None:
    document = await ask(routes_for(FakePeer(answer), tmp_path, STOPPED, tmp_path), node="all")
    assert document["nodes"][1]["known"] is None and str(answer) in document["nodes"][1]["problem"]


@pytest.mark.parametrize(
    ("module", "known"),
    [
        (STOPPED, False),
        (replace(STOPPED, wanted=True), False),
        (replace(STOPPED, wanted=True, wish=Wish.SECONDARY), False),
        (replace(STOPPED, has_record=True), True),
        (replace(STOPPED, wanted=True, wish=Wish.PRIMARY), True),
        (replace(STOPPED, rfs=Hold.COMING), True),
        (serving(), True),
    ],
)
async def test_who_is_known(module: Module, known: bool, tmp_path: Path) -> None:
    routes = routes_for(FakePeer(THERE), tmp_path, module, tmp_path)
    entry = (await ask(routes, walk="no"))["nodes"][0]
    assert entry["known"] is known
    assert entry["serves"] is (module.view is not None and isinstance(module.view, RfsView) and module.view.serves)


async def test_the_peer_asks_the_same(tmp_path: Path) -> None:
    routes = routes_for(FakePeer(THERE), tmp_path, STOPPED, fill(tmp_path / "data"))
    calls = PeerCalls(routes.here, routes.here.sides[0])
    answer = await calls.answer("contents", {"module": "pg", "walk": True})
    assert (answer["node"], answer["directories"][0]["markers"]) == ("node1", {"PG_VERSION": "15"})
    with pytest.raises(PeerRefused, match="has no part in a module"):
        await calls.answer("contents", {"module": "web"})


async def test_a_disk_that_hangs_costs_a_deadline_and_two_threads(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_end, write_end = os.pipe()  # who reads waits, as for a disk that does not answer
    monkeypatch.setattr(api, "survey", lambda *_, **__: os.read(read_end, 1))
    autojump_clock.autojump_threshold = 0.01
    try:
        for _ in range(4):
            routes = routes_for(FakePeer(THERE), tmp_path, STOPPED, tmp_path)
            entry = (await ask(routes))["nodes"][0]
            assert entry["directories"][0]["problem"] == f"it does not answer within {2 * contents.WALK_S:.0f} s"
        limiter = api._limiter.get()
        assert limiter.borrowed_tokens <= limiter.total_tokens == api.WALKS_MAX
    finally:
        os.write(write_end, b"xxxx")
        os.close(write_end)
        os.close(read_end)
