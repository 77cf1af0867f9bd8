"""Compositions of lithium borosilicate glasses: the eleven glasses of Table 1, cells and the ratios R and K."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from ase.data import atomic_masses, atomic_numbers
from ase.units import mol as AVOGADRO

OXIDES: dict[str, dict[str, int]] = {
    "SiO2": {"Si": 1, "O": 2},
    "B2O3": {"B": 2, "O": 3},
    "Li2O": {"Li": 2, "O": 1},
}
_SUM_TOLERANCE = 1e-3
_LARGEST_DENOMINATOR = 1000  # mole fractions are read to a tenth of a percent, or as the simple ratio they are near
_LARGEST_OVERSHOOT = 1.5  # an exact cell more than half as large again as the one asked for is refused


@dataclass(frozen=True)
class Glass:
    """One glass of the system SiO2-B2O3-Li2O.

    mole_fractions: oxide -> mole fraction; the values may sum to 1 or to 100 (both within 0.1 %) and are kept
    normalised to 1, oxides of zero fraction dropped. density_g_cm3: mass density at 300 K.
    experimental_4B: measured fraction (0 to 1) of boron that is fourfold coordinated, or None.
    Raises ValueError for an unknown oxide, a negative fraction, another sum, or a density that is not positive.
    """

    name: str
    mole_fractions: Mapping[str, float] = field(hash=False)
    density_g_cm3: float
    experimental_4B: float | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.mole_fractions) - set(OXIDES))
        if unknown:
            raise ValueError(f"{self.name}: unknown oxide {', '.join(unknown)}; use {', '.join(OXIDES)} only")
        for oxide, value in self.mole_fractions.items():
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{self.name}: mole fraction of {oxide} is {value}; give a number >= 0")
        total = math.fsum(self.mole_fractions.values())
        if min(abs(total - 1), abs(total / 100 - 1)) > _SUM_TOLERANCE:
            raise ValueError(
                f"{self.name}: mole fractions sum to {total:g}; expected 1 (or 100 for mole percent), "
                "so correct the composition"
            )
        if not (math.isfinite(self.density_g_cm3) and self.density_g_cm3 > 0):
            raise ValueError(
                f"{self.name}: density is {self.density_g_cm3} g/cm3; give the measured density, which is > 0"
            )
        if self.experimental_4B is not None and not 0 <= self.experimental_4B <= 1:
            raise ValueError(f"{self.name}: experimental 4B is {self.experimental_4B}; give a fraction between 0 and 1")
        normalised = {oxide: self.mole_fractions[oxide] / total for oxide in OXIDES if self.mole_fractions.get(oxide)}
        object.__setattr__(self, "mole_fractions", normalised)


def _table_1() -> dict[str, Glass]:
    rows = (
        (20, 60, 20, 36.7, 2.21),
        (40, 40, 20, 46.4, 2.26),
        (10, 50, 40, 41.6, 2.30),
        (20, 40, 40, 50.7, 2.31),
        (30, 30, 40, 54.4, 2.31),
        (40, 20, 40, 56.5, 2.34),
        (50, 10, 40, 56.8, 2.32),
        (8, 32, 60, 26.3, 2.17),
        (15, 25, 60, 22.0, 2.20),
        (10, 20, 70, 1.2, 2.10),
        (5, 35, 60, 23.5, 2.17),
    )
    glasses = [
        Glass(f"LBS-{si}-{b}-{li}", {"SiO2": si / 100, "B2O3": b / 100, "Li2O": li / 100}, density, four_b / 100)
        for si, b, li, four_b, density in rows
    ]
    return {glass.name: glass for glass in glasses}


TABLE_1: dict[str, Glass] = _table_1()
"""The eleven glasses with measured density and 4B fraction (NMR), named LBS-SiO2-B2O3-Li2O in mole percent."""


def formula_units(glass: Glass) -> dict[str, int]:
    """Return the smallest whole numbers of oxide units in the glass's ratio, such as SiO2 1, B2O3 3, Li2O 1."""
    parts = {
        oxide: Fraction(value).limit_denominator(_LARGEST_DENOMINATOR) for oxide, value in glass.mole_fractions.items()
    }
    parts = {oxide: part for oxide, part in parts.items() if part}
    common = math.lcm(*(part.denominator for part in parts.values()))
    units = {oxide: int(part * common) for oxide, part in parts.items()}
    divisor = math.gcd(*units.values())
    return {oxide: number // divisor for oxide, number in units.items()}


def stoichiometric_counts(glass: Glass, n_atoms: int) -> dict[str, int]:
    """Return element -> number of atoms of the exactly stoichiometric cell whose size is closest to n_atoms.

    Of two equally close cells the larger one is returned. Elements that the glass lacks are left out.
    Raises ValueError when n_atoms is not positive or the smallest exact cell is over 1.5 n_atoms.
    """
    if n_atoms < 1:
        raise ValueError(f"{glass.name}: a cell of {n_atoms} atoms was asked for; ask for at least 1")
    smallest: dict[str, int] = {}
    for oxide, number in formula_units(glass).items():
        for element, per_unit in OXIDES[oxide].items():
            smallest[element] = smallest.get(element, 0) + number * per_unit
    size = sum(smallest.values())
    if size > _LARGEST_OVERSHOOT * n_atoms:
        raise ValueError(
            f"{glass.name}: no exactly stoichiometric cell is near {n_atoms} atoms; possible sizes are {size}, "
            f"{2 * size}, {3 * size}, ... atoms. Ask for one of them, or write the composition in a simpler ratio"
        )
    multiple = max(1, math.floor(n_atoms / size + 0.5))
    return {element: multiple * number for element, number in sorted(smallest.items())}


def cell_length_A(counts: Mapping[str, int], density_g_cm3: float) -> float:
    """Return the edge (Å) of the cube that holds these atoms at a mass density; ValueError if either is not > 0."""
    mass_u = sum(number * atomic_masses[atomic_numbers[element]] for element, number in counts.items())
    if mass_u <= 0 or not density_g_cm3 > 0:
        raise ValueError(
            f"no cell for counts {dict(counts)} at {density_g_cm3} g/cm3; give atoms and a density, both > 0"
        )
    volume_A3 = mass_u / AVOGADRO / density_g_cm3 * 1e24
    return float(volume_A3 ** (1 / 3))


def composition_parameters(glass: Glass) -> tuple[float, float] | None:
    """Return R = [Li2O]/[B2O3] and K = [SiO2]/[B2O3], or None for a glass without B2O3."""
    b2o3 = glass.mole_fractions.get("B2O3", 0.0)
    if b2o3 == 0:
        return None
    return glass.mole_fractions.get("Li2O", 0.0) / b2o3, glass.mole_fractions.get("SiO2", 0.0) / b2o3
