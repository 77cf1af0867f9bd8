"""How often do atoms come near each other in the labeler's own melts? SevenNet-0 beside the models it taught.

    python benchmarks/labeler_melts.py FOLDER [--glasses LBS-20-60-20 LBS-30-30-40] [--sampling-ps 6] [--slots 2]

`glasses.py` counts the frames with an overlap at 2000 K in runs driven by the models. This runs SevenNet-0 itself from
the same starts (melts of Teter's force field) at the same temperature, and keeps of every frame with an overlap which
pairs are how near. A step of it costs about two seconds of a core, so that it takes steps of 3 fs with an integrator
whose positions are nearly those of the canonical ensemble nevertheless, looks at every step, and compares shares of
time.
A process per glass, one thread each; pieces of 50 steps are kept, so that an interrupted run goes on, longer too with
another --sampling-ps. What is there goes to benchmarks/results/labeler_melts.json, beside the models' runs of
benchmarks/results/glasses.json. By estimate 80 minutes for twice 7 ps of 105 and 108 atoms on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms, units
from checkout import commit
from events_campaign import EVERY_FS, TEMPERATURE_K, seen_in, teter_melt
from glasses import GLASSES
from glasses import RECORD as MODELS_RECORD
from scipy.stats import chi2

from alloop.glass.composition import TABLE_1
from alloop.glass.events import NEAR_OVERLAP_A
from alloop.glass.neighbours import neighbour_list
from alloop.labelers import resolve
from alloop.labelers.ase_calculator import AseLabeler
from alloop.potential.conditions import with_velocities
from alloop.potential.environment import md_environment
from alloop.selection.pair_lengths import length_matrix_A
from alloop.store import read_json, write_json

RECORD = MODELS_RECORD.parent / "labeler_melts.json"
LABELER = "sevennet-0"
TIMESTEP_FS, THERMOSTAT_FS, PIECE_STEPS = 3.0, 100.0, 50
"""Langevin dynamics split as BAOAB: harmonic bonds have exactly the canonical spread of lengths at any stable time step
(B. Leimkuhler, C. Matthews, J. Chem. Phys. 138, 174102 (2013)); the fastest here, B-O, takes about 8 steps a period."""


# ---------------------------------------------------------------------------------------- dynamics


def started(folder: Path, glass: str) -> Atoms:
    """Return the melt that the models' run of this glass started from, with velocities; made as `glasses.py` does."""
    number = list(GLASSES).index(glass)
    start = teter_melt(folder / f"start-{glass}.extxyz", TABLE_1[glass], GLASSES[glass], 170 + number)
    return with_velocities(start, TEMPERATURE_K, 700 + number)


def piece_file(folder: Path, glass: str, piece: int) -> Path:
    """Return the file of a piece: its frames, one a step, each with velocities."""
    return folder / glass / f"piece-{piece:03d}.extxyz"


def run_pieces(folder: Path, glass: str, pieces: int) -> None:
    """Run the labeler's dynamics of a glass until so many pieces are there, from the last one that is."""
    (folder / glass).mkdir(parents=True, exist_ok=True)
    path, options = resolve(LABELER, {})
    calculator = AseLabeler(path, options).calculator
    for piece in range(pieces):
        file = piece_file(folder, glass, piece)
        if file.exists():
            continue
        atoms = ase.io.read(piece_file(folder, glass, piece - 1), "-1") if piece else started(folder, glass)
        began = time.monotonic()
        ase.io.write(part := file.with_suffix(".part"), run_piece(atoms, calculator, piece), format="extxyz")
        part.rename(file)
        took = (time.monotonic() - began) / PIECE_STEPS
        print(f"{glass}: piece {piece + 1} of {pieces}, {took:.2f} s a step", flush=True)


def run_piece(atoms: Atoms, calculator: Any, seed: int) -> list[Atoms]:
    """Return the frames of a piece from where atoms are: positions, cell and velocities. Needs ASE 3.27."""
    from ase.md.langevinbaoab import LangevinBAOAB

    atoms.calc = calculator
    dynamics = LangevinBAOAB(
        atoms,
        TIMESTEP_FS * units.fs,
        temperature_K=TEMPERATURE_K,
        T_tau=THERMOSTAT_FS * units.fs,
        rng=np.random.default_rng(seed),
    )
    frames: list[Atoms] = []

    def keep() -> None:
        frame = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
        frame.set_momenta(atoms.get_momenta())
        frames.append(frame)

    dynamics.attach(keep)
    dynamics.run(PIECE_STEPS)
    return frames[1:]  # ASE tells of the start too


def run_glasses(command: list[str], glasses: list[str], slots: int) -> int:
    """Run the glasses, so many at once, each in a process of its own; an interruption ends them and is no failure."""
    environment = os.environ | md_environment(1)
    waiting, running, code = list(glasses), list[subprocess.Popen[bytes]](), 0
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                running.append(subprocess.Popen([*command, "--run", waiting.pop(0)], env=environment))
            code = max(code, abs(running.pop(0).wait()))
    except KeyboardInterrupt:
        for process in running:
            process.wait()  # told by the same Ctrl-C
        print("interrupted; every finished piece is kept, the same command goes on", file=sys.stderr)
    return code


# ---------------------------------------------------------------------------------------- comparison


def sampled(folder: Path, glass: str, skipped: int) -> list[Atoms]:
    """Return the frames that are there after so many pieces."""
    files = sorted((folder / glass).glob("piece-*.extxyz"))[skipped:]
    return [frame for file in files for frame in ase.io.read(file, ":")]


def near_pairs(frames: list[Atoms]) -> list[dict[str, Any]]:
    """Return every pair nearer than it is asked about: frame, elements, distance (Å) and that in units of the limit."""
    rows: list[dict[str, Any]] = []
    for number, atoms in enumerate(frames):
        found = neighbour_list(atoms, max(NEAR_OVERLAP_A.values()))
        limits_A = length_matrix_A(found.elements, NEAR_OVERLAP_A)[
            found.species[found.first], found.species[found.second]
        ]
        for pair in np.flatnonzero((found.distances_A < limits_A) & (found.first < found.second)):
            i, j = (int(side[pair]) for side in (found.first, found.second))
            name, length = "-".join(sorted(atoms.symbols[[i, j]])), float(found.distances_A[pair])
            rows.append({"frame": number, "atoms": [i, j], "pair": name, "A": round(length, 3)})
    return rows


def approaches(pairs: list[dict[str, Any]]) -> int:
    """Return how often two atoms came near: frames of one pair no farther apart than the models' are one approach."""
    apart, seen, count = round(EVERY_FS / TIMESTEP_FS), dict[tuple[int, ...], int](), 0
    for row in pairs:
        last = seen.get(tuple(row["atoms"]))
        count += last is None or row["frame"] - last > apart
        seen[tuple(row["atoms"])] = row["frame"]
    return count


def share(frames: int, of: int, approached: int) -> dict[str, float]:
    """Return the share of frames with an overlap in 1000, and the 95 % interval of a Poisson count of approaches.

    F. Garwood, Biometrika 28, 437 (1936); frames of one approach are one event, and the bounds scale with their mean
    number. Without any approach the upper bound is for one that lasts one frame.
    """
    low = float(chi2.ppf(0.025, 2 * approached) / 2) if approached else 0.0
    high = float(chi2.ppf(0.975, 2 * approached + 2) / 2)
    each = frames / approached if approached else 1.0
    return {"in_1000": 1000 * frames / of, "low": 1000 * low * each / of, "high": 1000 * high * each / of}


def compared(folder: Path, glass: str, skipped: int) -> dict[str, Any] | None:
    """Return what the labeler's run shows beside the models' run of the same glass; None before there are frames."""
    frames = sampled(folder, glass, skipped)
    if not frames:
        return None
    own, models = seen_in(frames), read_json(MODELS_RECORD)["glasses"][glass]["melt"]
    pairs = near_pairs(frames)
    met = approaches(pairs)
    return {
        "labeler": own
        | {"sampled_ps": len(frames) * TIMESTEP_FS / 1000, "approaches": met, "near_pairs": pairs}
        | {"overlap": share(own["overlap_frames"], len(frames), met)},
        "models": models | {"overlap": share(models["overlap_frames"], models["frames"], models["overlap_frames"])},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--glasses", nargs="+", choices=tuple(GLASSES), default=["LBS-20-60-20", "LBS-30-30-40"])
    parser.add_argument("--equilibration-ps", type=float, default=0.9)
    parser.add_argument("--sampling-ps", type=float, default=6.0)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--run", choices=tuple(GLASSES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder, piece_ps = arguments.folder.resolve(), PIECE_STEPS * TIMESTEP_FS / 1000
    skipped = round(arguments.equilibration_ps / piece_ps)
    if arguments.run:
        run_pieces(folder, arguments.run, skipped + round(arguments.sampling_ps / piece_ps))
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    lengths = [f"--equilibration-ps={arguments.equilibration_ps}", f"--sampling-ps={arguments.sampling_ps}"]
    code = run_glasses([sys.executable, __file__, str(folder), *lengths], arguments.glasses, arguments.slots)
    kept = read_json(arguments.record)["glasses"] if arguments.record.exists() else {}
    own = {glass: compared(folder, glass, skipped) for glass in arguments.glasses}
    glasses = kept | {glass: found for glass, found in own.items() if found}
    record = {
        "commit": commit(),
        "labeler": LABELER,
        "temperature_K": TEMPERATURE_K,
        "timestep_fs": TIMESTEP_FS,
        "equilibration_ps": round(skipped * piece_ps, 3),
        "asked_about_below_A": NEAR_OVERLAP_A,
        "glasses": glasses,
    }
    write_json(arguments.record, record)
    print(json.dumps(record, indent=1))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
