"""The BMP-shrm force field for lithium borosilicates: pairs, screened three-body terms and an ASE calculator.

M. Bertani, M. C. Menziani, A. Pedone, Phys. Rev. Mater. 5, 045602 (2021); boron: J. Am. Ceram. Soc. 105, 7254 (2022)
with erratum 106, 5104. Charges are Teter's. X-O and O-O have a Morse term with a wall, V = D[(1 - exp(-a(r - r0)))^2
- 1] + C/r^12, pairs of formers a repulsion A exp(-r/rho), both to 7 Å; the Coulomb term is the damped shifted-force
one, 0.25/Å to 8 Å. At each oxygen, every two formers within 3.30 Å of it have the energy K (theta - theta0)^2
exp(-(r1 + r2)/rho). D of B-O depends on the composition. The numbers are those of amorphouspy 0.8.1
(``bmp_potential.py``), which names these papers; the papers' own tables were not compared with.

Two things are ours. *The ends at 7 Å*: as published the short-range terms break off there, by up to 5 meV a pair
(Si-Si); here they fade out between 6.5 and 7 Å and are as published below. *A wall on B-O*: as published this pair has
no r^-12 term (C = 0), and where its Morse core ends, some 3 keV up at 0.04 Å, the attraction of the charges wins.
Below 1 Å the screened nuclear repulsion of Ziegler, Biersack and Littmark is faded in, in full from 0.6 Å inwards;
from 1 Å on, which is 3 to 5 eV above the bottom of the well, V and its derivatives are untouched.

The three-body term breaks off at 3.30 Å as published, amid the second shell of formers around an oxygen. Each
passage is a jump of the energy without a force, up to 0.4 eV for B-O-B. Energy is not conserved; see BmpPotential.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_changes
from ase.data import atomic_numbers
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from alloop.glass.composition import TABLE_1, Glass, composition_parameters
from alloop.glass.force_field import CHARGES_E, CUTOFF_A, coulomb_energy_and_slope
from alloop.glass.pair_potential import COULOMB_EV_A, Array, LammpsThreeBody, PairCalculator, pairs_within

SHORT_FADE_A, SHORT_CUTOFF_A = 6.5, 7.0
"""The short-range terms are as published up to the first distance and zero from the second on."""
WALL_FULL_A, WALL_CUTOFF_A = 0.6, 1.0
"""The added B-O wall is complete up to the first distance and zero from the second on."""
THREE_BODY_CUTOFF_A = 3.30
THETA0_DEGREES, SCREENING_A = 109.47, 1.0
THREE_BODY_K_EV: dict[frozenset[str], float] = {
    frozenset(("Si",)): 12.5,
    frozenset(("B",)): 30.0,
    frozenset(("B", "Si")): 30.0,
}
"""K (eV/rad^2, half the published constant, as LAMMPS counts it) by the two formers around an oxygen."""
_SMALLEST_SINE = 1e-3  # as in LAMMPS: a straight angle has a kink there whose slope is kept finite


@dataclass(frozen=True)
class PedoneMorse:
    """D[(1 - exp(-a(r - r0)))^2 - 1] + C/r^12."""

    D_eV: float
    a_1_A: float
    r0_A: float
    C_eV_A12: float

    def bare(self, r_A: Array) -> tuple[Array, Array]:
        """Return V (eV) and dV/dr (eV/Å) as published, before anything is done about the cutoff."""
        decay = np.exp(-self.a_1_A * (r_A - self.r0_A))
        wall = self.C_eV_A12 / r_A**12
        return self.D_eV * decay * (decay - 2) + wall, 2 * self.D_eV * self.a_1_A * decay * (
            1 - decay
        ) - 12 * wall / r_A


@dataclass(frozen=True)
class Repulsion:
    """A exp(-r/rho)."""

    A_eV: float
    rho_A: float

    def bare(self, r_A: Array) -> tuple[Array, Array]:
        """Return V (eV) and dV/dr (eV/Å) as published, before anything is done about the cutoff."""
        energy = self.A_eV * np.exp(-r_A / self.rho_A)
        return energy, -energy / self.rho_A


SHORT_RANGE: dict[frozenset[str], PedoneMorse | Repulsion] = {
    frozenset(("O",)): PedoneMorse(0.042395, 1.379316, 3.618701, 100.0),
    frozenset(("O", "Si")): PedoneMorse(0.340554, 2.006700, 2.100000, 1.0),
    frozenset(("O", "Li")): PedoneMorse(0.041556, 1.758181, 2.551360, 1.0),
    frozenset(("Si",)): Repulsion(7.093669, 0.975598),
    frozenset(("B",)): Repulsion(8.9594, 0.8012),
    frozenset(("B", "Si")): Repulsion(8.9594, 0.9270),
}
"""By pair of elements, all but B-O; pairs that are not here interact through their charges alone."""
_BO = frozenset(("B", "O"))
_BO_A_1_A, _BO_R0_A = 2.643330, 1.436670


def d_bo(R: float, K: float) -> float:
    """Return D (eV) of B-O at R = [Li2O]/[B2O3] and K = [SiO2]/[B2O3]; ValueError if one is negative.

    R is of all alkali and alkaline earth oxides in the publication. The limits of the fit are not known here.
    """
    if not (R >= 0 and K >= 0):
        raise ValueError(f"R = [Li2O]/[B2O3] = {R:g} and K = [SiO2]/[B2O3] = {K:g}; give two numbers >= 0")
    dilution = 1 / (R + 1) ** 2
    strong = (2.11081 + dilution) * math.exp(0.02063 * R + 0.06312 * K)
    weak = (-2.12213 + dilution) * math.exp(-7.50152 * R + 0.32778 * K)
    return strong + weak - 0.001665 * K**3 - 0.12807 * R


@dataclass(frozen=True)
class BmpPotential:
    """BMP-shrm at one composition; d_bo_eV is D of B-O (eV), None where boron is absent.

    three_body_cutoff_A: as published 3.30 Å, where the energy jumps. Measured in LAMMPS for 84 atoms of LBS-20-60-20 at
    constant volume and energy, time step 0.5 fs: the total energy rises by 0.19 eV/atom/ps at 2000 K and by 0.08 at
    300 K; by less than 1e-6 without the term; at 2000 K by 0.018 with 5 Å, 0.007 with 6 Å (4 times the time) and 4e-4
    with 9 Å (50 times). A thermostat takes the heat away, but not where it arises: with a Nose-Hoover one of 0.1 ps
    elements are within 3 % (B) and 9 % (Li) of 2000 K, but at a nominal 300 K boron has 410 K and lithium 150 K. So use
    it for melts and starting structures; a longer cutoff, whose additional angles the parameters were not
    fitted with, or another force field where dynamics or energies near 300 K count.
    """

    d_bo_eV: float | None
    three_body_cutoff_A: float = THREE_BODY_CUTOFF_A
    name: ClassVar[str] = "BMP-shrm"
    cutoff_A: ClassVar[float] = CUTOFF_A
    table_inner_A: ClassVar[float] = 0.5

    def check_elements(self, elements: Collection[str]) -> None:
        """Raise ValueError for an element without parameters."""
        if unknown := sorted(set(elements) - set(CHARGES_E)):
            known = ", ".join(CHARGES_E)
            raise ValueError(f"no BMP-shrm parameters for {', '.join(unknown)}; the force field knows {known}")
        if "B" in elements and self.d_bo_eV is None:
            raise ValueError("these BMP-shrm parameters have no B-O term; take those of a glass with B2O3")

    def pair_energy_and_slope(self, first: str, second: str, r_A: Array) -> tuple[Array, Array]:
        """Return the whole energy (eV) of a pair of elements and its slope (eV/Å), r_A > 0 up to the cutoff."""
        product = CHARGES_E[first] * CHARGES_E[second]
        energy, slope = (product * values for values in coulomb_energy_and_slope(r_A))
        pair = frozenset((first, second))
        terms = []
        if pair == _BO:
            terms.append(_faded(wall_energy_and_slope(r_A), r_A, WALL_FULL_A, WALL_CUTOFF_A))
        if (short := self.short_range(pair)) is not None:
            terms.append(_faded(short.bare(r_A), r_A, SHORT_FADE_A, SHORT_CUTOFF_A))
        for term_energy, term_slope in terms:
            energy, slope = energy + term_energy, slope + term_slope
        return energy, slope

    def short_range(self, pair: frozenset[str]) -> PedoneMorse | Repulsion | None:
        """Return the published short-range term of a pair of elements, None if it has none."""
        if pair == _BO and self.d_bo_eV is not None:
            return PedoneMorse(self.d_bo_eV, _BO_A_1_A, _BO_R0_A, 0.0)
        return SHORT_RANGE.get(pair)

    def lammps_three_body(self, elements: Collection[str]) -> LammpsThreeBody | None:
        """Return the term for ``nb3b/screened``, None for cells without oxygen or without formers.

        The file has a row for every ordered triplet of O, B and Si, centre first. Those without a term have K = 0 and
        cutoff 0; their screening length is 1 because LAMMPS divides by it.
        """
        present = sorted({"O", "B", "Si"} & set(elements))
        if "O" not in present or len(present) == 1:
            return None
        rows = ["# UNITS: metal", "# centre, two neighbours, K (eV), theta0 (degrees), rho (A), cutoff (A)"]
        for centre, *ends in itertools.product(present, repeat=3):
            K = THREE_BODY_K_EV.get(frozenset(ends), 0.0) if centre == "O" else 0.0
            cutoff_A = self.three_body_cutoff_A if K else 0.0
            rows.append(f"{centre} {' '.join(ends)} {K} {THETA0_DEGREES} {SCREENING_A} {cutoff_A}")
        return LammpsThreeBody("nb3b/screened", "\n".join(rows) + "\n", frozenset(present))


def bmp_potential(glass: Glass) -> BmpPotential:
    """Return the potential of a glass; without B2O3, where R and K are not defined, it has no B-O term."""
    ratios = composition_parameters(glass)
    return BmpPotential(None if ratios is None else d_bo(*ratios))


REHEARSAL_POTENTIAL = bmp_potential(TABLE_1["LBS-20-60-20"])
"""One potential for every composition: D of B-O of LBS-20-60-20 throughout, see force_field.REHEARSAL_PARAMETERS."""


def wall_energy_and_slope(r_A: Array) -> tuple[Array, Array]:
    """Return the screened nuclear repulsion of B and O (eV) and its slope (eV/Å), r_A > 0, before it is faded out.

    J. F. Ziegler, J. P. Biersack, U. Littmark, The Stopping and Range of Ions in Solids (Pergamon, 1985).
    """
    z1, z2 = atomic_numbers["B"], atomic_numbers["O"]
    length_A = 0.46850 / (z1**0.23 + z2**0.23)
    weights = np.array([0.18175, 0.50986, 0.28022, 0.02817])
    rates_1_A = np.array([3.19980, 0.94229, 0.40290, 0.20162]) / length_A
    parts = weights * np.exp(-rates_1_A * r_A[..., None])
    bare = COULOMB_EV_A * z1 * z2 / r_A
    energy = bare * parts.sum(axis=-1)
    return energy, -energy / r_A - bare * (rates_1_A * parts).sum(axis=-1)


def _faded(term: tuple[Array, Array], r_A: Array, full_A: float, zero_A: float) -> tuple[Array, Array]:
    """Return a term and its slope times a function that falls from 1 to 0 between two distances.

    It is the polynomial of degree 7 whose first three derivatives are zero at both ends, so that nothing up to the
    third derivative of the energy jumps and a table's spline meets no kink.
    """
    energy, slope = term
    x = np.clip((zero_A - r_A) / (zero_A - full_A), 0.0, 1.0)
    factor = x**4 * (35 - 84 * x + 70 * x**2 - 20 * x**3)
    derivative = -140 * (x * (1 - x)) ** 3 / (zero_A - full_A)
    return energy * factor, slope * factor + energy * derivative


@dataclass(frozen=True)
class _Angles:
    """Bonds from oxygens to formers, and the pairs of bonds that share an oxygen."""

    oxygen: NDArray[np.int64]  # (n_bonds,), ascending
    former: NDArray[np.int64]  # (n_bonds,)
    vectors_A: Array  # (n_bonds, 3)
    first: NDArray[np.int64]  # (n_angles,) bonds
    second: NDArray[np.int64]  # (n_angles,)


def _angles(atoms: Atoms, cutoff_A: float) -> _Angles:
    symbols = np.array(atoms.get_chemical_symbols())
    i, j, vectors = pairs_within(atoms, cutoff_A)
    bonds = np.flatnonzero((symbols[i] == "O") & np.isin(symbols[j], ["B", "Si"]))
    bonds = bonds[np.argsort(i[bonds], kind="stable")]
    oxygen = i[bonds]
    later = np.searchsorted(oxygen, oxygen, side="right") - np.arange(len(bonds)) - 1  # bonds of the same oxygen
    first = np.repeat(np.arange(len(bonds)), later)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(later) - later, later)
    return _Angles(oxygen, j[bonds], vectors[bonds], first, second)


def three_body_energy_and_forces(atoms: Atoms, cutoff_A: float = THREE_BODY_CUTOFF_A) -> tuple[float, Array, Array]:
    """Return the energy (eV), forces (eV/Å, (n_atoms, 3)) and virial (eV, (3, 3)) of the three-body term alone.

    The virial is the derivative of the energy by the strain. The cell is periodic in three directions, of any size.
    """
    angles = _angles(atoms, cutoff_A)
    r = np.sqrt(np.einsum("bk,bk->b", angles.vectors_A, angles.vectors_A))
    units = angles.vectors_A / r[:, None]
    is_boron = np.array(atoms.get_chemical_symbols())[angles.former] == "B"
    one, two = angles.first, angles.second
    K = np.where(is_boron[one] | is_boron[two], THREE_BODY_K_EV[frozenset(("B",))], THREE_BODY_K_EV[frozenset(("Si",))])
    cosine = np.clip(np.einsum("ak,ak->a", units[one], units[two]), -1.0, 1.0)
    bend = np.arccos(cosine) - math.radians(THETA0_DEGREES)
    strength = K * np.exp(-(r[one] + r[two]) / SCREENING_A)
    energies = strength * bend**2
    by_cosine = -2 * strength * bend / np.maximum(np.sqrt(1 - cosine**2), _SMALLEST_SINE)
    gradient = np.zeros_like(angles.vectors_A)  # of the energy, by the vector of each bond
    for here, there in ((one, two), (two, one)):
        turn = (by_cosine / r[here])[:, None] * (units[there] - cosine[:, None] * units[here])
        pull = turn - (energies / SCREENING_A)[:, None] * units[here]
        gradient += np.stack([np.bincount(here, pull[:, k], minlength=len(r)) for k in range(3)], axis=1)
    n = len(atoms)
    forces = np.stack(
        [np.bincount(angles.oxygen, g, minlength=n) - np.bincount(angles.former, g, minlength=n) for g in gradient.T],
        axis=1,
    )
    return float(energies.sum()), forces, gradient.T @ angles.vectors_A


class BmpCalculator(PairCalculator):
    """ASE calculator of BMP-shrm: energy (eV), forces (eV/Å) and stress (eV/Å^3, Voigt), three-body term included.

    The same sum as LAMMPS makes with pair_potential.write_lammps_potential. Errors are those of PairCalculator.
    """

    def __init__(self, potential: BmpPotential = REHEARSAL_POTENTIAL, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bmp = potential

    def potential_of(self, symbols: Collection[str]) -> BmpPotential:
        """Return the one potential there is, whatever the composition."""
        return self.bmp

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Collection[str] = ("energy",),
        system_changes: Collection[str] = tuple(all_changes),
    ) -> None:
        """Fill self.results; see the class for units and errors."""
        super().calculate(atoms, properties, system_changes)
        energy, forces, virial = three_body_energy_and_forces(self.atoms, self.bmp.three_body_cutoff_A)
        self.results["energy"] += energy
        self.results["free_energy"] += energy
        self.results["forces"] += forces
        self.results["stress"] += full_3x3_to_voigt_6_stress(virial / self.atoms.get_volume())
