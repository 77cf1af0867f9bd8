"""One round in a process of its own: train an ensemble on the labels chosen so far, and evaluate it on the whole pool.

Started as ``python -m alloop.bench_select.round_task FOLDER POOL [PARENT]`` with the environment of
:func:`alloop.potential.environment.md_environment`. FOLDER holds ``spec.json`` (see `alloop.bench_select.experiment`),
POOL the ``frames.npz`` of the pool, PARENT the round whose weights are trained on. The process ends as soon as its
standard input does, so that it never outlives who started it.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alloop.bench_select.pool import read_labels
from alloop.frames import write_arrays
from alloop.potential.dataset import type_indices, write_systems
from alloop.potential.training import LCURVE, LOG, TrainRequest, train
from alloop.selection.deviation import force_deviation
from alloop.store import read_json, write_json
from alloop.structure import LabeledFrame

EVALUATION, DESCRIPTORS, RECORD = "evaluation.npz", "descriptors.npy", "record.json"


def main() -> None:
    """Do the round in the folder of the command line."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    folder, pool, *parent = map(Path, sys.argv[1:])
    run(folder, pool, parent[0] if parent else None)


def _end_with_input() -> None:
    while os.read(0, 1):  # not through sys.stdin, whose lock a daemon thread may not hold at the end
        pass
    os._exit(1)


def run(folder: Path, pool: Path, parent: Path | None) -> None:
    """Write checkpoints, ``evaluation.npz``, ``descriptors.npy`` if asked for, and last of all ``record.json``.

    ``evaluation.npz`` holds of all A pool atoms ``deviation_eV_A`` (A,), and of the K models on the test set
    ``test_forces_eV_A`` (K, A', 3) and ``test_energies_eV`` (K, F').
    """
    began = time.monotonic()
    spec = read_json(folder / "spec.json")
    labels, test = read_labels(pool)
    chosen = [labels[index] for index in spec["labels"]]
    systems = write_systems(chosen, folder / "data", spec["type_map"])
    models = [
        _train(spec, seed, folder / f"model.{number:02d}", systems, parent) for number, seed in enumerate(spec["seeds"])
    ]
    shutil.rmtree(folder / "data")
    trained = time.monotonic()
    write_arrays(folder / EVALUATION, evaluate(models, labels, test))
    if spec["descriptor_size"]:
        found = descriptors(models[0], labels)
        np.save(folder / DESCRIPTORS, principal_components(found, spec["descriptor_size"]))
    seconds = {"train": round(trained - began, 1), "evaluate": round(time.monotonic() - trained, 1)}
    write_json(folder / RECORD, {"labels": len(chosen), "seconds": seconds})


def _train(spec: dict[str, Any], seed: int, directory: Path, systems: Sequence[Path], parent: Path | None) -> Path:
    """Train one model and return its file; RuntimeError if it was to go on from weights that could not be used."""
    steps = spec["steps"]
    request = TrainRequest(
        template=spec["template"],
        type_map=spec["type_map"],
        training_systems=systems,
        n_steps=steps,
        seed=seed,
        start_lr=spec["start_lr"],
        stop_lr=spec["stop_lr"],
        init_checkpoint=_checkpoint(parent / directory.name) if parent else None,
        restart=False,
        save_freq=steps,
        compress=False,
    )
    trained = train(request, directory)
    if parent and trained.started_from != "warm start":
        raise RuntimeError(f"{directory.name} started from {trained.started_from}, not from the weights of {parent}")
    kept = {trained.model.name, LCURVE, LOG, *(file.name for file in trained.checkpoint_files)}
    for path in directory.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return trained.model


def _checkpoint(model: Path) -> Path:
    """Return the prefix of the checkpoint that a round left in a model's folder."""
    return next(model.glob("model.ckpt-*.index")).with_suffix("")


def evaluate(
    models: Sequence[Path], labels: Sequence[LabeledFrame], test: Sequence[LabeledFrame]
) -> dict[str, np.ndarray]:
    """Return the arrays of ``evaluation.npz``, atoms in the order of the frames."""
    from alloop.potential.ensemble import Ensemble

    ensemble = Ensemble(models)
    seen = ensemble.evaluate_many([label.atoms for label in labels])
    tested = ensemble.evaluate_many([label.atoms for label in test])
    return {
        "deviation_eV_A": np.concatenate([force_deviation(found.forces_eV_A) for found in seen]).astype(np.float32),
        "test_forces_eV_A": np.concatenate([found.forces_eV_A for found in tested], axis=1).astype(np.float32),
        "test_energies_eV": np.stack([found.energies_eV for found in tested], axis=1),
    }


def descriptors(model: Path, labels: Sequence[LabeledFrame]) -> np.ndarray:
    """Return DeePMD's own descriptor of every atom (A, D), frame after frame, those of one composition in one batch."""
    from deepmd.infer import DeepPot

    potential = DeepPot(str(model))
    type_map = potential.get_type_map()
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, label in enumerate(labels):
        groups[tuple(type_indices(label.atoms, type_map).tolist())].append(number)
    found: dict[int, np.ndarray] = {}
    for types, members in groups.items():
        coords = np.array([labels[number].atoms.positions.ravel() for number in members])
        cells = np.array([labels[number].atoms.cell.array.ravel() for number in members])
        values = potential.eval_descriptor(coords, cells, np.array(types))
        found |= dict(zip(members, values.reshape(len(members), len(types), -1), strict=True))
    return np.concatenate([found[number] for number in range(len(labels))])


def principal_components(values: np.ndarray, size: int) -> np.ndarray:
    """Return values (A, D) projected on the `size` directions of largest variance, float32 (A, min(size, D))."""
    centred = values - values.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    return (centred @ directions[:, ::-1][:, :size]).astype(np.float32)


if __name__ == "__main__":
    main()
