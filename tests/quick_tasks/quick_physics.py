"""What stands for physics in the doubles: numbers that are functions of a structure, and models that miss them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from alloop.attempt import Context
from alloop.potential.ensemble import EnsembleEvaluation
from alloop.store import read_json
from alloop.structure import LabeledFrame, from_record

ENERGY_EV_ATOM = -7.0
_GIVEN: dict[bytes, LabeledFrame] = {}


def labelled(atoms: Atoms) -> LabeledFrame:
    """The label of a structure: the same numbers for the same positions, without meaning."""
    waves = np.sin(3.0 * atoms.positions)
    virial = np.diag(waves.sum(axis=0))
    return LabeledFrame(atoms, ENERGY_EV_ATOM * len(atoms) + float(waves.mean()), waves, virial)


def read_label(result: Path) -> LabeledFrame:
    """The label of a result, which the models then know as the truth about its structure."""
    record = read_json(result / "label.json")
    arrays = np.array(record["forces_eV_A"]), np.array(record["virial_eV"])
    frame = LabeledFrame(from_record(record["structure"]), record["energy_eV"], *arrays)
    _GIVEN[frame.atoms.positions.tobytes()] = frame
    return frame


def ensemble_number(model: Path) -> int:
    """The number of the ensemble a model belongs to, by the folder it was trained in."""
    found = re.search(r"/iter\.(\d+)/", str(model))
    return int(found.group(1)) if found else 0


def drawn_deviations(
    count: int, candidates: float, failed: float, trust: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Largest force deviations (count,) in eV/Å, of which exactly these shares lie between and above the levels."""
    low, high = trust
    counts = round(candidates * count), round(failed * count)
    classes = np.zeros(count, dtype=int)
    classes[: counts[0]], classes[counts[0] : counts[0] + counts[1]] = 1, 2
    least, most = np.array([0.1 * low, low, high]), np.array([low, high, 1.2 * high])
    rng.shuffle(classes)
    return least[classes] + rng.uniform(0.02, 0.98, count) * (most - least)[classes]


class QuickEnsemble:
    """Models that know the labels but for an error as large as told, and disagree as much as told."""

    force_rmse_eV_A = 0.0
    candidates = 0.0
    trust = (0.25, 1.0)
    rng = np.random.default_rng(0)

    def __init__(self, models: Sequence[Path]) -> None:
        self.count = len(models)

    def evaluate(self, atoms: Atoms) -> EnsembleEvaluation:
        return self.evaluate_many([atoms])[0]

    def evaluate_many(self, structures: Sequence[Atoms]) -> list[EnsembleEvaluation]:
        deviations = drawn_deviations(len(structures), self.candidates, 0.0, self.trust, self.rng)
        return [self._one(atoms, deviation) for atoms, deviation in zip(structures, deviations, strict=True)]

    def evaluate_stream(self, structures: Iterable[Atoms]) -> Iterator[tuple[Atoms, EnsembleEvaluation]]:
        """All at once, as shares of all are what is told."""
        taken = list(structures)
        return zip(taken, self.evaluate_many(taken), strict=True)

    def _one(self, atoms: Atoms, deviation_eV_A: float) -> EnsembleEvaluation:
        truth = _GIVEN.get(atoms.positions.tobytes()) or labelled(atoms)
        signs = np.where(np.arange(self.count) % 2, -1.0, 1.0)
        signs = (signs - signs.mean()) / max(signs.std(), 1e-9)
        spread = np.zeros((self.count, len(atoms), 3))
        spread[:, 0, 0] = deviation_eV_A * signs
        common = self.rng.normal(size=(len(atoms), 3))
        left = max(self.force_rmse_eV_A**2 - (spread**2).mean(), 0.0)
        common *= np.sqrt(left / (common**2).mean())
        energies = np.full(self.count, truth.energy_eV) + 1e-3 * len(atoms) * signs
        virials = np.repeat(truth.virial_eV[None], self.count, axis=0)
        return EnsembleEvaluation(energies, truth.forces_eV_A + common + spread, virials)


def ensemble_of(context: Context) -> int:
    """The number of the ensemble that a task's models are; 0 for a task without models."""
    models: list[str] = context.spec.get("models", [])
    if not models:
        return 0
    result = context.result_of(models[0])
    summary: dict[str, Any] = read_json(result / "summary.json")
    return ensemble_number(result / summary["model"])
