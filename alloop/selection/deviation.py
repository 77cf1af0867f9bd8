"""Model deviation: how far the models of an ensemble disagree, by the definitions DeePMD-kit uses.

Population standard deviations over the K models (divided by K), as in J. Zeng et al., J. Chem. Phys. 159,
054801 (2023), section II.E, and in the columns LAMMPS writes to ``model_devi.out``. One model (K = 1) has no spread:
every deviation is exactly zero. A NaN in any model's forces or virial gives NaN for that atom or
component and for every summary over it; callers must treat NaN as "not to be trusted", never as small.
"""

from __future__ import annotations

from dataclasses import dataclass

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


def virial_deviation(virials_eV: np.ndarray, n_atoms: int) -> DeviationSummary:
    """Return the deviation of the virials (K, ..., 3, 3), eV/atom: largest, smallest and rms of 9 components.

    eps_ab = sqrt( (1/K) sum_k (V_ab^k - <V_ab>)^2 ) / N. The ``mean`` field is the root mean square over the
    nine components, as DeePMD's ``avg_devi_v``. ValueError for another shape or n_atoms < 1.
    """
    virials = np.asarray(virials_eV, dtype=float)
    if virials.ndim < 3 or virials.shape[-2:] != (3, 3) or virials.shape[0] == 0:
        raise ValueError(f"virials have shape {virials.shape}; expected (models, ..., 3, 3) with models >= 1")
    if n_atoms < 1:
        raise ValueError(f"n_atoms is {n_atoms}; expected the number of atoms of the frame, at least 1")
    components = virials.std(axis=0).reshape(*virials.shape[1:-2], 9) / n_atoms
    return DeviationSummary(
        components.max(axis=-1), components.min(axis=-1), np.sqrt(np.square(components).mean(axis=-1))
    )
