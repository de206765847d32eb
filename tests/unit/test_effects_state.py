"""The state file, the history, the status document and the local interface."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator import statefile
from orchestrator.api.server import ApiError, ApiServer, Request
from orchestrator.effects.notify import EVENTS_MAX, History
from orchestrator.effects.rfs import view_from


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hactld" / "state.json"
    assert statefile.read(path) == statefile.Remembered()
    remembered = statefile.Remembered("boot1", {"pg": True, "web": False})
    statefile.write(path, remembered)
    assert statefile.read(path) == remembered


@pytest.mark.parametrize("content", ["", "{", "[]", '{"boot": 1}', '{"boot": "a", "wanted": 5}'])
def test_a_damaged_state_file_means_nothing_remembered(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    assert statefile.read(tmp_path / "state.json") == statefile.Remembered()


@pytest.mark.parametrize(
    ("policy", "boot", "wanted", "expected"),
    [
        ("auto", "same", True, True), ("on", "same", False, False), ("off", "same", True, True),
        ("auto", "other", True, True), ("auto", "other", False, False), ("on", "other", False, True), ("off", "other", True, False),
    ],
)  # fmt: skip
def test_boot_policy(policy: str, boot: str, wanted: bool, expected: bool) -> None:
    remembered = statefile.Remembered("same", {"pg": wanted})
    assert statefile.wanted_at_start(remembered, "pg", policy, boot) is expected


def test_a_module_never_heard_of() -> None:
    assert statefile.wanted_at_start(statefile.Remembered(), "pg", "on", "boot") is True
    assert statefile.wanted_at_start(statefile.Remembered("boot"), "pg", "on", "boot") is True
    assert statefile.wanted_at_start(statefile.Remembered("boot"), "pg", "auto", "boot") is False


def test_history(tmp_path: Path) -> None:
    history = History(tmp_path / "hactld.log")
    for number in range(EVENTS_MAX + 5):
        history.add("pg", "transition", f"number {number}")
    assert len(history.lines) == EVENTS_MAX
    assert [line.text for line in history.after(EVENTS_MAX + 3)] == [f"number {EVENTS_MAX + 3}", f"number {EVENTS_MAX + 4}"]
    assert (tmp_path / "hactld.log").read_text().count("\n") == EVENTS_MAX + 5


def test_what_a_status_does_not_say_permits_nothing() -> None:
    view = view_from({})
    assert not (view.leads or view.serves or view.complete or view.needs_grant or view.consent or view.linked)


class Recorder:
    """A route that answers what it was asked."""

    async def route(self, request: Request) -> dict[str, Any]:
        if request.path == ("v1", "no"):
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
        ("GET", "/v1/no", None),
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
        assert answers[2] == (409, {"code": 6, "message": "not now"})
        assert answers[3][0] == 400
        stream = await trio.open_unix_socket(str(path))
        await stream.send_all(b"\x00\x01nonsense\r\n\r\n")
        with trio.fail_after(5):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 400")
        nursery.cancel_scope.cancel()
