"""Batches that run in jobs, and how their end is seen without dask: in their files, by their process, in the queue."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alloop import store
from alloop.pools.link import Worker
from alloop.process import ProcessIdentity

NO_ATTEMPT_SECONDS = 60.0
"""A process nobody hears of any more, and that began no attempt for so long, never came to life."""
START_SECONDS = 5.0
"""So long after it was started a process shows among those of its node."""

KILLS = ("killed", "walltime", "interrupted")
"""Failure classes of an attempt that was ended from outside."""


@dataclass
class Batch:
    """Tasks that run one after the other in one process of a job.

    address: of the worker it was given to; future: of dask, None once the process has to be watched otherwise;
    before: attempts that are not of this batch; owner: the process, once known; began: on the monotonic clock;
    watched: since when it is watched; asked: a person asked for its end; return_code, killed: of a process that was
    ended from outside, and when that was noticed, while it is not clear whether its job was ended with it.
    """

    keys: tuple[str, ...]
    folders: list[Path]
    slot: int
    address: str
    future: Any = None
    before: frozenset[Path] = frozenset()
    owner: ProcessIdentity | None = None
    began: float = field(default_factory=time.monotonic)
    watched: float | None = None
    asked: bool = False
    return_code: int | None = None
    killed: float | None = None

    def attempts(self) -> list[Path]:
        """Return the attempts of this batch so far."""
        found = [folder for task in self.folders for folder in store.attempts(task) if folder not in self.before]
        if self.owner is not None:
            found = [folder for folder in found if store.attempt_owner(folder) == self.owner]
        return found

    def find_owner(self, job: str) -> None:
        """Learn from the attempts which process it is."""
        for folder in self.attempts() if self.owner is None else ():
            try:
                record = store.read_json(folder / "attempt.json")
                if record.get("job") == job:
                    self.owner = ProcessIdentity.from_json(record)
                    return
            except (OSError, ValueError, KeyError):
                continue

    def settled(self) -> bool:
        """Tell whether every task has a result, or a failure of this batch that was no kill from outside."""
        mine = self.attempts()
        return all(
            (folder / "result").is_dir()
            or any(_failed_itself(attempt) for attempt in mine if attempt.is_relative_to(folder))
            for folder in self.folders
        )

    def left_infra_failure(self) -> bool:
        """Tell whether one of its tasks failed for the machine's reasons, such as a full scratch disk."""
        return any(_failure_class(attempt) == "infra" for attempt in self.attempts())


def _failed_itself(attempt: Path) -> bool:
    return _failure_class(attempt) not in (None, *KILLS)


def _failure_class(attempt: Path) -> str | None:
    try:
        return str(store.read_json(attempt / "failed.json")["class"])
    except (OSError, ValueError, KeyError):
        return None


def existing_attempts(folders: list[Path]) -> frozenset[Path]:
    """Return all attempts there are now."""
    return frozenset(attempt for folder in folders for attempt in store.attempts(folder))


def sign_of_end(batch: Batch, job: str, worker: Worker | None, others: set[ProcessIdentity]) -> str | None:
    """Return how a watched batch ended, None while it may still run.

    "done": all its tasks have ended; "killed": its process is gone before that; "never began": there is no sign that
    it ever ran. A process on another host is seen by its job's worker, if that has one; without one the job ends with
    its last attempt, which the queue tells. others: the processes of other batches in the job.
    """
    batch.find_owner(job)
    if batch.settled():
        return "done"
    since = batch.watched or batch.began
    if batch.owner is None:
        if worker is None:
            return "never began" if time.monotonic() - since > NO_ATTEMPT_SECONDS else None
        return "never began" if worker.seen > since + START_SECONDS and not worker.attempts - others else None
    if batch.owner.is_local():
        return None if batch.owner.alive() else "killed"
    if worker is None or worker.seen <= since or batch.owner in worker.attempts:
        return None
    return "killed"
