"""A tiny DP-GEN campaign in the layout ``dpgen run`` 0.14 leaves behind, with numbers drawn at random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from alloop.glass.composition import TABLE_1, cell_length_A, stoichiometric_counts

TYPE_MAP = ["Li", "B", "O", "Si"]
SYSTEMS = {"LBS-20-60-20": 21, "LBS-40-20-40": 17}
STEPS = range(0, 60, 10)
CANDIDATES = {0: (0, 20, 40), 1: (10, 30)}
LABELLED = {0: (0, 40), 1: (30,)}
FORMULAS = {0: "Li2B6O12Si1", 1: "Li4B2O9Si2"}


def cell(name: str, rng: np.random.Generator) -> Atoms:
    counts = stoichiometric_counts(TABLE_1[name], SYSTEMS[name])
    symbols = [symbol for symbol in TYPE_MAP for _ in range(counts.get(symbol, 0))]
    edge = cell_length_A(counts, TABLE_1[name].density_g_cm3)
    grid = np.array([[i, j, k] for i in range(3) for j in range(3) for k in range(3)])[: len(symbols)] * edge / 3
    return Atoms(symbols, positions=grid + rng.uniform(0, 0.1, grid.shape), cell=[edge] * 3, pbc=True)


def write_system(folder: Path, name: str, frames: int, rng: np.random.Generator) -> None:
    atoms = [cell(name, rng) for _ in range(frames)]
    count = len(atoms[0])
    (folder / "set.000").mkdir(parents=True)
    arrays = {
        "box": np.array([a.cell.array.ravel() for a in atoms]),
        "coord": np.array([a.positions.ravel() for a in atoms]),
        "energy": rng.normal(-100, 1, (frames, 1)),
        "force": rng.normal(0, 1, (frames, 3 * count)),
        "virial": rng.normal(0, 1, (frames, 9)),
    }
    for key, values in arrays.items():
        np.save(folder / "set.000" / f"{key}.npy", values)
        np.savetxt(folder / f"{key}.raw", values)
    (folder / "type.raw").write_text("".join(f"{TYPE_MAP.index(s)}\n" for s in atoms[0].symbols))
    (folder / "type_map.raw").write_text("".join(f"{s}\n" for s in TYPE_MAP))


def write_models(folder: Path, count: int, mark: str) -> None:
    for number in range(count):
        place = folder / f"{number:03d}"
        place.mkdir(parents=True)
        for suffix in ("index", "meta", "data-00000-of-00001"):
            (place / f"model.ckpt-600.{suffix}").write_text(f"{mark} {number} {suffix}")
            (place / f"model.ckpt.{suffix}").symlink_to(f"model.ckpt-600.{suffix}")
        (place / "frozen_model.pb").write_text(f"{mark} {number} frozen")
        (place / "input.json").write_text("{}")
        (place / "lcurve.out").write_text("# step\n")
        (folder / f"graph.{number:03d}.pb").symlink_to(f"{number:03d}/frozen_model.pb")


def _write_dump(path: Path, atoms: Atoms, step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    edge = atoms.cell.lengths()[0]
    lines = ["ITEM: TIMESTEP", str(step), "ITEM: NUMBER OF ATOMS", str(len(atoms)), "ITEM: BOX BOUNDS pp pp pp"]
    lines += [f"0.0 {edge}"] * 3 + ["ITEM: ATOMS id type x y z"]
    rows = zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)
    lines += [f"{i} {TYPE_MAP.index(s) + 1} {x} {y} {z}" for i, (s, (x, y, z)) in enumerate(rows, start=1)]
    path.write_text("\n".join(lines) + "\n")


def write_iteration(root: Path, number: int, job: dict[str, Any], rng: np.random.Generator) -> None:
    iteration = root / f"iter.{number:06d}"
    write_models(iteration / "00.train", 2, f"iteration {number}")
    explore, label = iteration / "01.model_devi", iteration / "02.fp"
    (explore / "confs").mkdir(parents=True)
    label.mkdir()
    (explore / "cur_job.json").write_text(json.dumps(job, indent=4))
    for system, name in enumerate(SYSTEMS):
        task = explore / f"task.{system:03d}.000000"
        for step in STEPS:
            _write_dump(task / "traj" / f"{step}.lammpstrj", cell(name, rng), step)
        (task / "model_devi.out").write_text("# step\n" + "".join(f"{step} 0 0 0 1 0 1\n" for step in STEPS))
        md = f"{iteration.name}/01.model_devi/{task.name}"
        first = [step for step in CANDIDATES[system] if step in LABELLED[system]]
        lists = {
            "candidate": first + [step for step in CANDIDATES[system] if step not in first],
            "rest_accurate": [step for step in STEPS if step not in CANDIDATES[system] and step < 50],
            "rest_failed": [50],
        }
        for word, steps in lists.items():
            (label / f"{word}.shuffled.{system:03d}.out").write_text("".join(f"{md} {step}\n" for step in steps))
        for index, step in enumerate(LABELLED[system]):
            fp = label / f"task.{system:03d}.{index:06d}"
            fp.mkdir()
            (fp / "conf.dump").symlink_to(f"../../01.model_devi/{task.name}/traj/{step}.lammpstrj")
        write_system(label / f"data.{system:03d}" / FORMULAS[system], name, len(LABELLED[system]), rng)
    (label / "0123abcd.sub").write_text("what a dispatcher leaves behind")


def training_param() -> dict[str, Any]:
    return {
        "model": {
            "descriptor": {
                "type": "se_e2_a",
                "sel": [8, 16, 24, 8],
                "rcut": 4.0,
                "rcut_smth": 0.5,
                "neuron": [4, 8],
                "seed": 1,
            },
            "fitting_net": {"neuron": [8, 8], "seed": 1},
        },
        "learning_rate": {"type": "exp", "start_lr": 0.002, "stop_lr": 1e-6, "decay_steps": 50},
        "loss": {"start_pref_e": 0.02, "limit_pref_e": 1, "start_pref_f": 1000, "limit_pref_f": 1},
        "training": {"numb_steps": 400, "disp_freq": 50, "save_freq": 100, "disp_file": "lcurve.out"},
    }


def job(**more: Any) -> dict[str, Any]:
    return {"sys_idx": [0, 1], "temps": [500, 1200], "trj_freq": 10, "nsteps": 50, "ensemble": "nvt"} | more


def param(**more: Any) -> dict[str, Any]:
    return {
        "_comment": "a comment",
        "type_map": TYPE_MAP,
        "mass_map": "auto",
        "init_data_prefix": "./init",
        "init_data_sys": list(SYSTEMS),
        "sys_configs_prefix": "./configs",
        "sys_configs": [[f"{name}/POSCAR.*"] for name in SYSTEMS],
        "numb_models": 2,
        "default_training_param": training_param(),
        "model_devi_dt": 0.002,
        "model_devi_skip": 0,
        "model_devi_f_trust_lo": 0.3,
        "model_devi_f_trust_hi": 3.0,
        "model_devi_jobs": [job(), job()],
        "fp_style": "custom",
        "fp_task_max": 10,
        "fp_task_min": 1,
        "fp_params": {"input_fmt": "vasp/poscar", "input_fn": "POSCAR", "output_fmt": "deepmd/npy", "output_fn": "x"},
    } | more


def machine() -> dict[str, Any]:
    def section(command: str) -> dict[str, Any]:
        return {
            "command": command,
            "machine": {"batch_type": "Shell", "context_type": "LazyLocalContext", "local_root": "./"},
            "resources": {"group_size": 0, "para_deg": 3, "envs": {"OMP_NUM_THREADS": "2"}},
        }

    return {"api_version": "1.0", "train": section("dp"), "model_devi": section("lmp"), "fp": section("python o.py")}


def make_folder(root: Path, iterations: int = 2, **more: Any) -> Path:
    """Make a DP-GEN folder of some labelled iterations, after which the next ensemble is trained."""
    rng = np.random.default_rng(4)
    root.mkdir()
    for system in SYSTEMS:
        write_system(root / "init" / system, system, 4, rng)
        (root / "configs" / system).mkdir(parents=True)
        for number in range(2):
            write(root / "configs" / system / f"POSCAR.{number}", cell(system, rng), format="vasp", direct=False)
    for number in range(iterations):
        write_iteration(root, number, job(), rng)
    write_models(root / f"iter.{iterations:06d}" / "00.train", 2, f"iteration {iterations}")
    lines = [f"{i} {stage}\n" for i in range(iterations) for stage in range(9)]
    (root / "record.dpgen").write_text("".join(lines + [f"{iterations} {stage}\n" for stage in range(3)]))
    (root / "param.json").write_text(json.dumps(param(**more)))
    (root / "machine.json").write_text(json.dumps(machine()))
    return root
