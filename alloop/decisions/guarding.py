"""The guard of production: what a quench met beyond trust goes back into the loop as labels to be learnt."""

from __future__ import annotations

from typing import Any

import numpy as np

from alloop.campaign import Campaign, label_key
from alloop.config import Param
from alloop.decisions.found import Place, pick_record
from alloop.frames import read_columns
from alloop.selection.picks import BEFORE_LOSS, BEYOND_TRUST
from alloop.state import quench_runs
from alloop.structure import content_key

PRODUCTION = "production"
"""The reason of labels of what a quench met."""
ENDS = (BEYOND_TRUST, BEFORE_LOSS)
"""Why the frames are kept that a run ended with."""


def decide_guard(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for labels of frames from the runs of a quench that were stopped or lost, for nothing if none was.

    Of each run at most `select.max_per_trajectory`, the last beyond trust and the last good ones before a loss first,
    the others evenly spaced in time, and `select.max_labels` in all, the runs in turn. ``stopped`` names all those runs
    with the reason; with a label to make the ensemble is no longer converged.
    """
    quench = campaign.state.decisions["quench", iteration]
    stopped, frames = [], {}
    for run in quench_runs(quench):
        broken = _broken(campaign, run["chunks"])
        if broken is None:
            continue
        entry, begins_step = broken
        summary = campaign.summary(entry["key"])
        told = {name: summary[name] for name in ("status", "stage", "reason")}
        stopped.append({"run": run["name"], "glass": run["glass"], "task": entry["key"]} | told)
        if entry["key"] not in frames:
            place = Place(run["name"], f"{run['glass']} production", "training", begins_step)
            frames[entry["key"]] = _asked(campaign, param, quench["common"], entry, place)
    picks = _in_turn(list(frames.values()))[: param.select.max_labels]
    count = len(stopped)
    reason = f"{count} of {len(quench['runs'])} production runs were stopped or lost"
    reason += f": {len(picks)} of their frames are labelled for the next ensemble to learn" if picks else ""
    return {
        "converged": bool(quench["converged"]) and not picks,
        "reason": reason if count else "no production run left what the ensemble can be trusted in",
        "stopped": stopped,
        "level": campaign.level,
        "picks": picks,
    }


def _broken(campaign: Campaign, chunks: list[dict[str, Any]]) -> tuple[dict[str, Any], int] | None:
    """Return the chunk at which a run was stopped or lost, and the step along the run at which it begins."""
    begins_step = 0
    for entry in chunks:
        if entry["key"] not in campaign.state.done:
            return None
        if campaign.summary(entry["key"])["status"] in ("stopped", "lost"):
            return entry, begins_step
        begins_step += entry["spec"].get("condition", {"n_steps": 0})["n_steps"]
    return None


def _asked(
    campaign: Campaign, param: Param, common: dict[str, Any], entry: dict[str, Any], place: Place
) -> list[dict[str, Any]]:
    """Return the picks of one chunk: frames it kept for a label and that have none, those that ended it first."""
    found = read_columns(campaign.result(entry["key"]))
    level = content_key(campaign.level["content"])
    last: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for frame, kept_for in enumerate(found.get("kept_for", np.zeros(0, dtype=str)).tolist()):
        key = label_key(str(found["content"][frame]), level)
        if kept_for and key not in campaign.state.picks:
            record = pick_record(campaign, entry, place, param.select, found, frame, key) | {"reason": PRODUCTION}
            (last if kept_for in ENDS else others).append(record)
    last = last[::-1][: param.select.max_per_trajectory]
    room = param.select.max_per_trajectory - len(last)
    if len(others) > room:
        others = [others[index] for index in np.unique(np.linspace(0, len(others) - 1, room).round().astype(int))]
    return last + others


def _in_turn(queues: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the picks of all runs, one of each in turn."""
    longest = max(map(len, queues), default=0)
    return [queue[place] for place in range(longest) for queue in queues if place < len(queue)]
