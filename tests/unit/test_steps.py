"""The named steps: each one in the list stands at one place of the source, and a process dies or stops at the visit that was named."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from rfs.steps import STEPS

ROOT = Path(__file__).parents[2]
VISITS = """
from rfs.steps import reached
for _ in range(3):
    reached("state-sent")
    print("visited", flush=True)
"""


def places() -> list[str]:
    found = [name for path in (ROOT / "rfs").glob("*.py") for line in path.read_text().splitlines() if "reached(" in line
             for name in re.findall(r'"([a-z-]+)"', line) if "def reached" not in line]  # fmt: skip
    return found + [name for path in (ROOT / "csrc").glob("*.c") for name in re.findall(r'STEP\("([a-z-]+)"\)', path.read_text())]


def visit(path: Path, armed: str) -> subprocess.Popen[str]:
    path.write_text(armed)
    return subprocess.Popen(
        [sys.executable, "-c", VISITS], cwd=ROOT, env=os.environ | {"LOCKSTEP_STEPS": str(path)}, stdout=subprocess.PIPE, text=True
    )  # fmt: skip


def test_each_step_stands_at_one_place() -> None:
    assert sorted(places()) == sorted(STEPS)


def test_a_process_dies_at_the_visit_that_is_named(tmp_path: Path) -> None:
    with visit(tmp_path / "steps", "state-sent:kill:2") as process:
        said, _ = process.communicate(timeout=30)
    assert (process.returncode, said) == (-signal.SIGKILL, "visited\n")
    assert (tmp_path / "steps.visited").read_text() == "state-sent\n"


def test_a_process_stops_and_goes_on(tmp_path: Path) -> None:
    with visit(tmp_path / "steps", "state-sent:stop:1") as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=30)[0] == "visited\n" * 3


def test_other_steps_and_other_processes_go_on(tmp_path: Path) -> None:
    with visit(tmp_path / "steps", "verdict-sent:kill:1") as process:
        assert process.communicate(timeout=30)[0] == "visited\n" * 3
