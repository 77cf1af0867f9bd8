"""What the double computes: the Teter force field, offsets for other levels of theory, and electronic steps.

``expected`` is what an undisturbed run at the standard level tells: GGA of Perdew, Burke and Ernzerhof, ENCUT 600,
PREC absent or Accurate, ISMEAR absent or 0 with SIGMA 0.05, and the Gamma point alone.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.units import GPa
from double_inputs import Array, Dataset, Incar, Mesh

from alloop.glass.force_field import TeterCalculator

KILOBAR_EV_A3 = 0.1 * GPa
STANDARD_ENCUT_EV, STANDARD_SIGMA_EV = 600.0, 0.05
_GRID, _GRID_OFFSET = 1e-4, 0.381966
_UNCONVERGED_EV, _UNCONVERGED_EV_A = 0.02, 0.01


@dataclass
class IonicStep:
    """One ionic step as it is written.

    cell_A (3, 3), scaled (N, 3) fractional positions, forces_eV_A (N, 3); stress_kB (3, 3) with VASP's sign (positive
    under compression), None where it is not written; xml_forces_eV_A stands in vasprun.xml instead, if given; trace_eV
    holds the energy after every electronic step, the last one being the energy of the step.
    """

    cell_A: Array
    scaled: Array
    forces_eV_A: Array
    stress_kB: Array | None
    trace_eV: list[float]
    converged: bool
    xml_forces_eV_A: Array | None = field(default=None)

    @property
    def energy_eV(self) -> float:
        return self.trace_eV[-1]

    @property
    def positions_A(self) -> Array:
        return self.scaled @ self.cell_A

    @property
    def volume_A3(self) -> float:
        return abs(float(np.linalg.det(self.cell_A)))


def expected(atoms: Atoms) -> tuple[float, Array, Array]:
    """Return energy (eV), forces (N, 3) (eV/Å) and virial (3, 3) (eV, minus stress times volume) of periodic atoms."""
    copy = atoms.copy()
    copy.calc = TeterCalculator()
    virial = -copy.get_stress(voigt=False) * copy.get_volume()
    return float(copy.get_potential_energy()), copy.get_forces(), virial


def structure_hash(atoms: Atoms) -> str:
    """Return 16 hex digits for species, places and cell, the same for any order of the atoms or image of an atom.

    Places are counted on a grid of 1e-4 of the cell, its lines moved off the places people write, so that a structure
    keeps its hash through files with 8 decimals or more.
    """
    scaled = np.linalg.solve(atoms.cell.array.T, atoms.positions.T).T
    cells = np.floor(scaled / _GRID + _GRID_OFFSET).astype(np.int64) % round(1 / _GRID)
    rows = sorted(zip(atoms.get_chemical_symbols(), cells.tolist(), strict=True))
    lattice = np.floor(atoms.cell.array / _GRID + _GRID_OFFSET).astype(np.int64).tolist()
    return hashlib.sha256(repr((rows, lattice)).encode()).hexdigest()[:16]


def drawn(*what: object) -> float:
    """Return a number in [0, 1) drawn from what is given, always the same for the same."""
    digest = hashlib.sha256("|".join(str(item) for item in what).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def encut_eV(incar: Incar, potcar: tuple[Dataset, ...]) -> float:
    """Return ENCUT, without the tag the largest ENMAX."""
    return incar.real("ENCUT", max(dataset.enmax_eV for dataset in potcar))


def level_offset_eV(incar: Incar, potcar: tuple[Dataset, ...], mesh: Mesh, count: int) -> float:
    """Return by how much the energy of `count` atoms is off because the level of theory is not the standard one.

    A made-up but deterministic function of ENCUT, PREC, ISMEAR, SIGMA, the k-points, GGA (or LEXCH of the POTCAR),
    METAGGA, IVDW and LHFCALC: about 1e-3 eV per atom for each. Zero at the standard level; no other tag matters.
    """
    per_atom = 1e-5 * (STANDARD_ENCUT_EV - encut_eV(incar, potcar))
    per_atom += {"A": 0.0, "N": 2e-3}.get(incar.text("PREC", "Accurate")[:1].upper(), 4e-3)
    per_atom += 1e-3 * abs(incar.integer("ISMEAR", 0))
    per_atom += 1e-2 * (incar.real("SIGMA", STANDARD_SIGMA_EV) - STANDARD_SIGMA_EV)
    per_atom -= 1e-3 * math.log(len(mesh.points)) + 5e-4 * float(np.abs(mesh.points).sum() > 0)
    functional = [incar.text("GGA", potcar[0].lexch).upper()[:2]]
    functional += [incar.text(tag).upper() for tag in ("METAGGA", "IVDW", "LHFCALC") if tag in incar.tags]
    if functional != ["PE"]:
        per_atom += 5e-3 + 1e-2 * drawn(*functional)
    return count * per_atom


def electronic_steps(key: str, ionic_step: int) -> int:
    """Return how many electronic steps an ionic step of a structure needs: 8 to 25 for the first, 4 to 9 later."""
    return 8 + int(18 * drawn(key, "first")) if ionic_step == 1 else 4 + int(6 * drawn(key, "later", ionic_step))


def trace(energy_eV: float, count: int, needed: int, nelm: int) -> tuple[list[float], bool]:
    """Return the energies after each electronic step and whether the last one is converged.

    Without convergence the last energy is off by more than 0.02 eV.
    """
    converged = needed <= nelm
    steps = needed if converged else nelm
    amplitudes = [30.0 * count * 10 ** (-9.0 * n / needed) for n in range(1, steps + 1)]
    energies = [energy_eV + (1 if n % 2 else -0.4) * a for n, a in enumerate(amplitudes)]
    if converged:
        energies[-1] = energy_eV
    else:
        energies[-1] = energy_eV + _UNCONVERGED_EV + amplitudes[-1]
    return energies, converged


def ionic_step(atoms: Atoms, key: str, number: int, needed: int, nelm: int, offset_eV: float) -> IonicStep:
    """Return the ionic step `number` (from 1) of atoms with a Teter calculator, wrong if NELM steps are too few."""
    energy, forces = float(atoms.get_potential_energy()) + offset_eV, atoms.get_forces()
    stress = -atoms.get_stress(voigt=False) / KILOBAR_EV_A3
    energies, converged = trace(energy, len(atoms), needed, nelm)
    if not converged:
        wave = np.sin(np.arange(3 * len(atoms)) + 6 * drawn(key, number)).reshape(-1, 3)
        forces, stress = forces + _UNCONVERGED_EV_A * (wave - wave.mean(axis=0)), stress + np.eye(3)
    scaled = np.linalg.solve(atoms.cell.array.T, atoms.positions.T).T % 1
    return IonicStep(atoms.cell.array.copy(), scaled, forces, stress, energies, converged)
