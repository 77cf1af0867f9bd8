"""The real workload of ``dpgen_loop.py``: two glasses, a force field that labels, small networks, to an equal error.

Both tools begin with the same labelled data and network, and explore, label and train as often, on two slots of one
thread: per iteration 2 models, 4 MD runs, at most 20 labels. Every ensemble but the first goes on from the one before,
with as many steps (DP-GEN: training_reuse_iter); dpgen-scratch trains every ensemble from scratch, as DP-GEN does
unless told otherwise. After a run one script measures every ensemble on one set of labels that no run has seen; its
time is when its last model was there. Compared is the time to the force error that both tools have reached.

The slot-seconds of a run are told apart, from its own logs: training steps and what the programs that train need
besides (starting, reading, freezing); MD; labels; and idle slots, those of DP-GEN apart that waited for its next look
at a stage that had ended. CPU seconds are those of all programs, to the end of the run.

Found (``results/dpgen_loop_real.json``; three runs of each, interleaved, DP-GEN with a 1 s poll, on a machine half as
fast as at times before): to the same error alloop takes 0.80 of DP-GEN's time (medians 363 and 454 s), for the whole
run 0.77 (363 and 474 s) and 0.77 of its CPU seconds, with as many training steps and labels. Of the 213 slot-seconds
between whole runs (means) DP-GEN spends 134 more on starting MD runs (12 programs for alloop's 6), 101 on starting,
freezing and ending trainings (16 programs for 8), 55 on starting label programs (60 for 6 to 9), 11 on waiting for its
poll; alloop spends 30 on measuring errors and describing environments, 44 more on idle slots and 13 on training steps:
its stages overlap, but with two models on two slots little is left to overlap with. After the last of three iterations
its ensembles have a somewhat larger error (0.41 for 0.36 to 0.38 eV/A; one seed of alloop, whose runs repeat, three of
DP-GEN), after the second as large a one. Neither compresses its models.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import dpgen_campaign
import numpy as np
from ase.io import write
from dpgen_loop_sleep import FAST_POLL, STOCK_POLL, end_session

from alloop import config
from alloop.campaign import Campaign
from alloop.labelers import load
from alloop.labelers.levels import target_level
from alloop.potential.dataset import write_systems
from alloop.potential.environment import md_environment
from alloop.store import MANIFEST, read_json

SLOTS = 2
ITERATIONS = 3
MODELS = 2
STEPS, WARM_STEPS = 4000, 1500
LEARNING_RATE, WARM_LEARNING_RATE = 0.003, 0.0015
TEMPERATURES_K = (1000, 2500)
MD_STEPS, RECORD_EVERY = 500, 10
LABELS = 20
TRUST_EV_A = (0.4, 15.0)
START_FRAMES = 6
HELD_OUT_SEEDS = (101, 102)
TELL_CPU = "import atexit, os; atexit.register(lambda: print('CPU', sum(os.times()[:2]))); "
TOOLS = {
    "dpgen-stock": TELL_CPU + STOCK_POLL,
    "dpgen-fast": TELL_CPU + FAST_POLL,
    "dpgen-scratch": TELL_CPU + FAST_POLL,
    "alloop": "",
}


def prepare(common: Path) -> None:
    """Make what all runs share, once: starting data, start structures, and the held-out labels."""
    if (common / "done").exists():
        return
    labeler = load("teter-rehearsal", {})
    for number, (name, n_atoms) in enumerate(dpgen_campaign.SYSTEMS.items()):
        found = dpgen_campaign.snapshots(name, n_atoms, seed=number + 1)
        chosen = [found[i] for i in np.linspace(0, len(found) - 1, START_FRAMES).round().astype(int)]
        write_data([labeler.label(atoms) for atoms in chosen], common / "start" / name)
        held_out = [atoms for seed in HELD_OUT_SEEDS for atoms in dpgen_campaign.snapshots(name, n_atoms, seed=seed)]
        write_data([labeler.label(atoms) for atoms in held_out], common / "held_out" / name)
        (common / "configs" / name).mkdir(parents=True)
        start = dpgen_campaign.in_type_order(found[len(found) // 2])
        write(common / "configs" / name / "POSCAR.0", start, format="vasp", direct=False)
    (common / "done").touch()


def write_data(labels: list[Any], folder: Path) -> None:
    """Write labelled frames of one composition as one deepmd/npy system of that very name."""
    (made,) = write_systems(labels, folder.with_name(f"{folder.name}.making"), dpgen_campaign.TYPE_MAP)
    made.rename(folder)
    made.parent.rmdir()


# ---------------------------------------------------------------------------------------- DP-GEN

TIMED = """#!/bin/bash
began=$EPOCHREALTIME
TIMEFORMAT="%3U %3S"
{{ time {program} "$@" 2>&3; code=$?; }} 3>&2 2>> {root}/cpu/{name}.$$
echo "{name} $began $EPOCHREALTIME $*" >> {root}/times.log
exit $code
"""


def dpgen_param(tool: str) -> dict[str, Any]:
    param = dpgen_campaign.param()
    training = param["default_training_param"]
    training["learning_rate"]["start_lr"] = LEARNING_RATE
    training["training"] |= {"numb_steps": STEPS, "save_freq": STEPS // 2}
    job = {"sys_idx": [0, 1], "temps": list(TEMPERATURES_K), "trj_freq": RECORD_EVERY, "nsteps": MD_STEPS}
    param |= {
        "numb_models": MODELS,
        "model_devi_f_trust_lo": TRUST_EV_A[0],
        "model_devi_f_trust_hi": TRUST_EV_A[1],
        "model_devi_jobs": [job | {"ensemble": "nvt"}] * ITERATIONS,
        "fp_task_max": LABELS // len(dpgen_campaign.SYSTEMS),
    }
    if tool != "dpgen-scratch":
        reuse = {"iter": 1, "numb_steps": WARM_STEPS, "start_lr": WARM_LEARNING_RATE, "old_ratio": "auto"}
        param |= {f"training_reuse_{name}": value for name, value in reuse.items()}
    return param


def write_dpgen(folder: Path, common: Path, tool: str) -> None:
    """Write the campaign for DP-GEN into a new folder; its programs note when they begin and end."""
    for place in ("bin", "cpu"):
        (folder / place).mkdir(parents=True)
    (folder / "init_data").symlink_to(common / "start")
    (folder / "configs").symlink_to(common / "configs")
    (folder / "oracle.py").write_text(dpgen_campaign.ORACLE)
    (folder / "param.json").write_text(json.dumps(dpgen_param(tool), indent=1) + "\n")
    machine = dpgen_campaign.machine(folder)
    for stage, name in (("train", "dp"), ("model_devi", "lmp"), ("fp", "label")):
        script = folder / "bin" / name
        script.write_text(TIMED.format(program=machine[stage]["command"], name=name, root=folder))
        script.chmod(0o755)
        machine[stage]["command"] = str(script)
        machine[stage]["resources"]["para_deg"] = SLOTS
    (folder / "machine.json").write_text(json.dumps(machine, indent=1) + "\n")


def run_dpgen(folder: Path, common: Path, tool: str, dpgen_python: Path) -> dict[str, Any]:
    write_dpgen(folder, common, tool)
    command = [str(dpgen_python), "-c", TOOLS[tool], "run", "param.json", "machine.json"]
    began = time.time()
    with (folder / "out.log").open("w") as stream:
        process = subprocess.Popen(command, cwd=folder, stdout=stream, stderr=stream, start_new_session=True)
        try:
            code = process.wait()
        finally:
            end_session(process)
    if code != 0:
        raise SystemExit(f"{tool} ended with code {code}: see {folder}/out.log")
    work: dict[str, list[tuple[float, float]]] = {"train": [], "export": [], "md": [], "label": []}
    for line in (folder / "times.log").read_text().splitlines():
        name, start, end, *arguments = line.split()
        kind = {"lmp": "md", "label": "label", "dp": "train" if "train" in arguments else "export"}[name]
        work[kind].append((float(start) - began, float(end) - began))
    ensembles = []
    for place in sorted(folder.glob("iter.*/00.train")):
        models = sorted(place.glob("0*/frozen_model.pb"))
        if len(models) == MODELS:
            ensembles.append((max(model.stat().st_mtime for model in models) - began, models))
    counts = [STEPS] + [STEPS if tool == "dpgen-scratch" else WARM_STEPS] * (len(ensembles) - 1)
    at_work = {
        "train": sum(
            count * seconds_per_step(log)
            for count, place in zip(counts, sorted(folder.glob("iter.*/00.train")), strict=True)
            for log in place.glob("0*/train.log")
        ),
        "md": sum(loop_seconds(log) for log in folder.glob("iter.*/01.model_devi/task.*/model_devi.log")),
    }
    marks = stage_marks(folder / "dpgen.log")
    found = {"labels": len(work["label"]), "steps": [MODELS * count for count in counts], "at_work": at_work}
    found |= {"stages_s": stage_seconds(marks), "poll": SLOTS * poll_seconds(marks, work, began)}
    found["cpu_s"] = dpgen_cpu(folder)
    return found | {"work": work, "ensembles": ensembles}


def dpgen_cpu(folder: Path) -> dict[str, float]:
    """CPU seconds of each program, as bash told them (user and system), and of DP-GEN itself."""
    total = {"dpgen": float(re.findall(r"^CPU (\S+)", (folder / "out.log").read_text(), re.MULTILINE)[-1])}
    for file in (folder / "cpu").iterdir():
        used_s = sum(map(float, file.read_text().split()))
        total[file.stem] = total.get(file.stem, 0.0) + used_s
    return total


def seconds_per_step(log: Path) -> float:
    """Mean time of a training step, as DeePMD tells it."""
    found = re.findall(r"average training time: ([\d.]+) s/batch", log.read_text())
    return float(found[-1])


def loop_seconds(log: Path) -> float:
    """Time of the MD steps alone, as LAMMPS tells it."""
    return sum(float(found) for found in re.findall(r"Loop time of (\S+) on", log.read_text()))


STAGES = ("make_train", "run_train", "post_train", "make_md", "run_md", "post_md", "make_fp", "run_fp", "post_fp")


def stage_marks(log: Path) -> list[tuple[float, int]]:
    """When each stage began (seconds of the epoch) and its number, in order."""
    marks = []
    for line in log.read_text().splitlines():
        found = re.match(r"(\S+ [\d:]+),(\d+) .*iter\.\d+ task (\d+)-", line)
        if found:
            at = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").timestamp() + int(found[2]) / 1000
            marks.append((at, int(found[3])))
    return marks


def stage_seconds(marks: list[tuple[float, int]]) -> dict[str, float]:
    """Seconds DP-GEN spent in each of its nine stages, over all iterations."""
    total = dict.fromkeys(STAGES, 0.0)
    for (at, stage), (after, _) in itertools.pairwise(marks):
        total[STAGES[stage]] += after - at
    return {name: round(seconds, 1) for name, seconds in total.items()}


def poll_seconds(marks: list[tuple[float, int]], work: dict[str, list[tuple[float, float]]], began: float) -> float:
    """Seconds between the end of the last program of a stage and the end of the stage, over all stages."""
    ends = sorted(began + end for spans in work.values() for _, end in spans)
    total = 0.0
    for (at, stage), (after, _) in itertools.pairwise(marks):
        inside = [end for end in ends if at < end <= after]
        total += after - inside[-1] if inside and STAGES[stage].startswith("run_") else 0.0
    return total


# ---------------------------------------------------------------------------------------- alloop


def alloop_param(folder: Path) -> dict[str, Any]:
    label = {"labeler": "teter-rehearsal"}
    level = target_level(config.LabelParam(**label), dpgen_campaign.TYPE_MAP, folder).to_json()["name"]
    data = {"format": "deepmd/npy", "level": level, "role": "training"}
    systems = dpgen_campaign.SYSTEMS
    return {
        "name": "real",
        "seed": 1,
        "elements": dpgen_campaign.TYPE_MAP,
        "glasses": [{"name": name, "n_atoms": [size]} for name, size in systems.items()],
        "bootstrap": {"trajectories": 0, "data": [data | {"path": f"start/{name}"} for name in systems]},
        "train": {
            "models": MODELS,
            "cutoff_A": 4.5,
            "smoothing_A": 0.5,
            "steps": STEPS,
            "warm_steps": WARM_STEPS,
            "learning_rate": LEARNING_RATE,
            "warm_learning_rate": WARM_LEARNING_RATE,
            "final_learning_rate": 1e-5,
            "save_every": STEPS // 2,
            "compress": False,
        },
        "explore": {
            "temperatures_K": list(TEMPERATURES_K),
            "ramps": [],
            "trajectories": 1,
            "chunks": 1,
            "chunk_ps": MD_STEPS / 1000,
            "deviation_every": RECORD_EVERY,
        },
        "select": {
            "trust_low_eV_A": TRUST_EV_A[0],
            "trust_high_eV_A": TRUST_EV_A[1],
            "max_labels": LABELS,
            "max_per_trajectory": LABELS,
            "audit": 0,
            "trust": "fixed",
            "events": {"overlap": {"quota": 0}, "five_coordinated_Si": {"quota": 0}},
            "min_separation_ps": 0,
            "held_out_fraction": 0,
        },
        "label": label,
        "stop": {"max_iterations": ITERATIONS},
        "pools": {"local": {"slots": SLOTS}},
    }


def run_alloop(folder: Path, common: Path, tool: str, _: Path) -> dict[str, Any]:
    (folder / "templates" / "deepmd").mkdir(parents=True)
    (folder / "start").symlink_to(common / "start")
    template = json.dumps(dpgen_campaign.training_param(), indent=1)
    (folder / "templates" / "deepmd" / "input.json").write_text(template)
    (folder / "param.json").write_text(json.dumps(alloop_param(folder), indent=1) + "\n")
    began = time.time()
    with (folder / "out.log").open("w") as stream:
        command = [sys.executable, "-m", "alloop", "run", "-C", str(folder)]
        before = os.times()
        done = subprocess.run(command, stdout=stream, stderr=stream, check=False)
        after = os.times()
    if done.returncode not in (0, 3):  # 3: not converged
        raise SystemExit(f"alloop ended with code {done.returncode}; see {folder}/out.log")
    used_s = after.children_user + after.children_system - before.children_user - before.children_system
    return read_alloop(folder, began) | {"cpu_s": {"alloop": used_s}}


def read_alloop(folder: Path, began: float) -> dict[str, Any]:
    """What a run of alloop left on disk; times are seconds since it began."""
    campaign = Campaign(folder)
    state = campaign.load()
    kinds = {"train": "train", "explore": "md", "label": "label", "evaluate": "evaluate", "bootstrap": "bootstrap"}
    work: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds.values()}
    records = {key: read_json(campaign.result(key) / MANIFEST)["record"] for key in state.done}
    for key, record in records.items():
        work[kinds[state.tasks[key].kind]].append(
            (seconds(record["started"]) - began, seconds(record["ended"]) - began)
        )
    ensembles = []
    for number in range(state.iteration + 1):
        models = state.models(number)
        ready = max(seconds(records[key]["ended"]) for key in models) - began
        ensembles.append((ready, [campaign.result(key) / campaign.summary(key)["model"] for key in models]))
    steps = [MODELS * state.decisions["train", number]["common"]["steps"] for number in range(len(ensembles))]
    processes = {
        kind: {records[key]["pid"] for key in records if kinds[state.tasks[key].kind] == kind} for kind in work
    }
    found = {"labels": sum(not state.picks[key]["given"] for key in state.done if key in state.picks), "steps": steps}
    found |= {
        "at_work": {
            "train": sum(
                count // MODELS * seconds_per_step(campaign.result(key) / "train.log")
                for number, count in enumerate(steps)
                for key in state.models(number)
            ),
        }
    }
    counted = {kind: len(pids) for kind, pids in processes.items()}
    return found | {"work": work, "ensembles": ensembles, "processes": counted}


def seconds(time_text: str) -> float:
    return datetime.fromisoformat(time_text).timestamp()


# ---------------------------------------------------------------------------------------- errors

MEASURE = """
import json, sys
import dpdata, numpy as np
from alloop.potential.ensemble import Ensemble
models, folders = json.loads(sys.argv[1])
ensembles = [Ensemble(paths) for paths in models]
found = []
systems = [dpdata.LabeledSystem(folder, fmt="deepmd/npy") for folder in folders]
for ensemble in ensembles:
    errors = []
    for system in systems:
        structures = system.to_ase_structure()
        for atoms in structures:
            atoms.pbc, atoms.calc = True, None
        for one, forces in zip(ensemble.evaluate_many(structures), system.data["forces"]):
            errors.append((one.forces_eV_A - forces).reshape(len(one.forces_eV_A), -1))
    found.append(float(np.sqrt(np.concatenate(errors, axis=1).__pow__(2).mean())))
print("RMSE " + json.dumps(found))
"""


def force_errors(ensembles: list[list[Path]], common: Path) -> list[float]:
    """Root mean square force error (eV/Å) of each ensemble on the held-out labels, over all its models."""
    told = json.dumps([[[str(model) for model in models] for models in ensembles], held_out_folders(common)])
    command = [sys.executable, "-c", MEASURE, told]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | md_environment(1), check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RMSE "))
    return [round(value, 4) for value in json.loads(line.removeprefix("RMSE "))]


def held_out_folders(common: Path) -> list[str]:
    return sorted(str(folder) for folder in (common / "held_out").iterdir())


def breakdown(found: dict[str, Any], makespan: float) -> dict[str, float]:
    """Slot-seconds until the last ensemble, told apart; they add up to slots times makespan."""
    busy = {
        kind: sum(min(end, makespan) - min(start, makespan) for start, end in spans)
        for kind, spans in found["work"].items()
    }
    at_work, poll = found["at_work"], found.get("poll", 0.0)
    parts = {
        "training_steps": at_work["train"],
        "training_besides": busy.pop("train") + busy.pop("export", 0.0) - at_work["train"],
        **busy,
        "waiting_for_the_poll": poll,
    }
    parts["idle_otherwise"] = SLOTS * makespan - sum(parts.values())
    return {name: round(value, 1) for name, value in parts.items()}


def run(tool: str, folder: Path, dpgen_python: Path, scale: float) -> dict[str, Any]:
    """Run one tool once in a new folder and return its record."""
    common = folder.parent / "real.common"
    prepare(common)
    found = (run_alloop if tool == "alloop" else run_dpgen)(folder, common, tool, dpgen_python)
    ready = [at for at, _ in found["ensembles"]]
    errors = force_errors([models for _, models in found["ensembles"]], common)
    record = {
        "tool": tool,
        "makespan_s": round(ready[-1], 1),
        "ensembles_ready_s": [round(at, 1) for at in ready],
        "force_rmse_eV_A": errors,
        "labels": found["labels"],
        "training_steps": found["steps"],
        "cpu_s": {name: round(value, 1) for name, value in found["cpu_s"].items()}
        | {"total": round(sum(found["cpu_s"].values()), 1)},
        "slot_seconds": breakdown(found, ready[-1]),
        "programs_started": found.get("processes", {kind: len(spans) for kind, spans in found["work"].items()}),
    }
    if "md" in found["at_work"]:
        record["md_steps_alone_s"] = round(found["at_work"]["md"], 1)
    return record | {name: found[name] for name in ("stages_s",) if name in found}
