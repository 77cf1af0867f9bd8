"""A longer training of the converged ensemble on all labels: used for the quench if it is no worse on held-out sets."""

from __future__ import annotations

from typing import Any

from alloop.campaign import Campaign
from alloop.config import Param
from alloop.decisions.quenching import outdated, quench_section
from alloop.decisions.training import evaluation_task, held_out_sets, training_tasks
from alloop.state import task_entries

LONGER = ("final_train", "final_check")
"""The decisions of a longer training."""
COMPARED = {"force_rmse_eV_A": ("forces", 1, "eV/A"), "energy_rmse_eV_atom": ("energies", 1000, "meV/atom")}
"""The errors that must be no larger, by their name in the summary of an evaluation: name, factor and unit to tell."""


def decide_final_train(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for the ensemble again, trained longer on all training labels there are now.

    What an earlier quench asked for and nobody has begun waits until the next one asks for it.
    """
    state = campaign.state
    assert param.quench is not None
    training, held_out = sorted(state.labels("training")), sorted(state.labels("held_out"))
    final = param.quench.final_training
    content = training_tasks(campaign, param, iteration, "final_train", training, held_out, final=final)
    keys = {task["key"] for task in content["tasks"]}
    return content | {"section": quench_section(param), "withdrawn": outdated(campaign, keys, (*LONGER, "quench"))}


def final_models(campaign: Campaign, iteration: int) -> list[str]:
    """Return the models that were trained longer, in order; empty unless all of them are done."""
    decision = campaign.state.decisions.get(("final_train", iteration))
    keys = [task["key"] for task in decision["tasks"]] if decision else []
    return keys if all(key in campaign.state.done for key in keys) else []


def decide_final_check(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for the errors on the held-out sets of the models trained longer, and of the ensemble they come from."""
    models, group = final_models(campaign, iteration), f"iter.{iteration:06d}/final-check"
    sets = {name: keys for name, keys in held_out_sets(campaign).items() if keys}
    compared = [("final", models), ("ensemble", campaign.state.models(iteration))] if models and sets else []
    tasks = [evaluation_task(campaign, param, iteration, sets, group, own, name) for name, own in compared]
    return {"section": quench_section(param), "tasks": task_entries(tasks, {})}


def models_to_quench(campaign: Campaign, param: Param, iteration: int) -> tuple[list[str], dict[str, Any] | None]:
    """Return the models that drive the quench, and what the longer training gave (None if none was wanted).

    The models trained longer are taken if the RMSE of neither forces nor energies per atom is larger on any held-out
    set; what could not be trained or measured is not used, and the record says so.
    """
    ensemble, final = campaign.state.models(iteration), final_models(campaign, iteration)
    if param.quench is None or param.quench.final_training is None:
        return ensemble, None
    check = campaign.state.decisions.get(("final_check", iteration), {"tasks": []})
    done = [task["key"] for task in check["tasks"] if task["key"] in campaign.state.done]
    if not final or len(done) < 2:
        reason = "it failed" if not final else "it could not be measured on held-out labels"
        return ensemble, {"used": False, "reason": f"the longer training is not used: {reason}"}
    after, before = (campaign.summary(key) for key in done)
    errors = {key: {name: [own[name][key] for own in (before, after)] for name in before} for key in COMPARED}
    worse, told = [], []
    for key, (what, factor, unit) in COMPARED.items():
        for name, (old, new) in errors[key].items():
            told.append(f"{what} of {name} {factor * old:.4g} -> {factor * new:.4g} {unit}")
            worse += [f"{what} of {name}"] * (not new <= old)
    verdict = f"is not used, as it is worse in {' and '.join(worse)}" if worse else "is used"
    record = {"used": not worse, "reason": f"the longer training {verdict} ({'; '.join(told)})"}
    return (ensemble if worse else final), record | errors
