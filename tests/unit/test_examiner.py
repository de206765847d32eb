"""Whom the doctor is asked through: hactld where it runs, by whoever has a role; past it where it does not, by root alone."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.client import ApiFailure
from orchestrator.doctor import gather
from orchestrator.hactl import examiner as module
from orchestrator.hactl.examiner import Examiner
from orchestrator.snapshot import part
from rfs import exit_codes
from rfs.errors import SaidNo
from tests.unit.doctor_facts import healthy


class Client:
    """hactld's answers, or what it says instead."""

    def __init__(self, failure: ApiFailure | None = None) -> None:
        self.failure, self.asked = failure, list[tuple[str, str | None]]()
        self.part = bytes(range(256)) * 3000

    def doctor(self, what: str, node: str | None = None, **more: str) -> dict[str, Any]:
        self.asked.append((what, node))
        if self.failure is not None:
            raise self.failure
        if what == "clock":
            return {"node": node, "wall_s": 5e9 if node else 0.0}
        if what == "snapshot" and "token" in more:
            at = int(more["offset"])
            return {"bytes": len(self.part), "offset": at, "data": base64.b64encode(self.part[at : at + 300_000]).decode()}
        return {"token": "t"} if what == "snapshot" else healthy(node or "node1")

    def status(self, node: str | None = None) -> dict[str, Any]:
        return {"peers": [{"node": "node2"}]}


def examiner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, client: Client, *, root: bool = True) -> Examiner:
    monkeypatch.setenv("HACTL_NODE", "node1")
    monkeypatch.setattr(module, "is_root", lambda: root)
    made = Examiner(tmp_path, tmp_path / "socket")
    made.client = client  # type: ignore[assignment]
    return made


@pytest.mark.parametrize("root", [True, False])
def test_hactld_answers_for_both_nodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: bool) -> None:
    made = examiner(monkeypatch, tmp_path, client := Client(), root=root)
    assert made.nodes(None) == made.nodes("all") == ["node1", "node2"], "whoever cannot read the files hears of the peers from hactld"
    assert made.nodes("node2") == ["node2"]
    with pytest.raises(SaidNo, match="there is no node node7"):
        made.nodes("node7")
    found = made.examine(["node1", "node2"])
    assert [facts["node"] for facts in found.facts] == ["node1", "node2"] and found.silent == {}
    assert found.facts[0]["clock_offsets"]["node2"] > 1e9 and ("facts", None) in client.asked and ("facts", "node2") in client.asked


def test_without_hactld_root_looks_for_himself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gather, "gather", lambda node, config_dir, **more: healthy(node))
    monkeypatch.setattr(part, "collect", lambda node, config_dir, **more: b"part")
    gone = ApiFailure("hactld is not running on this node", exit_codes.DAEMON_NOT_REACHABLE)
    made = examiner(monkeypatch, tmp_path, Client(gone))
    found = made.examine(made.nodes(None))
    assert [facts["node"] for facts in found.facts] == ["node1"]
    assert found.facts[0]["status"] == {"error": "hactld is not running on this node"}
    assert made.part_of("node1", lambda what, done: None) == b"part"
    with pytest.raises(SaidNo, match="only root can look past it") as caught:
        examiner(monkeypatch, tmp_path, Client(gone), root=False).nodes(None)
    assert caught.value.exit_code == exit_codes.NOT_PERMITTED


def test_who_has_no_role_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = examiner(monkeypatch, tmp_path, Client(ApiFailure("you have no role here", exit_codes.NOT_PERMITTED)), root=False)
    with pytest.raises(ApiFailure, match="no role"):
        made.nodes(None)


def test_a_peers_part_comes_in_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown: list[float] = []
    made = examiner(monkeypatch, tmp_path, client := Client(), root=False)
    assert made.part_of("node2", lambda what, done: shown.append(done)) == client.part
    assert made.part_of("node1", lambda what, done: None) == client.part, "an operator's own node, through hactld"
    assert shown == sorted(shown) and shown[-1] == 1.0
    client.part = b""
    assert made.part_of("node2", lambda what, done: None) == b""
    monkeypatch.setattr(part, "PART_BYTES_MAX", 10)
    client.part = b"x" * 11
    with pytest.raises(SaidNo, match="more than a part may have"):
        made.part_of("node2", lambda what, done: None)


def test_before_a_first_copy_both_are_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SaidNo, match="no mirror module"):
        examiner(monkeypatch, tmp_path, Client()).before_first_copy("pg", "node1")
