"""Places where a test may end the process as abruptly as a power cut, to prove that recovery works there."""

from __future__ import annotations

import os
import signal
from pathlib import Path

VARIABLE = "ALLOOP_FAILPOINT"


def failpoint(name: str) -> None:
    """Kill this process with SIGKILL if ALLOOP_FAILPOINT is ``name`` (or ``name@file``, which fires once).

    With ``name@file`` the process is killed only while `file` exists, and removes it first.
    """
    wanted, _, once = os.environ.get(VARIABLE, "").partition("@")
    if wanted != name:
        return
    if once:
        if not Path(once).exists():
            return
        Path(once).unlink()
    os.kill(os.getpid(), signal.SIGKILL)
