"""The state file, the history, the status document and the local interface."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from orchestrator import statefile
from orchestrator.api import access, server
from orchestrator.api.roles import Role
from orchestrator.api.server import ApiError, ApiServer, Request
from orchestrator.core.states import Memory
from orchestrator.effects.journal import Journal
from orchestrator.effects.notify import EVENTS_MAX, History
from orchestrator.effects.rfs import view_from
from orchestrator.statefile import Kept


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hactld" / "state.json"
    assert statefile.read(path) == {}
    remembered = {"pg": Kept("boot1", Memory(True, False, True, "off")), "web": Kept("boot2", Memory(False, True, False, ""))}
    statefile.write(path, remembered)
    assert statefile.read(path) == remembered


def test_a_file_of_the_first_release_is_read(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"boot": "boot1", "wanted": {"pg": true, "web": false}}')
    assert statefile.read(tmp_path / "state.json") == {"pg": Kept("boot1", Memory(wanted=True)), "web": Kept("boot1", Memory())}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"boot": 1}', '{"boot": "a", "wanted": 5}', '{"modules": {"pg": {"wanted": true}}}'])
def test_a_damaged_state_file_means_nothing_remembered(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    assert statefile.read(tmp_path / "state.json") == {}


@pytest.mark.parametrize(
    ("policy", "boot", "wanted", "expected"),
    [
        ("auto", "same", True, True), ("on", "same", False, False), ("off", "same", True, True),
        ("auto", "other", True, True), ("auto", "other", False, False), ("on", "other", False, True), ("off", "other", True, False),
    ],
)  # fmt: skip
def test_boot_policy(policy: str, boot: str, wanted: bool, expected: bool) -> None:
    assert statefile.wanted_at_start(Kept("same", Memory(wanted=wanted)), policy, boot) is expected


def test_the_switch_counts_for_more_than_the_configuration() -> None:
    assert statefile.wanted_at_start(Kept("same", Memory(wanted=True, boot="off")), "on", "other") is False
    assert statefile.wanted_at_start(Kept("same", Memory(wanted=False, boot="on")), "off", "other") is True
    assert statefile.wanted_at_start(Kept("same", Memory(wanted=True, boot="off")), "on", "same") is True, "not at a boot: as it was"


def test_a_module_never_heard_of() -> None:
    assert statefile.wanted_at_start(None, "on", "boot") is True
    assert statefile.wanted_at_start(None, "auto", "boot") is False


def test_history(tmp_path: Path) -> None:
    history = History(tmp_path / "hactld.log")
    for number in range(EVENTS_MAX + 5):
        history.add("pg", "transition", f"number {number}")
    assert len(history.lines) == EVENTS_MAX
    assert [line.text for line in history.after(EVENTS_MAX + 3)] == [f"number {EVENTS_MAX + 3}", f"number {EVENTS_MAX + 4}"]
    history.flush()
    assert (tmp_path / "hactld.log").read_text().count("\n") == EVENTS_MAX + 5


def test_what_a_status_does_not_say_permits_nothing() -> None:
    view = view_from({})
    assert not (view.leads or view.serves or view.complete or view.needs_grant or view.consent or view.linked)


class Recorder:
    """A route that answers what it was asked."""

    async def route(self, request: Request) -> dict[str, Any]:
        if request.path == ("v1", "doctor"):
            raise ApiError("not now", 6)
        return {"path": list(request.path), "query": request.query, "body": request.body, "code": 0}


class UnixConnection(http.client.HTTPConnection):
    """http.client over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(str(self.path))


def exchange(path: Path) -> list[tuple[int, Any]]:
    connection = UnixConnection(path)
    answers = []
    for method, target, body in (
        ("GET", "/v1/status?node=all", None),
        ("POST", "/v1/modules/p%20g/second", json.dumps({"fullsync": True})),
        ("GET", "/v1/doctor", None),
        ("POST", "/v1/modules/pg/start", "{"),
    ):
        connection.request(method, target, body)
        response = connection.getresponse()
        answers.append((response.status, json.loads(response.read())))
    return answers


async def test_http_over_the_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "run" / "hactld.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(ApiServer(path, Recorder().route).run)
        assert path.stat().st_mode & 0o777 == 0o600
        answers = await trio.to_thread.run_sync(exchange, path)
        assert answers[0] == (200, {"path": ["v1", "status"], "query": {"node": "all"}, "body": {}, "code": 0})
        assert answers[1][1]["path"] == ["v1", "modules", "p g", "second"]
        assert answers[1][1]["body"] == {"fullsync": True}
        assert answers[2] == (409, {"schema": "hactl.error/1", "code": 6, "message": "not now"})
        assert answers[3][0] == 400
        stream = await trio.open_unix_socket(str(path))
        await stream.send_all(b"\x00\x01nonsense\r\n\r\n")
        with trio.fail_after(5):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 400")
        nursery.cancel_scope.cancel()


def written(history: History, *line: str, **more: Any) -> None:
    history.add(*line, **more)
    history.flush()


def test_a_disk_that_hangs_holds_up_no_line(tmp_path: Path) -> None:
    """A pipe that nobody reads: to open it for writing waits for ever."""
    os.mkfifo(tmp_path / "hactld.log")
    history = History(tmp_path / "hactld.log")
    for number in range(EVENTS_MAX):
        history.add("pg", "transition", f"number {number}")
    assert history.lines[-1].text == f"number {EVENTS_MAX - 1}"
    with (tmp_path / "hactld.log").open() as reader:
        assert reader.readline().endswith("number 0\n"), "it goes on where it was when the disk comes back"
        history.flush()


def test_history_goes_on_where_it_was(tmp_path: Path) -> None:
    written(History(tmp_path / "hactld.log"), "pg", "command", "stop: pg stops", who="ann on node1")
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"number": 2, "wall')  # a crash in the middle of a line
    again = History(tmp_path / "hactld.log")
    written(again, "pg", "takeover", "node2 is silent", inputs={"around": {"peer_silent": True}})
    assert [(line.number, line.kind) for line in again.lines] == [(1, "command"), (2, "takeover")]
    assert again.lines[0].as_json("node1")["who"] == "ann on node1"
    assert "(by ann on node1)" in (tmp_path / "hactld.log").read_text()


def test_a_torn_line_takes_no_other_with_it(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text('{"number": 7, "wall')
    written(History(tmp_path / "hactld.log"), "pg", "transition", "after the crash")
    assert [line.text for line in History(tmp_path / "hactld.log").lines] == ["after the crash"]


def test_history_is_bounded_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.effects.notify.LOG_BYTES_MAX", 2000)
    history = History(tmp_path / "hactld.log")
    for number in range(100):
        history.add("pg", "transition", f"number {number}")
    history.flush()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["hactld.log", "hactld.log.1", "history.jsonl", "history.jsonl.1"]
    assert all(path.stat().st_size < 2400 for path in tmp_path.iterdir())
    assert History(tmp_path / "hactld.log").lines[-1].text == "number 99"


def test_the_journal_gets_fields(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(path))
        History(None, journal=Journal(path)).add("pg", "takeover", "node2 is silent", who="ann")
        History(None, journal=Journal(path)).add("", "hactld", "two\nlines")
        first, second = journald.recv(4096), journald.recv(4096)
    assert b"MESSAGE=pg takeover node2 is silent (by ann)\nPRIORITY=5\n" in first and b"LOCKSTEP_MODULE=pg\n" in first
    assert second.startswith(b"MESSAGE=- hactld two\\nlines\n"), "one line, whoever said it"


def test_without_a_journal_nothing_happens(tmp_path: Path) -> None:
    Journal(tmp_path / "none").send("text", "pg", "takeover")


async def test_who_asks_has_a_name() -> None:
    found = await access.asker(access.Process(os.getpid(), 0, frozenset()), {})
    assert (found.name, found.role) == ("root", Role.ADMIN) and found.who == "root"


async def test_no_command_waits_for_a_directory_service(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    over = threading.Event()
    monkeypatch.setattr(access, "user_name", lambda uid: over.wait() and "too late")
    try:
        for _ in range(50):  # more than there are threads
            assert await access.asker(access.Process(0, 1000, frozenset()), {}) == access.Asker("uid 1000", Role.NONE)
        assert await trio.to_thread.run_sync(lambda: "others find one") == "others find one"
    finally:
        over.set()


async def test_what_could_not_be_written_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statefile, "TRY_EVERY_S", 0.01)
    told: list[str] = []
    memories = statefile.Memories(tmp_path / "state.json", "boot1", told.append)
    (tmp_path / "state.json").mkdir()  # in the way
    memories.remember("pg", Memory(wanted=True))
    await memories.write_down()
    assert statefile.read(tmp_path / "state.json") == {} and len(told) == 1
    (tmp_path / "state.json").rmdir()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(memories.keep_trying)
        with trio.fail_after(10):
            while statefile.read(tmp_path / "state.json") != {"pg": Kept("boot1", Memory(wanted=True))}:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


def test_halves_of_characters_end_nothing(tmp_path: Path) -> None:
    """What a script of another encoding says comes as halves of characters."""
    history = History(tmp_path / "hactld.log", journal=Journal(tmp_path / "none"))
    said = json.loads('"d\\udce9marr\\udce9"')
    history.add("pg", "script-says", said, who=said)
    history.flush()
    assert "d\\udce9marr\\udce9" in (tmp_path / "hactld.log").read_text()
    assert json.loads(server.whole_text(b'{"text": "d\\udce9j\\u00e0"}')) == {"text": "d?j\u00e0"}
