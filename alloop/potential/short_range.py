"""A short-range repulsive wall for a model: a table of pair energies that DeePMD blends in where atoms all but overlap.

Form "zbl": the screened repulsion of two nuclei with the universal screening function of J. F. Ziegler, J. P. Biersack
and U. Littmark, The Stopping and Range of Ions in Matter, vol. 1 (Pergamon, 1985), chapter 2:

    V(r) = e^2/(4 pi eps0) Z_i Z_j / r  phi(r / a),   a = 0.46850 Å / (Z_i^0.23 + Z_j^0.23)
    phi(x) = 0.18175 e^(-3.19980 x) + 0.50986 e^(-0.94229 x) + 0.28022 e^(-0.40290 x) + 0.02817 e^(-0.20162 x)

where 0.46850 Å are 0.8853 Bohr radii and phi(0) = 1; ``pair_style zbl`` of LAMMPS has the same constants.

DeePMD's TensorFlow backend (``use_srtab``) replaces an atom's energy by (1 - w) network + w (table + reference energy);
w goes by the distance of the atom's nearest neighbours, a soft minimum that is never below the nearest one, from 1 at
`BEGINS_A` to 0 at `ENDS_A`. One distance serves all pairs, so it must be below the bonds of every pair: `ENDS_A` is the
smallest of the hard gates that mark a structure as lost (0.8 Å, see `alloop.glass.events`). No frame that passes the
gates comes under it: there the wall is exactly zero, takes no part in the fit and moves no atom. At 0.5 Å and below,
where the nuclei and their inner electrons decide, it is ZBL alone; between the two is room for a smooth change. What
the wall cannot mend is a hole of the network above 0.8 Å, such as between two oxygens at 1.2 Å. All models of an
ensemble share the wall, so under it they agree: a small deviation there says nothing, the distance has to.

DeePMD sums the table over all neighbours of such an atom, those at bond distances too, of which ZBL's unbonded atoms
know nothing. From `ENDS_A` on the table therefore fades out, to nothing at `FADED_A`. It begins at `SPACING_A`; atoms
closer than that end the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

COULOMB_eV_A = 14.3996454784  # e^2/(4 pi eps0), CODATA 2018
SCREENING_LENGTH_A = 0.46850
SCREENING_POWER = 0.23
SCREENING_WEIGHTS = np.array([0.18175, 0.50986, 0.28022, 0.02817])
SCREENING_DECAYS = np.array([3.19980, 0.94229, 0.40290, 0.20162])

BEGINS_A, ENDS_A = 0.5, 0.8
SOFTMIN_A = 0.1  # decay of the soft minimum: neighbours 0.3 Å farther than the nearest one hardly count
FADED_A = 1.2
SPACING_A = 0.01

FORMS = ("zbl",)
BACKENDS = ("tensorflow",)


@dataclass(frozen=True)
class ShortRange:
    """One wall: its form, the hash of its table, and where it is blended in. Equal walls are equal in all of these."""

    form: str
    table_sha256: str
    begins_A: float
    ends_A: float
    softmin_A: float

    @property
    def file_name(self) -> str:
        """Return the table's name, which tells its content, since a model records the name only."""
        return f"short-range-{self.table_sha256[:16]}.txt"

    def model_section(self) -> dict[str, Any]:
        """Return the keys of a DeePMD input's ``model`` section that ask for this wall."""
        return {
            "use_srtab": self.file_name,
            "smin_alpha": self.softmin_A,
            "sw_rmin": self.begins_A,
            "sw_rmax": self.ends_A,
        }


MODEL_KEYS = ("use_srtab", "smin_alpha", "sw_rmin", "sw_rmax")


def short_range(form: str, type_map: Sequence[str]) -> ShortRange:
    """Return the wall of that form for models of these elements; ValueError for a form or an element unknown."""
    digest = hashlib.sha256(table_text(form, type_map).encode()).hexdigest()
    return ShortRange(form, digest, BEGINS_A, ENDS_A, SOFTMIN_A)


def write_table(wall: ShortRange, type_map: Sequence[str], directory: Path) -> Path:
    """Write the wall's table for these elements into `directory`; ValueError if that is not the table of its hash."""
    text = table_text(wall.form, type_map)
    found = hashlib.sha256(text.encode()).hexdigest()
    if found != wall.table_sha256:
        raise ValueError(
            f"the {wall.form} table of {'-'.join(type_map)} has SHA-256 {found[:16]}, asked for was "
            f"{wall.table_sha256[:16]}; use the version of alloop that asked for it, or ask for the training anew"
        )
    path = directory / wall.file_name
    path.write_text(text)
    return path


def table_text(form: str, type_map: Sequence[str]) -> str:
    """Return the table as DeePMD reads it: distances (Å), then the energy (eV) of each pair of elements, in order.

    The pairs are 0-0, 0-1, ..., 1-1, ... of the type map. Eight digits: so few that the last bits of a machine's
    exponentials do not change the text, and far more than the potential is good for.
    """
    if form not in FORMS:
        raise ValueError(f"unknown short-range wall {form!r}; use one of {', '.join(FORMS)}")
    unknown = [symbol for symbol in type_map if atomic_numbers.get(symbol, 0) < 1]
    if unknown or not type_map:
        raise ValueError(f"no chemical elements: {', '.join(unknown) or 'none given'}; give the models' type map")
    numbers = [atomic_numbers[symbol] for symbol in type_map]
    distances_A = SPACING_A * np.arange(1, round(FADED_A / SPACING_A) + 1)
    columns = [table_energy_eV(distances_A, one, other) for one, other in combinations_with_replacement(numbers, 2)]
    rows = [" ".join(f"{value:.7e}" for value in row) for row in zip(distances_A, *columns, strict=True)]
    return "\n".join(rows) + "\n"


def zbl_energy_eV(distances_A: np.ndarray, one: int, other: int) -> np.ndarray:
    """Return ZBL's repulsion of two nuclei of these atomic numbers, eV, at distances > 0 of any shape."""
    x, prefactor = _reduced(distances_A, one, other)
    return prefactor * (SCREENING_WEIGHTS * np.exp(-x[..., None] * SCREENING_DECAYS)).sum(axis=-1)


def zbl_force_eV_A(distances_A: np.ndarray, one: int, other: int) -> np.ndarray:
    """Return -dV/dr of `zbl_energy_eV`, eV/Å, positive at every distance."""
    r = np.asarray(distances_A, dtype=float)
    x, prefactor = _reduced(r, one, other)
    terms = SCREENING_WEIGHTS * np.exp(-x[..., None] * SCREENING_DECAYS)
    return prefactor / r * (terms * (1 + x[..., None] * SCREENING_DECAYS)).sum(axis=-1)


def table_energy_eV(distances_A: np.ndarray, one: int, other: int) -> np.ndarray:
    """Return what the table holds: ZBL up to `ENDS_A`, faded to zero at `FADED_A` with two continuous derivatives."""
    u = np.clip((np.asarray(distances_A, dtype=float) - ENDS_A) / (FADED_A - ENDS_A), 0.0, 1.0)
    fade = 1 - u**3 * (10 - 15 * u + 6 * u**2)
    return zbl_energy_eV(distances_A, one, other) * fade


def _reduced(distances_A: np.ndarray, one: int, other: int) -> tuple[np.ndarray, np.ndarray]:
    """Return r/a and the bare Coulomb repulsion (eV)."""
    r = np.asarray(distances_A, dtype=float)
    length_A = SCREENING_LENGTH_A / (one**SCREENING_POWER + other**SCREENING_POWER)
    return r / length_A, COULOMB_eV_A * one * other / r
