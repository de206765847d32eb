"""The parts of all nodes, and what the daemons said, in one file with a manifest. Names in it are anonymised where that is asked for."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import secrets
import tarfile
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from orchestrator import plain_tar
from orchestrator.snapshot.anonymise import Anonymiser, learn_from
from orchestrator.snapshot.part import MANIFEST, TEXT_BYTES_MAX, add
from orchestrator.snapshot.redact import Redactor
from rfs.foreign import from_json

SCHEMA: Final = "hactl.snapshot/1"
UNPACKED_BYTES_MAX: Final = 64 << 20
FACTS: Final = "doctor/facts.json"
PROCESSES: Final = "machine/processes.txt"


class BadPart(ValueError):
    """What a node sent is none."""


@dataclass
class Bundle:
    """What will be in the file."""

    cluster: str
    texts: dict[str, str] = field(default_factory=dict)  # by name, with the node's in front
    left_out: list[dict[str, str]] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # node -> the doctor's
    removed: int = 0

    def add_part(self, node: str, data: bytes) -> None:
        """A node's own."""
        texts, manifest = unpack(data)
        self.removed += manifest.get("removed", 0)
        self.nodes.append({"node": node, "took_s": manifest.get("took_s"), "began_s": manifest.get("began_s"), "missing": ""})
        for entry in manifest.get("left_out", []):
            self.left_out.append({"name": f"{node}/{entry['name']}", "why": str(entry["why"])})
        self.texts |= {f"{node}/{name}": text for name, text in texts.items()}
        try:
            facts = from_json(texts.get(FACTS, ""))
        except ValueError:
            return  # it is among what was left out
        if isinstance(facts, dict):
            self.facts[node] = facts

    def add_missing(self, node: str, why: str) -> None:
        """A node that gave no part."""
        self.nodes.append({"node": node, "took_s": None, "began_s": None, "missing": why})
        self.left_out.append({"name": f"{node}/", "why": why})

    def add_documents(self, documents: Mapping[str, str], left_out: Mapping[str, str]) -> None:
        """What the daemons said, to be cleaned here; and what they did not."""
        redactor = Redactor()
        for name, text in (*self.texts.items(), *documents.items()):
            redactor.learn(text, name=name)
        for name, text in documents.items():
            kept = text if len(text) <= TEXT_BYTES_MAX else "[the beginning is left out]\n" + text[-TEXT_BYTES_MAX:]
            self.texts[name] = redactor.clean(kept, name=name)
        self.removed += redactor.removed
        self.left_out += [{"name": name, "why": redactor.clean(why)} for name, why in left_out.items()]

    def anonymise(self) -> dict[str, str]:
        """Other names everywhere; the catalogue that leads back."""
        anonymiser = Anonymiser()
        anonymiser.nodes([entry["node"] for entry in self.nodes])
        anonymiser.cluster(self.cluster)
        for facts in self.facts.values():
            learn_from(anonymiser, facts)
        for name, text in self.texts.items():
            if name.endswith(PROCESSES):  # users whom a directory service knows are in no file
                anonymiser.users(words[2] for line in text.splitlines()[1:] if len(words := line.split(None, 3)) > 3)
        self.texts = {anonymiser.apply(name): anonymiser.apply(text) for name, text in self.texts.items()}
        self.left_out = [{key: anonymiser.apply(value) for key, value in entry.items()} for entry in self.left_out]
        self.nodes = [
            {**entry, "node": anonymiser.apply(entry["node"]), "missing": anonymiser.apply(entry["missing"])} for entry in self.nodes
        ]
        self.cluster = anonymiser.apply(self.cluster)
        return anonymiser.catalogue

    def manifest(self, *, version: str, began: float, anonymised: bool) -> dict[str, Any]:
        """What is inside, and what is not."""
        return {
            "schema": SCHEMA, "cluster": self.cluster, "lockstep": version, "began_s": began, "took_s": round(time.time() - began, 1),
            "anonymised": anonymised, "removed": self.removed, "nodes": self.nodes,
            "items": [
                {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for name, text in sorted(self.texts.items())
                for data in (text.encode(errors="replace"),)
            ],
            "left_out": self.left_out,
        }  # fmt: skip

    def write(self, path: Path, manifest: Mapping[str, Any]) -> int:
        """The file, whole or not at all, for its owner alone; how many bytes it has. It may be made in /tmp: under a name that nobody can
        have planted a link for."""
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
        top = path.name.removesuffix(".gz").removesuffix(".tgz").removesuffix(".tar") or "snapshot"
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as archive:
                    add(archive, f"{top}/MANIFEST.json", json.dumps(manifest, indent=1).encode(), manifest["began_s"])
                    for name, text in sorted(self.texts.items()):
                        add(archive, f"{top}/{name}", text.encode(errors="replace"), manifest["began_s"])
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return path.stat().st_size


def unpack(data: bytes) -> tuple[dict[str, str], dict[str, Any]]:
    """The texts of a part and its list; BadPart for what is none. A peer of ours made it, and still it is bounded and stays in memory."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            plain = packed.read(UNPACKED_BYTES_MAX + 1)
        if len(plain) > UNPACKED_BYTES_MAX:
            raise BadPart("it is larger than a part may be")
        texts: dict[str, str] = {}
        for entry in plain_tar.read(plain):
            if entry.name.startswith("/") or ".." in entry.name.split("/"):
                raise BadPart(f"an entry '{entry.name[:80]}' that is no file of a part")
            texts[entry.name] = entry.data.decode(errors="replace")
        manifest = from_json(texts.pop(MANIFEST))
    except (OSError, EOFError, zlib.error, KeyError, ValueError) as failure:
        raise failure if isinstance(failure, BadPart) else BadPart(f"it cannot be read ({failure})") from failure
    left_out = manifest.get("left_out", []) if isinstance(manifest, dict) else None
    removed = manifest.get("removed", 0) if isinstance(manifest, dict) else None
    if not isinstance(left_out, list) or not all(isinstance(entry, dict) and {"name", "why"} <= set(entry) for entry in left_out):
        raise BadPart("its list cannot be read")
    if type(removed) is not int:
        raise BadPart("its list does not say what was removed")
    return texts, manifest
