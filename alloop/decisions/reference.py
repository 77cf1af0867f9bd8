"""Trajectories of the labeler's own dynamics: do events come as often with the ensemble as with it?"""

from __future__ import annotations

from typing import Any

import numpy as np

from alloop.campaign import Campaign
from alloop.config import Param, ReferenceParam
from alloop.decisions.exploration import trajectories
from alloop.event_params import definitions
from alloop.selection.convergence import Criterion, rate_criterion
from alloop.selection.rates import Replicas, compare_rates
from alloop.store import Task, make_task
from alloop.tasks.sources import file_hash

UNIT = "of frames"


def reference_tasks(campaign: Campaign, param: Param) -> list[Task]:
    """Return the tasks that look for the declared events in every given trajectory; the same in each iteration."""
    tasks = []
    for own in param.stop.reference:
        for replica, path in enumerate(own.files):
            spec = {
                "reference": {"events": definitions(param.select.events), "every": own.every, "skip": own.skip},
                "sha256": file_hash(campaign.root / path),
            }
            name = _name(own, replica)
            tasks.append(make_task("evaluate", "reference", name, spec, files={"file": path}))
    return tasks


def _name(own: ReferenceParam, replica: int) -> str:
    return f"reference.{own.glass}.{own.temperature_K:g}K.r{replica}"


def reference_criteria(campaign: Campaign, param: Param, iteration: int) -> list[Criterion]:
    """Return, for every reference and event, whether the shares of frames that show it agree between replicas."""
    criteria = []
    evaluate = campaign.state.decisions["evaluate", iteration]["tasks"] if param.stop.reference else []
    named = {entry["name"]: entry["key"] for entry in evaluate}
    for own in param.stop.reference:
        labeler = [campaign.summary(named[_name(own, replica)])["share"] for replica in range(len(own.files))]
        ensemble = _explored(campaign, param, iteration, own)
        for event in param.select.events:
            ours, theirs = (
                Replicas(tuple(one[event] for one in replicas if event in one), UNIT)
                for replicas in (ensemble, labeler)
            )
            where = f"{event} in {own.glass} at {own.temperature_K:g} K"
            criteria.append(rate_criterion(compare_rates(where, ours, theirs)))
    return criteria


def _explored(campaign: Campaign, param: Param, iteration: int, own: ReferenceParam) -> list[dict[str, float]]:
    """Return, per trajectory of this iteration at the reference's glass and temperature, the share of each event."""
    wanted = {
        t.name
        for t in trajectories(param)
        if (t.glass, t.from_K, t.to_K, t.ensemble) == (own.glass, own.temperature_K, own.temperature_K, "nvt")
    }
    seen: dict[str, list[dict[str, np.ndarray]]] = {}
    for entry in campaign.state.decisions["explore", iteration]["tasks"]:
        name = entry["name"].rsplit(".c", 1)[0]
        if name in wanted and entry["key"] in campaign.state.done:
            with np.load(campaign.result(entry["key"]) / "table.npz") as table:
                events = {key.removeprefix("event:"): table[key] for key in table.files if key.startswith("event:")}
            seen.setdefault(name, []).append(events)
    return [_shares(parts) for parts in seen.values()]


def _shares(parts: list[dict[str, np.ndarray]]) -> dict[str, float]:
    together: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: float(flags.mean()) for name, flags in together.items() if len(flags)}
