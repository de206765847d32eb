"""`hactl module add | show | remove | package | install | templates` on files, with a hactld that answers from a script or none at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.hactl.cli import run
from orchestrator.modules.machine import Machine
from rfs import directory_checks
from rfs.mount import Layers
from rfs.state_directory import Directories, write_directories
from tests.unit.machines import debian_nginx, debian_postgresql, two_units
from tests.unit.schemas import check
from tests.unit.test_hactl_cli import STATUS, FakeHactld, hactl, hactld  # noqa: F401 - two of them are fixtures
from tests.unit.test_templates import CLUSTER

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration without modules."""
    home = tmp_path / "config"
    (home / "modules").mkdir(parents=True)
    (home / "cluster.toml").write_text(CLUSTER)
    return home


@pytest.fixture
def call(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """hactl on this configuration, with no hactld."""

    def run_it(*words: str) -> tuple[int, str, str]:
        code = run(["--config-dir", str(config), "--socket", str(tmp_path / "none.sock"), *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_it


def on(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    """From now on this machine is looked at."""
    monkeypatch.setattr("orchestrator.modules.machine.Machine", partial(Machine, machine.root))


def files(config: Path) -> list[str]:
    return sorted(path.relative_to(config).as_posix() for path in (config / "modules").rglob("*"))


# ---------------------------------------------------------------------------------------------- add


def test_add_writes_one_valid_file_and_says_what_to_know(call: Call, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, two_units(tmp_path / "machine"))
    data = tmp_path / "erp"
    code, out, err = call("module", "add", "generic", "--name", "erp", "--dir", f"{data}/", "--service", "erp")
    assert code == 0, err
    assert err == f"! {data} does not exist here; on each node where it is missing: install -d -m 755 {data}\n"
    assert out.splitlines() == [
        f"written: {config}/modules/erp.toml",
        "next:",
        "  hactl config apply                # brings it to node1 and node2",
        "  hactl start erp                   # shows what both nodes have, and asks which one has the data",
    ]
    assert files(config) == ["modules/erp.toml"]
    assert call("config", "check")[0] == 0
    code, _, err = call("module", "add", "light", "--name", "erp", "--service", "erp")
    assert (code, "is there already" in err) == (6, True)


def test_a_dry_run_writes_nothing(call: Call, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, debian_postgresql(tmp_path / "machine"))
    code, out, err = call("module", "add", "postgresql", "--dry-run")
    assert code == 0 and 'unit = "postgresql@15-main"' in out and "not written (--dry-run)" in err
    code, out, err = call("module", "add", "postgresql", "--dry-run", "--json")
    document = json.loads(out)
    assert (code, err, document["schema"], document["written"], document["name"]) == (0, "", "hactl.module-file/1", [], "postgresql")
    assert any("start.conf" in sentence for sentence in document["to_know"]) and len(document["next"]) == 2
    assert files(config) == []


def test_everything_that_is_wrong_is_shown_with_its_row_and_nothing_is_written(
    call: Call, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, two_units(tmp_path / "machine"))
    words = ("--vip", "192.0.2.100", "--dir", "/var", "--set", "boot=never", "--nodes", "node1,nod2")
    code, out, err = call("module", "add", "generic", *words)
    assert (code, out, files(config)) == (3, "", [])
    for told in (
        "4 problems",
        "lacks the prefix length",
        "/var belongs to the system",
        '"never" is not one of',
        'no node "nod2"',
        '    5 | nodes = ["node1", "nod2"]',
    ):
        assert told in err, err


def test_a_unit_that_starts_at_boot_is_said(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, debian_nginx(tmp_path / "machine"))
    _, _, err = call("module", "add", "nginx", "--dir", str(tmp_path), "--dry-run")
    assert "! nginx.service is started at boot: the module disables it at its first start here, --disable-at-boot does it now\n" in err


def test_disable_at_boot_does_it_or_says_why_not(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, debian_nginx(tmp_path / "machine"))
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ ! -e {tmp_path}/refuse ] || {{ echo no access >&2; exit 1; }}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    _, _, err = call("module", "add", "nginx", "--name", "a", "--dir", str(tmp_path / "a"), "--disable-at-boot")
    assert "! nginx.service is not started at boot any more\n" in err
    assert (tmp_path / "asked").read_text() == "disable nginx.service\n"
    (tmp_path / "refuse").touch()
    _, _, err = call("module", "add", "nginx", "--name", "b", "--dir", str(tmp_path / "b"), "--disable-at-boot")
    assert "! nginx.service is still started at boot: no access\n" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nginxx",), 'Did you mean "nginx"?'),
        (("postgresql", "--set", "cluser=15/main"), 'no such key. Did you mean "cluster"?'),
        (("postgresql", "--set", "cluster"), "write KEY=VALUE"),
        (("postgresql", "--set", "port=many"), "a port is a number"),
        (("postgresql", "--name", "Bad Name"), "cannot be a module's name"),
    ],
)
def test_usage(words: tuple[str, ...], sentence: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, debian_postgresql(tmp_path / "machine"))
    code, out, err = call("module", "add", *words)
    assert (code, out) == (2, "") and sentence in err, err


def test_a_directory_in_use_is_said_with_who_uses_it(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, two_units(tmp_path / "machine"))
    data = tmp_path / "data"
    data.mkdir()
    with (data / "file").open("w"):
        monkeypatch.setattr("os.getpid", lambda: 1)  # this very process is the one that holds it
        _, _, err = call("module", "add", "generic", "--dir", str(data), "--service", "erp", "--dry-run")
    assert f"! {data} is in use by " in err and "stop that before the module is started" in err


# ---------------------------------------------------------------------------------------------- templates, show


def test_templates(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, debian_postgresql(tmp_path / "machine"))
    _, out, _ = call("module", "templates")
    rows = out.splitlines()
    assert [row.split()[0] for row in rows] == ["TEMPLATE", "generic", "light", "mariadb", "mysql", "nginx", "postgresql"]
    assert rows[-1].endswith("15/main in /var/lib/postgresql/15/main")
    _, out, _ = call("module", "templates", "postgresql")
    assert out.startswith("# PostgreSQL\n") and "  cluster               which of Debian's clusters" in out and "Found here: 15/main" in out
    document = json.loads(call("module", "templates", "mariadb", "--json")[1])
    assert document["found"] == "" and "listen" in document["settings"] and "ack" in document["settings"]


def show_module(config: Path) -> None:
    text = 'replication_network = "repl"\ndefault_primary = "node2"\n[[replicated]]\ndirectory = "/srv/pg"\nrequire = ["PG_VERSION"]\n'
    more = '[[vip]]\naddress = "192.0.2.100/24"\n[[service]]\nname = "db"\nuser = "postgres"\nstart = ["/usr/bin/db", "-D", "/srv/pg"]\n'
    more += '[[checker]]\ntype = "tcp"\nto = "127.0.0.1:5432"\n[[rule]]\nname = "own"\nall = ["disk.* is down"]\naction = "none"\n'
    (config / "modules" / "pg.toml").write_text(text + more)
    (config / "modules" / "pg").mkdir()
    (config / "modules" / "pg" / "start_prim").write_text("#!/bin/sh\n")


def test_show_without_hactld(call: Call, config: Path) -> None:
    show_module(config)
    code, out, _ = call("module", "show", "pg")
    assert code == 0
    assert out.splitlines()[0] == "pg: a mirror module on node1 and node2, the data over repl, port 5600"
    found = [line.split(maxsplit=1) for line in out.splitlines()[1:]]
    assert list(dict.fromkeys(key for key, _ in found)) == [
        *("directory", "address", "service", "checker", "rule", "primary", "at", "scripts", "now")
    ]
    assert any(line == ["checker", "tcp.127.0.0.1:5432: restart when down (prim)"] for line in found), found
    assert ["directory", "/srv/pg (required: PG_VERSION)"] in found and ["service", "db: /usr/bin/db -D /srv/pg (as postgres)"] in found
    assert ["scripts", "start_prim"] in found and found[-1][1].startswith("not known: hactld does not run here")


def test_show_with_hactld(hactl: Call, config: Path) -> None:  # noqa: F811
    show_module(config)
    _, out, _ = hactl("--config-dir", str(config), "module", "show", "pg")
    assert "now        node1 PRIM Ready" in out and "192.0.2.100/24 on node1" in out
    document = json.loads(hactl("--config-dir", str(config), "module", "show", "pg", "--json")[1])
    assert document["schema"] == "hactl.module/1" and document["runs"]["nodes"][0]["state"] == "PRIM"
    assert document["configured"]["replicated"][0]["directory"] == "/srv/pg" and document["scripts"] == ["start_prim"]


def test_a_module_that_there_is_not(call: Call, config: Path) -> None:
    show_module(config)
    for verb in ("show", "remove", "package"):
        code, _, err = call("module", verb, "pgg")
        assert code == 2 and 'there is no module pgg in the configuration; there is pg. Did you mean "pg"?' in err


# ---------------------------------------------------------------------------------------------- package, install


def test_a_package_from_one_cluster_is_installed_on_another(
    call: Call, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_module(config)
    (config / "modules" / "pg" / "start_prim").chmod(0o755)
    file = tmp_path / "pg.tar.gz"
    code, out, _ = call("module", "package", "pg", "-O", str(file))
    assert code == 0 and "pg, 1 script," in out
    assert call("module", "package", "pg", "-O", str(file))[0] == 6, "a file is not written over"
    assert call("module", "install", str(file))[0] == 6, "nor is a module"
    other = tmp_path / "other"
    (other / "modules").mkdir(parents=True)
    (other / "cluster.toml").write_text(
        CLUSTER.replace("node1", "left").replace("node2", "right").replace("repl", "back").replace("192.0.2", "10.0.0")
    )
    words = ["--config-dir", str(other), "module", "install", str(file), "--name", "base", "--vip", "10.0.0.100/24"]
    assert run([*words, "--dry-run"]) == 3, "the default primary is a node that there is not here"
    assert 'default_primary  "node2" is neither' in capsys.readouterr().err
    changed = tmp_path / "changed"
    (changed / "modules").mkdir(parents=True)
    (changed / "cluster.toml").write_text(CLUSTER)
    text = (config / "modules" / "pg.toml").read_text().replace('default_primary = "node2"\n', "")
    (changed / "modules" / "pg.toml").write_text(text)
    (config / "modules" / "pg").rename(changed / "modules" / "pg")
    assert run(["--config-dir", str(changed), "module", "package", "pg", "-O", str(tmp_path / "two.tar.gz")]) == 0
    words[words.index(str(file))] = str(tmp_path / "two.tar.gz")
    assert run(words) == 0
    said = capsys.readouterr()
    assert f"written: {other}/modules/base.toml" in said.out and '! vip[1].address = "10.0.0.100/24" here' in said.err
    assert '! replication_network = "back" here' in said.err
    assert files(other) == ["modules/base", "modules/base.toml", "modules/base/start_prim"]
    assert (other / "modules" / "base" / "start_prim").stat().st_mode & 0o777 == 0o755
    assert run(["--config-dir", str(other), "config", "check"]) == 0


def test_secrets_are_not_packed_unless_it_is_wanted(call: Call, config: Path, tmp_path: Path) -> None:
    show_module(config)
    (config / "modules" / "pg" / "start_prim").write_text("#!/bin/sh\nexport PGPASSWORD=hunter2\n")
    file = tmp_path / "pg.tar.gz"
    code, _, err = call("module", "package", "pg", "-O", str(file))
    assert code == 6 and "stands in scripts/start_prim:2" in err and not file.exists()
    assert call("module", "package", "pg", "-O", str(file), "--with-secrets")[0] == 0


def test_a_file_that_is_no_package(call: Call, config: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    code, out, err = call("module", "install", str(tmp_path / "x"))
    assert (code, out, files(config)) == (6, "", []) and "it is no module package" in err
    assert call("module", "install", str(tmp_path / "none"))[0] == 2


# ---------------------------------------------------------------------------------------------- remove


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/var/lib/lockstep."""
    monkeypatch.setattr("orchestrator.hactl.module_file_commands.STATE", tmp_path / "state")
    return tmp_path / "state"


def status_with(**rows: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(STATUS))
    for row in document["modules"][0]["nodes"]:
        row["state"] = rows[row["node"]]
    return document


@pytest.mark.parametrize(
    ("rows", "force", "code", "sentence"),
    [
        ({"node1": "PRIM", "node2": "SECOND"}, False, 6, "pg runs (node1 is PRIM, node2 is SECOND): first 'hactl stop pg -H all'"),
        ({"node1": "PRIM", "node2": "UNKNOWN"}, True, 6, "pg runs (node1 is PRIM)"),
        ({"node1": "STOP", "node2": "UNKNOWN"}, False, 6, "node2 does not answer, and pg may run there"),
        ({"node1": "STOP", "node2": "UNKNOWN"}, True, 0, ""),
        ({"node1": "STOP", "node2": "STOP"}, False, 0, ""),
    ],
)
def test_what_may_run_is_not_removed(
    rows: dict[str, str],
    force: bool,
    code: int,
    sentence: str,
    hactl: Call,  # noqa: F811
    hactld: FakeHactld,  # noqa: F811
    config: Path,
    state: Path,
) -> None:
    show_module(config)
    hactld.answers["/v1/status"] = [(200, status_with(**rows))]
    found, out, err = hactl("--config-dir", str(config), "module", "remove", "pg", *(["--force"] if force else []))
    assert found == code and sentence in err
    assert files(config) == ([] if code == 0 else ["modules/pg", "modules/pg.toml", "modules/pg/start_prim"])
    assert ("stays:   /srv/pg" in out) == (code == 0)


def test_without_hactld_nobody_knows_whether_it_runs(call: Call, config: Path, state: Path) -> None:
    show_module(config)
    code, _, err = call("module", "remove", "pg")
    assert code == 6 and "hactld does not answer, so pg may run" in err
    assert call("module", "remove", "pg", "--force")[0] == 0


def test_a_dry_run_removes_nothing(call: Call, config: Path, state: Path) -> None:
    show_module(config)
    code, out, _ = call("module", "remove", "pg", "--force", "--dry-run", "--json")
    assert code == 0 and check(json.loads(out)) == "hactl.answer/1" and "would be removed" in json.loads(out)["message"]
    code, _, err = call("module", "remove", "pg", "--force", "--dry-run")
    assert code == 0 and "would be removed" in err and "modules/pg.toml" in files(config)


def test_a_module_that_hactld_does_not_know_is_removed(hactl: Call, hactld: FakeHactld, config: Path, state: Path) -> None:  # noqa: F811
    show_module(config)
    hactld.answers["/v1/status"] = [(200, {**STATUS, "modules": []})]
    assert hactl("--config-dir", str(config), "module", "remove", "pg")[0] == 0


@pytest.fixture
def lifted(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The directories whose guards were taken off."""
    found: list[list[str]] = []

    async def unguard(self: Layers) -> None:
        found.append(self.paths)

    monkeypatch.setattr(Layers, "unguard", unguard)  # needs the engine and root: tests/cluster/test_templates.py lifts real guards
    return found


def remembered(state: Path, *directories: str) -> Path:
    home = state / "modules" / "pg"
    (home / "kept").mkdir(parents=True)
    (home / "record").write_text("r")
    if directories:
        write_directories(str(home), Directories(directories))
    return home


def test_the_other_node_forgets_also_after_the_configuration_was_applied(
    call: Call, config: Path, state: Path, lifted: list[list[str]]
) -> None:
    """Its TOML is gone then, and its state knows what lies where."""
    home = remembered(state, "/srv/pg", "/srv/wal")
    code, _, err = call("module", "remove", "pg", "--force")
    assert code == 2 and "there is no module pg" in err and home.exists()
    code, out, err = call("module", "remove", "pg", "--force", "--forget")
    assert code == 0, err
    assert lifted == [["/srv/pg", "/srv/wal"]] and not home.exists()
    assert "stays:   /srv/wal" in out and "removed:" not in out
    assert call("module", "remove", "pg", "--force", "--forget")[0] == 2
    assert call("module", "remove", "../modules", "--force", "--forget")[0] == 2


def test_a_state_that_does_not_say_what_is_guarded_is_left(call: Call, config: Path, state: Path, lifted: list[list[str]]) -> None:
    home = remembered(state)
    (home / "guards").write_text("{}")
    code, _, err = call("module", "remove", "pg", "--force", "--forget")
    assert code == 6 and "rfsmount unguard" in err and home.exists() and lifted == []
    (home / "guards").unlink()
    assert call("module", "remove", "pg", "--force", "--forget")[0] == 0 and not home.exists()


def test_what_is_next_works_in_this_order(call: Call, config: Path, state: Path, lifted: list[list[str]]) -> None:
    show_module(config)
    remembered(state)
    _, out, _ = call("module", "remove", "pg", "--force", "--forget")
    there, here = out.partition("next:\n")[2].splitlines()
    assert "hactl module remove pg --forget" in there and here == "  hactl config apply"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_was_mirrored_is_plain_again(tmp_path: Path) -> None:
    """An id that stays is given a second time by the next state: the source of the first copy failed with EEXIST."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").touch()
    (tmp_path / "a" / "link").symlink_to("nowhere")
    try:
        for path in (tmp_path, *tmp_path.rglob("*")):
            os.setxattr(path, directory_checks.ID_ATTRIBUTE, b"12345678", follow_symlinks=False)
    except OSError:
        pytest.skip("this file system keeps no trusted attributes")
    directory_checks.forget_ids(str(tmp_path))
    assert not directory_checks.carries_ids(str(tmp_path)) and directory_checks.ID_ATTRIBUTE not in os.listxattr(tmp_path)


def test_forgetting_alone_leaves_the_module(
    call: Call, config: Path, state: Path, lifted: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both nodes' data are lost: what is restored is nobody's copy, and the module is to start as for the first time."""
    show_module(config)
    home, before = remembered(state), files(config)
    looked_at: list[str] = []
    monkeypatch.setattr(directory_checks, "forget_ids", looked_at.append)
    code, _, err = call("module", "remove", "pg", "--force", "--forget-only", "--dry-run")
    assert code == 0 and "would be set aside" in err and "removed" not in err and home.exists()
    code, out, err = call("module", "remove", "pg", "--force", "--forget-only")
    assert code == 0, err
    assert files(config) == before and lifted == [["/srv/pg"]] == [looked_at] and not home.exists()
    assert "removed:" not in out and "systemctl restart hactld" in out and "config apply" not in out
    code, out, _ = call("module", "remove", "pg", "--force", "--forget-only")
    assert code == 0 and "nothing is remembered of pg here" in out and files(config) == before


def test_what_is_remembered_is_set_aside_only_when_told(call: Call, config: Path, state: Path, lifted: list[list[str]]) -> None:
    show_module(config)
    home = remembered(state)
    code, _, err = call("module", "remove", "pg", "--force")
    assert code == 6 and "--forget" in err and (home / "record").exists()
    code, out, _ = call("module", "remove", "pg", "--force", "--forget", "--json")
    document = json.loads(out)
    assert code == 0 and lifted == [["/srv/pg"]] and not home.exists()
    assert document["stays"][0] == "/srv/pg" and (Path(document["stays"][1]) / "record").read_text() == "r"
