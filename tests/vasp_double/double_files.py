"""The smaller outputs of VASP: OSZICAR, CONTCAR, XDATCAR, standard output, and its boxed messages."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import numpy as np
from double_job import BUILDS, RANKS, Job, fortran_e, row

COLUMNS = "       N       E                     dE             d eps       ncg     rms          rms(c)"
_BOX = 77
_ERROR = (
    "EEEEEEE  RRRRRR   RRRRRR   OOOOOOO  RRRRRR      ###     ###     ###",
    "E        R     R  R     R  O     O  R     R     ###     ###     ###",
    "E        R     R  R     R  O     O  R     R     ###     ###     ###",
    "EEEEE    RRRRRR   RRRRRR   O     O  RRRRRR       #       #       #",
    "E        R   R    R   R    O     O  R   R",
    "E        R    R   R    R   O     O  R    R      ###     ###     ###",
    "EEEEEEE  R     R  R     R  OOOOOOO  R     R     ###     ###     ###",
)
_WARNING = (
    "      W    W    AA    RRRRR   N    N  II  N    N   GGGG   !!!",
    "      W    W   A  A   R    R  NN   N  II  NN   N  G    G  !!!",
    "      W    W  A    A  R    R  N N  N  II  N N  N  G       !!!",
    "      W WW W  AAAAAA  RRRRR   N  N N  II  N  N N  G  GGG   !",
    "      WW  WW  A    A  R   R   N   NN  II  N   NN  G    G",
    "      W    W  A    A  R    R  N    N  II  N    N   GGGG   !!!",
)
UNCONVERGED = (
    "The electronic self-consistency was not achieved in the given number of steps (NELM). The forces and other "
    "quantities evaluated might not be reliable so examine the results carefully. If you find spurious results, we "
    "suggest increasing NELM, if you were close to convergence or switching to a different ALGO or adjusting the "
    "density mixing parameters otherwise."
)


def box(message: str, fatal: bool) -> str:
    """Return a message in the frame VASP 6 gives to warnings and, with its farewell, to errors."""
    rule = f" {'-' * _BOX}"
    lines = ["", *(_ERROR if fatal else _WARNING), "", *textwrap.wrap(message, 67), ""]
    if fatal:
        lines += ["  ---->  I REFUSE TO CONTINUE WITH THIS SICK JOB ... BYE!!! <----", ""]
    framed = [f"|     {line:<{_BOX - 5}}|" if line else f"|{' ' * _BOX}|" for line in lines]
    return "\n".join([rule, *framed, rule, ""]) + "\n"


def oszicar(job: Job) -> str:
    """Return OSZICAR: a line for every electronic step, and one for every ionic step."""
    return "".join(f"{COLUMNS}\n{step_lines(job, number + 1)}" for number in range(len(job.steps)))


def step_lines(job: Job, ionic: int) -> str:
    """Return the lines of ionic step `ionic` (from 1), which VASP writes to standard output as well."""
    step, first = job.steps[ionic - 1], job.steps[0].energy_eV
    lines = [electronic_line(job, ionic, number + 1) for number in range(len(step.trace_eV))]
    energy = fortran_e(step.energy_eV, 8)
    change = fortran_e(step.energy_eV - first if ionic > 1 else 0.0, 6)
    return "".join(lines) + f"{ionic:4d} F= {energy} E0= {energy}  d E ={change}\n"


def electronic_line(job: Job, ionic: int, number: int) -> str:
    """Return the line of electronic step `number` of ionic step `ionic`, both from 1."""
    trace = job.steps[ionic - 1].trace_eV
    energy, change = trace[number - 1], trace[number - 1] - (trace[number - 2] if number > 1 else 0.0)
    columns = f"{fortran_e(energy, 12, 23)}{fortran_e(change, 5, 15)}{fortran_e(1.01 * change, 5, 15)}"
    return f"{job.scheme(number)}:{number:4d}{columns}{2 * job.nbands:6d}{fortran_e(abs(change) ** 0.5, 3, 12)}\n"


def contcar(job: Job) -> str:
    """Return CONTCAR: the last structure, in the blocks of the POSCAR, species from the POTCAR."""
    last = job.steps[-1]
    lines = [f"{job.poscar.comment:<40.40}", "   1.00000000000000     "]
    lines += [f" {row(vector, 22, 16)}" for vector in last.cell_A]
    lines += _species(job, 6) + ["Direct"] + [row(place, 20, 16) for place in last.scaled]
    return "\n".join([*lines, " ", *[row(np.zeros(3), 16, 8)] * job.ions]) + "\n"


def xdatcar(job: Job) -> str:
    """Return XDATCAR: every structure; the cell is repeated where it changes."""
    lines: list[str] = []
    for number, step in enumerate(job.steps, start=1):
        if number == 1 or job.isif >= 3:
            lines += [f"{job.poscar.comment:<40.40}", "           1"]
            lines += [row(vector, 13, 6) for vector in step.cell_A] + _species(job, 4)
        lines += [f"Direct configuration={number:6d}", *(row(place, 13, 8) for place in step.scaled)]
    return "\n".join(lines) + "\n"


def _species(job: Job, width: int) -> list[str]:
    names = "".join(f"   {dataset.element:<2}" for dataset in job.datasets)
    return [names, "".join(f"{count:{width}d}" for count in job.poscar.counts)]


def greeting(job: Job) -> Iterator[str]:
    """Yield what VASP writes to standard output before the first step, warnings of its inputs included."""
    if job.major == 5:
        yield f" running on{RANKS:5d} total cores\n distrk:  each k-point on{RANKS:5d} cores,    1 groups\n"
        yield f" distr:  one band on{1:5d} cores,{RANKS:5d} groups\n using from now: INCAR     \n"
    else:
        yield f" running{RANKS:5d} mpi-ranks, with    1 threads/rank\n"
        yield f" distrk:  each k-point on{RANKS:5d} cores,    1 groups\n"
        yield f" distr:  one band on{1:5d} cores,{RANKS:5d} groups\n"
    yield f" vasp.{job.program}{BUILDS[5 if job.major == 5 else 6]}\n  \n"
    if job.poscar.symbols is not None:
        yield f" POSCAR found type information on POSCAR {''.join(f'{name:<3}' for name in job.poscar.symbols)}\n"
    yield f" POSCAR found :{len(job.poscar.counts):3d} types and{job.ions:8d} ions\n"
    yield from type_warnings(job)
    yield " LDA part: xc-table for Pade appr. of Perdew\n"
    yield " POSCAR, INCAR and KPOINTS ok, starting setup\n FFT: planning ...\n WAVECAR not read\n entering main loop\n"


def type_warnings(job: Job) -> Iterator[str]:
    """Yield VASP's warning for every block whose element differs between POSCAR and POTCAR; the POTCAR wins."""
    for written, dataset in zip(job.poscar.symbols or (), job.datasets, strict=False):
        if written != dataset.element:
            yield " WARNING: type information on POSCAR and POTCAR are incompatible\n"
            yield " POTCAR overwrites the type information in POSCAR\n"
            yield f" type information: {written:<3}{dataset.element:<3}\n"


def main_loop(job: Job) -> Iterator[str]:
    """Yield what VASP writes to standard output during the steps."""
    for number, step in enumerate(job.steps, start=1):
        yield f"{COLUMNS}\n{step_lines(job, number)}"
        if not step.converged and job.major >= 6:
            yield box(UNCONVERGED, fatal=False)
    if job.reached:
        yield " reached required accuracy - stopping structural energy minimisation\n"
    yield " writing wavefunctions\n" if job.incar.logical("LWAVE", True) else ""
