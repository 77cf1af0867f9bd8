"""Relaxing what an ensemble made with the labeler: are its fourfold boron and fivefold silicon the labeler's, too?"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from alloop.campaign import Campaign
from alloop.config import Param
from alloop.decisions.quenching import outdated
from alloop.labelers.levels import relax_content
from alloop.quench_params import RelaxParam
from alloop.selection.convergence import Criterion, State
from alloop.state import quench_runs, task_entries
from alloop.store import Task, make_task
from alloop.structure import content_key

RELAXED = {"fraction_4B": ("4B", "of B"), "fraction_5Si": ("5Si", "of Si")}
"""What must stay as it is, with its name and unit."""
STANDARD_ERRORS = 2.0


def relax_tasks(
    campaign: Campaign, own: RelaxParam, quench: dict[str, Any], largest_atoms: int | None, group: str
) -> list[Task]:
    """Return the tasks that relax the glass of each run of a quench or probe that came to its end.

    It is the last analysed frame, or the energy minimum of the models that the run went to from there. Only in cells up
    to a size, if one is given. Where a force field drove the first stages, what they ended in is relaxed, too, once for
    all runs that go on from it.
    """
    relax = relax_content(campaign.level["content"]["labeler"], own.force_eV_A, own.steps, cell=False)
    runs = [run for run in quench_runs(quench) if largest_atoms is None or run["atoms"] <= largest_atoms]
    return _tasks(campaign, runs, group, relax)


def point_tasks(campaign: Campaign, own: RelaxParam, quench: dict[str, Any], group: str) -> list[Task]:
    """Return the tasks that only ask for the labeler's energy, of the same structures in cells too large to relax."""
    return _tasks(campaign, [run for run in quench_runs(quench) if run["atoms"] > own.largest_atoms], group, None)


def _tasks(campaign: Campaign, runs: list[dict[str, Any]], group: str, relax: dict[str, Any] | None) -> list[Task]:
    """Return the tasks for the structures that these runs made; relax: how, or None for their energy only."""
    tasks: dict[str, Task] = {}
    for run in runs:
        classical = [entry["key"] for entry in run["chunks"] if "force_field" in entry["spec"]][-1:]
        analysed = [entry["key"] for entry in run["analysed"]]
        of_models: dict[str, Any] = {"analysed": analysed, "minimum": _minimum(campaign, run)}
        of_field: dict[str, Any] = {"analysed": [], "minimum": None}
        made = ((analysed, run["name"], of_models), (classical, f"{run['name']}.force-field", of_field))
        for keys, name, more in made:
            if keys and _is_finished(campaign, keys[-1]):
                spec = more | {"glass": run["glass"], "relax": relax}
                tasks.setdefault(keys[-1], _relax_task(campaign, spec, keys[-1], group, name))
    return list(tasks.values())


def _is_finished(campaign: Campaign, key: str) -> bool:
    return key in campaign.state.done and campaign.summary(key)["status"] == "finished"


def _minimum(campaign: Campaign, run: dict[str, Any]) -> str | None:
    """Return the task that minimised what a run's analysed end led to; None without one, or if it did not converge."""
    keys = [entry["key"] for entry in run["chunks"]]
    last = keys.index(run["analysed"][-1]["key"]) if run["analysed"] else len(keys)
    following = [entry for entry in run["chunks"][last + 1 : last + 2] if entry["spec"]["stage_kind"] == "minimise"]
    reached = [entry["key"] for entry in following if _is_finished(campaign, entry["key"])]
    return next((key for key in reached if campaign.summary(key)["converged"]), None)


def _relax_task(campaign: Campaign, spec: dict[str, Any], key: str, group: str, name: str) -> Task:
    inputs = dict.fromkeys([key, *spec["analysed"], *filter(None, [spec["minimum"]])])
    spec = spec | {"start": {"task": key, "frame": -1}, "level": campaign.level["content"]}
    return make_task("relax", group, name, spec, tuple(inputs))


def decide_relax(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for the relaxation of what the probe of this ensemble made, if nothing else speaks against the ensemble.

    It is the dearest of all criteria: for nothing unless the others are met.
    """
    from alloop.decisions.convergence import judged
    from alloop.selection.convergence import verdict

    own, probe = param.stop.relax, campaign.state.decisions.get(("probe", iteration))
    if own is None or probe is None or not verdict(judged(campaign, param, iteration)).converged:
        return {"tasks": []}
    group = f"iter.{iteration:06d}/relax"
    return {"tasks": task_entries(relax_tasks(campaign, own, probe, own.largest_atoms, group), {})}


def decide_relax_glass(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for the relaxation of the glasses that the quench with this ensemble made.

    ``points`` are those in cells too large for it, of which the energy is asked for as they are.
    """
    assert param.quench is not None and param.quench.relax is not None
    own, quench = param.quench.relax, campaign.state.decisions["quench", iteration]
    tasks = relax_tasks(campaign, own, quench, own.largest_atoms, "production/relax")
    points = point_tasks(campaign, own, quench, "production/relax")
    withdrawn = outdated(campaign, {task.key for task in (*tasks, *points)}, ("relax_glass",))
    asked = {"tasks": task_entries(tasks, {}), "points": task_entries(points, {})}
    return {"section": relaxation(param), "withdrawn": withdrawn} | asked


def relaxation(param: Param) -> str:
    """Return a hash of how quenched glasses are relaxed; empty if they are not."""
    return content_key(param.quench.relax.model_dump(mode="json")) if param.quench and param.quench.relax else ""


def relaxed_glasses(param: Param) -> int:
    """Return how many structures are relaxed at most before a verdict, once all other criteria are met."""
    return param.stop.probe.replicas * len(param.glasses) if param.stop.relax and param.stop.probe else 0


def relax_records(campaign: Campaign, decision: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return glass, run, and what was seen before and after, of each relaxation that has ended well."""
    return [
        {"run": entry["name"], "glass": entry["spec"]["glass"]} | campaign.summary(entry["key"])
        for entry in (decision["tasks"] if decision else ())
        if entry["key"] in campaign.state.done
    ]


def relax_criteria(campaign: Campaign, param: Param, iteration: int) -> list[Criterion]:
    """Return, per glass, whether 4B and 5Si stay as they are, on average and in each structure; see `unchanged`."""
    if param.stop.relax is None or param.stop.probe is None:
        return []
    tolerance = param.stop.probe.tolerance.fraction
    decision = campaign.state.decisions.get(("relax", iteration))
    if decision is None or not decision["tasks"]:
        told = "relaxing with the labeler waits until all else is met"
        return [Criterion("relaxing with the labeler", "unknown", None, None, "", told)]
    records = relax_records(campaign, decision)
    glasses = dict.fromkeys(entry["spec"]["glass"] for entry in decision["tasks"])
    criteria = []
    for glass in glasses:
        asked = sum(entry["spec"]["glass"] == glass for entry in decision["tasks"])
        mine = [one for one in records if one["glass"] == glass]
        for key, (name, unit) in RELAXED.items():
            own = [one for one in mine if one["before"][key] is not None]
            if own or not mine:  # a glass of which nothing could be relaxed is unknown, one without silicon has no 5Si
                found = unchanged(f"{name} of {glass}", unit, [_pair(one, key) for one in own], tolerance)
                criteria.append(_all_told(found, asked, asked - len(mine)))
    return criteria


def _all_told(found: Criterion, asked: int, lacking: int) -> Criterion:
    """Return the criterion, not met where structures could not be relaxed: those may be least like the labeler's."""
    if not lacking:
        return found
    told = f"{found.sentence}; {lacking} of {asked} structures could not be relaxed"
    return replace(found, state="unknown" if found.state == "met" else found.state, sentence=told)


def _pair(record: dict[str, Any], key: str) -> tuple[float, float]:
    return float(record["before"][key]), float(record["after"][key])


def unchanged(name: str, unit: str, pairs: list[tuple[float, float]], tolerance: float) -> Criterion:
    """Return the criterion that values before and after relaxing agree: mean difference within two standard errors.

    The error is that of the paired differences between replicas; fewer than two pairs leave it unknown. So does an
    error that could hide a mean difference beyond the tolerance. Changes that cancel are changes: the mean absolute
    one must be within the tolerance, too.
    """
    title = f"{name} before and after relaxing"
    if len(pairs) < 2:
        told = f"{title}: {len(pairs)} of at least 2 structures were relaxed"
        return Criterion(title, "unknown", None, 0.0, unit, told)
    before, after = np.array(pairs).T
    differences = after - before
    mean, absolute = float(differences.mean()), float(np.abs(differences).mean())
    hidden = STANDARD_ERRORS * float(differences.std(ddof=1)) / math.sqrt(len(differences))
    agree = abs(mean) <= hidden + 1e-12
    state: State = "met" if agree else "unmet"
    found = (
        f"{name} is {before.mean():.3g} {unit} before relaxing with the labeler and {after.mean():.3g} after: they "
        f"{'agree' if agree else 'differ'} within {STANDARD_ERRORS:g} standard errors "
        f"({mean:+.2g} +- {hidden / STANDARD_ERRORS:.2g})"
    )
    if absolute > tolerance + 1e-12:
        state = "unmet"
        found += f", but a structure changes by {absolute:.2g} on average, {tolerance:g} allowed"
    elif agree and hidden > tolerance + 1e-12:
        state = "unknown"
        found += f", not resolved: up to {hidden:.2g} could go unnoticed, {tolerance:g} allowed; relax more structures"
    return Criterion(title, state, mean, 0.0, unit, found)
