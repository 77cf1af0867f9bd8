#!/usr/bin/env python3
"""A double of VASP for tests: run it in a folder with INCAR, POSCAR, KPOINTS and POTCAR, as VASP is run.

``python vasp_double.py [--version 6.3.2] [--plan plan.json]`` computes the Teter force field in place of density
functional theory and writes the outputs in the formats of that version. A plan makes it misbehave (double_plan).
Imported, this module is what tests need: the numbers to expect, structure hashes, POTCAR files and the command.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ase import Atoms
from double_faults import needed_steps, open_outputs, run, spoil
from double_inputs import InputError, read_incar, read_kpoints, read_poscar, read_potcar
from double_job import Job
from double_plan import FAULTS, read_plan
from double_potcar import GLASS_POTENTIALS, joined_potcar, make_potcar_library
from double_run import compute, job_atoms
from double_theory import expected, level_offset_eV, structure_hash

__all__ = [
    "FAULTS",
    "GLASS_POTENTIALS",
    "atoms_of",
    "double_command",
    "expected",
    "joined_potcar",
    "level_offset_eV",
    "make_potcar_library",
    "read_plan",
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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", default="6.3.2", choices=VERSIONS)
    parser.add_argument("--plan", type=Path)
    options = parser.parse_args(arguments)
    folder, plan = Path.cwd(), read_plan(options.plan)
    try:
        job = read_job(folder, options.version)
        key = structure_hash(job_atoms(job))
        fault = plan.acting(key, run_number := plan.count_run(key), job)
        plan.record(log_entry(job, key) | {"run": run_number, "drawn": plan.fault(key), "fault": fault})
        open_outputs(folder)
        job = compute(job, key, needed_steps(fault, plan.fault(key), key, job))
    except InputError as error:
        plan.record({"hash": None, "error": str(error), "cwd": str(folder)})
        print(f" {error}")
        return 1
    return run(spoil(job, fault), fault, key, folder)


def log_entry(job: Job, key: str) -> dict[str, Any]:
    """Return what the log tells of every run; species are those of each atom, of the POSCAR None if it names none."""
    poscar = job.poscar
    named = None
    if poscar.symbols is not None:
        pairs = zip(poscar.symbols, poscar.counts, strict=False)
        named = [symbol for symbol, count in pairs for _ in range(count)]
    return {
        "hash": key,
        "species_poscar": named,
        "species_potcar": job.symbols,
        "titles": [dataset.title for dataset in job.potcar],
        "version": job.version,
        "incar": job.incar.tags,
        "kpoints": len(job.mesh.points),
        "cwd": str(Path.cwd()),
        "pid": os.getpid(),
        "environment": sorted(os.environ),
    }


def atoms_of(folder: Path) -> Atoms:
    """Return the structure a run in this folder computes, species from the POTCAR."""
    return job_atoms(read_job(folder, VERSIONS[-1]))


if __name__ == "__main__":
    sys.exit(main())
