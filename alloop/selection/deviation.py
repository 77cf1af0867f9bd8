"""Model deviation: how far the models of an ensemble disagree, by the definitions DeePMD-kit uses.

Population standard deviations over the K models (divided by K), as in J. Zeng et al., J. Chem. Phys. 159,
054801 (2023), section II.E, and in the columns LAMMPS writes to ``model_devi.out``. One model (K = 1) has no spread:
every deviation is exactly zero. A NaN in any model's forces or virial gives NaN for that atom or
component and for every summary over it; callers must treat NaN as "not to be trusted", never as small. (The columns of
``model_devi.out`` hide it: there a maximum is taken by comparisons, which NaN never wins.)

Relative deviations follow ``pair_style deepmd ... relative LEVEL relative_v LEVEL``: each force deviation is divided by
the length of that atom's mean force plus a level, each virial component by the size of that component's mean per atom
plus a level. ``dp model-devi --relative_v`` divides by the norm of all nine components instead; that is not done here.

Every function takes one frame, (K, N, 3) and (K, 3, 3), or many frames of equally many atoms, (K, F, N, 3) and
(K, F, 3, 3). Of frames that come one by one, :class:`DeviationStatistics` keeps counts, not values.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class DeviationSummary:
    """Largest, smallest and averaged deviation of one frame (scalars) or of many frames (arrays)."""

    maximum: np.ndarray
    minimum: np.ndarray
    mean: np.ndarray


def force_deviation(forces_eV_A: np.ndarray) -> np.ndarray:
    """Return the deviation of each atom's force, (..., N) eV/Å, from the K models' forces (K, ..., N, 3).

    eps_i = sqrt( (1/K) sum_k |F_i^k - <F_i>|^2 ), the three components summed. ValueError for another shape.
    """
    forces = np.asarray(forces_eV_A, dtype=float)
    if forces.ndim < 3 or forces.shape[-1] != 3 or forces.shape[0] == 0:
        raise ValueError(f"forces have shape {forces.shape}; expected (models, ..., atoms, 3) with models >= 1")
    return np.sqrt(np.square(forces - forces.mean(axis=0)).sum(axis=-1).mean(axis=0))


def summarize_force_deviation(deviation_eV_A: np.ndarray) -> DeviationSummary:
    """Return max, min and mean over the atoms (last axis) of per-atom deviations (..., N), eV/Å."""
    deviation = np.asarray(deviation_eV_A, dtype=float)
    return DeviationSummary(deviation.max(axis=-1), deviation.min(axis=-1), deviation.mean(axis=-1))


def relative_force_deviation(forces_eV_A: np.ndarray, level_eV_A: float) -> np.ndarray:
    """Return the relative deviation of each atom's force, (..., N), from the K models' forces (K, ..., N, 3).

    eps_i / (|<F_i>| + level), without unit; the level, an ordinary force, keeps atoms at rest from counting. ValueError
    for another shape or a level that is not positive.
    """
    level = _positive_level(level_eV_A, "eV/Å")
    deviation = force_deviation(forces_eV_A)
    mean_force = np.linalg.norm(np.asarray(forces_eV_A, dtype=float).mean(axis=0), axis=-1)
    return deviation / (mean_force + level)


def virial_deviation(virials_eV: np.ndarray, n_atoms: int) -> DeviationSummary:
    """Return the deviation of the virials (K, ..., 3, 3), eV/atom: largest, smallest and rms of 9 components.

    eps_ab = sqrt( (1/K) sum_k (V_ab^k - <V_ab>)^2 ) / N. The ``mean`` field is the root mean square over the
    nine components, as DeePMD's ``avg_devi_v``. ValueError for another shape or n_atoms < 1.
    """
    return _of_nine(_virials_per_atom(virials_eV, n_atoms).std(axis=0))


def relative_virial_deviation(virials_eV: np.ndarray, n_atoms: int, level_eV: float) -> DeviationSummary:
    """Return the relative deviation of the virials (K, ..., 3, 3), without unit: as `virial_deviation` summarizes.

    eps_ab / (|<V_ab>| / N + level), component by component; the level is in eV/atom. ValueError for another shape,
    n_atoms < 1 or a level that is not positive.
    """
    level = _positive_level(level_eV, "eV/atom")
    virials = _virials_per_atom(virials_eV, n_atoms)
    return _of_nine(virials.std(axis=0) / (np.abs(virials.mean(axis=0)) + level))


@dataclass(frozen=True)
class ModelDeviation:
    """All deviations of one frame (scalars, `atoms_eV_A` (N,)) or of many (arrays (F,), `atoms_eV_A` (F, N)).

    The relative ones are None unless a level was given for them.
    """

    atoms_eV_A: np.ndarray
    force_eV_A: DeviationSummary
    virial_eV: DeviationSummary
    relative_force: DeviationSummary | None = None
    relative_virial: DeviationSummary | None = None


def model_deviation(
    forces_eV_A: np.ndarray,
    virials_eV: np.ndarray,
    *,
    force_level_eV_A: float | None = None,
    virial_level_eV: float | None = None,
) -> ModelDeviation:
    """Return the deviations of K models on one frame or many, relative ones too where a level is given.

    forces: (K, N, 3) or (K, F, N, 3); virials: (K, 3, 3) or (K, F, 3, 3). ValueError for other shapes, or for forces
    and virials of different models or frames.
    """
    atoms = force_deviation(forces_eV_A)
    n_atoms = atoms.shape[-1]
    virial = virial_deviation(virials_eV, n_atoms)
    forces_of, virials_of = np.shape(forces_eV_A)[:-2], np.shape(virials_eV)[:-2]
    if forces_of != virials_of:
        raise ValueError(f"forces are of (models, frames) {forces_of}, virials of {virials_of}; give those of the same")
    relative_force = relative_virial = None
    if force_level_eV_A is not None:
        relative_force = summarize_force_deviation(relative_force_deviation(forces_eV_A, force_level_eV_A))
    if virial_level_eV is not None:
        relative_virial = relative_virial_deviation(virials_eV, n_atoms, virial_level_eV)
    return ModelDeviation(atoms, summarize_force_deviation(atoms), virial, relative_force, relative_virial)


def _positive_level(level: float, unit: str) -> float:
    if not (math.isfinite(level) and level > 0):
        raise ValueError(f"the level of a relative deviation is {level}; give a positive number of {unit}")
    return float(level)


def _virials_per_atom(virials_eV: np.ndarray, n_atoms: int) -> np.ndarray:
    """Return the virials per atom as (K, ..., 9) in eV."""
    virials = np.asarray(virials_eV, dtype=float)
    if virials.ndim < 3 or virials.shape[-2:] != (3, 3) or virials.shape[0] == 0:
        raise ValueError(f"virials have shape {virials.shape}; expected (models, ..., 3, 3) with models >= 1")
    if n_atoms < 1:
        raise ValueError(f"n_atoms is {n_atoms}; expected the number of atoms of the frame, at least 1")
    return virials.reshape(*virials.shape[:-2], 9) / n_atoms


def _of_nine(components: np.ndarray) -> DeviationSummary:
    return DeviationSummary(
        components.max(axis=-1), components.min(axis=-1), np.sqrt(np.square(components).mean(axis=-1))
    )


# A bin is 3.7 % wide, far less than what a deviation says of the error; 512 bins and the two beyond them are 4 kB.
BINS_PER_DECADE = 64
LOWEST, HIGHEST = 1e-5, 1e3
_N_BINS = 8 * BINS_PER_DECADE
_EDGES = np.concatenate([[0.0], np.geomspace(LOWEST, HIGHEST, _N_BINS + 1), [np.inf]])


@dataclass
class DeviationStatistics:
    """What is kept of any number of deviations (all of one kind and unit): 4 kB, whatever their number.

    counts: of each bin, the first below `LOWEST` and the last from `HIGHEST` on, `BINS_PER_DECADE` between them;
    classes: of each class by name; not_finite: values that are NaN or infinite, which are in no bin;
    minimum, maximum: of the finite ones (inf and -inf while there are none).
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(_N_BINS + 2, dtype=np.int64))
    classes: Counter[str] = field(default_factory=Counter)
    not_finite: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf

    @property
    def total(self) -> int:
        """Return how many values were counted, those not finite included."""
        return int(self.counts.sum()) + self.not_finite

    def add(self, deviations: np.ndarray, classes: np.ndarray | None = None) -> None:
        """Count values of any shape, and the class of each if given.

        ValueError for a negative value, or for more or fewer classes than values.
        """
        values = np.asarray(deviations, dtype=float).ravel()
        names = None if classes is None else np.asarray(classes).ravel()
        if names is not None and names.shape != values.shape:
            raise ValueError(f"{values.size} deviations, {names.size} classes; give one class for each")
        finite = values[np.isfinite(values)]
        if (finite < 0).any():
            raise ValueError(f"a deviation is {finite.min()}; deviations are never negative")
        if names is not None:
            found, numbers = np.unique(names, return_counts=True)
            self.classes.update(dict(zip(found.tolist(), numbers.tolist(), strict=True)))
        self.not_finite += values.size - finite.size
        if finite.size:
            bins = np.searchsorted(_EDGES, finite, side="right") - 1
            self.counts += np.bincount(bins, minlength=_N_BINS + 2)
            self.minimum = min(self.minimum, float(finite.min()))
            self.maximum = max(self.maximum, float(finite.max()))

    def merged(self, other: DeviationStatistics) -> DeviationStatistics:
        """Return the statistics of both together; neither is changed."""
        return DeviationStatistics(
            self.counts + other.counts,
            self.classes + other.classes,
            self.not_finite + other.not_finite,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )

    def histogram(self, edges: np.ndarray) -> np.ndarray:
        """Return counts of the finite values between ascending edges, those beyond in the first and the last.

        ValueError for inner edges that are not between two bins.
        """
        inner = np.asarray(edges, dtype=float)[1:-1]
        places = np.searchsorted(_EDGES, inner * (1 - 1e-9))
        if not np.allclose(_EDGES[places], inner, rtol=1e-9, atol=0):
            raise ValueError(f"edges {inner.tolist()} are not all between two of {BINS_PER_DECADE} bins per decade")
        below = np.concatenate([[0], np.cumsum(self.counts)])
        return np.diff(np.concatenate([[0], below[places], below[-1:]]))

    def quantile(self, share: float) -> float:
        """Return the value that this share of all values does not exceed, to the width of a bin; NaN if there is none.

        Values that are not finite rank above all others: a share that reaches into them gives NaN. ValueError for a
        share outside 0 to 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"the share is {share}; give one from 0 to 1")
        rank = max(1, math.ceil(share * self.total - 1e-9))
        cumulated = np.cumsum(self.counts)
        if rank > cumulated[-1]:
            return math.nan
        number = int(np.searchsorted(cumulated, rank))
        low, high = max(_EDGES[number], self.minimum), min(_EDGES[number + 1], self.maximum)
        return math.sqrt(low * high) if low > 0 else (low + high) / 2

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON; of the bins only those that hold something, by number."""
        return {
            "bins_per_decade": BINS_PER_DECADE,
            "range": [LOWEST, HIGHEST],
            "counts": {str(number): int(self.counts[number]) for number in np.flatnonzero(self.counts)},
            "classes": dict(sorted(self.classes.items())),
            "not_finite": self.not_finite,
            "minimum": self.minimum if self.counts.any() else None,
            "maximum": self.maximum if self.counts.any() else None,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> DeviationStatistics:
        """Return what `to_json` wrote; ValueError for a record with other bins."""
        bins = record["bins_per_decade"], list(record["range"])
        if bins != (BINS_PER_DECADE, [LOWEST, HIGHEST]):
            raise ValueError(
                f"the record has {bins[0]} bins per decade over {bins[1]}, this version {BINS_PER_DECADE} over "
                f"{[LOWEST, HIGHEST]}; count the values again"
            )
        found = cls(classes=Counter(record["classes"]), not_finite=record["not_finite"])
        for number, count in record["counts"].items():
            found.counts[int(number)] = count
        if record["maximum"] is not None:
            found.minimum, found.maximum = record["minimum"], record["maximum"]
        return found
