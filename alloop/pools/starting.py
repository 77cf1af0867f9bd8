"""Starting the process of a batch: the command, where its output goes, and what dask knows of its end."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Container
from pathlib import Path
from typing import Any

CANNOT_START = 127
"""Return code of a process that could not be started at all, as a shell has it."""


def attempt_command(python: str | None, epoch: int, folders: list[Path]) -> list[str]:
    """Return the command that runs tasks one after the other."""
    return [python or sys.executable, "-m", "alloop.attempt", "--epoch", str(epoch), *map(str, folders)]


def run_process(command: list[str], environment: dict[str, str], log: str) -> int:
    """Run a command in its own session, its output appended to a file, and return its return code.

    Raises OSError if it cannot be started.
    """
    with Path(log).open("ab") as stream:
        child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
        return child.wait()


def outcome(future: Any) -> tuple[int | None, str]:
    """Return the return code that a dask future knows, None if it knows nothing, and why no process was started."""
    if future.status == "finished":
        return future.result(), ""
    error = future.exception() if future.status == "error" else None
    if isinstance(error, OSError | ImportError):
        return CANNOT_START, f"{type(error).__name__}: {error}"
    return None, ""


def log_problem(log: Path, problem: str) -> None:
    """Add a line to the log of what processes print before they begin a task; on a full disk it is left out."""
    with contextlib.suppress(OSError), log.open("a") as stream:
        stream.write(problem + "\n")


def free_number(wanted: Any, slots: int, taken: Container[int]) -> int:
    """Return the slot of so many that an attempt says it runs in; the lowest free one if there is none such."""
    if isinstance(wanted, int) and 0 <= wanted < slots and wanted not in taken:
        return wanted
    number = 0
    while number in taken:
        number += 1
    return number
