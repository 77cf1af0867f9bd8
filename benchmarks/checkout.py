"""Which code a benchmark measured."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path


def commit() -> str:
    """The commit of this checkout, with a plus if files differ from it; empty outside of one."""
    here = str(Path(__file__).resolve().parent)
    command = ["git", "-C", here, "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def content(*folders: str) -> str:
    """A hash of all files of some folders of this checkout as they are now: commits that leave them alone share it."""
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    found = hashlib.sha256()
    for name in sorted(name for name in set(names) if name and (root / name).exists()):
        found.update(f"{name} {hashlib.sha256((root / name).read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()[:12]
