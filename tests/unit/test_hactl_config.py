"""`hactl config …` and `module open|close` against a real socket, real keepers and real files: what people read, and what programs do.

What they print stands in tests/golden/config_commands.txt; `LOCKSTEP_GOLDEN=write` writes it anew. JSON is held to its schema.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import trio

from orchestrator.api.config_calls import ConfigCalls
from orchestrator.api.maintenance import Maintenance
from orchestrator.api.routes import Routes
from orchestrator.api.server import ApiServer
from orchestrator.core.states import Hold, State
from orchestrator.hactl.cli import run
from orchestrator.paths import Paths
from tests.unit.schemas import check
from tests.unit.test_api_routes import CONFIG, FakePeer, make_routes
from tests.unit.test_config_rounds import World

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "config_commands.txt"
TEXT, COUNT, TRUTH = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}


def table(**fields: Any) -> dict[str, Any]:
    """An object with exactly these fields."""
    return {"type": "object", "properties": fields, "required": sorted(fields), "additionalProperties": False}


def rows(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def maybe(of: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [of, {"type": "null"}]}


GENERATION = {
    "number": {"type": "integer", "minimum": 1}, "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"}, "base": TEXT,
    "transaction": TEXT, "who": TEXT, "wall_s": {"type": "number"}, "comment": TEXT,
}  # fmt: skip
EFFECT = {"enum": ["live", "next-start", "stopped"]}
CHANGE = table(module=TEXT, key=TEXT, before={}, after={}, effect=EFFECT, stops=rows(TEXT))
PROBLEM = table(file=TEXT, line=maybe(COUNT), key=TEXT, text=TEXT)
SCHEMAS = {
    "hactl.config-state/1": table(
        schema=TEXT, node=TEXT, directory=TEXT, applied=table(**GENERATION), files=table(digest=TEXT, applied=TRUTH), running=TRUTH,
        promised=maybe(table(coordinator=TEXT, transaction=TEXT)),
        peers=rows(table(node=TEXT, answers=TRUTH, relation=maybe(TEXT), applied=maybe(table(**GENERATION)), reason=TEXT)),
    ),
    "hactl.config-history/1": table(schema=TEXT, node=TEXT, generations=rows(table(**GENERATION, applied=TRUTH))),
    "hactl.config-diff/1": table(
        schema=TEXT, node=TEXT, **{"from": TEXT}, to=TEXT, digest=TEXT, equal=TRUTH, problems=rows(PROBLEM), changes=rows(CHANGE),
        files=rows(table(file=TEXT, kind={"enum": ["added", "removed", "changed", "mode"]}, lines=rows(TEXT))),
        running={"type": "object", "additionalProperties": TEXT},
    ),
    "hactl.config-apply/1": table(
        schema=TEXT, code=COUNT, message=TEXT, generation=maybe(COUNT), changes=rows(CHANGE),
        nodes=rows(table(node=TEXT, result={"enum": ["applied", "later", "agrees"]}, text=TEXT)),
    ),
    "hactl.config/1": table(schema=TEXT, valid=TRUTH, problems=rows(PROBLEM)),
}  # fmt: skip


class Daemon:
    """Two nodes in one thread: node1 answers on a socket, and goes on with what is applied as hactld does."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path, self.socket = tmp_path, tmp_path / "hactld.sock"
        self.world = World(tmp_path)
        self.up = threading.Event()
        self.token: trio.lowlevel.TrioToken | None = None
        self.over: trio.Event | None = None
        self.routes: Routes

    async def serve(self) -> None:
        self.routes = make_routes(FakePeer({}), self.tmp_path)
        await self.world.boot()
        self.token, self.over = trio.lowlevel.current_trio_token(), trio.Event()
        self._connect()
        paths = Paths(self.tmp_path)
        maintenance = Maintenance({"pg": CONFIG}, paths, self.routes.here.runner_of)
        self.routes.here.maintenance = maintenance
        async with trio.open_nursery() as nursery:
            for side in self.routes.here.sides:
                nursery.start_soon(side.runner.run)
            nursery.start_soon(self._go_on)
            await nursery.start(ApiServer(self.socket, self.routes.route).run)
            self.up.set()
            await self.over.wait()
            nursery.cancel_scope.cancel()

    def _connect(self) -> None:
        self.routes.here.config = ConfigCalls(self.world.places["node1"].alive)

    async def _go_on(self) -> None:
        """What daemon.py does when a configuration was applied."""
        while True:
            await self.world.places["node1"].alive.hand_over()
            for place in self.world.places.values():
                await place.boot()
            self._connect()

    def ask(self, function: Callable[[], Any]) -> Any:
        """In the daemon's thread."""
        return trio.from_thread.run_sync(function, trio_token=self.token)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    thread = threading.Thread(target=trio.run, args=(made.serve,))
    thread.start()
    assert made.up.wait(20)
    yield made
    assert made.over is not None
    made.ask(made.over.set)
    thread.join()


Hactl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hactl(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> Hactl:
    def call(*words: str) -> tuple[int, str, str]:
        code = run(["--socket", str(daemon.socket), *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def document(answer: tuple[int, str, str]) -> dict[str, Any]:
    """A JSON answer that is what its schema says."""
    found: dict[str, Any] = json.loads(answer[1])
    jsonschema.validate(found, SCHEMAS[found["schema"]])  # these fields and no others
    check(found)  # and what is promised
    return found


def steady(text: str, daemon: Daemon) -> str:
    """Without what is different each time."""
    text = text.replace(str(daemon.tmp_path), "/TMP")
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "2026-11-26 12:00:00", text)
    return re.sub(r"\b[0-9a-f]{12}\b", "0123456789ab", text)


def test_what_people_read(daemon: Daemon, hactl: Hactl) -> None:
    transcript: list[str] = []

    def say(*words: str) -> None:
        code, out, err = hactl(*words)
        shown = " ".join(f"'{word}'" if " " in word else word for word in words)
        transcript.append(steady(f"$ hactl {shown}\n{out}{err}[{code}]\n", daemon))

    world, one = daemon.world, daemon.world.places["node1"]
    say("config", "diff")
    world.edit("node1")
    world.edit("node1", "[[vip]]", '[[vip]]\naddress = "192.0.2.101/24"\n[[vip]]')
    script = one.root / "etc/modules/pg/start_prim"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    say("config", "diff")
    say("config", "apply", "--yes", "--dry-run")
    say("config", "apply", "--yes", "--comment", "a second address")
    say("config", "history")
    world.edit("node1", 'replication_network = "repl"', 'replication_network = "lan"')
    one.facts.running["pg"] = "PRIM"
    say("config", "diff")
    say("config", "apply", "--yes")
    say("config", "rollback", "--yes", "1")
    say("config", "diff", "--peer")
    say("config", "diff", "--from", "2", "--to", "1")
    say("config", "diff", "--to", "77")
    world.edit("node1", 'boot = "on"', 'boot = "onn"\nmax_restart = "x"')
    say("config", "diff")
    say("config", "apply", "--yes")
    say("config", "rollback", "-H", "node2")
    daemon.world.places["node2"].keeper = None
    world.edit("node1", 'boot = "onn"\nmax_restart = "x"', 'boot = "auto"')
    world.edit("node1", 'replication_network = "lan"', 'replication_network = "repl"')
    say("config", "apply", "--yes")
    text = "\n".join(transcript)
    if os.environ.get("LOCKSTEP_GOLDEN") == "write":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_what_programs_read(daemon: Daemon, hactl: Hactl) -> None:
    same = document(hactl("config", "diff", "--json"))
    assert same["equal"] and same["changes"] == same["files"] == []
    new = daemon.world.edit("node1")
    code, *_ = answer = hactl("config", "diff", "--json")
    assert code == 1 and document(answer)["digest"] == new
    tried = document(hactl("config", "apply", "--json", "--dry-run"))
    assert tried["generation"] is None and tried["nodes"] == [{"node": "node2", "result": "agrees", "text": ""}]
    applied = document(hactl("config", "apply", "--json", "--yes", "--comment", "x"))
    assert (applied["code"], applied["generation"]) == (0, 2)
    assert [change["key"] for change in applied["changes"]] == ["boot"]
    history = document(hactl("config", "history", "--json"))
    assert [(entry["number"], entry["applied"], entry["comment"]) for entry in history["generations"]][-1] == (2, True, "x")
    assert history["generations"][-1]["who"].endswith("on node1")
    state = document((0, json.dumps(daemon.ask(daemon.routes.here.configuration._state)), ""))
    assert state["applied"]["digest"] == new and state["files"] == {"digest": new, "applied": True}
    daemon.world.edit("node1", 'boot = "on"', 'boot = "onn"')
    code, *_ = answer = hactl("config", "apply", "--json", "--yes")
    assert code == 3 and document(answer)["problems"][0]["key"] == "boot"
    refused = hactl("config", "diff", "--json", "--from", "99")
    assert refused[0] == 2 and refused[2].startswith("hactl: there is no generation 99")


def test_edit_checks_shows_and_applies(daemon: Daemon, hactl: Hactl, monkeypatch: pytest.MonkeyPatch) -> None:
    where = ("--config-dir", str(daemon.tmp_path / "node1/etc"))
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "sed -i 's/5 per 1h/6 per 1h/'")
    code, out, err = hactl("config", "edit", "pg", "--yes", *where)
    assert code == 0 and "5 per 1h → 6 per 1h" in out and "generation 2 is applied" in err
    monkeypatch.setenv("EDITOR", "sed -i 's/6 per 1h/often/'")
    code, _, err = hactl("config", "edit", "pg", "--yes", *where)
    assert code == 3 and '"often" is not a limit of restarts' in err
    monkeypatch.setenv("EDITOR", "false")
    assert hactl("config", "edit", "pg", *where)[0] == 1
    monkeypatch.setenv("EDITOR", "/nowhere/editor")
    assert "EDITOR=" in hactl("config", "edit", "pg", *where)[2]
    assert hactl("config", "edit", "nothing", *where)[0] == 2


def test_show_prints_toml_that_means_the_same_and_nobody_else_does(daemon: Daemon, hactl: Hactl) -> None:
    import tomllib

    code, out, _ = hactl("config", "show", "-o", "toml", "--config-dir", str(daemon.tmp_path / "node1/etc"))
    cluster, module = out.split("# modules/pg.toml\n")
    assert code == 0 and tomllib.loads(cluster)["name"] == "plant7" and tomllib.loads(module)["port"] == 5600
    code, _, err = hactl("status", "-o", "toml")
    assert code == 2 and "only 'hactl config show' prints TOML" in err


def test_schema(hactl: Hactl) -> None:
    both = json.loads(hactl("config", "schema")[1])
    assert set(both) == {"cluster", "module"}
    assert json.loads(hactl("config", "schema", "module")[1]) == both["module"]
    assert hactl("config", "schema", "--markdown")[1].startswith("# Every key of the configuration")
    assert hactl("config", "schema", "farm")[0] == 2


def test_open_is_for_stopped_modules_and_keeps_them_from_starting(daemon: Daemon, hactl: Hactl) -> None:
    runner = daemon.routes.here.runner_of("pg")
    code, _, err = hactl("module", "open", "pg")
    assert code == 6 and "mirrors no directory" in err
    from dataclasses import replace

    from orchestrator.config import ReplicatedConfig

    assert daemon.routes.here.maintenance is not None
    config = replace(CONFIG, replicated=(ReplicatedConfig("/srv/pg"),))
    daemon.routes.here.maintenance.configs = {"pg": config}
    code, _, err = hactl("module", "open", "pg")
    assert code == 6 and "pg is PRIM here: hactl stop pg, then open it" in err

    def stopped() -> None:
        module = runner.node.modules["pg"]
        quiet = replace(module, shown=(State.STOP, module.shown[1]), wanted=False, rfs=Hold.OFF, services=Hold.OFF, address=Hold.OFF)
        runner.node = replace(runner.node, modules={**runner.node.modules, "pg": quiet})

    daemon.ask(stopped)
    code, _, err = hactl("module", "open", "pg")
    assert code == 0 and "/srv/pg may be changed" in err
    assert [warning["code"] for warning in daemon.routes.here.maintenance.warnings()] == ["MODULE_OPEN"]
    for verb in ("start", "prim", "second"):
        code, _, err = hactl(verb, "pg")
        assert code == 6 and "hactl module close pg" in err
    assert hactl("module", "close", "pg")[0] == 0
    assert daemon.routes.here.maintenance.warnings() == [] and "is not open" in hactl("module", "close", "pg")[2]


def test_a_module_that_a_configuration_needs_stopped_does_not_start_meanwhile(daemon: Daemon, hactl: Hactl) -> None:
    daemon.world.places["node1"].alive.holding["t"] = ("pg",)
    code, _, err = hactl("start", "pg")
    assert code == 6 and "is being applied" in err
