"""Trajectories of the labeler's own dynamics: do events come as often with the ensemble as with it?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alloop.campaign import Campaign
from alloop.config import Param
from alloop.decisions.exploration import trajectories
from alloop.event_params import CoordinationParam, EventParam, PairDistanceParam, TemperatureParam, definitions
from alloop.glass.composition import stoichiometric_counts
from alloop.selection.convergence import Criterion, rate_criterion
from alloop.selection.rates import RateComparison, Replicas, compare_rates
from alloop.stop_params import ReferenceParam
from alloop.store import Task, make_task
from alloop.tasks.sources import file_hash

DECORRELATION_PS = 0.5
"""Frames so far apart, many vibrations of a bond, count as independent. Of events that last longer, as in a glass, this
promises too much where none was seen; elsewhere the spread between replicas is the larger error."""


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
    What could hide a larger difference than is tolerated is unknown.
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
            counted = [one for one in labeler if event in one["counts"]]  # not one that was declared since
            found = _compared(event, settings, own, [one for one in replicas if event in one.counts], counted)
            criteria.append(rate_criterion(found))
    return criteria


Part = tuple[dict[str, np.ndarray], float]
"""Of a chunk, per event how many atoms show it in each record, and the time in ps that these records stand for."""


@dataclass(frozen=True)
class Explored:
    """One trajectory: atoms of each element, per event the mean number of atoms that show it, independent frames."""

    atoms: Mapping[str, int]
    counts: Mapping[str, float]
    independent: float


def _compared(
    event: str, settings: EventParam, own: ReferenceParam, ensemble: list[Explored], labeler: list[dict[str, Any]]
) -> RateComparison:
    """Compare how often an event is seen in trajectories of the ensemble, and in the labeler's as they were counted."""
    element = settings.element if isinstance(settings, CoordinationParam) else None
    spacing_ps = own.frame_ps * own.every
    theirs = [
        Explored(one["atoms"], one["counts"], _independent(one["frames"], one["frames"] * spacing_ps))
        for one in labeler
    ]
    ours, other = (_rates(found, event, element) for found in (ensemble, theirs))
    allowed = own.tolerance if element else own.tolerance / 10
    if other.rates:
        allowed = max(allowed, own.relative_tolerance * other.mean)
    return compare_rates(
        f"{event} in {own.glass} at {own.temperature_K:g} K",
        ours,
        other,
        rarer_is_fine=isinstance(settings, PairDistanceParam) and not settings.above_A,
        tolerance=allowed,
    )


def _independent(frames: int, ps: float) -> float:
    """Return how many frames of this time are independent: one per `DECORRELATION_PS`, at most all, at least one."""
    return min(float(frames), max(1.0, ps / DECORRELATION_PS))


def _rates(found: Sequence[Explored], event: str, element: str | None) -> Replicas:
    """Return the share of an element's atoms, or of all, that shows an event; 0 where there is none of it.

    The exposure is atoms times independent frames.
    """
    totals = [one.atoms.get(element, 0) if element else sum(one.atoms.values()) for one in found]
    rates = tuple(one.counts[event] / total if total else 0.0 for one, total in zip(found, totals, strict=True))
    exposures = tuple(one.independent * total for one, total in zip(found, totals, strict=True))
    return Replicas(rates, f"of {element or 'atoms'}", exposures if exposures and all(exposures) else None)


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
        Explored(stoichiometric_counts(glass, t.n_atoms), *_means(tables[t.name]))
        for t in same_size or fitting
        if t.name in tables
    ]


def _late_tables(campaign: Campaign, iteration: int, names: set[str], skip_ps: float) -> dict[str, list[Part]]:
    """Return, by trajectory, what each chunk of an iteration counted, records before `skip_ps` left out."""
    found: dict[str, list[Part]] = {}
    begins_ps: Counter[str] = Counter()
    for entry in campaign.state.decisions["explore", iteration]["tasks"]:
        name = entry["name"].rsplit(".c", 1)[0]
        if name not in names:
            continue
        condition = entry["spec"]["condition"]
        if entry["key"] in campaign.state.done:
            with np.load(campaign.result(entry["key"]) / "table.npz") as table:
                times_ps = table["step"] * condition["timestep_fs"] / 1000
                late = begins_ps[name] + times_ps > skip_ps
                counts = {key.removeprefix("count:"): table[key][late] for key in table.files if "count:" in key}
            if late.any():
                found.setdefault(name, []).append((counts, float(times_ps[-1] * late.mean())))
        begins_ps[name] += condition["n_steps"] * condition["timestep_fs"] / 1000
    return found


def _means(parts: list[Part]) -> tuple[dict[str, float], float]:
    """Return the mean of each event's counts over all records, and how many independent ones there are."""
    counts = {name: np.concatenate([part[name] for part, _ in parts]) for name in parts[0][0]}
    records = max((len(own) for own in counts.values()), default=0)
    means = {name: float(own.mean()) for name, own in counts.items()}
    return means, _independent(records, sum(ps for _, ps in parts))
