"""What one VASP output file says, before it is judged; and the judgement of single numbers as they are printed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from alloop.labelers.verdict import Fault
from alloop.structure import LabeledFrame

EV_A3_IN_KB = 1602.176634
"""1 eV/A^3 in kB (CODATA 2018)."""
_RUN_TOGETHER = re.compile(r"\d[-+]\d|\.\d+\.")
_ELEMENT = re.compile(r"[A-Z][a-z]?")


@dataclass(frozen=True)
class Trouble:
    """Why a file makes no label: the fault and one line that says what was found, and where."""

    fault: Fault
    message: str


@dataclass(frozen=True)
class ElectronicLoop:
    """The electronic steps of one ionic step.

    steps: how many; reached: whether VASP says that EDIFF was reached, None if it says nothing; stopped: ended by a
    STOPCAR with LABORT.
    """

    steps: int
    reached: bool | None = None
    stopped: bool = False


@dataclass
class Printed:
    """The numbers of one ionic step as they are printed, None where nothing is."""

    energy: str | None = None
    forces: list[str] | None = None
    positions: list[str] | None = None
    stress: list[str] | None = None
    cell: list[str] | None = None


@dataclass
class Reading:
    """What one file says. Lists are in the order of the file.

    finished: the file has its normal end; place: where it ends, for a person; nelm, isif, icharg: VASP's tags, None
    if not told; species: element of each block of atoms; counts: atoms of each block; last: the last ionic step that
    density-functional theory labelled; unlabelled_forces: a later one has forces but no energy; late_forces: forces
    stand behind the energy they belong to; learned_last: a machine-learned force field made a later one; undecodable:
    some bytes are no UTF-8; damage: why the file could not be unpacked to its end.
    """

    name: str
    finished: bool = False
    place: str = ""
    version: str | None = None
    nelm: int | None = None
    isif: int | None = None
    icharg: int | None = None
    titles: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    loops: list[ElectronicLoop] = field(default_factory=list)
    last: Printed = field(default_factory=Printed)
    unlabelled_forces: bool = False
    late_forces: bool = False
    learned_last: bool = False
    undecodable: bool = False
    damage: Trouble | None = None


@dataclass(frozen=True)
class Numbers:
    """The first and last ionic step of a run as dpdata reads them.

    symbols: of every atom; cell_A (3, 3) and positions_A (N, 3) of the first and last ionic step; energy_eV, the free
    energy TOTEN; forces_eV_A (N, 3); virial_eV (3, 3), minus stress times volume; first_energy_eV, TOTEN of the first
    step, None if only the last one was read.
    """

    symbols: list[str]
    first_cell_A: np.ndarray
    first_positions_A: np.ndarray
    cell_A: np.ndarray
    positions_A: np.ndarray
    energy_eV: float
    forces_eV_A: np.ndarray
    virial_eV: np.ndarray
    first_energy_eV: float | None = None

    @property
    def pressure_kB(self) -> np.ndarray:
        """Stress (3, 3) in kB in the sign VASP prints, positive under compression."""
        return self.virial_eV / abs(np.linalg.det(self.cell_A)) * EV_A3_IN_KB

    def to_frame(self) -> LabeledFrame:
        """Return the last ionic step as a label."""
        atoms = Atoms(self.symbols, positions=self.positions_A, cell=self.cell_A, pbc=True)
        return LabeledFrame(atoms, self.energy_eV, self.forces_eV_A, self.virial_eV)


def damaged(error: Exception) -> Trouble:
    """Return the trouble of a packed file: cut off (EOFError, as gzip, bz2 and lzma raise it), or not readable."""
    if isinstance(error, EOFError):
        return Trouble("truncated", "the packed file ends before its end-of-stream mark")
    return Trouble("unreadable", f"cannot be unpacked: {error}")


def element_of(title: str) -> str | None:
    """Return the element of a potential's title such as ``PAW_PBE Li_sv 10Sep2004``, None if there is none."""
    words = title.split()
    found = _ELEMENT.match(words[1]) if len(words) > 1 else None
    return found.group() if found and found.group() in atomic_numbers else None


def check_rows(what: str, rows: list[str], count: int, width: int) -> Trouble | None:
    """Return what is wrong with a printed table of numbers, ``count`` rows of at least ``width``, or None.

    Columns run together when a number is as wide as its column, and a number wider than its column is printed as
    stars (both is how Fortran writes fixed columns).
    """
    for index, row in enumerate(rows, start=1):
        if trouble := _check_row(f"row {index} of the {what}", row, width):
            return trouble
    if len(rows) != count:
        return Trouble("unreadable", f"the {what} have {len(rows)} rows, expected {count}")
    return None


def check_number(what: str, text: str) -> Trouble | None:
    """Return what is wrong with one printed number, or None."""
    return _check_row(what, text, 1)


def _check_row(where: str, row: str, width: int) -> Trouble | None:
    shown = " ".join(row.split())[:100]
    if "*" in row:
        return Trouble("merged_columns", f"{where} shows stars, a number too large for its column: {shown}")
    words = row.split()[:width]
    try:
        values = [float(word) for word in words]
    except ValueError:
        if _RUN_TOGETHER.search(row):
            return Trouble("merged_columns", f"{where} has numbers run together: {shown}")
        return Trouble("unreadable", f"{where} is not made of numbers: {shown}")
    if not all(math.isfinite(value) for value in values):
        return Trouble("not_finite", f"{where} is not finite: {shown}")
    if len(values) < width:
        return Trouble("unreadable", f"{where} has {len(values)} numbers, expected {width}: {shown}")
    return None
