"""All eleven glasses and every subset and order of Li, B, O, Si, labelled by the double of VASP in one campaign.

Run: ``python benchmarks/vasp_rehearsal.py FOLDER`` (about ten minutes on 2 cores; resumable, as every campaign is).
Every label is compared with the force field behind the double, and the species the double read in POSCAR with those
of POTCAR. Writes ``benchmarks/results/vasp_rehearsal.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import permutations
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "vasp_double"))

import vasp_double  # noqa: E402

from alloop.campaign import Campaign  # noqa: E402
from alloop.glass.composition import TABLE_1  # noqa: E402
from alloop.glass.crystals import crystal  # noqa: E402
from alloop.tasks.label import read_label  # noqa: E402

ELEMENTS = ["Li", "B", "O", "Si"]
SIZES = {"LBS-8-32-60": 91, "LBS-15-25-60": 70, "LBS-5-35-60": 74}
"""Smallest stoichiometric cells of the glasses that have none of about 42 atoms."""


def every_order() -> list[Atoms]:
    """Nine atoms on a jittered grid for every subset and order of the elements, each species in one or more blocks."""
    found = []
    orders = [order for count in range(1, 5) for order in permutations(ELEMENTS, count)]
    for number, order in enumerate(orders):
        rng = np.random.default_rng(number)
        symbols = [*order, *order[::-1], *order][:9] + ["O"] * (9 - min(9, 3 * len(order)))
        grid = (
            2.4 * np.stack(np.meshgrid(*[range(3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[rng.permutation(27)[:9]]
        )
        positions = grid + rng.uniform(-0.2, 0.2, grid.shape)
        found.append(Atoms(symbols, positions=positions, cell=[7.2] * 3, pbc=True))
    return found


def crystals() -> list[Atoms]:
    """Rattled crystals of Li-B-O, Li-Si-O, SiO2 and B2O3."""
    found = []
    for name in ("gamma-LiBO2", "Li2SiO3", "Li2Si2O5", "alpha-quartz", "alpha-cristobalite", "B2O3-I", "B2O3-II"):
        for seed in range(3):
            atoms = crystal(name)
            atoms.rattle(0.08, seed=seed)
            found.append(atoms)
    return found


def prepare(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "param.json").exists():
        return
    vasp_double.make_potcar_library(folder / "potpaw", vasp_double.GLASS_POTENTIALS)
    ase.io.write(folder / "orders.extxyz", every_order())
    ase.io.write(folder / "crystals.extxyz", crystals())
    (folder / "plan.json").write_text(json.dumps({"log": "runs.jsonl"}))
    param = {
        "name": "vasp-rehearsal",
        "seed": 5,
        "elements": ELEMENTS,
        "glasses": [{"name": name, "n_atoms": [SIZES.get(name, 42)]} for name in TABLE_1],
        "bootstrap": {
            "trajectories": 2,
            "melt_ps": 2.0,
            "quench_ps": 2.0,
            "snapshots": 3,
            "strained_copies": 0,
            "structures": ["orders.extxyz", "crystals.extxyz"],
        },
        "train": {
            "models": 2,
            "cutoff_A": 4.0,
            "neuron": [6, 12],
            "axis_neuron": 4,
            "fitting_neuron": [24, 24],
            "steps": 600,
            "warm_steps": 300,
            "learning_rate": 0.01,
            "warm_learning_rate": 0.005,
            "final_learning_rate": 0.001,
        },
        "explore": {"temperatures_K": [600, 1500], "ramps": [], "trajectories": 1, "chunks": 1, "chunk_ps": 0.1},
        "select": {"trust_low_eV_A": 0.3, "trust_high_eV_A": 15.0, "max_labels": 44, "min_separation_ps": 0.02},
        "stop": {"max_iterations": 1},
        "label": {
            "labeler": "vasp",
            "vasp": {"potcar_library": "potpaw", "potcars": {"Li": "Li_sv"}},
            "run": {"command": vasp_double.double_command("6.3.2", folder / "plan.json")},
            "per_process": 8,
        },
    }
    (folder / "param.json").write_text(json.dumps(param, indent=1))


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    prepare(folder)
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-m", "alloop", "run", "-C", str(folder)], check=False)
    seconds = time.monotonic() - began
    campaign = Campaign(folder)
    state = campaign.load()
    worst = {"energy_eV": 0.0, "force_eV_A": 0.0, "stress_eV_A3": 0.0}
    labels = [key for key in state.done if state.tasks[key].kind == "label"]
    for key in labels:
        label = read_label(campaign.result(key))
        energy_eV, forces_eV_A, virial_eV = vasp_double.expected(label.atoms)
        found = {
            "energy_eV": abs(label.energy_eV - energy_eV),
            "force_eV_A": float(np.abs(label.forces_eV_A - forces_eV_A).max()),
            "stress_eV_A3": float(np.abs(label.virial_eV - virial_eV).max() / label.atoms.get_volume()),
        }
        worst = {name: max(worst[name], found[name]) for name in worst}
    runs = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    record = {
        "glasses": len(TABLE_1),
        "labels": len(labels),
        "quarantined": len(state.quarantined),
        "exit_code": ended.returncode,
        "runs_of_the_double": len(runs),
        "runs_whose_potcar_equals_poscar": sum(run["species_poscar"] == run["species_potcar"] for run in runs),
        "largest_difference_from_the_force_field": worst,
        "seconds": round(seconds, 1),
    }
    (HERE / "results" / "vasp_rehearsal.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
