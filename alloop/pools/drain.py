"""What a job does when its dask worker has ended: ``python -m alloop.pools.drain --code N --short N``.

The allocation is kept as long as an attempt runs in it. Ends with 0 if the worker shall start again (it crashed, or
there is a new scheduler), and with 1 once the job may end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

AGAIN, END = 0, 1
LOOK_SECONDS = 2.0
WITHOUT_SCHEDULER_SECONDS = 120.0
"""How long an idle job waits for a driver to start another scheduler."""
LAST_SECONDS = 60.0
SHORT_LIVES = 4
"""A worker that ended so often in a row within two minutes is not started again."""
PAUSE_SECONDS = 5.0


def attempts_in_job(job: str) -> Iterator[psutil.Process]:
    """Yield the attempt processes on this node that were started in a job.

    An attempt is the leader of its own session, carries the job in its environment and alloop.attempt in its command.
    """
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if not any("alloop.attempt" in part for part in process.cmdline()):
                continue
            leads = os.getsid(process.pid) == process.pid and process.status() != psutil.STATUS_ZOMBIE
            if leads and process.environ().get("ALLOOP_JOB") == job:
                yield process


def end_file(run_folder: Path, job: str) -> Path:
    """Return the file whose presence tells a job to end once no attempt runs in it."""
    return run_folder / "jobs" / f"{job}.end"


def address_now(file: Path) -> str:
    """Return the address of the scheduler there is now, empty if there is none."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def drain(code: int, short: int, environment: dict[str, str]) -> int:
    """Wait until the worker shall start again (0) or the job may end (1).

    code: the worker's; short: how often in a row it ended within two minutes.
    """
    job, run_folder = environment["ALLOOP_JOB"], Path(environment["ALLOOP_RUN"])
    deadline = float(environment["ALLOOP_JOB_END"]) - LAST_SECONDS
    address_file, known = Path(environment["ALLOOP_ADDRESS"]), environment["ALLOOP_SCHEDULER"]
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.append(1))
    began = time.monotonic()
    while True:
        if told:
            _end_attempts(job)
            told.clear()
            deadline = 0.0
        ending = end_file(run_folder, job).exists() or time.time() > deadline or short >= SHORT_LIVES
        crashed = code != 0 and time.monotonic() - began >= PAUSE_SECONDS * short
        if not ending and (crashed or address_now(address_file) not in ("", known)):
            return AGAIN
        waits = not ending and time.monotonic() - began < WITHOUT_SCHEDULER_SECONDS
        if not waits and not any(attempts_in_job(job)):
            return END
        time.sleep(LOOK_SECONDS)


def _end_attempts(job: str) -> None:
    """Pass on the batch system's signal to attempts it may not find itself, as their worker is gone."""
    for process in attempts_in_job(job):
        with contextlib.suppress(psutil.Error):
            process.terminate()


def main() -> int:
    """Drain the job this process runs in."""
    parser = argparse.ArgumentParser(prog="python -m alloop.pools.drain", description=__doc__)
    parser.add_argument("--code", type=int, required=True)
    parser.add_argument("--short", type=int, required=True)
    arguments = parser.parse_args()
    return drain(arguments.code, arguments.short, dict(os.environ))


if __name__ == "__main__":
    raise SystemExit(main())
