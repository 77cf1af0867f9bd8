"""The melt-quenches of the newest ensemble that was quenched with: which made a glass, and why others did not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from alloop.campaign import Campaign
from alloop.report.html.replicas import model_of
from alloop.state import quench_runs

Tell = Callable[[str], None]
Run = dict[str, Any]
"""As `quench_runs` has it, with ``driven_by``, the index of the model that drove it."""


def newest_quench(campaign: Campaign) -> dict[str, Any]:
    """Return the decision that asked for the last melt-quenches, empty if there is none."""
    return campaign.state.newest_quench()


def runs(campaign: Campaign) -> list[Run]:
    """Return the last melt-quenches."""
    return [run | {"driven_by": model_of(run["chunks"])} for run in quench_runs(newest_quench(campaign))]


def finished_runs(campaign: Campaign) -> list[Run]:
    """Return those of the last melt-quenches that came to their end."""
    return [run for run in runs(campaign) if trouble(campaign, run["chunks"]) is None]


def unfinished_runs(campaign: Campaign) -> list[dict[str, Any]]:
    """Return run, glass, and what `trouble` tells of every melt-quench that made no glass, or not yet."""
    found = [(run, trouble(campaign, run["chunks"])) for run in runs(campaign)]
    return [{"run": run["name"], "glass": run["glass"]} | told for run, told in found if told is not None]


def trouble(campaign: Campaign, chunks: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return what a run without a glass is, and where and why; None if it is finished.

    ``status``: lost, stopped (by the guard), given up or running; ``stage``; ``step`` within the chunk of the last
    record of a run that was lost or stopped, else None; ``reason``, which begins with the chunk.
    """
    for number, entry in enumerate(chunks):
        name = entry["name"].rpartition(".")[2]
        place = f"chunk {number + 1} of {len(chunks)} ({name})"
        found = {"stage": name.partition("-")[2], "step": None}
        if entry["key"] in campaign.state.quarantined:
            reason = campaign.state.quarantined[entry["key"]]["message"]
            return found | {"status": "given up", "reason": f"{place}: {reason}"}
        if entry["key"] not in campaign.state.done:
            return found | {"status": "running", "reason": place}
        summary = campaign.summary(entry["key"])
        if summary["status"] != "finished":
            step, why = _last_step(campaign, entry["key"]), summary["reason"]
            if step is not None and not why.startswith("step "):
                why = f"after step {step}: {why}"
            status = "stopped" if summary["status"] == "stopped" else "lost"
            return {"stage": found["stage"], "step": step, "status": status, "reason": f"{place}: {why}"}
    return None


def _last_step(campaign: Campaign, key: str) -> int | None:
    """Return the step of the last record of a chunk of dynamics, None if it has none."""
    table = campaign.result(key) / "table.npz"
    if not table.exists():
        return None
    with np.load(table) as columns:
        return int(columns["step"][-1]) if len(columns["step"]) else None
