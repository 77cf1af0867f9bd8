"""One chunk of molecular dynamics, recorded as a compact table; used by explore and quench."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from alloop.attempt import Context
from alloop.frames import read_structure
from alloop.potential.engines import ENGINES, Engine, MdCondition, MdState, TrajectoryLost
from alloop.selection.events import FrameEvents, Watch
from alloop.store import read_json, write_json
from alloop.structure import from_record, to_record
from alloop.tasks.evaluate import model_file

PACKING_PS = 1.0
"""How long the force field holds atoms that were packed at random, before a trajectory begins."""


@dataclass
class Record:
    """What was seen at one recorded step."""

    state: MdState
    target_temperature_K: float
    events: FrameEvents

    @property
    def max_deviation(self) -> float:
        """Largest force deviation of the frame's atoms in eV/Å."""
        return float(self.state.force_deviation_eV_A.max())


@dataclass
class Chunk:
    """All records of a chunk, and how it ended: finished, lost or stopped (with the reason) or void (no start).

    events: the names of those it was watched for.
    """

    status: str
    reason: str = ""
    records: list[Record] = field(default_factory=list)
    end: Atoms | None = None
    events: tuple[str, ...] = ()

    def table(self) -> dict[str, np.ndarray]:
        """Return the compact table: one row per record; a column per element pair that came near, two per event.

        ``event:NAME`` tells whether a record shows it, ``count:NAME`` how many atoms do.
        """
        rows = self.records
        pairs = sorted({pair for row in rows for pair in row.events.min_distance_A})
        deviation = [row.state.force_deviation_eV_A for row in rows]
        columns: dict[str, Any] = {
            "step": [row.state.step for row in rows],
            "max_force_deviation_eV_A": [values.max() for values in deviation],
            "mean_force_deviation_eV_A": [values.mean() for values in deviation],
            "min_force_deviation_eV_A": [values.min() for values in deviation],
            "max_virial_deviation_eV": [row.state.virial_deviation_eV for row in rows],
            "potential_energy_eV": [row.state.potential_energy_eV for row in rows],
            "temperature_K": [row.state.temperature_K for row in rows],
            "target_temperature_K": [row.target_temperature_K for row in rows],
            "pressure_bar": [row.state.pressure_bar for row in rows],
            "volume_A3": [row.state.atoms.get_volume() for row in rows],
        }
        columns |= event_columns(rows, self.events)
        for name in self.events:
            columns[f"count:{name}"] = np.array([len(row.events.offending[name]) for row in rows], dtype=int)
        for pair in pairs:
            columns[f"min_distance_A:{pair}"] = [row.events.min_distance_A.get(pair, np.nan) for row in rows]
        return {name: np.asarray(values) for name, values in columns.items()}


def event_columns(records: Sequence[Record], events: Sequence[str]) -> dict[str, np.ndarray]:
    """Return ``event:NAME``, whether each record shows it, for every event."""
    return {f"event:{name}": np.array([r.events.seen(name) for r in records], dtype=bool) for name in events}


def run_chunk(context: Context, on_record: Callable[[Record], str | None] | None = None) -> Chunk:
    """Run the chunk that the spec describes, from its start, until its end or until the trajectory is lost.

    on_record is told of every record; where it returns a reason, the chunk is stopped there.
    """
    spec = context.spec
    start = starting_state(context)
    watch = Watch(spec["events"], start)
    if start is None:
        return Chunk("void", "the chunk before it was lost", events=watch.names)
    condition = MdCondition(**spec["condition"])
    name, driver = _driver(context, start)
    engine: Engine = ENGINES[name](
        driver,
        start,
        condition,
        seed=spec["seed"],
        directory=context.work,
        deviation_every=spec["deviation_every"],
    )
    chunk = Chunk("finished", end=start, events=watch.names)
    try:
        for record in _records(engine, condition, watch, context):
            chunk.records.append(record)
            stop = on_record(record) if on_record is not None else None
            reason = lost_reason(record, spec.get("lost_eV_A", math.inf))
            if reason is None:
                chunk.end = record.state.atoms
            if reason is not None or stop is not None:
                chunk.status = "stopped" if reason is None else "lost"
                chunk.reason = f"step {record.state.step}: {reason or stop}"
                break
    except TrajectoryLost as error:
        chunk.status, chunk.reason = "lost", str(error)
    finally:
        engine.close()
    return chunk


def _driver(context: Context, start: Atoms) -> tuple[str, Any]:
    """Return the engine's name and what drives it: the ensemble's models, or a classical force field in LAMMPS."""
    spec = context.spec
    if "force_field" not in spec:
        return spec["engine"], driving_models(context)
    from alloop.tasks.force_fields import force_field

    return "lammps", force_field(context, spec["force_field"], Counter(start.symbols))


def driving_models(context: Context) -> list[Path]:
    """Return the files of the ensemble's models, first the one whose forces drive: `driven_by` in the spec, else 0."""
    models, first = context.spec["models"], context.spec.get("driven_by", 0)
    return [model_file(context, key) for key in models[first:] + models[:first]]


def _records(engine: Engine, condition: MdCondition, watch: Watch, context: Context) -> Iterator[Record]:
    every, done = context.spec["deviation_every"], 0
    while done < condition.n_steps:
        engine.advance(every)
        done += every
        state = engine.state()
        target_K = condition.temperature_K(state.step)
        seen = watch.look(state.atoms, temperature_K=state.temperature_K, target_temperature_K=target_K)
        yield Record(state, target_K, seen)
        if done % (50 * every) == 0:
            context.progress(done / condition.n_steps, f"{state.temperature_K:.0f} K")


def lost_reason(record: Record, lost_eV_A: float) -> str | None:
    """Return why a trajectory is lost at this record, or None: the deviation, a distance gate, or no number at all."""
    if not np.isfinite(record.max_deviation):
        return "force deviation is not finite"
    if record.max_deviation > lost_eV_A:
        return f"force deviation {record.max_deviation:.2f} > {lost_eV_A:g} eV/A"
    return record.events.lost_reason


def starting_state(context: Context) -> Atoms | None:
    """Return the atoms a chunk starts from (with velocities if it continues another), None if the chunk
    before was lost or given up."""
    start = context.spec["start"]
    if "packed" in start:
        from alloop.tasks.classical import packed

        temperature_K = context.spec["condition"]["temperature_start_K"]
        return packed(context, temperature_K, PACKING_PS)
    result = context.result_of(start["task"])
    if "frame" in start:
        return from_record(read_structure(result, start["frame"])).repeat(start.get("supercell", (1, 1, 1)))
    file = result / "restart.json"
    state = read_json(file)[start["state"]] if file.exists() else None
    if state is None:
        return None
    atoms = from_record(state)
    atoms.set_velocities(np.array(state["velocities_ase"]))
    return atoms


def write_restart(out: Path, end: Atoms | None, good: Atoms | None) -> None:
    """Write ``restart.json``: the state at the end (None if lost) and the last good one (None if there is none)."""
    write_json(out / "restart.json", {"end": _state(end), "good": _state(good)})


def _state(atoms: Atoms | None) -> dict[str, Any] | None:
    """Velocities in ASE's own unit, so that nothing is lost in a conversion."""
    if atoms is None:
        return None
    return to_record(atoms) | {"velocities_ase": atoms.get_velocities().tolist()}
