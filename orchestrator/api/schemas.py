"""The shape of every document that hactld answers with and hactl prints: JSON Schema (2020-12), one for each `schema` name.

A name has a version. A document may gain fields under it (so nothing here forbids more); what is required here stays, with its meaning.
Whatever would break that is a new version. `GET /v1/schemas/NAME` shows one; a test holds real answers to them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

Schema = dict[str, Any]
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

TEXT: Final[Schema] = {"type": "string"}
NUMBER: Final[Schema] = {"type": "number"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
WHOLE: Final[Schema] = {"type": "integer"}
TRUTH: Final[Schema] = {"type": "boolean"}
ANYTHING: Final[Schema] = {"type": "object"}
TEXTS: Final[Schema] = {"type": "array", "items": TEXT}


def one_of(*words: str) -> Schema:
    """One of these words."""
    return {"enum": list(words)}


def each(items: Schema) -> Schema:
    """A list of them."""
    return {"type": "array", "items": items}


def maybe(schema: Schema) -> Schema:
    """Or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def by_name(values: Schema) -> Schema:
    """A map whose keys are names."""
    return {"type": "object", "additionalProperties": values}


def fields(optional: dict[str, Schema] | None = None, **required: Schema) -> Schema:
    """An object with these fields, and perhaps more."""
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


VERDICT: Final = one_of("redundant", "degraded", "down", "diverged", "resyncing")
STATE: Final = one_of("STOP", "WAIT", "ALONE", "PRIM", "SECOND", "UP", "UNKNOWN")
READINESS: Final = one_of("NotReady", "Transient", "Ready")
NETWORK: Final = one_of("ok", "silent", "deaf")
RESYNC: Final = fields(
    optional={"percent_done": maybe(NUMBER), "bytes_done": COUNT, "total_bytes": COUNT, "files_done": COUNT, "total_files": COUNT}
    | {"seconds_remaining": maybe(NUMBER), "bytes_per_s": NUMBER, "scope": TEXT, "snapshot": maybe(TEXT)},
    direction=one_of("to-peer", "from-peer"),
)
LINE_OF_A_NODE: Final = fields(
    optional={"rfs": ANYTHING, "checkers": each(fields(resource=TEXT, state=TEXT))},
    node=TEXT, state=STATE, readiness=READINESS, data=TEXT, generation=TEXT, link=TEXT, code=TEXT, service=TEXT,
    since_s=maybe(NUMBER), reason=TEXT, resync=maybe(RESYNC),
)  # fmt: skip
WARNING: Final = fields(code=TEXT, text=TEXT, fix=TEXT)
EVENT: Final = fields(
    optional={"who": TEXT, "role": TEXT, "inputs": ANYTHING},
    number=COUNT, time=TEXT, wall_s=NUMBER, monotonic_s=NUMBER, node=TEXT, module=TEXT, kind=TEXT, text=TEXT,
)  # fmt: skip
LOG: Final = fields(node=TEXT, module=TEXT, lines=TEXTS, rfs_lines=TEXTS, runs=TEXTS, run=TEXT, run_lines=TEXTS)
PROGRESS: Final = fields(
    optional={"percent_done": maybe(NUMBER), "seconds_remaining": maybe(NUMBER), "bytes_done": COUNT, "total_bytes": COUNT}
    | {"files_done": COUNT, "total_files": COUNT, "bytes_per_s": NUMBER}
)
WORK: Final = fields(
    number=COUNT, verb=TEXT, who=TEXT, state=one_of("running", "done", "failed"), seconds=NUMBER, progress=PROGRESS, code=COUNT,
    message=TEXT, result=ANYTHING,
)  # fmt: skip

CHECKER: Final = fields(resource=TEXT, state=TEXT, since_s=maybe(NUMBER), text=TEXT)
FINDING: Final = fields(check=TEXT, group=TEXT, node=TEXT, verdict=TEXT, text=TEXT, fix=TEXT)
GENERATION: Final = fields(number=COUNT, digest=TEXT, base=TEXT, transaction=TEXT, who=TEXT, wall_s=NUMBER, comment=TEXT)
CHANGE: Final = fields(module=TEXT, key=TEXT, before={}, after={}, effect=one_of("live", "next-start", "stopped"), stops=TEXTS)
PROBLEM: Final = fields(file=TEXT, line=maybe(COUNT), key=TEXT, text=TEXT)
DIRECTORY: Final = fields(
    optional={"empty": TRUTH},
    path=TEXT, exists=TRUTH, files=COUNT, bytes=COUNT, newest=TEXT, newest_age_s=maybe(NUMBER), whole=TRUTH, markers=by_name(TEXT),
    lacking=TEXTS, problem=TEXT,
)  # fmt: skip

_DOCUMENTS: dict[str, Callable[[], Schema]] = {
    "hactl.status/1": lambda: fields(
        optional={"witness": maybe(TEXT)},
        cluster=TEXT, node=TEXT, peer=TEXT, partial=TRUTH, verdict=VERDICT,
        failover=fields(state=one_of("armed", "paused", "blocked"), reason=TEXT),
        networks=by_name(NETWORK),
        peers=each(fields(node=TEXT, silent=TRUTH, networks=by_name(NETWORK))),
        modules=each(fields(
            name=TEXT, mode=TEXT, verdict=VERDICT, nodes=each(LINE_OF_A_NODE), vips=each(fields(address=TEXT, node=maybe(TEXT)))
        )),
        warnings=each(WARNING), insecure=TRUTH, refused=by_name(COUNT),
    ),
    "hactl.answer/1": lambda: fields(code=COUNT, message=TEXT, results=each(fields(node=TEXT, code=COUNT, message=TEXT))),
    "hactl.error/1": lambda: fields(code=COUNT, message=TEXT),
    "hactl.events/1": lambda: fields(node=TEXT, events=each(EVENT), last=WHOLE, first=COUNT, newest=COUNT),
    "hactl.event/1": lambda: EVENT,
    "hactl.gone/1": lambda: fields(node=TEXT, text=TEXT),
    "hactl.history/1": lambda: fields(events=each(EVENT)),
    "hactl.log/1": lambda: LOG,
    "hactl.logs/1": lambda: fields(nodes=each(LOG)),
    "hactl.why/1": lambda: fields(
        node=TEXT, module=TEXT, state=STATE, readiness=READINESS, reason=TEXT,
        questions=each(fields(question=TEXT, answer=TRUTH, conditions=each(fields(text=TEXT, holds=TRUTH)))),
        evidence=ANYTHING, decisions=each(EVENT),
    ),
    "hactl.simulate/1": lambda: fields(
        node=TEXT, module=TEXT, what=TEXT, state=STATE, readiness=READINESS, reason=TEXT,
        moments=each(fields(after_s=NUMBER, kind=TEXT, text=TEXT)),
    ),
    "hactl.nodes/1": lambda: fields(nodes=each(ANYTHING)),
    "hactl.data/1": lambda: fields(
        node=TEXT, module=TEXT, rfs=maybe(ANYTHING), state_directory=TEXT, kept=each(fields(path=TEXT, wall_s=NUMBER))
    ),
    "hactl.work/1": lambda: fields(node=TEXT, module=TEXT, work=maybe(WORK)),
    "hactl.progress/1": lambda: fields(
        optional={"seconds_elapsed": NUMBER, **PROGRESS["properties"]}, message_type=one_of("status"), module=TEXT, action=TEXT
    ),
    "hactl.summary/1": lambda: fields(
        optional={"result": ANYTHING}, message_type=one_of("summary"), module=TEXT, action=TEXT, seconds_elapsed=NUMBER, code=COUNT,
        message=TEXT,
    ),
    "hactl.rotated/1": lambda: fields(rotated=each(fields(node=TEXT, pin=TEXT, not_told=TEXTS))),
    "hactl.explanation/1": lambda: fields(topics=each(fields(name=TEXT, kind=TEXT, text=TEXT, next=TEXT))),
    "hactl.checkers/1": lambda: fields(checkers=each({**CHECKER, "required": ["module", "node", *CHECKER["required"]]})),
    "hactl.contents/1": lambda: fields(
        module=TEXT,
        nodes=each(fields(node=TEXT, known=maybe(TRUTH), serves=maybe(TRUTH), directories=maybe(each(DIRECTORY)), problem=TEXT)),
    ),
    "hactl.config/1": lambda: fields(valid=TRUTH, problems=each(PROBLEM)),
    "hactl.config-state/1": lambda: fields(
        node=TEXT, directory=TEXT, applied=GENERATION, files=fields(digest=TEXT, applied=TRUTH), running=TRUTH,
        promised=maybe(fields(coordinator=TEXT, transaction=TEXT)),
        peers=each(fields(node=TEXT, answers=TRUTH, relation=maybe(TEXT), applied=maybe(GENERATION), reason=TEXT)),
    ),
    "hactl.config-history/1": lambda: fields(
        node=TEXT, generations=each({**GENERATION, "required": [*GENERATION["required"], "applied"]})
    ),
    "hactl.config-diff/1": lambda: fields(
        node=TEXT, **{"from": TEXT}, to=TEXT, digest=TEXT, equal=TRUTH, problems=each(PROBLEM), changes=each(CHANGE),
        files=each(fields(file=TEXT, kind=one_of("added", "removed", "changed", "mode"), lines=TEXTS)), running=by_name(TEXT),
    ),
    "hactl.config-apply/1": lambda: fields(
        code=COUNT, message=TEXT, generation=maybe(COUNT), changes=each(CHANGE),
        nodes=each(fields(node=TEXT, result=one_of("applied", "later", "agrees"), text=TEXT)),
    ),
    "hactl.module/1": lambda: fields(name=TEXT, file=TEXT, configured=ANYTHING, scripts=TEXTS, runs=maybe(ANYTHING)),
    "hactl.module-file/1": lambda: fields(name=TEXT, file=TEXT, written=TEXTS, text=TEXT, to_know=TEXTS, next=TEXTS),
    "hactl.module-removed/1": lambda: fields(name=TEXT, removed=TEXTS, stays=TEXTS),
    "hactl.module-package/1": lambda: fields(name=TEXT, file=TEXT, bytes=COUNT, scripts=TEXTS),
    "hactl.cluster/1": lambda: fields(
        name=TEXT, policy=TEXT, nodes=each(fields(node=TEXT, addresses=by_name(TEXT))), keys=maybe(ANYTHING)
    ),
    "hactl.paired/1": lambda: fields(peer=TEXT, fingerprint=TEXT, findings=each(FINDING)),
    "hactl.drill/1": lambda: fields(
        module=TEXT, at=TEXT,
        rounds=each(fields(
            source=TEXT, target=TEXT, stopped_s=maybe(NUMBER), serving_s=maybe(NUMBER), redundant_s=maybe(NUMBER), gap_s=maybe(NUMBER)
        )),
    ),
    "hactl.doctor/1": lambda: fields(
        verdict=TEXT, nodes=TEXTS, silent=each(fields(node=TEXT, reason=TEXT)), counts=by_name(COUNT), took_s=NUMBER, findings=each(FINDING)
    ),
    "hactl.facts/1": lambda: fields(node=TEXT),
    "hactl.snapshot/1": lambda: fields(nodes={}, items={}, left_out={}, removed={}, took_s=NUMBER),
    "hactl.snapshot-part/1": lambda: fields(node=TEXT, began_s=NUMBER, took_s=NUMBER, removed={}, items={}, left_out={}),
    "hactl.lab/1": lambda: fields(
        name=TEXT, directory=TEXT,
        nodes=each(fields(node=TEXT, power=one_of("on", "off", "frozen"), addresses=by_name(TEXT), cuts=ANYTHING)),
    ),
    "hactl.index/1": lambda: fields(
        version=TEXT, roles=TEXTS, schemas=TEXTS, you=fields(name=TEXT, role=TEXT),
        routes=each(fields(method=TEXT, path=TEXT, role=TEXT)),
    ),
}  # fmt: skip
NAMES: Final = tuple(_DOCUMENTS)


@cache
def schema(name: str) -> Schema:
    """The JSON Schema of a document; KeyError when there is no such name."""
    shape = _DOCUMENTS[name]()
    properties = {"schema": {"const": name}, **shape["properties"]}
    return {"$schema": DIALECT, "title": name, **shape, "properties": properties, "required": ["schema", *shape["required"]]}
