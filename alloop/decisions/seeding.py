"""The bootstrap: which starting configurations are made, and which of them are labelled and held out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from alloop.campaign import Campaign, given_labels, label_task
from alloop.config import DataParam, Param
from alloop.decisions.force_fields import ForceField, force_field
from alloop.frames import read_all_structures, read_columns
from alloop.glass.composition import Glass, stoichiometric_counts
from alloop.glass.crystals import CRYSTALS
from alloop.resources import find_template
from alloop.seeds import derived_seed
from alloop.state import task_entries
from alloop.store import Task, make_task
from alloop.tasks.sources import file_hash

_GROUP = "bootstrap/seed"


def decide_bootstrap(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for melt-quench runs, crystals and a person's own structures and data; draw the held-out trajectories."""
    melts = _melt_quenches(campaign, param)
    others = _crystals(campaign, param) + _own(campaign, param)
    fraction = param.bootstrap.held_out_fraction
    trajectories = _given_roles(param)
    for group in [*melts, others]:
        names = [task.name for task in group if task.name not in trajectories]
        trajectories |= draw_roles(names, fraction, derived_seed(param.seed, "held-out", names[0]) if names else 0)
    tasks = [task for group in melts for task in group] + others
    return {"tasks": task_entries(tasks, {}), "trajectories": trajectories}


def draw_roles(names: list[str], fraction: float, seed: int) -> dict[str, str]:
    """Return name -> training or held_out; of two or more names at least one of each, if fraction is above 0."""
    count = round(fraction * len(names))
    if fraction > 0 and len(names) > 1:
        count = min(max(count, 1), len(names) - 1)
    chosen = set(np.random.default_rng(seed).permutation(len(names))[:count].tolist())
    return {name: "held_out" if index in chosen else "training" for index, name in enumerate(names)}


def glass_record(glass: Glass) -> dict[str, Any]:
    """Return the JSON form of a glass, from which `Glass(**record)` makes it again."""
    return asdict(glass) | {"mole_fractions": dict(glass.mole_fractions)}


def _melt_quenches(campaign: Campaign, param: Param) -> list[list[Task]]:
    own = param.bootstrap
    template = find_template("lammps/melt_quench.in", campaign.root).read_text()
    schedule = {
        "melt_temperature_K": own.melt_temperature_K,
        "final_temperature_K": own.final_temperature_K,
        "melt_ps": own.melt_ps,
        "cooling_rate_K_ps": (own.melt_temperature_K - own.final_temperature_K) / own.quench_ps,
        "timestep_fs": own.timestep_fs,
        "n_snapshots": own.snapshots,
    }
    groups, fields, made = [], _force_fields(campaign, param), 0
    for entry in param.glasses:
        glass = entry.glass()
        for wanted in entry.n_atoms:
            counts = stoichiometric_counts(glass, wanted)
            size = sum(counts.values())
            group = []
            for number in range(own.trajectories):
                name = f"{glass.name}.n{size}.t{number:02d}"
                spec = {
                    "source": "melt-quench",
                    "glass": glass_record(glass) | {"experimental_4B": None},
                    "counts": counts,
                    "schedule": schedule,
                    "template": template,
                    "force_field": fields[made % len(fields)].spec,
                    "seed": derived_seed(param.seed, "bootstrap", name),
                    "strained_copies": own.strained_copies,
                    "max_strain": own.max_strain,
                    "rattle_A": own.rattle_A,
                }
                group.append(make_task("bootstrap", _GROUP, name, spec, files=fields[made % len(fields)].files))
                made += 1
            if group:
                groups.append(group)
    return groups


def _force_fields(campaign: Campaign, param: Param) -> list[ForceField]:
    """The seed force fields in their order."""
    return [force_field(campaign.root, name) for name in param.bootstrap.force_fields]


def _crystals(campaign: Campaign, param: Param) -> list[Task]:
    own = param.bootstrap
    size = max((n for glass in param.glasses for n in glass.n_atoms), default=84)
    tasks, fields = [], _force_fields(campaign, param) if own.crystal_md_K else []
    for number, crystal in enumerate(own.crystals):
        name = f"crystal{number:02d}.{Path(crystal).stem}"
        spec: dict[str, Any] = {
            "source": "crystal",
            "crystal": crystal if crystal in CRYSTALS else "file",
            "n_atoms": size,
            "copies": own.crystal_copies,
            "max_strain": own.max_strain,
            "rattle_A": own.rattle_A,
            "seed": derived_seed(param.seed, "bootstrap", name),
            "md_K": own.crystal_md_K,
        }
        files = {} if crystal in CRYSTALS else {"file": crystal}
        if fields:
            field = fields[number % len(fields)]
            spec |= {"md_ps": own.crystal_md_ps, "force_field": field.spec}
            files |= field.files
        tasks.append(_task_on_file(campaign, name, spec, files))
    return tasks


def _own(campaign: Campaign, param: Param) -> list[Task]:
    tasks = [
        _task_on_file(campaign, f"structures{number:02d}.{Path(path).stem}", {"source": "structures"}, {"file": path})
        for number, path in enumerate(param.bootstrap.structures)
    ]
    for number, data in enumerate(param.bootstrap.data):
        spec = {"source": "data", "format": data.format, "every": data.every, "level": data.level}
        tasks.append(_task_on_file(campaign, _data_name(number, data), spec, {"file": data.path}))
    return tasks


def _data_name(number: int, data: DataParam) -> str:
    return f"data{number:02d}.{Path(data.path).stem}"


def _given_roles(param: Param) -> dict[str, str]:
    """Return name -> role of the data whose role a person has fixed."""
    return {_data_name(number, data): data.role for number, data in enumerate(param.bootstrap.data) if data.role}


def _task_on_file(campaign: Campaign, name: str, spec: dict[str, Any], files: dict[str, str]) -> Task:
    if "file" in files:
        spec = spec | {"sha256": file_hash(campaign.root / files["file"])}
    return make_task("bootstrap", _GROUP, name, spec, files=files)


def decide_seed_labels(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for the label of every bootstrap frame, in the set its trajectory belongs to; equal frames once."""
    state, level = campaign.state, campaign.level
    picks: dict[str, dict[str, Any]] = {}
    for entry in state.decisions["bootstrap", -1]["tasks"]:
        if entry["key"] not in state.done:
            continue
        result = campaign.result(entry["key"])
        columns = read_columns(result)
        given = "energy_eV" in columns
        for frame, structure in enumerate(read_all_structures(result)):
            content = given_labels(columns, frame, entry["spec"]["level"]) if given else level["content"]
            name = f"{entry['name']}.s{frame:04d}"
            task = label_task("bootstrap/label", name, structure, content, ())
            picks.setdefault(
                task.key,
                {
                    "key": task.key,
                    "name": name,
                    "source": {"task": entry["key"], "frame": frame},
                    "given": given,
                    "level": entry["spec"]["level"] if given else level["name"],
                    "trajectory": entry["name"],
                    "role": state.trajectories[entry["name"]],
                    "reason": "bootstrap",
                    "temperature_K": _finite(columns["temperature_K"][frame]),
                },
            )
    return {"level": level, "picks": list(picks.values())}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
