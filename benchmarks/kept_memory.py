"""What does it bring that processes keep freed memory? Labels and exploration with and without, in turn, in one run.

    python benchmarks/kept_memory.py CAMPAIGN [--labels 10] [--steps 500] [--repeats 3]

CAMPAIGN is any whose first ensemble is trained, such as the project's folder after `alloop run`. From a melt of its
first glass SevenNet-0 labels rattled copies, and LAMMPS runs with the last ensemble and is looked at for the default
events every ten steps, as in exploration; once with the environment that `md_environment` gives, once without its
variables of glibc's memory; the order changes with every repeat. The times, the page faults per label or step and
whether both end at the same numbers go to benchmarks/results/kept_memory.json. About five minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
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
LABELER, WARM_UP_LABELS, RATTLE_A = "sevennet-0", 3, 0.05


def explore(told: dict[str, Any]) -> dict[str, Any]:
    """Run dynamics and return its time, page faults and last positions."""
    from alloop.potential.engines import ENGINES, MdCondition

    condition = MdCondition("nvt", TEMPERATURE_K, TEMPERATURE_K, WARM_UP + told["count"])
    models, start, folder = [Path(model) for model in told["models"]], ase.io.read(told["start"]), Path(told["folder"])
    engine = ENGINES["lammps"](models, start, condition, seed=1, directory=folder / "md", deviation_every=RECORD_EVERY)
    watch = Watch({event: PRESETS[event] for event in ON_BY_DEFAULT})
    engine.advance(WARM_UP)

    def work() -> Any:
        for _ in range(told["count"] // RECORD_EVERY):
            engine.advance(RECORD_EVERY)
            watch.look(engine.state().atoms)
        return engine.state().atoms.positions.tolist()

    return measured(work, told["count"])


def label(told: dict[str, Any]) -> dict[str, Any]:
    """Label copies of the start and return the time, page faults and energies."""
    from alloop import labelers

    labeler, start = labelers.load(LABELER, {}), ase.io.read(told["start"])

    def energies(first: int, count: int) -> list[float]:
        found = []
        for seed in range(first, first + count):
            atoms = start.copy()
            atoms.rattle(RATTLE_A, seed=seed)
            found.append(labeler.label(atoms).energy_eV)
        return found

    energies(0, WARM_UP_LABELS)
    return measured(lambda: energies(WARM_UP_LABELS, told["count"]), told["count"])


KINDS = {"labels": label, "exploration": explore}


def measured(work: Callable[[], Any], count: int) -> dict[str, Any]:
    """Return what work comes to, its seconds, and page faults of the process in each of so many parts of it."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    outcome = work()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return {"seconds": time.perf_counter() - began, "page_faults_each": faults / count, "outcome": outcome}


# ---------------------------------------------------------------------------------------- both ways, in turn


def run(told: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """Do one piece of work in a process of its own and return what it found."""
    folder = Path(told["folder"])
    folder.mkdir()
    subprocess.run([sys.executable, __file__, "--told", json.dumps(told)], env=environment, check=True)
    return dict(json.loads((folder / "found.json").read_text()))


def compared(told: dict[str, Any], place: Path, repeats: int) -> dict[str, Any]:
    """Return the summary of one kind of work with freed memory kept and given back, and the ratio of their medians."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    kept = plain | md_environment(1)
    ways = {"kept": kept, "given_back": {name: value for name, value in kept.items() if not name.startswith("MALLOC_")}}
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for repeat in range(repeats):
        for way in sorted(ways, reverse=repeat % 2 == 1):
            runs[way].append(run(told | {"folder": str(place / f"{told['kind']}-{way}-{repeat}")}, ways[way]))
            print(f"{told['kind']}, {way}: {runs[way][-1]['seconds']:.1f} s", flush=True)
    record: dict[str, Any] = {way: summary(found) for way, found in runs.items()}
    same = len({json.dumps(one["outcome"]) for found in runs.values() for one in found}) == 1
    ratio = record["kept"]["median_s"] / record["given_back"]["median_s"]
    return {"count": told["count"], "same_numbers": same, "ratio": round(ratio, 3)} | record


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the times of some runs, their median, and the page faults."""
    seconds = [round(one["seconds"], 2) for one in runs]
    faults = statistics.median(one["page_faults_each"] for one in runs)
    return {"seconds": seconds, "median_s": statistics.median(seconds), "page_faults_each": round(faults, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", type=Path, nargs="?")
    parser.add_argument("--labels", type=int, default=10)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--told", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.told:
        told = json.loads(options.told)
        Path(told["folder"], "found.json").write_text(json.dumps(KINDS[told["kind"]](told)))
        return
    if options.campaign is None:
        parser.error("a CAMPAIGN is needed")
    campaign = Campaign(options.campaign.resolve())
    campaign.load()
    _, models = last_ensemble(campaign)
    entry = parse(campaign.state.starts[-1]["config"], "the recorded configuration").glasses[0]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        atoms = len(teter_melt(place / "start.extxyz", entry.glass(), entry.n_atoms[0], seed=1))
        plain = {"models": models, "start": str(place / "start.extxyz")}
        record = {"commit": commit(), "atoms": atoms, "models": len(models), "labeler": LABELER} | {
            kind: compared(plain | {"kind": kind, "count": count}, place, options.repeats)
            for kind, count in (("labels", options.labels), ("exploration", options.steps))
        }
    write_json(RECORD, record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
