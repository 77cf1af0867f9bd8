"""What a classical force field does for a melt-quench: it packs atoms, drives stages, and tells where a glass melts."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from alloop.attempt import Context
from alloop.glass.composition import Glass
from alloop.glass.melt_quench import MeltQuench, melt_quench
from alloop.glass.pair_potential import PairPotential
from alloop.glass.protocol import has_melted
from alloop.potential.engines import ENGINES, Engine, MdCondition
from alloop.store import write_json
from alloop.tasks.force_fields import force_field


def packed(context: Context, temperature_K: float, melt_ps: float) -> Atoms:
    """Return atoms of a melt: packed at random, pushed apart and held at a temperature by the force field.

    The start of the spec is ``packed``: ``counts`` of the elements, the ``glass`` whose density they get, and the
    ``force_field``. Velocities are left out.
    """
    spec, record = context.spec, context.spec["start"]["packed"]
    schedule = MeltQuench(temperature_K, 0.999 * temperature_K, melt_ps, temperature_K, n_snapshots=2)
    return melt_quench(
        Glass(**record["glass"]),
        record["counts"],
        schedule,
        seed=spec["seed"],
        directory=context.work / "packing",
        potential=force_field(context, record["force_field"], record["counts"]),
    )[0].atoms


def run_melting(context: Context) -> None:
    """Write ``summary.json``: how far each element moves at rising temperatures, up to the first that melts the glass.

    spec: start, what to pack; melt_K and melt_ps, the one melt that every temperature of temperatures_K starts from
    anew, with velocities of that temperature; equilibrate_ps there, then ps, over which displacements are counted. So
    each sees an unaged liquid, straight from melt_K, which may move more than a glass that was cooled slowly and
    heated: the temperature found is a lower bound rather.
    """
    spec = context.spec
    potential = force_field(context, spec["force_field"], spec["start"]["packed"]["counts"])
    melt = packed(context, spec["melt_K"], spec["melt_ps"])
    found: list[dict[str, Any]] = []
    for number, temperature_K in enumerate(spec["temperatures_K"]):
        context.progress(number / len(spec["temperatures_K"]), f"{temperature_K:g} K")
        moved = _displacements_A(context, potential, melt, temperature_K)
        found.append({"temperature_K": temperature_K, "rms_displacement_A": moved})
        if has_melted(moved):
            break
    write_json(context.out / "summary.json", {"status": "finished", "stage": spec["stage"], "displacements": found})


def _displacements_A(context: Context, potential: PairPotential, melt: Atoms, temperature_K: float) -> dict[str, float]:
    """Return by element the root mean square displacement, without the drift of the whole."""
    spec, every = context.spec, context.spec["record_every"]
    before, after = (round(spec[name] * 1000 / spec["timestep_fs"] / every) for name in ("equilibrate_ps", "ps"))
    condition = MdCondition(
        "nvt", temperature_K, temperature_K, (before + after) * every, timestep_fs=spec["timestep_fs"]
    )
    folder = context.work / f"{temperature_K:g}K"
    engine: Engine = ENGINES["lammps"](
        potential, melt, condition, seed=spec["seed"], directory=folder, deviation_every=every
    )
    try:
        engine.advance(before * every)
        last = engine.state().atoms
        moved = np.zeros((len(last), 3))
        for _ in range(after):
            engine.advance(every)
            now = engine.state().atoms
            moved += find_mic(now.positions - last.positions, now.cell, now.pbc)[0]
            last = now
    finally:
        engine.close()
    masses = last.get_masses()
    moved -= masses @ moved / masses.sum()
    squared = (moved**2).sum(axis=1)
    symbols = np.array(last.get_chemical_symbols())
    return {str(element): float(np.sqrt(squared[symbols == element].mean())) for element in np.unique(symbols)}
