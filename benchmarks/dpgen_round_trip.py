"""Does a DP-GEN campaign come through alloop whole? Real programs, counted frame by frame.

    python benchmarks/dpgen_round_trip.py DIR --dpgen PATH/bin/dpgen [--json FILE]

In DIR: ``dpgen run`` (0.14) of the campaign of ``dpgen_campaign.py``, two iterations; ``alloop import-dpgen``;
``alloop run --iterations 1``; ``alloop export-dpgen``; ``dpgen run`` for one iteration more. After each step the
labelled frames are compared as sets: every number of every frame, bit for bit. Steps that are done already are not
repeated.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from dpgen_campaign import write_campaign

from alloop.campaign import Campaign
from alloop.store import read_json
from alloop.tasks.label import read_label

NEXT_TRUST_LOW_EV_A = 0.4
ARRAYS = ("box", "coord", "energy", "force", "virial")


def run(command: list[str], folder: Path, log: str, extra_path: Path | None = None) -> float:
    """Run a program in a folder, its output to a file there; return its seconds."""
    environment = dict(os.environ)
    if extra_path is not None:
        environment["PATH"] = f"{extra_path}{os.pathsep}{environment['PATH']}"
    began = time.monotonic()
    with (folder / log).open("a") as stream:
        done = subprocess.run(command, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    if done.returncode not in (0, 3):  # 3: alloop's "not converged"
        raise SystemExit(f"{' '.join(command)} ended with code {done.returncode}; see {folder / log}")
    return round(time.monotonic() - began, 1)


def frames_below(folder: Path) -> Counter[tuple[bytes, ...]]:
    """Return every labelled frame below a folder as its bytes: types, box, coordinates, energy, forces, virial."""
    found: Counter[tuple[bytes, ...]] = Counter()
    for place in sorted({file.parent for file in folder.rglob("type.raw")}):
        names = (place / "type_map.raw").read_text().split()
        types = " ".join(names[int(kind)] for kind in (place / "type.raw").read_text().split()).encode()
        for part in sorted(place.glob("set.*")):
            arrays = [np.load(part / f"{name}.npy").astype(np.float64) for name in ARRAYS]
            for index in range(len(arrays[0])):
                found[types, *(np.atleast_1d(array[index]).tobytes() for array in arrays)] += 1
    return found


def dpgen_frames(folder: Path) -> Counter[tuple[bytes, ...]]:
    """Return all labelled frames of a DP-GEN folder: initial data and every iteration's."""
    found = frames_below(folder / "init_data")
    for place in sorted(folder.glob("iter.??????/02.fp/data.*")):
        found += frames_below(place)
    return found


def label_frames(campaign: Campaign, type_map: list[str]) -> dict[str, tuple[np.ndarray, ...]]:
    """Return key -> (box, coordinates, energy, forces, virial) of every finished label, atoms in order of type."""
    found = {}
    for role in ("training", "held_out"):
        for key in campaign.state.labels(role):
            label = read_label(campaign.result(key))
            order = np.argsort([type_map.index(symbol) for symbol in label.atoms.symbols], kind="stable")
            found[key] = (
                label.atoms.cell.array.ravel(),
                label.atoms.positions[order].ravel(),
                np.array([label.energy_eV]),
                label.forces_eV_A[order].ravel(),
                label.virial_eV.ravel(),
            )
    return found


def compare_labels(labels: dict[str, tuple[np.ndarray, ...]], frames: Counter[tuple[bytes, ...]]) -> dict[str, Any]:
    """Compare alloop's labels with frames: all but the coordinates bit for bit, these up to whole cell vectors."""
    by_rest = {frame[1:2] + frame[3:]: frame for frame in frames}
    equal, worst_A = 0, 0.0
    for box, coord, energy, force, virial in labels.values():
        frame = by_rest.get((box.tobytes(), energy.tobytes(), force.tobytes(), virial.tobytes()))
        if frame is None:
            continue
        equal += 1
        cell = box.reshape(3, 3)
        shift = np.linalg.solve(cell.T, (coord - np.frombuffer(frame[2])).reshape(-1, 3).T).T
        worst_A = max(worst_A, float(np.abs((shift - shift.round()) @ cell).max()))
    return {"equal_but_for_whole_cell_vectors": equal, "largest_difference_of_a_coordinate_A": worst_A}


def same_files(one: Path, other: Path, pattern: str) -> dict[str, int]:
    """Compare the files of `one` that match with those of `other` byte for byte."""
    names = [file.relative_to(one) for file in sorted(one.glob(pattern)) if file.is_file()]
    same = sum((other / name).is_file() and filecmp.cmp(one / name, other / name, shallow=False) for name in names)
    return {"files": len(names), "byte_equal": same}


def byte_comparison(dpgen: Path, exported: Path, iterations: int) -> dict[str, Any]:
    """Compare what must come back byte for byte."""
    found: dict[str, Any] = {}
    for kind, pattern in {
        "candidate_lists": "02.fp/*.shuffled.*.out",
        "labelled_data": "02.fp/data.*/**/*",
        "cur_job": "01.model_devi/cur_job.json",
    }.items():
        total = Counter({"files": 0, "byte_equal": 0})
        for number in range(iterations):
            name = f"iter.{number:06d}"
            total.update(same_files(dpgen / name, exported / name, pattern))
        found[kind] = dict(total)
    found["initial_data"] = same_files(dpgen / "init_data", exported / "init_data", "**/*")
    ours, theirs = (exported / "record.dpgen").read_bytes(), (dpgen / "record.dpgen").read_bytes()
    found["record"] = {"begins_with_the_original": ours.startswith(theirs), "equal": ours == theirs}
    return found


def trained_on(folder: Path, iteration: int) -> Counter[tuple[bytes, ...]]:
    """Return the frames that DP-GEN's own input of an iteration names."""
    train = folder / f"iter.{iteration:06d}" / "00.train"
    systems = json.loads((train / "000" / "input.json").read_text())["training"]["training_data"]["systems"]
    found: Counter[tuple[bytes, ...]] = Counter()
    for system in systems:
        found += frames_below((train / "000" / system).resolve())
    return found


def step(folder: Path, command: list[str], log: str, seconds: dict[str, float], extra_path: Path | None = None) -> None:
    """Run a step unless it is marked as done in its folder."""
    mark = folder.with_name(f"{folder.name}.{log}.done")
    if not mark.exists():
        mark.write_text(str(run(command, folder, log, extra_path)))
    seconds[f"{folder.name}: {log.removesuffix('.out')}"] = float(mark.read_text())


def ask_for_more(param_file: Path) -> None:
    """Lower the trust level of the next exploration, so that better models, too, leave something to label."""
    param = json.loads(param_file.read_text())
    param["model_devi_jobs"][-1]["model_devi_f_trust_lo"] = NEXT_TRUST_LOW_EV_A
    param_file.write_text(json.dumps(param, indent=4) + "\n")


def measure(root: Path, dpgen: Path) -> dict[str, Any]:
    first, campaign, plain, back = root / "dpgen", root / "campaign", root / "not_run", root / "back"
    seconds: dict[str, float] = {}
    alloop = [sys.executable, "-m", "alloop"]
    if not first.exists():
        first.mkdir(parents=True)
        write_campaign(first)
    dpgen_run = [str(dpgen), "run", "param.json", "machine.json"]
    step(first, dpgen_run, "dpgen.out", seconds, dpgen.parent)

    for target in (campaign, plain):
        if not target.exists():
            command = [*alloop, "import-dpgen", str(first), "-C", str(target), "--labeler", "teter-rehearsal"]
            run(command, root, "import.out")
    step(campaign, [*alloop, "run", "--iterations", "1"], "alloop.out", seconds)
    for source, target in ((campaign, root / "exported"), (plain, root / "exported_not_run")):
        if not target.exists():
            run([*alloop, "export-dpgen", str(target), "-C", str(source)], root, "export.out")
    if not back.exists():
        shutil.copytree(root / "exported", back, symlinks=True)
        ask_for_more(back / "param.json")
    step(back, dpgen_run, "dpgen.out", seconds, dpgen.parent)
    software = {name: version(name) for name in ("deepmd-kit", "dpdata", "ase")}
    for name in ("dpgen", "dpdispatcher"):
        command = [
            str(dpgen.with_name("python")),
            "-c",
            f"from importlib.metadata import version as v; print(v('{name}'))",
        ]
        software[name] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return {"software": software, "seconds": seconds} | figures(root, first, campaign, back)


def figures(root: Path, first: Path, folder: Path, back: Path) -> dict[str, Any]:
    inventory = read_json(folder / "imported" / "dpgen.json")
    iterations = inventory["iterations"]
    campaign = Campaign(folder)
    campaign.load()
    type_map = json.loads((first / "param.json").read_text())["type_map"]
    original, imported = dpgen_frames(first), frames_below(folder / "imported" / "data")
    exported, continued = dpgen_frames(root / "exported"), dpgen_frames(back)
    labels = label_frames(campaign, type_map)
    given = {key: label for key, label in labels.items() if campaign.state.picks[key]["given"]}
    own = {key: label for key, label in labels.items() if key not in given}
    own_bytes = Counter(tuple(array.tobytes() for array in label) for label in own.values())
    new = exported - original
    again = continued - exported
    tasks = len(list((back / f"iter.{iterations + 1:06d}" / "02.fp").glob("task.*")))
    started = [
        read_json(file)["started_from"]
        for file in sorted((folder / "iterations" / "iter.000000" / "train").glob("*/result/summary.json"))
    ]
    drives = [
        filecmp.cmp(
            campaign.result(key) / "model-compressed.pb", back / f"iter.{iterations + 1:06d}/00.train/{graph}", False
        )
        for graph, key in zip(("graph.000.pb", "graph.001.pb"), campaign.state.models(1), strict=True)
    ]
    return {
        "dpgen": {"iterations": iterations, "frames": original.total()},
        "imported": {
            "frames": imported.total(),
            "bit_equal_to_dpgen": (imported & original).total(),
            "selection_of_each_iteration": [entry["systems"] for entry in inventory["per_iteration"]],
        },
        "in_alloop": {
            "imported_labels": len(given),
            **compare_labels(given, original),
            "own_labels": len(own),
            "first_ensemble_started_from": started,
            "explored_records": int(sum(campaign.state.decisions["select", 0]["classes"].values())),
        },
        "exported": {
            "frames": exported.total(),
            "bit_equal_to_dpgen": (exported & original).total(),
            "bit_equal_to_own_labels": (Counter(frame[1:] for frame in new.elements()) & own_bytes).total(),
        },
        "continued_by_dpgen": {
            "record_ends_with": (back / "record.dpgen").read_text().split("\n")[-2],
            "driven_by_alloops_models": drives,
            "frames": continued.total(),
            "exported_frames_still_there": (continued & exported).total(),
            "labelled_anew": again.total(),
            "labelling_tasks": tasks,
            "trained_on_in_next_iteration": (trained_on(back, iterations + 2) & continued).total(),
        },
        "byte_for_byte": byte_comparison(first, root / "exported", iterations),
        "byte_for_byte_without_a_run": byte_comparison(first, root / "exported_not_run", iterations),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where everything is run")
    parser.add_argument("--dpgen", type=Path, required=True, help="the dpgen program")
    parser.add_argument("--json", type=Path, help="write the record here")
    arguments = parser.parse_args()
    root: Path = arguments.directory.resolve()
    root.mkdir(parents=True, exist_ok=True)
    found = measure(root, arguments.dpgen.absolute())
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
