"""One run of the double as all its output files need it: inputs, version, ionic steps and derived numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from double_inputs import Array, Dataset, Incar, Mesh, Poscar
from double_theory import IonicStep, encut_eV

BUILDS = {
    5: "-6-g9f103f2a35 (build Jan 01 2020 12:00:00) complex          ",
    6: " (build Jan 01 2023 12:00:00) complex                        ",
}
DATES = {"5.4.4": "18Apr17", "6.3.2": "27Jun22", "6.4.2": "20Jul23"}
RANKS = 4


@dataclass(frozen=True)
class Job:
    """What is written: see the attributes; ions of the POSCAR stay in its blocks, species are those of the POTCAR."""

    version: str
    incar: Incar
    poscar: Poscar
    potcar: tuple[Dataset, ...]
    mesh: Mesh
    steps: tuple[IonicStep, ...] = ()
    reached: bool = False

    def with_steps(self, steps: list[IonicStep], reached: bool) -> Job:
        """Return the job with its ionic steps; reached: the relaxation met its criterion."""
        return replace(self, steps=tuple(steps), reached=reached)

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    @property
    def program(self) -> str:
        """Name and date of the program: `vasp.5.4.4.18Apr17` runs on, `vasp.6.3.2 27Jun22` has a blank."""
        date = DATES.get(self.version, "01Jan20" if self.major == 5 else "01Jan23")
        return f"{self.version}.{date}" if self.major == 5 else f"{self.version} {date}"

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The datasets of the blocks of ions, without what a POTCAR holds beyond them."""
        return self.potcar[: len(self.poscar.counts)]

    @property
    def ions(self) -> int:
        return sum(self.poscar.counts)

    @property
    def symbols(self) -> list[str]:
        """The element of every ion, as the POTCAR tells it."""
        pairs = zip(self.datasets, self.poscar.counts, strict=True)
        return [dataset.element for dataset, count in pairs for _ in range(count)]

    @cached_property
    def nelect(self) -> float:
        pairs = zip(self.datasets, self.poscar.counts, strict=True)
        return self.incar.real("NELECT", sum(dataset.zval * count for dataset, count in pairs))

    @cached_property
    def nbands(self) -> int:
        """VASP's default number of bands without spin (VASP wiki, NBANDS), a multiple of the ranks."""
        default = max(int((self.nelect + 2) / 2 + max(self.ions // 2, 3)), int(0.6 * self.nelect))
        wanted = self.incar.integer("NBANDS", default)
        return -(-wanted // RANKS) * RANKS

    @cached_property
    def bands_eV(self) -> tuple[Array, Array]:
        """Made-up energies and occupations of the bands: an insulator with its Fermi energy at 2 eV."""
        occupied = min(self.nbands, round(self.nelect / 2))
        energies = np.concatenate([np.linspace(-18, -1, occupied), np.linspace(5, 30, self.nbands - occupied)])
        return energies, (np.arange(self.nbands) < occupied).astype(float)

    @property
    def encut_eV(self) -> float:
        return encut_eV(self.incar, self.potcar)

    @cached_property
    def grid(self) -> tuple[int, int, int]:
        """An even FFT grid that holds twice the cutoff sphere."""
        radius = np.sqrt(self.encut_eV / 3.81)  # hbar^2/2m = 3.81 eV Å^2
        numbers = np.ceil(radius * np.linalg.norm(self.poscar.cell_A, axis=1) / np.pi * 2).astype(int)
        return tuple(int(number + number % 2) for number in numbers)  # type: ignore[return-value]

    @cached_property
    def algo(self) -> str:
        """ALGO as one of Normal, Fast, VeryFast, All, Damped, by its first letter (VASP wiki, ALGO)."""
        letter = self.incar.text("ALGO", "Normal")[:1].upper()
        names = {"F": "Fast", "V": "VeryFast", "A": "All", "C": "All", "D": "Damped"}
        return names.get(letter, "Normal")

    @property
    def ialgo(self) -> int:
        return {"Normal": 38, "Fast": 68, "VeryFast": 48, "All": 58, "Damped": 53}[self.algo]

    def scheme(self, electronic_step: int) -> str:
        """The algorithm of one electronic step as OSZICAR names it."""
        if self.algo == "Fast":
            return "DAV" if electronic_step <= 5 else "RMM"
        return {"Normal": "DAV", "VeryFast": "RMM", "All": "CGA", "Damped": "DMP"}[self.algo]

    @property
    def nelm(self) -> int:
        return self.incar.integer("NELM", 60)

    @property
    def nsw(self) -> int:
        return self.incar.integer("NSW", 0)

    @property
    def ibrion(self) -> int:
        return self.incar.integer("IBRION", -1 if self.nsw in (0, 1) else 0)

    @property
    def isif(self) -> int:
        return self.incar.integer("ISIF", 0 if self.ibrion == 0 else 2)

    @property
    def ediff_eV(self) -> float:
        return self.incar.real("EDIFF", 1e-4)

    @property
    def ediffg(self) -> float:
        """Above zero a change of energy (eV), below minus a force (eV/Å)."""
        return self.incar.real("EDIFFG", 10 * self.ediff_eV)

    @property
    def system(self) -> str:
        return self.incar.text("SYSTEM", "unknown system")


def fortran_e(value: float, digits: int, width: int = 0, exponent: int = 2) -> str:
    """Return a number as Fortran's E format writes it, 0.ddd times a power of ten, without the 0 if negative.

    With a width the number is right-justified and keeps its 0 where there is room.
    """
    mantissa, power = f"{abs(value):.{digits - 1}E}".split("E")
    shifted = 0 if value == 0 else int(power) + 1
    text = f"0.{mantissa.replace('.', '')}E{shifted:+0{exponent + 1}d}"
    if value < 0:
        text = f"-{text}" if width > len(text) else f"-{text[1:]}"
    return text.rjust(width)


def fixed(value: float, width: int, digits: int) -> str:
    """Return a number as Fortran's F format writes it: stars where it does not fit, NaN for what is none."""
    if np.isnan(value):
        return "NaN".rjust(width)
    text = f"{value:.{digits}f}"
    if len(text) > width:
        text = re.sub(r"^(-?)0\.", r"\1.", text)
    return text.rjust(width) if len(text) <= width else "*" * width


def row(values: Array, width: int, digits: int) -> str:
    """Return numbers of one line in Fortran's F format, nothing between them."""
    return "".join(fixed(float(value), width, digits) for value in values)
