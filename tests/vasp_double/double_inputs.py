"""The input files of VASP as the double reads them: INCAR, POSCAR, KPOINTS and POTCAR of one folder.

Formats after the VASP wiki (pages INCAR, POSCAR, KPOINTS, POTCAR). What the files say wrongly raises InputError, whose
message is printed as VASP prints its own before it stops.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class InputError(Exception):
    """An input file that VASP would refuse."""


@dataclass(frozen=True)
class Incar:
    """Tags of an INCAR in upper case with their raw values; of a tag given twice VASP takes the first."""

    tags: dict[str, str]

    def text(self, tag: str, default: str = "") -> str:
        return self.tags.get(tag, default)

    def integer(self, tag: str, default: int) -> int:
        return int(float(self.tags[tag].split()[0])) if tag in self.tags else default

    def real(self, tag: str, default: float) -> float:
        return float(self.tags[tag].split()[0].lower().replace("d", "e")) if tag in self.tags else default

    def logical(self, tag: str, default: bool) -> bool:
        """Tell a logical as Fortran reads it: the first letter after an optional dot."""
        if tag not in self.tags:
            return default
        letter = self.tags[tag].strip().lstrip(".")[:1].upper()
        if letter not in "TF" or not letter:
            raise InputError(f"Error reading item '{tag}' from file INCAR.")
        return letter == "T"


@dataclass(frozen=True)
class Poscar:
    """A POSCAR: comment, cell (Å, rows are vectors), blocks of atoms, fractional positions (N, 3).

    symbols holds the element line as written, None where it is missing (the format of VASP 4).
    """

    comment: str
    cell_A: Array
    symbols: tuple[str, ...] | None
    counts: tuple[int, ...]
    scaled: Array


@dataclass(frozen=True)
class Dataset:
    """One dataset of a POTCAR."""

    title: str
    element: str
    description: str
    zval: float
    mass: float
    enmax_eV: float
    enmin_eV: float
    lexch: str


@dataclass(frozen=True)
class Mesh:
    """The k-points: comment, how they were made, fractional coordinates (K, 3) and weights (K)."""

    comment: str
    scheme: str
    divisions: tuple[int, int, int] | None
    points: Array
    weights: Array


def read_incar(path: Path) -> Incar:
    """Return the tags of an INCAR: comments after # or !, several tags a line with ;, lines continued with a \\."""
    tags: dict[str, str] = {}
    for line in path.read_text().replace("\\\n", " ").splitlines():
        for item in re.split(r"[#!]", line)[0].split(";"):
            name, equals, value = item.partition("=")
            if equals:
                tags.setdefault(name.strip().upper(), value.strip().strip('"').strip())
    return Incar(tags)


def read_poscar(path: Path) -> Poscar:
    """Return the structure of a POSCAR; InputError where it ends early or its numbers do not make a structure."""
    lines = path.read_text().splitlines()
    try:
        scales = [float(word) for word in lines[1].split()]
        cell = np.array([[float(word) for word in line.split()[:3]] for line in lines[2:5]])
        if len(scales) == 3:
            scale = np.array(scales)
        else:
            scale = np.full(3, scales[0])
            if scales[0] < 0:
                scale = np.full(3, (-scales[0] / abs(np.linalg.det(cell))) ** (1 / 3))
        cell = cell * scale
        named = not lines[5].split()[0].isdigit()
        symbols = tuple(re.split(r"[_/]", word)[0] for word in lines[5].split()) if named else None
        at = 6 if named else 5
        counts = tuple(int(word) for word in lines[at].split() if word.isdigit())
        at += 2 if lines[at + 1].strip()[:1].upper() == "S" else 1
        cartesian = lines[at].strip()[:1].upper() in ("C", "K")
        rows = lines[at + 1 : at + 1 + sum(counts)]
        positions = np.array([[float(word) for word in row.split()[:3]] for row in rows]).reshape(-1, 3)
    except (IndexError, ValueError) as error:
        raise InputError(f"ERROR: there was an error reading the file POSCAR: {error}") from error
    if len(positions) != sum(counts) or (symbols is not None and len(symbols) < len(counts)):
        raise InputError("ERROR: the positions or the types of ions are not complete in POSCAR")
    scaled = np.linalg.solve(cell.T, (positions * scale).T).T if cartesian else positions
    return Poscar(lines[0].strip(), cell, symbols, counts, scaled % 1)  # VASP moves all ions into the cell


def read_potcar(path: Path) -> tuple[Dataset, ...]:
    """Return the datasets of a POTCAR in their order; InputError where there is none or one has no TITEL or VRHFIN."""
    datasets = [_dataset(text) for text in path.read_text().split("End of Dataset") if text.strip()]
    if not datasets:
        raise InputError("ERROR: there must be at least one potential on file POTCAR")
    return tuple(datasets)


def _dataset(text: str) -> Dataset:
    title, vrhfin = re.search(r"TITEL\s*=\s*(.+)", text), re.search(r"VRHFIN\s*=\s*(\w+)\s*:?(.*)", text)
    if title is None or vrhfin is None:
        raise InputError("ERROR: a dataset on file POTCAR has no TITEL or no VRHFIN")

    def number(tag: str) -> float:
        found = re.search(rf"\b{tag}\s*=\s*([-+.\dEe]+)", text)
        return float(found[1]) if found else 0.0

    lexch = re.search(r"LEXCH\s*=\s*(\w+)", text)
    return Dataset(
        title[1].strip(),
        vrhfin[1],
        vrhfin[2].strip(),
        number("ZVAL"),
        number("POMASS"),
        number("ENMAX"),
        number("ENMIN"),
        lexch[1] if lexch else "PE",
    )


def read_kpoints(path: Path, incar: Incar, cell_A: Array) -> Mesh:
    """Return the k-points of KPOINTS, or without the file those of KSPACING (default 0.5 per Å), none reduced."""
    if not path.exists():
        lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(cell_A), axis=0)
        numbers = [max(1, math.ceil(length / incar.real("KSPACING", 0.5))) for length in lengths]
        return _mesh("read from INCAR", numbers, np.zeros(3), incar.logical("KGAMMA", True))
    lines = path.read_text().splitlines()
    try:
        count, style = int(lines[1].split()[0]), lines[2].strip()[:1].upper()
        if count == 0 and style in ("G", "M"):
            shift = np.array([float(word) for word in lines[4].split()[:3]]) if len(lines) > 4 else np.zeros(3)
            return _mesh(lines[0].strip(), [int(word) for word in lines[3].split()[:3]], shift, style == "G")
        if count == 0:
            raise ValueError("only Gamma and Monkhorst-Pack meshes and lists of points are known here")
        rows = np.array([[float(word) for word in line.split()[:4]] for line in lines[3 : 3 + count]])
        points = rows[:, :3] @ cell_A.T if style in ("C", "K") else rows[:, :3]
        return Mesh(lines[0].strip(), "listgenerated", None, points, rows[:, 3] / rows[:, 3].sum())
    except (IndexError, ValueError) as error:
        raise InputError(f"ERROR: there was an error reading the file KPOINTS: {error}") from error


def _mesh(comment: str, numbers: list[int], shift: Array, gamma: bool) -> Mesh:
    axes = []
    for number, offset in zip(numbers, shift, strict=True):
        start = 0.0 if gamma or number % 2 else 0.5
        axes.append((np.arange(number) + start + offset) / number)
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points - np.ceil(points - 0.5)
    scheme = "Gamma" if gamma else "Monkhorst-Pack"
    divisions = (numbers[0], numbers[1], numbers[2])
    return Mesh(comment, scheme, divisions, points, np.full(len(points), 1 / len(points)))
