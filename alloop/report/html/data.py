"""What a report tells, as plain records: errors label by label, quenched glasses, and what became of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from alloop.campaign import Campaign
from alloop.frames import read_structures
from alloop.report.html.errors import held_out_errors
from alloop.report.html.relaxed import glass_energies, relaxed_glasses
from alloop.report.html.runs import Run, Tell, finished_runs, newest_quench, unfinished_runs
from alloop.report.html.transport import transport
from alloop.report.statistics import build_statistics
from alloop.report.status import build_status
from alloop.store import read_json


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
    """Return run, glass, and 4B and 5Si before and after relaxing with the labeler, of the last probe relaxed."""
    from alloop.decisions.relaxing import relax_records

    decisions = [decision for (kind, _), decision in sorted(campaign.state.decisions.items()) if kind == "relax"]
    return relax_records(campaign, decisions[-1] if decisions else None)


def quenched_glasses(campaign: Campaign, tell: Tell) -> list[dict[str, Any]]:
    """Return one record per finished run: what it made, g(r) over its analysed end, and its rings as it cooled.

    ``g`` holds columns by name, ``cooling`` what `rings.cooling` tells, ``structure`` the last frame with its rings.
    """
    converged = newest_quench(campaign).get("converged", False)
    found = []
    for run in finished_runs(campaign):
        tell(f"rings of {run['name']}")
        found.append(_quenched(campaign, run, converged=converged))
    return found


def _quenched(campaign: Campaign, run: Run, *, converged: bool) -> dict[str, Any]:
    from alloop.report.html import rings

    conditions = [(entry, entry["spec"].get("condition")) for entry in run["chunks"]]
    dynamics = [(condition, campaign.result(entry["key"])) for entry, condition in conditions if condition]
    final = [campaign.result(entry["key"]) for entry in run["analysed"]]
    frames = [frame for result in final for frame in read_json(result / "analysis.json")]
    of_models = [entry for entry in run["chunks"] if "force_field" not in entry["spec"]]
    minima = [campaign.result(entry["key"]) for entry in of_models if entry["spec"]["stage_kind"] == "minimise"]
    at_minimum = [frame for result in minima[-1:] for frame in read_json(result / "analysis.json")]
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
