"""How the double misbehaves: wrong numbers, outputs cut off, VASP's own errors, signals and endless sleep.

The messages are those VASP 5.4.4 and 6.3 print. After its errors VASP 5 stops with exit code 0, VASP 6 with 1.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import double_outcar
import double_xml
import numpy as np
from double_files import COLUMNS, box, contcar, electronic_line, greeting, main_loop, oszicar, xdatcar
from double_job import Job
from double_plan import PATIENT_NELM
from double_theory import IonicStep, drawn, electronic_steps

OUTPUTS = ("OUTCAR", "vasprun.xml", "OSZICAR", "CONTCAR", "XDATCAR")
FULL_DISK_CODE = 38
"""What the Intel run-time library exits with after its error 38, `error during write`."""
_FAILED_AT, _BRMIX_FROM = 5, 6
_FORCE_EV_A, _STRESS_KB, _HUGE = -123456.789012, -12345.67891, 1e12


def kind(fault: str | None) -> str | None:
    """Return what a fault does: that of nelm_forever is that of nelm."""
    return None if fault is None else fault.removesuffix("_forever")


def needed_steps(fault: str | None, drawn_fault: str | None, key: str, job: Job) -> Callable[[int], int]:
    """Return the electronic steps an ionic step needs, by its number.

    More than NELM where the acting fault demands it; more than 100 where patience alone cures `nelm`.
    """
    if kind(fault) in ("nelm", "brmix"):
        return lambda number: job.nelm + 1 + electronic_steps(key, number)
    if drawn_fault == "nelm" and job.nelm >= PATIENT_NELM:
        return lambda number: PATIENT_NELM // 2 + electronic_steps(key, number)
    return lambda number: electronic_steps(key, number)


def spoil(job: Job, fault: str | None) -> Job:
    """Return the job with the wrong numbers of a fault that changes what is written; the same job for others."""
    change = _SPOILERS.get(fault or "")
    if change is None:
        return job
    if fault == "wrong_order":
        job = replace(job, poscar=replace(job.poscar, scaled=job.poscar.scaled[::-1]))
    if fault == "wrong_cell":
        job = replace(job, poscar=replace(job.poscar, cell_A=1.02 * job.poscar.cell_A))
    return replace(job, steps=tuple(change(step) for step in job.steps))


def _nan_forces(step: IonicStep) -> IonicStep:
    forces = step.forces_eV_A.copy()
    forces[len(forces) // 2] = np.nan
    return replace(step, forces_eV_A=forces)


def _merged_columns(step: IonicStep) -> IonicStep:
    """Forces of the first atom fill their columns to the brim, one of the last does not fit at all."""
    forces = step.forces_eV_A.copy()
    forces[0], forces[-1, 0] = _FORCE_EV_A, _HUGE
    return replace(step, forces_eV_A=forces, stress_kB=np.full((3, 3), _STRESS_KB))


def _disagree(step: IonicStep) -> IonicStep:
    shift = np.zeros_like(step.forces_eV_A)
    shift[0, 0], shift[-1, 0] = 0.05, -0.05
    return replace(step, xml_forces_eV_A=step.forces_eV_A + shift)


def _reversed(step: IonicStep) -> IonicStep:
    return replace(step, scaled=step.scaled[::-1], forces_eV_A=step.forces_eV_A[::-1])


_SPOILERS: dict[str, Callable[[IonicStep], IonicStep]] = {
    "nan_forces": _nan_forces,
    "missing_stress": lambda step: replace(step, stress_kB=None),
    "merged_columns": _merged_columns,
    "wrong_order": _reversed,
    "wrong_cell": lambda step: replace(step, cell_A=1.02 * step.cell_A),
    "disagree": _disagree,
}


def texts(job: Job) -> dict[str, str]:
    """Return the text of every output file."""
    made = (double_outcar.outcar(job), double_xml.vasprun(job), oszicar(job), contcar(job), xdatcar(job))
    return dict(zip(OUTPUTS, made, strict=True))


def open_outputs(folder: Path) -> None:
    """Empty the output files, as VASP does when it starts."""
    for name in OUTPUTS:
        (folder / name).write_text("")


def run(job: Job, fault: str | None, key: str, folder: Path) -> int:
    """Write what a run writes and end as the fault demands; return the exit code if it ends by itself."""
    fault = kind(fault)
    if fault == "empty":
        (folder / "vasprun.xml").unlink()
        return 0
    _say("".join(greeting(job)))
    if fault in ("edddav", "zpotrf"):
        return _solver_error(job, fault, folder)
    written = texts(job)
    if fault in ("hang", "crash", "walltime", "signal9", "full_disk"):
        _interrupted(fault, written, job, key, folder)
    for name, text in written.items():
        (folder / name).write_text(text)
    for tag, name in (("LWAVE", "WAVECAR"), ("LCHARG", "CHGCAR")):
        if job.incar.logical(tag, True):
            (folder / name).write_bytes(bytes(range(256)) * 4)
    _say("".join(_with_brmix(job) if fault == "brmix" else main_loop(job)))
    return 0


def _say(text: str) -> None:
    print(text, end="", flush=True)


def _with_brmix(job: Job) -> list[str]:
    """Return the standard output of a run whose charge is not conserved: VASP warns in every step and goes on."""
    lines = []
    for line in "".join(main_loop(job)).splitlines(keepends=True):
        lines.append(line)
        number = line[4:8].strip() if line[3:4] == ":" else ""
        if number.isdigit() and int(number) >= _BRMIX_FROM:
            charges = f"{job.nelect:11.5f} new{job.nelect - 0.07:11.5f}"
            lines.append(" BRMIX: very serious problems\n  the old and the new charge density differ\n")
            lines.append(f"  old charge density: {charges}\n")
    return lines


def _solver_error(job: Job, fault: str, folder: Path) -> int:
    """Write outputs up to the error of a linear algebra routine, and the error as the version words it."""
    done = 0 if fault == "zpotrf" else min(_FAILED_AT, len(job.steps[0].trace_eV))
    blocks = [double_outcar.electronic(job, job.steps[0], 1, number + 1) for number in range(done)]
    lines = [electronic_line(job, 1, number + 1) for number in range(done)]
    message = _edddav(job) if fault == "edddav" else _zpotrf(job)
    start = double_xml.calculation(job, job.steps[0]).split("  </scstep>\n")[:done]
    (folder / "OUTCAR").write_text(double_outcar.head(job) + "".join(blocks) + (message if job.major >= 6 else ""))
    (folder / "OSZICAR").write_text("".join([f"{COLUMNS}\n", *lines]))
    (folder / "vasprun.xml").write_text(double_xml.head(job) + "".join(part + "  </scstep>\n" for part in start))
    _say("".join([f"{COLUMNS}\n", *lines, message]))
    return 0 if job.major == 5 else 1


def _edddav(job: Job) -> str:
    if job.major == 5:
        return f"Error EDDDAV: Call to ZHEGV failed. Returncode = {7:3d} 1 {8:3d}\n"
    return box("Error EDDDAV: Call to ZHEGV failed. Returncode = 7 1 8", fatal=True)


def _zpotrf(job: Job) -> str:
    if job.major == 5:
        return f" LAPACK: Routine ZPOTRF failed!{1:12d}{1:12d}{1:12d}\n LAPACK: Routine ZPOTRF failed!\n" * 4
    return box(
        "Orbital orthonormalization failed in the inversion of matrix LAPACK: Routine ZPOTRF failed! kpoint: 1 spin: 1",
        fatal=True,
    )


def _interrupted(fault: str, written: dict[str, str], job: Job, key: str, folder: Path) -> NoReturn:
    """Write half of the outputs (a drawn part on a full disk) and end by a signal, an error or not at all."""
    part = 0.3 + 0.69 * drawn(key, "full disk") if fault == "full_disk" else 0.5
    names = ("OUTCAR",) if fault == "hang" else ("OUTCAR", "vasprun.xml", "OSZICAR")
    for name in names:
        (folder / name).write_text(written[name][: int(part * len(written[name]))])
    said = "".join(main_loop(job))
    _say(said[: len(said) // 2])
    if fault == "full_disk":
        print(f"forrtl: No space left on device\nforrtl: severe (38): error during write, unit 6, file {folder}/OUTCAR")
        print("forrtl: No space left on device", file=sys.stderr)
        sys.exit(FULL_DISK_CODE)
    if fault == "crash":
        print("forrtl: severe (174): SIGSEGV, segmentation fault occurred", file=sys.stderr, flush=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    number = {"crash": signal.SIGSEGV, "walltime": signal.SIGTERM, "signal9": signal.SIGKILL}.get(fault)
    if number is not None:
        os.kill(os.getpid(), number)
    while True:
        time.sleep(3600)
