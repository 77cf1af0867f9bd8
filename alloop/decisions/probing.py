"""A short quench with every ensemble: the glasses it makes, and whether they still change or depend on the cell."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alloop.campaign import Campaign
from alloop.config import Param
from alloop.decisions.exploration import Starts
from alloop.decisions.quenching import Sample, chunk_count, quench_chains, quench_common
from alloop.glass.composition import stoichiometric_counts
from alloop.quench_params import ProbeParam
from alloop.seeds import derived_seed
from alloop.selection.convergence import Criterion, curve_criterion, stability_criterion
from alloop.selection.curves import Curves, curve_stability
from alloop.selection.stability import Measurement, stability
from alloop.state import quench_runs, task_entries
from alloop.store import Task, read_json

OBSERVABLES = {"4B": "of B", "5Si": "of Si", "3-membered rings": "per B", "B-O bond": "A", "Si-O bond": "A"}
"""What is compared, and in which unit."""
NEEDS = {"4B": "B", "5Si": "Si", "3-membered rings": "B", "B-O bond": "B", "Si-O bond": "Si"}
"""The element a glass must hold to have it."""
TOLERANCES = {
    "4B": "fraction",
    "5Si": "fraction",
    "3-membered rings": "rings_per_B",
    "B-O bond": "bond_A",
    "Si-O bond": "bond_A",
}
"""Which of the tolerances in `param.json` it has."""
_BOND_END_A = 2.0
"""End of the first peak of g(r) of B-O and Si-O."""
_CURVES_END_A = 5.0
"""So far g(r) are compared: beyond half the width of a cell, here of about 100 atoms, images repeat what is inside."""


def decide_probe(campaign: Campaign, param: Param, iteration: int) -> dict[str, Any]:
    """Ask for the short quenches of every glass with this ensemble, in each supercell; for nothing without a probe."""
    own = param.stop.probe
    if own is None:
        return {"common": {}, "tasks": []}
    fixed = param.select.trust_low_eV_A, param.select.trust_high_eV_A

    def levels(*_: object) -> tuple[float, float]:
        return fixed

    common = quench_common(param, own, campaign.state.models(iteration))
    starts = Starts(campaign)
    tasks: list[Task] = []
    runs: list[dict[str, Any]] = []
    for entry in param.glasses:
        size = sum(stoichiometric_counts(entry.glass(), entry.n_atoms[0]).values())
        for supercell in own.supercells:
            atoms = size * math.prod(supercell)
            # each ensemble begins where the one before did, and replicas of it apart
            seed = derived_seed(param.seed, "probe", f"{entry.name}.n{atoms}")
            begin = starts.apart(entry.name, size, own.melt_temperature_K, "training", seed, own.replicas)
            for replica, start in enumerate(begin):
                start |= {"supercell": list(supercell)} if math.prod(supercell) > 1 else {}
                sample = Sample(entry.glass(), atoms, replica, start, (param.seed, iteration))
                group = f"iter.{iteration:06d}/probe"
                more, records = quench_chains(own, common, sample, {"": own.melt_quench()}, group, levels)
                tasks += more
                runs += records
    return {"inputs": common["models"], "common": common, "runs": runs, "tasks": task_entries(tasks, common)}


def probe_chunks(param: Param) -> int:
    """Return how many chunks the probe of one ensemble takes."""
    own = param.stop.probe
    if own is None:
        return 0
    quenches = own.replicas * len(own.supercells) * len(param.glasses)
    return quenches and chunk_count(own, param.glasses[0].glass(), {"": own.melt_quench()}) * quenches


def probed(campaign: Campaign, iteration: int) -> list[dict[str, Any]]:
    """Return what the quenches of an ensemble made, as plain JSON: glass, atoms, and per observable value and error.

    Every glass and cell size that was asked for is there. The error is the standard error between replicas; one that
    was lost or did not come to its end is left out, and what fewer than two show is None.
    """
    found = []
    for (glass, atoms), replicas in _final_holds(campaign, iteration).items():
        made = [seen for holds in replicas if (seen := _replica(campaign, holds))]
        values = {name: _mean(made, name) for name in OBSERVABLES}
        found.append({"glass": glass, "atoms": atoms, "replicas": len(made)} | values)
    return found


def _final_holds(campaign: Campaign, iteration: int) -> dict[tuple[str, int], list[list[dict[str, Any]]]]:
    """Return, by glass and atoms, the tasks that each replica's final hold consists of."""
    decision = campaign.state.decisions.get(("probe", iteration))
    samples: dict[tuple[str, int], list[list[dict[str, Any]]]] = {}
    for run in quench_runs(decision):
        samples.setdefault((run["glass"], run["atoms"]), []).append(run["analysed"])
    return samples


def _results(campaign: Campaign, holds: list[dict[str, Any]]) -> list[Path]:
    """Return the results of one final hold; none if a part of it is missing or was lost."""
    if not all(entry["key"] in campaign.state.done for entry in holds):
        return []
    results = [campaign.result(entry["key"]) for entry in holds]
    return results if all(map(_is_whole, results)) else []


def _is_whole(result: Path) -> bool:
    frames, summary = read_json(result / "analysis.json"), read_json(result / "summary.json")
    return bool(frames) and summary["status"] == "finished"


def _replica(campaign: Campaign, holds: list[dict[str, Any]]) -> dict[str, float]:
    """Return the observables of one quench, means over the chunks of its final hold; empty if one is not whole."""
    parts = [_glass_made(result) for result in _results(campaign, holds)]
    return {name: float(np.mean([part[name] for part in parts])) for name in parts[0]} if parts else {}


def _glass_made(result: Path) -> dict[str, float]:
    """Return the observables of a final hold that is whole, means over its frames."""
    frames = read_json(result / "analysis.json")
    boron = frames[0]["composition"].get("B", 0)
    found = {
        "4B": _average(frame["fraction_4B"] for frame in frames),
        "5Si": _average(frame["fraction_5Si"] for frame in frames),
        "3-membered rings": _average(frame["rings"]["counts"].get("3", 0) / boron for frame in frames if boron),
    }
    table = _rdf(result)
    for pair in ("B-O", "Si-O"):
        found[f"{pair} bond"] = _bond_A(table, pair)
    return {name: value for name, value in found.items() if value is not None}


def _rdf(result: Path) -> np.ndarray:
    return np.genfromtxt(result / "rdf.csv", delimiter=",", names=True, deletechars="")


def _average(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _bond_A(table: np.ndarray, pair: str) -> float | None:
    """Return the mean length under the first peak of a pair's g(r), None without one."""
    one, other = pair.split("-")
    names = [name for name in table.dtype.names or () if name in (pair, f"{other}-{one}")]
    if not names:
        return None
    inside = table["r_A"] < _BOND_END_A
    r_A, g = table["r_A"][inside], table[names[0]][inside]
    weight = r_A**2 * g
    return float((r_A * weight).sum() / weight.sum()) if weight.sum() > 0 else None


def _mean(runs: list[dict[str, float]], name: str) -> dict[str, float] | None:
    values = [run[name] for run in runs if name in run]
    if len(values) < 2:
        return None
    error = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    return {"value": float(np.mean(values)), "standard_error": error, "replicas": len(values)}


@dataclass(frozen=True)
class _Structure:
    """All partial g(r) up to `_CURVES_END_A` of one glass in one cell size, as each replica has them.

    pairs: weights of the pairs in the total g(r) by name; r_A: (bins,); g: (replicas, pairs, bins).
    """

    pairs: dict[str, float]
    r_A: np.ndarray
    g: np.ndarray


def _structure(campaign: Campaign, replicas: list[list[dict[str, Any]]]) -> _Structure | None:
    """Return the g(r) of the replicas that came to their end, None of fewer than two."""
    whole = [results for holds in replicas if (results := _results(campaign, holds))]
    if len(whole) < 2:
        return None
    tables = [[_rdf(result) for result in results] for results in whole]
    names = [name for name in tables[0][0].dtype.names or () if name not in ("r_A", "total")]
    inside = tables[0][0]["r_A"] < _CURVES_END_A
    g = np.array([np.mean([[part[name][inside] for name in names] for part in parts], axis=0) for parts in tables])
    counts = read_json(whole[0][0] / "analysis.json")[0]["composition"]
    total = sum(counts.values())
    weights = {}
    for name in names:
        one, other = name.split("-")
        share = counts.get(one, 0) * counts.get(other, 0) / total**2
        weights[name] = share if one == other else 2 * share
    return _Structure(weights, tables[0][0]["r_A"][inside], g)


def probe_criteria(campaign: Campaign, param: Param, iteration: int) -> list[Criterion]:
    """Return, per glass and observable, whether it is the same over the last ensembles, and over the cell sizes.

    What its composition lets a glass have is asked for; what was not measured is unknown, and so is what could hide a
    larger difference than is tolerated.
    """
    own = param.stop.probe
    if own is None:
        return []
    first = max(0, iteration - own.iterations + 1)
    history = {number: probed(campaign, number) for number in range(first, iteration + 1)}
    newest = history[iteration]
    elements = {entry.name: set(stoichiometric_counts(entry.glass(), entry.n_atoms[0])) for entry in param.glasses}
    criteria = []
    for glass in dict.fromkeys(entry["glass"] for entry in newest):
        sizes = [entry for entry in newest if entry["glass"] == glass]
        smallest = min(entry["atoms"] for entry in sizes)
        for name, unit in OBSERVABLES.items():
            if NEEDS[name] not in elements.get(glass, ()):
                continue
            along = [
                (number, entry[name])
                for number, entries in history.items()
                for entry in entries
                if (entry["glass"], entry["atoms"]) == (glass, smallest)
            ]
            tolerance = getattr(own.tolerance, TOLERANCES[name])
            criteria.append(_stable(f"{name} of {glass}", unit, along, "iterations", own.iterations, tolerance))
            if len(sizes) > 1:
                places = [(entry["atoms"], entry[name]) for entry in sizes]
                criteria.append(_stable(f"{name} of {glass}", unit, places, "atoms", len(sizes), tolerance))
        atoms = [entry["atoms"] for entry in sizes]
        criteria += _structure_criteria(campaign, own, glass, atoms, range(first, iteration + 1))
    nothing = Criterion("glasses of the probe", "unknown", None, None, "", "no quench of the probe was asked for")
    runs = quench_runs(campaign.state.decisions.get(("probe", iteration)))
    if lost := [run["name"] for run in runs if not _results(campaign, run["analysed"])]:
        names = ", ".join(lost[:5]) + (", ..." if len(lost) > 5 else "")
        told = f"{len(lost)} of {len(runs)} quenches of the probe made no glass: {names}"
        criteria.append(Criterion("quenches of the probe", "unknown", float(len(lost)), 0.0, "", told))
    return criteria or [nothing]


def _stable(
    name: str,
    unit: str,
    places: list[tuple[int, dict[str, float] | None]],
    along: str,
    wanted: int,
    tolerance: float,
) -> Criterion:
    measured = [Measurement(float(at), **found) for at, found in places if found is not None]  # type: ignore[arg-type]
    if len(measured) < wanted:
        sentence = f"{name} over {along}: {len(measured)} of {wanted} values are known"
        return Criterion(f"stability of {name}", "unknown", None, None, unit, sentence)
    return stability_criterion(stability(name, unit, measured, along=along, tolerance=tolerance))


def _structure_criteria(
    campaign: Campaign, own: ProbeParam, glass: str, atoms: list[int], iterations: range
) -> list[Criterion]:
    """Return whether the g(r) of a glass are the same over ensembles, in the smallest cell, and over cell sizes."""
    along = [(number, (glass, min(atoms)), number) for number in iterations]
    tolerance_A = own.tolerance.rdf_A
    criteria = [_same_structure(campaign, glass, along, "iterations", own.iterations, tolerance_A)]
    if len(atoms) > 1:
        sizes = [(iterations[-1], (glass, size), size) for size in atoms]
        criteria.append(_same_structure(campaign, glass, sizes, "atoms", len(atoms), tolerance_A))
    return criteria


def _same_structure(
    campaign: Campaign,
    glass: str,
    places: list[tuple[int, tuple[str, int], int]],
    along: str,
    wanted: int,
    tolerance_A: float,
) -> Criterion:
    """Compare g(r) at places: of which iteration, glass and atoms, and the number it is called by."""
    found = [(at, _structure(campaign, _final_holds(campaign, n).get(where, []))) for n, where, at in places]
    known = [(at, structure) for at, structure in found if structure is not None]
    name = f"g(r) of {glass}"
    if len(known) < wanted:
        sentence = f"{name} over {along}: {len(known)} of {wanted} are known"
        return Criterion(f"stability of {name}", "unknown", None, None, "A", sentence)
    first = known[0][1]
    measured = [Curves(float(at), structure.g) for at, structure in known]
    weights = list(first.pairs.values())
    return curve_criterion(curve_stability(name, "A", measured, first.r_A, weights, along=along, tolerance=tolerance_A))
