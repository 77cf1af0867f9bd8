"""What an evaluation writes of its errors, against numbers worked out here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from alloop.potential.ensemble import EnsembleEvaluation
from alloop.store import read_json
from alloop.structure import LabeledFrame
from alloop.tasks import evaluate

SIZES = {"a": 4, "b": 10, "c": 6}


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[LabeledFrame, np.ndarray]]:
    """Labels, and forces (2, N, 3) by two models, that the evaluation is made to see."""
    rng = np.random.default_rng(4)
    known = {}
    for key, count in SIZES.items():
        forces = rng.normal(size=(count, 3))
        frame = LabeledFrame(Atoms(f"B{count}"), -7.0 * count, forces, np.zeros((3, 3)))
        known[key] = (frame, forces + rng.normal(scale=0.2, size=(2, count, 3)))

    class Known:
        def __init__(self, models: list[Path]) -> None:
            pass

        def evaluate_stream(self, structures: Iterable[Atoms]) -> Iterator[tuple[Atoms, EnsembleEvaluation]]:
            found = {len(atoms): forces for atoms, forces in ((f.atoms, forces) for f, forces in known.values())}
            for atoms in structures:
                yield atoms, EnsembleEvaluation(np.full(2, -7.0 * len(atoms)), found[len(atoms)], np.zeros((2, 3, 3)))

    monkeypatch.setattr(evaluate, "Ensemble", Known)
    monkeypatch.setattr(evaluate, "read_label", lambda result: known[result.name][0])
    return known


def measured(out: Path, keys: list[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    out.mkdir()
    spec = {"models": [], "sets": {"held_out": keys}}
    evaluate.run(SimpleNamespace(spec=spec, out=out, result_of=Path))  # type: ignore[arg-type]
    with np.load(out / "errors.npz") as stored:
        return {name: stored[name] for name in stored.files}, read_json(out / "summary.json")["held_out"]


def test_mean_absolute_error_of_force_components(tmp_path: Path, numbers: dict[str, Any]) -> None:
    errors, summary = measured(tmp_path / "out", ["a", "b", "c"])
    misses = [np.abs(forces - frame.forces_eV_A) for frame, forces in numbers.values()]
    for row, miss in enumerate(misses):
        assert errors["force_abs"][row] == pytest.approx(miss.sum(axis=(1, 2)))
    every = np.concatenate([miss.reshape(2, -1) for miss in misses], axis=1)
    assert summary["force_mae_eV_A"] == pytest.approx(every.mean())
    assert summary["force_mae_eV_A"] < summary["force_rmse_eV_A"]


def test_largest_force_error_is_that_of_single_models(tmp_path: Path, numbers: dict[str, Any]) -> None:
    errors, summary = measured(tmp_path / "out", ["a", "b", "c"])
    largest = [np.linalg.norm(forces - frame.forces_eV_A, axis=2).max(axis=1) for frame, forces in numbers.values()]
    assert errors["model_force_max"] == pytest.approx(np.array(largest))
    assert (errors["model_force_max"].max(axis=1) > errors["force_max"]).all(), "the mean force flatters"
    assert summary["max_force_error_eV_A"] == pytest.approx(np.max(largest))


def test_force_sample_is_of_the_labels_and_the_mean_force(
    tmp_path: Path, numbers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "SAMPLED_COMPONENTS", 45)
    errors, _ = measured(tmp_path / "out", ["a", "b", "c"])
    assert np.bincount(errors["sample_row"]).tolist() == [12, 15, 15]  # all of the smallest label
    for row, key in enumerate("abc"):
        frame, forces = numbers[key]
        chosen = errors["sample_row"] == row
        pairs = np.column_stack([errors[f"sample_{name}_eV_A"][chosen] for name in ("true", "mean")])
        there = np.column_stack([frame.forces_eV_A.ravel(), forces.mean(axis=0).ravel()])
        found = (np.abs(pairs[:, None] - there) < 1e-6).all(axis=2)
        assert found.any(axis=1).all() and found.sum() == len(pairs)  # pairs that belong together, none twice
    again, _ = measured(tmp_path / "again", ["a", "b", "c"])
    assert (again["sample_mean_eV_A"] == errors["sample_mean_eV_A"]).all()


def test_no_labels_no_sample(tmp_path: Path, numbers: dict[str, Any]) -> None:
    errors, summary = measured(tmp_path / "out", [])
    assert len(errors["sample_row"]) == len(errors["sample_true_eV_A"]) == 0
    assert summary["force_mae_eV_A"] is None
