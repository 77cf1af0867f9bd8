"""Pair tables of one's own, such as those of a force field whose numbers are not public, as a pair potential.

What is handed in is a small TOML file and, beside it, the tables in LAMMPS's format for ``pair_style table``::

    name = "FMP-LBS"
    tables = "fmp.table"            # a section for each pair of elements, named O-Si or Si-O
    cutoff_A = 8.0                  # every section reaches it and is zero there, with its force
    coulomb = "in tables"           # or a section [coulomb], as here below

    [coulomb]                       # the damped shifted-force Coulomb term of LAMMPS's coul/dsf
    charges_e = { O = -1.2, Si = 2.4, B = 1.8, Li = 0.6 }
    cutoff_A = 8.0
    damping_1_A = 0.25              # 0 for the undamped one (Wolf)

    [three_body]                    # may be left out; LAMMPS only, no calculator knows it
    style = "nb3b/screened"         # or nb3b/harmonic, sw
    file = "fmp.nb3b"

A table is in metal units (eV, Å): a line with the section's name, a line ``N 1000`` (``R lo hi`` or ``RSQ lo hi`` may
follow, and say what the r column holds too), an empty line, rows "index r energy force". Nothing in it is taken on
trust; see `read_user_table` for what is checked.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from scipy.interpolate import CubicHermiteSpline, CubicSpline
from scipy.special import erfc

from alloop.glass.pair_potential import COULOMB_EV_A, Array, LammpsThreeBody, PairCalculator

_KEYS = {"name", "tables", "cutoff_A", "coulomb", "three_body"}
_COULOMB_KEYS = {"charges_e", "cutoff_A", "damping_1_A"}
_THREE_BODY_KEYS = {"style", "file"}
_THREE_BODY_STYLES = ("nb3b/screened", "nb3b/harmonic", "sw")
_LARGEST_AT_CUTOFF = 1e-3  # eV and eV/Å; more would be a jump that LAMMPS's spline answers with ripples
_NEUTRAL_E = 1e-4  # net charge per atom up to which a cell is neutral, the rounding of printed charges
# A force may miss the slope of the energies by these parts of itself and of its change to the next row, which is as
# much as the rows of a steep core can show, and by this in eV/Å.
_FORCE_TOLERANCE, _STEP_TOLERANCE, _FORCE_TOLERANCE_EV_A = 0.02, 0.1, 1e-3
_FEWEST_ROWS = 10
_ROUNDING_A = 1e-4  # by which printed distances may miss those of R or RSQ


@dataclass(frozen=True)
class Coulomb:
    """Damped shifted-force Coulomb term between point charges; energy and force are zero at the cutoff.

    C. J. Fennell, J. D. Gezelter, J. Chem. Phys. 124, 234104 (2006); the self term is left out, as in force_field.
    """

    charges_e: Mapping[str, float]
    cutoff_A: float
    damping_1_A: float

    def energy_and_slope(self, first: str, second: str, r_A: Array) -> tuple[Array, Array]:
        """Return the energy (eV) and its slope (eV/Å) at r_A > 0; both are 0 from the cutoff on."""
        rc = np.array(self.cutoff_A)
        (energy, slope), (end_energy, end_slope) = self._bare(np.minimum(r_A, rc)), self._bare(rc)
        product = COULOMB_EV_A * self.charges_e[first] * self.charges_e[second]
        inside = r_A < rc
        shifted = energy - end_energy - (r_A - rc) * end_slope
        return np.where(inside, product * shifted, 0.0), np.where(inside, product * (slope - end_slope), 0.0)

    def _bare(self, r_A: Array) -> tuple[Array, Array]:
        a = self.damping_1_A
        energy = erfc(a * r_A) / r_A
        return energy, -(energy + 2 * a / math.sqrt(math.pi) * np.exp(-((a * r_A) ** 2))) / r_A


@dataclass(frozen=True, eq=False)
class UserTable:
    """Pair tables with or without a Coulomb term; satisfies PairPotential and ThreeBodyPotential.

    Between two rows the energy is the cubic that has their energies and their forces (Hermite), so that forces are
    exactly the slope of the energies. curves: energy (eV) against r (Å) by pair of elements.
    """

    name: str
    curves: Mapping[frozenset[str], CubicHermiteSpline]
    table_cutoff_A: float
    coulomb: Coulomb | None
    three_body: LammpsThreeBody | None

    @property
    def cutoff_A(self) -> float:
        """The larger one of the cutoffs of the tables and of the Coulomb term."""
        return max(self.table_cutoff_A, self.coulomb.cutoff_A if self.coulomb else 0.0)

    @cached_property
    def table_inner_A(self) -> float:
        """The largest distance at which a table begins; LAMMPS stops if two atoms come closer."""
        return max(float(curve.x[0]) for curve in self.curves.values())

    def check_elements(self, elements: Collection[str]) -> None:
        """Raise ValueError for a pair of these elements without a table, or an element without a charge."""
        for first, second in itertools.combinations_with_replacement(sorted(set(elements)), 2):
            if frozenset((first, second)) not in self.curves:
                raise ValueError(
                    f"{self.name}: no table for {first}-{second}; add a section of that name, of zeros if the pair "
                    "meets through charges alone"
                )
        if self.coulomb and (missing := sorted(set(elements) - set(self.coulomb.charges_e))):
            raise ValueError(f"{self.name}: no charge for {', '.join(missing)}; add it to charges_e in [coulomb]")

    def check_composition(self, counts: Mapping[str, int]) -> None:
        """Raise ValueError as check_elements, and if cells of these atoms (element -> number) are not neutral."""
        self.check_elements(counts)
        if self.coulomb is None:
            return
        net_e = math.fsum(self.coulomb.charges_e[element] * number for element, number in counts.items())
        if abs(net_e) > _NEUTRAL_E * sum(counts.values()):
            raise ValueError(
                f"{self.name}: {dict(counts)} have a net charge of {net_e:g} e with charges_e "
                f"{dict(self.coulomb.charges_e)}; a cell must be neutral, so correct the charges or the composition"
            )

    def pair_energy_and_slope(self, first: str, second: str, r_A: Array) -> tuple[Array, Array]:
        """Return the whole energy (eV) of a pair of elements and its slope (eV/Å), r_A up to the cutoff.

        ValueError for a distance below the first row of the pair's table.
        """
        curve = self.curves[frozenset((first, second))]
        if r_A.size and r_A.min() < curve.x[0] * (1 - 1e-9):
            raise ValueError(
                f"{self.name}: two atoms {first} and {second} are {r_A.min():.3g} Å apart and their table begins at "
                f"{curve.x[0]:.3g} Å; begin the table at a shorter distance"
            )
        inside, r = r_A < self.table_cutoff_A, np.clip(r_A, curve.x[0], self.table_cutoff_A)
        energy, slope = np.where(inside, curve(r), 0.0), np.where(inside, curve(r, 1), 0.0)
        if self.coulomb is None:
            return energy, slope
        charged = self.coulomb.energy_and_slope(first, second, r_A)
        return energy + charged[0], slope + charged[1]

    def lammps_three_body(self, elements: Collection[str]) -> LammpsThreeBody | None:
        """Return the three-body term handed in, None if there is none or none of its elements is present."""
        return self.three_body if self.three_body and self.three_body.elements & set(elements) else None


def read_user_table(settings: Path, counts: Mapping[str, int]) -> UserTable:
    """Read a potential of one's own for cells of a composition, element -> atoms or any multiple; see the module.

    ValueError, naming file and section, for: an unknown or missing setting; a pair of elements without a table; rows
    that are missing, not numbers or not in ascending order of r; a table that ends before the cutoff or is not zero
    there (1 meV, 1 meV/Å); forces that are not minus the slope of the energies, within 2 % of the force, 10 % of its
    step to the next row and 1 meV/Å; r that is not what R or RSQ promises; charges with which the composition is not
    neutral (1e-4 e per atom). FileNotFoundError for a file that is not there.
    """
    values = tomllib.loads(settings.read_text())
    _check_keys(values, _KEYS, {"tables", "cutoff_A", "coulomb"}, str(settings))
    cutoff_A = _positive(values["cutoff_A"], f"{settings}: cutoff_A")
    path = settings.parent / values["tables"]
    sections = _sections(path)
    curves = {pair: _curve(section, cutoff_A, f"{path}, section {section.name}") for pair, section in sections.items()}
    coulomb = _coulomb(values["coulomb"], str(settings))
    three_body = _three_body(values["three_body"], settings) if "three_body" in values else None
    table = UserTable(values.get("name", path.stem), curves, cutoff_A, coulomb, three_body)
    table.check_composition(counts)
    return table


def table_hash(settings: Path) -> str:
    """Return the SHA-256 of a potential of one's own: its settings and all files they name; no path of theirs enters.

    ValueError or OSError for one that cannot be read.
    """
    hashes = (hashlib.sha256(file.read_bytes()).hexdigest() for file in table_files(settings))
    return hashlib.sha256("".join(f"{found}\n" for found in hashes).encode()).hexdigest()


def table_name(settings: Path) -> str:
    """Return the name of a potential of one's own, for people; ValueError as `read_user_table`."""
    values = tomllib.loads(settings.read_text())
    _check_keys(values, _KEYS, {"tables", "cutoff_A", "coulomb"}, str(settings))
    return str(values.get("name", Path(values["tables"]).stem))


def table_files(settings: Path) -> list[Path]:
    """Return the files a potential of one's own is made of, its settings first; ValueError as `read_user_table`."""
    values = tomllib.loads(settings.read_text())
    _check_keys(values, _KEYS, {"tables", "cutoff_A", "coulomb"}, str(settings))
    names = [values["tables"]]
    if "three_body" in values:
        _three_body(values["three_body"], settings)
        names.append(values["three_body"]["file"])
    return [settings, *(settings.parent / name for name in names)]


def _check_keys(values: Mapping[str, Any], known: set[str], needed: set[str], where: str) -> None:
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{where}: unknown setting {', '.join(unknown)}; use {', '.join(sorted(known))}")
    if missing := sorted(needed - set(values)):
        hint = '; write coulomb = "in tables" if the tables hold the charges\' term' if "coulomb" in missing else ""
        raise ValueError(f"{where}: no {', '.join(missing)}; it must be given{hint}")


def _positive(value: Any, what: str, *, or_zero: bool = False) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not (value > 0 or (or_zero and value == 0)):
        raise ValueError(f"{what} is {value!r}; give a number {'>= 0' if or_zero else '> 0'}")
    return float(value)


def _coulomb(values: Any, where: str) -> Coulomb | None:
    if values == "in tables":
        return None
    if not isinstance(values, dict):
        raise ValueError(f'{where}: coulomb is {values!r}; write "in tables" or a section [coulomb]')
    where = f"{where}, [coulomb]"
    _check_keys(values, _COULOMB_KEYS, _COULOMB_KEYS, where)
    charges = values["charges_e"]
    if not isinstance(charges, dict) or not all(
        isinstance(q, int | float) and math.isfinite(q) for q in charges.values()
    ):
        raise ValueError(f"{where}: charges_e is {charges!r}; give a table such as {{ O = -1.2, Si = 2.4 }}")
    cutoff_A = _positive(values["cutoff_A"], f"{where}: cutoff_A")
    return Coulomb(charges, cutoff_A, _positive(values["damping_1_A"], f"{where}: damping_1_A", or_zero=True))


def _three_body(values: Any, settings: Path) -> LammpsThreeBody:
    where = f"{settings}, [three_body]"
    if not isinstance(values, dict):
        raise ValueError(f"{settings}: three_body is {values!r}; write a section [three_body]")
    _check_keys(values, _THREE_BODY_KEYS, _THREE_BODY_KEYS, where)
    if values["style"] not in _THREE_BODY_STYLES:
        raise ValueError(f"{where}: style is {values['style']!r}; use one of {', '.join(_THREE_BODY_STYLES)}")
    text = (settings.parent / values["file"]).read_text()
    words = [line.split("#")[0].split()[:3] for line in text.splitlines()]
    elements = frozenset(word for row in words for word in row if word in atomic_numbers)
    if not elements:
        raise ValueError(f"{where}: {values['file']} names no elements; its rows begin with three of them")
    return LammpsThreeBody(values["style"], text, elements)


@dataclass(frozen=True)
class _Section:
    """One section of a table file as it stands there: name, words of its N line, rows of numbers."""

    name: str
    parameters: list[str]
    rows: list[list[str]]


def _sections(path: Path) -> dict[frozenset[str], _Section]:
    """Return the sections of a table file by pair of elements."""
    text = path.read_text()
    if (units := re.search(r"UNITS:\s*(\w+)", text)) and units[1] != "metal":
        raise ValueError(f"{path}: its units are {units[1]}; convert it to metal units (eV, Å)")
    lines = [words for line in text.splitlines() if (words := line.split("#")[0].split())]
    starts = [k for k, words in enumerate(lines) if not re.match(r"[-+.\d]|N$", words[0])]
    sections: dict[frozenset[str], _Section] = {}
    for start, end in itertools.pairwise([*starts, len(lines)]):
        name = lines[start][0]
        elements = name.split("-")
        if len(elements) != 2 or any(element not in atomic_numbers for element in elements):
            raise ValueError(f"{path}: section {name!r} is not named after two elements; write for example O-Si")
        if frozenset(elements) in sections:
            raise ValueError(f"{path}: there are two sections for {name}; keep one")
        parameters = lines[start + 1] if start + 1 < end else []
        sections[frozenset(elements)] = _Section(name, parameters, lines[start + 2 : end])
    if not sections:
        raise ValueError(f"{path}: no section was found; each begins with a line such as O-Si")
    return sections


def _curve(section: _Section, cutoff_A: float, where: str) -> CubicHermiteSpline:
    """Return energy against r of a section, up to the cutoff; ValueError for what read_user_table lists."""
    r, energy, force = _columns(section, where)
    if r[-1] < cutoff_A * (1 - 1e-6):
        raise ValueError(
            f"{where}: ends at {r[-1]:g} Å, before the cutoff of {cutoff_A:g} Å; continue it or cut shorter"
        )
    spline = CubicSpline(r, energy)
    allowed = _FORCE_TOLERANCE * np.abs(force) + _STEP_TOLERANCE * np.abs(np.gradient(force)) + _FORCE_TOLERANCE_EV_A
    excess = np.abs(force + spline(r, 1)) - allowed
    if (excess > 0).any():
        worst = int(np.argmax(excess))
        raise ValueError(
            f"{where}: at r = {r[worst]:g} Å the force is {force[worst]:g} eV/Å and minus the slope of the energies "
            f"{-spline(r[worst], 1):g} eV/Å; the fourth column must be -dE/dr, on rows close enough to show it"
        )
    curve = CubicHermiteSpline(r, energy, -force)
    end_energy, end_slope = float(curve(cutoff_A)), float(curve(cutoff_A, 1))
    if max(abs(end_energy), abs(end_slope)) > _LARGEST_AT_CUTOFF:
        raise ValueError(
            f"{where}: at the cutoff of {cutoff_A:g} Å energy and slope are {end_energy:g} eV and {end_slope:g} eV/Å; "
            "shift the table so that both end at zero (shifted force), or cut off further out"
        )
    return curve


def _columns(section: _Section, where: str) -> tuple[Array, Array, Array]:
    """Return r, energy and force of a section; ValueError if rows or numbers are missing or r is not in order."""
    words = section.parameters
    if len(words) < 2 or words[0] != "N" or not words[1].isdigit() or len(words) not in (2, 5):
        raise ValueError(
            f"{where}: its second line is {' '.join(words)!r}; write N and the number of rows, such as N 1000"
        )
    if len(section.rows) != int(words[1]) or int(words[1]) < _FEWEST_ROWS:
        raise ValueError(f"{where}: has {len(section.rows)} rows of the {words[1]} announced (at least {_FEWEST_ROWS})")
    try:
        _, r, energy, force = np.array(section.rows, dtype=float).T
        low, high = (float(word) for word in words[3:]) if len(words) == 5 else (float(r[0]), float(r[-1]))
    except ValueError as error:
        raise ValueError(f"{where}: a row is not made of index, r, energy and force ({error})") from error
    if not np.isfinite([r, energy, force]).all() or r[0] <= 0:
        raise ValueError(f"{where}: holds numbers that are not finite or r that are not > 0; begin it at r > 0")
    if (np.diff(r) <= 0).any():
        row = int(np.argmax(np.diff(r) <= 0)) + 2
        raise ValueError(f"{where}: r falls or stands still at row {row} ({r[row - 1]:g} Å); sort it and drop doubles")
    if len(words) == 5:
        if words[2] not in ("R", "RSQ"):
            raise ValueError(f"{where}: rows by {words[2]}; write them evenly in R or RSQ, or with no such word")
        power = 1 if words[2] == "R" else 2
        promised = np.linspace(low**power, high**power, len(r)) ** (1 / power)
        if np.abs(r - promised).max() > _ROUNDING_A:
            raise ValueError(f"{where}: its r are not those of {' '.join(words[2:])}; correct that line or the rows")
        r = promised  # as in LAMMPS, free of the rounding of printed digits
    return r, energy, force


class UserTableCalculator(PairCalculator):
    """ASE calculator of a UserTable: energy (eV), forces (eV/Å) and stress (eV/Å^3, Voigt).

    Every cell is checked: ValueError if it is not neutral or holds a pair without a table or atoms closer than their
    table begins. ValueError for a potential with a three-body term: LAMMPS alone computes that one.
    """

    def __init__(self, table: UserTable | Path | str, **kwargs: Any) -> None:
        """Take a potential, or the path of its settings, for which errors are those of `read_user_table`."""
        table = table if isinstance(table, UserTable) else read_user_table(Path(table), {})
        if table.three_body is not None:
            raise ValueError(f"{table.name} has a three-body term, {table.three_body.style}; run it in LAMMPS")
        super().__init__(**kwargs)
        self.table = table

    def potential_of(self, symbols: Collection[str]) -> UserTable:
        """Return the tables, after a look at the composition of these atoms."""
        self.table.check_composition(Counter(symbols))
        return self.table
