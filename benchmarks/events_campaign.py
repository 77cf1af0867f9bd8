"""Do events pay? Campaigns that begin without overlaps and five-coordinated silicon, with and without events and wall.

    python benchmarks/events_campaign.py FOLDER [--only with without wall] [--slots 2]

One glass, labelled by SHIK, whose melts hold both; the bootstrap, quenched by Teter from 1500 K, is asserted to hold
neither. The same campaign runs with the events of the default configuration (`with`), with quotas of zero and no labels
of last good frames (`without`), and with events and a short-range wall under the models (`wall`). Then three replicas
of 20 ps at 2000 K, each driven by another model of the last ensemble, are compared with three of the labeler's own,
from the same starts: overlaps, lost trajectories, and the time-averaged share of five-coordinated silicon with its
standard error between replicas. Everything that is done is kept in FOLDER and not done again; the summary goes to
benchmarks/results/events_campaign.json, where variants of another param.json are dropped. By estimate two hours on two
cores, 40 minutes a variant.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from alloop.campaign import Campaign
from alloop.frames import read_all_structures
from alloop.glass.composition import TABLE_1, Glass, stoichiometric_counts
from alloop.glass.events import PRESETS
from alloop.glass.force_field import teter_parameters
from alloop.glass.melt_quench import MeltQuench, melt_quench, read_dump, run_lammps, write_lammps_data
from alloop.glass.pair_potential import lammps_pair_commands, write_lammps_table
from alloop.glass.shik import shik_potential
from alloop.potential.environment import md_environment
from alloop.selection.events import Watch
from alloop.selection.rates import Replicas, compare_rates
from alloop.selection.record import plain
from alloop.store import read_json, write_json
from alloop.structure import from_record

RECORD = Path(__file__).resolve().parent / "results" / "events_campaign.json"
GLASS, ATOMS = "LBS-40-40-20", 76
TEMPERATURE_K, EQUILIBRATION_PS, SAMPLING_PS, EVERY_FS = 2000.0, 5.0, 20.0, 20.0
REPLICAS = 3
EVENTS = ("overlap", "five_coordinated_Si")

PARAM: dict[str, Any] = {
    "name": "events",
    "seed": 11,
    "glasses": [{"name": GLASS, "n_atoms": [ATOMS]}],
    "bootstrap": {
        "trajectories": 6,
        "melt_temperature_K": 1500,
        "melt_ps": 5.0,
        "quench_ps": 8.0,
        "snapshots": 7,
        "strained_copies": 0,
    },
    "train": {
        "models": 3,
        "cutoff_A": 5.0,
        "neuron": [10, 20],
        "axis_neuron": 6,
        "fitting_neuron": [48, 48, 48],
        "steps": 4000,
        "warm_steps": 4000,
        "learning_rate": 0.004,
        "warm_learning_rate": 0.002,
        "final_learning_rate": 0.0001,
    },
    "explore": {
        "temperatures_K": [600, 1300, 2000],
        "ramps": [{"from_K": 2500, "to_K": 300}],
        "trajectories": 2,
        "chunks": 2,
        "chunk_ps": 1.5,
    },
    "select": {"trust_low_eV_A": 0.25, "trust_high_eV_A": 4.0, "max_labels": 120, "max_per_trajectory": 24},
    "label": {"labeler": "shik-rehearsal", "per_process": 20},
    "stop": {"max_iterations": 3, "force_rmse_eV_A": 0.05},
}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "with": {},
    "without": {"select": {"events": {event: {"quota": 0} for event in EVENTS}, "before_loss": 0}},
    "wall": {"train": {"short_range": "zbl"}},
}

SHIK_INPUT = """
units           metal
atom_style      atomic
boundary        p p p
read_data       start.data
neighbor        1.0 bin
{pair_commands}
timestep        0.001
velocity        all create {temperature} {seed} mom yes dist gaussian
fix             md all nvt temp {temperature} {temperature} 0.1
run             {equilibration}
reset_timestep  0
dump            frames all custom {every} frames.dump id element x y z
dump_modify     frames sort id element {elements} format float %.10f
run             {steps}
"""


def param_of(variant: str) -> dict[str, Any]:
    """Return a variant's param.json, without its pools."""
    changes = VARIANTS[variant]
    return {key: value | changes.get(key, {}) if isinstance(value, dict) else value for key, value in PARAM.items()}


def digest(value: Any) -> str:
    """Return a short hash of what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def commit() -> str:
    """Return the commit of this file's repository, marked if there are changes."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def run_campaign(folder: Path, variant: str, slots: int) -> list[dict[str, Any]]:
    """Run a variant's campaign to its end, its starting data checked on the way; return commit and time of each run.

    SystemExit if the folder holds a campaign of another param.json, the starting data show events, or the run fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    param, file, log = param_of(variant), folder / "param.json", folder / "benchmark.json"
    if file.exists() and {key: value for key, value in read_json(file).items() if key != "pools"} != param:
        raise SystemExit(f"{folder} holds a campaign of another param.json; give a new FOLDER")
    write_json(file, param | {"pools": {"local": {"slots": slots}}})
    runs = list(read_json(log)["runs"]) if log.exists() else []
    began, at = time.monotonic(), commit()
    driver = subprocess.Popen([sys.executable, "-m", "alloop", "run", "-C", str(folder)])
    try:
        checked = False
        while driver.poll() is None:
            checked = checked or check_bootstrap(Campaign(folder)) is not None
            time.sleep(0.5 if checked else 5)
    finally:
        if driver.poll() is None:
            driver.send_signal(signal.SIGINT)
            driver.wait()
        runs.append({"commit": at, "seconds": round(time.monotonic() - began, 1)})
        write_json(log, {"runs": runs})
    if driver.returncode not in (0, 3):
        raise SystemExit(f"the campaign {variant} ended with exit code {driver.returncode}; see {folder}")
    return runs


def seen_in(frames: list[Atoms]) -> dict[str, Any]:
    """Return of a replica's frames: the share of five-coordinated Si, frames with overlaps, and why it was lost."""
    watch = Watch({event: PRESETS[event] for event in EVENTS})
    silicon = sum(symbol == "Si" for symbol in frames[0].get_chemical_symbols())
    found = [watch.look(atoms) for atoms in frames]
    return {
        "frames": len(frames),
        "share_5Si": float(np.mean([len(one.offending["five_coordinated_Si"]) for one in found]) / silicon),
        "overlap_frames": sum(one.seen("overlap") for one in found),
        "lost": next((one.lost_reason for one in found if one.lost_reason), None),
    }


def check_bootstrap(campaign: Campaign) -> dict[str, Any] | None:
    """Return how many starting frames there are, None until all are made; SystemExit if one shows an event."""
    state = campaign.load()
    keys = [entry["key"] for entry in state.decisions.get(("bootstrap", -1), {"tasks": []})["tasks"]]
    if not keys or not all(key in state.done for key in keys):
        return None
    watch, seen, count = Watch({event: PRESETS[event] for event in EVENTS}), Counter[str](), 0
    for key in keys:
        for record in read_all_structures(campaign.result(key)):
            found, count = watch.look(from_record(record)), count + 1
            seen.update(event for event in EVENTS if found.seen(event))
    if seen:
        raise SystemExit(f"the starting data show events: {dict(seen)}; nothing could be learned from a comparison")
    return {"frames": count, "with_events": 0}


def starts(folder: Path) -> list[Atoms]:
    """Return one start per replica, melts of Teter's force field at the temperature of the comparison."""
    return [
        teter_melt(folder / f"start{replica}.extxyz", TABLE_1[GLASS], ATOMS, 70 + replica)
        for replica in range(REPLICAS)
    ]


def teter_melt(file: Path, glass: Glass, atoms: int, seed: int) -> Atoms:
    """Return a melt of Teter's force field at the temperature of the comparison, made once and kept in a file."""
    if not file.exists():
        schedule = MeltQuench(TEMPERATURE_K + 100, TEMPERATURE_K, melt_ps=5.0, n_snapshots=2)
        frames = melt_quench(
            glass,
            stoichiometric_counts(glass, atoms),
            schedule,
            seed=seed,
            directory=file.with_suffix(""),
            potential=teter_parameters(glass),
        )
        ase.io.write(file, frames[-1].atoms, format="extxyz")
    return ase.io.read(file)


def labeler_replica(folder: Path, start: Atoms, seed: int) -> dict[str, Any]:
    """Return what the labeler's own dynamics shows, run with LAMMPS and its table."""
    file = folder / "seen.json"
    if file.exists():
        return dict(read_json(file))
    folder.mkdir(parents=True, exist_ok=True)
    counts = Counter(start.get_chemical_symbols())
    types = {element: number for number, element in enumerate(sorted(counts), start=1)}
    potential = shik_potential(counts)
    write_lammps_data(folder / "start.data", start, types)
    write_lammps_table(folder / "pair.table", potential, counts)
    every = round(EVERY_FS)
    text = SHIK_INPUT.format(
        pair_commands=lammps_pair_commands(types, "pair.table", potential.cutoff_A),
        temperature=TEMPERATURE_K,
        seed=seed,
        equilibration=round(1000 * EQUILIBRATION_PS),
        steps=round(1000 * SAMPLING_PS),
        every=every,
        elements=" ".join(types),
    )
    (folder / "md.in").write_text(text)
    run_lammps(folder, "md.in")
    found = seen_in([atoms for _, atoms in read_dump(folder / "frames.dump")])
    write_json(file, found)
    (folder / "frames.dump").unlink()
    return found


def check_labeler(replicas: list[dict[str, Any]]) -> None:
    """SystemExit unless the labeler's own replicas lived and show five-coordinated silicon."""
    if lost := [f"replica {n}: {one['lost']}" for n, one in enumerate(replicas) if one["lost"]]:
        raise SystemExit(f"the labeler's own dynamics was lost ({'; '.join(lost)}); models cannot be measured by it")
    if not np.mean([one["share_5Si"] for one in replicas]) > 0:
        raise SystemExit("the labeler's own dynamics shows no five-coordinated Si; events would have nothing to find")


def model_replica(folder: Path, models: list[str], start: Path, seed: int) -> dict[str, Any]:
    """Return what dynamics driven by the first of the models shows; it runs in a process of its own."""
    file = folder / "seen.json"
    if not file.exists():
        subprocess.run(drive_command(folder, models, start, seed), env=os.environ | md_environment(1), check=True)
    return dict(read_json(file))


def drive_command(folder: Path, models: list[str], start: Path, seed: int) -> list[str]:
    """Return the command that runs `drive` in a process of its own; it leaves ``seen.json`` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    told = json.dumps({"models": models, "start": str(start), "seed": seed, "folder": str(folder)})
    return [sys.executable, str(Path(__file__).resolve()), "--md", told]


def drive(told: dict[str, Any]) -> None:
    """Run dynamics with the first model until the end or until it is lost, and write what was seen."""
    from alloop.potential.engines import ENGINES, MdCondition, TrajectoryLost

    every = round(EVERY_FS)
    skipped, steps = (round(1000 * ps) for ps in (EQUILIBRATION_PS, SAMPLING_PS))
    condition = MdCondition("nvt", TEMPERATURE_K, TEMPERATURE_K, skipped + steps)
    start, folder = ase.io.read(told["start"]), Path(told["folder"])
    watch = Watch({event: PRESETS[event] for event in EVENTS})
    frames: list[Atoms] = []
    deviations: list[float] = []
    lost = None
    models = [Path(model) for model in told["models"]]
    engine = ENGINES["lammps"](
        models, start, condition, seed=told["seed"], directory=folder / "md", deviation_every=every
    )
    try:
        for step in range(every, skipped + steps + 1, every):
            engine.advance(every)
            state = engine.state()
            if lost := watch.look(state.atoms).lost_reason:
                lost = f"{lost} after {step / 1000:g} ps"
                frames.append(state.atoms)
                break
            if step > skipped:
                frames.append(state.atoms)
                deviations.append(float(state.force_deviation_eV_A.max()))
    except TrajectoryLost as error:
        lost = f"{error} after {step / 1000:g} ps"
    found = seen_in(frames) if frames else {"frames": 0, "share_5Si": float("nan"), "overlap_frames": 0}
    largest = {"median_max_deviation_eV_A": float(np.median(deviations))} if deviations else {}
    write_json(folder / "seen.json", plain(found | largest | {"lost": lost}))


def compared(models: list[dict[str, Any]], labeler: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the comparison of the shares of five-coordinated silicon over replicas that lived, and how many did not.

    What holds of the others says nothing of those that are `left_out`.
    """
    lived = [[one for one in replicas if one["frames"] > 1 and not one["lost"]] for replicas in (models, labeler)]
    rates = [Replicas(tuple(one["share_5Si"] for one in replicas), "of Si") for replicas in lived]
    left_out = {"left_out": len(models) - len(lived[0]), "labeler_left_out": len(labeler) - len(lived[1])}
    return plain(asdict(compare_rates("five_coordinated_Si", *rates))) | left_out  # type: ignore[no-any-return]


def no_overlap(models: list[dict[str, Any]], labeler: list[dict[str, Any]]) -> dict[str, Any]:
    """Return whether no replica was lost and none shows an overlap in any frame (`none_at_all`).

    `no_more_than_labeler`: the same with as many frames with overlaps allowed as the labeler's worst replica has.
    """
    lost = sum(bool(one["lost"]) for one in models)
    frames = [[one["overlap_frames"] for one in replicas] for replicas in (models, labeler)]
    return {
        "none_at_all": not lost and max(frames[0]) == 0,
        "no_more_than_labeler": not lost and max(frames[0]) <= max(frames[1]),
        "lost_replicas": lost,
        "replicas": len(models),
        "overlap_frames": frames[0],
        "labeler_overlap_frames": frames[1],
    }


def last_ensemble(campaign: Campaign) -> tuple[list[str], list[str]]:
    """Return the keys and the files of the models of a loaded campaign's last ensemble."""
    state = campaign.state
    keys = state.models(max(number for kind, number in state.decisions if kind == "train"))
    results = [campaign.result(key) for key in keys]
    return keys, [str(result / read_json(result / "summary.json")["model"]) for result in results]


def driven(folder: Path, variant: str, campaign: Campaign, slots: int) -> list[dict[str, Any]]:
    """Return what dynamics with the last ensemble shows, a replica per slot at a time, kept by the models' keys."""
    keys, files = last_ensemble(campaign)

    def drive_one(replica: int) -> dict[str, Any]:
        first = replica % len(files)
        place = folder / f"md-{variant}-{digest([keys, TEMPERATURE_K, EQUILIBRATION_PS, SAMPLING_PS])}-{replica}"
        own = files[first:] + files[:first]
        return model_replica(place, own, folder / f"start{replica}.extxyz", 500 + replica)

    with ThreadPoolExecutor(slots) as pool:
        return list(pool.map(drive_one, range(REPLICAS)))


def measure(folder: Path, variant: str, labeler: list[dict[str, Any]], slots: int) -> dict[str, Any]:
    """Return everything about one variant's finished campaign."""
    campaign = Campaign(folder / variant)
    bootstrap = check_bootstrap(campaign)
    state = campaign.state
    replicas = driven(folder, variant, campaign, slots)
    reasons = Counter(pick["reason"] for picks in state.picks_in.values() for pick in picks)
    seen = [
        {event: entry["seen"] for event, entry in state.decisions["select", number]["events"].items()}
        for kind, number in sorted(state.decisions)
        if kind == "select"
    ]
    verdicts = [decision["errors"] for (kind, _), decision in sorted(state.decisions.items()) if kind == "verdict"]
    return {
        "bootstrap": bootstrap,
        "labels_by_reason": dict(reasons),
        "event_frames_per_iteration": seen,
        "held_out_force_rmse_eV_A": [own["held_out_explore"]["force_rmse_eV_A"] for own in verdicts],
        "replicas": replicas,
        "no_overlap": no_overlap(replicas, labeler),
        "five_coordinated_Si": compared(replicas, labeler),
    }


def kept_record(file: Path, labeler: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the record so far, without variants of another param.json than today's."""
    before = dict(read_json(file)) if file.exists() else {}
    own = {v: before[v] for v in VARIANTS if v in before and before[v].get("param_hash") == digest(param_of(v))}
    about = {"glass": GLASS, "atoms": ATOMS, "temperature_K": TEMPERATURE_K}
    return about | {"commit": commit(), "labeler": labeler} | own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--only", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--md", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.md:
        drive(json.loads(arguments.md))
        return
    if arguments.folder is None:
        parser.error("a FOLDER is needed")
    folder = arguments.folder.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the driver is stopped, too
    folder.mkdir(parents=True, exist_ok=True)
    begun = starts(folder)
    with ThreadPoolExecutor(arguments.slots) as pool:
        labeler = list(
            pool.map(lambda n: labeler_replica(folder / f"md-labeler-{n}", begun[n], 900 + n), range(REPLICAS))
        )
    check_labeler(labeler)
    print(json.dumps({"labeler": labeler}, indent=1), flush=True)
    record = kept_record(arguments.record, labeler)
    for variant in arguments.only:
        runs = run_campaign(folder / variant, variant, arguments.slots)
        took = {"campaign_s": round(sum(run["seconds"] for run in runs)), "runs": runs}
        record[variant] = (
            {"param_hash": digest(param_of(variant))} | measure(folder, variant, labeler, arguments.slots) | took
        )
        write_json(arguments.record, record)
        print(json.dumps({variant: record[variant]}, indent=1), flush=True)


if __name__ == "__main__":
    main()
