"""Where hactld keeps things."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """All directories, below one root (which only tests move)."""

    root: Path = Path("/")

    @property
    def state(self) -> Path:
        """What must survive a boot."""
        return self.root / "var/lib/lockstep"

    @property
    def run(self) -> Path:
        """What must not."""
        return self.root / "run/lockstep"

    @property
    def log(self) -> Path:
        """What people read afterwards."""
        return self.root / "var/log/lockstep"

    @property
    def socket(self) -> Path:
        """Where hactl finds hactld."""
        return self.run / "hactld.sock"

    @property
    def config(self) -> Path:
        """The configurations that were applied (generations.py)."""
        return self.state / "config"

    def module_state(self, module: str) -> Path:
        """rfsmount's state directory."""
        return self.state / "modules" / module

    def open_marker(self, module: str) -> Path:
        """There while the module's directories are open for maintenance."""
        return self.state / "open" / module

    def is_open(self, module: str) -> bool:
        """Are they?"""
        return self.open_marker(module).exists()

    def module_log(self, module: str) -> Path:
        """What the services and scripts of a module print."""
        return self.log / f"{module}.log"

    def script_logs(self, module: str) -> Path:
        """One file for each run of a script."""
        return self.log / "scripts" / module

    def script_state(self, module: str) -> Path:
        """Where the scripts of a module may keep what they want to."""
        return self.state / "scripts" / module

    @property
    def shim(self) -> Path:
        """Where scripts written for SafeKit find its command."""
        return self.run / "safekit"

    def rfs_log(self, module: str) -> Path:
        """What rfsmount prints."""
        return self.log / f"{module}.rfs.log"

    def make(self) -> None:
        """Create them all."""
        for directory in (self.state / "hactld", self.state / "modules", self.run / "services"):
            directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        self.log.mkdir(parents=True, exist_ok=True, mode=0o750)  # nobody knows what services print
