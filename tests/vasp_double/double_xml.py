"""vasprun.xml as VASP 5.4.4 and 6.3 write it, with the parameters that readers ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.sax.saxutils import escape

import numpy as np
from double_inputs import Array
from double_job import BUILDS, Job, fixed
from double_theory import IonicStep

INTEGERS = {
    *("ISTART", "ICHARG", "NELM", "NELMDL", "NELMIN", "IBRION", "NSW", "ISIF", "ISYM", "ISPIN", "ISMEAR", "NBANDS"),
    *("NWRITE", "LORBIT", "NCORE", "NPAR", "KPAR", "NSIM", "IALGO", "IMIX", "MAXMIX", "IDIPOL", "IVDW", "LMAXMIX"),
}
REALS = {
    *("ENCUT", "EDIFF", "EDIFFG", "SIGMA", "POTIM", "AMIX", "BMIX", "AMIN", "AMIX_MAG", "BMIX_MAG", "KSPACING"),
    *("NELECT", "PSTRESS", "TIME", "SYMPREC", "EMIN", "EMAX", "TEBEG", "TEEND", "SMASS"),
}
LOGICALS = {"LWAVE", "LCHARG", "LASPH", "ADDGRID", "KGAMMA", "LPLANE", "LSCALAPACK", "LHFCALC", "LVTOT", "LELF"}


def item(name: str, value: object, indent: int) -> str:
    """Return an <i> element: integers, logicals, reals and strings in VASP's formats."""
    blank = " " * indent
    if isinstance(value, bool):
        return f'{blank}<i type="logical" name="{name}"> {"T" if value else "F"}  </i>'
    if isinstance(value, int):
        return f'{blank}<i type="int" name="{name}">{value:6d}</i>'
    if isinstance(value, float):
        return f'{blank}<i name="{name}">{fixed(value, 16, 8)}</i>'
    return f'{blank}<i type="string" name="{name}">{escape(str(value))}</i>'


def vectors(name: str, rows: Array, indent: int) -> str:
    """Return a <varray> of rows of numbers (1X,F16.8 each)."""
    blank = " " * indent
    lines = [f"{blank} <v>{''.join(' ' + fixed(float(x), 16, 8) for x in row)} </v>" for row in rows]
    return "\n".join([f'{blank}<varray name="{name}" >', *lines, f"{blank}</varray>"])


def structure(cell_A: Array, scaled: Array, indent: int, name: str | None = None) -> str:
    """Return a <structure> element."""
    blank = " " * indent
    opening = f'{blank}<structure name="{name}" >' if name else f"{blank}<structure>"
    return "\n".join(
        [
            opening,
            f"{blank} <crystal>",
            vectors("basis", cell_A, indent + 2),
            f'{blank}  <i name="volume">{fixed(abs(float(np.linalg.det(cell_A))), 16, 8)} </i>',
            vectors("rec_basis", np.linalg.inv(cell_A).T, indent + 2),
            f"{blank} </crystal>",
            vectors("positions", scaled, indent + 1),
            f"{blank}</structure>",
        ]
    )


def head(job: Job) -> str:
    """Return everything before the first <calculation>."""
    parts = [*_generator(job), *_kpoints(job), *_parameters(job), *_atoms(job)]
    return "\n".join([*parts, structure(job.poscar.cell_A, job.poscar.scaled, 1, "initialpos")]) + "\n"


def _generator(job: Job) -> Iterator[str]:
    program, _, date = job.program.partition(" ")
    if job.major == 5:
        suffix, _, build = BUILDS[5].partition(" ")
        version, subversion = f"{program}{suffix}  ", f"{build:<48}  parallel "
    else:
        version, subversion = f"{program}  ", f"{date}{BUILDS[6].rstrip():<60}  parallel "
    yield '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n <generator>'
    entries = {"program": "vasp ", "version": version, "subversion": subversion, "platform": "LinuxIFC "}
    for name, value in (entries | {"date": "2024 01 01 ", "time": "12:00:00 "}).items():
        yield f'  <i name="{name}" type="string">{value}</i>'
    yield " </generator>\n <incar>"
    for tag, value in job.incar.tags.items():
        yield item(tag, _typed(job, tag, value), 2)
    yield " </incar>"


def _typed(job: Job, tag: str, value: str) -> object:
    if tag in INTEGERS:
        return job.incar.integer(tag, 0)
    if tag in REALS:
        return job.incar.real(tag, 0.0)
    return job.incar.logical(tag, False) if tag in LOGICALS else value


def _kpoints(job: Job) -> Iterator[str]:
    yield " <kpoints>"
    if job.mesh.divisions is not None:
        yield f'  <generation param="{job.mesh.scheme}">'
        yield f'   <v type="int" name="divisions">{"".join(f" {n:8d}" for n in job.mesh.divisions)} </v>'
        rows = {"usershift": np.zeros(3)} | {f"genvec{k + 1}": np.eye(3)[k] for k in range(3)} | {"shift": np.zeros(3)}
        for name, row in rows.items():
            yield f'   <v name="{name}">{"".join(fixed(x, 16, 8) + " " for x in row)}</v>'
        yield "  </generation>"
    yield vectors("kpointlist", job.mesh.points, 2)
    yield f"{vectors('weights', job.mesh.weights[:, None], 2)}\n </kpoints>"


def _parameters(job: Job) -> Iterator[str]:
    incar = job.incar
    electronic = [
        item("PREC", incar.text("PREC", "normal").lower()[:6], 3),
        item("ENMAX", job.encut_eV, 3),
        item("EDIFF", job.ediff_eV, 3),
        item("IALGO", job.ialgo, 3),
        item("NBANDS", job.nbands, 3),
        item("NELECT", job.nelect, 3),
    ]
    groups: dict[str, dict[str, object]] = {
        "electronic smearing": {"ISMEAR": incar.integer("ISMEAR", 1), "SIGMA": incar.real("SIGMA", 0.2)},
        "electronic startup": {"ISTART": incar.integer("ISTART", 0), "ICHARG": incar.integer("ICHARG", 2)},
        "electronic spin": {"ISPIN": 1, "LNONCOLLINEAR": False, "LSORBIT": False},
        "electronic convergence": {"NELM": job.nelm, "NELMDL": incar.integer("NELMDL", -5), "NELMIN": 2},
        "electronic mixer": {"AMIX": incar.real("AMIX", 0.4), "BMIX": incar.real("BMIX", 1.0)},
        "ionic": {
            "NSW": job.nsw,
            "IBRION": job.ibrion,
            "MDALGO": 0,
            "ISIF": job.isif,
            "PSTRESS": 0.0,
            "EDIFFG": job.ediffg,
            "POTIM": incar.real("POTIM", 0.5),
        },
        "symmetry": {"ISYM": incar.integer("ISYM", 2), "SYMPREC": incar.real("SYMPREC", 1e-5)},
        "dos": {"LORBIT": 0, "NEDOS": 301, "EMIN": 10.0, "EMAX": -10.0, "EFERMI": 0.0},
        "writing": {"LWAVE": incar.logical("LWAVE", True), "LCHARG": incar.logical("LCHARG", True)},
        "electronic exchange-correlation": {"GGA": incar.text("GGA", "--"), "LHFCALC": False},
        "vdW DFT": {"LUSE_VDW": False},
    }
    yield ' <parameters>\n  <separator name="general" >'
    yield f"{item('SYSTEM', job.system, 3)}\n{item('LCOMPAT', False, 3)}\n  </separator>"
    yield '  <separator name="electronic" >'
    yield from electronic
    for name, values in groups.items():
        if name == "ionic":
            yield "  </separator>"
        yield f'   <separator name="{name}" >'
        for tag, value in values.items():
            yield item(tag, value, 4)
        yield "   </separator>"
    yield f"{item('LDAU', False, 2)}\n </parameters>"


def _atoms(job: Job) -> Iterator[str]:
    yield f" <atominfo>\n  <atoms>{job.ions:8d} </atoms>\n  <types>{len(job.datasets):8d} </types>"
    yield '  <array name="atoms" >\n   <dimension dim="1">ion</dimension>'
    yield '   <field type="string">element</field>\n   <field type="int">atomtype</field>\n   <set>'
    for number, (dataset, count) in enumerate(zip(job.datasets, job.poscar.counts, strict=True), start=1):
        yield from [f"    <rc><c>{dataset.element:<2}</c><c>{number:4d}</c></rc>"] * count
    yield '   </set>\n  </array>\n  <array name="atomtypes" >\n   <dimension dim="1">type</dimension>'
    yield '   <field type="int">atomspertype</field>\n   <field type="string">element</field>'
    yield '   <field>mass</field>\n   <field>valence</field>\n   <field type="string">pseudopotential</field>\n   <set>'
    for dataset, count in zip(job.datasets, job.poscar.counts, strict=True):
        numbers = f"<c>{fixed(dataset.mass, 16, 8)}</c><c>{fixed(dataset.zval, 16, 8)}</c>"
        yield f"    <rc><c>{count:4d}</c><c>{dataset.element:<2}</c>{numbers}<c>  {dataset.title:<38}</c></rc>"
    yield "   </set>\n  </array>\n </atominfo>"


def _energies(energy_eV: float, indent: int) -> str:
    names = ("e_fr_energy", "e_wo_entrp", "e_0_energy")
    lines = [f'{" " * indent} <i name="{name}">{fixed(energy_eV, 16, 8)} </i>' for name in names]
    return "\n".join([f"{' ' * indent}<energy>", *lines, f"{' ' * indent}</energy>"])


def calculation(job: Job, step: IonicStep) -> str:
    """Return the <calculation> of one ionic step."""
    lines = [" <calculation>"]
    for energy in step.trace_eV:
        lines += ["  <scstep>", '   <time name="dav">    0.29    0.30</time>']
        lines += ['   <time name="total">    0.48    0.48</time>', _energies(energy, 3), "  </scstep>"]
    forces = step.forces_eV_A if step.xml_forces_eV_A is None else step.xml_forces_eV_A
    lines += [structure(step.cell_A, step.scaled, 2), vectors("forces", forces, 2)]
    if step.stress_kB is not None:
        lines += [vectors("stress", step.stress_kB, 2)]
    lines += [_energies(step.energy_eV, 2), '  <time name="totalsc">    4.91    4.92</time>']
    return "\n".join([*lines, *_states(job), " </calculation>"]) + "\n"


def _states(job: Job) -> Iterator[str]:
    energies, occupied = job.bands_eV
    table = "\n".join(f"       <r>{e:10.4f}{o:10.4f} </r>" for e, o in zip(energies, occupied, strict=True))
    yield '  <eigenvalues>\n   <array>\n    <dimension dim="1">band</dimension>'
    yield '    <dimension dim="2">kpoint</dimension>\n    <dimension dim="3">spin</dimension>'
    yield '    <field>eigene</field>\n    <field>occ</field>\n    <set>\n     <set comment="spin 1">'
    for number in range(1, len(job.mesh.points) + 1):
        yield f'      <set comment="kpoint {number}">\n{table}\n      </set>'
    yield "     </set>\n    </set>\n   </array>\n  </eigenvalues>"
    yield f'  <dos>\n   <i name="efermi">{fixed(2.0, 16, 8)} </i>\n   <total>\n    <array>'
    yield '     <dimension dim="1">gridpoints</dimension>\n     <dimension dim="2">spin</dimension>'
    yield "     <field>energy</field>\n     <field>total</field>\n     <field>integrated</field>"
    yield '     <set>\n      <set comment="spin 1">'
    grid = np.linspace(-20.0, 32.0, 301)
    below = np.searchsorted(energies, grid, side="right")
    filled = 2.0 * np.minimum(below, len(energies))
    density = np.diff(filled, prepend=0.0) / (grid[1] - grid[0])
    for energy, states, total in zip(grid, density, filled, strict=True):
        yield f"       <r>{energy:11.4f}{states:11.4f}{total:11.4f} </r>"
    yield "      </set>\n     </set>\n    </array>\n   </total>\n  </dos>"


def tail(job: Job) -> str:
    """Return what ends a complete vasprun.xml."""
    last = job.steps[-1]
    return f"{structure(last.cell_A, last.scaled, 1, 'finalpos')}\n</modeling>\n"


def vasprun(job: Job) -> str:
    """Return the whole vasprun.xml."""
    text = head(job) + "".join(calculation(job, step) for step in job.steps) + tail(job)
    return re.sub(r"\n+", "\n", text)
