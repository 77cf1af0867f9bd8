"""Trajectories of the labeler's own dynamics: do events come as often with the ensemble as with it?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from alloop.campaign import Campaign
from alloop.config import Param
from alloop.decisions.exploration import trajectories
from alloop.event_params import CoordinationParam, PairDistanceParam, TemperatureParam, definitions
from alloop.glass.composition import stoichiometric_counts
from alloop.selection.convergence import Criterion, rate_criterion
from alloop.selection.rates import Replicas, compare_rates
from alloop.stop_params import ReferenceParam
from alloop.store import Task, make_task
from alloop.tasks.sources import file_hash


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
    """Return, for every reference and event, whether as many atoms show it as with the labeler, by replicas.

    A rate is a time average: atoms that show the event, of all atoms of its central element, or of all atoms where it
    has none. Contacts that are too short may be rarer than the labeler's, everything else neither rarer nor commoner.
    """
    criteria = []
    evaluate = campaign.state.decisions["evaluate", iteration]["tasks"] if param.stop.reference else []
    named = {entry["name"]: entry["key"] for entry in evaluate}
    for own in param.stop.reference:
        names = [_name(own, replica) for replica in range(len(own.files))]
        labeler = [campaign.summary(named[name]) for name in names if name in named]
        if not labeler:
            title = f"events in {own.glass} at {own.temperature_K:g} K"
            told = f"{title} were not counted: the reference was added after this ensemble was measured"
            criteria.append(Criterion(title, "unknown", None, None, "", told))
            continue
        replicas = _explored(campaign, param, iteration, own, sum(labeler[0]["atoms"].values()))
        for event, settings in param.select.events.items():
            if isinstance(settings, TemperatureParam):  # of the labeler's trajectories no thermostat is known
                continue
            element = settings.element if isinstance(settings, CoordinationParam) else None
            ours = tuple(_rate(one.counts[event], one.atoms, element) for one in replicas if event in one.counts)
            counted = [one for one in labeler if event in one["counts"]]  # not one that was declared since
            theirs = tuple(_rate(one["counts"][event], one["atoms"], element) for one in counted)
            unit = f"of {element or 'atoms'}"
            where = f"{event} in {own.glass} at {own.temperature_K:g} K"
            rarer_is_fine = isinstance(settings, PairDistanceParam) and not settings.above_A
            found = compare_rates(where, Replicas(ours, unit), Replicas(theirs, unit), rarer_is_fine=rarer_is_fine)
            criteria.append(rate_criterion(found))
    return criteria


def _rate(count: float, atoms: Mapping[str, int], element: str | None) -> float:
    """Return the share of an element's atoms, or of all; 0 where there is none of it."""
    total = atoms.get(element, 0) if element else sum(atoms.values())
    return count / total if total else 0.0


@dataclass(frozen=True)
class Explored:
    """One explored trajectory: atoms of each element, and per event the mean number of atoms that show it."""

    atoms: Mapping[str, int]
    counts: Mapping[str, float]


def _explored(campaign: Campaign, param: Param, iteration: int, own: ReferenceParam, n_atoms: int) -> list[Explored]:
    """Return what this iteration's trajectories at the reference's glass and temperature show.

    Those of the reference's number of atoms if the campaign has any, else of all cell sizes. The first `skip_ps` are
    left out: the ensemble takes over where a classical melt or the ensemble before it ended.
    """
    fitting = [
        t
        for t in trajectories(param)
        if (t.glass, t.from_K, t.to_K, t.ensemble) == (own.glass, own.temperature_K, own.temperature_K, "nvt")
    ]
    same_size = [t for t in fitting if t.n_atoms == n_atoms]
    tables = _late_tables(campaign, iteration, {t.name for t in same_size or fitting}, own.skip_ps)
    glass = next(entry.glass() for entry in param.glasses if entry.name == own.glass)
    return [
        Explored(stoichiometric_counts(glass, t.n_atoms), _means(tables[t.name]))
        for t in same_size or fitting
        if t.name in tables
    ]


def _late_tables(
    campaign: Campaign, iteration: int, names: set[str], skip_ps: float
) -> dict[str, list[dict[str, np.ndarray]]]:
    """Return, by trajectory, the counts of events in each chunk of an iteration, records before `skip_ps` left out."""
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    begins_ps: Counter[str] = Counter()
    for entry in campaign.state.decisions["explore", iteration]["tasks"]:
        name = entry["name"].rsplit(".c", 1)[0]
        if name not in names:
            continue
        condition = entry["spec"]["condition"]
        if entry["key"] in campaign.state.done:
            with np.load(campaign.result(entry["key"]) / "table.npz") as table:
                late = begins_ps[name] + table["step"] * condition["timestep_fs"] / 1000 > skip_ps
                counts = {key.removeprefix("count:"): table[key][late] for key in table.files if "count:" in key}
            if late.any():
                found.setdefault(name, []).append(counts)
        begins_ps[name] += condition["n_steps"] * condition["timestep_fs"] / 1000
    return found


def _means(parts: list[dict[str, np.ndarray]]) -> dict[str, float]:
    return {name: float(np.concatenate([part[name] for part in parts]).mean()) for name in parts[0]}
