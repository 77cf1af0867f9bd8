"""The jobs of batch pools on record: ``iterations/run/jobs/NAME.json``, written before a job is submitted.

The name is unique, so the queue can be asked for a job whose submission nobody saw the end of.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from alloop.pool_params import BatchPoolParam
from alloop.store import create_json_once, read_json, write_json

KEPT_SECONDS = 86400.0
"""How long the record and the log of a job that is gone are kept."""
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass
class Job:
    """One batch job.

    settings: hash of what its script was made from; slots: tasks at once in it; folder: the campaign's run folder
    then; id: the batch system's, None until known; node: where it runs, once known; created, ends, told, gone: seconds
    since 1970 when it was made, its walltime ends, it was told to end, and it was found gone; connected: its worker has
    once been connected; cause: why it is gone.
    """

    name: str
    pool: str
    kind: str
    settings: str
    slots: int
    created: float
    folder: str = ""
    id: str | None = None
    node: str | None = None
    ends: float | None = None
    told: float | None = None
    connected: bool = False
    gone: float | None = None
    cause: str = ""

    def remaining_s(self) -> float:
        """Return the seconds until the walltime ends, infinite while the job has not started."""
        return float("inf") if self.ends is None else self.ends - time.time()


@dataclass
class Live:
    """What the present driver knows of a job, besides its record; times on the monotonic clock.

    missing: looks into the queue in a row that did not show it; submitted: when its submission ended (None while it
    is under way); waiting: the queue shows it as not started; idle_since: since when no attempt runs in it.
    """

    job: Job
    missing: int = 0
    submitted: float | None = None
    waiting: bool = True
    idle_since: float = field(default_factory=time.monotonic)
    cancelled: float | None = None
    busy: dict[int, Any] = field(default_factory=dict)


class JobRecords:
    """The records of all jobs of one campaign folder."""

    def __init__(self, run_folder: Path) -> None:
        self.folder = run_folder / "jobs"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._here = str(run_folder.resolve())

    def load(self) -> list[Job]:
        """Return all jobs on record, and clear away those that have long been gone.

        Where a campaign folder was copied, the jobs on record belong to the original, and are left alone.
        """
        found = []
        for file in sorted(self.folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                record = read_json(file)
                job = Job(**{item.name: record[item.name] for item in fields(Job) if item.name in record})
                if job.gone is not None and time.time() - job.gone > KEPT_SECONDS:
                    self.clear(job)
                elif job.folder in ("", self._here) or not Path(job.folder).exists():
                    found.append(job)
        return found

    def clear(self, job: Job) -> None:
        """Delete what is left of a job."""
        for ending in ("log", "end", "json"):
            (self.folder / f"{job.name}.{ending}").unlink(missing_ok=True)

    def create(self, campaign_id: str, pool: str, param: BatchPoolParam, settings: str) -> Job:
        """Put a new job on record, under a name no other has."""
        while True:
            name = job_name(campaign_id, pool, param.type)
            job = Job(name, pool, param.type, settings, param.slots_per_job, time.time(), self._here)
            if create_json_once(self.folder / f"{name}.json", asdict(job)):
                return job

    def save(self, job: Job) -> None:
        """Replace a job's record; on a full disk the old one stays, and the queue knows better anyway."""
        with contextlib.suppress(OSError):
            write_json(self.folder / f"{job.name}.json", asdict(job))

    def log_tail(self, job: Job, lines: int = 3) -> str:
        """Return the last lines of what a job printed."""
        try:
            text = (self.folder / f"{job.name}.log").read_text(errors="replace")
        except OSError:
            return ""
        return " / ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())


def job_name(campaign_id: str, pool: str, kind: str) -> str:
    """Return a random name for a job; PBS gets a short one, as older ones allow 15 characters."""
    suffix = "".join(secrets.choice(_LETTERS) for _ in range(5))
    middle = "" if kind == "pbs" else f"{pool}-"
    return f"al-{campaign_id[:6]}-{middle}{suffix}"


def settings_hash(script: str) -> str:
    """Return a hash of a job script made for a fixed name."""
    return hashlib.sha256(script.encode()).hexdigest()[:16]
