"""What `hactl status --check` exits with; all other exit codes are those of `rfs.exit_codes`, one table for every command."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CHECK: Mapping[str, int] = MappingProxyType({"redundant": 0, "degraded": 10, "down": 11, "diverged": 12, "resyncing": 13})
INTERRUPTED = 130
