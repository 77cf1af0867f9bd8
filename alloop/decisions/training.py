"""Training and judging an ensemble: its data sets, its errors, and whether the campaign is converged."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from alloop.campaign import Campaign
from alloop.config import Param
from alloop.decisions.reference import reference_tasks
from alloop.errors import NeedsPersonError
from alloop.frames import read_all_structures
from alloop.potential.neighbours import adequate_sel
from alloop.potential.short_range import short_range
from alloop.quench_params import FinalTrainingParam
from alloop.resources import find_template
from alloop.seeds import derived_seed
from alloop.state import task_entries
from alloop.store import Task, make_task
from alloop.structure import from_record
from alloop.tasks.sources import checkpoint_hash


def decide_train(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for K models on all training labels, each with its own seed, warm-started from the last ensemble.

    The first ensemble starts from `train.init_models`, if given. Their content enters the tasks' keys, not their place.
    """
    state = campaign.state
    training, held_out = sorted(state.labels("training")), sorted(state.labels("held_out"))
    return training_tasks(campaign, param, iteration, "train", training, held_out)


def training_tasks(
    campaign: Campaign,
    param: Param,
    iteration: int,
    kind: str,
    training: list[str],
    held_out: list[str],
    energy_shift_eV: dict[str, float] | None = None,
    final: FinalTrainingParam | None = None,
) -> dict[str, Any]:
    """Return the decision (of kind train, pretrain or final_train) that asks for an ensemble on these labels.

    final: how long it trains where that differs from `train` of the configuration. NeedsPersonError if there is
    nothing to train on.
    """
    own = param.train
    if not training:
        raise NeedsPersonError(
            "no label to train on: every label was quarantined, excluded or held out\n"
            "  alloop status shows why; mend the labeler, then: alloop retry"
        )
    network = _network(campaign, param, iteration)
    template = apply_network(json.loads(find_template(own.template, campaign.root).read_text()), network)
    before = _start_from(campaign, iteration, kind, network, template["model"]) if own.warm_start else []
    continued = len(before) == own.models
    foreign = own.init_models if iteration == 0 and not continued else []
    warm = continued or bool(foreign)
    common = {
        "type_map": param.elements,
        "training": training,
        "held_out": held_out,
        "template": template,
        "network": network,
        "backend": own.backend,
        "steps": own.warm_steps if warm else own.steps,
        "start_lr": own.warm_learning_rate if warm else own.learning_rate,
        "stop_lr": own.final_learning_rate,
        "save_every": own.save_every,
        "compress": own.compress,
        "resume": own.resume,
    } | ({"energy_shift_eV": energy_shift_eV} if energy_shift_eV else {})
    if warm and final is None:
        common["scratch"] = {"steps": own.steps, "start_lr": own.learning_rate}  # if a checkpoint cannot be used
    if final is not None:
        common |= {"steps": final.steps, "start_lr": final.learning_rate or common["start_lr"]}
    tasks = []
    for number in range(own.models):
        init = before[number] if continued else None
        spec = common | {"init": init, "seed": derived_seed(param.seed, kind, iteration, number)}
        if kind == "train" and number == 0 and campaign.state.describer is None:
            spec["describe"] = True
        if foreign:
            spec["init_sha256"] = checkpoint_hash(campaign.root / foreign[number], own.backend)
        inputs = (init,) if init else ()
        files = {"init": foreign[number]} if foreign else {}
        group = f"iter.{iteration:06d}/{'final' if kind == 'final_train' else kind}"
        tasks.append(make_task("train", group, f"model.{number:02d}", spec, inputs, files))
    return {"inputs": training + held_out, "common": common, "tasks": task_entries(tasks, common)}


def _start_from(
    campaign: Campaign, iteration: int, kind: str, network: dict[str, Any], model: dict[str, Any]
) -> list[str]:
    """Return the models whose weights an ensemble starts from: those trained before it at the same level of theory.

    That is the pre-trained ensemble where there is one, else the last; for a final training the one it makes better.
    None after a relabelling, nor for pre-training itself: energies may be on another scale, and a warm start keeps the
    old one's energy of an atom, which is not trained. None of another network, be it by `train` or by the template.
    """
    state = campaign.state
    if kind == "pretrain":
        return []
    source = ("pretrain", iteration) if state.decided("pretrain", iteration) else ("train", iteration - 1)
    if kind == "final_train":
        source = "train", iteration
    if source not in state.decisions:
        return []
    relabelled = state.decisions.get(("relabel", source[1] if kind == "final_train" else iteration - 1))
    if relabelled and (source[0] == "train" or relabelled["number"] > state.decisions[source]["number"]):
        return []
    common = state.decisions[source]["common"]
    if common["network"] != network or common["template"]["model"] != model:
        return []
    return [task["key"] for task in state.decisions[source]["tasks"] if task["key"] in state.done]


def _network(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Return what of the configuration decides the network, and `sel`, which is fixed for the whole campaign.

    Weights fit one `sel` only, so it is counted once, over all starting configurations, with room for denser ones.
    """
    own = param.train
    first = campaign.state.decisions.get(("train", 0))
    same_cutoff = first is not None and first["common"]["network"]["cutoff_A"] == own.cutoff_A
    wall = {"short_range": asdict(short_range(own.short_range, param.elements))} if own.short_range else {}
    return wall | {
        "cutoff_A": own.cutoff_A,
        "smoothing_A": own.smoothing_A,
        "sel": first["common"]["network"]["sel"] if first and same_cutoff else _sel(campaign, param),
        "neuron": own.neuron,
        "axis_neuron": own.axis_neuron,
        "fitting_neuron": own.fitting_neuron,
        "backend": own.backend,
    }


def _sel(campaign: Campaign, param: Param) -> list[int]:
    structures = [
        from_record(record)
        for entry in campaign.state.decisions["bootstrap", -1]["tasks"]
        if entry["key"] in campaign.state.done
        for record in read_all_structures(campaign.result(entry["key"]))
    ]
    return adequate_sel(structures, param.elements, param.train.cutoff_A)


def apply_network(template: dict[str, Any], network: dict[str, Any]) -> dict[str, Any]:
    """Return the DeePMD input with the network settings of `param.json` written over the template's.

    A template that gives numbers for `sel` keeps them; "auto" becomes the campaign's.
    """
    descriptor = dict(template["model"]["descriptor"])
    fitting = dict(template["model"]["fitting_net"])
    descriptor |= {"rcut": network["cutoff_A"], "rcut_smth": network["smoothing_A"]}
    if str(descriptor.get("sel", "auto")).startswith("auto"):
        descriptor["sel"] = network["sel"]
    if network["neuron"]:
        descriptor["neuron"] = network["neuron"]
    if network["axis_neuron"]:
        descriptor["axis_neuron"] = network["axis_neuron"]
    if network["fitting_neuron"]:
        fitting["neuron"] = network["fitting_neuron"]
    return template | {"model": template["model"] | {"descriptor": descriptor, "fitting_net": fitting}}


def new_labels(campaign: Campaign, iteration: int) -> dict[str, list[str]]:
    """Return the finished labels that an iteration asked for: those sought for what they are, and the random audit.

    A frame of the audit that had been asked for before it was drawn is in both.
    """
    state = campaign.state
    picks = state.picks_in.get(iteration, [])
    done = {pick["key"]: pick for pick in picks if pick["key"] in state.done and pick["key"] not in state.excluded}
    drawn = state.decisions["select", iteration].get("audit", ())
    return {
        "new": [key for key, pick in done.items() if pick["reason"] != "audit"],
        "audit": [key for key, pick in done.items() if pick["reason"] == "audit" or key in drawn],
    }


def evaluation_task(
    campaign: Campaign,
    param: Param,
    iteration: int,
    sets: dict[str, list[str]],
    group: str,
    models: list[str] | None = None,
    name: str = "ensemble",
) -> Task:
    """Return the task that measures an iteration's ensemble, or other models of it, on sets of labels."""
    models = campaign.state.models(iteration) if models is None else models
    spec = {"models": models, "type_map": param.elements, "sets": {name: sorted(keys) for name, keys in sets.items()}}
    inputs = tuple(models) + tuple(sorted({key for keys in sets.values() for key in keys}))
    return make_task("evaluate", group, f"{name}.{iteration:02d}", spec, inputs)


def decide_evaluate(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for the ensemble's errors on the newest labels, before anything trains on them, and on the held-out sets."""
    sets = new_labels(campaign, iteration) | held_out_sets(campaign)
    task = evaluation_task(campaign, param, iteration, sets, f"iter.{iteration:06d}/evaluate")
    return {"tasks": task_entries([task, *reference_tasks(campaign, param)], {})}


def held_out_sets(campaign: Campaign) -> dict[str, list[str]]:
    """Return the two held-out sets: of the bootstrap, and the one that grows with exploration."""
    state = campaign.state
    keys = state.labels("held_out")
    return {
        "held_out_bootstrap": [key for key in keys if state.picks[key]["iteration"] < 0],
        "held_out_explore": [key for key in keys if state.picks[key]["iteration"] >= 0],
    }
