"""From a job to its ionic steps: a single point or a relaxation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms
from double_inputs import InputError
from double_job import Job
from double_theory import IonicStep, electronic_steps, ionic_step, level_offset_eV

from alloop.glass.force_field import TeterCalculator


def job_atoms(job: Job) -> Atoms:
    """Return the structure of a job, in the order of the POSCAR, species from the POTCAR."""
    return Atoms(job.symbols, cell=job.poscar.cell_A, scaled_positions=job.poscar.scaled, pbc=True)


def compute(job: Job, key: str, needed: Callable[[int], int] | None = None) -> Job:
    """Return the job with its ionic steps; needed: electronic steps of an ionic step (from 1), by default drawn.

    NSW = 0 or IBRION = -1 is a single point, IBRION 1 to 3 a relaxation of the ions and, with ISIF from 3, of the
    cell. InputError for anything else: the double does no dynamics.
    """
    atoms = job_atoms(job)
    atoms.calc = TeterCalculator()
    offset = level_offset_eV(job.incar, job.potcar, job.mesh, job.ions)
    required = needed or (lambda number: electronic_steps(key, number))

    def step(number: int) -> IonicStep:
        made = ionic_step(atoms, key, number, required(number), job.nelm, offset)
        if job.isif < 2:
            made.stress_kB = None
        return made

    if job.nsw == 0 or job.ibrion == -1:
        return job.with_steps([step(1)], reached=False)
    if job.ibrion not in (1, 2, 3):
        raise InputError(f"ERROR: IBRION = {job.ibrion} is not known here; use -1, 1, 2 or 3")
    return job.with_steps(*_relax(job, atoms, step))


def _relax(job: Job, atoms: Atoms, step: Callable[[int], IonicStep]) -> tuple[list[IonicStep], bool]:
    from ase.filters import UnitCellFilter
    from ase.optimize import BFGS

    target = UnitCellFilter(atoms) if job.isif >= 3 else atoms
    steps: list[IonicStep] = []
    for _ in BFGS(target, logfile=None).irun(fmax=0.0, steps=job.nsw - 1):
        steps.append(step(len(steps) + 1))
        if _relaxed(job, steps):
            return steps, True
    return steps, False


def _relaxed(job: Job, steps: list[IonicStep]) -> bool:
    """Tell whether the criterion of EDIFFG is met: a force if negative, else a change of energy."""
    if job.ediffg < 0:
        return bool(np.linalg.norm(steps[-1].forces_eV_A, axis=1).max() < -job.ediffg)
    return len(steps) > 1 and abs(steps[-1].energy_eV - steps[-2].energy_eV) < job.ediffg
