"""What a molecular-dynamics run is told and what it tells, the same for every engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from ase import Atoms, units

ENSEMBLES = ("nve", "nvt", "npt")
EV_A3_IN_BAR = 1e-5 / units.Pascal  # one eV/Å³ in bar


class TrajectoryLost(RuntimeError):
    """The dynamics broke down: atoms lost, numbers not finite, or the engine gave up. The message says which."""


@dataclass(frozen=True)
class MdCondition:
    """Ensemble and schedule of one run.

    ensemble: "nve", "nvt" (Nosé-Hoover chain) or "npt" (isotropic, shape of the cell kept). The target temperature
    goes linearly from start to end over n_steps; both are ignored in NVE but for creating velocities.
    ValueError if a value cannot be meant.
    """

    ensemble: str
    temperature_start_K: float
    temperature_end_K: float
    n_steps: int
    pressure_bar: float = 0.0
    timestep_fs: float = 1.0
    thermostat_fs: float = 100.0
    barostat_fs: float = 1000.0

    def __post_init__(self) -> None:
        if self.ensemble not in ENSEMBLES:
            raise ValueError(f"ensemble {self.ensemble!r} is unknown; use one of {', '.join(ENSEMBLES)}")
        for name in (
            "temperature_start_K",
            "temperature_end_K",
            "timestep_fs",
            "thermostat_fs",
            "barostat_fs",
            "n_steps",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number above zero")

    def temperature_K(self, step: float) -> float:
        """Return the target temperature after `step` steps."""
        fraction = step / self.n_steps
        return self.temperature_start_K + fraction * (self.temperature_end_K - self.temperature_start_K)


@dataclass(frozen=True)
class MdState:
    """One moment of a run.

    atoms: positions wrapped into the cell, cell and velocities, in the orientation and atom order of the start.
    temperature_K counts 3N - 3 degrees of freedom; pressure_bar includes the kinetic part.
    force_deviation_eV_A: (N,), virial_deviation_eV: largest component per atom; both zero for a single model. The
    components are those along the axes of the cell turned lower-triangular, where LAMMPS works.
    """

    step: int
    atoms: Atoms
    potential_energy_eV: float
    temperature_K: float
    pressure_bar: float
    force_deviation_eV_A: np.ndarray
    virial_deviation_eV: float


class Engine(Protocol):
    """A running trajectory."""

    def advance(self, n_steps: int) -> None:
        """Run on; n_steps must be a multiple of `deviation_every` and stay within the condition's n_steps."""

    def state(self) -> MdState:
        """Return the present moment."""

    def close(self) -> None:
        """Free what the engine holds; it cannot be used afterwards."""


def check_advance(step: int, n_steps: int, deviation_every: int, condition: MdCondition) -> None:
    """Raise ValueError unless `n_steps` more steps keep to the deviation grid and to the condition's length."""
    if n_steps < 1 or n_steps % deviation_every:
        raise ValueError(f"cannot advance {n_steps} steps; give a positive multiple of {deviation_every}")
    if step + n_steps > condition.n_steps:
        raise ValueError(f"cannot advance {n_steps} steps from step {step}: the run has {condition.n_steps}")


def with_velocities(atoms: Atoms, temperature_K: float, seed: int) -> Atoms:
    """Return a copy with velocities: its own if any is set, else Maxwell-Boltzmann ones from `seed`.

    Created velocities have no total momentum and exactly the temperature asked for, over 3N - 3 degrees of freedom.
    """
    started = atoms.copy()
    if np.any(started.get_momenta()):
        return started
    masses = started.get_masses()[:, None]
    velocities = np.random.default_rng(seed).normal(size=(len(started), 3)) / np.sqrt(masses)
    velocities -= (masses * velocities).sum(axis=0) / masses.sum()
    started.set_velocities(velocities)
    started.set_velocities(velocities * np.sqrt(temperature_K / kinetic_temperature_K(started)))
    return started


def kinetic_temperature_K(atoms: Atoms) -> float:
    """Return 2 E_kin / ((3N - 3) k_B)."""
    return 2.0 * float(atoms.get_kinetic_energy()) / ((3 * len(atoms) - 3) * units.kB)


def lower_triangular(cell_A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (L, Q) with cell = L @ Q, L lower-triangular with positive diagonal, as LAMMPS needs, Q orthogonal.

    A left-handed cell gives a Q that also mirrors. ValueError if the cell has no volume.
    """
    q, r = np.linalg.qr(np.asarray(cell_A, dtype=float).T)
    if not np.abs(np.diag(r)).min() > 0:
        raise ValueError(f"cell {np.asarray(cell_A).tolist()} has no volume; three independent vectors are needed")
    signs = np.sign(np.diag(r))
    return np.tril((signs[:, None] * r).T), (q * signs).T
