"""A small real DP-GEN campaign of two lithium borosilicate glasses, labelled by the Teter force field.

    python benchmarks/dpgen_campaign.py DIR

Writes into DIR what ``dpgen run param.json machine.json`` (DP-GEN 0.14) needs: labelled starting data, start
structures, ``param.json`` with two iterations, ``machine.json`` for this computer, and ``oracle.py``, which labels.
DeePMD's ``dp`` and ``lmp`` and the oracle are those of the Python that runs this script.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from alloop.glass.composition import TABLE_1, stoichiometric_counts
from alloop.glass.melt_quench import MeltQuench, melt_quench
from alloop.labelers import load
from alloop.potential.dataset import write_systems
from alloop.resources import find_template

TYPE_MAP = ["Li", "B", "O", "Si"]
SYSTEMS = {"LBS-20-60-20": 42, "LBS-40-20-40": 34}
SCHEDULE = MeltQuench(
    melt_temperature_K=3500.0,
    final_temperature_K=500.0,
    melt_ps=2.0,
    cooling_rate_K_ps=500.0,
    timestep_fs=1.0,
    n_snapshots=14,
)
ORACLE = """import dpdata
import numpy as np
from alloop.labelers import load

system = dpdata.System("POSCAR", fmt="vasp/poscar")
atoms = system.to_ase_structure()[0]
found = load("teter-rehearsal", {}).label(atoms)
data = dict(system.data)
data["energies"] = np.array([found.energy_eV])
data["forces"] = found.forces_eV_A[None]
data["virials"] = found.virial_eV[None]
dpdata.LabeledSystem.from_dict({"@module": "", "@class": "", "data": data}).to("deepmd/npy", "labeled")
"""


def snapshots(name: str, n_atoms: int, seed: int) -> list[Atoms]:
    counts = stoichiometric_counts(TABLE_1[name], n_atoms)
    template = find_template("lammps/melt_quench.in")
    with tempfile.TemporaryDirectory() as folder:
        found = melt_quench(TABLE_1[name], counts, SCHEDULE, seed=seed, directory=Path(folder), template=template)
    return [snapshot.atoms for snapshot in found]


def in_type_order(atoms: Atoms) -> Atoms:
    return atoms[np.argsort([TYPE_MAP.index(symbol) for symbol in atoms.get_chemical_symbols()], kind="stable")]


def training_param() -> dict[str, Any]:
    return {
        "model": {
            "type_map": TYPE_MAP,
            "descriptor": {
                "type": "se_e2_a",
                "sel": [16, 32, 56, 16],
                "rcut": 4.5,
                "rcut_smth": 0.5,
                "neuron": [8, 16],
                "axis_neuron": 4,
                "resnet_dt": False,
            },
            "fitting_net": {"neuron": [32, 32], "resnet_dt": True},
        },
        "learning_rate": {"type": "exp", "start_lr": 0.003, "stop_lr": 1e-5, "decay_steps": 200},
        "loss": {
            "start_pref_e": 0.02,
            "limit_pref_e": 1,
            "start_pref_f": 1000,
            "limit_pref_f": 1,
            "start_pref_v": 0.02,
            "limit_pref_v": 1,
        },
        "training": {"numb_steps": 3000, "disp_freq": 100, "save_freq": 1000, "disp_file": "lcurve.out"},
    }


def job() -> dict[str, Any]:
    return {"sys_idx": [0, 1], "temps": [500, 1200], "trj_freq": 10, "nsteps": 300, "ensemble": "nvt"}


def param() -> dict[str, Any]:
    return {
        "_comment": "two glasses, two iterations",
        "type_map": TYPE_MAP,
        "mass_map": "auto",
        "init_data_prefix": "./init_data",
        "init_data_sys": list(SYSTEMS),
        "sys_configs_prefix": "./configs",
        "sys_configs": [[f"{name}/POSCAR.*"] for name in SYSTEMS],
        "numb_models": 2,
        "train_backend": "tensorflow",
        "default_training_param": training_param(),
        "model_devi_dt": 0.001,
        "model_devi_skip": 0,
        "model_devi_f_trust_lo": 0.8,
        "model_devi_f_trust_hi": 6.0,
        "model_devi_clean_traj": False,
        "model_devi_jobs": [job(), job()],
        "fp_style": "custom",
        "fp_task_max": 8,
        "fp_task_min": 1,
        "fp_params": {
            "input_fmt": "vasp/poscar",
            "input_fn": "POSCAR",
            "output_fmt": "deepmd/npy",
            "output_fn": "labeled",
        },
    }


def machine(folder: Path) -> dict[str, Any]:
    beside = Path(sys.executable).parent
    threads = ("OMP_NUM_THREADS", "DP_INTRA_OP_PARALLELISM_THREADS", "DP_INTER_OP_PARALLELISM_THREADS")

    def section(command: str) -> dict[str, Any]:
        return {
            "command": command,
            "machine": {
                "batch_type": "Shell",
                "context_type": "LazyLocalContext",
                "local_root": "./",
                "remote_root": "./work",
            },
            "resources": {
                "number_node": 1,
                "cpu_per_node": 1,
                "gpu_per_node": 0,
                "queue_name": "",
                "group_size": 0,
                "para_deg": 2,
                "envs": dict.fromkeys(threads, "1"),
            },
        }

    return {
        "api_version": "1.0",
        "deepmd_version": "3.2.0",
        "train": section(str(beside / "dp")),
        "model_devi": section(str(beside / "lmp")),
        "fp": section(f"{sys.executable} {folder.resolve() / 'oracle.py'}"),
    }


def write_campaign(folder: Path) -> None:
    labeler = load("teter-rehearsal", {})
    for number, (name, n_atoms) in enumerate(SYSTEMS.items()):
        found = snapshots(name, n_atoms, seed=number + 1)
        systems = write_systems([labeler.label(atoms) for atoms in found], folder / "init_data" / name, TYPE_MAP)
        for file in list(systems[0].iterdir()):  # DP-GEN wants the system itself under this name
            file.rename(folder / "init_data" / name / file.name)
        systems[0].rmdir()
        configs = folder / "configs" / name
        configs.mkdir(parents=True)
        for index, atoms in enumerate((found[5], found[-1])):
            write(configs / f"POSCAR.{index}", in_type_order(atoms), format="vasp", direct=False)
    (folder / "param.json").write_text(json.dumps(param(), indent=1) + "\n")
    (folder / "machine.json").write_text(json.dumps(machine(folder), indent=1) + "\n")
    (folder / "oracle.py").write_text(ORACLE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="a folder that does not exist yet")
    folder = parser.parse_args().directory
    folder.mkdir(parents=True)
    write_campaign(folder)
    print(f"written to {folder}; run it there with: dpgen run param.json machine.json")


if __name__ == "__main__":
    main()
