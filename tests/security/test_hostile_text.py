"""Names, reasons, lines of logs: whoever made them may have meant them for the terminal, the log or the program of whoever looks."""

from __future__ import annotations

import ast
import io
import json
import logging
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api import schemas
from orchestrator.effects.notify import TEXT_CHARACTERS_MAX, History
from orchestrator.hactl.cli import run
from orchestrator.hactl.output import say
from rfs import divergence_command, keys_command, launch, show
from tests.unit.test_hactl_cli import FakeHactld, Hactl, hactl, hactld  # noqa: F401 - fixtures
from tests.unit.test_module_archive import entry, with_entries

ROOT = Path(__file__).resolve().parents[2]
FORGED = "node9  PRIM  up to date"
# A title for the terminal, colours, an 8-bit CSI, backspaces, a mark that turns the reading direction, a line of its own, a tab, halves.
HOSTILE = f"a\x1b]0;pwned\x07\x1b[8m\x9b2J\b\b\u202eevil\u2066\r\n{FORGED}\n\ttab\x7f\u2028\udce9"

Json = Any


def instance(schema: dict[str, Json]) -> Json:
    """A document of this shape whose every text is hostile."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return instance(schema["anyOf"][0])
    match schema.get("type"):
        case "object":
            made = dict.fromkeys(schema.get("required", ()), True) | {
                name: instance(value) for name, value in schema.get("properties", {}).items()
            }
            return made or ({HOSTILE: instance(schema["additionalProperties"])} if "additionalProperties" in schema else {})
        case "array":
            return [instance(schema["items"])] if "items" in schema else []
        case "integer" | "number":
            return 3
        case "boolean":
            return True
    return HOSTILE


RFS = {
    **dict.fromkeys(("module", "node", "role", "data", "link", "generation", "reason", "code", "ack", "promotable_reason"), HOSTILE),
    **dict.fromkeys(("term", "seq", "acked_seq", "marked_bytes", "hot_bytes", "last_heard_s"), 3),
    "peer": {"node": HOSTILE, "data": HOSTILE, "rtt_us": 120}, "resync": None, "needs_grant": False, "promotable": False, "insecure": True,
    "directories": [{"path": HOSTILE, "mounted": True, "exclude": [HOSTILE]}],
    "witness": {"state": HOSTILE, "endpoints": [HOSTILE], "reason": HOSTILE, "register": None},
}  # fmt: skip


def answer(name: str) -> Json:
    """What hactld, or a peer behind it, might say."""
    made = instance(schemas.schema(name))
    for module in made.get("modules", ()):
        if isinstance(module, dict):
            module |= {"name": "pg", "verdict": HOSTILE}
            for number, node in enumerate(module.get("nodes", ())):
                node |= {"node": f"node{number + 1}", "rfs": RFS} | dict.fromkeys(("state", "readiness", "service", "link"), HOSTILE)
                node["checkers"] = [dict.fromkeys(("resource", "state", "text"), HOSTILE) | {"since_s": 3}]
    if "rfs" in made:
        made["rfs"] = RFS
    return made


PATHS = {
    "/v1/status": "hactl.status/1",
    "/v1/events": "hactl.events/1",
    "/v1/modules/pg/why": "hactl.why/1",
    "/v1/modules/pg/simulate": "hactl.simulate/1",
    "/v1/modules/pg/logs": "hactl.log/1",
    "/v1/modules/pg/data": "hactl.data/1",
    "/v1/modules/pg/contents": "hactl.contents/1",
    "/v1/config": "hactl.config-state/1",
    "/v1/config/history": "hactl.config-history/1",
    "/v1/config/diff": "hactl.config-diff/1",
}
COMMANDS = (
    "", "status", "status --wide", "status --check", "data pg", "why pg", "simulate peer-dies pg", "events", "history", "logs pg",
    "logs pg --list", "checkers pg", "config history", "config diff", "start pg", "swap pg --yes", "verify pg --yes",
    "resolve pg --keep node1", "wait pg --for PRIM",
)  # fmt: skip


@pytest.fixture
def lying(hactld: FakeHactld) -> FakeHactld:  # noqa: F811
    known = {path: name for path, name in PATHS.items() if name in schemas.NAMES}
    assert len(known) >= 8, "the schemas have other names"
    hactld.answers |= {path: [(200, answer(name))] for path, name in known.items()}
    refusal = {"schema": "hactl.error/1", "code": 4, "message": HOSTILE}
    hactld.answers |= {f"/v1/modules/pg/{verb}": [(409, refusal)] for verb in ("start", "swap", "verify", "diff")}
    return hactld


def wrong_in(text: str, kept: str) -> list[str]:
    """What a terminal would not just show."""
    return [f"U+{ord(each):04X}" for each in text if each not in kept and (not each.isprintable() or unicodedata.category(each) == "Cf")]


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("form", ["table", "plain"])
def test_no_table_of_hactl_shows_it(words: str, form: str, lying: FakeHactld, hactl: Hactl) -> None:  # noqa: F811
    _, out, err = hactl(*words.split(), "-o", form, "--timeout", "200ms")
    assert out + err, "it says something"
    assert wrong_in(out + err, "\n\t" if form == "plain" or words == "logs pg" else "\n") == []
    assert FORGED not in (out + err).splitlines(), "no line of its own"
    assert not any(line.strip().startswith(FORGED) for line in (out + err).splitlines())


@pytest.mark.parametrize("words", ["status", "data pg", "why pg", "events", "logs pg", "config history", "checkers pg"])
def test_json_stays_json(words: str, lying: FakeHactld, hactl: Hactl) -> None:  # noqa: F811
    _, out, _ = hactl(*words.split(), "--json")
    assert wrong_in(out, "\n") == [] and out.isascii()
    assert HOSTILE.encode("utf-8", "replace").decode() in str(json.loads(out)).encode("utf-8", "replace").decode() or "pwned" in out


def test_no_option_is_hostile_enough(capsys: pytest.CaptureFixture[str]) -> None:
    """What somebody pastes comes back in the sentence that refuses it."""
    for words in (["status", HOSTILE], [HOSTILE], ["-o", HOSTILE], ["config", "check", "--config-dir", f"/nowhere/{HOSTILE}"]):
        assert run(words) != 0
        captured = capsys.readouterr()
        assert wrong_in(captured.out + captured.err, "\n\t") == []


def test_our_own_colours_stay_and_no_others(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda *_: False)  # as at a terminal
    say("\x1b[31mred\x1b[0m \x1b]0;title\x07", styled=True)
    assert capsys.readouterr().out == "\x1b[31mred\x1b[0m \\x1b]0;title\\x07\n"
    say("\x1b[31mred", styled=False)
    assert capsys.readouterr().out == "\\x1b[31mred\n"


DIFFERENCE = {"directory": 0, "path": HOSTILE, "where": "both", "what": ["content"], "ranges": [[0, 3]]}


def test_rfsmount_shows_none_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    show.say(show.render_status(RFS | {"role": HOSTILE}))
    show.say(show.render_witness(RFS["witness"]))  # type: ignore[arg-type]
    show.say(divergence_command._sentence(DIFFERENCE, ["/d"]))
    show.say_json({"text": HOSTILE})
    out = capsys.readouterr().out
    assert wrong_in(out, "\n") == [] and not any(line.strip().startswith(FORGED) for line in out.splitlines())
    assert json.loads(out.splitlines()[-1])["text"] == HOSTILE


def test_no_line_of_a_log_is_forged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """hactld's history and its files, rfsmount's log; mistakes of ours keep their lines."""
    history = History(tmp_path / "hactld.log", echo=True)
    history.add("pg", "script-says", HOSTILE, who=HOSTILE)
    history.add("pg", "script-says", "x" * 100_000)
    history.flush()
    texts = [(tmp_path / name).read_text() for name in ("hactld.log", "history.jsonl")] + [capsys.readouterr().err]
    for text in texts:
        assert wrong_in(text, "\n") == [] and len(text.splitlines()) == 2 and len(text) < 3 * TEXT_CHARACTERS_MAX
    assert len(History(tmp_path / "hactld.log").lines) == 2, "and it is read back"

    logged = io.StringIO()
    handler = logging.StreamHandler(logged)
    handler.setFormatter(launch.OneLine("%(levelname)s %(message)s"))
    logger = logging.Logger("of this test")
    logger.addHandler(handler)
    logger.warning("peer says %s", HOSTILE)
    try:
        raise ValueError("one line\x1b[2J")
    except ValueError:
        logger.exception("a mistake")
    text = logged.getvalue()
    assert wrong_in(text, "\n") == [] and text.splitlines()[1] == "ERROR a mistake" and "Traceback" in text


def test_a_package_cannot_speak_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "evil.tar.gz"
    file.write_bytes(with_entries((entry(f"scripts/{HOSTILE[:40]}"), b"x")))
    assert run(["module", "install", str(file)]) != 0
    captured = capsys.readouterr()
    assert wrong_in(captured.out + captured.err, "\n") == [] and "nothing was installed" in captured.err


# ---- there is one way to print ----------------------------------------------------------------------------------------------------------

# Where something is written past `say`: by it, by programs that are no commands of ours, and where a line is drawn over.
PAST_IT = {
    "rfs/show.py", "orchestrator/hactl/output.py", "orchestrator/manual.py", "orchestrator/messages.py", "rfs/decision_table.py",
    "orchestrator/checkers/beneath.py", "orchestrator/checkers/probe.py",
    "rfs/verify_command.py:_tell", "rfs/keys_command.py:_count_down", "orchestrator/hactl/snapshot_command.py:tell",
}  # fmt: skip
DAEMONS = {"orchestrator/effects", "orchestrator/daemon.py", "orchestrator/guard.py", "orchestrator/doctor", "orchestrator/lab"}


def prints_in(path: Path) -> Iterator[tuple[str, int]]:
    """Function and line of everything that prints."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        text = ast.unparse(call.func)
        if text in ("print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"):
            inside = [each.name for each in functions if each.lineno <= call.lineno <= (each.end_lineno or 0)]
            yield inside[-1] if inside else "", call.lineno


def test_there_is_one_way_to_print() -> None:
    found = []
    for path in sorted([*(ROOT / "rfs").rglob("*.py"), *(ROOT / "orchestrator").rglob("*.py")]):
        name = path.relative_to(ROOT).as_posix()
        if name in PAST_IT or any(name.startswith(each) for each in DAEMONS):
            continue
        found += [f"{name}:{line} ({function})" for function, line in prints_in(path) if f"{name}:{function}" not in PAST_IT]
    assert found == [], "use say() of rfs/show.py or orchestrator/hactl/output.py"
    assert keys_command.say is show.say and sys.modules["orchestrator.hactl.output"] is not None
