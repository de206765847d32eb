"""The Vagrantfile is valid where Vagrant can be asked, and says the same as the lab everywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.config import load_cluster, load_modules
from orchestrator.hactl.cli import run as hactl
from orchestrator.lab.plan import ADDRESSES
from tests.unit.machines import debian_postgresql

VAGRANT = Path(__file__).parents[2] / "vagrant"


@pytest.mark.skipif(shutil.which("vagrant") is None, reason="vagrant is not installed (apt-get install vagrant)")
def test_the_vagrantfile_is_valid(tmp_path: Path) -> None:
    places = {"VAGRANT_HOME": str(tmp_path), "VAGRANT_DOTFILE_PATH": str(tmp_path / "dot")}  # nothing of ours in the user's
    environment = os.environ | places | {"VAGRANT_CHECKPOINT_DISABLE": "1"}
    words = ["vagrant", "validate", "--ignore-provider"]
    done = subprocess.run(words, cwd=VAGRANT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "validated successfully" in done.stdout


def test_the_machines_are_those_of_the_lab() -> None:
    text = (VAGRANT / "Vagrantfile").read_text()
    for node in ("node1", "node2"):
        for address in ADDRESSES[node].values():
            assert f'"{address}"' in text


def test_provisioning_writes_a_valid_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (VAGRANT / "provision.sh").read_text()
    assert "script/bootstrap" in script
    (tmp_path / "modules").mkdir()
    (tmp_path / "cluster.toml").write_text(script.split("<<'TOML'\n")[1].split("TOML\n")[0])
    debian = debian_postgresql(tmp_path / "machine")
    monkeypatch.setattr("orchestrator.modules.machine.Machine", lambda: debian)
    monkeypatch.setattr("orchestrator.modules.dangers.of_addresses", lambda vips: [])  # nobody is asked on this machine's networks
    words = next(line.split() for line in script.splitlines() if line.strip().startswith("hactl module add"))
    assert hactl([*words[1:], "--set", "version=15", "--config-dir", str(tmp_path)]) == 0
    cluster = load_cluster(tmp_path)
    assert {name: dict(node.addresses) for name, node in cluster.nodes.items()} == {name: ADDRESSES[name] for name in cluster.nodes}
    assert list(load_modules(tmp_path, cluster)) == ["pg"]


@pytest.mark.parametrize("script", [VAGRANT / "provision.sh", VAGRANT.parent / "script" / "bootstrap"], ids=lambda path: path.name)
def test_shell_scripts_parse(script: Path) -> None:
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_the_unit_keeps_what_hactld_started() -> None:
    unit = (VAGRANT.parent / "orchestrator" / "systemd" / "hactld.service").read_text().splitlines()
    assert {"Restart=always", "KillMode=process", "ExecStart=/usr/local/bin/hactld"} <= set(unit)
    assert "orchestrator/systemd/hactld.service" in (VAGRANT / "provision.sh").read_text()
