"""What the doubles of explore and quench put in place of dynamics; the tasks themselves are the true ones.

The modules that are slow to import (engines, events, glass analysis) are replaced before the true task imports them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import quick_physics
from ase import Atoms
from quick_settings import Settings

from alloop.attempt import Context
from alloop.potential import conditions

SHAKE_A = 0.05
LOST_FACTOR = 1.5


@dataclass(frozen=True)
class QuickEvents:
    """A frame in which nothing happens."""

    min_distance_A: dict[str, float] = field(default_factory=lambda: {"B-O": 1.4, "O-Si": 1.6})
    offending: dict[str, np.ndarray] = field(default_factory=dict)
    lost_reason: str | None = None

    def seen(self, event: str) -> bool:
        return len(self.offending[event]) > 0


class QuickWatch:
    """Sees no event."""

    def __init__(self, definitions: dict[str, Any], start: Atoms | None = None) -> None:
        self.names = tuple(definitions)

    def look(self, atoms: Atoms, **_: float) -> QuickEvents:
        return QuickEvents(offending={name: np.zeros(0, dtype=np.int64) for name in self.names})


class QuickEngine:
    """Shakes the start; the deviation of every record is drawn beforehand."""

    def __init__(self, start: Atoms, condition: Any, seed: int, every: int, deviations_eV_A: np.ndarray) -> None:
        self.start, self.condition, self.every = start, condition, every
        self.deviations_eV_A = deviations_eV_A
        self.rng = np.random.default_rng(seed)
        self.step = 0

    def advance(self, n_steps: int) -> None:
        self.step += n_steps

    def state(self) -> Any:
        atoms, count = self.start.copy(), len(self.start)
        atoms.positions += self.rng.normal(scale=SHAKE_A, size=(count, 3))
        atoms.set_velocities(self.rng.normal(scale=0.01, size=(count, 3)))
        largest = self.deviations_eV_A[self.step // self.every - 1]
        deviation = np.full(count, 0.5 * largest)
        deviation[0] = largest
        temperature_K = self.condition.temperature_K(self.step)
        return conditions.MdState(self.step, atoms, -7.0 * count, temperature_K, 0.0, deviation, 0.1 * largest)

    def close(self) -> None:
        pass


def with_records(context: Context, settings: Settings) -> Context:
    """The task with as many records as told (as its own spec says if not told)."""
    condition, count = context.spec["condition"], settings.values.get("records")
    if count is None:
        return context
    every = max(1, condition["n_steps"] // count)
    changes = {"deviation_every": every, "condition": condition | {"n_steps": every * count}}
    if "frame_every" in context.spec:
        changes["frame_every"] = max(1, round(context.spec["frame_every"] / every)) * every
    return replace(context, spec=context.spec | changes)


def put_in_place(context: Context, settings: Settings) -> None:
    """Replace what the true task imports; to be called before it is imported, and for every further task."""
    spec = context.spec
    number = quick_physics.ensemble_of(context)
    every = spec["deviation_every"]
    count = -(-spec["condition"]["n_steps"] // every)
    shares = settings.of_ensemble("candidates", number, 0.3), settings.of_ensemble("failed", number, 0.0)
    trust, rng = (spec.get("trust_low_eV_A", 0.2), spec.get("trust_high_eV_A", 1.0)), settings.rng(context, "deviation")
    deviations = quick_physics.drawn_deviations(count, *shares, trust, rng)
    if "force_field" in spec:
        deviations[:] = 0.0
    elif rng.uniform() < settings.of_ensemble("lost", number, 0.0):
        deviations[count // 2] = LOST_FACTOR * spec["lost_eV_A"]

    def engine(
        models: list[Path], start: Atoms, condition: Any, *, seed: int, directory: Path, deviation_every: int
    ) -> QuickEngine:
        return QuickEngine(start, condition, seed, deviation_every, deviations)

    engines = {"ENGINES": {"lammps": engine, "ase": engine}} | {
        name: getattr(conditions, name) for name in ("Engine", "MdCondition", "MdState", "TrajectoryLost")
    }
    replaced("alloop.potential.engines", **engines)
    replaced("alloop.selection.events", FrameEvents=QuickEvents, Watch=QuickWatch)
    replaced("alloop.tasks.label", read_label=quick_physics.read_label)
    if "alloop.tasks.dynamics" in sys.modules:
        sys.modules["alloop.tasks.dynamics"].ENGINES = engines["ENGINES"]  # type: ignore[attr-defined]


def replaced(name: str, **content: Any) -> None:
    """Put a module of this content where the one of that name would be imported."""
    module = sys.modules.get(name) or ModuleType(name)
    module.__dict__.update(content)
    sys.modules[name] = module
