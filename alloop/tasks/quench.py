"""One chunk of the production melt-quench: deviation recorded all the way, frames kept, the glass analysed."""

from __future__ import annotations

import numpy as np

from alloop.attempt import Context
from alloop.frames import write_arrays, write_frames
from alloop.glass.analysis import analyze_frame
from alloop.glass.correlation import radial_distribution
from alloop.selection.classes import classify
from alloop.store import write_json
from alloop.tasks.dynamics import Record, run_chunk, write_restart


def run(context: Context) -> None:
    """Write ``table.npz``, ``frames.npz``, ``restart.json``, ``analysis.json`` and ``summary.json``.

    Frames are kept every `frame_every` steps; those of the final hold are analysed, with ``rdf.csv`` for g(r).
    """
    spec = context.spec
    kept: list[Record] = []

    def keep(record: Record) -> None:
        if record.state.step % spec["frame_every"] == 0:
            kept.append(record)

    chunk = run_chunk(context, keep)
    table = chunk.table()
    classes = classify(table["max_force_deviation_eV_A"], spec["trust_low_eV_A"], spec["trust_high_eV_A"])
    write_arrays(context.out / "table.npz", table)
    frames = [record.state.atoms for record in kept]
    write_frames(
        context.out / "frames.npz",
        frames,
        step=np.array([record.state.step for record in kept], dtype=int),
        max_force_deviation_eV_A=np.array([record.max_deviation for record in kept]),
        temperature_K=np.array([record.state.temperature_K for record in kept]),
    )
    end = chunk.end if chunk.status == "finished" else None
    write_restart(context.out, end, chunk.end)
    analyses = [analyze_frame(atoms) for atoms in frames] if spec["stage"] == "final" else []
    write_json(context.out / "analysis.json", analyses)
    if analyses:
        radial_distribution(frames).write_csv(context.out / "rdf.csv")
    summary = {
        "status": chunk.status,
        "reason": chunk.reason,
        "stage": spec["stage"],
        "records": len(chunk.records),
        "classes": {name: int((classes == name).sum()) for name in ("accurate", "candidate", "failed")},
        "events": {event: int(table[f"event:{event}"].sum()) for event in chunk.events},
        "max_force_deviation_eV_A": float(np.max(table["max_force_deviation_eV_A"], initial=0.0)),
    }
    write_json(context.out / "summary.json", summary)
