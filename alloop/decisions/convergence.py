"""The verdict on an ensemble: every criterion with what was found, and what its audit tells."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from alloop.campaign import Campaign
from alloop.config import Param
from alloop.decisions.calibration import (
    LEAST_AUDIT_LABELS,
    LEAST_AUDIT_TRAJECTORIES,
    audit_groups,
    audit_record,
    calibrate,
)
from alloop.decisions.probing import probe_criteria, probed
from alloop.decisions.reference import reference_criteria
from alloop.decisions.relaxing import relax_criteria, relax_records
from alloop.seeds import derived_seed
from alloop.selection.convergence import Criterion, at_least, at_most, improvement_criterion, verdict
from alloop.selection.learning_curve import LearningCurve, fit_learning_curve
from alloop.selection.record import plain
from alloop.stop_params import StopParam

Errors = dict[str, Any]
NOTICEABLE_SHARE = 0.05
"""Of the labels an ensemble was trained on: what so few more bring is lost in the noise of a training."""

HELD_OUT = ("held_out_bootstrap", "held_out_explore")


def decide_verdict(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Judge the ensemble: accurate fraction AND force error on new labels AND on both held-out sets.

    Audit errors, the calibration and the learning curve's points are recorded beside; the criteria on them are those
    that `param.json` asks for.
    """
    errors, audit, points = _measured(campaign, param, iteration)
    criteria = judged(campaign, param, iteration) + relax_criteria(campaign, param, iteration)
    found = verdict(criteria)
    return {
        "converged": found.converged,
        "reason": found.reason,
        "errors": errors,
        "criteria": plain(criteria),
        "audit": audit,
        "calibration": calibrate(campaign).record(),
        "learning": points,
        "glasses": probed(campaign, iteration),
        "relaxed": relax_records(campaign, campaign.state.decisions.get(("relax", iteration))),
    }


def _measured(campaign: Campaign, param: Param, iteration: int) -> tuple[Errors, dict[str, Any], list[list[float]]]:
    """Return the errors on all sets, the audit's record, and the learning curve's points."""
    errors = campaign.summary(campaign.state.decisions["evaluate", iteration]["tasks"][0]["key"])
    seed = derived_seed(param.seed, "audit", iteration)
    explored = [
        (entry["glass"], entry["band"])
        for entry in campaign.state.decisions.get(("explore", iteration), {}).get("trust", ())
    ]
    audit = audit_record(campaign, iteration, seed)
    audit["groups"] = audit_groups(campaign, iteration, explored, seed)
    audit["unmeasured"] = unmeasured(audit["groups"], explored)
    return errors, audit, learning_points(campaign, iteration)


def judged(campaign: Campaign, param: Param, iteration: int) -> list[Criterion]:
    """Return all criteria but that of relaxing with the labeler, which is asked for once these are met."""
    own, select = param.stop, campaign.state.decisions["select", iteration]
    errors, audit, points = _measured(campaign, param, iteration)
    criteria = error_criteria(select["classes"], errors, own, select.get("missed_records", 0))
    criteria += audit_criteria(audit, own) + improvement_criteria(points, own)
    criteria += reference_criteria(campaign, param, iteration) + probe_criteria(campaign, param, iteration)
    return criteria + exploration_criteria(campaign, iteration)


def error_criteria(classes: dict[str, int], errors: Errors, own: StopParam, missed: int = 0) -> list[Criterion]:
    """Return the criteria on the accurate fraction and on the force errors of new and of held-out labels.

    missed: records that were never made, as their trajectory had been lost; they count as not accurate. With no new
    labels the audit decides; with neither, nothing was measured and the campaign is not converged.
    """
    total = sum(classes.values()) + missed
    name = f"accurate fraction (with {missed} records of lost trajectories)" if missed else "accurate fraction"
    criteria = [at_least(name, classes["accurate"] / total if total else 0.0, own.accurate_fraction)]
    newest = "new" if errors["new"]["labels"] else "audit"
    names = {newest: "new labels" if newest == "new" else "audit labels (there were no others)"}
    names |= {"held_out_bootstrap": "held-out bootstrap labels", "held_out_explore": "held-out exploration labels"}
    for key, what in names.items():
        found = errors[key]["force_rmse_eV_A"] if errors[key]["labels"] else None
        criteria.append(at_most(f"force RMSE on {what}", found, own.force_rmse_eV_A))
    return criteria


def audit_criteria(audit: dict[str, Any], own: StopParam) -> list[Criterion]:
    """Return the criteria on the audit's force error, if `param.json` asks for them.

    Of all labels of the iteration together the whole interval must be as wanted; of each glass and temperature band the
    error itself, as few labels make for a wide interval. The worst of these is named, and all that have too few labels
    to be judged: with these nothing is met.
    """
    if own.audit_force_rmse_eV_A is None:
        return []
    name, wanted = "force RMSE of the audit", own.audit_force_rmse_eV_A
    first, groups = audit["errors"][:1], [group for group in audit["groups"] if not _lacks(group)]
    criteria = [at_most(name, one["rmse_eV_A"], wanted, interval=_interval(one)) for one in first]
    criteria += [] if first else [at_most(name, None, wanted)]
    if groups:
        worst = max(groups, key=lambda own: own["rmse_eV_A"] if math.isfinite(own["rmse_eV_A"]) else math.inf)
        where = f"{name}, worst of {len(groups)} measured: {_group(worst)} (audits since iteration {worst['since']}),"
        criteria.append(replace(at_most(where, worst["rmse_eV_A"], wanted), name=f"{name} by glass and temperature"))
    if audit["unmeasured"]:
        said = f"{name} is not known for want of random labels: {', '.join(audit['unmeasured'])}"
        criteria.append(Criterion(f"{name} everywhere", "unknown", None, float(LEAST_AUDIT_LABELS), "labels", said))
    return criteria


def _interval(error: dict[str, Any]) -> tuple[float | None, float | None]:
    return error["low_eV_A"], error["high_eV_A"]


def _lacks(error: dict[str, Any]) -> str:
    """Return what an error of the audit lacks to be judged, for people; empty if nothing."""
    if (more := LEAST_AUDIT_LABELS - error["labels"]) > 0:
        return f"{more} more"
    return "of another trajectory" if error["trajectories"] < LEAST_AUDIT_TRAJECTORIES else ""


def _group(entry: dict[str, Any]) -> str:
    return f"{entry['glass']} at {entry['band']}"


def unmeasured(groups: list[dict[str, Any]], explored: list[tuple[str, str]]) -> list[str]:
    """Return which of the glasses and bands that were explored the audit has too few labels of, and what each lacks."""
    lacks = dict.fromkeys((f"{glass} at {band}" for glass, band in explored), f"{LEAST_AUDIT_LABELS} more")
    lacks |= {where: _lacks(group) for group in groups if (where := _group(group)) in lacks}
    return [f"{where} ({what})" for where, what in lacks.items() if what]


def improvement_criteria(points: list[list[float]], own: StopParam) -> list[Criterion]:
    """Return the criterion that the newest labels no longer help much, if `param.json` asks for it.

    The newest are those since the last ensemble with noticeably fewer; fewer can hardly be seen to help.
    """
    if own.least_improvement is None:
        return []
    now = points[-1][0] if points else 0.0
    before = next((labels for labels, _ in reversed(points) if labels <= (1 - NOTICEABLE_SHARE) * now), None)
    if before is None:
        name = "improvement by the last labels"
        said = f"{name} is not known: no ensemble was judged with {NOTICEABLE_SHARE:.0%} fewer labels"
        return [Criterion(name, "unknown", None, own.least_improvement, "", said)]
    return [improvement_criterion(curve_of(points), now - before, own.least_improvement)]


def exploration_criteria(campaign: Campaign, iteration: int) -> list[Criterion]:
    """Return what speaks against a verdict on this ensemble at all, each as a criterion that is not met."""
    state = campaign.state
    select = state.decisions["select", iteration]
    counts = {"could not be run": select["failed_chunks"]}
    counts[f"were left to ensemble {iteration + 1}"] = select.get("withdrawn_chunks", 0)
    said = {f"{count} chunk(s) {what}": float(count) for what, count in counts.items() if count}
    if state.decided("train", iteration + 1):
        said[f"ensemble {iteration + 1} was trained meanwhile"] = 1.0
    if state.foundation_level is not None:
        said[f"labels so far are the foundation's ({state.foundation_level})"] = 1.0
    return [Criterion("exploration", "unmet", found, 0.0, "", sentence) for sentence, found in said.items()]


def learning_points(campaign: Campaign, iteration: int) -> list[list[float]]:
    """Return [training labels, force RMSE on all held-out labels in eV/A] of each ensemble judged so far.

    Each was measured on the held-out labels there were; ensembles trained from other labels (before a change of the
    level of theory) are left out.
    """
    state = campaign.state
    points: list[list[float]] = []
    for number in range(iteration + 1):
        evaluate, train = state.decisions.get(("evaluate", number)), state.decisions.get(("train", number))
        if state.decided("relabel", number - 1) or state.decided("promote", number - 1):
            points = []
        if evaluate is None or train is None or evaluate["tasks"][0]["key"] not in state.done:
            continue
        errors = campaign.summary(evaluate["tasks"][0]["key"])
        error = pooled_rmse([errors[name] for name in HELD_OUT])
        if error is not None:
            points.append([float(len(train["common"]["training"])), error])
    return points


def curve_of(points: list[list[float]]) -> LearningCurve:
    """Return the learning curve through `learning_points`."""
    return fit_learning_curve([labels for labels, _ in points], [error for _, error in points])


def pooled_rmse(parts: list[dict[str, Any]]) -> float | None:
    """Return the force RMSE of several sets together, weighting each by its number of force components."""
    measured = [part for part in parts if part["labels"]]
    components = sum(part["force_components"] for part in measured)
    if not components:
        return None
    return float(
        (sum(part["force_components"] * part["force_rmse_eV_A"] ** 2 for part in measured) / components) ** 0.5
    )
