"""One piece of a melt-quench: a chunk of dynamics, a minimisation, or the search for the melting temperature."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from alloop.attempt import Context
from alloop.frames import write_arrays, write_frames
from alloop.glass.analysis import analyze_frame
from alloop.glass.correlation import radial_distribution
from alloop.selection.classes import classify
from alloop.store import write_json
from alloop.tasks.dynamics import Record, run_chunk, starting_state, write_restart
from alloop.tasks.evaluate import model_file

NO_CLASSES = {"accurate": 0, "candidate": 0, "failed": 0}


def run(context: Context) -> None:
    """Do what `stage_kind` of the spec says: hold or ramp, minimise, or melting."""
    kind = context.spec["stage_kind"]
    if kind == "melting":
        from alloop.tasks.classical import run_melting

        run_melting(context)
    elif kind == "minimise":
        _minimise(context)
    else:
        _run_dynamics(context)


def _run_dynamics(context: Context) -> None:
    """Write ``table.npz``, ``frames.npz``, ``restart.json``, ``analysis.json`` and ``summary.json``.

    Frames are kept every `frame_every` steps; those after step `analyse_from_step` (None: none) are analysed, with
    ``rdf.csv`` for g(r). Records of a chunk that a force field drives have no class.
    """
    spec = context.spec
    kept: list[Record] = []

    def keep(record: Record) -> None:
        if record.state.step % spec["frame_every"] == 0:
            kept.append(record)

    chunk = run_chunk(context, keep)
    table = chunk.table()
    write_arrays(context.out / "table.npz", table)
    write_frames(
        context.out / "frames.npz",
        [record.state.atoms for record in kept],
        step=np.array([record.state.step for record in kept], dtype=int),
        max_force_deviation_eV_A=np.array([record.max_deviation for record in kept]),
        temperature_K=np.array([record.state.temperature_K for record in kept]),
        target_temperature_K=np.array([record.target_temperature_K for record in kept]),
    )
    write_restart(context.out, chunk.end if chunk.status == "finished" else None, chunk.end)
    first = spec["analyse_from_step"]
    _write_analysis(context, [r.state.atoms for r in kept if first is not None and r.state.step > first])
    counts = dict(NO_CLASSES)
    if "force_field" not in spec:
        classes = classify(table["max_force_deviation_eV_A"], spec["trust_low_eV_A"], spec["trust_high_eV_A"])
        counts = {name: int((classes == name).sum()) for name in NO_CLASSES}
    summary = {
        "status": chunk.status,
        "reason": chunk.reason,
        "stage": spec["stage"],
        "records": len(chunk.records),
        "classes": counts,
        "events": {event: int(table[f"event:{event}"].sum()) for event in chunk.events},
        "max_force_deviation_eV_A": float(np.max(table["max_force_deviation_eV_A"], initial=0.0)),
    }
    write_json(context.out / "summary.json", summary)


def _write_analysis(context: Context, frames: list[Atoms]) -> None:
    write_json(context.out / "analysis.json", [analyze_frame(atoms) for atoms in frames])
    if frames:
        radial_distribution(frames).write_csv(context.out / "rdf.csv")


def _minimise(context: Context) -> None:
    """Write the minimum in ``frames.npz``, its analysis, and the state that the trajectory goes on from as it was."""
    from alloop.potential.conditions import TrajectoryLost
    from alloop.potential.minimise import minimise

    spec = context.spec
    start = starting_state(context)
    status, reason, found = "finished", "", None
    if start is None:
        status, reason = "void", "the chunk before it was lost"
    else:
        try:
            found = minimise(model_file(context, spec["models"][0]), start, **spec["minimise"], directory=context.work)
        except TrajectoryLost as error:
            status, reason = "lost", str(error)
    frames = [found.atoms] if found else []
    write_frames(context.out / "frames.npz", frames, step=np.zeros(len(frames), dtype=int))
    _write_analysis(context, frames)
    write_restart(context.out, start if status == "finished" else None, start)
    summary: dict[str, Any] = {
        "status": status,
        "reason": reason,
        "stage": spec["stage"],
        "records": 0,
        "classes": dict(NO_CLASSES),
        "events": {},
        "max_force_deviation_eV_A": 0.0,
    }
    if found:
        summary |= {
            "energy_eV": found.energy_eV,
            "max_force_eV_A": found.max_force_eV_A,
            "steps": found.steps,
            "converged": found.converged,
        }
    write_json(context.out / "summary.json", summary)
