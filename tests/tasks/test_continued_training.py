"""A killed training continues from its checkpoint, or from scratch if asked to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alloop.campaign import label_task
from alloop.decisions.training import apply_network
from alloop.glass.crystals import crystal, perturbed
from alloop.potential.environment import md_environment
from alloop.potential.training import last_step
from alloop.resources import find_template
from alloop.store import Store, Task, make_task, progress, read_json
from alloop.structure import to_record

pytestmark = pytest.mark.slow

STEPS = 1000
_LABEL: dict[str, Any] = {"labeler": "teter-rehearsal", "options": {}}
_NETWORK = {"cutoff_A": 4.0, "smoothing_A": 0.5, "sel": [24, 24, 48, 24], "neuron": [4, 8], "axis_neuron": 3}


def _labels(store: Store) -> list[Task]:
    rng = np.random.default_rng(5)
    structures = [perturbed(crystal("LiBSiO4").repeat(2), rattle_A=0.05, max_strain=0.02, rng=rng) for _ in range(6)]
    tasks = [label_task("label", f"l{n}", to_record(atoms), _LABEL, ()) for n, atoms in enumerate(structures)]
    folders = [str(store.prepare(task, "test", {})) for task in tasks]
    subprocess.run([sys.executable, "-m", "alloop.attempt", *folders], check=True, timeout=60)
    return tasks


def _start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "alloop.attempt", str(folder)], env=os.environ | md_environment(1))


def _last_step(folder: Path) -> int:
    return max((last_step(curve) for curve in folder.glob("attempts/*/work/train/lcurve.out")), default=0)


@pytest.mark.parametrize("resume", ["checkpoint", "scratch"])
def test_killed_training(tmp_path: Path, resume: str) -> None:
    store = Store(tmp_path)
    labels = _labels(store)
    template = apply_network(
        json.loads(find_template("deepmd/input.json").read_text()), _NETWORK | {"fitting_neuron": [16, 16]}
    )
    spec = {
        "type_map": ["Li", "B", "O", "Si"],
        "training": [task.key for task in labels],
        "held_out": [],
        "template": template,
        "backend": "tensorflow",
        "steps": STEPS,
        "start_lr": 0.005,
        "stop_lr": 0.0005,
        "save_every": 100,
        "compress": True,
        "resume": resume,
        "init": None,
        "seed": 11,
    }
    task = make_task("train", "train", "model.00", spec, tuple(spec["training"]))
    folder = store.prepare(task, "test", {label.key: label.folder for label in labels})
    running = _start(folder)
    deadline = time.monotonic() + 120
    while _last_step(folder) < 300:
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    while (told := progress(folder)) is None:
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    assert 0.0 <= told < 1.0
    running.kill()
    running.wait(30)
    assert not store.is_done(task)
    assert _start(folder).wait(180) == 0
    summary = read_json(store.result(task) / "summary.json")
    curve = np.loadtxt(store.result(task) / "lcurve.out")[:, 0]
    assert curve[0] == 0 and curve[-1] == STEPS
    assert len(set(curve)) == len(curve)
    if resume == "checkpoint":
        assert summary["started_from"].startswith("step ")
        assert int(summary["started_from"].split()[1]) >= 200
    else:
        assert summary["started_from"] == "scratch"
    assert (store.result(task) / summary["model"]).stat().st_size > 0
