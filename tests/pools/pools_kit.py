"""What the tests of pools share: fake queue commands on PATH, a link without dask, and a pool between them."""

from __future__ import annotations

import json
import queue
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alloop.pool_params import BatchPoolParam
from alloop.pools import Ended
from alloop.pools.batch import BatchPool
from alloop.pools.engine import Engine, Timing
from alloop.pools.jobs import JobRecords
from alloop.pools.link import Worker
from alloop.pools.queues import QueueWatch
from alloop.process import ProcessIdentity

HERE = Path(__file__).parent
COMMANDS = ("sbatch", "squeue", "scancel", "qsub", "qselect", "qstat", "qdel", "bsub", "bjobs", "bkill")
CAMPAIGN = "c0ffee" + "0" * 26
QUICK = Timing(
    look=0.05, poll=0.05, grace=0.3, end=0.3, backoff=0.2, longest_backoff=1.0, verdict=0.3, margin=5.0, quick=30.0
)


def params(**changes: Any) -> BatchPoolParam:
    about = {
        "type": "slurm",
        "tasks": ["label"],
        "walltime_minutes": 60,
        "submits_per_minute": 6000,
        "idle_minutes": 60,
    }
    return BatchPoolParam.model_validate(about | changes)


class FakeQueue:
    """The folder behind the fake commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin", "jobs", "scripts"):
            (folder / name).mkdir(parents=True)
        for command in COMMANDS:
            file = folder / "bin" / command
            file.write_text(f"#!{sys.executable} -IS\n{(HERE / 'fake_queue.py').read_text()}")
            file.chmod(0o755)

    def misbehave(self, what: str, how: str) -> None:
        (self.folder / what).write_text(how)

    def jobs(self) -> list[dict[str, str]]:
        return [json.loads(file.read_text()) for file in sorted((self.folder / "jobs").iterdir())]

    def run(self, number: str, host: str = "n1") -> None:
        """Let a job start."""
        file = self.folder / "jobs" / number
        file.write_text(json.dumps(json.loads(file.read_text()) | {"state": "running", "host": host}))

    def lose(self, number: str) -> None:
        (self.folder / "jobs" / number).unlink()

    def queries(self) -> int:
        file = self.folder / "queries"
        return len(file.read_text().splitlines()) if file.exists() else 0


class FakeFuture:
    """What dask would hold of an attempt."""

    def __init__(self) -> None:
        self.status = "pending"
        self._value: int | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def result(self) -> int | None:
        return self._value

    def release(self) -> None:
        pass

    def exception(self) -> BaseException | None:
        return self._error

    def raises(self, error: BaseException) -> None:
        """End because the function that dask ran raised."""
        self.status, self._error = "error", error
        for callback in self._callbacks:
            callback(self)

    def end(self, code: int | None) -> None:
        """Finish with a return code, or be lost."""
        self.status, self._value = ("finished", code) if code is not None else ("cancelled", None)
        for callback in self._callbacks:
            callback(self)


class FakeLink:
    """Workers appear and vanish as the test says; no scheduler, no processes."""

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder
        self.workers: dict[str, Worker] = {}
        self.problem = ""
        self.futures: list[FakeFuture] = []
        self.retired: list[str] = []
        self.ended: list[Any] = []
        self.there = True

    def address_file(self, interface: str | None) -> Path:
        return self.run_folder / "scheduler.address"

    def need(self) -> None:
        pass

    def ready(self) -> bool:
        return self.there

    def look_at(self, pool: str, jobs: set[str]) -> None:
        pass

    def submit(self, address: str, *_: Any) -> FakeFuture:
        self.futures.append(FakeFuture())
        return self.futures[-1]

    def retire(self, address: str) -> None:
        self.retired.append(address)
        self.workers = {name: worker for name, worker in self.workers.items() if worker.address != address}

    def terminate(self, address: str, owners: list[Any]) -> None:
        self.ended.append((address, owners))

    def connect(
        self, job: str, node: str = "n1", remaining_s: float = 3600.0, attempts: tuple[ProcessIdentity, ...] = ()
    ) -> None:
        now = time.monotonic()
        self.workers = self.workers | {
            job: Worker(f"tls://{node}:1/{job}/{now}", node, now + remaining_s, now, frozenset(attempts))
        }

    def disconnect(self, job: str) -> None:
        self.workers = {name: worker for name, worker in self.workers.items() if name != job}


class World:
    """One batch pool over a fake queue and a fake link; a new `drive` is a new driver on the same folder."""

    def __init__(self, root: Path) -> None:
        self.queue = FakeQueue(root / "queue")
        self.run_folder = root / "iterations" / "run"
        self.run_folder.mkdir(parents=True)
        self.watches: list[QueueWatch] = []
        self.pools: list[BatchPool] = []

    def drive(self, name: str = "vasp", timing: Timing = QUICK, **changes: Any) -> BatchPool:
        """Open a pool as a new driver would."""
        param = params(**changes)
        self.events: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self.link = FakeLink(self.run_folder)
        self.records = JobRecords(self.run_folder)
        self.watches.append(QueueWatch(param.type, timing.look))
        engine = Engine(
            self.run_folder,
            CAMPAIGN,
            1,
            self.link,
            self.records,
            {param.type: self.watches[-1]},
            timing,  # type: ignore[arg-type]
        )
        jobs = [job for job in self.records.load() if job.pool == name]
        self.pools.append(BatchPool(name, param, engine, self.events, jobs))
        return self.pools[-1]

    def record(self, name: str) -> dict[str, Any]:
        return json.loads((self.run_folder / "jobs" / f"{name}.json").read_text())

    def names(self) -> list[str]:
        return sorted(file.stem for file in (self.run_folder / "jobs").glob("*.json"))

    def ends(self) -> list[Ended]:
        found = []
        while not self.events.empty():
            found.append(self.events.get())
        return found

    def until(
        self, condition: Callable[[], Any], batches: int = 0, longest_s: float | None = None, seconds: float = 20.0
    ) -> Any:
        """Ask the newest pool again and again until something is so, and return what it is."""
        deadline = time.monotonic() + seconds
        while True:
            self.pools[-1].demand(batches, longest_s)
            found = condition()
            if found:
                return found
            assert time.monotonic() < deadline, f"did not come: {self.pools[-1].troubles()}, {self.queue.jobs()}"
            time.sleep(0.02)

    def settle(self, batches: int = 0, longest_s: float | None = None, seconds: float = 0.8) -> None:
        """Ask the newest pool for a while."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.pools[-1].demand(batches, longest_s)
            time.sleep(0.02)

    def close(self) -> None:
        for watch in self.watches:
            watch.close()
        for pool in self.pools:
            pool.close(cancel_jobs=False)
