"""Cancelling the batch jobs of a campaign without a driver, from their records, until the queue is rid of them."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from alloop.errors import InputError
from alloop.pools import jobqueue, scheduler
from alloop.pools.drain import end_file
from alloop.pools.engine import Timing
from alloop.pools.jobs import Job, JobRecords
from alloop.pools.queues import CommandError, QueuedJob, query
from alloop.pools.worker import terminate

LOOK_SECONDS = 2.0
LEAVING_SECONDS = 90.0
"""Slurm's KillWait is 30 s, and a look into the queue may take some."""
_MISSING_LOOKS = 2


def jobs_on_record(run_folder: Path) -> list[Job]:
    """Return the campaign's jobs that are not known to be gone."""
    if not (run_folder / "jobs").is_dir():
        return []
    return [job for job in JobRecords(run_folder).load() if job.gone is None]


def cancel_jobs(run_folder: Path, jobs: list[Job], check: Callable[[], None]) -> list[Job]:
    """Cancel jobs, note which are gone, and return those that are still in the queue after a minute and a half.

    A job whose submission nobody saw the end of is looked for by its name for a while; should it come later, it finds
    that it is to end. check: called before each look, raises if the campaign is no longer the caller's.
    InputError if the queue does not say what it holds.
    """
    records, left = JobRecords(run_folder), list(jobs)
    for job in jobs:
        end_file(run_folder, job.name).touch()
        job.told = job.told or time.time()
        records.save(job)
    asked: set[str] = set()
    missing: Counter[str] = Counter()
    deadline, problem = time.monotonic() + LEAVING_SECONDS, ""
    while left and time.monotonic() < deadline:
        check()
        problem = ""
        for kind in {job.kind for job in left}:
            of_kind = [job for job in left if job.kind == kind]
            try:
                _look(kind, of_kind, asked, missing)
            except CommandError as error:
                problem = str(error)
        for job in [job for job in left if missing[job.name] >= _MISSING_LOOKS]:
            job.gone, job.cause = time.time(), "infra"
            left.remove(job)
        for job in jobs:
            records.save(job)
        if left:
            time.sleep(LOOK_SECONDS)
    if problem:
        names = ", ".join(job.name for job in left)
        raise InputError(f"the queue does not answer: {problem}\n  job(s) {names}: cancel them by hand, or try again")
    return left


def _look(kind: str, jobs: list[Job], asked: set[str], missing: Counter[str]) -> None:
    """Cancel jobs of one batch system not asked to be cancelled so far, and count the looks that do not show them."""
    _cancel(kind, [job.id for job in jobs if job.id is not None], asked)
    found: dict[str, QueuedJob] = query(kind)
    for job in jobs:
        if job.name in found:
            job.id, missing[job.name] = found[job.name].id, 0
        elif job.id is not None or time.time() - job.created > Timing.grace:
            missing[job.name] += 1
    _cancel(kind, [found[job.name].id for job in jobs if job.name in found], asked)


def _cancel(kind: str, ids: list[str], asked: set[str]) -> None:
    fresh = [job_id for job_id in ids if job_id not in asked]
    if fresh:
        with contextlib.suppress(CommandError):  # one that is gone cannot be cancelled; the queue tells of the others
            jobqueue.cancel(kind, fresh)
            asked.update(fresh)


def end_scheduler(run_folder: Path, campaign_id: str) -> None:
    """End the scheduler that an earlier driver left for the jobs, if it runs on this host."""
    record = scheduler.read_record(run_folder, campaign_id)
    if record is not None:
        terminate([record])
