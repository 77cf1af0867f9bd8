"""Make a pool of labelled glass frames, on which `alloop bench-select` compares ways to choose what to label.

Three glasses of Table 1 (low, middle and high Li2O), 60 to 90 atoms each. Every trajectory melts random atoms at
3500 K, cools in a linear ramp to 300 K and heats back, driven by LAMMPS with the one-parameter-set Teter field that
also labels (`teter-rehearsal`); frames are evenly spaced along both ramps, so their temperatures are uniform. One
trajectory in three runs in a cell compressed by 6 % along each axis (more five-coordinated silicon), one frame in
ten is strained and rattled (near-overlaps). Frames past a hard gate are left out. The test set is of trajectories
of its own.

    python benchmarks/labelled_pool.py FOLDER

FOLDER then holds `pool.extxyz` and `test.extxyz` (each frame with trajectory, glass, temperature_K, time_ps) and
`pool.json`, which says what is in them. A trajectory that is done is not run again; the same seed gives the same pool.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from rich.console import Console
from rich.progress import track

from alloop import labelers
from alloop.bench_select.events import EVENTS, events_of, lost_reason
from alloop.glass.composition import TABLE_1, cell_length_A, stoichiometric_counts
from alloop.glass.crystals import perturbed
from alloop.glass.force_field import CUTOFF_A, REHEARSAL_PARAMETERS
from alloop.glass.melt_quench import random_start, read_dump, run_lammps, write_lammps_data
from alloop.glass.pair_potential import lammps_pair_commands, write_lammps_table
from alloop.labelling import as_atoms
from alloop.seeds import derived_seed
from alloop.store import write_bytes, write_json
from alloop.structure import content_key

LABELER = "teter-rehearsal"
GLASSES = ("LBS-20-60-20", "LBS-30-30-40", "LBS-15-25-60")
HOT_K, COLD_K = 3500.0, 300.0
MELT_STEPS, RAMP_STEPS, TIMESTEP_FS = 2000, 15840, 1.0
COMPRESSION = 0.94  # of the cell's edge, one trajectory in three
COPY_SHARE, COPY_STRAIN, COPY_RATTLE_A = 0.1, 0.03, 0.08
FRAMES_PER_RAMP = {"pool": 44, "test": 22}
LEAST_FRAMES = 1500
LARGEST_LAMMPS_SEED = 900_000_000

INPUT = """
units           metal
atom_style      atomic
boundary        p p p
read_data       start.data
neighbor        1.0 bin
neigh_modify    delay 0 every 1 check yes
timestep        {timestep_ps}
min_style       cg
min_modify      dmax 0.05
pair_style      soft 2.0
pair_coeff      * * 20.0
minimize        1.0e-6 1.0e-6 200 2000
{pair_commands}
minimize        1.0e-6 1.0e-4 500 5000
velocity        all create {hot} {velocity_seed} mom yes dist gaussian
fix             capped all nve/limit 0.05
fix             heat all langevin {hot} {hot} 0.1 {langevin_seed}
run             1500
unfix           heat
unfix           capped
velocity        all zero linear
fix             thermostat all nvt temp {hot} {hot} 0.1
run             {melt_steps}
unfix           thermostat
reset_timestep  0
dump            frames all custom {every} frames.dump id element x y z
dump_modify     frames sort id first yes element {elements} format float %.10f
fix             thermostat all nvt temp {hot} {cold} 0.1
run             {ramp_steps}
unfix           thermostat
fix             thermostat all nvt temp {cold} {hot} 0.1
run             {ramp_steps}
"""


def specs(seed: int, n_atoms: int, runs: dict[str, int]) -> list[dict[str, Any]]:
    """Return what decides each trajectory: set, glass, cell, ramps and seed."""
    return [
        {
            "set": role,
            "name": f"{glass}.{role}{number:02d}",
            "glass": glass,
            "counts": stoichiometric_counts(TABLE_1[glass], n_atoms),
            "edge_factor": COMPRESSION if number % 3 == 2 else 1.0,
            "melt_steps": MELT_STEPS,
            "ramp_steps": RAMP_STEPS,
            "every": RAMP_STEPS // FRAMES_PER_RAMP[role],
            "copies": [COPY_SHARE, COPY_STRAIN, COPY_RATTLE_A],
            "seed": derived_seed(seed, "pool", role, glass, number),
        }
        for role, count in runs.items()
        for glass in GLASSES
        for number in range(count)
    ]


def ramp_temperature_K(step: int, ramp_steps: int) -> float:
    """Return the thermostat's temperature at a step of the two ramps, down and up again."""
    return COLD_K + (HOT_K - COLD_K) * abs(step - ramp_steps) / ramp_steps


def run_ramps(spec: dict[str, Any], directory: Path) -> list[tuple[int, Atoms]]:
    """Run one trajectory with LAMMPS in `directory` and return (step of the ramps, atoms) of its frames."""
    rng = np.random.default_rng(spec["seed"])
    counts = spec["counts"]
    edge_A = cell_length_A(counts, TABLE_1[spec["glass"]].density_g_cm3) * spec["edge_factor"]
    types = {element: number for number, element in enumerate(sorted(counts), start=1)}
    write_lammps_data(directory / "start.data", random_start(counts, edge_A, rng), types)
    write_lammps_table(directory / "teter.table", REHEARSAL_PARAMETERS, counts)
    velocity_seed, langevin_seed = rng.integers(1, LARGEST_LAMMPS_SEED, size=2).tolist()
    text = INPUT.format(
        timestep_ps=TIMESTEP_FS / 1000,
        pair_commands=lammps_pair_commands(types, "teter.table", CUTOFF_A),
        hot=HOT_K,
        cold=COLD_K,
        velocity_seed=velocity_seed,
        langevin_seed=langevin_seed,
        melt_steps=spec["melt_steps"],
        ramp_steps=spec["ramp_steps"],
        every=spec["every"],
        elements=" ".join(types),
    )
    (directory / "ramps.in").write_text(text)
    run_lammps(directory, "ramps.in")
    return read_dump(directory / "frames.dump")


def labelled(spec: dict[str, Any], frames: list[tuple[int, Atoms]]) -> list[Atoms]:
    """Return the labelled frames of a trajectory, some of them strained and rattled, none past a hard gate."""
    labeler = labelers.load(LABELER, {})
    rng = np.random.default_rng(derived_seed(spec["seed"], "copies"))
    share, strain, rattle_A = spec["copies"]
    found = []
    for step, atoms in frames:
        strained = bool(rng.random() < share)
        copy = perturbed(atoms, rattle_A=rattle_A, max_strain=strain, rng=rng) if strained else atoms
        if lost_reason(copy) is not None:
            continue
        info = {
            "trajectory": spec["name"],
            "glass": spec["glass"],
            "temperature_K": ramp_temperature_K(step, spec["ramp_steps"]),
            "time_ps": step * TIMESTEP_FS / 1000,
            "strained": strained,
            "level": LABELER,
        }
        found.append(as_atoms(labeler.label(copy), info))
    return found


def part_file(folder: Path, spec: dict[str, Any]) -> Path:
    """Return where the labelled frames of a trajectory are kept."""
    return folder / "parts" / f"{spec['name']}-{content_key(spec)}.extxyz"


def make_part(folder: Path, spec: dict[str, Any]) -> None:
    """Run and label one trajectory; its file appears when it is whole."""
    with tempfile.TemporaryDirectory(dir=folder / "parts", prefix=".") as scratch:
        frames = labelled(spec, run_ramps(spec, Path(scratch)))
        ase.io.write(Path(scratch) / "part.extxyz", frames, format="extxyz")
        write_bytes(part_file(folder, spec), (Path(scratch) / "part.extxyz").read_bytes())


def describe(frames: list[Atoms]) -> dict[str, Any]:
    """Return what a set holds: frames, glasses, events, temperatures, the largest force."""
    events = [events_of(atoms) for atoms in frames]
    temperatures_K = np.array([atoms.info["temperature_K"] for atoms in frames])
    return {
        "frames": len(frames),
        "trajectories": len({atoms.info["trajectory"] for atoms in frames}),
        "by_glass": dict(Counter(atoms.info["glass"] for atoms in frames)),
        "atoms": {atoms.info["glass"]: len(atoms) for atoms in frames},
        "with_event": {event: sum(event in found for found in events) for event in EVENTS},
        "strained": sum(bool(atoms.info["strained"]) for atoms in frames),
        "temperature_histogram": np.histogram(temperatures_K, np.linspace(COLD_K, HOT_K, 9))[0].tolist(),
        "max_force_eV_A": max(float(np.linalg.norm(atoms.get_forces(), axis=1).max()) for atoms in frames),
    }


def gather(folder: Path, todo: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the trajectories' frames together, set by set, and return what each set holds."""
    found = {}
    for role in FRAMES_PER_RAMP:
        text = b"".join(part_file(folder, spec).read_bytes() for spec in todo if spec["set"] == role)
        write_bytes(folder / f"{role}.extxyz", text)
        found[role] = describe(ase.io.read(folder / f"{role}.extxyz", index=":"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--n-atoms", type=int, default=72, help="atoms wanted; the nearest exact cell is taken")
    parser.add_argument("--pool-runs", type=int, default=6, help="trajectories per glass")
    parser.add_argument("--test-runs", type=int, default=3, help="trajectories per glass that are tested on only")
    parser.add_argument("--slots", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    folder, console = arguments.folder.resolve(), Console(stderr=True)
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    todo = specs(arguments.seed, arguments.n_atoms, {"pool": arguments.pool_runs, "test": arguments.test_runs})
    missing = [spec for spec in todo if not part_file(folder, spec).exists()]
    console.print(f"{len(todo)} trajectories, {len(todo) - len(missing)} done already")
    began = time.monotonic()
    with ProcessPoolExecutor(arguments.slots, mp_context=get_context("forkserver")) as executor:
        futures = [executor.submit(make_part, folder, spec) for spec in missing]
        try:
            for future in track(as_completed(futures), "trajectories", len(futures), console=console):
                future.result()
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
    record = {
        "labeler": LABELER,
        "seed": arguments.seed,
        "sets": gather(folder, todo),
        "trajectories_run": len(missing),
        "seconds": round(time.monotonic() - began, 1),
        "slots": arguments.slots,
    }
    found = record["sets"]["pool"]["frames"]
    write_json(folder / "pool.json", record)
    if found < LEAST_FRAMES:
        raise SystemExit(
            f"{folder / 'pool.extxyz'} holds {found} frames to choose from, {LEAST_FRAMES} are needed for a comparison "
            "of 320 labels to mean anything\n  give more --pool-runs"
        )
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
