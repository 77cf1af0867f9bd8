"""Energies, forces and virials of all models of an ensemble on given structures."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from alloop.potential.dataset import type_indices

MAX_ATOMS = 20_000  # at once in memory: the results of four models on so many are 2 MB


@dataclass(frozen=True)
class EnsembleEvaluation:
    """K models on one structure: energies_eV (K,), forces_eV_A (K, N, 3), virials_eV (K, 3, 3)."""

    energies_eV: np.ndarray
    forces_eV_A: np.ndarray
    virials_eV: np.ndarray


class Ensemble:
    """Models loaded once (TensorFlow's import takes seconds) and evaluated on many structures.

    ValueError if there is no model, or from evaluating a structure with an element the models do not know.
    """

    def __init__(self, model_paths: Sequence[Path]) -> None:
        if not model_paths:
            raise ValueError("an ensemble needs at least one model file")
        logging.getLogger("deepmd").setLevel(logging.ERROR)  # it remarks on batch sizes for every model
        from deepmd.infer import DeepPot

        self._models = [DeepPot(str(path)) for path in model_paths]

    def evaluate(self, atoms: Atoms) -> EnsembleEvaluation:
        """Evaluate one fully periodic structure; rows of the forces are in its atom order."""
        return self.evaluate_many([atoms])[0]

    def evaluate_many(self, structures: Sequence[Atoms]) -> list[EnsembleEvaluation]:
        """Evaluate structures, those of one composition in one batch per model; results in the order given."""
        type_map = self._models[0].get_type_map()
        groups: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = defaultdict(list)
        for number, atoms in enumerate(structures):
            types = type_indices(atoms, type_map)
            order = np.argsort(types, kind="stable")
            groups[tuple(types[order].tolist())].append((number, order))
        results: dict[int, EnsembleEvaluation] = {}
        for sorted_types, members in groups.items():
            coords = np.array([structures[number].positions[order].ravel() for number, order in members])
            cells = np.array([structures[number].cell.array.ravel() for number, _ in members])
            energies, forces, virials = self._evaluate_batch(coords, cells, sorted_types, type_map)
            for frame, (number, order) in enumerate(members):
                unsorted = np.empty_like(forces[:, frame])
                unsorted[:, order] = forces[:, frame]
                results[number] = EnsembleEvaluation(energies[:, frame], unsorted, virials[:, frame])
        return [results[number] for number in range(len(structures))]

    def evaluate_stream(
        self, structures: Iterable[Atoms], max_atoms: int = MAX_ATOMS
    ) -> Iterator[tuple[Atoms, EnsembleEvaluation]]:
        """Yield each structure of any iterable with its evaluation, in the order given, holding few at a time.

        At most `max_atoms` atoms, or one structure, are evaluated at once, as by `evaluate_many`; of the rest only one
        structure is taken before those have been yielded. ValueError, before anything is taken, for max_atoms < 1.
        """
        if max_atoms < 1:
            raise ValueError(f"max_atoms is {max_atoms}; at least 1 is needed")
        windows = bounded_windows(structures, max_atoms)
        return (pair for window in windows for pair in zip(window, self.evaluate_many(window), strict=True))

    def _evaluate_batch(
        self, coords: np.ndarray, cells: np.ndarray, types: Sequence[int], type_map: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n_frames, n_atoms = len(coords), len(types)
        energies, forces, virials = [], [], []
        for model in self._models:
            index = {symbol: number for number, symbol in enumerate(model.get_type_map())}
            own_types = [index[type_map[t]] for t in types]
            energy, force, virial = model.eval(coords, cells, own_types)[:3]
            energies.append(energy.reshape(n_frames))
            forces.append(force.reshape(n_frames, n_atoms, 3))
            virials.append(virial.reshape(n_frames, 3, 3))
        return np.array(energies), np.array(forces), np.array(virials)


def bounded_windows(structures: Iterable[Atoms], max_atoms: int) -> Iterator[list[Atoms]]:
    """Yield the structures in order, in lists of at most `max_atoms` atoms; a larger structure comes alone."""
    window: list[Atoms] = []
    taken = 0
    for atoms in structures:
        if window and taken + len(atoms) > max_atoms:
            yield window
            window, taken = [], 0
        window.append(atoms)
        taken += len(atoms)
    if window:
        yield window
