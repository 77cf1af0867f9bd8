"""The molecular-dynamics engines: one interface, one record, two programs."""

from __future__ import annotations

from collections.abc import Callable

from alloop.potential.ase_engine import AseEngine
from alloop.potential.conditions import Engine, MdCondition, MdState, TrajectoryLost
from alloop.potential.lammps_engine import LammpsEngine

__all__ = ["ENGINES", "AseEngine", "Engine", "LammpsEngine", "MdCondition", "MdState", "TrajectoryLost"]

ENGINES: dict[str, Callable[..., Engine]] = {"lammps": LammpsEngine, "ase": AseEngine}
