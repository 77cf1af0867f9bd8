"""The SHIK pair potential for lithium borosilicates: parameters and an ASE calculator.

S. Sundararaman, L. Huang, S. Ispas, W. Kob: silica, J. Chem. Phys. 148, 194504 (2018); alkali silicates, J. Chem.
Phys. 150, 154505 (2019); borates and borosilicates, J. Chem. Phys. 152, 104501 (2020). Every pair of elements has a
Buckingham term with a wall in r^-24, V = A exp(-B r) - C/r^6 + D/r^24, and an undamped Coulomb term shifted so that
energy and force vanish at 10 Å (Wolf). Both end smoothly: they are multiplied by exp(-gamma^2/(r - r_cut)^2).

The charge of oxygen is not a parameter: it makes the cell neutral, and so depends on the composition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from alloop.glass.pair_potential import COULOMB_EV_A, Array, PairCalculator

CATION_CHARGES_E: dict[str, float] = {"Li": 0.5727, "B": 1.6126, "Si": 1.7755}
"""Charges of the cations (e)."""
SHORT_CUTOFF_A, COULOMB_CUTOFF_A = 8.0, 10.0
SMOOTHING_A2 = 0.04
"""gamma^2, with gamma = 0.2 Å for both terms."""


@dataclass(frozen=True)
class ShortRange:
    """A exp(-B r) - C/r^6 + D/r^24, shifted and smoothed to end at 8 Å."""

    A_eV: float
    B_1_A: float
    C_eV_A6: float
    D_eV_A24: float

    def bare(self, r_A: Array) -> tuple[Array, Array]:
        """Return V (eV) and dV/dr (eV/Å) as published, before anything is done about the cutoff."""
        repulsion, dispersion = self.A_eV * np.exp(-self.B_1_A * r_A), self.C_eV_A6 / r_A**6
        wall = self.D_eV_A24 / r_A**24
        return repulsion - dispersion + wall, -self.B_1_A * repulsion + (6 * dispersion - 24 * wall) / r_A

    def energy_and_slope(self, r_A: Array) -> tuple[Array, Array]:
        """Return V (eV) and dV/dr (eV/Å), both 0 from 8 Å on."""
        energy, slope = self.bare(r_A)
        end, _ = self.bare(np.array([SHORT_CUTOFF_A]))
        return _smoothed(energy - end, slope, r_A, SHORT_CUTOFF_A)


SHORT_RANGE: dict[frozenset[str], ShortRange] = {
    frozenset(("O",)): ShortRange(1120.5, 2.8927, 26.132, 16800.0),
    frozenset(("O", "Si")): ShortRange(23108.0, 5.0979, 139.70, 66.0),
    frozenset(("O", "B")): ShortRange(16182.0, 5.6069, 59.203, 32.0),
    frozenset(("O", "Li")): ShortRange(6745.2, 4.9120, 41.221, 70.0),
    frozenset(("Si",)): ShortRange(2798.0, 4.4073, 0.0, 3423204.0),
    frozenset(("Si", "B")): ShortRange(4798.0, 3.6703, 207.0, 16800.0),
    frozenset(("Si", "Li")): ShortRange(17284.0, 4.3848, 0.0, 16800.0),
    frozenset(("B",)): ShortRange(1805.5, 3.8228, 69.174, 6000.0),
    frozenset(("B", "Li")): ShortRange(4148.6, 3.5726, 102.36, 16800.0),
    frozenset(("Li",)): ShortRange(2323.8, 3.9129, 0.0, 3240.0),
}
"""By pair of elements: A (eV), B (1/Å), C (eV Å^6), D (eV Å^24)."""


def oxygen_charge_e(counts: Mapping[str, int]) -> float:
    """Return the charge that makes a cell of these atoms neutral (e). ValueError without oxygen."""
    if counts.get("O", 0) < 1:
        raise ValueError(f"no oxygen among {dict(counts)}: SHIK's oxygen carries the charge that balances the cations")
    return -sum(CATION_CHARGES_E[element] * n for element, n in counts.items() if element != "O") / counts["O"]


@dataclass(frozen=True)
class ShikPotential:
    """SHIK at one composition, which gives the charge of oxygen."""

    oxygen_e: float
    name: ClassVar[str] = "SHIK"
    cutoff_A: ClassVar[float] = COULOMB_CUTOFF_A
    table_inner_A: ClassVar[float] = 0.5

    @staticmethod
    def check_elements(elements: Collection[str]) -> None:
        """Raise ValueError for an element without parameters."""
        if unknown := sorted(set(elements) - {"O", *CATION_CHARGES_E}):
            known = ", ".join(["O", *CATION_CHARGES_E])
            raise ValueError(f"no SHIK parameters for {', '.join(unknown)}; the force field knows {known}")

    def pair_energy_and_slope(self, first: str, second: str, r_A: Array) -> tuple[Array, Array]:
        """Return the whole energy (eV) of a pair of elements and its slope (eV/Å), r_A > 0 up to the cutoff."""
        charges = CATION_CHARGES_E | {"O": self.oxygen_e}
        energy, slope = (charges[first] * charges[second] * values for values in coulomb_energy_and_slope(r_A))
        inside = r_A < SHORT_CUTOFF_A
        short = SHORT_RANGE[frozenset((first, second))].energy_and_slope(r_A[inside])
        energy[inside] += short[0]
        slope[inside] += short[1]
        return energy, slope


def shik_potential(counts: Mapping[str, int]) -> ShikPotential:
    """Return the potential of a composition, element -> atoms or any multiple. ValueError as `oxygen_charge_e`."""
    ShikPotential.check_elements(counts)
    return ShikPotential(oxygen_charge_e(counts))


def coulomb_energy_and_slope(r_A: Array) -> tuple[Array, Array]:
    """Return the Coulomb term between unit charges, ended at 10 Å, and its slope (eV, eV/Å)."""
    rc = COULOMB_CUTOFF_A
    energy = COULOMB_EV_A * (1 / r_A - 1 / rc + (r_A - rc) / rc**2)
    return _smoothed(energy, COULOMB_EV_A * (1 / rc**2 - 1 / r_A**2), r_A, rc)


def _smoothed(energy: Array, slope: Array, r_A: Array, cutoff_A: float) -> tuple[Array, Array]:
    """Return a term times exp(-gamma^2/(r - cutoff)^2) with its slope, 0 at the cutoff."""
    left = np.minimum(r_A - cutoff_A, -1e-6)
    factor = np.where(r_A < cutoff_A, np.exp(-SMOOTHING_A2 / left**2), 0.0)
    return energy * factor, (slope + energy * 2 * SMOOTHING_A2 / left**3) * factor


class ShikCalculator(PairCalculator):
    """ASE calculator of SHIK: energy (eV), forces (eV/Å) and stress (eV/Å^3, Voigt).

    Every cell is neutral: its own composition gives the charge of oxygen. As a labeler it stands in for
    quantum-mechanical labels where five-coordinated silicon matters: hot melts of it have plenty.
    """

    def potential_of(self, symbols: Collection[str]) -> ShikPotential:
        """Return the potential of these atoms' composition."""
        counts: dict[str, Any] = Counter(symbols)
        return shik_potential(counts)
