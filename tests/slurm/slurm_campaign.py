"""A real `alloop run` on a real Slurm with quick doubles of the tasks, and what the kills of its processes cost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

sys.path.append(str(Path(__file__).resolve().parents[1] / "quick_tasks"))
from quick_kit import PYTHON, quick_environment
from slurm_daemons import Slurm, until

from alloop.campaign import Campaign
from alloop.process import ProcessIdentity
from alloop.store import attempts, read_json

POOL = {
    "type": "slurm",
    "memory": "200MB",
    "walltime_minutes": 30,
    "idle_minutes": 1,
    "submits_per_minute": 600,
    "python": PYTHON,
}
PARAM: dict[str, Any] = {
    "name": "killed",
    "seed": 11,
    "glasses": [{"name": "LBS-20-60-20", "n_atoms": [42]}],
    "bootstrap": {"trajectories": 3, "snapshots": 4, "strained_copies": 1, "held_out_fraction": 0.3},
    "train": {"models": 2, "after_labels": 4},
    "explore": {"temperatures_K": [300, 1000, 2000], "ramps": [], "chunk_ps": 1.0, "chunks": 2, "trajectories": 2},
    "select": {"max_labels": 12, "audit": 2, "min_separation_ps": 0.02},
    "label": {"labeler": "teter-rehearsal", "per_process": 1},
    "stop": {"max_iterations": 5},
}
SMALL: dict[str, Any] = {
    "bootstrap": PARAM["bootstrap"] | {"trajectories": 2, "snapshots": 2, "strained_copies": 0},
    "explore": PARAM["explore"] | {"temperatures_K": [300, 1000], "chunks": 1, "trajectories": 1},
    "select": PARAM["select"] | {"max_labels": 4, "audit": 1},
    "stop": {"max_iterations": 1},
}
"""Changes to a campaign of few labels."""
SLEEPS = {
    "label": {"seconds": [2.0, 1.5]},
    "train": {"seconds": 3.0},
    "explore": {"seconds": [1.0, 0.5], "candidates": [0.5, 0.4, 0.3]},
    "evaluate": {"force_rmse_eV_A": [0.5, 0.4, 0.3]},
}
CONTROLLER_AWAY_S = 5.0


def pools(queue: str = "cpu", jobs: int = 2, local: int = 2, walltime_minutes: float = 30) -> dict[str, Any]:
    """Labels in jobs of one partition (of this walltime), training in those of the other, the rest by the driver."""
    other = {"cpu": "gpu", "gpu": "cpu"}[queue]
    labels = {"tasks": ["label"], "queue": queue, "jobs": jobs, "slots_per_job": 2, "cores": 2}
    return {
        "local": {"slots": local, "python": PYTHON},
        "labels": POOL | labels | {"walltime_minutes": walltime_minutes},
        "trainers": POOL | {"tasks": ["train"], "queue": other, "jobs": 1},
    }


class SlurmCampaign:
    """One campaign folder, its driver, and whatever belongs to it on this machine."""

    def __init__(self, folder: Path, slurm: Slurm, **changes: Any) -> None:
        self.folder = folder
        self.slurm = slurm
        self.changes = changes
        self.alloop = [sys.executable, "-m", "alloop"]
        self.sleeps = SLEEPS
        self.process: subprocess.Popen[bytes] | None = None
        self.in_flight: Counter[str] = Counter()
        folder.mkdir(parents=True)

    @property
    def run_folder(self) -> Path:
        return self.folder / "iterations" / "run"

    def start(self, **places: Any) -> None:
        """Start (or resume) the driver with pools as given."""
        (self.folder / "param.json").write_text(json.dumps(PARAM | {"pools": pools(**places)} | self.changes))
        environment = os.environ | quick_environment(self.folder / "quick.json", **self.sleeps)
        with (self.folder / "driver.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.alloop, "run", "-C", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def ended(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def log(self) -> str:
        return (self.folder / "driver.log").read_text(errors="replace")

    # -------------------------------------------------------------------------------- its processes

    def attempts_running(self, job: str | None = None) -> dict[str, list[ProcessIdentity]]:
        """Task folder -> the processes that work on it now (in one job, if it is named)."""
        found: dict[str, list[ProcessIdentity]] = {}
        for path, folders, _ in os.walk(self.folder / "iterations"):
            if "attempts" in folders:
                folders.clear()
                for attempt in attempts(Path(path)):
                    with contextlib.suppress(OSError, ValueError, KeyError):
                        record = read_json(attempt / "attempt.json")
                        owner = ProcessIdentity.from_json(record)
                        if (attempt / "out").exists() and owner.alive() and job in (None, record.get("job")):
                            found.setdefault(Path(path).name, []).append(owner)
        return found

    def wait_for_attempts(self, seconds: float, count: int = 1) -> None:
        """Wait until so many attempts run, or the driver has ended."""
        deadline = time.monotonic() + seconds
        while len(self.attempts_running()) < count and not self.ended() and time.monotonic() < deadline:
            time.sleep(0.2)

    def scheduler(self) -> ProcessIdentity | None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            process = ProcessIdentity.from_json(read_json(self.run_folder / "scheduler.json"))
            return process if process.alive() else None
        return None

    def workers(self) -> list[psutil.Process]:
        """The dask workers in this campaign's jobs, by what their job script put into their environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if "distributed.cli.dask_worker" in " ".join(process.cmdline()):
                    place = process.environ().get("ALLOOP_ADDRESS", "")
                    if place.startswith(str(self.run_folder.resolve())):
                        found.append(process)
        return found

    def jobs_at_work(self) -> dict[str, str]:
        """Name -> id of this campaign's running jobs in which attempts run."""
        own = {file.stem for file in (self.run_folder / "jobs").glob("*.json")}
        lines = self.slurm.ask("squeue", "-h", "-t", "RUNNING", "-o", "%j %i").splitlines()
        running = dict(line.split() for line in lines)
        return {name: running[name] for name in sorted(own & running.keys()) if self.attempts_running(name)}

    def kill(self, victim: str, rng: random.Random) -> bool:
        """Kill something the campaign lives on; False if there is none now. Notes what was in flight.

        driver, scheduler, worker: SIGKILL; job: one at work is cancelled; controller: slurmctld gets SIGKILL and is
        back after some seconds, which is no excuse for any repeated work.
        """
        if victim == "controller":
            self._kill_controller()
            return True
        if victim == "job":
            return self._cancel_job(rng)
        running = self.attempts_running()
        if victim == "driver":
            assert self.process is not None
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        elif victim == "scheduler":
            scheduler = self.scheduler()
            if scheduler is None:
                return False
            os.kill(scheduler.pid, signal.SIGKILL)
        else:
            workers = self.workers()
            if not workers:
                return False
            rng.choice(workers).kill()
        self.in_flight.update(running.keys() | self.attempts_running().keys())
        return True

    def _kill_controller(self) -> None:
        self.slurm.save_jobs()
        self.slurm.kill_controller()
        time.sleep(CONTROLLER_AWAY_S)
        self.slurm.start_controller()
        until(lambda: bool(self.slurm.ask("sinfo", "-h")), 30, "controller")

    def _cancel_job(self, rng: random.Random) -> bool:
        jobs = self.jobs_at_work()
        if not jobs:
            return False
        name = rng.choice(list(jobs))
        running = self.attempts_running(name)
        self.slurm.ask("scancel", jobs[name])
        self.in_flight.update(running.keys() | self.attempts_running(name).keys())
        return True

    def end_everything(self) -> None:
        """End what this campaign has started and what still runs; jobs end with their workers and attempts."""
        for processes in self.attempts_running().values():
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if (scheduler := self.scheduler()) is not None:
            os.kill(scheduler.pid, signal.SIGKILL)
        for worker in self.workers():
            with contextlib.suppress(psutil.Error):
                worker.kill()

    # -------------------------------------------------------------------------------- what came of it

    def expired(self) -> Counter[str]:
        """Task folder -> how many of its attempts were ended when the walltime of their job was over."""
        found: Counter[str] = Counter()
        for file in (self.folder / "iterations").glob("**/attempts/*/failed.json"):
            failure = read_json(file)
            if failure["class"] == "walltime" and self._was_over(failure):
                found[file.parents[2].name] += 1
        return found

    def _was_over(self, failure: dict[str, Any]) -> bool:
        job = read_json(self.run_folder / "jobs" / f"{failure['job']}.json")
        return datetime.fromisoformat(failure["time"]).timestamp() > job["ends"]

    def account(self) -> dict[str, Any]:
        """Count attempts, repeated ones among them, and everything that must not be."""
        campaign = Campaign(self.folder)
        state = campaign.load()
        repeated, unexplained, after_end = 0, [], []
        ended = self.in_flight + self.expired()
        for key, task in state.tasks.items():
            folders = campaign.attempts_at(key)
            repeated += max(0, len(folders) - 1)
            if len(folders) > 1 + ended[Path(task.folder).name]:
                unexplained.append(f"{task.folder}: {len(folders)} attempts")
            if key in state.done:
                done = read_json(campaign.result(key) / "MANIFEST.json")["record"]["ended"]
                begun = [read_json(folder / "attempt.json")["started"] for folder in folders]
                after_end += [task.folder for started in begun if started > done]
        labels = [key for key, task in state.tasks.items() if task.kind == "label"]
        lost = [key for key in labels if key not in state.done and key not in state.quarantined]
        return {
            "tasks": len(state.tasks),
            "labels": len(labels),
            "attempts": sum(len(campaign.attempts_at(key)) for key in state.tasks),
            "repeated": repeated,
            "in_flight_at_kills": self.in_flight.total(),
            "expired": self.expired().total(),
            "unexplained": unexplained,
            "begun_after_the_end": after_end,
            "labels_lost": lost,
            "quarantined": len(state.quarantined),
        }
