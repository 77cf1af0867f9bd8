"""The sleep workload of ``dpgen_loop.py``: every program only sleeps, so that what is left is the loop itself.

Five iterations, each of 4 trainings of 15 s on ONE training slot, one MD run of 30 s and 40 labels of 6 +- 4 s (drawn
evenly, the same ones for all tools) on TWO CPU slots. MD i needs ensemble i. The run ends with the last label.

Ensemble i + 1 of DP-GEN has seen all labels of iteration i. alloop trains it once 12 of them have landed, while the
others are still being made; `trained_on` says how many labels each ensemble has seen, the given ones included.

What was found is in ``results/dpgen_loop_sleep.json`` (`commit`, `makespan_ratio_stock`, `makespan_ratio_fast`,
`bound_fraction`, and the runs), and in ``results/dpgen_loop_sleep_shared.json`` for a machine that others used, too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from alloop import config
from alloop.campaign import Campaign
from alloop.glass.composition import TABLE_1, stoichiometric_counts
from alloop.labelers.levels import target_level
from alloop.potential.dataset import write_systems
from alloop.store import MANIFEST, read_json

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "quick_tasks"))
from quick_bootstrap import grid
from quick_kit import PYTHON, quick_environment
from quick_physics import labelled
from quick_settings import turn_rng, uniform_seconds

TYPE_MAP = ["Li", "B", "O", "Si"]
GLASS, N_ATOMS = "LBS-20-60-20", 42
START_FRAMES = 20
RECORDS, CANDIDATES = 60, 50
"""Records of an MD run, and how many of them are candidates: more than an iteration may label."""
FAST_POLL = (
    "from dpdispatcher.submission import Submission as S; S.run_submission.__kwdefaults__['check_interval'] = 1; "
    "from dpgen.main import main; main()"
)
STOCK_POLL = "from dpgen.main import main; main()"
TOOLS = {"dpgen-stock": STOCK_POLL, "dpgen-fast": FAST_POLL, "alloop": ""}


@dataclass(frozen=True)
class Workload:
    """How much there is to do; scale multiplies all times."""

    iterations: int = 5
    models: int = 4
    train_s: float = 15.0
    md_s: float = 30.0
    labels: int = 40
    label_s: tuple[float, float] = (6.0, 4.0)
    after_labels: int = 12
    cpu_slots: int = 2
    seed: int = 1
    scale: float = 1.0

    def label_seconds(self, iteration: int) -> list[float]:
        """Durations of an iteration's labels in the order in which they begin."""
        mean, half = (self.scale * value for value in self.label_s)
        return [
            uniform_seconds(turn_rng(self.seed, "label", iteration, turn), mean, half) for turn in range(self.labels)
        ]

    def bound_s(self) -> float:
        """No loop can be faster: the first ensemble, then all work of the CPU slots with both always busy."""
        work = sum(self.scale * self.md_s + sum(self.label_seconds(i)) for i in range(self.iterations))
        return self.scale * self.models * self.train_s + work / self.cpu_slots


def frames(count: int, seed: int) -> list[Atoms]:
    rng, glass = np.random.default_rng(seed), TABLE_1[GLASS]
    counts = stoichiometric_counts(glass, N_ATOMS)
    found = [grid(counts, glass.density_g_cm3, rng) for _ in range(count)]
    return [atoms[np.argsort([TYPE_MAP.index(s) for s in atoms.symbols], kind="stable")] for atoms in found]


def write_start(folder: Path) -> Path:
    """Write the labelled data both tools start from; return its folder."""
    return write_systems([labelled(atoms) for atoms in frames(START_FRAMES, 1)], folder / "start", TYPE_MAP)[0]


# ---------------------------------------------------------------------------------------- DP-GEN

DP = """#!/bin/bash
began=$EPOCHREALTIME
for word in "$@"; do
  case $word in
    train) sleep {train_s}; touch model.ckpt.meta model.ckpt.index model.ckpt.data-00000-of-00001 checkpoint lcurve.out
           echo "train $began $EPOCHREALTIME" >> {root}/times.log ;;
    freeze) touch frozen_model.pb ;;
    compress) touch frozen_model_compressed.pb ;;
  esac
done
"""
LMP = """#!/bin/bash
began=$EPOCHREALTIME
sleep {md_s}
cp {root}/md/model_devi.out . && cp {root}/md/traj/* traj/
echo "md $began $EPOCHREALTIME" >> {root}/times.log
"""
FP = """#!/bin/bash
began=$EPOCHREALTIME
here=$(pwd -P)
iteration=${{here##*/iter.}}; iteration=${{iteration%%/*}}
turn=${{here##*.}}
sleep "$(sed -n "$((10#$turn + 1))p" {root}/seconds/$iteration)"
cp -r {root}/labeled labeled
echo "label $began $EPOCHREALTIME" >> {root}/times.log
"""


def write_dpgen(folder: Path, work: Workload) -> None:
    """Write a DP-GEN campaign whose programs sleep into a new folder."""
    for place in ("bin", "md/traj", "seconds", "configs", "init_data"):
        (folder / place).mkdir(parents=True)
    times = {"root": folder, "train_s": work.train_s * work.scale, "md_s": work.md_s * work.scale}
    for name, text in {"dp": DP, "lmp": LMP, "fp": FP}.items():
        (folder / "bin" / name).write_text(text.format(**times))
        (folder / "bin" / name).chmod(0o755)
    for iteration in range(work.iterations):
        text = "".join(f"{seconds:.3f}\n" for seconds in work.label_seconds(iteration))
        (folder / "seconds" / f"{iteration:06d}").write_text(text)
    write_start(folder).rename(folder / "init_data" / GLASS)
    moved = frames(RECORDS, 2)
    write(folder / "configs" / "POSCAR.0", moved[0], format="vasp", direct=False)
    write_systems([labelled(moved[0])], folder / "one", TYPE_MAP)[0].rename(folder / "labeled")
    rows = ["# step max_devi_v min_devi_v avg_devi_v max_devi_f min_devi_f avg_devi_f"]
    for record, atoms in enumerate(moved):
        deviation = 0.5 if record < CANDIDATES else 0.1
        rows.append(f"{10 * record} 0.01 0.01 0.01 {deviation} 0.01 0.05")
        (folder / "md" / "traj" / f"{10 * record}.lammpstrj").write_text(dump(atoms, 10 * record))
    (folder / "md" / "model_devi.out").write_text("\n".join(rows) + "\n")
    (folder / "param.json").write_text(json.dumps(dpgen_param(work), indent=1) + "\n")
    (folder / "machine.json").write_text(json.dumps(machine(folder, work), indent=1) + "\n")


def dump(atoms: Atoms, step: int) -> str:
    """One frame of a cubic cell as a LAMMPS dump."""
    edge = atoms.cell.lengths()[0]
    bounds = f"0.0 {edge:.10f} 0.0\n" * 3
    rows = "".join(
        f"{number + 1} {TYPE_MAP.index(atom.symbol) + 1} {atom.x:.10f} {atom.y:.10f} {atom.z:.10f}\n"
        for number, atom in enumerate(atoms)
    )
    head = f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(atoms)}\nITEM: BOX BOUNDS xy xz yz pp pp pp\n"
    return f"{head}{bounds}ITEM: ATOMS id type x y z\n{rows}"


def dpgen_param(work: Workload) -> dict[str, Any]:
    descriptor = {"type": "se_e2_a", "sel": [16, 32, 56, 16], "rcut": 4.5, "rcut_smth": 0.5, "neuron": [8, 16]}
    job = {
        "sys_idx": [0],
        "temps": [1000],
        "trj_freq": 10,
        "nsteps": 10 * (RECORDS - 1),
        "ensemble": "nvt",
    }
    return {
        "type_map": TYPE_MAP,
        "mass_map": "auto",
        "init_data_prefix": "./init_data",
        "init_data_sys": [GLASS],
        "sys_configs_prefix": "./configs",
        "sys_configs": [["POSCAR.*"]],
        "numb_models": work.models,
        "train_backend": "tensorflow",
        "default_training_param": {
            "model": {
                "type_map": TYPE_MAP,
                "descriptor": descriptor | {"axis_neuron": 4},
                "fitting_net": {"neuron": [32, 32]},
            },
            "learning_rate": {"type": "exp", "start_lr": 0.003, "stop_lr": 1e-5, "decay_steps": 200},
            "loss": {"start_pref_e": 0.02, "limit_pref_e": 1, "start_pref_f": 1000, "limit_pref_f": 1},
            "training": {"numb_steps": 100, "disp_freq": 100, "save_freq": 100, "disp_file": "lcurve.out"},
        },
        "model_devi_dt": 0.001,
        "model_devi_skip": 0,
        "model_devi_f_trust_lo": 0.25,
        "model_devi_f_trust_hi": 1.0,
        "model_devi_clean_traj": False,
        "model_devi_jobs": [job] * work.iterations,
        "fp_style": "custom",
        "fp_task_max": work.labels,
        "fp_task_min": 1,
        "fp_params": {
            "input_fmt": "vasp/poscar",
            "input_fn": "POSCAR",
            "output_fmt": "deepmd/npy",
            "output_fn": "labeled",
        },
    }


def machine(folder: Path, work: Workload) -> dict[str, Any]:
    """Three sections for this computer: one job each, which runs `para_deg` tasks at a time."""

    def section(name: str, at_once: int) -> dict[str, Any]:
        place = {"batch_type": "Shell", "context_type": "LazyLocalContext"}
        resources = {"number_node": 1, "cpu_per_node": 1, "gpu_per_node": 0, "queue_name": "", "group_size": 0}
        return {
            "command": str(folder / "bin" / name),
            "machine": place | {"local_root": "./", "remote_root": "./work"},
            "resources": resources | {"para_deg": at_once},
        }

    return {
        "api_version": "1.0",
        "deepmd_version": "3.2.0",
        "train": section("dp", 1),
        "model_devi": section("lmp", work.cpu_slots),
        "fp": section("fp", work.cpu_slots),
    }


def run_dpgen(folder: Path, work: Workload, tool: str, dpgen_python: Path) -> dict[str, Any]:
    """Run DP-GEN until the last label is there, and return what was seen; its final training is not waited for."""
    write_dpgen(folder, work)
    command = [str(dpgen_python), "-c", TOOLS[tool], "run", "param.json", "machine.json"]
    wanted = work.iterations * work.labels
    began = time.time()
    with (folder / "out.log").open("w") as stream:
        process = subprocess.Popen(command, cwd=folder, stdout=stream, stderr=stream, start_new_session=True)
        while len(spans := read_times(folder)["label"]) < wanted:
            if process.poll() is not None:
                raise SystemExit(f"{tool} ended early with code {process.returncode}: see {folder}/out.log")
            time.sleep(0.5)
    end_session(process)
    makespan = max(end for _, end in spans) - began
    seen = [START_FRAMES + number * work.labels for number in range(work.iterations)]
    return summary(tool, work, makespan, began, read_times(folder)) | {"trained_on": seen}


def end_session(process: subprocess.Popen[Any]) -> None:
    """End a process that leads a session of its own, and what is left of its group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def read_times(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Begin and end of everything that slept, by kind."""
    spans: dict[str, list[tuple[float, float]]] = {"train": [], "md": [], "label": []}
    file = folder / "times.log"
    for line in file.read_text().splitlines() if file.exists() else ():
        kind, began, ended = line.split()
        spans[kind].append((float(began), float(ended)))
    return spans


def summary(
    tool: str, work: Workload, makespan: float, began: float, spans: dict[str, list[tuple[float, float]]]
) -> dict[str, Any]:
    """What is kept of a run: makespan, CPU slot-seconds at work, and each kind's spans from the start."""
    cpu_s = sum(end - start for kind in ("md", "label") for start, end in spans[kind])
    return {
        "tool": tool,
        "makespan_s": round(makespan, 1),
        "bound_s": round(work.bound_s(), 1),
        "cpu_slot_seconds_at_work": round(cpu_s, 1),
        "cpu_slot_seconds_idle": round(work.cpu_slots * makespan - cpu_s, 1),
        "spans_s": {kind: [[round(a - began, 1), round(b - began, 1)] for a, b in spans[kind]] for kind in spans},
    }


# ---------------------------------------------------------------------------------------- alloop


def alloop_param(folder: Path, work: Workload, start: Path) -> dict[str, Any]:
    label = {"labeler": "teter-rehearsal", "per_process": 1}
    level = target_level(config.LabelParam(**label), TYPE_MAP, folder).to_json()["name"]
    data = {"path": str(start.relative_to(folder)), "format": "deepmd/npy", "level": level, "role": "training"}
    return {
        "name": "sleep",
        "seed": work.seed,
        "elements": TYPE_MAP,
        "glasses": [{"name": GLASS, "n_atoms": [N_ATOMS]}],
        "bootstrap": {"trajectories": 0, "data": [data]},
        "train": {"models": work.models, "after_labels": work.after_labels},
        "explore": {
            "temperatures_K": [1000],
            "ramps": [],
            "trajectories": 1,
            "chunks": 1,
            "chunk_ps": 1.2,
            "frames_per_chunk": RECORDS,
        },
        "select": {
            "max_labels": work.labels,
            "max_per_trajectory": RECORDS,
            "min_separation_ps": 0,
            "audit": 0,
            "trust": "fixed",
            "events": {"overlap": {"quota": 0}, "five_coordinated_Si": {"quota": 0}},
            "held_out_fraction": 0,
        },
        "label": label,
        "stop": {"max_iterations": work.iterations},
        "pools": {
            "local": {"slots": work.cpu_slots, "python": PYTHON},
            "trainers": {"type": "local", "tasks": ["train"], "slots": 1, "python": PYTHON},
        },
    }


def run_alloop(folder: Path, work: Workload, tool: str, _: Path) -> dict[str, Any]:
    """Run alloop to the end of its last iteration, and return what was seen until the last label."""
    folder.mkdir(parents=True)
    (folder / "turns").mkdir()
    start = write_start(folder)
    (folder / "param.json").write_text(json.dumps(alloop_param(folder, work, start), indent=1) + "\n")
    settings = {
        "seed": work.seed,
        "turns": str(folder / "turns"),
        "train": {"seconds": work.train_s * work.scale},
        "explore": {
            "seconds": work.md_s * work.scale,
            "records": RECORDS,
            "candidates": CANDIDATES / RECORDS,
        },
        "label": {"seconds": [value * work.scale for value in work.label_s]},
        "evaluate": {"force_rmse_eV_A": 0.5, "candidates": 1.0},
    }
    environment = os.environ | quick_environment(folder / "quick.json", **settings)
    began = time.time()
    with (folder / "out.log").open("w") as stream:
        command = [sys.executable, "-m", "alloop", "run", "-C", str(folder)]
        done = subprocess.run(command, stdout=stream, stderr=stream, env=environment, check=False)
    if done.returncode not in (0, 3):  # 3: not converged
        raise SystemExit(f"alloop ended with code {done.returncode}; see {folder}/out.log")
    spans = alloop_spans(folder)
    makespan = max(end for _, end in spans["label"]) - began
    wanted = work.iterations * work.labels
    if len(spans["label"]) != wanted:
        raise SystemExit(f"alloop made {len(spans['label'])} labels instead of {wanted}; see {folder}")
    return summary(tool, work, makespan, began, spans) | {"trained_on": trained_on(folder, work)}


def trained_on(folder: Path, work: Workload) -> list[int]:
    """How many labels each ensemble has seen that could drive an iteration."""
    state = Campaign(folder).load()
    return [len(state.decisions["train", number]["common"]["training"]) for number in range(work.iterations)]


def alloop_spans(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Begin and end of every finished training, chunk and label that was not given."""
    campaign = Campaign(folder)
    campaign.load()
    state = campaign.state
    spans: dict[str, list[tuple[float, float]]] = {"train": [], "md": [], "label": []}
    for key in state.done:
        kind = {"train": "train", "explore": "md", "label": "label"}.get(state.tasks[key].kind)
        if kind is None or (kind == "label" and state.picks[key]["given"]):
            continue
        record = read_json(campaign.result(key) / MANIFEST)["record"]
        spans[kind].append((_seconds(record["started"]), _seconds(record["ended"])))
    return {kind: sorted(found) for kind, found in spans.items()}


def _seconds(time_text: str) -> float:
    return datetime.fromisoformat(time_text).timestamp()


def run(tool: str, folder: Path, dpgen_python: Path, scale: float) -> dict[str, Any]:
    """Run one tool once in a new folder and return its record."""
    work = Workload(scale=scale)
    return (run_alloop if tool == "alloop" else run_dpgen)(folder, work, tool, dpgen_python)
