"""What the engine's tests share: small label tasks, waiting, and fingerprints of folders."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from alloop.campaign import label_task
from alloop.store import Store, Task, begin_attempt, publish, write_json
from alloop.structure import Record

REHEARSAL = {"labeler": "teter-rehearsal", "options": {}}


def structure(number: int) -> Record:
    """Twelve atoms near a grid of 2 Å, different for every number."""
    rng = np.random.default_rng(number)
    grid = 2.0 * np.stack(np.meshgrid(range(2), range(2), range(3), indexing="ij"), axis=-1).reshape(-1, 3) + 0.5
    return {
        "symbols": ["Li", "B", "O", "O", "Si", "O", "O", "B", "O", "O", "Li", "O"],
        "cell_A": [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 6.0]],
        "positions_A": (grid + rng.uniform(-0.1, 0.1, grid.shape)).tolist(),
    }


def level(labeler: str = "teter-rehearsal", **options: Any) -> dict[str, Any]:
    return {"labeler": labeler, "options": options}


def prepared_label(root: Path, number: int, of_level: dict[str, Any] = REHEARSAL) -> tuple[Task, Path]:
    """A label task on disk, ready to be attempted."""
    task = label_task("iter.000000/label", f"frame.{number:02d}", structure(number), of_level, ())
    return task, Store(root).prepare(task, "campaign-id", {})


def publish_text(folder: Path, key: str, text: str, file: str = "label.json") -> bool:
    """Attempt a task by hand: write one file and publish it."""
    attempt = begin_attempt(folder)
    (attempt.out / file).write_text(text)
    return publish(attempt, key, {"seconds": 1.0, "threads": 1})


def attempt_command(*folders: Path, epoch: int | None = None) -> list[str]:
    option = [] if epoch is None else ["--epoch", str(epoch)]
    return [sys.executable, "-m", "alloop.attempt", *option, *map(str, folders)]


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The condition's first true value; fails after some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("what the test waits for did not come")


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file and folder below, files with a hash of their content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def write_attempt(task_folder: Path, name: str, owner: dict[str, Any], failed: dict[str, Any] | None = None) -> Path:
    """An attempt folder as another process would have left it."""
    folder = task_folder / "attempts" / name
    (folder / "out").mkdir(parents=True)
    write_json(folder / "attempt.json", owner)
    if failed is not None:
        write_json(folder / "failed.json", failed)
    return folder


def failure_of(folder: Path) -> dict[str, Any]:
    """The one failure recorded for a task."""
    (file,) = (folder / "attempts").glob("*/failed.json")
    return json.loads(file.read_text())
