"""``param.json`` and ``machine.json`` for ``dpgen run``: the originals of an import brought up to date, or new ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from alloop.config import Param, local_pool, steps
from alloop.dpgen.keys import JOB_KEYS, LEFT_OUT, OLD_JOB_NAMES, OLD_KEYS, READ
from alloop.dpgen.translation import BACKENDS, as_list
from alloop.label_params import CODES

FILL_IN = "FILL-IN"
LABEL_SCRIPT = "label.py"


def job_of(param: Param, systems: Sequence[int]) -> dict[str, Any]:
    """Return the entry of ``model_devi_jobs`` that comes nearest to how this configuration explores."""
    own = param.explore
    job: dict[str, Any] = {
        "sys_idx": sorted(systems),
        "temps": list(own.temperatures_K) or sorted({t for ramp in own.ramps for t in (ramp.from_K, ramp.to_K)}),
        "trj_freq": own.deviation_every,
        "nsteps": own.chunks * steps(own.chunk_ps, own.timestep_fs, own.deviation_every),
        "ensemble": own.ensembles[0],
        "dt": own.timestep_fs / 1000,
        "model_devi_f_trust_lo": param.select.trust_low_eV_A,
        "model_devi_f_trust_hi": param.select.trust_high_eV_A,
    }
    if own.ensembles[0] == "npt":
        job["press"] = [own.pressure_bar]
    return job


def job_losses(param: Param) -> list[str]:
    """Return what of an exploration an entry of ``model_devi_jobs`` cannot say."""
    own, found = param.explore, []
    if own.ramps:
        found.append("explore.ramps: DP-GEN explores at constant temperature only")
    if len(own.ensembles) > 1:
        found.append(f"explore.ensembles: an iteration of DP-GEN has one; {own.ensembles[0]} is written")
    return found


def updated_param(original: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return an imported ``param.json`` without the keys that DP-GEN 0.14 refuses, old names made new."""
    param: dict[str, Any] = {}
    for key, value in copy.deepcopy(dict(original)).items():
        if key.startswith("_") or ((key in READ or key in LEFT_OUT) and key not in OLD_KEYS):
            param[key] = value
        else:
            notes.append(f"param.json: {key} is left out, as DP-GEN 0.14 refuses it")
    jobs = []
    for number, job in enumerate(as_list(param.get("model_devi_jobs"))):
        for old, new in OLD_JOB_NAMES.items():
            if old in job:
                job.setdefault(new, job.pop(old))
        refused = [key for key in job if not key.startswith("_") and not _job_key_known(key)]
        for key in refused:
            job.pop(key)
            notes.append(f"param.json: model_devi_jobs[{number}].{key} is left out, as DP-GEN 0.14 refuses it")
        jobs.append(job)
    return param | {"model_devi_jobs": jobs}


def _job_key_known(key: str) -> bool:
    why = JOB_KEYS.get(key, "unknown")
    return why is None or not (why.startswith("key of an old version") or why == "unknown")


def new_param(param: Param, template: Mapping[str, Any], to_fill_in: list[str]) -> dict[str, Any]:
    """Return a ``param.json`` of a campaign that never was DP-GEN's, without data, systems and jobs."""
    found: dict[str, Any] = {
        "type_map": list(param.elements),
        "mass_map": "auto",
        "numb_models": param.train.models,
        "train_backend": param.train.backend,
        "default_training_param": training_param(param, template),
        "dp_compress": False,
        "model_devi_dt": param.explore.timestep_fs / 1000,
        "model_devi_skip": 0,
        "model_devi_f_trust_lo": param.select.trust_low_eV_A,
        "model_devi_f_trust_hi": param.select.trust_high_eV_A,
        "model_devi_clean_traj": False,
        "fp_task_max": max(1, param.select.max_labels // max(1, sum(len(g.n_atoms) for g in param.glasses))),
        "fp_task_min": 0,
    }
    return found | _fp_of(param, to_fill_in)


def training_param(param: Param, template: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``default_training_param``: DeePMD's input, with what alloop's `train` section decides."""
    own = param.train
    found = copy.deepcopy(dict(template))
    found["model"]["type_map"] = list(param.elements)
    found["learning_rate"] = {
        "type": "exp",
        **found.get("learning_rate", {}),
        "start_lr": own.learning_rate,
        "stop_lr": own.final_learning_rate,
    }
    training = found.get("training", {})
    training.pop("validation_data", None)
    training.pop("training_data", None)
    disp_freq = min(training.get("disp_freq", 100), own.save_every)
    found["training"] = training | {
        "numb_steps": own.steps,
        "disp_freq": disp_freq,
        "save_freq": own.save_every // disp_freq * disp_freq,
        "disp_file": "lcurve.out",
    }
    return found


def continued_training(
    original: Mapping[str, Any], param: Param, template: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    """Return the training keys in which alloop has left DP-GEN's: another backend, another network."""
    found: dict[str, Any] = {}
    if BACKENDS.get(original.get("train_backend", "tensorflow")) != param.train.backend:
        found["train_backend"] = param.train.backend
        notes.append(f"param.json: train_backend is {param.train.backend}, as alloop's models are")
    ours = training_param(param, template)
    theirs = (as_list(original.get("default_training_param")) or [{}])[0].get("model", {})
    same = all(
        isinstance(theirs.get(part), Mapping)
        and {key: ours["model"][part].get(key) for key in theirs[part] if key != "seed"}
        == {key: value for key, value in theirs[part].items() if key != "seed"}
        for part in ("descriptor", "fitting_net")
    )
    if not same:
        found["default_training_param"] = ours
        notes.append("param.json: default_training_param is alloop's, as its network is not the imported one")
    return found


def _fp_of(param: Param, to_fill_in: list[str]) -> dict[str, Any]:
    label = param.label
    if label.labeler == "vasp" and label.vasp is not None:
        potcars = [f"{label.vasp.potcars.get(element, element)}/POTCAR" for element in param.elements]
        to_fill_in.append(
            "param.json: fp_pp_path and fp_pp_files, if the library keeps POTCAR.NAME or compressed files"
        )
        return {
            "fp_style": "vasp",
            "fp_pp_path": label.vasp.potcar_library,
            "fp_pp_files": potcars,
            "fp_incar": "INCAR",
        }
    if label.labeler in CODES:
        to_fill_in.append(f"param.json: fp_style and its keys, for labels by {label.labeler}")
    fp_params = {"input_fmt": "vasp/poscar", "input_fn": "POSCAR", "output_fmt": "deepmd/npy", "output_fn": "labeled"}
    return {"fp_style": "custom", "fp_params": fp_params}


def new_machine(param: Param, to_fill_in: list[str]) -> dict[str, Any]:
    """Return a ``machine.json`` that runs everything on this computer, one job after the other."""
    local = local_pool(param)
    threads = str(local.threads)
    names = ("OMP_NUM_THREADS", "DP_INTRA_OP_PARALLELISM_THREADS", "DP_INTER_OP_PARALLELISM_THREADS")
    commands = {
        "train": "dp",
        "model_devi": "lmp",
        "fp": f"{FILL_IN} {param.label.run.command}" if param.label.labeler in CODES else f"{FILL_IN} {LABEL_SCRIPT}",
    }
    to_fill_in.append("machine.json: train.command and model_devi.command, the dp and lmp of a DeePMD-kit, with paths")
    if param.label.labeler in CODES:
        to_fill_in.append("machine.json: fp.command, which runs the code in a folder with its inputs")
    else:
        to_fill_in.append(f"machine.json: fp.command, a Python that has alloop and the path of {LABEL_SCRIPT}")
    return {"api_version": "1.0", "deepmd_version": "3.2.0"} | {
        name: {
            "command": command,
            "machine": {
                "batch_type": "Shell",
                "context_type": "LazyLocalContext",
                "local_root": "./",
                "remote_root": "./work",
            },
            "resources": {
                "number_node": 1,
                "cpu_per_node": local.threads,
                "gpu_per_node": 0,
                "queue_name": "",
                "group_size": 0,
                "para_deg": local.slots or 1,
                "envs": dict.fromkeys(names, threads),
            },
        }
        for name, command in commands.items()
    }


def label_script(param: Param) -> str:
    """Return the program that labels one ``POSCAR`` of DP-GEN's with this campaign's calculator."""
    return f'''"""Label the POSCAR of a DP-GEN task with alloop's labeler, as fp_style custom expects it."""

import json

import dpdata
import numpy as np

from alloop.labelers import load

labeler = load({param.label.labeler!r}, json.loads({json.dumps(param.label.options)!r}))
system = dpdata.System("POSCAR", fmt="vasp/poscar")
label = labeler.label(system.to_ase_structure()[0])
data = dict(system.data)
data["energies"] = np.array([label.energy_eV])
data["forces"], data["virials"] = label.forces_eV_A[None], label.virial_eV[None]
dpdata.LabeledSystem(data=data).to("deepmd/npy", "labeled")
'''
