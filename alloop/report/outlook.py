"""What is still missing for convergence and what it will cost, in one sentence; and what the newest audit says."""

from __future__ import annotations

from typing import Any

from alloop.campaign import Campaign
from alloop.state import State


def newest_verdict(state: State) -> dict[str, Any] | None:
    """Return the last verdict that was taken, None before the first or if the labels are of another level since."""
    found = [number for kind, number in state.decisions if kind == "verdict"]
    verdict = state.decisions["verdict", max(found)] if found else None
    changes = [own["number"] for (kind, _), own in state.decisions.items() if kind in ("relabel", "promote")]
    return verdict if verdict and verdict["number"] > max(changes, default=-1) else None


def missing(campaign: Campaign, core_hours_per_label: float | None) -> str | None:
    """Return one sentence: what the last verdict found missing, and what it costs by the learning curve.

    None before the first verdict, for one that found nothing missing, and one from before criteria were recorded.
    """
    verdict = newest_verdict(campaign.state)
    if verdict is None or verdict["converged"] or "criteria" not in verdict:
        return None
    from alloop.decisions.convergence import curve_of
    from alloop.selection.convergence import Criterion, missing_sentence

    criteria = [Criterion(**record) for record in verdict["criteria"]]
    config = campaign.state.starts[-1]["config"]
    target_eV_A = config["stop"]["force_rmse_eV_A"]
    return missing_sentence(criteria, curve_of(verdict["learning"]), target_eV_A, core_hours_per_label)


def audit_lines(verdict: dict[str, Any] | None) -> list[str]:
    """Return what the audit of a verdict says: the error in all that was explored, in its accurate part, coverage."""
    if not verdict or "audit" not in verdict:
        return []
    audit, calibration = verdict["audit"], verdict["calibration"]
    lines = [f"of all explored: {record['sentence']}" for record in audit["errors"][:1]]
    accurate = audit["by_class"].get("accurate")
    lines += [f"of its accurate part: {accurate['sentence']}"] if accurate else []
    lines += [f"calibration: {record['sentence']}" for record in calibration["coverage"][:1]]
    return lines + ([calibration["widened"]] if calibration["widened"] else [])
