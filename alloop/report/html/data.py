"""What a report tells, as plain records: errors label by label, quenched glasses, and what became of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from alloop.campaign import Campaign
from alloop.frames import read_structures
from alloop.report.html.relaxed import glass_energies, relaxed_glasses
from alloop.report.html.runs import Run, Tell, finished_runs, newest_quench, unfinished_runs
from alloop.report.html.transport import transport
from alloop.report.statistics import build_statistics
from alloop.report.status import build_status
from alloop.store import read_json

OTHERS = "other structures"


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


def held_out_errors(campaign: Campaign) -> dict[str, Any] | None:
    """Return the newest measured ensemble's errors on the final held-out labels, None before they were measured.

    rows: per label its glass, atoms, the labeler's energy and the ensemble mean's error (eV/atom), force RMSE of one
    model and mean absolute error of its components (eV/Å, over models), and the largest error of a mean force.
    by_glass: labels, mean absolute and largest energy error with and without the glass's mean offset, that offset,
    force MAE, RMSE and largest force error. forces: by glass, force components drawn at random, by the labeler and the
    ensemble's mean (eV/Å).
    """
    from alloop.tasks.label import read_label

    decisions = [decision for (kind, _), decision in sorted(campaign.state.decisions.items()) if kind == "assess"]
    keys = [entry["key"] for entry in decisions[-1]["tasks"]] if decisions else []
    measured = [(number, key) for number, key in enumerate(keys) if key in campaign.state.done]
    if not measured:
        return None
    iteration, key = measured[-1]
    with np.load(campaign.result(key) / "errors.npz") as stored:
        errors = {name: stored[name] for name in stored.files}
    if not len(errors["label"]):
        return None
    rows = []
    for row, label in enumerate(map(str, errors["label"])):
        atoms = int(errors["n_atoms"][row])
        rows.append(
            {
                "label": label,
                "glass": campaign.glass_of(campaign.state.tasks[label]) or OTHERS,
                "atoms": atoms,
                "energy_eV_atom": float(read_label(campaign.result(label)).energy_eV / atoms),
                "energy_error_eV_atom": float(errors["energy_error_eV"][row].mean() / atoms),
                "force_rmse_eV_A": float(np.sqrt(errors["force_se"][row].mean() / (3 * atoms))),
                "force_mae_eV_A": float(errors["force_abs"][row].mean() / (3 * atoms)),
                "max_force_error_eV_A": float(errors["force_max"][row]),
            }
        )
    names = sorted({str(row["glass"]) for row in rows}, key=lambda name: (name == OTHERS, name))
    table = [_glass_errors(name, [row for row in rows if row["glass"] == name]) for name in names]
    glass_of_row = np.array([row["glass"] for row in rows])
    forces = {name: _force_sample(errors, glass_of_row[errors["sample_row"]] == name) for name in names}
    return {"iteration": iteration, "rows": rows, "by_glass": [*table, _glass_errors("all", rows)], "forces": forces}


def _force_sample(errors: dict[str, np.ndarray], chosen: np.ndarray) -> dict[str, list[float]]:
    values = ((key, errors[f"sample_{key}_eV_A"][chosen]) for key in ("true", "mean"))
    return {key: own.astype(float).round(4).tolist() for key, own in values}


def _glass_errors(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    energy = np.array([row["energy_error_eV_atom"] for row in rows])
    weights = np.array([row["atoms"] for row in rows], dtype=float)
    centred = energy - energy.mean()
    squared = np.array([row["force_rmse_eV_A"] for row in rows]) ** 2
    return {
        "glass": name,
        "labels": len(rows),
        "energy_mae_eV_atom": float(np.abs(energy).mean()),
        "energy_max_eV_atom": float(np.abs(energy).max()),
        "energy_offset_eV_atom": float(energy.mean()),
        "energy_mae_without_offset_eV_atom": float(np.abs(centred).mean()),
        "energy_max_without_offset_eV_atom": float(np.abs(centred).max()),
        "force_mae_eV_A": float(np.average([row["force_mae_eV_A"] for row in rows], weights=weights)),
        "force_rmse_eV_A": float(np.sqrt(np.average(squared, weights=weights))),
        "max_force_error_eV_A": max(row["max_force_error_eV_A"] for row in rows),
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
