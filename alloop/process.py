"""Who a process is, so that it can be recognised later: host, boot, pid and start time."""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@functools.cache
def boot_id() -> str:
    """Return the kernel's random id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat_fields(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()  # the command name may itself hold blanks and brackets


@dataclass(frozen=True)
class ProcessIdentity:
    """One process on one boot of one host; `start_ticks` is its start in clock ticks since that boot."""

    host: str
    boot: str
    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Return the identity of a live process; ProcessLookupError if there is none."""
        fields = _stat_fields(pid)
        if fields is None:
            raise ProcessLookupError(f"no process {pid}")
        return cls(platform.node(), boot_id(), pid, int(fields[19]))

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> ProcessIdentity:
        """Return the identity that `to_json` wrote; ignores keys it does not know."""
        return cls(record["host"], record["boot"], int(record["pid"]), int(record["start_ticks"]))

    def to_json(self) -> dict[str, Any]:
        """Return the identity as a JSON object."""
        return asdict(self)

    def is_local(self) -> bool:
        """Tell whether the process belongs to this host (in this or an earlier boot)."""
        return self.host == platform.node()

    def alive(self) -> bool:
        """Tell whether the process still runs; False for one of another host, whose life cannot be seen here."""
        if not self.is_local() or self.boot != boot_id():
            return False
        fields = _stat_fields(self.pid)
        return fields is not None and int(fields[19]) == self.start_ticks and fields[0] not in "ZX"


def this_process() -> ProcessIdentity:
    """Return the identity of the calling process."""
    return ProcessIdentity.of(os.getpid())
