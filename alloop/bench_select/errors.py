"""Errors of an ensemble on the fixed test set: overall, on the worst of it, and on the events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from alloop.bench_select.pool import Pool

WORST_SHARE = 0.01
_MEANING = {
    "forces": "all force components of the test set",
    "worst_1_percent": "the 1 % of force components with the largest error of the model itself",
    "energy": "energies of the test frames, per atom",
    "overlap_frames": "all atoms of test frames with a near-overlap",
    "overlap_atoms": "the atoms of the near-overlaps",
    "five_coordinated_Si_frames": "all atoms of test frames with five-coordinated silicon",
    "five_coordinated_Si_atoms": "the five-coordinated silicon atoms",
}


def unit(kind: str) -> str:
    """Return the unit of a kind of error."""
    return "eV/atom" if kind == "energy" else "eV/Å"


def meaning(kind: str) -> str:
    """Return what a kind of error is measured on; ``EVENT_frames`` and ``EVENT_atoms`` of any event."""
    event, _, part = kind.rpartition("_")
    of_event = f"all atoms of test frames that show {event}" if part == "frames" else f"the atoms that show {event}"
    return _MEANING.get(kind, of_event)


def measured_errors(pool: Pool, forces_eV_A: np.ndarray, energies_eV: np.ndarray) -> dict[str, float | None]:
    """Return the root mean square of each kind of error over components and models; None where nothing is of a kind.

    forces_eV_A: K models on all test atoms, frame after frame (K, A, 3); energies_eV: (K, F). See `meaning`.
    """
    labels = [frame.label for frame in pool.test]
    sizes = np.array([len(label.atoms) for label in labels])
    error = forces_eV_A - np.concatenate([label.forces_eV_A for label in labels])
    energy_error = (energies_eV - np.array([label.energy_eV for label in labels])) / sizes
    found = {"forces": _rms(error), "worst_1_percent": worst(error, WORST_SHARE), "energy": _rms(energy_error)}
    for event, (in_frames, in_atoms) in event_masks(list(pool.ruleset.events), pool.test_events, sizes).items():
        found |= {f"{event}_frames": _rms(error[:, in_frames]), f"{event}_atoms": _rms(error[:, in_atoms])}
    return found


def worst(error: np.ndarray, share: float) -> float:
    """Return the root mean square, over models (K, ...), of each model's own largest errors, a share of all.

    At least one component counts, and a share that is no whole number of components is rounded up.
    """
    squares = np.square(error).reshape(len(error), -1)
    count = max(1, math.ceil(share * squares.shape[1]))
    return float(np.sqrt(np.partition(squares, -count, axis=1)[:, -count:].mean()))


def event_masks(
    names: Sequence[str], events: Sequence[Mapping[str, np.ndarray]], sizes: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return event -> (all atoms of frames that show it, the atoms of the event), masks over all atoms."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    masks = {}
    for event in names:
        frames = np.repeat(np.array([event in found for found in events], dtype=bool), sizes)
        atoms = np.zeros(len(frames), dtype=bool)
        for start, found in zip(starts[:-1], events, strict=True):
            atoms[start + found.get(event, np.zeros(0, dtype=np.int64))] = True
        masks[event] = frames, atoms
    return masks


def _rms(error: np.ndarray) -> float | None:
    return float(np.sqrt(np.square(error).mean())) if error.size else None
