"""What does it bring that processes of DeePMD keep freed memory? Exploration with and without, in turn, in one run.

    python benchmarks/kept_memory.py CAMPAIGN [--steps 500] [--repeats 3]

CAMPAIGN is any whose first ensemble is trained, such as the project's folder after `alloop run`. From a melt of its
first glass LAMMPS runs with its last ensemble and is looked at for the default events every ten steps, as in
exploration, once with the environment that `md_environment` gives, once without its variables of glibc's memory; the
order changes with every repeat. The times, the page faults per step and whether both end at the same positions go to
benchmarks/results/kept_memory.json. Some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import ase.io
from checkout import commit
from events_campaign import last_ensemble, teter_melt

from alloop.campaign import Campaign
from alloop.config import parse
from alloop.glass.events import ON_BY_DEFAULT, PRESETS
from alloop.potential.environment import md_environment
from alloop.selection.events import Watch
from alloop.store import write_json

RECORD = Path(__file__).resolve().parent / "results" / "kept_memory.json"
TEMPERATURE_K, WARM_UP, RECORD_EVERY = 2000.0, 50, 10


def drive(told: dict[str, Any]) -> None:
    """Run the dynamics and print its time, page faults and last positions."""
    import resource
    import time

    from alloop.potential.engines import ENGINES, MdCondition

    condition = MdCondition("nvt", TEMPERATURE_K, TEMPERATURE_K, WARM_UP + told["steps"])
    models, start, folder = [Path(model) for model in told["models"]], ase.io.read(told["start"]), Path(told["folder"])
    engine = ENGINES["lammps"](models, start, condition, seed=1, directory=folder / "md", deviation_every=RECORD_EVERY)
    watch = Watch({event: PRESETS[event] for event in ON_BY_DEFAULT})
    engine.advance(WARM_UP)
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(told["steps"] // RECORD_EVERY):
        engine.advance(RECORD_EVERY)
        watch.look(engine.state().atoms)
    found = {
        "seconds": time.perf_counter() - began,
        "page_faults_per_step": (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / told["steps"],
        "positions_A": engine.state().atoms.positions.tolist(),
    }
    Path(told["folder"], "found.json").write_text(json.dumps(found))


def run(told: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """Drive in a process of its own and return what it found."""
    Path(told["folder"]).mkdir()
    subprocess.run([sys.executable, __file__, "--md", json.dumps(told)], env=environment, check=True)
    return dict(json.loads(Path(told["folder"], "found.json").read_text()))


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the times of some runs, their median, and the page faults."""
    seconds = [round(one["seconds"], 2) for one in runs]
    faults = statistics.median(one["page_faults_per_step"] for one in runs)
    return {"seconds": seconds, "median_s": statistics.median(seconds), "page_faults_per_step": round(faults, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", type=Path, nargs="?")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--md", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.md:
        drive(json.loads(options.md))
        return
    if options.campaign is None:
        parser.error("a CAMPAIGN is needed")
    campaign = Campaign(options.campaign.resolve())
    campaign.load()
    _, models = last_ensemble(campaign)
    entry = parse(campaign.state.starts[-1]["config"], "the recorded configuration").glasses[0]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    kept = plain | md_environment(1)
    default = {name: value for name, value in kept.items() if not name.startswith("MALLOC_")}
    found: dict[str, list[dict[str, Any]]] = {"kept": [], "given_back": []}
    with tempfile.TemporaryDirectory() as place:
        start = Path(place) / "start.extxyz"
        atoms = len(teter_melt(start, entry.glass(), entry.n_atoms[0], seed=1))
        for repeat in range(options.repeats):
            ways = [("kept", kept), ("given_back", default)]
            for way, environment in ways if repeat % 2 else ways[::-1]:
                told = {"models": models, "start": str(start), "steps": options.steps}
                found[way].append(run(told | {"folder": f"{place}/{way}{repeat}"}, environment))
                print(f"{way}: {found[way][-1]['seconds']:.1f} s", flush=True)
    record = {way: summary(runs) for way, runs in found.items()}
    same = len({json.dumps(one["positions_A"]) for runs in found.values() for one in runs}) == 1
    about = {"commit": commit(), "atoms": atoms, "models": len(models), "steps": options.steps, "same_positions": same}
    ratio = record["kept"]["median_s"] / record["given_back"]["median_s"]
    write_json(RECORD, about | record | {"ratio": round(ratio, 3)})
    print(json.dumps(about | record | {"ratio": round(ratio, 3)}, indent=1))


if __name__ == "__main__":
    main()
