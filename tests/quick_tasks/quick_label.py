"""Double of a label: numbers that depend on the structure alone, or those that came with it (at once)."""

from __future__ import annotations

import platform

import numpy as np
from quick_physics import labelled
from quick_settings import begin

from alloop.attempt import Context
from alloop.store import write_json
from alloop.structure import from_record


def run(context: Context) -> None:
    settings = begin("label", context, asleep="given" not in context.spec)
    spec = context.spec
    frame = labelled(from_record(spec["structure"]))
    numbers = {
        "energy_eV": frame.energy_eV,
        "forces_eV_A": frame.forces_eV_A.tolist(),
        "virial_eV": frame.virial_eV.tolist(),
    } | spec.get("given", {})
    record = {
        "structure": spec["structure"],
        **numbers,
        "max_force_eV_A": float(np.linalg.norm(numbers["forces_eV_A"], axis=1).max()),
        "level": {key: value for key, value in spec.items() if key not in ("structure", "given")},
        "seconds": settings.slept_s,
        "python": platform.python_version(),
    }
    write_json(context.out / "label.json", record)
