"""The whole way with the embedded labeler, from an empty folder to four glasses beside experiment.

    python benchmarks/glasses.py FOLDER [--only campaign quench melt report] [--slots 2] [--record FILE]

Pieces, each of which is left out if its result is there: `campaign`, labels by SevenNet-0 on four glasses of Table 1
with 20 to 60 % Li2O, 102 to 140 atoms, at most three iterations; `quench`, three replicas of the protocol `short` per
glass with the last ensemble, converged or not, the minimum of each by its models (its last frame where that did not
converge) then relaxed at fixed cell by the labeler;
`melt`, 20 ps at 2000 K per glass (after 5 ps that only count if the run is lost in them), driven by the first model of
that ensemble; `report`, one table, and benchmarks/results/glasses.json. An interrupted piece goes on where it was with
the same command. By estimate on two cores: campaign 50 minutes, quench 35 and relaxing 20, melts 10.

The quenches cool at 100 K/ps, which is 10^14 K/s: no laboratory comes near, and 4B is known to rise as cooling slows.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from checkout import commit
from events_campaign import (
    EQUILIBRATION_PS,
    SAMPLING_PS,
    TEMPERATURE_K,
    digest,
    drive_command,
    last_ensemble,
    teter_melt,
)
from glasses_record import (
    PEAKS_BELOW_A,
    first_peak_A,
    glasses_table,
    interval,
    intervals,
    lines,
    relaxed_numbers,
    run_numbers,
)
from rich.console import Console

from alloop.campaign import Campaign
from alloop.frames import read_columns, read_structures
from alloop.glass.composition import TABLE_1, stoichiometric_counts
from alloop.glass.correlation import radial_distribution
from alloop.potential.environment import md_environment
from alloop.report.status import build_status, glass_table
from alloop.state import quench_runs
from alloop.store import read_json, write_json
from alloop.structure import from_record

RECORD = Path(__file__).resolve().parent / "results" / "glasses.json"
GLASSES = {"LBS-20-60-20": 105, "LBS-30-30-40": 108, "LBS-40-20-40": 102, "LBS-15-25-60": 140}
"""Names of Table 1 (SiO2, B2O3, Li2O in %), and atoms of the cell: whole units of the composition."""
RELAX = {"force_eV_A": 0.05, "steps": 500}
BIN_A = 0.02

PARAM: dict[str, Any] = {
    "name": "glasses",
    "seed": 2022,
    "glasses": [{"name": name, "n_atoms": [atoms]} for name, atoms in GLASSES.items()],
    "bootstrap": {"trajectories": 3, "melt_ps": 5.0, "quench_ps": 10.0, "snapshots": 8, "strained_copies": 2},
    "train": {
        "models": 3,
        "cutoff_A": 5.0,
        "neuron": [10, 20, 40],
        "axis_neuron": 8,
        "fitting_neuron": [64, 64, 64],
        "after_labels": 80,
        "steps": 3000,
        "warm_steps": 1500,
        "learning_rate": 0.004,
        "warm_learning_rate": 0.002,
        "final_learning_rate": 0.0001,
    },
    "explore": {
        "temperatures_K": [300, 1200, 2000, 3000],
        "ramps": [{"from_K": 2500, "to_K": 300}],
        "trajectories": 1,
        "chunks": 1,
        "chunk_ps": 2.0,
        "frames_per_chunk": 24,
    },
    "select": {
        "trust_low_eV_A": 0.3,
        "trust_high_eV_A": 4.0,
        "max_labels": 120,
        "max_per_trajectory": 12,
        "events": {"overlap": {"quota": 4}, "five_coordinated_Si": {"quota": 4}},
        "held_out_fraction": 0.2,
    },
    "label": {"labeler": "sevennet-0"},
    "stop": {"max_iterations": 3, "accurate_fraction": 0.95, "force_rmse_eV_A": 0.25},
}
QUENCH = {
    "when": "always",
    "protocol": "short",
    "replicas": 3,
    "chunk_ps": 5.0,
    "frame_every_ps": 0.1,
    "relax": RELAX,
}


# ---------------------------------------------------------------------------------------- processes


def run_alloop(folder: Path) -> int:
    """Run the campaign of a folder and return the exit code of the driver.

    It is told of an interruption once for each time: what runs may end after the first, and is ended at the second.
    """
    driver = subprocess.Popen([sys.executable, "-m", "alloop", "run", "-C", str(folder)], start_new_session=True)
    interrupted = False
    while True:
        try:
            code = driver.wait()
            break
        except KeyboardInterrupt:
            interrupted = True
            driver.send_signal(signal.SIGINT)
    if interrupted:
        raise KeyboardInterrupt
    return code


def run_commands(commands: list[list[str]], slots: int) -> list[int]:
    """Run commands, so many at once with one thread each, and return their codes; an interruption ends them."""
    running: set[subprocess.Popen[bytes]] = set()

    def run(command: list[str]) -> int:
        with subprocess.Popen(command, env=os.environ | md_environment(1)) as process:
            running.add(process)
            code = process.wait()
            running.discard(process)
            return code

    with ThreadPoolExecutor(slots) as pool:
        try:
            return list(pool.map(run, commands))
        except BaseException:
            for process in list(running):
                process.terminate()
            raise


# ---------------------------------------------------------------------------------------- campaign and quench


def loaded(folder: Path) -> Campaign:
    """Return the campaign as it is on disk."""
    campaign = Campaign(folder / "campaign")
    campaign.load()
    return campaign


def write_param(folder: Path, slots: int, *, quench: bool) -> None:
    """Write ``param.json``, with the quench if it is its turn; SystemExit if there is one of another campaign."""
    file = folder / "campaign" / "param.json"
    known = {key: value for key, value in read_json(file).items() if key != "pools"} if file.exists() else {}
    if known not in ({}, PARAM, PARAM | {"quench": QUENCH}):
        raise SystemExit(f"{file} is of another campaign than this script's; give a new FOLDER")
    wanted = PARAM | {"quench": QUENCH} if quench or "quench" in known else PARAM
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, wanted | {"pools": {"local": {"slots": slots}}})


def explored(folder: Path) -> bool:
    """Tell whether the campaign has come to its end, all its ensembles measured on one set."""
    state = loaded(folder).state
    return state.decided("assess", state.iteration) and not state.open("assess", state.iteration)


def quench_decision(campaign: Campaign) -> dict[str, Any] | None:
    """Return the decision that asks for the quench with the last ensemble, None if there is none yet."""
    decision = campaign.state.decisions.get(("quench", campaign.state.iteration))
    return decision if decision and decision["tasks"] else None


def quenched(folder: Path) -> bool:
    """Tell whether all quenches have ended, well or lost, and what they made was relaxed."""
    state = (campaign := loaded(folder)).state
    relaxed = state.decided("relax_glass", state.iteration) and not state.open("relax_glass", state.iteration)
    return quench_decision(campaign) is not None and relaxed


def explore(folder: Path, slots: int) -> None:
    """Run the campaign without its quench."""
    write_param(folder, slots, quench=False)
    code = run_alloop(folder / "campaign")
    if code not in (0, 3) or not explored(folder):
        raise SystemExit(f"the campaign ended with exit code {code} and is not finished; see {folder / 'campaign'}")


def quench(folder: Path, slots: int) -> None:
    """Run the quench of the finished campaign."""
    write_param(folder, slots, quench=True)
    code = run_alloop(folder / "campaign")
    if code not in (0, 3) or not quenched(folder):
        raise SystemExit(f"the quench ended with exit code {code} and is not finished; see {folder / 'campaign'}")


# ---------------------------------------------------------------------------------------- melts at 2000 K


def melt_folder(folder: Path, glass: str, models: list[str]) -> Path:
    """Return the folder of a glass's run at 2000 K with these models (keys)."""
    return folder / f"melt-{glass}-{digest([models, TEMPERATURE_K, EQUILIBRATION_PS, SAMPLING_PS])}"


def melts_left(folder: Path) -> list[str]:
    """Return the glasses whose run at 2000 K is still to be done."""
    models, _ = last_ensemble(loaded(folder))
    return [glass for glass in GLASSES if not (melt_folder(folder, glass, models) / "seen.json").exists()]


def melt(folder: Path, slots: int) -> None:
    """Run every glass at 2000 K from a melt of Teter's force field."""
    models, files = last_ensemble(loaded(folder))
    commands = []
    for number, (glass, atoms) in enumerate(GLASSES.items()):
        place, start = melt_folder(folder, glass, models), folder / f"start-{glass}.extxyz"
        if not (place / "seen.json").exists():
            teter_melt(start, TABLE_1[glass], atoms, 170 + number)
            commands.append(drive_command(place, files, start, 700 + number))
    codes = run_commands(commands, slots)
    if left := melts_left(folder):
        raise SystemExit(f"no run at 2000 K of {', '.join(left)}: exit codes {codes}; see {folder}/melt-*")


# ---------------------------------------------------------------------------------------- report


def peaks(campaign: Campaign, run: dict[str, Any]) -> dict[str, float | None]:
    """Return the first peaks of g(r) over the analysed frames of a quench, by pair; None for those not found."""
    frames: list[Atoms] = []
    for entry in run["analysed"]:
        if entry["key"] not in campaign.state.done:
            continue
        result = campaign.result(entry["key"])
        late = np.flatnonzero(read_columns(result)["step"] > entry["spec"]["analyse_from_step"])
        frames += [from_record(record) for record in read_structures(result, late.tolist())]
    if not frames:
        return dict.fromkeys(PEAKS_BELOW_A)
    found = radial_distribution(frames, r_max_A=4.0, bin_width_A=BIN_A)
    return {pair: first_peak_A(found.r_A, found.partial[pair], below) for pair, below in PEAKS_BELOW_A.items()}


def glass_record(folder: Path, campaign: Campaign, glass: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return all numbers of one glass; what is not there yet is empty or None. rows: those of `glass_table`."""
    counts = stoichiometric_counts(TABLE_1[glass], GLASSES[glass])
    own = [row for row in rows if row["glass"] == glass]
    whole = [row for row in own if row["status"] == "done"]
    names = {row["run"] for row in whole}
    runs = [run for run in quench_runs(quench_decision(campaign)) if run["name"] in names]
    state = campaign.state
    relaxing = state.decisions.get(("relax_glass", state.iteration), {"tasks": []})["tasks"]
    tasks = [entry for entry in relaxing if entry["spec"]["glass"] == glass]
    done = [entry["key"] for entry in tasks if entry["key"] in state.done]
    refused = {own["name"]: state.quarantined[own["key"]] for own in tasks if own["key"] in state.quarantined}
    models = last_ensemble(campaign)[0]
    seen = melt_folder(folder, glass, models) / "seen.json"
    found_peaks = [peaks(campaign, run) for run in runs]
    relaxed = [read_json(campaign.result(key) / "relaxed.json") for key in done]
    return {
        "atoms": sum(counts.values()),
        "boron": counts["B"],
        "silicon": counts["Si"],
        "experimental_4B": TABLE_1[glass].experimental_4B,
        "quenches": len(own),
        "quenches_lost": [row["lost_reason"] or row["status"] for row in own if row["status"] != "done"],
        "at_300K": intervals([run_numbers(row, counts["B"]) for row in whole]),
        "4B_at_minimum_of_model": interval([row["fraction_4B_at_minimum"] for row in whole]),
        "max_force_deviation_eV_A": [row["max_force_deviation_eV_A"] for row in own],
        "records_above_trust_high": [row["records_above_trust_high"] for row in own],
        "first_peaks_A": {pair: interval([one[pair] for one in found_peaks]) for pair in PEAKS_BELOW_A},
        "to_relax": len(tasks),
        "not_relaxed": [f"{name}: {own['message']}" for name, own in refused.items()],
        "relaxing": relaxed_numbers(relaxed, counts["B"]),
        "melt": read_json(seen) if seen.exists() else None,
    }


def campaign_record(campaign: Campaign) -> dict[str, Any]:
    """Return how the campaign ended, its labels, and the errors of every ensemble on the final held-out sets."""
    status = build_status(campaign, "none")
    return {
        "param_hash": digest(PARAM),
        "labeler": status["level"],
        "converged": status["converged"],
        "reason": status["reason"],
        "labels": status["labels"],
        "held_out": [{"ensemble": row["iteration"]} | row for row in status["final_held_out"]],
        "quarantined": status["quarantined"],
        "core_hours": status["cost"]["core_hours"],
    }


def report(folder: Path, file: Path, console: Console) -> None:
    """Write the record of all that is there, and print it."""
    if not (folder / "campaign" / "param.json").exists() or not explored(folder):
        raise SystemExit("there is nothing to report before the campaign has ended; run without --only")
    campaign = loaded(folder)
    rows = [row for row in glass_table(campaign) if row["glass"] in GLASSES]
    spent = read_json(folder / "pieces.json") if (folder / "pieces.json").exists() else {}
    record = {
        "commit": commit(),
        "cores": os.cpu_count(),
        "campaign": campaign_record(campaign),
        "glasses": {glass: glass_record(folder, campaign, glass, rows) for glass in GLASSES},
        "melt": {"temperature_K": TEMPERATURE_K, "equilibration_ps": EQUILIBRATION_PS, "sampling_ps": SAMPLING_PS},
        "relax": RELAX,
        "seconds": {piece: round(sum(run["seconds"] for run in runs), 1) for piece, runs in spent.items()},
        "runs": spent,
        "missing": [name for name, piece in PIECES.items() if not piece.done(folder)],
    }
    write_json(file, record)
    console.print(glasses_table(record))
    for line in lines(record):
        console.print(line, markup=False, highlight=False)


# ---------------------------------------------------------------------------------------- pieces


@dataclass(frozen=True)
class Piece:
    """A piece of the whole: what it needs, whether it is done, and what does it with so many slots."""

    needs: str | None
    done: Callable[[Path], bool]
    do: Callable[[Path, int], None]


PIECES = {
    "campaign": Piece(None, explored, explore),
    "quench": Piece("campaign", quenched, quench),
    "melt": Piece("campaign", lambda folder: explored(folder) and not melts_left(folder), melt),
}


def do_piece(folder: Path, name: str, slots: int) -> None:
    """Do a piece unless it is done, and note in ``pieces.json`` how long it took, finished or not."""
    piece, log = PIECES[name], folder / "pieces.json"
    if piece.done(folder):
        print(f"{name}: done before", flush=True)
        return
    if piece.needs and not PIECES[piece.needs].done(folder):
        raise SystemExit(f"{name} needs the piece {piece.needs} first; run without --only")
    print(f"{name} ...", flush=True)
    began, at, finished = time.monotonic(), commit(), False
    try:
        piece.do(folder, slots)
        finished = True
    finally:
        spent = read_json(log) if log.exists() else {}
        run = {"commit": at, "seconds": round(time.monotonic() - began, 1), "slots": slots, "finished": finished}
        write_json(log, spent | {name: [*spent.get(name, []), run]})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    choices = (*PIECES, "report")
    parser.add_argument("--only", nargs="+", choices=choices, default=choices)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--record", type=Path, default=RECORD)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for name in PIECES:
            if name in arguments.only:
                do_piece(folder, name, arguments.slots)
        if "report" in arguments.only:
            report(folder, arguments.record, Console(width=None if sys.stdout.isatty() else 140))
    except KeyboardInterrupt:
        print("interrupted; nothing finished is lost, the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
