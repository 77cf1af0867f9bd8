"""Relax a structure that an ensemble made with the labeler: if little changes, it is a glass of the labeler's, too."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from alloop.attempt import Context, TaskError
from alloop.frames import read_structure
from alloop.glass.analysis import analyze_frame
from alloop.label_params import CODES
from alloop.store import read_json, write_json
from alloop.structure import from_record, to_record
from alloop.tasks.label import labelled

MINIMUM, FRAME = "minimum of the models", "last frame"
SEEN = ("fraction_4B", "fraction_5Si", "three_rings")


def run(context: Context) -> None:
    """Write ``relaxed.json``: the structure as relaxed, what it and the one before show, and how far atoms moved.

    spec: start, a frame of another task's result; minimum, the task that minimised it with the models, whose structure
    is relaxed instead, or None; analysed, the tasks over whose analysed frames the glass is averaged; level, the
    labeler's content; relax, how far, or None for the energy of the structure as it is. ``before`` and ``after`` are
    what `seen_in` tells, with the labeler's ``energy_eV``: before, None if a code does not tell it; after, None if
    nothing was to be relaxed. ``averaged`` is the same in motion, without an energy, and ``relaxed_from`` tells which
    structure it was, MINIMUM or FRAME.
    TaskError if the labeler cannot relax, or not within the steps allowed.
    """
    spec = context.spec
    start = {"task": spec["minimum"], "frame": -1} if spec["minimum"] else spec["start"]
    before = from_record(read_structure(context.result_of(start["task"]), start["frame"]))
    level = spec["level"]
    if level["labeler"] == "cp2k":
        raise TaskError("labels by CP2K are single points; relax with a calculator or VASP", "config", final=True)
    told: dict[str, Any] = {
        "relaxed_from": MINIMUM if spec["minimum"] else FRAME,
        "averaged": averaged(context.result_of(key) for key in spec["analysed"]),
    }
    if spec["relax"] is None:
        frame, more = labelled(context, level, before)
        told |= {"before": seen_in(before) | {"energy_eV": frame.energy_eV}, "after": None}
        write_json(context.out / "relaxed.json", told | more)
        write_json(context.out / "summary.json", told)
        return
    energy_eV = None if level["labeler"] in CODES else labelled(context, level, before)[0].energy_eV
    frame, more = labelled(context, level | {"relax": spec["relax"]}, before)
    if "unrelaxed" in more.get("flags", ()):
        raise TaskError(f"not relaxed after {more['ionic_steps']} steps", "unrelaxed", final=True)
    energy_eV = more.pop("first_energy_eV", energy_eV)
    moved = find_mic(frame.atoms.positions - before.positions, before.cell, before.pbc)[1]
    told |= {
        "before": seen_in(before) | {"energy_eV": energy_eV},
        "after": seen_in(frame.atoms) | {"energy_eV": frame.energy_eV},
    }
    record = {
        "structure": to_record(frame.atoms),
        "max_displacement_A": float(moved.max()),
        "rms_displacement_A": float(np.sqrt((moved**2).mean())),
    }
    write_json(context.out / "relaxed.json", told | record | more)
    write_json(context.out / "summary.json", told)


def averaged(results: Iterable[Path]) -> dict[str, float | None]:
    """Return what `seen_in` tells, as the mean over the frames that tasks have analysed; None of what none shows."""
    frames = [frame for result in results for frame in read_json(result / "analysis.json")]
    seen = [seen_by(frame) for frame in frames]
    known = {key: [own[key] for own in seen if own[key] is not None] for key in SEEN}
    return {key: float(np.mean(values)) if values else None for key, values in known.items()}


def seen_in(atoms: Atoms) -> dict[str, Any]:
    """Return the fractions of fourfold B and fivefold Si (None without that element) and the number of 3-rings of B."""
    return seen_by(analyze_frame(atoms, max_ring=3))


def seen_by(analysis: dict[str, Any]) -> dict[str, Any]:
    """Return the same of a frame that was analysed."""
    rings = analysis["rings"]["counts"].get("3", 0)
    return {key: analysis[key] for key in SEEN[:2]} | {"three_rings": rings}
