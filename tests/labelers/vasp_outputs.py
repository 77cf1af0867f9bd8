"""Good outputs of the double of VASP, and ways to spoil them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import ase.io
import numpy as np
from ase import Atoms
from double_outcar import outcar
from double_potcar import GLASS_POTENTIALS, joined_potcar, make_potcar_library
from double_run import compute, job_atoms
from double_theory import structure_hash
from double_xml import vasprun
from vasp_double import read_job

SINGLE = "ALGO = Normal\nEDIFF = 1e-6\nENCUT = 400\nISIF = 2\nNELM = 60\nNSW = 0\nIBRION = -1\n"
RELAXATION = "EDIFF = 1e-6\nENCUT = 400\nISIF = 2\nNELM = 60\nNSW = 4\nIBRION = 2\nEDIFFG = -1e-9\n"
_POTENTIAL = {"Li": "Li_sv", "B": "B", "O": "O", "Si": "Si"}


def glass() -> Atoms:
    """Return 12 atoms in a tilted cell, the blocks O Si O Li O: several of one species."""
    symbols = ["O"] * 3 + ["Si"] * 3 + ["O"] * 2 + ["Li"] * 2 + ["O"] * 2
    cell = np.array([[6.2, 0.0, 0.0], [-1.1, 5.9, 0.3], [0.4, -0.7, 5.5]])
    grid = np.array([[i / 3, j / 2, k / 2] for i in range(3) for j in range(2) for k in range(2)])
    noise = np.random.default_rng(7).normal(0, 0.02, grid.shape)
    return Atoms(symbols, cell=cell, scaled_positions=(grid + noise) % 1, pbc=True)


def write_inputs(folder: Path, incar: str) -> None:
    """Write the input files of a run on the glass."""
    ase.io.write(folder / "POSCAR", glass(), format="vasp", direct=True, vasp5=True)
    (folder / "INCAR").write_text(incar)
    (folder / "KPOINTS").write_text("mesh\n0\nGamma\n1 1 1\n0 0 0\n")
    library = make_potcar_library(folder / "potentials", GLASS_POTENTIALS)
    blocks = [_POTENTIAL[symbol] for symbol in ("O", "Si", "O", "Li", "O")]
    (folder / "POTCAR").write_text(joined_potcar(library, blocks))


@cache
def texts(version: str, incar: str = SINGLE) -> tuple[str, str]:
    """Return OUTCAR and vasprun.xml of a good run."""
    with TemporaryDirectory() as name:
        write_inputs(Path(name), incar)
        job = read_job(Path(name), version)
        job = compute(job, structure_hash(job_atoms(job)))
        return outcar(job), vasprun(job)


def put(folder: Path, outcar_text: str | None, vasprun_text: str | None) -> Path:
    """Write the outputs of a run; None leaves one out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("OUTCAR", outcar_text), ("vasprun.xml", vasprun_text)):
        (folder / name).unlink(missing_ok=True)
        if text is not None:
            (folder / name).write_text(text)
    return folder


def edit_line(text: str, pattern: str, change: Callable[[str], str], which: int = -1, offset: int = 0) -> str:
    """Return the text with one of the lines that match a pattern, or one below it, changed."""
    lines = text.splitlines(keepends=True)
    at = [index for index, line in enumerate(lines) if re.search(pattern, line)][which] + offset
    lines[at] = change(lines[at])
    return "".join(lines)


def drop_lines(text: str, first: str, count: int = 1) -> str:
    """Return the text without the last line that matches a pattern and the next ones."""
    lines = text.splitlines(keepends=True)
    at = [index for index, line in enumerate(lines) if re.search(first, line)][-1]
    return "".join(lines[:at] + lines[at + count :])
