"""Label one structure: energy, forces and virial, as ``label.json``."""

from __future__ import annotations

import gzip
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from alloop import labelers
from alloop.attempt import Context, TaskError
from alloop.label_params import CODES
from alloop.labelers.code import CodeFault, label_with_code, tried_before
from alloop.labelers.levels import TABLES, open_code
from alloop.store import read_json, write_json
from alloop.structure import LabeledFrame, from_record, to_record


def run(context: Context) -> None:
    """Label the structure of the spec, or take over the numbers that came with it."""
    spec = context.spec
    atoms = from_record(spec["structure"])
    level = {key: value for key, value in spec.items() if key not in ("structure", "given")}
    began = time.monotonic()
    more: dict[str, Any] = {}
    if "given" in spec:
        given = spec["given"]
        frame = LabeledFrame(atoms, given["energy_eV"], np.array(given["forces_eV_A"]), np.array(given["virial_eV"]))
        _judge(frame)
    else:
        frame, more = labelled(context, level, atoms)
    record = {
        "structure": spec["structure"] if "relax" not in level else to_record(frame.atoms),
        "energy_eV": frame.energy_eV,
        "forces_eV_A": frame.forces_eV_A.tolist(),
        "virial_eV": frame.virial_eV.tolist(),
        "max_force_eV_A": float(np.linalg.norm(frame.forces_eV_A, axis=1).max()),
        "level": level,
        "seconds": round(time.monotonic() - began, 3),
        "python": platform.python_version(),
    }
    write_json(context.out / "label.json", record | more)


def labelled(context: Context, level: dict[str, Any], atoms: Atoms) -> tuple[LabeledFrame, dict[str, Any]]:
    """Return the label of a structure at a level of theory, relaxed first if it says so, and what the record says.

    TaskError with its failure class if there is none that can be believed.
    """
    more: dict[str, Any] = {}
    if level["labeler"] in CODES:
        frame, more = _with_code(context, level, atoms)
    else:
        labeler = labelers.load(level["labeler"], _options(context, level))
        if "relax" in level:
            atoms, more = relaxed(labeler, atoms, level["relax"])
        frame = labeler.label(atoms)
    _judge(frame)
    return frame, more


def _options(context: Context, level: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a level's calculator; pair tables of a person's own are looked for where they are now."""
    if level["labeler"] != TABLES:
        return dict(level["options"])
    from alloop.glass.user_table import table_hash

    wanted, remedy = level["options"]["sha256"], "put them back, or have all labels made anew: alloop relabel"
    try:
        path = read_json(context.label_settings)["tables"][wanted]
        if table_hash(Path(path)) == wanted:
            return {"table": path}
    except (OSError, ValueError, KeyError) as error:
        raise TaskError(f"this label's pair tables are not there ({error}); {remedy}", "config") from error
    raise TaskError(f"{path} and its tables are not those this label was asked with; {remedy}", "config")


def _judge(frame: LabeledFrame) -> None:
    problem = labelers.judge(frame)
    if problem is not None:
        raise TaskError(problem)


def relaxed(labeler: Any, atoms: Atoms, relax: dict[str, Any]) -> tuple[Atoms, dict[str, Any]]:
    """Return atoms relaxed by a calculator (FIRE, with the cell if asked), and what the record says of it.

    TaskError if a force is still too large after the steps allowed.
    """
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    atoms = atoms.copy()
    atoms.calc = labeler.calculator
    with FIRE(FrechetCellFilter(atoms) if relax["cell"] else atoms) as optimiser:
        converged = optimiser.run(fmax=relax["force_eV_A"], steps=relax["steps"])
        steps = optimiser.nsteps
    energy_eV = float(atoms.get_potential_energy())
    if not converged:
        largest = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
        raise TaskError(
            f"not relaxed after {steps} steps: largest force {largest:.3f} > {relax['force_eV_A']:g} eV/A",
            "unrelaxed",
            final=True,
        )
    atoms.calc = None
    return atoms, {"relaxation": {"steps": steps, "energy_eV": energy_eV}}


def _with_code(context: Context, level: dict[str, Any], atoms: Atoms) -> tuple[LabeledFrame, dict[str, Any]]:
    """Return the label of a code that runs in this attempt's private folder, and what its record says of the run.

    TaskError carries the failure class; the outputs of a good run are kept, compressed.
    """
    try:
        how = read_json(context.label_settings)
    except (OSError, ValueError) as error:
        raise TaskError(f"{context.label_settings} does not say how labels are run: {error}", "infra") from error
    if how.get("labeler") != level["labeler"]:
        found = how.get("labeler", "a calculator")
        raise TaskError(f"this label needs {level['labeler']}, param.json now runs {found}", "config")
    try:
        code, settings = open_code(level, how, context.about)
        found = label_with_code(code, settings, atoms, context.work, tried_before(context.earlier))
    except CodeFault as fault:
        raise TaskError(str(fault), fault.kind, final=fault.final) from fault
    for name in (*code.kept, *settings.keep):
        if (found.folder / name).is_file():
            _compress(found.folder / name, context.out / f"{name}.gz")
    verdict = found.verdict
    context.notes.update(
        {"code": f"{verdict.code} {verdict.version}", "flags": verdict.flags, "runs": len(found.corrections) + 1}
    )
    more = {"first_energy_eV": verdict.first_energy_eV} if "relax" in level else {}
    return found.frame, more | {
        "code": verdict.code,
        "version": verdict.version,
        "potentials": list(verdict.potentials),
        "electronic_steps": list(verdict.electronic_steps),
        "ionic_steps": verdict.ionic_steps,
        "flags": list(verdict.flags),
        "corrections": found.corrections,
        "return_code": found.return_code,
    }


def _compress(source: Path, target: Path) -> None:
    with source.open("rb") as plain, gzip.open(target, "wb", compresslevel=6) as packed:
        shutil.copyfileobj(plain, packed)


def read_label(result: Path) -> LabeledFrame:
    """Return the labelled frame of a label task's result."""
    record: dict[str, Any] = read_json(result / "label.json")
    return LabeledFrame(
        from_record(record["structure"]),
        record["energy_eV"],
        np.array(record["forces_eV_A"]),
        np.array(record["virial_eV"]),
    )
