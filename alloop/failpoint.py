"""Places where a test may end the process as abruptly as a power cut, to prove that recovery works there.

Every place is a commit point: just before or after something on disk changes for good. Environment variables arm them:

    ALLOOP_FAILPOINT=NAME       SIGKILL at the first point of this name; NAME@FILE: only while FILE exists, which goes
    ALLOOP_KILL_AT=K            SIGKILL at the K-th point this process passes, counted from 1
    ALLOOP_TORN_AT=K            the K-th write stops after half of its bytes, and SIGKILL follows
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

VARIABLE = "ALLOOP_FAILPOINT"
KILL_AT = "ALLOOP_KILL_AT"
TORN_AT = "ALLOOP_TORN_AT"


@dataclass
class Armed:
    """What ends this process where, and the names of the points and writes it has passed.

    by: the signal it sends itself; SIGSTOP makes it one that wakes up later.
    """

    name: str = ""
    once: str = ""
    kill_at: int = 0
    torn_at: int = 0
    by: signal.Signals = signal.SIGKILL
    points: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)

    def passes(self, name: str) -> None:
        """Note a point, and end the process if it is the one."""
        self.points.append(name)
        if len(self.points) == self.kill_at or (name == self.name and self._fires()):
            os.kill(os.getpid(), self.by)

    def _fires(self) -> bool:
        if not self.once:
            return True
        if not Path(self.once).exists():
            return False
        Path(self.once).unlink()
        return True

    def writes_to(self, stream: BinaryIO, data: bytes) -> None:
        """Write the data; half of it, followed by the end of the process, if it is this write."""
        self.writes.append(stream.name)
        if len(self.writes) == self.torn_at:
            stream.write(data[: len(data) // 2])
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        stream.write(data)


def from_environment(environment: Mapping[str, str]) -> Armed | None:
    """Return what the variables ask for, None if none is set."""
    if not any(environment.get(variable) for variable in (VARIABLE, KILL_AT, TORN_AT)):
        return None
    name, _, once = environment.get(VARIABLE, "").partition("@")
    return Armed(name, once, int(environment.get(KILL_AT, 0)), int(environment.get(TORN_AT, 0)))


armed = from_environment(os.environ)
"""None in all but tests, which also set it in a process they have forked."""


def failpoint(name: str) -> None:
    """Pass a commit point."""
    if armed is not None:
        armed.passes(name)


def write(stream: BinaryIO, data: bytes) -> None:
    """Write bytes to a file that is not in its place yet."""
    if armed is None:
        stream.write(data)
    else:
        armed.writes_to(stream, data)
