"""`safekit` as scripts call it: a real process, hactld's real socket, the real core behind it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from orchestrator import shim
from orchestrator.api.routes import Routes
from orchestrator.api.server import ApiServer
from orchestrator.core import events as ev
from orchestrator.paths import Paths
from tests.unit.test_api_routes import FakePeer, make_routes

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hactld's socket is root's")


@dataclass
class Shell:
    """A script's view."""

    routes: Routes
    paths: Paths

    async def __call__(self, *words: str, module: str = "pg") -> tuple[int, str]:
        """Exit code and what was printed."""
        command = [str(self.paths.shim / "safekit"), *words]
        environment = {"PATH": os.environ["PATH"], "SAFE": str(self.paths.shim), **({"SAFEMODULE": module} if module else {})}
        done = await trio.run_process(command, check=False, capture_stdout=True, stderr=subprocess.STDOUT, env=environment)
        return done.returncode, done.stdout.decode().strip()

    def history(self) -> list[tuple[str, str]]:
        return [(line.kind, line.text) for line in self.routes.here.history.after(0)]


@pytest.fixture
async def shell(nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Shell]:
    paths = Paths(tmp_path)
    paths.make()
    shim.lay(paths)
    routes = make_routes(FakePeer({}), tmp_path)
    nursery.start_soon(routes.here.sides[0].runner.run)
    await nursery.start(ApiServer(paths.socket, routes.route).run)
    yield Shell(routes, paths)
    nursery.cancel_scope.cancel()


async def test_lines_for_the_history(shell: Shell) -> None:
    assert await shell("printi", "all", "is well") == (0, "")
    assert await shell("printe", "it is not") == (0, "")
    assert shell.history()[-2:] == [("script-says", "all is well"), ("script-error", "it is not")]


async def test_counting_failures(shell: Shell) -> None:
    assert await shell("checkloop") == (0, "")
    for _ in range(3):
        assert (await shell("incloop", "-i", "start_prim"))[0] == 0
    assert (await shell("incloop", "-i", "start_prim"))[0] == 1
    assert (await shell("checkloop", "-m", "pg", module=""))[0] == 1
    assert len(shell.routes.here.runner_of("pg").node.modules["pg"].restarts) == 4
    assert (await shell("resetloop"))[0] == 0
    assert (await shell("checkloop"))[0] == 0


async def test_the_state_as_text_and_as_exit_code(shell: Shell) -> None:
    assert await shell("waitstate", "ALONE") == (0, "")
    assert await shell("state") == (0, "ALONE (Ready)")
    assert await shell("state", "-lq") == (2, "")
    assert (await shell("waitstate", "BROKEN"))[0] == 2


async def test_commands_and_switches(shell: Shell) -> None:
    assert await shell("restart", "-i", "checker1") == (0, "")
    assert shell.routes.here.runner_of("pg").node.modules["pg"].restarts, "a checker's word counts"
    assert (await shell("errd", "off"))[0] == 0 and shell.routes.here.runner_of("pg").node.modules["pg"].unchecked
    assert (await shell("errd", "on"))[0] == 0 and not shell.routes.here.runner_of("pg").node.modules["pg"].unchecked
    assert (await shell("failover", "off"))[0] == 0 and shell.routes.here.runner_of("pg").node.modules["pg"].paused
    assert (await shell("swap"))[0] == 6, "the peer is not ready"
    assert (await shell("stop"))[0] == 0 and not shell.routes.here.runner_of("pg").node.modules["pg"].wanted


async def test_a_loop_says_how_its_resource_is(shell: Shell) -> None:
    runner = shell.routes.here.runner_of("pg")
    watched = replace(runner.node.modules["pg"], watched={"custom.queue": "pre", "custom.later": "second", "tcp.db": "prim"})
    runner.node = replace(runner.node, modules={"pg": watched})
    runner.deliver(ev.Tick(trio.current_time()))
    await runner.changed()
    assert await shell("set", "-r", "custom.queue", "-v", "down", "-i", "queuecheck") == (0, "")
    known = runner.node.modules["pg"].resources["custom.queue"]
    assert (known.state.value, known.text) == ("down", "said by queuecheck")
    assert await shell("set", "-r", "custom.queue", "-v", "up") == (0, "")
    assert runner.node.modules["pg"].resources["custom.queue"].state.value == "up"
    refused = await shell("set", "-r", "tcp.db", "-v", "up")
    assert refused[0] == 2 and "looked at by hactld itself" in refused[1]
    early = await shell("set", "-r", "custom.later", "-v", "up")
    assert early[0] == 6 and "is not looked at now" in early[1]


async def test_a_bounded_command(shell: Shell) -> None:
    assert await shell("boundcmd", "10", "echo", "done") == (0, "done")
    assert (await shell("boundcmd", "1", "sleep", "100"))[0] == 124
    assert (await shell("boundcmd", "soon", "true"))[0] == 2


@pytest.mark.parametrize(
    ("words", "module", "said"),
    [
        ((), "pg", "say what"),
        (("printi", "x"), "", "say which module"),
        (("get", "-r", "custom.x"), "pg", "is not served here"),
        (("set", "-r", "custom.x", "-v", "middling"), "pg", "-v up, or -v down"),
        (("set", "-r", "custom.x", "-v", "up"), "pg", "no checker custom.x"),
        (("restart", "-i"), "pg", "needs a word after it"),
        (("waitstart",), "no-such-module", "there is no module"),
    ],
)
async def test_what_is_not_served_is_refused(shell: Shell, words: tuple[str, ...], module: str, said: str) -> None:
    code, text = await shell(*words, module=module)
    assert code == 2 and said in text


async def test_without_hactld_it_says_so(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    shim.lay(paths)
    done = await trio.run_process(
        [str(paths.shim / "safekit"), "state"], check=False, capture_stderr=True, env={"SAFEMODULE": "pg", "PATH": os.environ["PATH"]}
    )
    assert done.returncode == 100 and b"hactld is not running" in done.stderr, "4 would be SECOND"
