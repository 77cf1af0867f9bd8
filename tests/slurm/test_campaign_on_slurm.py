"""A whole campaign on a real Slurm, whose driver is killed, hands over, and loses its scheduler."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from quick_kit import PYTHON, quick_environment
from slurm_daemons import Slurm, until

from alloop import store
from alloop.errors import DONE, NOT_CONVERGED
from alloop.process import ProcessIdentity

pytestmark = [pytest.mark.ci, pytest.mark.slow]

BATCH = {"type": "slurm", "memory": "300MB", "walltime_minutes": 10, "python": PYTHON, "submits_per_minute": 600}
PARAM: dict[str, Any] = {
    "name": "slurm",
    "seed": 5,
    "glasses": [{"name": "LBS-20-60-20", "n_atoms": [42]}],
    "bootstrap": {"trajectories": 3, "snapshots": 4, "strained_copies": 1, "held_out_fraction": 0.3},
    "explore": {"temperatures_K": [300, 1000], "ramps": [], "chunk_ps": 1.0, "chunks": 1, "trajectories": 2},
    "select": {"max_labels": 6, "audit": 2, "min_separation_ps": 0.02},
    "label": {"labeler": "teter-rehearsal", "per_process": 1},
    "stop": {"max_iterations": 3},
    "pools": {
        "local": {"slots": 2, "python": PYTHON},
        "vasp": BATCH | {"tasks": ["label"], "jobs": 2, "slots_per_job": 2, "queue": "cpu"},
        "trainers": BATCH | {"tasks": ["train"], "slots_per_job": 2, "queue": "gpu"},
    },
}


class Folder:
    """A campaign folder and its driver."""

    def __init__(self, root: Path, slurm: Slurm) -> None:
        self.root, self.run_folder = root, root / "iterations" / "run"
        (root / "param.json").write_text(json.dumps(PARAM))
        told = {"candidates": [0.3, 0.0]}
        doubles = {
            "label": {"seconds": 5}, "explore": told, "evaluate": told | {"force_rmse_eV_A": [0.5, 0.1]}
        }  # fmt: skip
        self.environment = slurm.environment | quick_environment(root / "quick.json", **doubles)
        self.driver: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        with (self.root / "out.txt").open("ab") as out:
            command = [sys.executable, "-m", "alloop", "run", "-C", str(self.root)]
            self.driver = subprocess.Popen(command, env=self.environment, stdout=out, stderr=out)
        return self.driver

    def said(self) -> str:
        return (self.root / "out.txt").read_text()

    def labels_at_work(self) -> set[ProcessIdentity]:
        """Processes of this host that label in a Slurm job now."""
        found = set()
        for file in self.root.glob("iterations/**/label/*/attempts/*/attempt.json"):
            record = store.read_json(file)
            if record["job"] and (file.parent / "out").exists():
                found.add(ProcessIdentity.from_json(record))
        return {process for process in found if process.alive()}

    def attempts(self) -> dict[str, int]:
        """Number of attempts at each task that ran in Slurm, by the task's folder."""
        found: dict[str, int] = {}
        for file in self.root.glob("iterations/**/attempts/*/attempt.json"):
            if store.read_json(file)["job"]:
                found[file.parents[2].name] = found.get(file.parents[2].name, 0) + 1
        return found


def test_campaign_survives_its_drivers_and_its_scheduler(slurm: Slurm, tmp_path: Path) -> None:
    folder = Folder(tmp_path, slurm)
    try:
        driver = folder.start()
        until(lambda: len(folder.labels_at_work()) == 4, 60, f"four labels; {folder.said()}")
        driver.kill()
        driver.wait()
        left = folder.labels_at_work()
        driver = folder.start()
        until(lambda: len(folder.labels_at_work() - left) >= 2, 60, f"further labels; {folder.said()}")
        at_work = folder.labels_at_work()
        driver.send_signal(signal.SIGUSR1)
        assert driver.wait(30) == NOT_CONVERGED, folder.said()
        assert (folder.run_folder / "handed-over").exists()
        assert any(process.alive() for process in at_work)
        driver = folder.start()
        until(lambda: len(folder.labels_at_work() - at_work) >= 2, 60, f"still further labels; {folder.said()}")
        scheduler = ProcessIdentity.from_json(store.read_json(folder.run_folder / "scheduler.json"))
        os.kill(scheduler.pid, signal.SIGKILL)
        assert driver.wait(200) == DONE, folder.said()
    finally:
        if folder.driver is not None and folder.driver.poll() is None:
            folder.driver.kill()
            folder.driver.wait()
    attempts = folder.attempts()
    assert len(attempts) > 15 and set(attempts.values()) == {1}, "nothing was paid twice"
    until(lambda: not slurm.ask("squeue", "-h"), 30, "end of all jobs")
    last = ProcessIdentity.from_json(store.read_json(folder.run_folder / "scheduler.json"))
    assert last != scheduler and not last.alive()
