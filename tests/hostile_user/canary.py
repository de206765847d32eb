"""What lies outside of the mirrored trees, and must be as it was whatever a user does within them."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

SECRET = b"nobody but root reads this: " + hashlib.sha256(b"canary").hexdigest().encode()


def build(place: Path) -> Path:
    """Of each kind one: what anybody may look at, what only root may, and whom chmod, chown or a write would change."""
    canary = place / "canary"
    for name, mode in (("open", 0o755), ("open/below", 0o755), ("closed", 0o700)):
        (canary / name).mkdir(parents=True, exist_ok=True)
        (canary / name).chmod(mode)
    for name, mode in (("open/file", 0o644), ("open/suid", 0o4755), ("open/below/n1", 0o640), ("closed/secret", 0o600)):
        (canary / name).write_bytes(SECRET if "secret" in name else b"as it was\n" * 100)
        (canary / name).chmod(mode)
    os.setxattr(canary / "open/file", "user.canary", b"as it was")
    for number in range(24):  # the names that the racer uses, so that a path through his link finds something
        (canary / f"open/n{number}").write_bytes(b"as it was\n")
    os.symlink("open/file", canary / "link")
    os.mkfifo(canary / "open/pipe", 0o600)
    return canary


def fingerprint(canary: Path) -> dict[str, object]:
    """Everything that a call can change, ctime included: nobody touched it, not even to put it back."""
    found: dict[str, object] = {}
    for place, below, files in os.walk(canary):
        below.sort()
        for entry in (Path(place), *(Path(place, name) for name in files)):
            status = entry.lstat()
            names = sorted(os.listxattr(entry, follow_symlinks=False))
            about = [getattr(status, f"st_{field}") for field in ("ino", "mode", "nlink", "uid", "gid", "size", "mtime_ns", "ctime_ns")]
            attributes = {name: os.getxattr(entry, name, follow_symlinks=False) for name in names}
            content = entry.read_bytes() if stat.S_ISREG(status.st_mode) else os.readlink(entry) if entry.is_symlink() else ""
            found[str(entry)] = (about, attributes, content)
    return found


def holds_secret(tree: Path) -> list[str]:
    """The files in it with what only root reads."""
    found = []
    for place, _, files in os.walk(tree):
        for entry in (Path(place, name) for name in files):
            if stat.S_ISREG(entry.lstat().st_mode) and SECRET in entry.read_bytes():
                found.append(str(entry))
    return found
