"""The templates there are."""

from __future__ import annotations

import importlib
from importlib import resources

from orchestrator.config_errors import did_you_mean
from orchestrator.modules.template import Template, Unfit

NAMES = ("generic", "light", "mariadb", "mysql", "nginx", "postgresql")


def template(name: str) -> Template:
    """By its name."""
    if name not in NAMES:
        raise Unfit(f'there is no template "{name}"; there are {", ".join(NAMES)}.{did_you_mean(name, NAMES)}')
    found = importlib.import_module(f"orchestrator.modules.{name}").TEMPLATE
    assert isinstance(found, Template)
    return found


def about(name: str) -> str:
    """What its README says."""
    return resources.files("orchestrator.modules").joinpath(name, "README.md").read_text(encoding="utf-8")
