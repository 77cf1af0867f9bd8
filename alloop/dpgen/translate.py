"""DP-GEN's ``param.json`` and ``machine.json`` as an alloop ``param.json``, with a list of what has no place there.

Keys are those of ``dpgen run`` 0.14 (``dpgen/generator/arginfo.py``) and, where they still stand in old files, of
versions back to 0.10. Keys that begin with an underscore are comments, as DP-GEN has it.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

from alloop.config import Param
from alloop.dpgen.keys import JOB_KEYS, LEFT_OUT, NEUTRAL, OLD_JOB_NAMES, OLD_KEYS, READ, TRAINING_KEYS
from alloop.dpgen.programs import label_section, pool_section
from alloop.dpgen.translation import BACKENDS, Known, Translation, as_list
from alloop.errors import InputError
from alloop.glass.events import ON_BY_DEFAULT
from alloop.selection.trust import LEAST_RATIO

_DEFAULTS: Any = Param.model_fields
_UNSET_V_TRUST = 1e9


def translate(param: Mapping[str, Any], machine: Mapping[str, Any], known: Known) -> Translation:
    """Return alloop's configuration; InputError for one without type_map, or that explores with another MD engine."""
    found = Translation()
    type_map = param.get("type_map")
    if not isinstance(type_map, list) or not type_map:
        raise InputError("param.json has no type_map\n  it is the order of the elements in all data; add it")
    engine = param.get("model_devi_engine", "lammps")
    if str(engine).lower() != "lammps":
        raise InputError(
            f"model_devi_engine is {engine}; alloop explores with molecular dynamics of LAMMPS or ASE\n"
            "  its labelled data can be used without the rest: bootstrap.data in a param.json of alloop's"
        )
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", known.root.name).lstrip("_.-") or "from-dpgen"
    found.param |= {"name": name, "elements": list(type_map), "glasses": list(known.glasses)}
    job = _job_in_force(param, known, found)
    found.param["train"] = _train(param, found)
    found.param["explore"] = _explore(param, job, known, found)
    found.param["select"] = _select(param, job, known, found)
    found.param["label"] = label_section(param, machine, known, found)
    left = len(param.get("model_devi_jobs", [])) - known.iterations
    if left > 0:
        found.param["stop"] = {"max_iterations": left}
    pool = pool_section(machine, found)
    if pool:
        found.param["pools"] = {"local": pool}
    _leave_out_the_rest(param, found)
    return found


def _leave_out_the_rest(param: Mapping[str, Any], found: Translation) -> None:
    for key, value in param.items():
        if key in READ or key.startswith("_") or (key in NEUTRAL and value in NEUTRAL[key]):
            continue
        if key in OLD_KEYS:
            found.leave_out(key, f"key of an old version: {OLD_KEYS[key]}")
        elif key in LEFT_OUT:
            found.leave_out(key, LEFT_OUT[key])
        else:
            found.leave_out(key, "unknown key, to DP-GEN 0.14 as well")


# ---------------------------------------------------------------------------------------- training


def _train(param: Mapping[str, Any], found: Translation) -> dict[str, Any]:
    own: dict[str, Any] = {"models": max(2, int(param.get("numb_models", 4)))}
    if int(param.get("numb_models", 4)) < 2:
        found.leave_out("numb_models", "alloop judges by the spread of 2 or more models; it trains 2")
    backend = param.get("train_backend", "tensorflow")
    if backend in BACKENDS:
        own["backend"] = BACKENDS[backend]
    else:
        found.leave_out("train_backend", f"alloop has no backend {backend}; tensorflow is used and begins anew")
    if param.get("dp_compress") is not None:
        own["compress"] = bool(param["dp_compress"])
    given = param.get("default_training_param")
    if isinstance(given, list):
        if any(entry != given[0] for entry in given[1:]):
            found.leave_out("default_training_param", "models of different networks; the first one's is used for all")
        given = given[0] if given else None
    if not isinstance(given, dict) or not _one_descriptor(given):
        why = "alloop's own template is used: it needs model.fitting_net and one model.descriptor with rcut"
        found.leave_out("default_training_param", why)
        return own
    found.templates["deepmd/input.json"] = json.dumps(_template(given, found), indent=1) + "\n"
    descriptor = given["model"]["descriptor"]
    own |= {"cutoff_A": descriptor["rcut"], "smoothing_A": descriptor.get("rcut_smth", descriptor["rcut"] - 0.5)}
    return own | _schedule(param, given, found)


def _one_descriptor(given: Mapping[str, Any]) -> bool:
    model = given.get("model", {})
    parts = [model.get("descriptor"), model.get("fitting_net")] if isinstance(model, dict) else [None]
    return all(isinstance(part, dict) for part in parts) and "rcut" in model["descriptor"]


def _template(given: Mapping[str, Any], found: Translation) -> dict[str, Any]:
    """Return DeePMD's input without what alloop sets itself: data, steps, rates, seeds, file names."""
    template = copy.deepcopy(dict(given))
    template["model"].pop("type_map", None)
    for part in ("descriptor", "fitting_net", "type_embedding"):
        if isinstance(template["model"].get(part), dict):
            template["model"][part].pop("seed", None)
    rates = template.setdefault("learning_rate", {})
    for key in ("start_lr", "stop_lr"):
        rates.pop(key, None)
    if rates.pop("decay_rate", None) is not None:
        found.leave_out("default_training_param.learning_rate.decay_rate", "alloop decays to final_learning_rate")
    training = template.setdefault("training", {})
    data = {key: dict(training.pop(key, {})) for key in ("training_data", "validation_data")}
    for key in [key for key in training if key in TRAINING_KEYS]:
        value = training.pop(key)
        if TRAINING_KEYS[key] and value not in (None, [], ""):
            found.leave_out(f"default_training_param.training.{key}", TRAINING_KEYS[key])
    batch = data["training_data"].get("batch_size", "auto")
    training["training_data"] = training["validation_data"] = {"batch_size": batch}
    return template


def _schedule(param: Mapping[str, Any], given: Mapping[str, Any], found: Translation) -> dict[str, Any]:
    """Return steps and learning rates; what DP-GEN reuses a model with is how alloop's ensembles go on."""
    training, rates = given.get("training", {}), given.get("learning_rate", {})
    steps = training.get("numb_steps", training.get("stop_batch", _default("train", "steps")))
    start = float(rates.get("start_lr", 1e-3))
    final = float(rates.get("stop_lr", 1e-8))
    reused = {key: param.get(f"training_reuse_{key}") for key in ("iter", "numb_steps", "stop_batch", "start_lr")}
    own: dict[str, Any] = {"steps": steps, "learning_rate": start}
    if reused["iter"] is None:
        own |= {"warm_steps": steps, "warm_learning_rate": max(start / 2, 2 * final)}
        found.leave_out(
            "training_reuse_iter",
            "not given, so DP-GEN begins every training anew; alloop goes on from the last ensemble with half the "
            "learning rate (train.warm_start false for the other)",
        )
    else:
        own["warm_steps"] = reused["numb_steps"] or reused["stop_batch"] or 400000
        own["warm_learning_rate"] = float(reused["start_lr"] or 1e-4)
    own["final_learning_rate"] = min(final, own["warm_learning_rate"] / 2, start / 2)
    if "save_freq" in training:
        own["save_every"] = training["save_freq"]
    return own


def _default(section: str, key: str) -> Any:
    return getattr(_DEFAULTS[section].get_default(), key)


# ---------------------------------------------------------------------------------------- exploration


def _job_in_force(param: Mapping[str, Any], known: Known, found: Translation) -> dict[str, Any]:
    """Return the exploration of the next iteration, or of the last if none is left, with old names made new."""
    jobs = param.get("model_devi_jobs") or []
    if not jobs:
        found.leave_out("model_devi_jobs", "is empty; alloop's own temperatures are used")
        return {}
    index = min(known.iterations, len(jobs) - 1)
    job = dict(jobs[index])
    for old, new in OLD_JOB_NAMES.items():
        if old in job:
            job.setdefault(new, job.pop(old))
            found.leave_out(f"model_devi_jobs[{index}].{old}", f"old name of {new}, translated as that")
    others = [other for other in jobs[known.iterations :] if _explored(other) != _explored(jobs[index])]
    if others:
        why = f"alloop explores alike in every iteration; entry {index} is used, {len(others)} that differ are not"
        found.leave_out("model_devi_jobs", why)
    for key, value in job.items():
        if key in JOB_KEYS and JOB_KEYS[key] is None:
            continue
        if not key.startswith("_") and value not in (None, [], {}):
            why = JOB_KEYS.get(key) or "unknown key, to DP-GEN 0.14 as well"
            found.leave_out(f"model_devi_jobs[{index}].{key}", why)
    return job


def _explored(job: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in job.items() if not key.startswith("_")}


def _explore(param: Mapping[str, Any], job: Mapping[str, Any], known: Known, found: Translation) -> dict[str, Any]:
    own: dict[str, Any] = {"ramps": [], "chunks": 1}
    temperatures = [float(value) for value in as_list(job.get("temps"))]
    if temperatures:
        own["temperatures_K"] = list(dict.fromkeys(temperatures))
    else:
        found.to_fill_in.append("explore.temperatures_K: DP-GEN's job names none; alloop's defaults stand")
    ensemble = str(job.get("ensemble", "nvt"))
    own["ensembles"] = ["npt" if ensemble.startswith("npt") else "nvt"]
    if ensemble not in ("nvt", "npt", "npt-i", "npt-iso"):
        found.leave_out("model_devi_jobs.ensemble", f"alloop has no {ensemble}; {own['ensembles'][0]} is used")
    pressures = [float(value) for value in as_list(job.get("press"))]
    if pressures and own["ensembles"] == ["npt"]:
        own["pressure_bar"] = pressures[0]
        if len(pressures) > 1:
            found.leave_out("model_devi_jobs.press", f"alloop explores one pressure, {pressures[0]:g} bar")
    timestep_ps = float(job.get("dt") or param.get("model_devi_dt", 0.002))
    own["timestep_fs"] = round(timestep_ps * 1000, 6)
    if "nsteps" in job:
        own["chunk_ps"] = round(int(job["nsteps"]) * timestep_ps, 6)
    if "trj_freq" in job:
        own["deviation_every"] = int(job["trj_freq"])
    numbers = [count for count in known.structures.values() if count]
    if numbers:
        own["trajectories"] = min(numbers)
        if len(set(numbers)) > 1:
            found.leave_out(
                "sys_configs",
                f"systems have from {min(numbers)} to {max(numbers)} start structures; alloop runs "
                f"{min(numbers)} trajectories of each glass and temperature, from structures drawn among all",
            )
    return own


# ---------------------------------------------------------------------------------------- selection


def trust_levels(param: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the force trust levels ``lo`` and ``hi`` (eV/Å) of all systems in force; [] where none is given."""
    found = {}
    for end in ("lo", "hi"):
        key = f"model_devi_f_trust_{end}"
        value = job.get(key, job.get(f"f_trust_{end}", param.get(key)))
        values = value.values() if isinstance(value, dict) else as_list(value)
        found[end] = [float(number) for number in values]
    return found


def _select(param: Mapping[str, Any], job: Mapping[str, Any], known: Known, found: Translation) -> dict[str, Any]:
    levels = trust_levels(param, job)
    own: dict[str, Any] = {}
    if levels["lo"] and levels["hi"]:
        own |= {"trust_low_eV_A": min(levels["lo"]), "trust_high_eV_A": max(levels["hi"])}
        if len(set(levels["lo"])) > 1 or len(set(levels["hi"])) > 1:
            found.leave_out(
                "model_devi_f_trust_lo/hi", "alloop has one pair for all; the lowest and the highest are used"
            )
        if own["trust_high_eV_A"] < LEAST_RATIO * own["trust_low_eV_A"]:
            own["trust"] = "fixed"
            found.leave_out(
                "model_devi_f_trust_lo/hi", f"less than a factor of {LEAST_RATIO:g} apart, they cannot follow the error"
            )
        if own["trust_high_eV_A"] > found.param["explore"].get("lost_eV_A", _default("explore", "lost_eV_A")):
            found.param["explore"]["lost_eV_A"] = 2 * own["trust_high_eV_A"]
    else:
        found.to_fill_in.append("select.trust_low_eV_A and trust_high_eV_A: DP-GEN's file has none; defaults stand")
    for end in ("lo", "hi"):
        key = f"model_devi_v_trust_{end}"
        values = as_list(job.get(key, param.get(key)))
        if any(not isinstance(value, dict) and float(value) < _UNSET_V_TRUST for value in values):
            found.leave_out(key, "alloop selects by the deviation of forces")
    systems = len({system.system for system in known.systems}) or 1
    if "fp_task_max" in param:
        total = max(1, int(param["fp_task_max"]) * systems)
        share = 0.05 * total  # for the audit, and for each event over all temperature bands
        bands = 1 + len(_default("select", "temperature_bands_K"))
        own |= {
            "max_labels": total,
            "audit": max(1, round(share)),
            "events": {name: {"quota": max(1, round(share / bands))} for name in ON_BY_DEFAULT},
        }
        found.leave_out("fp_task_max", f"is per system; alloop's max_labels is for all {systems} together, {total}")
    return own
