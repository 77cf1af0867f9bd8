"""Relax a structure that an ensemble made with the labeler: if little changes, it is a glass of the labeler's, too."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from alloop.attempt import Context, TaskError
from alloop.frames import read_structure
from alloop.glass.analysis import analyze_frame
from alloop.label_params import CODES
from alloop.store import write_json
from alloop.structure import from_record, to_record
from alloop.tasks.label import labelled


def run(context: Context) -> None:
    """Write ``relaxed.json``: the structure as relaxed, what it and the one before show, and how far atoms moved.

    spec: start, a frame of another task's result; level, the labeler's content; relax, how far. ``before`` and
    ``after`` are what `seen_in` tells, with the labeler's ``energy_eV``: before, None if a code does not tell it.
    TaskError if the labeler cannot relax, or not within the steps allowed.
    """
    spec = context.spec
    before = from_record(read_structure(context.result_of(spec["start"]["task"]), spec["start"]["frame"]))
    level = spec["level"]
    if level["labeler"] == "cp2k":
        raise TaskError("labels by CP2K are single points; relax with a calculator or VASP", "config", final=True)
    energy_eV = None if level["labeler"] in CODES else labelled(context, level, before)[0].energy_eV
    frame, more = labelled(context, level | {"relax": spec["relax"]}, before)
    if "unrelaxed" in more.get("flags", ()):
        raise TaskError(f"not relaxed after {more['ionic_steps']} steps", "unrelaxed", final=True)
    energy_eV = more.pop("first_energy_eV", energy_eV)
    moved = find_mic(frame.atoms.positions - before.positions, before.cell, before.pbc)[1]
    record = {
        "structure": to_record(frame.atoms),
        "before": seen_in(before) | {"energy_eV": energy_eV},
        "after": seen_in(frame.atoms) | {"energy_eV": frame.energy_eV},
        "max_displacement_A": float(moved.max()),
        "rms_displacement_A": float(np.sqrt((moved**2).mean())),
    }
    write_json(context.out / "relaxed.json", record | more)
    write_json(context.out / "summary.json", {name: record[name] for name in ("before", "after")})


def seen_in(atoms: Atoms) -> dict[str, Any]:
    """Return the fractions of fourfold B and fivefold Si (None without that element) and the number of 3-rings of B."""
    found = analyze_frame(atoms, max_ring=3)
    rings = found["rings"]["counts"].get("3", 0)
    return {"fraction_4B": found["fraction_4B"], "fraction_5Si": found["fraction_5Si"], "three_rings": rings}
