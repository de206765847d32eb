"""`hactld --guard`: the read-only guards of this node's modules, early in a boot (orchestrator/systemd/lockstep-guard.service).

Only where the machine went down with them: a module that never ran here, or is open for maintenance, is left as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from orchestrator.config import ModuleConfig
from orchestrator.paths import Paths
from rfs import exit_codes
from rfs.errors import SaidNo
from rfs.guard_command import run as guard


def lay_guards(modules: Mapping[str, ModuleConfig], node: str, paths: Paths) -> int:
    """The exit code: one module that cannot be guarded keeps no other from it. What is not guarded is compared when it is back."""
    code = exit_codes.DONE
    for name, config in modules.items():
        state_directory = paths.module_state(name)
        if node not in config.nodes or not (state_directory / "guards").exists() or paths.is_open(name):
            continue
        try:
            guard([replicated.directory for replicated in config.replicated], str(state_directory))
        except (SaidNo, OSError) as failure:
            print(f"hactld: module {name} is not guarded: {failure}", file=sys.stderr)
            code = exit_codes.FAILED
    return code
