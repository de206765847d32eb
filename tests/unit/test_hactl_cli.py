"""hactl against a hactld that answers from a script: what it prints, where, and its exit codes."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pty
import re
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from orchestrator.hactl.cli import run
from orchestrator.hactl.status_view import render
from rfs.errors import SaidNo
from rfs.keys import KeyStore
from tests.unit.keyring import make_keys
from tests.unit.schemas import check

STATUS: dict[str, Any] = {
    "schema": "hactl.status/1",
    "cluster": "plant7",
    "node": "node1",
    "peer": "node2",
    "partial": False,
    "verdict": "redundant",
    "failover": {"state": "armed", "reason": ""},
    "modules": [
        {
            "name": "pg",
            "mode": "mirror",
            "verdict": "redundant",
            "nodes": [
                {
                    "node": "node1",
                    "state": "PRIM",
                    "readiness": "Ready",
                    "data": "UPTODATE",
                    "generation": "9f",
                    "link": "paired",
                    "service": "on",
                    "since_s": 273600.0,
                    "reason": "",
                    "resync": None,
                },
                {
                    "node": "node2",
                    "state": "SECOND",
                    "readiness": "Ready",
                    "data": "UPTODATE",
                    "generation": "9f",
                    "link": "paired",
                    "service": "off",
                    "since_s": 42.0,
                    "reason": "",
                    "resync": None,
                },
            ],
            "vips": [{"address": "192.0.2.100/24", "node": "node1"}],
        }
    ],
    "warnings": [],
}

CLUSTER = """\
name = "plant7"
[[node]]
name = "node1"
addresses = { lan = "192.0.2.11" }
[[node]]
name = "node2"
addresses = { lan = "192.0.2.12" }
"""

Answer = tuple[int, Any]


class FakeHactld:
    """Answers each request with the next scripted answer for its path, the last one for ever; remembers what was asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, list[Answer]] = {"/v1/status": [(200, STATUS)]}
        self.asked: list[tuple[str, str, Any]] = []

    def take(self, method: str, target: str, body: Any) -> Answer:
        self.asked.append((method, target, body))
        script = self.answers.get(target.partition("?")[0], [(404, {"code": 2, "message": f"there is no {target}"})])
        return script.pop(0) if len(script) > 1 else script[0]


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def hactld(tmp_path: Path) -> Iterator[FakeHactld]:
    fake = FakeHactld(tmp_path / "hactld.sock")

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            status, document = fake.take(self.command, self.path, body)
            payload = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = answer  # noqa: N815 - the names http.server looks for

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with UnixServer(str(fake.path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        server.shutdown()
        thread.join()


Hactl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hactl(hactld: FakeHactld, capsys: pytest.CaptureFixture[str]) -> Hactl:
    def call(*words: str) -> tuple[int, str, str]:
        code = run(["--socket", str(hactld.path), *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def timeless(text: str) -> list[str]:
    """The lines, without the time of day."""
    return re.sub(r"\d\d:\d\d:\d\d", "TIME", text).splitlines()


def changed(**node1: Any) -> dict[str, Any]:
    """The status with other values in node1's line."""
    document = copy.deepcopy(STATUS)
    document["modules"][0]["nodes"][0].update(node1)
    return document


def test_status_is_a_table_for_people(hactl: Hactl) -> None:
    code, out, err = hactl("status")
    assert (code, err) == (0, "")
    assert timeless(out) == [
        "Cluster plant7   redundant ✔   automatic failover: armed   TIME",
        "",
        "MODULE  NODE      ROLE    DATA        LINK  APP      SINCE",
        "pg      node1  ●  PRIM    up to date  ok    running  3d 4h",
        "pg      node2  ●  SECOND  up to date  ok    -        42s",
        "VIP 192.0.2.100/24 (pg) on node1",
    ]
    alone = timeless(hactl()[1])
    assert alone[:6] == timeless(out), "hactl alone shows the status"
    assert alone[7:] == [
        "Next:",
        "  hactl swap pg --wait               give the role to the other node",
        "  hactl drill pg                     rehearse a failover",
        "  hactl history                      what happened, and who asked for it",
    ]
    assert timeless(hactl("status", "--no-header")[1]) == [line for line in timeless(out) if not line.startswith("MODULE")]


def test_status_names_what_is_wrong_first() -> None:
    document = changed(state="ALONE", link="alone")
    document["verdict"] = "degraded"
    document["partial"] = True
    document["failover"] = {"state": "blocked", "reason": "node2 is silent"}
    document["warnings"] = [{"code": "X", "text": "network repl: nothing arrives from node2", "fix": "check the network repl"}]
    resync = {"direction": "from-peer", "percent_done": 43.94, "bytes_done": 1, "seconds_remaining": 125.0}
    document["modules"][0]["nodes"][1] |= {"readiness": "Transient", "resync": resync, "reason": "is being resynced", "since_s": None}
    assert timeless(render(document, colour=False)) == [
        "Cluster plant7   NOT REDUNDANT ✖   automatic failover: blocked (node2 is silent)   TIME",
        "! network repl: nothing arrives from node2",
        "  → check the network repl",
        "",
        "MODULE  NODE      ROLE                DATA                 LINK  APP      SINCE",
        "pg      node1  ◐  ALONE               current              down  running  3d 4h",
        "pg      node2  ◔  SECOND (Transient)  sync 44% 2m 5s left  ok    -        -",
        "VIP 192.0.2.100/24 (pg) on node1",
        "node2: is being resynced",
        "node2 did not answer: its line is what was last known.",
    ]
    assert "\x1b[32m" in render(document, colour=True)


def test_status_for_programs(hactl: Hactl) -> None:
    for words in (("status", "--json"), ("--json", "status"), ("status", "-o", "json"), ("-o", "jsonl", "status")):
        code, out, _ = hactl(*words)
        assert code == 0
        assert json.loads(out) == STATUS
    assert hactl("status", "-o", "plain")[1] == "pg\tnode1\tPRIM\tReady\tUPTODATE\tpaired\npg\tnode2\tSECOND\tReady\tUPTODATE\tpaired\n"


@pytest.mark.parametrize(("verdict", "expected"), [("redundant", 0), ("degraded", 10), ("down", 11), ("diverged", 12), ("resyncing", 13)])
def test_check_exits_with_the_verdict(hactl: Hactl, hactld: FakeHactld, verdict: str, expected: int) -> None:
    hactld.answers["/v1/status"] = [(200, STATUS | {"verdict": verdict})]
    assert hactl("status", "--check")[0] == expected


def test_a_command_is_sent_and_its_message_goes_to_standard_error(hactl: Hactl, hactld: FakeHactld) -> None:
    hactld.answers["/v1/modules/pg/swap"] = [(200, {"code": 0, "message": "swapping pg", "results": []})]
    assert hactl("swap", "pg") == (0, "", "swapping pg\n")
    assert hactld.asked[-1] == ("POST", "/v1/modules/pg/swap", {})
    assert hactl("swap") == (0, "", "swapping pg\n"), "the only module may be left out"


def test_options_of_a_command_travel(hactl: Hactl, hactld: FakeHactld) -> None:
    for verb in ("prim", "second"):
        hactld.answers[f"/v1/modules/pg/{verb}"] = [(200, {"code": 0, "message": "", "results": []})]
    assert hactl("prim", "pg", "--force", "-H", "node2", "--yes")[0] == 0
    assert hactld.asked[-1] == ("POST", "/v1/modules/pg/prim?node=node2", {"force": True})
    assert hactl("second", "pg", "--fullsync", "--yes")[0] == 0
    assert hactld.asked[-1] == ("POST", "/v1/modules/pg/second", {"fullsync": True})


@pytest.mark.parametrize(("http", "code"), [(409, 6), (502, 5), (504, 7), (403, 8), (500, 1)])
def test_a_refusal_is_a_sentence_and_its_code(hactl: Hactl, hactld: FakeHactld, http: int, code: int) -> None:
    hactld.answers["/v1/modules/pg/prim"] = [(http, {"code": code, "message": "the data of node1 are OUTDATED"})]
    assert hactl("prim", "pg") == (code, "", "hactl: the data of node1 are OUTDATED\n")


def test_wait_with_a_command(hactl: Hactl, hactld: FakeHactld) -> None:
    stopping = changed(state="WAIT", readiness="Transient")
    stopped = changed(state="STOP", readiness="NotReady")
    hactld.answers["/v1/status"] = [(200, STATUS), (200, STATUS), (200, stopping), (200, stopped)]
    hactld.answers["/v1/modules/pg/stop"] = [(200, {"code": 0, "message": "stopping pg", "results": []})]
    assert hactl("stop", "pg", "--wait")[0] == 0
    assert [method for method, _, _ in hactld.asked] == ["GET", "POST", "GET", "GET", "GET"]


def test_wait_for_a_state(hactl: Hactl, hactld: FakeHactld) -> None:
    assert hactl("wait", "pg", "--for", "prim")[0] == 0
    assert hactl("wait", "--for", "redundant")[0] == 0
    assert hactl("wait", "pg", "--for", "ready", "-H", "all")[0] == 0
    assert hactl("wait", "pg", "--for", "SECOND", "-H", "node2")[0] == 0
    hactld.answers["/v1/status"] = [(200, changed(state="WAIT", readiness="NotReady", reason="node2 has newer data"))]
    code, _, err = hactl("wait", "pg", "--for", "ALONE", "--timeout", "50ms")
    assert code == 7
    assert err == ("hactl: not ALONE on this node within 0.05 s: node1 is WAIT NotReady (node2 has newer data), node2 is SECOND Ready\n")
    assert hactl("wait", "pg", "--for", "perfect")[0] == 2


def test_wait_outlives_a_daemon_that_is_not_there_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--socket", str(tmp_path / "none"), "wait", "pg", "--for", "PRIM", "--timeout", "50ms"]) == 7
    assert "hactld is not running on this node" in capsys.readouterr().err


def test_logs_and_events(hactl: Hactl, hactld: FakeHactld) -> None:
    said = {"node": "node1", "module": "pg", "lines": ["ready"], "rfs_lines": [], "runs": ["1_start_prim", "2_stop_prim"]}
    hactld.answers["/v1/modules/pg/logs"] = [(200, {**said, "run": "2_stop_prim", "run_lines": ["bye"]})]
    shown = hactl("logs", "-n", "5")[1].splitlines()
    newest = ["== pg on node1: script 2_stop_prim", "bye"]
    assert shown == ["== pg on node1: services", "ready", *newest, "== pg on node1: rfsmount: nothing"]
    assert hactl("logs", "-n", "5", "--runs")[1].splitlines() == ["1_start_prim", "2_stop_prim"]
    assert hactl("logs", "-n", "5", "--run", "2_stop_prim")[1].splitlines() == ["bye"]
    assert hactld.asked[-1][1] == "/v1/modules/pg/logs?lines=5&run=2_stop_prim"
    hactl("logs", "-n", "5")
    assert hactld.asked[-1][1] == "/v1/modules/pg/logs?lines=5"
    hactl("logs", "-n", "5", "-H", "all")
    assert [path for _, path, *_ in hactld.asked[-2:]] == [f"/v1/modules/pg/logs?lines=5&node=node{number}" for number in (1, 2)]
    both = hactl("logs", "-H", "all", "-o", "json")[1]
    assert [document["node"] for document in json.loads(both)["nodes"]] == ["node1", "node1"]  # the fake answers for both
    event = {"number": 3, "time": 1.0, "wall_s": 0.0, "module": "pg", "kind": "state", "text": "PRIM Ready"}
    hactld.answers["/v1/events"] = [(200, {"node": "node1", "events": [event], "last": 3})]
    assert hactl("events")[1].endswith("  pg  PRIM Ready\n")
    assert json.loads(hactl("events", "-o", "jsonl", "--after", "2")[1]) == event
    assert hactld.asked[-1][1] == "/v1/events?after=2"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("status", "web"), 2, "there is no module web; there is pg."),
        (("stop", "pgg"), 2, 'there is no module pgg; there is pg. Did you mean "pg"?'),
        (("swop",), 2, 'there is no command \'swop\'. Did you mean "swap"?'),
        (("status", "--wtch"), 2, "--wtch"),
        (("resolve", "pg"), 2, "Missing option '--keep'"),
        (("resolve", "pg", "--keep", "nod1"), 2, 'say --keep node1 or --keep node2. Did you mean "node1"?'),
        (("resolve", "pg", "--keep", "node1"), 6, "pg is redundant, not diverged"),
        (("explain", "divergd"), 2, 'nothing is called \'divergd\'. Did you mean "DIVERGED"?'),
        (("module", "add", "x"), 2, 'there is no template "x"'),
        (("lab", "run", "crash"), 2, "there is no scenario crash; 'hactl lab run' lists them"),
        (("wait", "pg", "--for", "PRIM", "--timeout", "soon"), 2, '"soon" is not a duration'),
        (("lab", "kill", "node9"), 2, "node9"),
        (("lab", "--name", "no-such-lab", "status"), 1, "The lab is not up; `hactl lab up --name no-such-lab` builds it."),
    ],
)
def test_mistakes_get_one_sentence(hactl: Hactl, words: tuple[str, ...], code: int, sentence: str) -> None:
    found, out, err = hactl(*words)
    assert (found, out) == (code, "")
    assert sentence in err
    assert err.startswith("hactl: ")
    assert err.count("\n") == 1


def test_nobody_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--socket", str(tmp_path / "none"), "status"]) == 4
    assert capsys.readouterr().err.startswith("hactl: hactld is not running on this node")


def test_an_answer_that_is_no_json(hactl: Hactl, hactld: FakeHactld) -> None:
    hactld.answers["/v1/status"] = [(200, b"<html>")]
    assert hactl("status") == (1, "", "hactl: hactld answered with something that is no JSON object (HTTP 200)\n")


def config(directory: Path, module: str) -> str:
    (directory / "modules").mkdir()
    (directory / "cluster.toml").write_text(CLUSTER)
    (directory / "modules" / "pg.toml").write_text(module)
    return str(directory)


def test_config_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = config(tmp_path, '[[replicated]]\ndirectory = "/srv/pg"\n[[vip]]\naddress = "192.0.2.100/24"\n')
    assert run(["config", "check", "--config-dir", where]) == 0
    assert capsys.readouterr().out == f"{where}: cluster plant7, nodes node1 and node2, modules: pg. No problems.\n"
    assert run(["module", "list", "--config-dir", where]) == 0
    listing = capsys.readouterr().out.splitlines()
    assert listing[1].split() == ["pg", "mirror", "node1", "node2", "5600", "/srv/pg", "192.0.2.100/24", "-"]
    assert run(["config", "show", "--json", "--config-dir", where]) == 0
    assert json.loads(capsys.readouterr().out)["modules"]["pg"]["replicated"] == [
        {"directory": "/srv/pg", "exclude": [], "only": [], "require": []}
    ]
    assert run(["config", "show", "--config-dir", where]) == 0
    assert "modules.pg.replicated[1].directory = /srv/pg\n" in capsys.readouterr().out


def test_config_check_lists_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = config(tmp_path, 'bot = "on"\n[[replicated]]\ndirectory = "srv"\n')
    assert run(["config", "check", "--config-dir", where]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f"{where}/modules/pg.toml: 2 problems",
        '  line 1  bot                      is not a key that is known here. Did you mean "boot"?',
        '  line 3  replicated[1].directory  "srv" is not an absolute path.',
        "Nothing was applied.",
    ]
    assert run(["config", "check", "--json", "--config-dir", where]) == 3
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert [problem["line"] for problem in problems] == [1, 3]


def test_the_command_itself(tmp_path: Path) -> None:
    """As a process: nothing slow is imported for a status, and no traceback is shown."""
    code = "import sys; from orchestrator.hactl.cli import run; run(sys.argv[1:]); print(*sys.modules)"
    words = [sys.executable, "-c", code, "--socket", str(tmp_path / "none"), "status"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr.count("\n") == 1
    slow = {"rich", "pydantic", "trio", "psutil", "h11", "http.client", "email", "ssl", "asyncio", "difflib", "cryptography", "msgpack"}
    loaded = set(done.stdout.split())
    assert not slow & loaded
    ours = {name for name in loaded if name.startswith(("orchestrator.", "rfs."))}
    allowed = ("api", "api.client", "defaults", "exit_codes", "hactl", "hactl.cli", "hactl.output", "hactl.session", "hactl.status_command",
               "hactl.status_view", "sentence", "units")  # fmt: skip
    assert ours <= {*(f"orchestrator.{name}" for name in allowed), "rfs.exit_codes", "rfs.show"}


def test_a_new_cluster_that_cannot_be_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = ["--member", "node1,lan=192.0.2.11", "--member", "node2,lan=192.0.2.400"]
    assert run(["cluster", "init", "--name", "plant7", *members, "--config-dir", str(tmp_path)]) == 3
    assert "192.0.2.400" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


THREE_NODES = 'name = "plant7"\n' + "".join(
    f'[[node]]\nname = "node{number}"\naddresses = {{ lan = "192.0.2.1{number}" }}\n' for number in (1, 2, 3)
)
MIRROR = 'nodes = ["{0}", "node3"]\n[[replicated]]\ndirectory = "/srv/{1}"\n'


@pytest.mark.parametrize(
    ("node", "paired", "words", "peer"),
    [
        ("node1", (), (), "node3"),  # the only one that it shares a module with
        ("node3", ("node1",), (), "node2"),  # the only one that is not paired yet
        ("node3", (), ("--for", "node2"), "node2"),
        ("node1", (), ("--for", "node2"), "node2"),
    ],
)
def test_who_is_to_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: str, paired: tuple[str, ...], words: tuple[str, ...], peer: str
) -> None:
    three_nodes(tmp_path, monkeypatch, node, paired)
    invited: list[str] = []

    async def invite(session: object, config: object, node: str, peer: str, new_key: bool, acquaintance: object) -> None:
        invited.append(peer)
        raise SaidNo("enough")

    monkeypatch.setattr("orchestrator.hactl.cluster_commands._invite", invite)
    assert run(["cluster", "init", *words, "--config-dir", str(tmp_path)]) == 6
    assert invited == [peer]


def three_nodes(directory: Path, monkeypatch: pytest.MonkeyPatch, node: str, paired: tuple[str, ...]) -> None:
    (directory / "modules").mkdir()
    (directory / "cluster.toml").write_text(THREE_NODES)
    for name, primary in (("a", "node1"), ("b", "node2")):
        (directory / "modules" / f"{name}.toml").write_text(MIRROR.format(primary, name))
    monkeypatch.setenv("HACTL_NODE", node)
    keys = KeyStore(directory / "keys")
    keys.make(node)
    for other in paired:
        keys.pin(other, make_keys(directory, other).own().known.certificate)


def test_who_is_to_join_must_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    three_nodes(tmp_path, monkeypatch, "node3", ())
    assert run(["cluster", "init", "--config-dir", str(tmp_path)]) == 2
    assert "say which node is to join: --for node1 or --for node2" in capsys.readouterr().err
    assert run(["cluster", "init", "--for", "node9", "--config-dir", str(tmp_path)]) == 2
    assert "there is no other node node9 in this cluster; there is node1 and node2" in capsys.readouterr().err


def test_peers_that_did_not_answer_are_named(hactl: Hactl, hactld: FakeHactld) -> None:
    peers = [{"node": node, "silent": node != "node2", "networks": {"lan": "ok"}} for node in ("node2", "node3", "node4")]
    hactld.answers["/v1/status"] = [(200, {**STATUS, "partial": True, "peers": peers})]
    _, out, _ = hactl("status")
    assert [line for line in out.splitlines() if "did not answer" in line] == [
        "node3 did not answer: its line is what was last known.",
        "node4 did not answer: its line is what was last known.",
    ]


def test_a_history_of_all_nodes(hactl: Hactl, hactld: FakeHactld) -> None:
    peers = [{"node": node, "silent": False, "networks": {}} for node in ("node2", "node3")]
    hactld.answers["/v1/status"] = [(200, {**STATUS, "peers": peers})]
    hactld.answers["/v1/events"] = [(200, {"node": "node1", "events": [], "last": 0})]
    assert hactl("history", "-H", "all")[0] == 0
    assert [target.partition("node=")[2] for _, target, _ in hactld.asked if target.startswith("/v1/events")] == ["node1", "node2", "node3"]


def test_a_module_of_other_nodes(hactl: Hactl, hactld: FakeHactld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three_nodes(tmp_path, monkeypatch, "node1", ())
    code, _, err = hactl("swap", "b", "--config-dir", str(tmp_path))
    assert code == 2 and "module b does not run on node1 but on node2 and node3: ask there" in err
    assert "there is no module nothing; there is pg" in hactl("swap", "nothing", "--config-dir", str(tmp_path))[2]
    (tmp_path / "cluster.toml").write_text("name = 3")
    assert "there is no module b; there is pg" in hactl("swap", "b", "--config-dir", str(tmp_path))[2], "whatever the files say"


def test_who_was_not_told_of_a_new_key(hactl: Hactl, hactld: FakeHactld) -> None:
    rotated = [{"node": "node1", "pin": "a" * 64, "not_told": []}, {"node": "node3", "pin": "b" * 64, "not_told": ["node2", "node4"]}]
    hactld.answers["/v1/cluster/rotate-keys"] = [(200, {"rotated": rotated})]
    code, out, err = hactl("cluster", "rotate-keys", "-H", "all")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == ["node1", "node3"]
    assert err == "node2 and node4: no mirror module with node3, so not told; pair anew before there is one\n"


def test_only_the_peer_that_is_alive_is_not_forgotten(
    hactl: Hactl, hactld: FakeHactld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """node3 is dead and node2 is not: the one may be forgotten while it is shown as running, the other may not."""
    three_nodes(tmp_path, monkeypatch, "node1", ("node2", "node3"))
    peers = [{"node": node, "silent": node == "node3", "networks": {}} for node in ("node2", "node3")]
    modules = [{"name": name, "nodes": [{"node": node, "state": "SECOND"}]} for name, node in (("a", "node2"), ("b", "node3"))]
    hactld.answers["/v1/status"] = [(200, {**STATUS, "partial": True, "peers": peers, "modules": modules})]
    code, _, err = hactl("cluster", "forget", "node2", "--config-dir", str(tmp_path))
    assert code == 6 and "node2 is alive and takes part in a" in err
    code, out, _ = hactl("cluster", "forget", "node3", "--config-dir", str(tmp_path), "--json")
    assert code == 0 and check(json.loads(out)) == "hactl.answer/1" and "the keys of node3" in json.loads(out)["message"]


def test_the_witness(hactl: Hactl, hactld: FakeHactld) -> None:
    code, _, err = hactl("witness", "status")
    assert code == 1 and "no module here runs with a witness" in err
    held = {"generation": "9f", "term": 3, "owner": "0a"}
    shown = {"endpoints": ["http://192.0.2.21:2379"], "state": "ok", "reason": "", "armed": True, "register": held}
    hactld.answers["/v1/status"] = [(200, changed(rfs={"witness": shown}))]
    assert hactl("witness", "status")[1].splitlines() == [
        "MODULE  WITNESS  GRANT  TERM  FOR                     REASON",
        "pg      ok       9f     3     this node's generation  -",
    ]
    assert json.loads(hactl("witness", "status", "--json")[1]) == [{"module": "pg", "node": "node1", **shown, "generation": "9f"}]
    away = {**shown, "state": "unreachable", "register": None, "reason": "Connection refused"}
    hactld.answers["/v1/status"] = [(200, changed(rfs={"witness": away}))]
    assert hactl("witness", "status", "-o", "plain")[1] == "pg\tunreachable\t-\t-\t-\tConnection refused\n"


# ---- at a terminal ---------------------------------------------------------------------------------------------------------------------


def at_a_terminal(hactld: FakeHactld, answer: str, *words: str) -> tuple[int, str]:
    """hactl as a process on a pseudo-terminal, in which somebody types `answer`."""
    code = f"import sys; from orchestrator.hactl.cli import run; sys.exit(run(['--socket', {str(hactld.path)!r}, *{list(words)!r}]))"
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        os.write(ours, answer.encode())
        said = b""
        with contextlib.suppress(OSError):  # EIO: its end of the terminal is closed
            while piece := os.read(ours, 4096):
                said += piece
        os.close(ours)
        return process.wait(30), said.decode().replace("\r\n", "\n")


@pytest.fixture
def moving(hactld: FakeHactld) -> FakeHactld:
    for verb in ("swap", "stop", "prim", "second"):
        hactld.answers[f"/v1/modules/pg/{verb}"] = [(200, {"code": 0, "message": f"{verb} it is", "results": []})]
    return hactld


def asked_for(hactld: FakeHactld) -> list[str]:
    return [target for method, target, _ in hactld.asked if method == "POST"]


def test_a_swap_shows_how_things_stand_and_asks(moving: FakeHactld) -> None:
    code, said = at_a_terminal(moving, "n\n", "swap", "pg")
    assert code == 1 and asked_for(moving) == []
    assert "pg      node1  " in said and "pg moves from node1 to node2" in said and said.endswith("nothing was done\n")
    code, said = at_a_terminal(moving, "y\n", "swap", "pg")
    assert code == 0 and asked_for(moving) == ["/v1/modules/pg/swap"] and "accepted, not finished" in said
    assert at_a_terminal(moving, "", "swap", "pg", "--yes")[0] == 0


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        (("prim", "pg", "--force"), "What the other node wrote and this one lacks will not be served."),
        (("stop", "pg", "-H", "all"), "Nobody serves pg afterwards"),
        (("swap", "pg", "--nosync"), "newer data stay here until you decide"),
        (("second", "pg", "--fullsync"), "The files of this node are moved to kept/"),
    ],
)
def test_what_is_dangerous_is_said_by_the_modules_name(moving: FakeHactld, words: tuple[str, ...], warning: str) -> None:
    code, said = at_a_terminal(moving, "y\n", *words)
    assert code == 1 and asked_for(moving) == [] and warning in said and "Type the module's name to go on" in said
    code, _ = at_a_terminal(moving, "pg\n", *words)
    assert code == 0 and len(asked_for(moving)) == 1


def lines_of(**states: str) -> dict[str, Any]:
    """The status with these states, all Ready but STOP."""
    document = copy.deepcopy(STATUS)
    for line in document["modules"][0]["nodes"]:
        state = states[line["node"]]
        line.update(state=state, readiness="NotReady" if state == "STOP" else "Ready")
    return document


@pytest.mark.parametrize(
    ("here", "states", "words", "question"),
    [
        ("node1", {"node1": "PRIM", "node2": "SECOND"}, (), "pg is stopped on node1; node2 takes over. Go on?"),
        ("node2", {"node1": "PRIM", "node2": "SECOND"}, (), "pg is stopped on node2; node1 goes on serving, and no other node could"),
        ("node1", {"node1": "PRIM", "node2": "SECOND"}, ("-H", "node2"), "pg is stopped on node2; node1 goes on serving"),
        ("node2", {"node1": "PRIM", "node2": "SECOND"}, ("-H", "node1"), "pg is stopped on node1; node2 takes over. Go on?"),
        ("node2", {"node1": "ALONE", "node2": "STOP"}, (), "pg is stopped on node2; node1 goes on serving"),
        ("node1", {"node1": "STOP", "node2": "STOP"}, (), "pg is stopped on node1; nothing serves there. Go on?"),
        ("node1", {"node1": "ALONE", "node2": "STOP"}, (), "Nobody serves pg afterwards"),
        ("node2", {"node1": "ALONE", "node2": "STOP"}, ("-H", "node1"), "Nobody serves pg afterwards"),
    ],
)
def test_a_stop_asks_about_the_node_that_it_stops(
    moving: FakeHactld, here: str, states: dict[str, str], words: tuple[str, ...], question: str
) -> None:
    moving.answers["/v1/status"] = [(200, lines_of(**states) | {"node": here})]
    code, said = at_a_terminal(moving, "n\n", "stop", "pg", *words)
    assert code == 1 and asked_for(moving) == [] and question in said, said


@pytest.mark.parametrize("words", [("prim", "pg"), ("prim", "pg", "--force"), ("second", "pg", "--fullsync"), ("swap", "pg")], ids=" ".join)
def test_what_is_said_to_one_node_is_not_said_to_all(hactl: Hactl, moving: FakeHactld, words: tuple[str, ...]) -> None:
    code, out, err = hactl(*words, "-H", "all")
    assert (code, out, asked_for(moving)) == (2, "", []) and "name it with -H NODE" in err


@pytest.mark.parametrize(
    "words",
    [
        ("module", "add", "light", "--service", "x"), ("module", "remove", "pg"), ("module", "install", "x"), ("module", "package", "pg"),
        ("module", "show", "pg"), ("module", "list"), ("cluster", "forget", "node2"), ("cluster", "init"), ("cluster", "show"),
        ("cluster", "join", "x@192.0.2.1"), ("config", "edit"), ("config", "check"), ("config", "show"), ("config", "schema"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_files_of_another_node_are_not_ours(hactl: Hactl, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HACTL_NODE", "node1")
    monkeypatch.setenv("VISUAL", "true")
    (tmp_path / "cluster.toml").write_text(CLUSTER)
    for place, node in ((words, "node2"), (words, "all")):
        code, out, err = hactl("--config-dir", str(tmp_path), *place, "-H", node, "--timeout", "1ms")
        assert (code, out) == (2, "") and f"run it on {'each node' if node == 'all' else node}" in err, err
    assert hactl("-H", "node2", "--config-dir", str(tmp_path), "--timeout", "1ms", *words)[0] == 2, "before the command as well"


def test_this_nodes_own_name_is_no_other_node(hactl: Hactl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HACTL_NODE", "node1")
    (tmp_path / "cluster.toml").write_text(CLUSTER)
    assert hactl("--config-dir", str(tmp_path), "config", "check", "-H", "node1")[0] == 0


@pytest.mark.parametrize("words", [["config", "schema"], ["--help"], ["explain", "PRIM"]], ids=" ".join)
def test_a_reader_that_has_seen_enough_is_no_failure(words: list[str]) -> None:
    code = f"from orchestrator.hactl.cli import main; main({words!r})"
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run([sys.executable, "-c", code], stdout=theirs, stderr=subprocess.PIPE, timeout=30, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", [("resync", "--full"), ("verify",), ("verify", "--repair")], ids=" ".join)
def test_a_dry_run_has_a_document_for_programs(hactl: Hactl, moving: FakeHactld, words: tuple[str, ...]) -> None:
    code, out, _ = hactl(*words, "--dry-run", "--json")
    assert code == 0 and check(json.loads(out)) == "hactl.answer/1" and json.loads(out)["message"].startswith("would ")
    assert asked_for(moving) == []


def test_a_script_is_not_asked(hactl: Hactl, moving: FakeHactld) -> None:
    assert hactl("stop", "pg", "-H", "all")[0] == 0 and asked_for(moving) == ["/v1/modules/pg/stop?node=all"]


def test_a_dry_run_asks_the_rules_and_changes_nothing(hactl: Hactl, moving: FakeHactld) -> None:
    imagined = {"schema": "hactl.simulate/1", "node": "node1", "module": "pg", "what": "swap", "state": "SECOND", "readiness": "Ready",
                "reason": "", "moments": [{"after_s": 0.0, "kind": "order", "text": "stop the services"}]}  # fmt: skip
    moving.answers["/v1/modules/pg/simulate"] = [(200, imagined)]
    moves = (("swap",), ("stop",), ("prim", "--force"), ("second", "--fullsync"), ("start",))
    for words in (*moves, ("pause",), ("checkers", "off"), ("boot", "on")):
        code, out, _ = hactl(*words, "--dry-run")
        assert code == 0 and "stop the services" in out, words
    assert asked_for(moving) == []
    assert any("what=prim&node=node1&options=force" in target for _, target, _ in moving.asked)
    code, _, err = hactl("drill", "--dry-run")
    assert code == 2 and "'hactl drill' has no --dry-run: nothing was done" in err


# ---- a watch, and what the shell completes -----------------------------------------------------------------------------------------------


def test_a_number_after_w_is_how_often() -> None:
    from orchestrator.hactl.status_command import status

    typed = ((["-w", "5"], 5.0, None), (["-w", "pg"], 2.0, "pg"), (["pg", "-w", "0.5"], 0.5, "pg"), (["-w"], 2.0, None))
    for words, interval, module in typed:
        parsed = status.make_context("status", words).params
        assert (parsed["watch"], parsed["interval"], parsed["module"]) == (True, interval, module)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, hactld: FakeHactld, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_HACTL_COMPLETE" in script and "hactl" in script
    environment = {**os.environ, "_HACTL_COMPLETE": f"{shell}_complete", "HACTL_SOCKET": str(hactld.path)}
    words = {"bash": {"COMP_WORDS": "hactl swap p", "COMP_CWORD": "2"}, "zsh": {"COMP_WORDS": "hactl swap p", "COMP_CWORD": "2"},
             "fish": {"COMP_WORDS": "hactl swap p", "COMP_CWORD": "p"}}[shell]  # fmt: skip
    code = "from orchestrator.hactl.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment | words, timeout=30, check=False)
    assert "pg" in done.stdout, (done.stdout, done.stderr)


def test_nagios_without_a_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--socket", str(tmp_path / "none"), "status", "--nagios"]) == 3
    assert capsys.readouterr().out.startswith("LOCKSTEP UNKNOWN - hactld is not running")


def test_events_are_filtered(hactl: Hactl, hactld: FakeHactld) -> None:
    def event(number: int, module: str, kind: str, age_s: float) -> dict[str, Any]:
        wall_s = time.time() - age_s
        return {"number": number, "time": "", "wall_s": wall_s, "node": "node1", "module": module, "kind": kind, "text": f"number {number}"}

    events = [event(1, "pg", "transition", 7200), event(2, "pg", "transition", 60), event(3, "web", "transition", 50)]
    events.append(event(4, "pg", "command", 40))
    hactld.answers["/v1/events"] = [(200, {"node": "node1", "events": events, "last": 4})]

    def numbers(*words: str) -> list[int]:
        return [json.loads(line)["number"] for line in hactl("events", "-o", "jsonl", *words)[1].splitlines()]

    assert numbers() == [1, 2, 3, 4] and numbers("--since", "1h") == [2, 3, 4]
    assert numbers("--filter", "module=pg,kind=transition") == [1, 2]
    assert numbers("--filter", "kind=command", "--filter", "kind=transition", "--filter", "module=web") == [3]
    assert hactl("events", "--filter", "colour=red")[0] == 2


def work(state: str, percent: float) -> dict[str, Any]:
    progress = {"percent_done": percent, "bytes_done": int(percent) << 20, "total_bytes": 100 << 20, "files_done": 1, "total_files": 4,
                "seconds_remaining": 12.0, "bytes_per_s": 1 << 20}  # fmt: skip
    result = {"equal": True, "differences": 0, "bytes_done": 100 << 20, "files_done": 4, "found": []} if state == "done" else {}
    running = {"number": 1, "verb": "verify", "who": "root on node1", "state": state, "seconds": 3.0, "progress": progress, "code": 0}
    message = "both copies are equal" if state == "done" else ""
    return {"schema": "hactl.work/1", "node": "node1", "module": "pg", "work": {**running, "message": message, "result": result}}


@pytest.fixture
def verifying(hactld: FakeHactld) -> FakeHactld:
    hactld.answers["/v1/modules/pg/verify"] = [(200, work("running", 0.0))]
    hactld.answers["/v1/modules/pg/work"] = [(200, work("running", 43.0)), (200, work("running", 87.0)), (200, work("done", 100.0))]
    return hactld


def test_long_work_shows_a_bar_at_a_terminal(verifying: FakeHactld) -> None:
    code, said = at_a_terminal(verifying, "", "verify", "pg")
    assert code == 0 and "43 %, 43.0 MiB of 100.0 MiB, 1 of 4 files, 1.0 MiB/s, 12s left" in said
    assert said.rstrip().splitlines()[-1].endswith("pg: both copies are equal (4 files and 100.0 MiB compared in 3 s)")
    assert "Traceback" not in said


def test_long_work_is_quiet_in_a_log_and_lines_for_a_program(
    hactl: Hactl, verifying: FakeHactld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.hactl.data_commands.LOOK_S", 0.0)
    monkeypatch.setattr("orchestrator.hactl.progress.JSON_EVERY_S", 0.0)
    lines = [json.loads(line) for line in hactl("verify", "--json")[1].splitlines()]
    assert [line["message_type"] for line in lines] == ["status", "status", "summary"]
    assert lines[0]["percent_done"] == 43.0 and lines[0]["seconds_remaining"] == 12.0 and lines[-1]["result"]["equal"] is True
    assert {check(line) for line in lines} == {"hactl.progress/1", "hactl.summary/1"}
    verifying.answers["/v1/modules/pg/work"] = [(200, work("running", 43.0)), (200, work("done", 100.0))]
    assert hactl("verify")[2] == "", "the first line comes after a minute"
    monkeypatch.setattr("orchestrator.hactl.progress.LINE_EVERY_S", 0.0)
    verifying.answers["/v1/modules/pg/work"] = [(200, work("running", 43.0)), (200, work("done", 100.0))]
    assert hactl("verify")[2] == "verify pg: 43 %, 43.0 MiB of 100.0 MiB, 1 of 4 files, 1.0 MiB/s, 12s left\n"


def test_a_daemon_that_has_forgotten_the_work(hactl: Hactl, verifying: FakeHactld) -> None:
    verifying.answers["/v1/modules/pg/work"] = [(200, {**work("running", 1.0), "work": None})]
    code, _, err = hactl("verify")
    assert code == 1 and "hactld was restarted and does not know what became of it" in err
