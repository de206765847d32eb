"""A configuration as plain documents: every key with its value or its default, as the files have them, and what they mean where that
depends on other keys (a module's port and nodes, the name of a service). For comparing two of them, and for showing one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config import CLUSTER_FILE, MODULES_DIR, ClusterConfig, ModuleConfig, load_cluster, load_modules
from orchestrator.config_models import ClusterModel, ModuleModel
from orchestrator.config_text import read_config_text

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Documents:
    """A whole configuration that is valid."""

    cluster: Document
    modules: Mapping[str, Document]
    config: ClusterConfig
    configs: Mapping[str, ModuleConfig]


def read_documents(config_dir: Path) -> Documents:
    """All files; raises `ConfigError` with every complaint."""
    config = load_cluster(config_dir)
    configs = load_modules(config_dir, config)
    cluster = ClusterModel.model_validate(read_config_text(config_dir / CLUSTER_FILE, "has gone.").data).model_dump()
    return Documents(cluster, {name: _module(config_dir, found) for name, found in configs.items()}, config, configs)


def _module(config_dir: Path, config: ModuleConfig) -> Document:
    text = read_config_text(config_dir / MODULES_DIR / f"{config.name}.toml", "has gone.")
    document: dict[str, Any] = ModuleModel.model_validate(text.data).model_dump()
    document |= {"nodes": list(config.nodes), "replication_network": config.replication_network, "port": config.port}
    for shown, service in zip(document["service"], config.services, strict=True):
        shown["name"] = service.name
    return document


def as_toml(document: Document) -> str:
    """The document as a file that is read back as the same; keys without a value are left out."""
    return "\n".join(_tables(document, ())).strip() + "\n"


def _tables(table: Document, path: tuple[str, ...]) -> Iterator[str]:
    given = {key: value for key, value in table.items() if value is not None}
    for key, value in given.items():
        if not isinstance(value, dict) and not _is_tables(value):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in given.items():
        place = (*path, key)
        if isinstance(value, dict):
            yield from ("", f"[{'.'.join(map(_key, place))}]", *_tables(value, place))
        elif _is_tables(value):
            for entry in value:
                yield from ("", f"[[{'.'.join(map(_key, place))}]]", *_entry(entry))


def _entry(table: Document) -> Iterator[str]:
    """Of a list of tables: what lies in it stands on one line."""
    return (f"{_key(key)} = {_value(value)}" for key, value in table.items() if value is not None)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def _key(key: str) -> str:
    return key if key and all(letter.isalnum() and letter.isascii() or letter in "_-" for letter in key) else _value(key)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case list() | tuple():
            return f"[{', '.join(_value(entry) for entry in value)}]"
        case dict():
            return "{ " + ", ".join(f"{_key(key)} = {_value(entry)}" for key, entry in value.items()) + " }" if value else "{}"
    return '"' + "".join(_character(letter) for letter in str(value)) + '"'


def _character(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    return letter if letter.isprintable() else f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"
