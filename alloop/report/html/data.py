"""What a report tells, as plain records: errors label by label, quenched glasses, and what became of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from alloop.campaign import Campaign
from alloop.frames import read_structures
from alloop.glass.composition import TABLE_1, composition_parameters
from alloop.report.html.errors import held_out_errors
from alloop.report.html.relaxed import glass_energies, relaxed_glasses
from alloop.report.html.runs import Run, Tell, finished_runs, newest_quench, unfinished_runs
from alloop.report.html.transport import transport
from alloop.report.statistics import build_statistics
from alloop.report.status import build_status
from alloop.state import quench_runs
from alloop.store import read_json

UNKNOWN: dict[str, Any] = {
    "mole_fractions": {},
    "R": None,
    "K": None,
    "experimental_4B": None,
    "experimental_density_g_cm3": None,
}
"""What is known of a glass that the configuration no longer has."""


def build_report(campaign: Campaign, driver: str, tell: Tell) -> dict[str, Any]:
    """Return everything a report of a loaded campaign shows; `tell` hears what takes long."""
    return {
        "status": build_status(campaign, driver),
        "statistics": build_statistics(campaign),
        "errors": held_out_errors(campaign),
        "glasses": quenched_glasses(campaign, tell),
        "unfinished": unfinished_runs(campaign),
        "relaxed": probed_relaxed(campaign),
        "relaxed_glasses": relaxed_glasses(campaign),
        "energies": glass_energies(campaign),
        "transport": transport(campaign, tell),
    }


def probed_relaxed(campaign: Campaign) -> list[dict[str, Any]]:
    """Return what the last probe's glasses show before and after relaxing with the labeler.

    A record has run, glass, cooling_rate_K_ps (None for a force field's), and 4B and 5Si ``before`` and ``after``.
    """
    from alloop.decisions.relaxing import relax_records

    decisions = campaign.state.decisions
    iteration = max((number for kind, number in decisions if kind == "relax"), default=None)
    if iteration is None:
        return []
    rates = {run["name"]: run["cooling_rate_K_ps"] for run in quench_runs(decisions.get(("probe", iteration)))}
    records = relax_records(campaign, decisions["relax", iteration])
    return [record | {"cooling_rate_K_ps": rates.get(record["run"])} for record in records]


def known_of_glasses(campaign: Campaign) -> dict[str, dict[str, Any]]:
    """Return, by glass of the campaign, its composition, and what experiment tells of it.

    ``mole_fractions``, ``R`` = [Li2O]/[B2O3] and ``K`` = [SiO2]/[B2O3], None without B2O3; ``experimental_4B`` and
    ``experimental_density_g_cm3`` of Table 1, None of another composition, also under a name of Table 1.
    """
    from alloop.config import parse  # slow to import

    found = {}
    for entry in parse(campaign.state.starts[-1]["config"], "the recorded configuration").glasses:
        glass = entry.glass()
        measured = None if glass.experimental_4B is None else TABLE_1[glass.name].density_g_cm3
        found[glass.name] = {
            "mole_fractions": dict(glass.mole_fractions),
            **dict(zip("RK", composition_parameters(glass) or (None, None), strict=True)),
            "experimental_4B": glass.experimental_4B,
            "experimental_density_g_cm3": measured,
        }
    return found


def quenched_glasses(campaign: Campaign, tell: Tell) -> list[dict[str, Any]]:
    """Return one record per finished run: what it made, g(r) over its analysed end, and its rings as it cooled.

    ``g`` holds columns by name, ``cooling`` what `rings.cooling` tells, ``structure`` the last frame with its rings;
    with what `known_of_glasses` tells of its glass.
    """
    converged = newest_quench(campaign).get("converged", False)
    runs = finished_runs(campaign)
    known = known_of_glasses(campaign) if runs else {}
    found = []
    for run in runs:
        tell(f"rings of {run['name']}")
        found.append(_quenched(campaign, run, converged=converged) | known.get(run["glass"], UNKNOWN))
    return found


def _quenched(campaign: Campaign, run: Run, *, converged: bool) -> dict[str, Any]:
    from alloop.report.html import rings

    conditions = [(entry, entry["spec"].get("condition")) for entry in run["chunks"]]
    dynamics = [(condition, campaign.result(entry["key"])) for entry, condition in conditions if condition]
    final = [campaign.result(entry["key"]) for entry in run["analysed"]]
    frames = [frame for result in final for frame in read_json(result / "analysis.json")]
    of_models = [entry for entry in run["chunks"] if "force_field" not in entry["spec"]]
    minima = [entry["key"] for entry in of_models if entry["spec"]["stage_kind"] == "minimise"][-1:]
    reached = [campaign.result(key) for key in minima if campaign.summary(key).get("converged", True)]
    at_minimum = [frame for result in reached for frame in read_json(result / "analysis.json")]
    return {
        "run": run["name"],
        "glass": run["glass"],
        "atoms": run["atoms"],
        "density_g_cm3": _mean([frame["density_g_cm3"] for frame in frames]),
        "cooling_rate_K_ps": run["cooling_rate_K_ps"],
        "driven_by": run["driven_by"],
        "converged_ensemble": converged,
        "frames": len(frames),
        "fraction_4B": _mean([frame["fraction_4B"] for frame in frames]),
        "fraction_4B_at_minimum": _mean([frame["fraction_4B"] for frame in at_minimum]),
        "fraction_5Si": _mean([frame["fraction_5Si"] for frame in frames]),
        "three_rings": _mean([frame["rings"]["counts"].get("3", 0) for frame in frames]),
        "fraction_boroxol": _mean([frame["boroxol"]["fraction_B"] for frame in frames]),
        "g": _mean_columns([result / "rdf.csv" for result in final]),
        "cooling": rings.cooling(dynamics),
        "structure": rings.with_rings(read_structures(final[-1], [-1])[0]) if final else None,
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _mean_columns(files: list[Path]) -> dict[str, list[float]]:
    """Return the columns of tables of one shape, averaged over the tables; empty without any."""
    tables = [np.genfromtxt(file, delimiter=",", names=True, deletechars="") for file in files if file.exists()]
    if not tables:
        return {}
    names = tables[0].dtype.names or ()
    return {name: np.mean([table[name] for table in tables], axis=0).tolist() for name in names}
