"""Crystals at high temperature: short classical dynamics of any periodic cell at fixed volume, run by LAMMPS."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.io.lammpsdata import write_lammps_data

from alloop.glass.melt_quench import LammpsError, run_lammps
from alloop.glass.pair_potential import PairPotential, write_lammps_potential

TIMESTEP_FS = 1.0
_INPUT = """units           metal
atom_style      atomic
boundary        p p p
box             tilt large
read_data       start.data
neigh_modify    delay 0 every 1 check yes
timestep        {timestep_ps}
{pair_commands}
velocity        all create {begin_K} {seed} mom yes dist gaussian
fix             thermostat all nvt temp {temperature_K} {temperature_K} 0.1
run             {first}
reset_timestep  0
dump            frames all custom {every} frames.dump id element x y z
dump_modify     frames sort id first yes element {elements} format float %.10f
run             {last}
"""


def crystal_md(
    atoms: Atoms, temperature_K: float, potential: PairPotential, *, ps: float, frames: int, seed: int, directory: Path
) -> list[Atoms]:
    """Return frames of a crystal at a temperature, evenly spaced over the second half of a run of some ps.

    NVT (Nose-Hoover) with a time step of 1 fs, from the ideal sites and velocities of twice the temperature, of which
    the lattice takes half. The cell keeps its shape, but is turned as LAMMPS needs it. Files are written into
    `directory`. ValueError for elements without parameters; LammpsError (a ValueError) if LAMMPS fails or a frame is
    missing.
    """
    types = {element: number for number, element in enumerate(sorted(Counter(atoms.symbols)), start=1)}
    directory.mkdir(parents=True, exist_ok=True)
    write_lammps_data(
        directory / "start.data", atoms, specorder=list(types), masses=True, units="metal", atom_style="atomic"
    )
    half_steps = max(1, round(500 * ps / TIMESTEP_FS))
    every = max(1, half_steps // frames)
    text = _INPUT.format(
        timestep_ps=TIMESTEP_FS / 1000,
        pair_commands=write_lammps_potential(directory, potential, types),
        begin_K=2 * temperature_K,
        temperature_K=temperature_K,
        seed=int(np.random.default_rng(seed).integers(1, 900_000_000)),
        first=half_steps,
        every=every,
        last=every * (frames - 1),
        elements=" ".join(types),
    )
    (directory / "crystal_md.in").write_text(text)
    dump = directory / "frames.dump"
    dump.unlink(missing_ok=True)
    run_lammps(directory, "crystal_md.in")
    found = ase.io.read(dump, index=":", format="lammps-dump-text")
    if len(found) != frames or not all(np.isfinite(frame.positions).all() for frame in found):
        raise LammpsError(f"{dump} holds {len(found)} sound frames, expected {frames}; read {directory}/log.lammps")
    return [
        Atoms(frame.get_chemical_symbols(), positions=frame.positions, cell=frame.cell, pbc=True) for frame in found
    ]
