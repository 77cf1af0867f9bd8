"""Pair potentials in general: as a LAMMPS table, and as an ASE calculator of the very same sum over pairs."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[np.float64]

COULOMB_EV_A = 14.399645
"""e^2/(4 pi eps0) in eV Å, the value LAMMPS uses in metal units."""
TABLE_POINTS = 5000
_COINCIDENT_A = 1e-6


class PairPotential(Protocol):
    """Energies of pairs of elements, zero with their slope from cutoff_A on; tables begin at table_inner_A."""

    @property
    def name(self) -> str:
        """Name for people."""

    @property
    def cutoff_A(self) -> float:
        """Distance from which on atoms do not meet."""

    @property
    def table_inner_A(self) -> float:
        """Distance at which a table begins; no atoms ever come so close."""

    def check_elements(self, elements: Collection[str]) -> None:
        """Raise ValueError for an element without parameters."""

    def pair_energy_and_slope(self, first: str, second: str, r_A: Array) -> tuple[Array, Array]:
        """Return the whole energy (eV) of a pair and its slope (eV/Å) at distances up to the cutoff."""


@dataclass(frozen=True)
class LammpsThreeBody:
    """A three-body pair style of LAMMPS, laid over the table of the pairs, with the text of its parameter file.

    elements: those that the file has rows for; atoms of other elements take no part in the term.
    """

    style: str
    text: str
    elements: frozenset[str]


@runtime_checkable
class ThreeBodyPotential(PairPotential, Protocol):
    """A pair potential with a three-body term that LAMMPS computes by a style of its own."""

    def lammps_three_body(self, elements: Collection[str]) -> LammpsThreeBody | None:
        """Return the term as it acts between these elements, None if they have none."""


def write_lammps_potential(
    directory: Path, potential: PairPotential, types: Mapping[str, int], *, elsewhere: bool = False
) -> str:
    """Write ``pair.table``, and ``three_body.txt`` for a three-body term, and return the commands that use them.

    types: element -> atom type, numbered from 1. The commands name the files without a folder, for a LAMMPS that runs
    in `directory`, or with it for one that runs elsewhere. ValueError for an element without parameters.
    """
    table, three_body_file = directory / "pair.table", directory / "three_body.txt"
    named = {file: f'"{file.resolve()}"' if elsewhere else file.name for file in (table, three_body_file)}
    write_lammps_table(table, potential, types)
    three_body = potential.lammps_three_body(types) if isinstance(potential, ThreeBodyPotential) else None
    if three_body is None:
        return lammps_pair_commands(types, named[table], potential.cutoff_A)
    three_body_file.write_text(three_body.text)
    pairs = lammps_pair_commands(types, named[table], potential.cutoff_A, substyle="table ").splitlines()[1:]
    names = [element if element in three_body.elements else "NULL" for element in sorted(types, key=types.__getitem__)]
    style = f"pair_style      hybrid/overlay table spline {TABLE_POINTS} {three_body.style}"
    last = f"pair_coeff      * * {three_body.style} {named[three_body_file]} {' '.join(names)}"
    return "\n".join([style, *pairs, last])


def write_lammps_table(path: Path, potential: PairPotential, elements: Collection[str]) -> None:
    """Write every pair of these elements, Coulomb term included, as a LAMMPS ``pair_style table`` file (metal units).

    Energies and forces are the analytic ones on 5000 points even in r^2 from `table_inner_A`, the points LAMMPS
    itself uses with ``table spline 5000``. One table takes half the time of ``hybrid/overlay`` with ``coul/dsf``.
    Sections are named first-second in alphabetical order; see lammps_pair_commands.
    """
    potential.check_elements(elements)
    inner_A, cutoff_A = potential.table_inner_A, potential.cutoff_A
    r_A = np.sqrt(np.linspace(inner_A**2, cutoff_A**2, TABLE_POINTS))
    sections = []
    for first, second in itertools.combinations_with_replacement(sorted(set(elements)), 2):
        energy, slope = potential.pair_energy_and_slope(first, second, r_A)
        columns = zip(r_A.tolist(), energy.tolist(), (-slope).tolist(), strict=True)
        rows = "\n".join(f"{i} {r:.12g} {e:.12g} {f:.12g}" for i, (r, e, f) in enumerate(columns, start=1))
        sections.append(f"{first}-{second}\nN {TABLE_POINTS} RSQ {inner_A} {cutoff_A}\n\n{rows}\n")
    heading = f"# {potential.name} potential: index, r (A), energy (eV), force (eV/A)\n\n"
    path.write_text(heading + "\n".join(sections))


def lammps_pair_commands(types: Mapping[str, int], table_name: str, cutoff_A: float, *, substyle: str = "") -> str:
    """Return the pair_style and pair_coeff commands for element -> atom type and a file of write_lammps_table.

    substyle: a word before the file's name in every pair_coeff, as a hybrid style needs it.
    """
    lines = [f"pair_style      table spline {TABLE_POINTS}"]
    for first, second in itertools.combinations_with_replacement(sorted(types), 2):
        low, high = sorted((types[first], types[second]))
        lines.append(f"pair_coeff      {low} {high} {substyle}{table_name} {first}-{second} {cutoff_A}")
    return "\n".join(lines)


def pairs_within(atoms: Atoms, cutoff_A: float) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Return i, j and r_j - r_i (Å, shape (M, 3)) of every pair closer than the cutoff, each counted both ways."""
    cell = np.asarray(atoms.cell)
    scaled = atoms.get_scaled_positions(wrap=True)
    margin = cutoff_A * np.linalg.norm(np.linalg.inv(cell), axis=0)  # cutoff in units of the heights of the cell
    ranges = [np.arange(-m, m + 1) for m in np.ceil(margin)]
    shifts = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
    images = scaled + shifts[:, None, :]
    shift, atom = np.nonzero(((images > -margin) & (images < 1 + margin)).all(axis=-1))
    home, around = scaled @ cell, images[shift, atom] @ cell
    pairs = cKDTree(home).sparse_distance_matrix(cKDTree(around), cutoff_A, output_type="ndarray")
    own_image = (shift[pairs["j"]] == len(shifts) // 2) & (atom[pairs["j"]] == pairs["i"])
    i, image = pairs["i"][~own_image], pairs["j"][~own_image]
    return i, atom[image], around[image] - home[i]


class PairCalculator(Calculator, ABC):
    """ASE calculator of a pair potential: energy (eV), forces (eV/Å) and stress (eV/Å^3, Voigt).

    The same sum over pairs as LAMMPS makes with write_lammps_table. The cell may be any periodic one, also smaller
    than the cutoff; ValueError if it is not periodic in three directions, holds an element without
    parameters or has two atoms at one place.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    @abstractmethod
    def potential_of(self, symbols: Collection[str]) -> PairPotential:
        """Return the potential of atoms of these elements."""

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Collection[str] = ("energy",),
        system_changes: Collection[str] = tuple(all_changes),
    ) -> None:
        """Fill self.results; see the class for units and errors."""
        super().calculate(atoms, properties, system_changes)
        symbols = np.array(self.atoms.get_chemical_symbols())
        potential = self.potential_of(symbols.tolist())
        if not (self.atoms.pbc.all() and self.atoms.cell.rank == 3):
            raise ValueError(
                f"the {potential.name} calculator needs a cell periodic in three directions; set cell and pbc=True"
            )
        potential.check_elements(set(symbols.tolist()))
        i, j, vectors = pairs_within(self.atoms, potential.cutoff_A)
        r = np.sqrt(np.einsum("mk,mk->m", vectors, vectors))
        if (r < _COINCIDENT_A).any():
            first = int(np.argmin(r))
            raise ValueError(f"atoms {i[first]} and {j[first]} are at the same place; move them apart")
        energy, slope = _pair_terms(potential, symbols[i], symbols[j], r)
        pulls = (slope / r)[:, None] * vectors  # force on i from j
        forces = np.stack([np.bincount(i, pulls[:, k], minlength=len(symbols)) for k in range(3)], axis=1)
        strain_derivative = 0.5 * pulls.T @ vectors
        total = 0.5 * energy.sum()
        self.results = {
            "energy": float(total),
            "free_energy": float(total),
            "forces": forces,
            "stress": full_3x3_to_voigt_6_stress(strain_derivative / self.atoms.get_volume()),
        }


def _pair_terms(potential: PairPotential, first: NDArray[Any], second: NDArray[Any], r_A: Array) -> tuple[Array, Array]:
    """Return energy and slope of pairs (shape (M,)), pair of elements by pair of elements."""
    elements, codes = np.unique(first, return_inverse=True)
    other = np.searchsorted(elements, second)
    low, high = np.minimum(codes, other), np.maximum(codes, other)
    energy, slope = np.zeros_like(r_A), np.zeros_like(r_A)
    for one, two in itertools.combinations_with_replacement(range(len(elements)), 2):
        rows = (low == one) & (high == two)
        energy[rows], slope[rows] = potential.pair_energy_and_slope(str(elements[one]), str(elements[two]), r_A[rows])
    return energy, slope
