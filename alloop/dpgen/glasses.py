"""DP-GEN's systems, which are files of cells, as alloop's glasses, which are mole fractions of oxides."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from ase.units import mol as AVOGADRO

from alloop.config import GlassParam
from alloop.errors import InputError
from alloop.glass.composition import OXIDES, TABLE_1, stoichiometric_counts

_SMALLEST_CELL = 12
_CATION = {next(element for element in parts if element != "O"): oxide for oxide, parts in OXIDES.items()}


@dataclass(frozen=True)
class GlassSystem:
    """A composition of a DP-GEN system as alloop names it: the system's index, glass and cell size."""

    system: int
    glass: str
    n_atoms: int


def read_cells(file: Path, data_format: str, type_map: Sequence[str]) -> list[Atoms]:
    """Return the frames of a start structure in any dpdata format; InputError if it cannot be read."""
    import dpdata

    try:
        found = dpdata.System(str(file), fmt=data_format, type_map=list(type_map))
    except Exception as error:  # every reader of dpdata has its own exceptions
        raise InputError(
            f"{file} cannot be read as {data_format}: {type(error).__name__}: {error}\n"
            "  mend the file, or take it out of sys_configs"
        ) from None
    symbols = [found.data["atom_names"][kind] for kind in found.data["atom_types"]]
    cells, coords = found.data["cells"], found.data["coords"]
    return [Atoms(symbols, positions=x, cell=cell, pbc=True) for x, cell in zip(coords, cells, strict=True)]


def oxide_fractions(counts: Mapping[str, int]) -> dict[str, Fraction]:
    """Return the mole fractions of SiO2, B2O3 and Li2O that make up a cell exactly; ValueError if none do."""
    foreign = sorted(set(counts) - set(_CATION) - {"O"})
    if foreign:
        raise ValueError(f"it holds {', '.join(foreign)}; alloop's glasses are made of {', '.join(OXIDES)}")
    units = {
        oxide: Fraction(counts[cation], OXIDES[oxide][cation])
        for cation, oxide in _CATION.items()
        if counts.get(cation)
    }
    if not units:
        raise ValueError("it holds no Si, B or Li")
    oxygen = sum(number * OXIDES[oxide]["O"] for oxide, number in units.items())
    if oxygen != counts.get("O", 0):
        raise ValueError(f"its oxides would take {float(oxygen):g} O, but it holds {counts.get('O', 0)}")
    total = sum(units.values(), Fraction(0))
    return {oxide: units[oxide] / total for oxide in OXIDES if oxide in units}


def glass_name(fractions: Mapping[str, Fraction]) -> str:
    """Return the name of Table 1 for its glasses, or the simplest formula, such as Li2B6O12Si1."""
    for name, glass in TABLE_1.items():
        known = {oxide: Fraction(value).limit_denominator(1000) for oxide, value in glass.mole_fractions.items()}
        if known == dict(fractions):
            return name
    common = math.lcm(*(value.denominator for value in fractions.values()))
    counts: Counter[str] = Counter()
    for oxide, value in fractions.items():
        counts.update({element: number * int(value * common) for element, number in OXIDES[oxide].items()})
    divisor = math.gcd(*counts.values())
    return "".join(f"{element}{counts[element] // divisor}" for element in ("Li", "B", "O", "Si") if counts[element])


def density_g_cm3(atoms: Atoms) -> float:
    """Return the mass density of a cell."""
    mass_u = sum(atomic_masses[atomic_numbers[symbol]] for symbol in atoms.get_chemical_symbols())
    return float(mass_u / AVOGADRO / atoms.get_volume() * 1e24)


def glass_entries(
    cells: Mapping[int, Sequence[Atoms]], remarks: list[tuple[str, str]]
) -> tuple[list[dict[str, Any]], list[GlassSystem]]:
    """Return the `glasses` of a `param.json` and which system became which of them.

    cells: system index -> its start structures. A composition or size that alloop has no glass for is added to
    remarks and left out.
    """
    entries: dict[str, dict[str, Any]] = {}
    densities: dict[str, list[float]] = {}
    systems: dict[tuple[int, str, int], GlassSystem] = {}
    for system, frames in cells.items():
        told: set[str] = set()
        for atoms in frames:
            counts = Counter(atoms.get_chemical_symbols())
            try:
                name, entry = _entry(counts)
            except ValueError as error:
                formula = atoms.get_chemical_formula()
                if formula not in told:
                    told.add(formula)
                    remarks.append((f"sys_configs[{system}]", f"{formula} is not explored: {error}"))
                continue
            known = entries.setdefault(name, entry | {"n_atoms": []})
            if len(atoms) not in known["n_atoms"]:
                known["n_atoms"].append(len(atoms))
            densities.setdefault(name, []).append(density_g_cm3(atoms))
            systems.setdefault((system, name, len(atoms)), GlassSystem(system, name, len(atoms)))
    for name, entry in entries.items():
        entry["density_g_cm3"] = round(float(np.mean(densities[name])), 4)
        entry["n_atoms"].sort()
    return list(entries.values()), list(systems.values())


def _entry(counts: Counter[str]) -> tuple[str, dict[str, Any]]:
    """Return name and composition of a cell as a glass whose exact cell of this size has just these atoms."""
    size = sum(counts.values())
    if size < _SMALLEST_CELL:
        raise ValueError(f"{size} atoms; alloop's cells have at least {_SMALLEST_CELL}")
    fractions = oxide_fractions(counts)
    name = glass_name(fractions)
    entry: dict[str, Any] = {"name": name}
    if name not in TABLE_1:
        entry["mole_fractions"] = {oxide: float(value) for oxide, value in fractions.items()}
    glass = GlassParam.model_validate(entry | {"density_g_cm3": 1.0}).glass()
    if stoichiometric_counts(glass, size) != dict(sorted(counts.items())):
        raise ValueError(f"its ratio of oxides, {_ratio(fractions)}, is finer than alloop resolves")
    return name, entry


def _ratio(fractions: Mapping[str, Fraction]) -> str:
    return " ".join(f"{oxide} {value}" for oxide, value in fractions.items())
