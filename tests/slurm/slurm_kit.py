"""What the Slurm tests share: a campaign folder, tasks that sleep, pools with short times, and a small driver."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alloop import store
from alloop.pool_params import BatchPoolParam
from alloop.pools import Ended
from alloop.pools.batch import BatchPool
from alloop.pools.batch_host import BatchHost, open_batch_pools
from alloop.pools.engine import Timing
from alloop.store import Store, Task, make_task

HERE = Path(__file__).parent
CAMPAIGN = "c0ffee" + "0" * 26
QUICK = Timing(
    look=1.0, poll=0.5, grace=4.0, end=10.0, backoff=1.0, longest_backoff=4.0, verdict=4.0, margin=5.0, quick=30.0
)


def python_double(folder: Path) -> str:
    """The double of `python` as one executable."""
    file = folder / "python-that-sleeps"
    if not file.exists():
        file.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "sleeping_python.py"} "$@"\n')
        file.chmod(0o755)
    return str(file)


def pool_param(root: Path, **changes: Any) -> BatchPoolParam:
    about: dict[str, Any] = {
        "type": "slurm",
        "tasks": ["label"],
        "memory": "200MB",
        "walltime_minutes": 5,
        "idle_minutes": 0.2,
        "submits_per_minute": 600,
        "queue": "cpu",
        "python": python_double(root),
    }
    return BatchPoolParam.model_validate(about | changes)


class Campaign:
    """A folder of sleeping tasks, and whatever pools serve it now."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run_folder = root / "iterations" / "run"
        self.run_folder.mkdir(parents=True, exist_ok=True)
        self.tasks: dict[str, Task] = {}

    def sleeper(self, seconds: float, **spec: Any) -> str:
        """Put a task on disk and return its key."""
        number = len(self.tasks)
        task = make_task(
            "label", "iter.000000/label", f"frame.{number:02d}", {"number": number, "seconds": seconds} | spec
        )
        Store(self.root).prepare(task, CAMPAIGN, {})
        self.tasks[task.key] = task
        return task.key

    def folder(self, key: str) -> Path:
        return Store(self.root).folder(self.tasks[key])

    def done(self, key: str) -> bool:
        return (self.folder(key) / "result").is_dir()

    def attempts(self, key: str) -> list[dict[str, Any]]:
        """The records of all attempts at a task, oldest first."""
        found = [store.read_json(folder / "attempt.json") for folder in store.attempts(self.folder(key))]
        return sorted(found, key=lambda record: record["started"])

    def result(self, key: str) -> dict[str, Any]:
        return store.read_json(self.folder(key) / "result" / "label.json")

    def failures(self, key: str) -> list[str]:
        return [failure["class"] for failure in store.failures(self.folder(key))]


class SmallDriver:
    """Feeds the pools of a campaign: what waits goes to free slots, what ends without a result waits again."""

    def __init__(
        self, campaign: Campaign, params: dict[str, BatchPoolParam], epoch: int = 1, timing: Timing = QUICK
    ) -> None:
        self.campaign = campaign
        self.events: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self.host: BatchHost = open_batch_pools(params, self.events, campaign.run_folder, CAMPAIGN, epoch, timing)
        store.write_json(campaign.run_folder / "driver.json", {"epoch": epoch})
        self.waiting: dict[str, tuple[str, float]] = {}
        self.running: set[str] = set()
        self.ended: list[Ended] = []

    def pool(self, name: str) -> BatchPool:
        return self.host.pools[name]

    def want(self, pool: str, *keys: str, needs_s: float = 0.0) -> None:
        self.waiting |= dict.fromkeys(keys, (pool, needs_s))

    def adopt(self) -> list[str]:
        """Take over what still runs, as a new driver does."""
        found = []
        for key in self.campaign.tasks:
            folder = self.campaign.folder(key)
            for attempt in store.attempts(folder):
                record = store.read_json(attempt / "attempt.json")
                open_ = (attempt / "out").exists() and not (attempt / "failed.json").exists()
                if open_ and self.pool(record["pool"]).alive(record):
                    self.pool(record["pool"]).adopt(record, (key,), [folder])
                    self.running.add(key)
                    found.append(key)
        return found

    def step(self) -> None:
        for name, pool in self.host.pools.items():
            mine = [needs for where, needs in self.waiting.values() if where == name]
            pool.demand(len(mine), max(mine, default=None))
            for slot in pool.free_slots():
                fits = [k for k, (where, needs) in self.waiting.items() if where == name and needs <= slot.remaining_s]
                if fits:
                    del self.waiting[fits[0]]
                    self.running.add(fits[0])
                    pool.start(slot, (fits[0],), [self.campaign.folder(fits[0])])
        while not self.events.empty():
            ended = self.events.get()
            self.ended.append(ended)
            for key in ended.keys:
                self.running.discard(key)

    def until(self, condition: Callable[[], Any], seconds: float, what: str = "") -> Any:
        """Drive until something is so, and return what it is."""
        deadline = time.monotonic() + seconds
        while True:
            self.step()
            found = condition()
            if found:
                return found
            troubles = [trouble for pool in self.host.pools.values() for trouble in pool.troubles()]
            assert time.monotonic() < deadline, f"{what} did not come in {seconds} s; {troubles}; ended {self.ended}"
            time.sleep(0.2)

    def close(self, *, cancel_jobs: bool) -> None:
        for pool in self.host.pools.values():
            pool.close(cancel_jobs=cancel_jobs)
        self.host.close()
