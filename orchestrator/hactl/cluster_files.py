"""The configuration that comes along when a node joins: gathered on one node (config_archive.py), checked and stored on the other.

What is stored is what was there, no more: regular files below `cluster.toml` and `modules/`, at most 3 MiB in all. On the joining node
they are first read as a whole configuration in a directory of their own; only a valid one that names this node is moved into its place.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath

from orchestrator.config import load_cluster, load_modules
from orchestrator.config_archive import BEFORE_JOIN, checked
from orchestrator.config_errors import ConfigError
from rfs import exit_codes
from rfs.durably import sync_directory, sync_file
from rfs.errors import SaidNo
from rfs.pairing import Files


def store(files: Files, config_dir: Path, node: str, *, replace: bool) -> None:
    """Put them in place (blocking); SaidNo when they are no configuration of a cluster with this node, or others are there."""
    paths = {checked(name): file for name, file in files.items()}
    config_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".joining-", dir=config_dir) as scratch:
        for path, (mode, data) in paths.items():
            target = Path(scratch, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch(0o600)
            target.write_bytes(data)
            target.chmod(mode & 0o755)  # as there, but writable for the owner alone
        try:
            cluster = load_cluster(Path(scratch))
            load_modules(Path(scratch), cluster)
        except ConfigError as error:
            raise SaidNo(
                f"the other node's configuration is not valid: {str(error).splitlines()[0]}", exit_codes.CONFIGURATION_INVALID
            ) from error
        if node not in cluster.nodes:
            sentence = f"this node is called {node}, but the cluster has {cluster.names}: set HACTL_NODE or the hostname"
            raise SaidNo(sentence, exit_codes.CONFIGURATION_INVALID)
        _move(Path(scratch), config_dir, list(paths), replace)


def _move(scratch: Path, config_dir: Path, paths: list[PurePosixPath], replace: bool) -> None:
    others = [
        path for path in paths if (config_dir / path).exists() and (config_dir / path).read_bytes() != Path(scratch, path).read_bytes()
    ]
    if others and not replace:
        listed = ", ".join(str(config_dir / path) for path in others[:3])
        raise SaidNo(f"{listed}: differ from the other node's; --yes takes the other's and keeps these as *{BEFORE_JOIN}")
    for path in others:
        aside = config_dir / f"{path}{BEFORE_JOIN}"
        shutil.copy2(config_dir / path, aside)
        sync_file(aside)
    for path in paths:
        target = config_dir / path
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        sync_file(Path(scratch, path))
        os.replace(Path(scratch, path), target)
        sync_directory(target.parent)
