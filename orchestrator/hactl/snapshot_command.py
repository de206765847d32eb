"""`hactl snapshot`: one file with what all nodes know, for whoever is asked for help; without secrets."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.api.client import ApiFailure
from orchestrator.config import own_name
from orchestrator.hactl.output import print_json, say
from orchestrator.hactl.session import Failure, Session, session_options
from orchestrator.units import show_bytes
from rfs import exit_codes
from rfs.durably import write_durably
from rfs.errors import SaidNo
from rfs.show import printable

if TYPE_CHECKING:
    from orchestrator.hactl.examiner import Examiner

CATALOGUE = ".names.json"


@click.command()
@click.option("-O", "--output-file", "path", type=click.Path(dir_okay=False, path_type=Path), help="Default: ./lockstep-NODE-TIME.tar.gz.")
@click.option("--anonymise", is_flag=True, help="Other names for nodes, addresses, users and directories; what leads back is kept beside.")
@session_options
def snapshot(session: Session, path: Path | None, anonymise: bool) -> None:
    """Collect what helps somebody to help: status, histories, logs, configuration, facts of this node and its peers (-H NODE: of one).

    \b
    hactl snapshot                       into a file here
    hactl snapshot --anonymise           the same for people outside
    hactl snapshot -O /tmp/help.tar.gz

    Keys, passwords and tokens are removed; the manifest in it says what is inside, and what is missing and why. The other node or hactld
    may be dead.
    """
    from orchestrator.hactl.examiner import Examiner  # slow to import: only who takes a snapshot pays for it

    began = time.time()
    target = (path or Path(f"lockstep-{own_name()}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(began))}.tar.gz")).absolute()
    if not target.parent.is_dir():
        raise Failure(f"{target.parent}: there is no such directory", exit_codes.USAGE)
    try:
        document = take(Examiner(session.config_dir, session.socket), session.node, target, anonymise=anonymise, began=began)
    except SaidNo as refusal:
        raise Failure(refusal.sentence, refusal.exit_code) from None
    except OSError as error:
        raise Failure(f"{target}: cannot be written ({error.strerror})", exit_codes.FAILED) from None
    if session.format in ("json", "jsonl"):
        print_json(document, one_line=session.format == "jsonl")
    else:
        _say(document)
    if any(entry["missing"] for entry in document["nodes"]):
        raise SystemExit(exit_codes.PEER_NOT_REACHABLE)


def take(examiner: Examiner, wanted: str | None, target: Path, *, anonymise: bool, began: float) -> dict[str, Any]:
    """Everything from the first question to the file; what was done, for people and programs."""
    from orchestrator.doctor.judge import document, judge_all
    from orchestrator.snapshot.bundle import BadPart, Bundle

    nodes, tell = examiner.nodes(wanted), _progress()
    bundle = Bundle(examiner.scene.cluster.name if examiner.scene.cluster is not None else "")
    for node in nodes:
        try:
            bundle.add_part(node, examiner.part_of(node, tell))
        except (SaidNo, BadPart) as failure:
            bundle.add_missing(node, failure.sentence if isinstance(failure, SaidNo) else f"its part is none: {failure}")
    tell("asking the daemons", 0.0)
    documents, missing = _documents(examiner, nodes)
    facts = [{**found, "node": node} for node, found in bundle.facts.items()]
    silent = {entry["node"]: entry["missing"] for entry in bundle.nodes if entry["missing"]}
    findings = judge_all(facts, silent)
    told = document(findings, [str(each["node"]) for each in facts], silent, time.time() - began)
    documents["findings.json"] = json.dumps(told, indent=1)
    bundle.add_documents(documents, missing)
    catalogue = bundle.anonymise() if anonymise else None
    manifest = bundle.manifest(version=importlib.metadata.version("lockstep-ha"), began=began, anonymised=anonymise)
    tell("writing", 0.5)
    size_bytes = bundle.write(target, manifest)
    tell("", 1.0)
    kept = _keep_catalogue(target, catalogue) if catalogue is not None else ""
    return {
        "schema": "hactl.snapshot/1", "file": str(target), "bytes": size_bytes, "catalogue": kept, "nodes": manifest["nodes"],
        "items": len(manifest["items"]), "left_out": manifest["left_out"], "removed": manifest["removed"], "took_s": manifest["took_s"],
    }  # fmt: skip


def _documents(examiner: Examiner, nodes: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """What each hactld says: its status, its history, and of every module why. And what was not to be had."""
    from orchestrator.peer import PeerRefused, PeerUnreachable

    found, missing = dict[str, str](), dict[str, str]()
    for node in nodes:
        questions: list[tuple[str, str, Mapping[str, Any]]] = [
            ("status.json", "status", {}),
            ("history.json", "events", {"after": 0}),
            *((f"why-{module}.json", "why", {"module": module}) for module in examiner.scene.modules),
        ]
        for name, method, parameters in questions:
            try:
                found[f"{node}/hactld/{name}"] = json.dumps(examiner.ask(node, method, parameters), indent=1)
            except (ApiFailure, SaidNo, PeerUnreachable, PeerRefused) as failure:
                missing[f"{node}/hactld/{name}"] = failure.sentence if isinstance(failure, SaidNo) else str(failure)
                if not isinstance(failure, PeerRefused):
                    break  # whoever does not answer once is not asked for the rest
    return found, missing


def _keep_catalogue(target: Path, catalogue: Mapping[str, str]) -> str:
    """Beside the file, never in it."""
    path = target.with_name(target.name.removesuffix(".tar.gz") + CATALOGUE)
    write_durably(path, (json.dumps(dict(sorted(catalogue.items())), indent=1) + "\n").encode())
    return str(path)


def _progress() -> Callable[[str, float], None]:
    """One line on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda what, done: None

    def tell(what: str, done: float) -> None:
        sys.stderr.write("\r\x1b[K" + printable(f"{what} {done:4.0%}" if what and done else what))
        sys.stderr.flush()

    return tell


def _say(document: Mapping[str, Any]) -> None:
    for entry in document["nodes"]:
        if entry["missing"]:
            say(f"! {entry['node']} is missing: {entry['missing']}", err=True)
    say(f"{document['file']}: {show_bytes(document['bytes'])}, {document['items']} texts, {document['removed']} secrets removed")
    if document["left_out"]:
        say(f"{len(document['left_out'])} texts are left out; MANIFEST.json in it says which and why")
    if document["catalogue"]:
        say(f"{document['catalogue']} says what stands for what: keep it, do not send it")
