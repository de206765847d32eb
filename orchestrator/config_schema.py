"""The configuration's keys for programs (JSON Schema) and for people (a page of Markdown), both from the models that read the files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.config_effects import EFFECTS, NAMED_BY, TABLES_OF_NAMES, Effect, effect_of
from orchestrator.config_models import ClusterModel, ModuleModel
from orchestrator.config_words import words_for

Schema = dict[str, Any]
KINDS: Final[Mapping[str, type[ClusterModel] | type[ModuleModel]]] = {"cluster": ClusterModel, "module": ModuleModel}
FILES: Final = {"cluster": "cluster.toml", "module": "modules/NAME.toml"}
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
SHOWN: Final = {
    Effect.LIVE: "live",
    Effect.NEXT_START: "from the next start on",
    Effect.STOPPED: "module stopped",
}


def json_schema(kind: str) -> Schema:
    """Of one of the two files, with a description of every key."""
    schema = KINDS[kind].model_json_schema()
    for key in keys_of(kind, schema):
        key.schema["description"] = key.words
    return {"$schema": DIALECT, "$id": f"lockstep.{kind}/1", **schema, "title": FILES[kind]}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a file. `schema` is its own part of the schema, which may be written to."""

    place: str  # as config_effects.py has it
    kind: str  # of a checker
    schema: Schema
    required: bool
    repeated: bool  # a list of tables
    table: bool

    @property
    def words(self) -> str:
        """What it means."""
        return words_for(self.place, self.kind)


def keys_of(kind: str, schema: Schema | None = None) -> Iterator[Key]:
    """Every key, the tables before what is in them."""
    whole = schema if schema is not None else KINDS[kind].model_json_schema()
    yield from _keys(whole, whole, kind, "")


def _keys(whole: Schema, table: Schema, place: str, kind: str) -> Iterator[Key]:
    for name, entry in table.get("properties", {}).items():
        there = f"{place}.{name}"
        inner = [found for found in _tables(whole, entry) if "properties" in found]
        repeated = any(_resolved(whole, each).get("type") == "array" for each in _variants(whole, entry)) and bool(inner)
        yield Key(there, kind, entry, name in table.get("required", ()), repeated, bool(inner))
        for found in inner:
            yield from _keys(whole, found, there, _kind_of(found) if there == "module.checker" else kind)


def _kind_of(table: Schema) -> str:
    return str(table.get("properties", {}).get("type", {}).get("const", ""))


def _variants(whole: Schema, schema: Schema) -> Iterator[Schema]:
    """What a value may be: through references and alternatives."""
    found = _resolved(whole, schema)
    alternatives = [*found.get("anyOf", ()), *found.get("oneOf", ())]
    if not alternatives:
        yield found
    for alternative in alternatives:
        yield from _variants(whole, alternative)


def _resolved(whole: Schema, schema: Schema) -> Schema:
    while "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _tables(whole: Schema, schema: Schema) -> Iterator[Schema]:
    for variant in _variants(whole, schema):
        if variant.get("type") == "array":
            yield from _variants(whole, variant.get("items", {}))
        else:
            yield variant


# ---- for people -------------------------------------------------------------------------------------------------------------

HEAD: Final = """\
# Every key of the configuration

Made by `hactl config schema --markdown` from what reads the files; [interfaces.md](interfaces.md#configuration) has the rules that span
several keys. *Change*: what it takes to apply another value with `hactl config apply`. `live`: at once, nothing is disturbed. `from the
next start on`: applied, and what runs keeps what it was started with. `module stopped`: refused while the module runs.
"""


def markdown() -> str:
    """The reference page."""
    parts = [HEAD]
    for kind, file in FILES.items():
        whole = KINDS[kind].model_json_schema()
        keys = list(keys_of(kind, whole))
        parts.append(f"\n## `{file}`\n")
        parts += _table(whole, [key for key in keys if key.place.count(".") == 1 and not key.table])
        for table in (key for key in keys if key.table):
            inner = [key for key in keys if key.place.startswith(f"{table.place}.") and key.place.count(".") == table.place.count(".") + 1]
            parts += _section(whole, kind, table, inner)
    return "\n".join(parts).rstrip() + "\n"


def _section(whole: Schema, kind: str, table: Key, keys: list[Key]) -> Iterator[str]:
    name = table.place.partition(".")[2]
    yield f"\n### `{f'[[{name}]]' if table.repeated else f'[{name}]'}`\n"
    yield f"{table.words}{_of_tables(table)}\n"
    kinds = list(dict.fromkeys(key.kind for key in keys if key.kind))
    if not kinds:
        yield from _table(whole, keys)
        return
    common = {key.place for key in keys if all(any(other.place == key.place and other.kind == each for other in keys) for each in kinds)}
    yield from _table(whole, [key for key in keys if key.place in common and key.kind == kinds[0]])
    for each in kinds:
        own = [key for key in keys if key.kind == each and key.place not in common]
        if own:
            yield f"\n`type = \"{each}\"`:\n"
            yield from _table(whole, own)


def _of_tables(table: Key) -> str:
    if table.place not in NAMED_BY or f"{table.place}+" not in EFFECTS:
        return ""
    return f" One more: {SHOWN[effect_of(f'{table.place}+')]}; one less: {SHOWN[effect_of(f'{table.place}-')]}."


def _table(whole: Schema, keys: list[Key]) -> Iterator[str]:
    yield "| key | value | default | change | |"
    yield "|---|---|---|---|---|"
    for key in keys:
        default = "**required**" if key.required else default_of(key.schema.get("default"))
        yield f"| `{key.place.rpartition('.')[2]}` | {type_of(whole, key.schema)} | {default} | {change_of(key.place)} | {key.words} |"


def change_of(place: str) -> str:
    """What it takes to apply another value."""
    if place in TABLES_OF_NAMES:
        return f"{SHOWN[effect_of(place)]}; one more: {SHOWN[effect_of(place + '+')]}"
    return SHOWN[effect_of(place)]


def default_of(value: Any) -> str:
    """What it is where nothing is written; empty: nothing."""
    return "" if value in (None, [], {}) else f"`{json.dumps(value)}`"


def type_of(whole: Schema, schema: Schema) -> str:
    """What may be written."""
    shown = []
    for variant in _variants(whole, schema):
        if variant.get("type") == "null":
            continue
        shown.append(_words_of(whole, variant))
    return " or ".join(dict.fromkeys(shown))


def _words_of(whole: Schema, variant: Mapping[str, Any]) -> str:
    if "enum" in variant or "const" in variant:
        return ", ".join(f"`{word}`" for word in variant.get("enum", [variant.get("const")]))
    match variant.get("type"):
        case "array":
            return f"list of {type_of(whole, variant.get('items', {})) or 'values'}"
        case "object":
            return "table"
        case "boolean":
            return "`true`, `false`"
        case "integer":
            return "number"
        case "string":
            return "text"
    return "value"
