"""Is a document what its schema says? One place for tests of answers and of what commands print."""

from __future__ import annotations

from typing import Any

import jsonschema

from orchestrator.api import schemas


def check(document: Any) -> str:
    """Its name, when it has one that is known and is of that shape."""
    assert isinstance(document, dict) and "schema" in document, f"a document without a schema: {str(document)[:200]}"
    name = str(document["schema"])
    jsonschema.validate(document, schemas.schema(name), cls=jsonschema.Draft202012Validator)
    if name == "hactl.nodes/1":
        for inner in document["nodes"]:
            check(inner)
    return name
