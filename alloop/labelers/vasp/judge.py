"""Judge the outputs of VASP: dpdata parses the numbers, this module decides whether they make a label.

A run is trusted if each of its files finished normally, every ionic step converged electronically, energy, forces and
stress of the last one are there, readable and finite, the atoms and the cell are those asked for, and OUTCAR and
vasprun.xml tell the same. Of a run with both, the frame is taken from vasprun.xml, which prints more digits.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from alloop.labelers.vasp.files import DAMAGED, VaspRun, find_outputs, is_packed, plain_copy, run_of
from alloop.labelers.vasp.outcar import read_outcar
from alloop.labelers.vasp.reading import EV_A3_IN_KB, Numbers, Reading, Trouble, check_number, check_rows, element_of
from alloop.labelers.vasp.vasprun import ends_as_modeling, read_vasprun
from alloop.labelers.verdict import Fault, Verdict

__all__ = ["VaspRun", "find_outputs", "judge_run", "judge_vasp"]

POSITION_TOLERANCE_A = 1e-4
"""OUTCAR prints positions with 5 decimals."""
CELL_TOLERANCE_A = 1e-4
ENERGY_TOLERANCE_EV = 1e-4
"""Both files print TOTEN with 8 decimals, old OUTCARs with 6."""
FORCE_TOLERANCE_EV_A = 1e-4
"""OUTCAR prints forces with 6 decimals."""
STRESS_TOLERANCE_KB = 1e-2
"""OUTCAR prints the stress with 5 decimals."""
_SAYS_NOT_REACHED = (6, 2)
"""First version trusted to print ``EDIFF was not reached`` where it was not; before, ``is reached`` means nothing."""
_FEWEST_STRESS_ISIF = 2
"""ISIF = 0 computes no stress, ISIF = 1 only its trace (VASP manual, ISIF)."""
_FIXED_DENSITY = 10
"""ICHARG from 10 on keeps the charge density: energy and forces are not self-consistent (VASP manual, ICHARG)."""
_FIRST_FAULTS: tuple[Fault, ...] = (
    "truncated",
    "empty",
    "unreadable",
    "no_energy",
    "no_forces",
    "no_stress",
    "merged_columns",
    "not_finite",
    "wrong_atoms",
    "wrong_cell",
    "unconverged",
    "disagreement",
)
"""Of several faults the one told is the first of these: what a person must mend first."""


def judge_vasp(folder: Path, asked: Atoms | None = None, *, force_ceiling_eV_A: float | None = None) -> Verdict:
    """Judge the run of one folder, or of one output file; see `judge_run`."""
    return judge_run(run_of(Path(folder)), asked, force_ceiling_eV_A=force_ceiling_eV_A)


def judge_run(run: VaspRun, asked: Atoms | None = None, *, force_ceiling_eV_A: float | None = None) -> Verdict:
    """Judge one run; whatever is wrong with its files becomes a fault of the verdict, nothing is raised.

    asked: the structure that was to be labelled; the first ionic step must be it, atom by atom in the same order, with
    positions modulo the cell and the cell itself within 1e-4 A. force_ceiling_eV_A: a force longer than this is
    flagged ``force_ceiling``.

    An ionic step is converged if it took fewer electronic steps than NELM: VASP 5 prints that EDIFF is reached even
    where it stopped at NELM. VASP from 6.2 on says when EDIFF was not reached, and is believed in both directions: a
    step that took NELM steps and is said to have reached EDIFF counts as converged. vasprun.xml holds no such text, so
    beside an OUTCAR its count does not matter, and alone the count decides. A run with fixed charge density
    (ICHARG >= 10) counts as unconverged, ISIF < 2 as without stress. A last ionic step made by VASP's machine-learned
    force field has no energy to learn from.
    """
    readings: list[Reading] = []
    troubles: list[Trouble] = []
    numbers: list[Numbers] = []
    try:
        _look(run, asked is not None, readings, troubles, numbers)
        if numbers and asked is not None:
            troubles += _compare_asked(numbers[-1], asked)
        if len(readings) == 2 and numbers and not troubles:
            outcar = numbers[0] if len(numbers) == 2 else _as_printed(readings[0], numbers[0].symbols)
            troubles += _compare_outputs(outcar, numbers[-1])
    except Exception as error:  # a dead or lying file must not end the judge, however it does so
        troubles.append(Trouble("unreadable", f"could not be judged: {type(error).__name__}: {error}"))
    return _verdict(readings, troubles, numbers, force_ceiling_eV_A)


def _look(run: VaspRun, first: bool, readings: list[Reading], troubles: list[Trouble], numbers: list[Numbers]) -> None:
    """Read the files of a run; ``numbers`` gets those of every file that has them, OUTCAR first."""
    if run.outcar is None and run.vasprun is None:
        troubles.append(Trouble("empty", "no OUTCAR and no vasprun.xml"))
    for path, form in ((run.outcar, "vasp/outcar"), (run.vasprun, "vasp/xml")):
        if path is None:
            continue
        reading, found = _read_file(path, form)
        readings.append(reading)
        if not found:
            found = _check_printed(reading)
        short = form == "vasp/outcar" and len(reading.counts) < len(reading.titles)
        if not found and short and run.vasprun is None:
            found = [_short_counts(reading)]
        elif not found and not short:
            parsed = _parse(path, form, reading, first)
            if isinstance(parsed, Numbers):
                numbers.append(parsed)
            else:
                found = [parsed]
        troubles += [Trouble(trouble.fault, f"{path.name}: {trouble.message}") for trouble in found]
    troubles += _check_convergence(readings)


def _read_file(path: Path, form: str) -> tuple[Reading, list[Trouble]]:
    """Return what a file says, and what is wrong with it as a whole."""
    try:
        if path.stat().st_size == 0:
            return Reading(path.name), [Trouble("empty", "is empty")]
        reading, known = read_outcar(path) if form == "vasp/outcar" else read_vasprun(path)
    except OSError as error:
        return Reading(path.name), [Trouble("unreadable", f"cannot be opened: {error.strerror or error}")]
    if reading.damage is not None:
        return reading, [reading.damage]
    if not known:
        return reading, [Trouble("unreadable", "holds nothing that VASP writes")]
    if reading.finished:
        return reading, []
    if form == "vasp/xml" and ends_as_modeling(path):
        return reading, [Trouble("unreadable", f"is no valid XML {reading.place}")]
    lacks = "the timing summary" if form == "vasp/outcar" else "the end of its XML"
    return reading, [Trouble("truncated", f"ends {reading.place}, without {lacks} of a finished run")]


def _check_printed(reading: Reading) -> list[Trouble]:
    """Return what is wrong with the printed numbers of a finished file, the first of each kind."""
    last = reading.last
    if reading.learned_last:
        text = "the last ionic step was made by VASP's machine-learned force field, not by density-functional theory"
        return [Trouble("no_energy", text)]
    if reading.nelm is None:
        return [Trouble("unreadable", "does not tell NELM, the limit of electronic steps")]
    if reading.unlabelled_forces:
        return [Trouble("no_energy", f"no free energy TOTEN of ionic step {len(reading.loops) + 1}, the last")]
    where = f"of ionic step {len(reading.loops)}" if reading.loops else "of any ionic step"
    if last.energy is None:
        return [Trouble("no_energy", f"no free energy TOTEN {where}")]
    if reading.late_forces:
        text = "forces stand behind the energy, as VASP before 5.2.11 wrote them, which dpdata cannot read"
        return [Trouble("unreadable", text)]
    if not last.forces:
        return [Trouble("no_forces", f"no forces {where}")]
    if reading.isif is not None and reading.isif < _FEWEST_STRESS_ISIF:
        text = f"ISIF = {reading.isif} computes no full stress; set ISIF = 2"
        return [Trouble("no_stress", text)]
    if not last.stress:
        return [Trouble("no_stress", f"no stress {where}; set ISIF = 2")]
    ions = sum(reading.counts) or len(last.forces)
    if len(reading.counts) < len(reading.titles):
        ions = len(last.forces)  # told wrongly: see _short_counts
    wide = len(last.stress) == 1  # an OUTCAR: one row of six; forces behind positions
    found = [
        check_number(f"energy {where}", last.energy),
        check_rows(f"forces {where}", last.forces, ions, 6 if wide else 3),
        check_rows(f"stress {where}", last.stress, 1 if wide else 3, 6 if wide else 3),
        check_rows(f"cell {where}", last.cell or [], 3, 3),
        None if last.positions is None else check_rows(f"positions {where}", last.positions, ions, 3),
    ]
    return [trouble for trouble in found if trouble is not None]


def _check_convergence(readings: list[Reading]) -> list[Trouble]:
    """Return the first sign that the electrons of a run were not converged."""
    if not readings:
        return []
    reading = readings[0]
    for other in readings:
        if (other.icharg or 0) >= _FIXED_DENSITY:
            text = f"ICHARG = {other.icharg} keeps the charge density, so energy and forces are not self-consistent"
            return [Trouble("unconverged", f"{other.name}: {text}")]
    limit = reading.nelm
    if limit is None:
        return []  # told by _check_printed, or the file is broken
    believed = _version_numbers(reading.version) >= _SAYS_NOT_REACHED
    for index, loop in enumerate(reading.loops, start=1):
        what = f"{reading.name}: ionic step {index}"
        if loop.stopped:
            return [Trouble("unconverged", f"{what} was ended by a STOPCAR after {loop.steps} electronic steps")]
        if loop.reached is False:
            return [Trouble("unconverged", f"{what}: VASP says that EDIFF was not reached in {loop.steps} steps")]
        if loop.steps >= limit and not (believed and loop.reached):
            return [Trouble("unconverged", f"{what} took {loop.steps} electronic steps, limit NELM = {limit}")]
    return []


def _version_numbers(version: str | None) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version or "")
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _short_counts(reading: Reading) -> Trouble:
    """Return why an OUTCAR does not tell its atoms: VASP up to 6.3 prints 10 blocks of ``ions per type`` at most."""
    text = (
        f"tells the atoms of {len(reading.counts)} blocks of species, but names {len(reading.titles)} potentials; "
        "keep the vasprun.xml of this run beside it"
    )
    return Trouble("unreadable", text)


def _as_printed(reading: Reading, symbols: list[str]) -> Numbers:
    """Return the last ionic step of an OUTCAR that dpdata cannot parse, only to compare it with a vasprun.xml."""
    last = reading.last
    table = np.array([row.split()[:6] for row in last.forces or ()], dtype=float)
    cell_A = np.array([row.split()[:3] for row in last.cell or ()], dtype=float)
    xx, yy, zz, xy, yz, zx = (float(word) for word in (last.stress or [""])[0].split()[:6])
    pressure_kB = np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]])
    virial_eV = pressure_kB * abs(np.linalg.det(cell_A)) / EV_A3_IN_KB
    energy_eV = float(last.energy or "nan")
    places_A = table[:, :3]
    return Numbers(symbols, cell_A, places_A, cell_A, places_A, energy_eV, table[:, 3:], virial_eV)


def _parse(path: Path, form: str, reading: Reading, first: bool) -> Numbers | Trouble:
    """Return the numbers of the last ionic step, and of the first if asked for, as dpdata reads them."""
    from dpdata.system import load_format  # takes a quarter of a second

    steps = len(reading.loops)
    span = {"begin": 0, "step": max(steps - 1, 1)} if first else {"begin": steps - 1, "step": 1}
    try:
        with plain_copy(path, mend=reading.undecodable or is_packed(path)) as plain, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # not by LabeledSystem, which rotates cells: the atoms must be comparable to those asked for
            data = load_format(form).from_labeled_system(str(plain), convergence_check=False, **span)
    except (
        *DAMAGED,
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        NameError,
        RuntimeError,
        TypeError,
    ) as error:
        return Trouble("unreadable", f"dpdata cannot parse it: {type(error).__name__}: {error}")
    except (ValueError, SyntaxError) as error:
        fault: Fault = "merged_columns" if "**" in str(error) else "unreadable"
        return Trouble(fault, f"dpdata cannot parse it: {error}")
    return _to_numbers(data, reading, first=first)


def _to_numbers(data: dict[str, Any], reading: Reading, *, first: bool) -> Numbers | Trouble:
    """Return checked numbers of dpdata's arrays: frames of (N, 3) and (3, 3), virial in eV in DeePMD's sign."""
    names = [element_of(f"_ {name}") or name for name in data["atom_names"]]
    symbols = [names[kind] for kind in data["atom_types"]]
    elements = [element_of(title) for title in reading.titles]
    if len(elements) == len(reading.counts) and all(elements):
        blocks = zip(elements, reading.counts, strict=True)
        symbols = [str(element) for element, count in blocks for _ in range(count)]
    strange = sorted({symbol for symbol in symbols if symbol not in atomic_numbers})
    if strange:
        return Trouble("unreadable", f"names no element: {', '.join(strange)} of potentials {reading.titles}")
    atoms = len(symbols)
    if "virials" not in data or len(data["virials"]) == 0:
        return Trouble("no_stress", "no stress of the last ionic step")
    shapes = {"coords": (atoms, 3), "forces": (atoms, 3), "cells": (3, 3), "virials": (3, 3), "energies": ()}
    for key, shape in shapes.items():
        if len(data[key]) == 0 or np.shape(data[key][-1]) != shape or len(data[key]) != len(data["cells"]):
            return Trouble("unreadable", f"dpdata finds {key} of shape {np.shape(data[key])} for {atoms} atoms")
        if not np.all(np.isfinite(data[key][-1])):
            return Trouble("not_finite", f"{key} of the last ionic step are not finite")
    return Numbers(
        symbols,
        first_cell_A=data["cells"][0],
        first_positions_A=data["coords"][0],
        cell_A=data["cells"][-1],
        positions_A=data["coords"][-1],
        energy_eV=float(data["energies"][-1]),
        forces_eV_A=data["forces"][-1],
        virial_eV=data["virials"][-1],
        first_energy_eV=float(data["energies"][0]) if first else None,
    )


def _compare_asked(numbers: Numbers, asked: Atoms) -> list[Trouble]:
    """Return how the first ionic step differs from the structure asked for."""
    wanted = asked.get_chemical_symbols()
    if numbers.symbols != wanted:
        return [Trouble("wrong_atoms", _tell_species(numbers.symbols, wanted))]
    cell_A = np.asarray(asked.cell)
    off_A = float(np.abs(numbers.first_cell_A - cell_A).max())
    if not off_A <= CELL_TOLERANCE_A:
        return [Trouble("wrong_cell", f"the cell of the first ionic step is {off_A:.2g} A off the one asked for")]
    away_A = _distances_A(numbers.first_positions_A, asked.get_positions(), cell_A)
    atom = int(away_A.argmax())
    if not away_A[atom] <= POSITION_TOLERANCE_A:
        text = f"atom {atom} ({wanted[atom]}) of the first ionic step is {away_A[atom]:.2g} A off the place asked for"
        return [Trouble("wrong_atoms", text)]
    return []


def _tell_species(found: list[str], wanted: list[str]) -> str:
    """Return one line on how two lists of elements differ."""
    if sorted(found) != sorted(wanted):
        atoms, others = Atoms(found).get_chemical_formula(), Atoms(wanted).get_chemical_formula()
        return f"the run is of {atoms}, asked for was {others}; check POSCAR and POTCAR"
    atom = next(index for index, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1])
    return f"the same atoms in another order: atom {atom} is {found[atom]}, asked for was {wanted[atom]}"


def _distances_A(one_A: np.ndarray, other_A: np.ndarray, cell_A: np.ndarray) -> np.ndarray:
    """Return how far atoms (N, 3) are apart modulo the cell (3, 3); exact for distances far below its size."""
    fractions = np.linalg.solve(cell_A.T, (one_A - other_A).T).T
    return np.asarray(np.linalg.norm((fractions - np.round(fractions)) @ cell_A, axis=1))


def _compare_outputs(outcar: Numbers, vasprun: Numbers) -> list[Trouble]:
    """Return where OUTCAR and vasprun.xml tell different things of one run."""
    between = "OUTCAR and vasprun.xml differ"
    if outcar.symbols != vasprun.symbols:
        return [Trouble("disagreement", f"{between} in their atoms: {_tell_species(outcar.symbols, vasprun.symbols)}")]
    pairs = (
        ("energy", outcar.energy_eV, vasprun.energy_eV, ENERGY_TOLERANCE_EV, "eV"),
        ("cell", outcar.cell_A, vasprun.cell_A, CELL_TOLERANCE_A, "A"),
        ("forces", outcar.forces_eV_A, vasprun.forces_eV_A, FORCE_TOLERANCE_EV_A, "eV/A"),
        ("stress", outcar.pressure_kB, vasprun.pressure_kB, STRESS_TOLERANCE_KB, "kB"),
    )
    for what, one, other, tolerance, unit in pairs:
        off = float(np.abs(np.asarray(one) - np.asarray(other)).max())
        if not off <= tolerance:
            return [Trouble("disagreement", f"{between} in {what} by {off:.3g} {unit}, more than {tolerance:g}")]
    away_A = float(_distances_A(outcar.positions_A, vasprun.positions_A, vasprun.cell_A).max())
    if not away_A <= POSITION_TOLERANCE_A:
        return [Trouble("disagreement", f"{between} in positions by {away_A:.3g} A")]
    return []


def _verdict(
    readings: list[Reading], troubles: list[Trouble], numbers: list[Numbers], force_ceiling_eV_A: float | None
) -> Verdict:
    """Return the verdict: the first of the faults, and what could be read."""
    steps = [len(reading.loops) for reading in readings]
    if not troubles and len(set(steps)) > 1:
        text = f"OUTCAR has {steps[0]} ionic steps, vasprun.xml has {steps[1]}"
        troubles = [Trouble("disagreement", text)]
    worst = min(troubles, key=lambda trouble: _FIRST_FAULTS.index(trouble.fault), default=None)
    frame = numbers[-1].to_frame() if numbers else None
    longest_eV_A = 0.0 if frame is None else float(np.linalg.norm(frame.forces_eV_A, axis=1).max())
    above = force_ceiling_eV_A is not None and longest_eV_A > force_ceiling_eV_A
    told = readings[0] if readings else Reading("")
    return Verdict(
        code="vasp",
        fault=worst.fault if worst else None,
        message=worst.message if worst else "finished, converged, complete",
        frame=frame,
        version=next((reading.version for reading in readings if reading.version), None),
        ionic_steps=steps[0] if steps else 0,
        electronic_steps=tuple(loop.steps for loop in told.loops),
        flags=("force_ceiling",) if above else (),
        potentials=next((reading.titles for reading in readings if reading.titles), ()),
        first_energy_eV=numbers[-1].first_energy_eV if numbers else None,
    )
