"""A double of VASP for tests: run it in a folder with INCAR, POSCAR, KPOINTS and POTCAR, as VASP is run.

``python vasp_double.py [--version 6.3.2] [--plan plan.json]`` computes the Teter force field in place of density
functional theory and writes the outputs in the formats of that version. A plan makes it misbehave (double_faults).
Imported, this module is what tests need: the numbers to expect, structure hashes, POTCAR files and the command.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ase import Atoms
from double_files import contcar, greeting, main_loop, oszicar, xdatcar
from double_inputs import InputError, read_incar, read_kpoints, read_poscar, read_potcar
from double_job import Job
from double_outcar import outcar
from double_potcar import GLASS_POTENTIALS, joined_potcar, make_potcar_library
from double_run import compute, job_atoms
from double_theory import expected, level_offset_eV, structure_hash
from double_xml import vasprun

__all__ = [
    "GLASS_POTENTIALS",
    "double_command",
    "expected",
    "joined_potcar",
    "level_offset_eV",
    "make_potcar_library",
    "structure_hash",
]
VERSIONS = ("5.4.4", "6.3.2")


def double_command(version: str = "6.3.2", plan: Path | None = None) -> str:
    """Return the shell command that runs the double in the current folder."""
    words = [sys.executable, str(Path(__file__).resolve()), "--version", version]
    return shlex.join(words + ([] if plan is None else ["--plan", str(Path(plan).resolve())]))


def read_job(folder: Path, version: str) -> Job:
    """Return the job described by the input files of a folder; InputError as VASP would refuse them."""
    for name in ("INCAR", "POSCAR", "POTCAR"):
        if not (folder / name).exists():
            raise InputError(f"ERROR: the file {name} could not be opened")
    incar, poscar = read_incar(folder / "INCAR"), read_poscar(folder / "POSCAR")
    potcar = read_potcar(folder / "POTCAR")
    if len(potcar) < len(poscar.counts):
        raise InputError("ERROR: number of potentials on File POTCAR incompatible with number of species")
    return Job(version, incar, poscar, potcar, read_kpoints(folder / "KPOINTS", incar, poscar.cell_A))


def write(job: Job, folder: Path) -> None:
    """Write all output files of a run that went well."""
    texts = {"OUTCAR": outcar(job), "vasprun.xml": vasprun(job), "OSZICAR": oszicar(job)}
    texts |= {"CONTCAR": contcar(job), "XDATCAR": xdatcar(job)}
    for name, text in texts.items():
        (folder / name).write_text(text)
    for tag, name in (("LWAVE", "WAVECAR"), ("LCHARG", "CHGCAR")):
        if job.incar.logical(tag, True):
            (folder / name).write_bytes(bytes(range(256)) * 4)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", default="6.3.2", choices=VERSIONS)
    options = parser.parse_args(arguments)
    folder = Path.cwd()
    try:
        job = read_job(folder, options.version)
    except InputError as error:
        print(f" {error}")
        return 1
    print("".join(greeting(job)), end="", flush=True)
    job = compute(job, structure_hash(job_atoms(job)))
    write(job, folder)
    print("".join(main_loop(job)), end="", flush=True)
    return 0


def atoms_of(folder: Path) -> Atoms:
    """Return the structure a run in this folder computes, species from the POTCAR."""
    return job_atoms(read_job(folder, VERSIONS[-1]))


if __name__ == "__main__":
    sys.exit(main())
