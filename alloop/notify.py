"""Telling a person that a run has ended or needs them, through a command of their own.

The command runs beside the driver, in a process that watches it and survives the driver: whatever becomes of it, the
campaign goes on. ``python -m alloop.notify`` is that process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from alloop.campaign import Campaign

Event = Literal["stopped", "failed", "converged", "limit", "budget", "paused"]
TIME_LIMIT_S = 60.0
_LOG = "notify.log"
_FAILED = "notify_failed.json"


def tell(
    command: str | None,
    event: Event,
    message: str,
    campaign: Campaign,
    *,
    say: Callable[[str], None] = lambda text: None,
    wait_s: float = 0.0,
    time_limit_s: float = TIME_LIMIT_S,
) -> None:
    """Start the person's command (none if it is None) in the background; never raises.

    The shell that runs it finds ALLOOP_EVENT, ALLOOP_MESSAGE, ALLOOP_CAMPAIGN and ALLOOP_FOLDER in its environment and
    is ended after `time_limit_s`. What it prints goes to ``run/notify.log``. If it fails, `say` hears of it from
    another thread, and so does ``alloop status``, see `trouble`. wait_s: how long to wait for its end, for a driver
    whose batch job would end all that it has started.
    """
    if command is None:
        return
    about = {
        "ALLOOP_EVENT": event,
        "ALLOOP_MESSAGE": message,
        "ALLOOP_CAMPAIGN": str(campaign.state.identity.get("name", campaign.root.name)),
        "ALLOOP_FOLDER": str(campaign.root),
    }
    watcher = [sys.executable, "-m", "alloop.notify", command, str(time_limit_s), str(campaign.run_folder)]
    try:
        process = subprocess.Popen(
            watcher,
            env=os.environ | about,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        heard = threading.Thread(target=_hear, args=(process, campaign.run_folder, say), daemon=True)
        heard.start()
        if wait_s > 0:
            heard.join(wait_s)
    except Exception as error:
        say(f"notify.command could not be started: {error}")


def _hear(process: subprocess.Popen[bytes], run_folder: Path, say: Callable[[str], None]) -> None:
    if process.wait() != 0:
        say(trouble(run_folder) or f"notify.command ended without a word; see {run_folder / _LOG}")


def trouble(run_folder: Path) -> str | None:
    """Return what a person should know of the last command, None if it did its work or there was none."""
    try:
        record = json.loads((run_folder / _FAILED).read_text())
        return f"notify.command for {record['event']} {record['problem']}; its output is in {run_folder / _LOG}"
    except (OSError, ValueError, LookupError, TypeError):
        return None


def run_command(command: str, time_limit_s: float, run_folder: Path) -> str | None:
    """Run a command through the shell, with all it starts, for so long at most; return what went wrong, or None."""
    with (run_folder / _LOG).open("ab") as log:
        log.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {_event()}: {command}\n".encode())
        log.flush()
        shell = subprocess.Popen(
            command, shell=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = shell.wait(time_limit_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
            return f"was ended after {time_limit_s:g} s"
    return f"failed with code {code}" if code else None


def _event() -> str:
    return os.environ.get("ALLOOP_EVENT", "")


def main(arguments: list[str]) -> int:
    """Run the command and leave a note if it failed; 1 if it did."""
    command, time_limit_s, run_folder = arguments[0], float(arguments[1]), Path(arguments[2])
    problem = run_command(command, time_limit_s, run_folder)
    if problem is None:
        (run_folder / _FAILED).unlink(missing_ok=True)
        return 0
    record: dict[str, Any] = {"event": _event(), "problem": problem, "time": datetime.now(UTC).isoformat()}
    (run_folder / _FAILED).write_text(json.dumps(record))
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
