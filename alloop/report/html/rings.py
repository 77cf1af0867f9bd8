"""The three-membered rings of a melt-quench: how many as it cools, and structures of those that form, break and last.

Frames are read chunk by chunk, and twice: once to follow the rings, once for the few structures that are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from alloop.frames import read_columns, read_structures
from alloop.glass.ring_history import (
    RingEvent,
    RingHistory,
    RingLife,
    event_structures,
    ring_history,
    ring_surroundings,
)
from alloop.glass.rings import find_rings
from alloop.structure import Record, from_record, to_record

Chunk = tuple[dict[str, Any], Path]
"""The condition of a chunk of dynamics, and its result."""

SHOWN_PER_KIND = 2
RADIUS_A = 3.2
"""Atoms this near to a ring are shown with it."""

FROM_FOUR, FROM_THREE, BREAKS, LASTS = "from_four_ring", "from_boron", "breaks", "lasts"
"""How a ring that is shown comes about or ends, as panels a to d of Urata (2022), Fig. 7."""


def cooling_part(chunks: list[Chunk]) -> list[tuple[float, Chunk]]:
    """Return the chunks from the first that cools after the last that heats, up to the next warmer one.

    Each comes with the time (ps) from the run's start at which it begins. Empty if nothing cools.
    """
    ends = [(spec["temperature_start_K"], spec["temperature_end_K"]) for spec, _ in chunks]
    heats = [k for k, (start_K, end_K) in enumerate(ends) if end_K > start_K]
    cools = [k for k, (start_K, end_K) in enumerate(ends) if end_K < start_K and k > max(heats, default=-1)]
    if not cools:
        return []
    begun_ps = np.cumsum([0.0, *(_length_ps(spec) for spec, _ in chunks)])
    part = [(float(begun_ps[cools[0]]), chunks[cools[0]])]
    for k in range(cools[0] + 1, len(chunks)):
        if ends[k][0] > ends[k - 1][1] + 1e-6:
            break
        part.append((float(begun_ps[k]), chunks[k]))
    return part


def _length_ps(condition: dict[str, Any]) -> float:
    return float(condition["n_steps"] * condition["timestep_fs"] / 1000)


def _frames(part: list[tuple[float, Chunk]]) -> Iterator[Atoms]:
    """The frames of chunks in their order, those of one chunk in memory at a time."""
    for _, (_, result) in part:
        for record in read_structures(result, range(len(read_columns(result)["step"]))):
            yield from_record(record)


def cooling(chunks: list[Chunk]) -> dict[str, Any] | None:
    """Return the history of rings as a run cools, None with fewer than two frames or without boron.

    ``times_ps``, ``temperatures_K`` (the thermostat's), ``three_rings`` and ``survival`` of the final ones, frame by
    frame; how many ``formed`` and were ``broken``; ``shown``, structures as `_shown` describes them.
    """
    part = cooling_part(chunks)
    times_ps: list[float] = []
    temperatures_K: list[float] = []
    for begun_ps, (condition, result) in part:
        share = read_columns(result)["step"] / condition["n_steps"]
        slope_K = condition["temperature_end_K"] - condition["temperature_start_K"]
        times_ps += (begun_ps + share * _length_ps(condition)).tolist()
        temperatures_K += (condition["temperature_start_K"] + share * slope_K).tolist()
    if len(times_ps) < 2 or "B" not in next(_frames(part)).symbols:
        return None
    history = ring_history(_frames(part), times_ps=times_ps, temperatures_K=temperatures_K)
    kinds = [event.kind for event in history.events]
    return {
        "times_ps": times_ps,
        "temperatures_K": temperatures_K,
        "three_rings": list(history.counts),
        "survival": list(history.survival().present),
        "formed": kinds.count("formation"),
        "broken": kinds.count("decomposition"),
        "shown": _shown(history, part),
    }


def chosen_events(events: Iterable[RingEvent]) -> dict[str, list[RingEvent]]:
    """Return a few events of each kind, those of the longest-lived rings, by `FROM_FOUR`, `FROM_THREE`, `BREAKS`."""
    by_kind: dict[str, list[RingEvent]] = {FROM_FOUR: [], FROM_THREE: [], BREAKS: []}
    for event in sorted(events, key=lambda event: (-event.lifetime_ps, event.frame, event.ring)):
        if event.kind == "decomposition":
            kind = BREAKS
        else:
            kind = FROM_FOUR if event.before.in_four_ring else FROM_THREE
        if len(by_kind[kind]) < SHOWN_PER_KIND:
            by_kind[kind].append(event)
    return by_kind


def _lasting(history: RingHistory) -> list[RingLife]:
    """The ring that exists for the longest time up to the end, if there is one."""
    lasting = [life for life in history.lives if life.end_frame is None]
    return sorted(lasting, key=lambda life: (-life.lifetime_ps, life.ring))[:1]


def _shown(history: RingHistory, part: list[tuple[float, Chunk]]) -> list[dict[str, Any]]:
    """Return what is shown of a run, as records.

    ``kind`` as above, ``lifetime_ps`` and whether it is ``complete`` (else a lower bound), ``boron``, the coordination
    of the ring's boron before and after, and two or three ``structures``: their `cluster` and ``temperature_K``.
    """
    events, lasting = chosen_events(history.events), _lasting(history)
    last = len(history.times_ps) - 1
    needed = {frame for own in events.values() for event in own for frame in (event.frame_before, event.frame)}
    needed |= {frame for life in lasting for frame in _stations(life, last)}
    frames = {number: atoms for number, atoms in enumerate(_frames(part)) if number in needed}
    found = []
    for kind, own in events.items():
        for event in own:
            pair = event_structures(event, frames[event.frame_before], frames[event.frame], radius_A=RADIUS_A)
            record = {"kind": kind, "lifetime_ps": event.lifetime_ps, "complete": event.lifetime_complete}
            record["boron"] = [list(state.boron_coordination) for state in (event.before, event.after)]
            found.append(record | {"structures": _clusters(pair, (event.frame_before, event.frame), history)})
    for life in lasting:
        numbers = _stations(life, last)
        seen = [ring_surroundings(frames[number], life.ring, radius_A=RADIUS_A) for number in numbers]
        record = {"kind": LASTS, "lifetime_ps": life.lifetime_ps, "complete": False, "boron": []}
        found.append(record | {"structures": _clusters(seen, numbers, history)})
    return found


def _stations(life: RingLife, last: int) -> tuple[int, ...]:
    """First, middle and last frame of a life that lasts to the end."""
    return tuple(sorted({life.first_frame, (life.first_frame + last) // 2, last}))


def _clusters(seen: Iterable[Atoms], numbers: Iterable[int], history: RingHistory) -> list[dict[str, Any]]:
    return [
        cluster(atoms) | {"temperature_K": history.temperatures_K[number], "time_ps": history.times_ps[number]}
        for atoms, number in zip(seen, numbers, strict=True)
    ]


def cluster(atoms: Atoms) -> dict[str, Any]:
    """Return a cluster around a ring as JSON: symbols, positions (Å), numbers of the atoms, which are the ring's."""
    return {
        "symbols": atoms.get_chemical_symbols(),
        "positions_A": atoms.positions.round(4).tolist(),
        "atom_id": atoms.arrays["atom_id"].tolist(),
        "in_ring": atoms.arrays["in_ring"].tolist(),
    }


def with_rings(record: Record) -> dict[str, Any]:
    """Return a structure record with ``rings_A``: the positions (Å) of the atoms of each three-membered boron ring."""
    atoms = from_record(record)
    if "B" not in atoms.symbols:
        return to_record(atoms) | {"rings_A": []}
    rings = [ring for ring in find_rings(atoms, definition="primitive", max_ring=3) if ring.size == 3]
    around = [ring.positions_A(atoms).reshape(2, 3, 3).swapaxes(0, 1).reshape(6, 3) for ring in rings]
    return to_record(atoms) | {"rings_A": [points.round(4).tolist() for points in around]}
