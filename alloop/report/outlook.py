"""What is still missing for convergence and what it will cost, in one sentence; and what the newest audit says."""

from __future__ import annotations

from typing import Any

from alloop.campaign import Campaign
from alloop.state import State

EDITED = "no effect where it was explored: calibrated levels go on from those of the last exploration"
"""What a change of the levels that calibrated ones begin with does in mid-campaign."""


def newest_verdict(state: State) -> dict[str, Any] | None:
    """Return the last verdict that was taken, None before the first or if the labels are of another level since."""
    found = [number for kind, number in state.decisions if kind == "verdict"]
    verdict = state.decisions["verdict", max(found)] if found else None
    changes = [own["number"] for (kind, _), own in state.decisions.items() if kind in ("relabel", "promote")]
    return verdict if verdict and verdict["number"] > max(changes, default=-1) else None


def missing(campaign: Campaign, core_hours_per_label: float | None) -> str | None:
    """Return one sentence: what the last verdict found missing, and what can be said of the cost.

    None before the first verdict, for one that found nothing missing, and one from before criteria were recorded.
    """
    verdict = newest_verdict(campaign.state)
    if verdict is None or verdict["converged"] or "criteria" not in verdict:
        return None
    from alloop.decisions.convergence import curve_of
    from alloop.selection.convergence import Criterion, missing_sentence

    criteria = [Criterion(**record) for record in verdict["criteria"]]
    per_iteration = core_hours_per_iteration(campaign)
    return missing_sentence(criteria, curve_of(verdict["learning"]), core_hours_per_label, per_iteration)


def core_hours_per_iteration(campaign: Campaign) -> float | None:
    """Return the core-hours spent per iteration that was judged, None before one; the bootstrap is in none of them."""
    costs, judged = campaign.costs, sum(kind == "verdict" for kind, _ in campaign.state.decisions)
    if not judged:
        return None
    first = (costs.by_kind.get("bootstrap"), costs.by_reason.get("bootstrap"))
    return (costs.core_hours - sum(spend.all_core_seconds for spend in first if spend) / 3600) / judged


def error_lines(verdict: dict[str, Any] | None) -> list[str]:
    """Return, of each set of labels that holds some near collapse, the error of these and that of the others."""
    if not verdict:
        return []
    from alloop.decisions.convergence import apart_text, judged_part

    lines = []
    for name, what in (("new", "new labels"), ("held_out_explore", "held-out exploration labels")):
        part = verdict["errors"][name]
        rmse = judged_part(part)["force_rmse_eV_A"]
        if told := apart_text(part):
            lines.append(f"force RMSE on {what} {'-' if rmse is None else f'{rmse:.3g} eV/A'} ({told})")
    return lines


def learning_line(verdict: dict[str, Any] | None) -> str | None:
    """Return what the newest labels were worth, None if no two ensembles can be compared."""
    if not verdict or not verdict.get("learning"):
        return None
    from alloop.decisions.convergence import learning_text

    return learning_text(verdict["learning"])


def audit_lines(verdict: dict[str, Any] | None) -> list[str]:
    """Return what the audit of a verdict says: the error in all that was explored, in its accurate part, coverage."""
    if not verdict or "audit" not in verdict:
        return []
    from alloop.decisions.convergence import unmeasured_text

    audit, calibration = verdict["audit"], verdict["calibration"]
    lines = [f"of all explored: {record['sentence']}" for record in audit["errors"][:1]]
    accurate = audit["by_class"].get("accurate")
    lines += [f"of its accurate part: {accurate['sentence']}"] if accurate else []
    if audit.get("unmeasured"):
        lines.append(f"not measured, for want of random labels: {unmeasured_text(audit['unmeasured'])}")
    lines += [f"calibration: {record['sentence']}" for record in calibration["coverage"][:1]]
    return lines + ([calibration["widened"]] if calibration["widened"] else [])
