"""Could this configuration be applied on this node? What is wrong with the files, and what of the running node stands against it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import trio

from orchestrator import config_archive, config_effects
from orchestrator.config import ReplicatedConfig, VipConfig
from orchestrator.config_documents import Documents, read_documents
from orchestrator.config_effects import Change
from orchestrator.config_errors import Complaint, ConfigError
from orchestrator.generations import GenerationStore
from rfs.pairing import Files


class Facts(Protocol):
    """What of the running node counts when its configuration is to change."""

    def why_not_stopped(self, module: str) -> str:
        """What it is instead; empty: nothing of it runs here."""
        ...

    async def why_not_addresses(self, vips: Sequence[VipConfig]) -> list[str]:
        """What stands against taking these service addresses here."""
        ...

    async def why_not_directories(self, module: str, added: Sequence[ReplicatedConfig]) -> str:
        """What stands against mirroring these as well, while the module runs here."""
        ...

    def why_not_node(self, documents: Documents) -> str:
        """Could hactld run with that on this node? Its keys, say."""
        ...

    def is_busy(self) -> bool:
        """Is something of a module under way that should not be cut short?"""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """Files that were read and are valid."""

    files: Files
    digest: str
    documents: Documents
    changes: list[Change]  # from what is applied here


async def examine(store: GenerationStore, config_dir: Path, files: Files) -> Candidate:
    """Read and compared with what is applied; ConfigError with every complaint, in the names of the files that people edit."""
    return await trio.to_thread.run_sync(_examine, store, config_dir, files)


def _examine(store: GenerationStore, config_dir: Path, files: Files) -> Candidate:
    applied = store.past.applied
    assert applied is not None, "nothing to compare with"
    store.make_place()
    with tempfile.TemporaryDirectory(prefix=".check-", dir=store.root) as scratch:
        tree = Path(scratch, "tree")
        config_archive.write_tree(files, tree, durably=False)
        try:
            documents = read_documents(tree)
        except ConfigError as error:
            raise ConfigError(moved(error.complaints, tree, config_dir)) from None
    before = read_documents(store.tree(applied.digest))
    changes = config_effects.changes_between(before, documents, store.files_of(applied.digest), files)
    return Candidate(files, config_archive.digest(files), documents, changes)


async def complaints(node: str, store: GenerationStore, facts: Facts, candidate: Candidate, *, free: bool = True) -> list[str]:
    """What of this node stands against it, beside what is wrong with the files. `free`: added addresses must be nobody's yet."""
    documents = candidate.documents
    if node not in documents.config.nodes:
        return [f"{node} is not a node of it: take {node} out on a node that stays, while hactld is stopped on {node}"]
    if reason := facts.why_not_node(documents):
        return [reason]
    found = [
        f"{module} is {state} on {node} and must be stopped for {', '.join(dict.fromkeys(shown(change) for change in changes))}: "
        f"hactl stop {module} -H all"
        for module, changes in config_effects.stopped_for(candidate.changes).items()
        if (state := facts.why_not_stopped(module))
    ]
    if not free:
        return found
    applied = store.past.applied
    assert applied is not None, "nothing to compare with"
    before = await trio.to_thread.run_sync(read_documents, store.tree(applied.digest))
    for module, vips in config_effects.added_addresses(before, documents).items():
        if node in documents.configs[module].nodes:
            found += [f"{module}: {reason}" for reason in await facts.why_not_addresses(vips)]
    for module, directories in config_effects.added_directories(before, documents).items():
        if node in documents.configs[module].nodes and (reason := await facts.why_not_directories(module, directories)):
            found.append(f"{module}: {reason} (on {node})")
    return found


def shown(change: Change) -> str:
    """A change in a word, for a refusal."""
    return change.key or ("its removal" if change.after is None else "its addition")


def moved(complaints: Iterable[Complaint], tree: Path, config_dir: Path) -> list[Complaint]:
    """The same of the files that people edit."""
    return [replace(each, file=config_dir / each.file.relative_to(tree)) for each in complaints]
