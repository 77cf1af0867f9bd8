"""Explore: one chunk of dynamics, bringing home a compact table and the frames worth asking about."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from alloop.attempt import Context
from alloop.frames import write_arrays, write_frames
from alloop.selection.classes import classify
from alloop.store import write_json
from alloop.structure import content_key, to_record
from alloop.tasks.describe import describe_kept
from alloop.tasks.dynamics import Chunk, event_columns, lost_reason, run_chunk, write_restart

_EVENT_FRAMES = 4
_BEFORE_LOSS_FRAMES = 2
_BEFORE_LOSS_SPACING_FS = 100.0  # a few periods of a bond's vibration: nearer frames teach much the same


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
    _write_kept(context, chunk, classes, kept, *drawn_for_audit(chunk, spec))
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
        "events": {event: int(table[f"event:{event}"].sum()) for event in chunk.events},
        "kept_frames": len(kept),
        "has_good_state": bool(good),
    }
    write_json(context.out / "summary.json", summary)


def worth_asking(chunk: Chunk, classes: np.ndarray, spec: dict[str, Any]) -> dict[int, str]:
    """Return record index -> why its frame comes home, in order of time.

    Candidates (evenly spaced if there are more than `frames_per_chunk`), the last good frames before a loss and frames
    with events, both whatever their deviation, and those drawn for the audit. A frame past a hard gate never does.
    """
    usable = _usable(chunk)
    kept: dict[int, str] = dict.fromkeys(drawn_for_audit(chunk, spec)[0], "audit")
    for event in chunk.events:
        seen = np.array([record.events.seen(event) for record in chunk.records], dtype=bool)
        for index in _spread(np.flatnonzero(usable & seen), _EVENT_FRAMES):
            kept[int(index)] = event
    for index in _spread(np.flatnonzero(usable & (classes == "candidate")), spec["frames_per_chunk"]):
        kept[int(index)] = "candidate"
    if chunk.status == "lost":
        lost_eV_A = spec.get("lost_eV_A", math.inf)
        good = np.array([lost_reason(record, lost_eV_A) is None for record in chunk.records], dtype=bool)
        for index in _last_apart(np.flatnonzero(good), spec):
            kept[int(index)] = "before_loss"
    return dict(sorted(kept.items()))


def drawn_for_audit(chunk: Chunk, spec: dict[str, Any]) -> tuple[list[int], int]:
    """Return a seeded random few of the records inside the hard gates, and how many of these there are.

    So many as the spec's `audit_frames` are returned. Neither their deviation nor what else they are kept for plays a
    part: the audit is a sample of what was explored.
    """
    usable = np.flatnonzero(_usable(chunk))
    return np.random.default_rng(spec["seed"]).permutation(usable)[: spec["audit_frames"]].tolist(), len(usable)


def _usable(chunk: Chunk) -> np.ndarray:
    return np.array(
        [record.events.lost_reason is None and np.isfinite(record.max_deviation) for record in chunk.records],
        dtype=bool,
    )


def _last_apart(indices: np.ndarray, spec: dict[str, Any]) -> list[int]:
    """Return the last of ascending record indices, and earlier ones so far from it and each other in time."""
    between_fs = spec["deviation_every"] * spec["condition"]["timestep_fs"]
    least = max(1, round(_BEFORE_LOSS_SPACING_FS / between_fs))
    chosen: list[int] = []
    while len(indices) and len(chosen) < _BEFORE_LOSS_FRAMES:
        chosen.append(int(indices[-1]))
        indices = indices[indices <= indices[-1] - least]
    return chosen


def _spread(indices: np.ndarray, count: int) -> np.ndarray:
    if len(indices) <= count:
        return indices
    return indices[np.unique(np.linspace(0, len(indices) - 1, count).round().astype(int))]


def _write_kept(
    context: Context, chunk: Chunk, classes: np.ndarray, kept: dict[int, str], drawn: list[int], drawn_from: int
) -> None:
    """Write ``frames.npz``; ``offending:NAME`` has the atoms that show an event, empty where a frame does not.

    ``content`` is the key of each structure's record, of which that of a label is made;
    ``audit_of`` is how many records those drawn for the audit were drawn from, 0 for the other frames.
    """
    records = [chunk.records[index] for index in kept]
    deviations = [record.state.force_deviation_eV_A for record in records]
    structures = [record.state.atoms for record in records]
    largest = np.array([values.argmax() for values in deviations], dtype=int)
    offending = {event: [record.events.offending[event] for record in records] for event in chunk.events}
    describe_kept(context, structures, deviations, offending)
    write_frames(
        context.out / "frames.npz",
        structures,
        {f"offending:{event}": atoms for event, atoms in offending.items()},
        content=np.array([content_key(to_record(atoms)) for atoms in structures], dtype="U16"),
        step=np.array([record.state.step for record in records], dtype=int),
        max_force_deviation_eV_A=np.array([record.max_deviation for record in records]),
        max_force_deviation_atom=largest,
        force_deviation_eV_A=np.array(deviations),
        temperature_K=np.array([record.state.temperature_K for record in records]),
        target_temperature_K=np.array([record.target_temperature_K for record in records]),
        kept_for=np.array(list(kept.values()), dtype=str),
        audit_of=np.array([drawn_from if index in drawn else 0 for index in kept], dtype=int),
        trust_class=classes[list(kept)] if kept else np.array([], dtype="U9"),
        **event_columns(records, chunk.events),
    )
