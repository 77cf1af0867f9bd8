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
from alloop.decisions.measured import by_reason, learning_points
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

_NAMED_UNMEASURED = 4
LEAST_STRATUM_RECORDS = 50
"""Of a glass and temperature with fewer records the accurate fraction is not judged by itself."""


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
    more = by_reason(campaign, param, iteration)
    errors = {name: own | more.get(name, {}) for name, own in errors.items()}
    seed = derived_seed(param.seed, "audit", iteration)
    explored = [
        (entry["glass"], entry["band"])
        for entry in campaign.state.decisions.get(("explore", iteration), {}).get("trust", ())
    ]
    audit = audit_record(campaign, iteration, seed)
    audit["groups"] = audit_groups(campaign, iteration, explored, seed)
    audit["unmeasured"] = unmeasured(audit["groups"], explored)
    return errors, audit, learning_points(campaign, param, iteration)


def judged(campaign: Campaign, param: Param, iteration: int) -> list[Criterion]:
    """Return all criteria but that of relaxing with the labeler, which is asked for once these are met."""
    own, select = param.stop, campaign.state.decisions["select", iteration]
    errors, audit, points = _measured(campaign, param, iteration)
    criteria = [accuracy_criterion(select["classes"], own, select.get("missed_records", 0), select.get("strata", {}))]
    criteria += error_criteria(errors, own)
    criteria += audit_criteria(audit, own) + improvement_criteria(points, own)
    criteria += reference_criteria(campaign, param, iteration) + probe_criteria(campaign, param, iteration)
    return criteria + exploration_criteria(campaign, iteration)


def accuracy_criterion(
    classes: dict[str, int], own: StopParam, missed: int, strata: dict[str, dict[str, Any]]
) -> Criterion:
    """Return the criterion on the accurate fraction: of all records, and of each glass and temperature with enough.

    missed: records that were never made, as their trajectory had been lost; they count as not accurate. strata: classes
    and missed records by glass and temperature. The worst of these is named.
    """
    total = sum(classes.values()) + missed
    name = f"accurate fraction (with {missed} records of lost trajectories)" if missed else "accurate fraction"
    found = at_least(name, classes["accurate"] / total if total else 0.0, own.accurate_fraction)
    fractions = {where: share for where, entry in strata.items() if (share := _accurate_share(entry)) is not None}
    if not fractions:
        return found
    worst = min(fractions, key=lambda where: fractions[where])
    share, wanted = fractions[worst], own.least_anywhere
    told = f"{found.sentence}; worst of {len(fractions)} glasses and temperatures: {worst}, {share:.3g}"
    if share >= wanted:
        return replace(found, sentence=told)
    told += f", below the wanted {wanted:.3g}"
    if found.state != "met":
        return replace(found, sentence=told)
    return replace(found, state="unmet", found=share, wanted=wanted, sentence=told)


def _accurate_share(stratum: dict[str, Any]) -> float | None:
    """Return the accurate share of a stratum's records, None of too few."""
    total = sum(stratum.get(name, 0) for name in ("accurate", "candidate", "failed", "missed"))
    return stratum["accurate"] / total if total >= LEAST_STRATUM_RECORDS else None


def error_criteria(errors: Errors, own: StopParam) -> list[Criterion]:
    """Return the criteria on the force errors of new and of held-out labels.

    Labels asked for because they are near collapse are measured apart. With no other new labels the audit decides;
    with neither, nothing was measured and the campaign is not converged.
    """
    criteria = []
    newest = "new" if judged_part(errors["new"])["labels"] else "audit"
    names = {newest: "new labels" if newest == "new" else "audit labels (there were no others to judge by)"}
    names |= {"held_out_bootstrap": "held-out bootstrap labels", "held_out_explore": "held-out exploration labels"}
    for key, what in names.items():
        criteria.append(_force_criterion(f"force RMSE on {what}", errors[key], own.force_rmse_eV_A))
    return criteria


def _force_criterion(name: str, part: dict[str, Any], wanted: float) -> Criterion:
    """Return the criterion on a set of labels; if some are near collapse it says what is judged and what is not."""
    mine = judged_part(part)
    found = at_most(name, mine["force_rmse_eV_A"] if mine["labels"] else None, wanted)
    told = apart_text(part)
    return replace(found, sentence=f"{found.sentence} ({told}, which is not judged)") if told else found


def judged_part(part: dict[str, Any]) -> dict[str, Any]:
    """Return the errors of a set but for what was asked for because it is near collapse."""
    judged: dict[str, Any] = part.get("judged", part)
    return judged


def apart_text(part: dict[str, Any]) -> str:
    """Return which labels of a set are judged and the error of those near collapse; empty if there are none."""
    near = part.get("near_collapse")
    if not near or not near["labels"]:
        return ""
    rest = [reason for reason in part["by_reason"] if reason not in near["reasons"]]
    others = f"{part['judged']['labels']} labels by {', '.join(rest)}" if rest else "no other labels"
    why = ", ".join(near["reasons"])
    return f"{others}; near collapse {near['force_rmse_eV_A']:.3g} eV/A on {near['labels']} by {why}"


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
        said = f"{name} is not known for want of random labels: {unmeasured_text(audit['unmeasured'])}"
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


def unmeasured_text(names: list[str]) -> str:
    """Return what `unmeasured` found, for people: all if they are few, else how many and the first."""
    if len(names) <= _NAMED_UNMEASURED:
        return ", ".join(names)
    return f"{len(names)} glasses and temperature bands, such as {names[0]}; alloop stats shows all"


def improvement_criteria(points: list[list[float]], own: StopParam) -> list[Criterion]:
    """Return the criterion that the newest labels no longer help much, if `param.json` asks for it.

    The newest are those since the last ensemble with noticeably fewer; fewer can hardly be seen to help.
    """
    if own.least_improvement is None:
        return []
    newest = newest_labels(points)
    if newest is None:
        name = "improvement by the last labels"
        said = f"{name} is not known: no ensemble was judged with {NOTICEABLE_SHARE:.0%} fewer labels"
        return [Criterion(name, "unknown", None, own.least_improvement, "", said)]
    return [improvement_criterion(curve_of(points), newest, own.least_improvement)]


def newest_labels(points: list[list[float]]) -> float | None:
    """Return the number of labels since the last ensemble with noticeably fewer; None if none was judged."""
    now = points[-1][0] if points else 0.0
    before = next((labels for labels, _ in reversed(points) if labels <= (1 - NOTICEABLE_SHARE) * now), None)
    return None if before is None else now - before


def learning_text(points: list[list[float]]) -> str | None:
    """Return what the newest labels were worth by the learning curve, for people; None without ensembles to compare."""
    newest, curve = newest_labels(points), curve_of(points)
    if newest is None:
        return None
    gained, found = curve.last_improvement(newest), curve.sentence.removeprefix("learning curve: ")
    if math.isnan(gained.value):
        return found
    share = f"{-gained.value:+.1%} ({-gained.high:+.1%} to {-gained.low:+.1%})"
    return f"the last {newest:g} labels changed the force error by {share}; {found}"


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
