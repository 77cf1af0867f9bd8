"""The nearest energy minimum of a structure, by one model, in a cell that is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.optimize import FIRE

from alloop.potential.ase_engine import DriverCalculator
from alloop.potential.conditions import TrajectoryLost
from alloop.potential.ensemble import Ensemble
from alloop.potential.quiet import output_to


@dataclass(frozen=True)
class Minimum:
    """Where a minimisation has led; converged: no force is larger than was asked for."""

    atoms: Atoms
    energy_eV: float
    max_force_eV_A: float
    steps: int
    converged: bool


def minimise(model: Path, atoms: Atoms, *, force_eV_A: float, steps: int, directory: Path) -> Minimum:
    """Relax a copy of the atoms until no force is larger than force_eV_A, or for so many steps.

    What DeePMD prints goes to ``minimise.out`` in `directory`. TrajectoryLost if a number stops being finite.
    """
    with output_to(Path(directory).resolve() / "minimise.out"), np.errstate(all="ignore"):
        relaxed = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=True)
        relaxed.calc = DriverCalculator(Ensemble([model]))
        optimiser = FIRE(relaxed, logfile=None)
        optimiser.run(fmax=force_eV_A, steps=steps)
        energy_eV, forces = float(relaxed.get_potential_energy()), relaxed.get_forces()
    relaxed.calc = None
    if not (np.isfinite(relaxed.positions).all() and np.isfinite(forces).all()):
        raise TrajectoryLost("numbers are not finite while the energy is minimised")
    relaxed.wrap()
    largest = float(np.linalg.norm(forces, axis=1).max())
    return Minimum(relaxed, energy_eV, largest, int(optimiser.nsteps), largest <= force_eV_A)
