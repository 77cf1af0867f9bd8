"""Label one structure: energy, forces and virial, as ``label.json``."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from alloop import labelers
from alloop.attempt import Context, TaskError
from alloop.store import read_json, write_json
from alloop.structure import LabeledFrame, from_record


def run(context: Context) -> None:
    """Label the structure of the spec, or take over the numbers that came with it."""
    spec = context.spec
    atoms = from_record(spec["structure"])
    began = time.monotonic()
    if "given" in spec:
        given = spec["given"]
        frame = LabeledFrame(atoms, given["energy_eV"], np.array(given["forces_eV_A"]), np.array(given["virial_eV"]))
    else:
        frame = labelers.load(spec["labeler"], spec["options"]).label(atoms)
    problem = labelers.judge(frame)
    if problem is not None:
        raise TaskError(problem)
    record = {
        "structure": spec["structure"],
        "energy_eV": frame.energy_eV,
        "forces_eV_A": frame.forces_eV_A.tolist(),
        "virial_eV": frame.virial_eV.tolist(),
        "max_force_eV_A": float(np.linalg.norm(frame.forces_eV_A, axis=1).max()),
        "level": {key: spec[key] for key in ("labeler", "options", "imported") if key in spec},
        "seconds": round(time.monotonic() - began, 3),
        "python": platform.python_version(),
    }
    write_json(context.out / "label.json", record)


def read_label(result: Path) -> LabeledFrame:
    """Return the labelled frame of a label task's result."""
    record: dict[str, Any] = read_json(result / "label.json")
    return LabeledFrame(
        from_record(record["structure"]),
        record["energy_eV"],
        np.array(record["forces_eV_A"]),
        np.array(record["virial_eV"]),
    )
