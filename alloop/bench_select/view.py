"""What a way of choosing is shown of a pool, and what it must answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from alloop.bench_select.ruleset import DEFAULT, Ruleset
from alloop.selection.classes import classify


@dataclass(frozen=True)
class PoolView:
    """All F frames of a pool, of A atoms in all, as the newest ensemble sees them.

    identity (F,): content key, equal for equal frames; labelled (F,): which frames the ensemble was trained on;
    max_deviation_eV_A (F,): largest force deviation, NaN where a model broke down; offending_atom (F,): its atom,
    within the frame; trajectory, glass (F,); stratum (F,): over which choices are spread; temperature_K, time_ps (F,):
    NaN where not known; before_loss (F,): last good frames of a lost run; events: per frame, event -> sorted indices
    of its atoms; first_atom (F + 1,): where each frame's atoms begin among all A; elements (A,)
    int16: atomic numbers; descriptors (A, D) float32: environments of the atoms; trust_levels_eV_A: candidates have a
    deviation from low to below high.
    """

    identity: np.ndarray
    labelled: np.ndarray
    max_deviation_eV_A: np.ndarray
    offending_atom: np.ndarray
    trajectory: np.ndarray
    glass: np.ndarray
    stratum: np.ndarray
    temperature_K: np.ndarray
    time_ps: np.ndarray
    before_loss: np.ndarray
    events: Sequence[Mapping[str, np.ndarray]]
    first_atom: np.ndarray
    elements: np.ndarray
    descriptors: np.ndarray
    trust_levels_eV_A: tuple[float, float]
    ruleset: Ruleset = DEFAULT

    def __len__(self) -> int:
        """Return F."""
        return len(self.labelled)

    @property
    def open(self) -> np.ndarray:
        """Return the indices of the frames that may be chosen: those not labelled yet."""
        return np.flatnonzero(~self.labelled)

    @property
    def trust_class(self) -> np.ndarray:
        """Return accurate, candidate or failed for each frame (F,)."""
        return classify(self.max_deviation_eV_A, *self.trust_levels_eV_A)

    def atoms_of(self, frames: np.ndarray) -> np.ndarray:
        """Return the descriptors of all atoms of some frames, one frame after the other."""
        chosen = np.zeros(len(self), dtype=bool)
        chosen[frames] = True
        return self.descriptors[np.repeat(chosen, np.diff(self.first_atom))]

    def frame_means(self) -> np.ndarray:
        """Return each frame's average over the descriptors of its atoms (F, D)."""
        sums = np.add.reduceat(self.descriptors.astype(float), self.first_atom[:-1], axis=0)
        return sums / np.diff(self.first_atom)[:, None]

    def offending(self, frames: np.ndarray) -> np.ndarray:
        """Return the descriptors of the atoms on which the ensemble disagrees most, one per frame."""
        return self.descriptors[self.first_atom[frames] + self.offending_atom[frames]]


class Choose(Protocol):
    """A way of choosing what to label next."""

    def __call__(self, view: PoolView, n: int, seed: int) -> np.ndarray:
        """Return up to n different indices of open frames; the same view and seed give the same answer."""
