"""What there is to ask: `GET /v1`, and the shape of each answer."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from orchestrator.api import schemas
from orchestrator.api.roles import ROUTES, VERBS, WORDS
from orchestrator.api.server import ApiError, Request
from rfs import exit_codes


def index(request: Request) -> dict[str, Any]:
    """Every route with the least role that may, and who asks."""
    routes = [(method, path, role) for (method, path), role in ROUTES.items()]
    routes += [("POST", f"/v1/modules/*/{verb}", role) for verb, role in VERBS.items()]
    return {
        "schema": "hactl.index/1",
        "version": release(),
        "roles": list(WORDS),
        "you": {"name": request.asker.name, "role": request.asker.role.word},
        "schemas": list(schemas.NAMES),
        "routes": [{"method": method, "path": path, "role": role.word} for method, path, role in sorted(routes)],
    }


def release() -> str:
    """Of this hactld."""
    try:
        return version("lockstep-ha")
    except PackageNotFoundError:
        return "unknown"


def schema_of(name: str) -> dict[str, Any]:
    """A JSON Schema by the name in a document; the version is part of it: `hactl.status-1` in a path."""
    stem, _, number = name.rpartition("-")
    full = f"{stem}/{number}" if "/" not in name else name
    if full not in schemas.NAMES:
        raise ApiError(f"there is no schema '{name}'; GET /v1 lists them; write '-' for the '/'", exit_codes.USAGE, 404)
    return schemas.schema(full)
