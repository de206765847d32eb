"""What `hactl status --check` and `hactl doctor` exit with; all others are those of `rfs.exit_codes`, one table for every command."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CHECK: Mapping[str, int] = MappingProxyType({"redundant": 0, "degraded": 10, "down": 11, "diverged": 12, "resyncing": 13})
DOCTOR: Mapping[str, int] = MappingProxyType({"ok": 0, "warn": 10, "bad": 1})
INTERRUPTED = 130
