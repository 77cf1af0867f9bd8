"""Explore: one chunk of dynamics, bringing home a compact table and the frames worth asking about."""

from __future__ import annotations

from typing import Any

import numpy as np

from alloop.attempt import Context
from alloop.frames import write_arrays, write_frames
from alloop.selection.classes import classify
from alloop.store import write_json
from alloop.tasks.dynamics import Chunk, Record, run_chunk, write_restart

EVENTS = ("overlap", "five_coordinated_Si")
_EVENT_FRAMES = 4
_AUDIT_FRAMES = 3


def run(context: Context) -> None:
    """Write ``table.npz``, ``frames.npz``, ``restart.json`` and ``summary.json``."""
    spec = context.spec
    chunk = run_chunk(context)
    table = chunk.table()
    classes = classify(table["max_force_deviation_eV_A"], spec["trust_low_eV_A"], spec["trust_high_eV_A"])
    good = [record.state.atoms for record, name in zip(chunk.records, classes, strict=True) if name != "failed"]
    if chunk.status == "lost":
        good = good[:-1] if good and good[-1] is chunk.records[-1].state.atoms else good
    kept = worth_asking(chunk, classes, spec)
    _write_kept(context, chunk, classes, kept)
    write_arrays(context.out / "table.npz", table)
    write_restart(context.out, chunk.end if chunk.status == "finished" else None, good[-1] if good else None)
    counts = {name: int((classes == name).sum()) for name in ("accurate", "candidate", "failed")}
    planned = spec["condition"]["n_steps"] // spec["deviation_every"]
    summary = {
        "status": chunk.status,
        "reason": chunk.reason,
        "records": len(chunk.records),
        "missed": planned - len(chunk.records),
        "classes": counts,
        "events": {event: int(table[event].sum()) for event in EVENTS},
        "kept_frames": len(kept),
        "has_good_state": bool(good),
    }
    write_json(context.out / "summary.json", summary)


def worth_asking(chunk: Chunk, classes: np.ndarray, spec: dict[str, Any]) -> dict[int, str]:
    """Return record index -> why its frame comes home, in order of time.

    Candidates (evenly spaced if there are more than `frames_per_chunk`), the last good frame before a loss, frames
    with events, and a seeded random few of the accurate ones for the audit. A frame past the hard gate never does.
    """
    rng = np.random.default_rng(spec["seed"])
    usable = np.array(
        [record.events.lost_reason is None and np.isfinite(record.max_deviation) for record in chunk.records],
        dtype=bool,
    )
    kept: dict[int, str] = {}
    accurate = np.flatnonzero(usable & (classes == "accurate"))
    for index in rng.permutation(accurate)[:_AUDIT_FRAMES]:
        kept[int(index)] = "audit"
    for event in EVENTS:
        seen = np.array([_has(record, event) for record in chunk.records], dtype=bool)
        for index in _spread(np.flatnonzero(usable & seen), _EVENT_FRAMES):
            kept[int(index)] = event
    for index in _spread(np.flatnonzero(usable & (classes == "candidate")), spec["frames_per_chunk"]):
        kept[int(index)] = "candidate"
    if chunk.status == "lost":
        before = np.flatnonzero(usable & (classes != "failed"))
        if before.size:
            kept[int(before[-1])] = "before_loss"
    return dict(sorted(kept.items()))


def _has(record: Record, event: str) -> bool:
    return len(record.events.overlap_atoms if event == "overlap" else record.events.five_coordinated_Si_atoms) > 0


def _spread(indices: np.ndarray, count: int) -> np.ndarray:
    if len(indices) <= count:
        return indices
    return indices[np.unique(np.linspace(0, len(indices) - 1, count).round().astype(int))]


def _write_kept(context: Context, chunk: Chunk, classes: np.ndarray, kept: dict[int, str]) -> None:
    records = [chunk.records[index] for index in kept]
    write_frames(
        context.out / "frames.npz",
        [record.state.atoms for record in records],
        step=np.array([record.state.step for record in records], dtype=int),
        max_force_deviation_eV_A=np.array([record.max_deviation for record in records]),
        force_deviation_eV_A=np.array([record.state.force_deviation_eV_A for record in records]),
        temperature_K=np.array([record.state.temperature_K for record in records]),
        kept_for=np.array(list(kept.values()), dtype="U24"),
        trust_class=classes[list(kept)] if kept else np.array([], dtype="U9"),
        **{event: np.array([_has(record, event) for record in records], dtype=bool) for event in EVENTS},
    )
