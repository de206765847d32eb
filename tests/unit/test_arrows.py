"""Imports point one way: hactl → api → runner → core, effects → rfs.control.client → rfs → engine → csrc."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ABOVE_EFFECTS = {"orchestrator.runner", "orchestrator.api", "orchestrator.hactl", "orchestrator.daemon"}
IMPURE = {"trio", "os", "socket", "logging", "time", "random", "secrets", "subprocess", "threading", "pathlib", "datetime"}

# What imports (a module or package prefix) -> what it must never import; every matching row applies.
FORBIDDEN: dict[str, set[str]] = {
    "rfs": {"orchestrator"},
    "rfs.control.client": {"rfs.engine", "rfs.replica", "rfs.session"},
    "rfs.record": IMPURE | {"rfs.engine"},
    "rfs.decide": IMPURE | {"rfs.engine"},
    "rfs.rules": IMPURE | {"rfs.engine"},
    "orchestrator.core": IMPURE | {"orchestrator.runner", "orchestrator.effects", "orchestrator.checkers", "orchestrator.api", "rfs"},
    "orchestrator.effects": ABOVE_EFFECTS | {"orchestrator.checkers"},
    "orchestrator.checkers": ABOVE_EFFECTS | {"orchestrator.pair"},
    "orchestrator.runner": {"orchestrator.api", "orchestrator.hactl", "orchestrator.daemon"},
    "orchestrator.doctor": {f"orchestrator.{name}" for name in ("runner", "core", "api", "hactl", "daemon", "snapshot")},
    "orchestrator.snapshot": {f"orchestrator.{name}" for name in ("runner", "core", "api", "hactl", "daemon")},
    **{f"orchestrator.doctor.{name}": IMPURE | {"orchestrator.effects"} for name in (
        *("finding", "history", "judge", "judge_machine", "judge_daemon", "judge_network", "judge_directories", "judge_pair"),
        "preflight",
    )},
    **{f"orchestrator.snapshot.{name}": IMPURE for name in ("redact", "anonymise")},
    "orchestrator.api": {"orchestrator.hactl", "orchestrator.daemon"},
    "orchestrator.modules": {"orchestrator.runner", "orchestrator.core", "orchestrator.api", "orchestrator.hactl", "orchestrator.daemon"},
    "orchestrator.modules.machine": {"orchestrator", "rfs", "subprocess", "trio"},
    "orchestrator.hactl": {"orchestrator.runner", "orchestrator.core", "orchestrator.effects", "orchestrator.daemon"},
}


def modules() -> list[tuple[str, Path]]:
    """Every module of the two packages."""
    out = []
    for package in ("rfs", "orchestrator"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            out.append((name, path))
    return out


def imports(path: Path) -> set[str]:
    """Everything a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_nothing_of_ours_is_started_out_of_the_current_directory() -> None:
    """`python -m` looks there first, and who asks as root may stand where anybody writes: -P (or -I) keeps it out."""
    started = re.compile(r"""sys\.executable\}?["']?,?\s+(.{0,40}?)["']?-m\b""", re.DOTALL)
    found = [(name, match[0]) for name, path in modules() for match in started.finditer(path.read_text())]
    assert len(found) >= 8, "the pattern finds what there is"
    assert [entry for entry in found if not re.search(r"-[PI]\b", entry[1])] == []


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_arrows_never_turn_back(name: str, path: Path) -> None:
    for importer, forbidden in FORBIDDEN.items():
        if within(name, importer):
            wrong = sorted(found for found in imports(path) for target in forbidden if within(found, target))
            assert not wrong, f"{name} imports {wrong}, which {importer} must not"


def test_the_engine_has_one_importer() -> None:
    assert [name for name, path in modules() if "rfs._engine" in imports(path)] == ["rfs.engine"]
