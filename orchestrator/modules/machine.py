"""What is installed on this machine, as far as files tell: nothing is started, nothing is asked, so a tree of files is a machine too."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

UNIT_DIRECTORIES = (
    *("/etc/systemd/system", "/run/systemd/system", "/run/systemd/generator", "/run/systemd/generator.late"),
    *("/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"),
)
TEXT_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Machine:
    """All paths given and answered are the machine's own, whatever `root` is."""

    root: Path = Path("/")

    def at(self, path: str) -> Path:
        """Where this path of the machine can be read."""
        return self.root / path.lstrip("/")

    def exists(self, path: str) -> bool:
        """A file or directory; not a link to nothing."""
        return self.at(path).exists()

    def text(self, path: str) -> str:
        """What stands in a file; nothing where there is none, or none that can be read."""
        try:
            with self.at(path).open(encoding="utf-8", errors="replace") as file:
                return file.read(TEXT_BYTES_MAX)
        except OSError:
            return ""

    def matching(self, pattern: str) -> list[str]:
        """Paths, sorted."""
        return sorted(f"/{path.relative_to(self.root)}" for path in self.root.glob(pattern.lstrip("/")))

    def link(self, path: str) -> str:
        """Where a symbolic link leads, as it says; empty for anything else."""
        try:
            return str(self.at(path).readlink())
        except OSError:
            return ""

    def program(self, *candidates: str) -> str:
        """The first of them that is there; empty when none is."""
        return next((path for path in candidates if self.exists(path)), "")

    # ---- systemd ------------------------------------------------------------------------------------------------------------

    @property
    def has_systemd(self) -> bool:
        """Is systemd what runs this machine? (As sd_booted(3) finds it out.)"""
        return self.at("/run/systemd/system").is_dir()

    def has_unit(self, unit: str) -> bool:
        """A file of this unit, of the template that it is an instance of, or an init script of its name."""
        full = full_unit(unit)
        template = re.sub(r"@[^.]*\.", "@.", full)
        files = {full, template} if "@" in full else {full}
        places = [f"{directory}/{name}" for directory in UNIT_DIRECTORIES for name in files]
        return any(self.exists(place) or self.link(place) for place in places) or self.exists(
            f"/etc/init.d/{full.removesuffix('.service')}"
        )

    def first_unit(self, *candidates: str) -> str:
        """The first of these units that there is, where systemd runs; empty: none."""
        return next((unit for unit in candidates if self.has_systemd and self.has_unit(unit)), "")

    def starts_at_boot(self, unit: str) -> bool:
        """Is the unit enabled, by the links that `systemctl enable` makes?"""
        full = full_unit(unit)
        return any(self.matching(f"/etc/systemd/system/*.{kind}/{full}") for kind in ("wants", "requires"))


def full_unit(unit: str) -> str:
    """As systemd writes it."""
    return unit if unit.endswith((".service", ".socket", ".timer", ".target")) else f"{unit}.service"
