"""A cheap foundation for rehearsals: a force field that resembles Teter's, with errors and energies of its own.

What SevenNet-0 is to PBE, `FoundationField` is to the rehearsal force field: it knows the same chemistry, its forces
are off by a good part of an eV/Å (soft, as universal potentials are: smaller charges and weaker short-range terms),
and its energies count from another zero for every element.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ase import Atoms
from ase.calculators.calculator import all_changes

from alloop.glass.force_field import (
    CHARGES_E,
    REHEARSAL_PARAMETERS,
    Array,
    Buckingham,
    TeterCalculator,
    TeterParameters,
    coulomb_energy_and_slope,
)

CHARGE_SCALE = 0.95
STRENGTH = {"O": 1.0, "Si": 0.88, "B": 0.92, "Li": 0.85}
"""Prefactor A of the short-range term of each element with oxygen, in units of Teter's."""
OFFSETS_EV = {"Li": 4.0, "B": -3.0, "O": 2.5, "Si": -5.0}
"""What an atom's energy is off by; a made-up number of the order of two codes' different reference atoms."""


@dataclass(frozen=True)
class FoundationParameters(TeterParameters):
    """Teter's short-range terms with other prefactors."""

    @cached_property
    def pairs(self) -> dict[tuple[str, str], Buckingham]:
        """Short-range terms by (element, "O")."""
        teter = TeterParameters(self.a_bo_eV).pairs
        return {pair: replace(term, A_eV=term.A_eV * STRENGTH[pair[0]]) for pair, term in teter.items()}

    def pair_energy_and_slope(self, first: str, second: str, r_A: Array) -> tuple[Array, Array]:
        """Return the whole energy (eV) of a pair of elements and its slope (eV/Å), with smaller charges."""
        energy, slope = super().pair_energy_and_slope(first, second, r_A)
        product = CHARGES_E[first] * CHARGES_E[second] * (CHARGE_SCALE**2 - 1)
        coulomb_energy, coulomb_slope = coulomb_energy_and_slope(r_A)
        return energy + product * coulomb_energy, slope + product * coulomb_slope


class FoundationField(TeterCalculator):
    """ASE calculator of the foundation: energy (eV), forces (eV/Å) and stress (eV/Å^3, Voigt)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(FoundationParameters(REHEARSAL_PARAMETERS.a_bo_eV), **kwargs)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Collection[str] = ("energy",),
        system_changes: Collection[str] = tuple(all_changes),
    ) -> None:
        """Fill self.results; errors are those of TeterCalculator."""
        super().calculate(atoms, properties, system_changes)
        offset = sum(OFFSETS_EV[symbol] for symbol in self.atoms.get_chemical_symbols())
        self.results["energy"] += offset
        self.results["free_energy"] += offset
