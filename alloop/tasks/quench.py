"""One piece of a melt-quench: a chunk of dynamics, a minimisation, or the search for the melting temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from alloop.attempt import Context
from alloop.frames import write_arrays, write_frames
from alloop.glass.analysis import analyze_frame
from alloop.glass.correlation import radial_distribution
from alloop.selection.classes import classify
from alloop.selection.picks import BEYOND_TRUST
from alloop.store import read_json, write_json
from alloop.structure import content_key, to_record
from alloop.tasks.dynamics import (
    Chunk,
    Record,
    driving_models,
    event_columns,
    run_chunk,
    starting_state,
    write_restart,
)
from alloop.tasks.explore import worth_asking

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


@dataclass
class Guard:
    """Stops a run that stays beyond trust: so many records in a row from the upper trust level on; 0 never stops.

    beyond: how many the run's last records were, also of chunks before.
    """

    records: int
    high_eV_A: float
    beyond: int = 0

    def look(self, record: Record) -> str | None:
        """Take in the next record; return why the run is to stop, if it is."""
        self.beyond = 0 if record.max_deviation < self.high_eV_A else self.beyond + 1
        if not self.records or self.beyond < self.records:
            return None
        last = f"the last {record.max_deviation:.2f} eV/A"
        return f"{self.beyond} records in a row beyond the trust level of {self.high_eV_A:.3g} eV/A, {last}"


def _run_dynamics(context: Context) -> None:
    """Write ``table.npz``, ``frames.npz``, ``restart.json``, ``analysis.json`` and ``summary.json``.

    Frames are kept every `frame_every` steps; those after step `analyse_from_step` (None: none) are analysed, with
    ``rdf.csv`` for g(r). A guarded chunk that is stopped or lost brings home what is worth asking about, too. Records
    of a chunk that a force field drives have no class.
    """
    spec = context.spec
    guard = Guard(spec.get("guard_records", 0), spec.get("trust_high_eV_A", np.inf), beyond_before(context))
    chunk = run_chunk(context, guard.look)
    table = chunk.table()
    write_arrays(context.out / "table.npz", table)
    classes, counts = np.full(len(chunk.records), "", dtype="U9"), dict(NO_CLASSES)
    if "force_field" not in spec:
        classes = classify(table["max_force_deviation_eV_A"], spec["trust_low_eV_A"], spec["trust_high_eV_A"])
        counts = {name: int((classes == name).sum()) for name in NO_CLASSES}
    _write_kept(context, chunk, classes)
    write_restart(context.out, chunk.end if chunk.status == "finished" else None, chunk.end)
    first = spec["analyse_from_step"]
    every = [record.state for record in chunk.records if record.state.step % spec["frame_every"] == 0]
    _write_analysis(context, [state.atoms for state in every if first is not None and state.step > first])
    summary = {
        "status": chunk.status,
        "reason": chunk.reason,
        "stage": spec["stage"],
        "records": len(chunk.records),
        "classes": counts,
        "events": {event: int(table[f"event:{event}"].sum()) for event in chunk.events},
        "max_force_deviation_eV_A": float(np.max(table["max_force_deviation_eV_A"], initial=0.0)),
        "records_beyond": guard.beyond,
    }
    write_json(context.out / "summary.json", summary)


def beyond_before(context: Context) -> int:
    """Return how many records in a row, up to its end, the chunk that this one continues was beyond trust."""
    start = context.spec["start"]
    if start.get("state") != "end":
        return 0
    return int(read_json(context.result_of(start["task"]) / "summary.json").get("records_beyond", 0))


def _write_kept(context: Context, chunk: Chunk, classes: np.ndarray) -> None:
    """Write ``frames.npz``: the evenly spaced frames, with an empty ``kept_for``, and those worth asking about.

    These are as of an exploration, of a guarded chunk that did not finish only; and the record at which it was
    stopped, as ``beyond_trust``.
    """
    spec = context.spec
    asks = spec.get("guard_records", 0) and chunk.status in ("stopped", "lost")
    asked = worth_asking(chunk, classes, spec) if asks else {}
    if chunk.status == "stopped":
        asked[len(chunk.records) - 1] = BEYOND_TRUST
    steps = [record.state.step for record in chunk.records]
    kept = [index for index, step in enumerate(steps) if step % spec["frame_every"] == 0 or index in asked]
    records = [chunk.records[index] for index in kept]
    structures = [record.state.atoms for record in records]
    write_frames(
        context.out / "frames.npz",
        structures,
        None,
        content=np.array([content_key(to_record(atoms)) if asks else "" for atoms in structures], dtype="U16"),
        step=np.array([record.state.step for record in records], dtype=int),
        max_force_deviation_eV_A=np.array([record.max_deviation for record in records]),
        temperature_K=np.array([record.state.temperature_K for record in records]),
        target_temperature_K=np.array([record.target_temperature_K for record in records]),
        kept_for=np.array([asked.get(index, "") for index in kept], dtype=str),
        trust_class=classes[kept],
        **event_columns(records, chunk.events),
    )


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
            found = minimise(driving_models(context)[0], start, **spec["minimise"], directory=context.work)
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
