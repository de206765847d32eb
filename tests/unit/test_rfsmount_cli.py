"""The command line of rfsmount: refusals are one sentence on stderr with the documented exit code."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rfs import cli, exit_codes

PAIR = ["--listen", "127.0.0.1:7101", "--peer", "127.0.0.1:7102"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code, and what was said on stderr."""
    try:
        code = cli.main(list(arguments))
    except SystemExit as ended:
        assert isinstance(ended.code, int)
        code = ended.code
    return code, capsys.readouterr().err


def one_sentence(text: str) -> bool:
    return text.endswith("\n") and text.count("\n") == 1


def test_insecure_must_be_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    code, text = run(capsys, "mount", str(data), "--state", str(tmp_path / "s"), "--role", "primary", *PAIR)
    assert code == exit_codes.CONFIGURATION_INVALID
    assert "rfsmount keys init" in text and "--insecure" in text and one_sentence(text)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("words", ["status", "stats", "promote", "demote", "discard", "unmount", "verify", "diff", "resolve --keep here"])
def test_nobody_there(capsys: pytest.CaptureFixture[str], tmp_path: Path, words: str) -> None:
    code, text = run(capsys, *words.split(), "--state", str(tmp_path))
    assert code == exit_codes.DAEMON_NOT_REACHABLE
    assert "no rfsmount answers" in text and one_sentence(text)


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "mount", "/x", "--role", "king")
    assert code == exit_codes.USAGE and one_sentence(text)
    code, text = run(capsys)
    assert code == exit_codes.USAGE and one_sentence(text)


@pytest.mark.parametrize(
    ("directories", "more", "sentence"),
    [
        (["{tmp}/missing"], [], "does not exist"),
        (["/etc"], [], "system tree"),
        (["{tmp}/a", "{tmp}/a"], [], "given twice"),
        (["{tmp}/a"], ["--peer", "nowhere"], "--peer nowhere"),
        (["{tmp}/a"], ["--listen", "127.0.0.1:99999"], "is no port"),
        (["{tmp}/a"], ["--module", "x" * 100], "--module"),
        (["{tmp}/a"], ["--require", "PG_VERSION"], "'PG_VERSION' is missing"),
    ],
)
def test_refused_before_anything_is_mounted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, directories: list[str], more: list[str], sentence: str
) -> None:
    (tmp_path / "a").mkdir()
    named = [directory.format(tmp=tmp_path) for directory in directories]
    options = ["--state", str(tmp_path / "s"), "--role", "primary", "--insecure", "--foreground", *PAIR, *more]
    finished = subprocess.run(
        [sys.executable, "-m", "rfs.cli", "mount", *named, *options], capture_output=True, text=True, timeout=30, check=False
    )
    said = [line for line in finished.stderr.splitlines() if line.startswith("rfsmount: ")]
    assert finished.returncode == exit_codes.CONFIGURATION_INVALID, finished.stderr
    assert len(said) == 1 and sentence in said[0], finished.stderr


def test_an_address_in_use(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        options = ["--state", str(tmp_path / "s"), "--role", "primary", "--insecure", "--listen", listen, "--peer", "127.0.0.1:7102"]
        finished = subprocess.run(
            [sys.executable, "-m", "rfs.cli", "mount", str(tmp_path / "a"), *options],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert finished.returncode == exit_codes.CONFIGURATION_INVALID
    assert "address is in use" in finished.stderr and one_sentence(finished.stderr)


def test_status_imports_nothing_slow() -> None:
    code = "import sys; import rfs.cli, rfs.control.blocking, rfs.show; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"trio", "pydantic", "rich", "click", "pyfuse3"} & set(loaded)


def test_a_status_for_a_person() -> None:
    from rfs.show import render_statistics, render_status

    status = {
        "module": "pg", "node": "node1", "role": "primary", "link": "resyncing", "data": "UPTODATE", "code": "RESYNCING",
        "reason": "resyncing to node2: redundancy is back when it is finished", "generation": "9f3c61d0a2b47e15", "term": 3, "seq": 8,
        "acked_seq": 8, "directories": [{"path": "/srv/pg", "mounted": True}],
        "peer": {"node": "node2", "data": "INCONSISTENT", "rtt_us": 71},
        "last_heard_s": 0.2, "needs_grant": False, "promotable": False, "promotable_reason": "", "insecure": True,
        "resync": {"direction": "to-peer", "percent_done": 40.0, "bytes_done": 4 << 20, "total_bytes": 10 << 20, "files_done": 3,
                   "total_files": 9, "seconds_remaining": 2.0, "bytes_per_s": 3 << 20},
    }  # fmt: skip
    lines = render_status(status).splitlines()
    assert lines[0] == "pg on node1: PRIMARY, link resyncing, data UPTODATE"
    assert "resync to-peer: 40.0 %, 4.0 MiB of 10.0 MiB, 3 of 9 files, about 2 s left" in lines[2]
    assert any("neither encrypted nor authenticated" in line for line in lines)
    assert "writes  7" in render_statistics({"schema": "x", "writes": 7})
