"""Stands in for a round: errors fall with the number of labels, nothing is trained.

FAKE_ROUND_LOG gets a line per start; FAKE_ROUND_SLEEP names a number of labels from which on it hangs, FAKE_ROUND_FAIL
one at which it fails.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

from alloop.bench_select.pool import read_labels
from alloop.bench_select.round_task import DESCRIPTORS, EVALUATION, RECORD


def end_with_input() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


threading.Thread(target=end_with_input, daemon=True).start()
folder, pool, *parent = map(Path, sys.argv[1:])
spec = json.loads((folder / "spec.json").read_text())
count = len(spec["labels"])
with Path(os.environ["FAKE_ROUND_LOG"]).open("a") as log:
    log.write(f"{folder.name.rpartition('.')[0].lstrip('.')}:{os.getpid()}\n")
if count >= int(os.environ.get("FAKE_ROUND_SLEEP", "1000000")):
    time.sleep(600)
if count == int(os.environ.get("FAKE_ROUND_FAIL", "-1")):
    sys.exit("no convergence, says the stand-in")
assert bool(parent) == bool(spec["parent"])
assert not parent or (parent[0] / RECORD).is_file()
labels, test = read_labels(pool)
rng = np.random.default_rng(spec["seeds"])
atoms = sum(len(label.atoms) for label in labels)
forces = np.concatenate([label.forces_eV_A for label in test])
arrays = {
    "deviation_eV_A": rng.random(atoms, dtype=np.float32),
    "test_forces_eV_A": forces + rng.normal(size=(2, *forces.shape)) / count,
    "test_energies_eV": np.array([label.energy_eV for label in test]) + rng.normal(size=(2, len(test))) / count,
}
np.savez(folder / EVALUATION, **arrays)
if spec["descriptor_size"]:
    np.save(folder / DESCRIPTORS, rng.normal(size=(atoms, spec["descriptor_size"])).astype(np.float32))
(folder / RECORD).write_text(json.dumps({"labels": count, "seconds": {"train": 0.0, "evaluate": 0.0}}))
