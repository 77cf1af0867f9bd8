"""What a report tells, as plain records: errors label by label, quenched glasses, and their rings while they cool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from alloop.campaign import Campaign
from alloop.frames import read_all_structures, read_columns
from alloop.report.statistics import build_statistics
from alloop.report.status import build_status
from alloop.state import quench_runs
from alloop.store import read_json
from alloop.structure import from_record

Tell = Callable[[str], None]
OTHERS = "other structures"


def build_report(campaign: Campaign, driver: str, tell: Tell) -> dict[str, Any]:
    """Return everything a report of a loaded campaign shows; `tell` hears what takes long."""
    return {
        "status": build_status(campaign, driver),
        "statistics": build_statistics(campaign),
        "errors": held_out_errors(campaign),
        "glasses": quenched_glasses(campaign, tell),
    }


def held_out_errors(campaign: Campaign) -> dict[str, Any] | None:
    """Return the newest measured ensemble's errors on the final held-out labels, None before they were measured.

    rows: per label its glass, atoms, the labeler's energy and the ensemble mean's error (eV/atom), force RMSE of one
    model (eV/Å, over models) and the largest error of a mean force. by_glass: labels, mean absolute and largest energy
    error with and without the glass's mean offset, that offset, force RMSE and largest force error.
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
                "max_force_error_eV_A": float(errors["force_max"][row]),
            }
        )
    names = sorted({str(row["glass"]) for row in rows}, key=lambda name: (name == OTHERS, name))
    table = [_glass_errors(name, [row for row in rows if row["glass"] == name]) for name in names]
    return {"iteration": iteration, "rows": rows, "by_glass": [*table, _glass_errors("all", rows)]}


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
        "force_rmse_eV_A": float(np.sqrt(np.average(squared, weights=weights))),
        "max_force_error_eV_A": max(row["max_force_error_eV_A"] for row in rows),
    }


def quenched_glasses(campaign: Campaign, tell: Tell) -> list[dict[str, Any]]:
    """Return one record per finished run: what it made, g(r) over its analysed end, and its rings as it cooled.

    ``g`` holds columns by name, ``cooling`` the target temperatures and numbers of three-membered boron rings, and of
    the rings of the end the share that existed. Runs that were lost or are not finished are left out.
    """
    decisions = [decision for (kind, _), decision in sorted(campaign.state.decisions.items()) if kind == "quench"]
    found = []
    for run in quench_runs(decisions[-1] if decisions else None):
        done = all(entry["key"] in campaign.state.done for entry in run["chunks"])
        if not done or any(campaign.summary(entry["key"])["status"] != "finished" for entry in run["chunks"]):
            continue
        tell(f"rings of {run['name']}")
        found.append(_quenched(campaign, run, decisions[-1]))
    return found


def _quenched(campaign: Campaign, run: dict[str, Any], decision: dict[str, Any]) -> dict[str, Any]:
    final = [campaign.result(entry["key"]) for entry in run["analysed"]]
    frames = [frame for result in final for frame in read_json(result / "analysis.json")]
    return {
        "run": run["name"],
        "glass": run["glass"],
        "atoms": run["atoms"],
        "density_g_cm3": _mean([frame["density_g_cm3"] for frame in frames]),
        "cooling_rate_K_ps": run["cooling_rate_K_ps"],
        "converged_ensemble": decision["converged"],
        "frames": len(frames),
        "fraction_4B": _mean([frame["fraction_4B"] for frame in frames]),
        "fraction_5Si": _mean([frame["fraction_5Si"] for frame in frames]),
        "three_rings": _mean([frame["rings"]["counts"].get("3", 0) for frame in frames]),
        "fraction_boroxol": _mean([frame["boroxol"]["fraction_B"] for frame in frames]),
        "g": _mean_columns([result / "rdf.csv" for result in final]),
        "cooling": _cooling([(entry["spec"], campaign.result(entry["key"])) for entry in cooling_chunks(run)]),
    }


def cooling_chunks(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the chunks of a run from its first cooling by what drives its end, up to the last that is analysed.

    Minimisations are left out, and what comes after, such as a stay at another temperature for transport.
    """
    moving = [entry for entry in run["chunks"] if entry["spec"]["stage_kind"] != "minimise"]
    if not moving:
        return []
    analysed = [entry["key"] for entry in run["analysed"]]
    keys = [entry["key"] for entry in moving]
    end = 1 + keys.index(analysed[-1]) if analysed else len(moving)
    classical = "force_field" in moving[end - 1]["spec"]
    for begin, entry in enumerate(moving[:end]):
        condition = entry["spec"]["condition"]
        cools = condition["temperature_end_K"] < condition["temperature_start_K"]
        if cools and ("force_field" in entry["spec"]) == classical:
            return moving[begin:end]
    return []


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


def _cooling(chunks: list[tuple[dict[str, Any], Path]]) -> dict[str, Any] | None:
    """Return the history of rings over these chunks; None with fewer than two frames or no boron."""
    from alloop.glass.ring_history import ring_history

    frames, times_ps, temperatures_K, begun_ps = [], [], [], 0.0
    for spec, result in chunks:
        condition = spec["condition"]
        length_ps = condition["n_steps"] * condition["timestep_fs"] / 1000
        columns = read_columns(result)
        frames += [from_record(record) for record in read_all_structures(result)]
        times_ps += (begun_ps + columns["step"] / condition["n_steps"] * length_ps).tolist()
        temperatures_K += columns["target_temperature_K"].tolist()
        begun_ps += length_ps
    if len(frames) < 2 or "B" not in frames[0].symbols:
        return None
    history = ring_history(frames, times_ps=times_ps, temperatures_K=temperatures_K)
    survival = history.survival()
    kinds = [event.kind for event in history.events]
    return {
        "times_ps": times_ps,
        "temperatures_K": temperatures_K,
        "three_rings": list(history.counts),
        "survival": list(survival.present),
        "formed": kinds.count("formation"),
        "broken": kinds.count("decomposition"),
    }
