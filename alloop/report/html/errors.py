"""Errors on held-out labels of the models that made the glasses: label by label, and by composition."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alloop.campaign import Campaign
from alloop.structure import LabeledFrame

OTHERS = "other structures"
OWN_SHOWN = 8
"""As many compositions of a person's own structures have a row of their own, those with most labels."""
_CRYSTAL = re.compile(r"crystal\d+\.([^.]+)")

Array = NDArray[np.float64]


def held_out_errors(campaign: Campaign) -> dict[str, Any] | None:
    """Return the errors on the held-out labels of the models that `measured_models` tells, None before any are.

    Beside what that tells, rows: per label its glass or else composition, atoms, the labeler's energy (eV/atom), the
    error of the ensemble's mean energy, and of single models the mean absolute error and the largest, with and without
    the model's mean offset of the composition, None for the only label of one (eV/atom); force RMSE, mean absolute
    error of components and the largest error vector of an atom by any model (eV/Å, None if not on disk).
    by_glass: the same over the labels of each row's glass, and over all, and the offset where it is of one composition.
    forces: by glass, force components drawn at random, by the labeler and the ensemble's mean (eV/Å).
    """
    from alloop.tasks.label import read_label

    found = measured_models(campaign)
    if found is None:
        return None
    with np.load(campaign.result(found.pop("key")) / "errors.npz") as stored:
        errors = {name: stored[name] for name in stored.files}
    if not len(errors["label"]):
        return None
    labels = [read_label(campaign.result(str(key))) for key in errors["label"]]
    compositions = [_composition(campaign, str(key), own) for key, own in zip(errors["label"], labels, strict=True)]
    groups = _groups(compositions)
    rows = _rows(errors, labels, [name for name, _ in compositions], groups)
    names = sorted(set(groups), key=lambda name: (name == OTHERS, name))
    table = [_pooled(name, [row for row in rows if row["glass"] == name]) for name in names]
    group_of_sample = np.array(groups)[errors["sample_row"]]
    forces = {name: _force_sample(errors, group_of_sample == name) for name in names}
    return found | {"rows": rows, "by_glass": [*table, _pooled("all", rows)], "forces": forces}


def measured_models(campaign: Campaign) -> dict[str, Any] | None:
    """Return which measured models the errors are of, None if none were measured.

    They are those that made the newest glasses, which a longer training may have made, and else the newest ensemble:
    ``key`` of the measurement, ``iteration``, whether they were trained ``longer``, and whether they ``made_glasses``,
    None if there are no glasses.
    """
    state = campaign.state
    quench = state.newest_quench()
    made = state.models_of_glass(quench["iteration"]) if quench else []
    assessed = [decision for (kind, _), decision in sorted(state.decisions.items()) if kind == "assess"]
    entries = list(enumerate(assessed[-1]["tasks"])) if assessed else []
    if quench:
        checked = state.decisions.get(("final_check", quench["iteration"]), {"tasks": []})
        entries = [(quench["iteration"], entry) for entry in checked["tasks"]] + entries
    done = [(iteration, entry) for iteration, entry in entries if entry["key"] in state.done]
    theirs = [(iteration, entry) for iteration, entry in done if made and entry["spec"]["models"] == made]
    if not done:
        return None
    iteration, entry = (theirs or done)[-1]
    longer = entry["spec"]["models"] != state.models(iteration)
    return {
        "key": entry["key"],
        "iteration": iteration,
        "longer": longer,
        "made_glasses": bool(theirs) if made else None,
    }


def models_text(errors: dict[str, Any]) -> str:
    """Say which models the errors are of, and whether they made the glasses."""
    text = f"Ensemble {errors['iteration']}"
    if errors["longer"]:
        text += " trained longer (quench.final_training)"
    if errors["made_glasses"] is None:
        return text
    return f"{text}, whose models made the glasses" if errors["made_glasses"] else f"{text}, NOT what made the glasses"


def _composition(campaign: Campaign, key: str, label: LabeledFrame) -> tuple[str, bool]:
    """Return the glass or crystal a label is of, else its formula, and whether it is a person's own structure."""
    glass = campaign.glass_of(campaign.state.tasks[key])
    crystal = _CRYSTAL.match(str(campaign.state.picks.get(key, {}).get("trajectory", "")))
    if glass is None and crystal is None:
        return f"{label.atoms.symbols.formula.reduce()[0]:hill}", True
    return glass or crystal[1], False  # type: ignore[index]


def _groups(compositions: list[tuple[str, bool]]) -> list[str]:
    """Return in which row of the table each label is: that of its composition, or of others if there are many."""
    listed = {name for name, own in compositions if not own}
    counts = Counter(name for name, _ in compositions if name not in listed)
    shown = listed | {name for name, _ in counts.most_common(OWN_SHOWN)}
    return [name if name in shown else OTHERS for name, _ in compositions]


def _rows(
    errors: dict[str, Array], labels: list[LabeledFrame], compositions: list[str], groups: list[str]
) -> list[dict[str, Any]]:
    """Return a record per label; offsets are taken per composition and model, before anything is pooled."""
    energy = errors["energy_error_eV"] / errors["n_atoms"][:, None]
    centred = np.full_like(energy, np.nan)
    for name in set(compositions):
        own = np.array([one == name for one in compositions])
        if own.sum() > 1:
            centred[own] = energy[own] - energy[own].mean(axis=0)
    largest_force = errors.get("model_force_max")
    rows = []
    for row, (label, group) in enumerate(zip(labels, groups, strict=True)):
        components = 3 * int(errors["n_atoms"][row])
        known = bool(np.isfinite(centred[row]).all())
        rows.append(
            {
                "label": str(errors["label"][row]),
                "glass": group,
                "composition": compositions[row],
                "atoms": len(label.atoms),
                "energy_eV_atom": float(label.energy_eV / len(label.atoms)),
                "energy_error_eV_atom": float(energy[row].mean()),
                "energy_mae_eV_atom": float(np.abs(energy[row]).mean()),
                "energy_max_eV_atom": float(np.abs(energy[row]).max()),
                "energy_mae_without_offset_eV_atom": float(np.abs(centred[row]).mean()) if known else None,
                "energy_max_without_offset_eV_atom": float(np.abs(centred[row]).max()) if known else None,
                "force_rmse_eV_A": float(np.sqrt(errors["force_se"][row].mean() / components)),
                "force_mae_eV_A": float(errors["force_abs"][row].mean() / components),
                "max_force_error_eV_A": None if largest_force is None else float(largest_force[row].max()),
            }
        )
    return rows


def _pooled(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    def known(key: str) -> list[float]:
        return [row[key] for row in rows if row[key] is not None]

    weights = np.array([row["atoms"] for row in rows], dtype=float)
    squared = np.array(known("force_rmse_eV_A")) ** 2
    without = known("energy_mae_without_offset_eV_atom")
    one_composition = len({row["composition"] for row in rows}) == 1
    return {
        "glass": name,
        "labels": len(rows),
        "energy_mae_eV_atom": float(np.mean(known("energy_mae_eV_atom"))),
        "energy_max_eV_atom": max(known("energy_max_eV_atom")),
        "energy_offset_eV_atom": float(np.mean(known("energy_error_eV_atom"))) if one_composition else None,
        "energy_mae_without_offset_eV_atom": float(np.mean(without)) if without else None,
        "energy_max_without_offset_eV_atom": max(known("energy_max_without_offset_eV_atom"), default=None),
        "force_mae_eV_A": float(np.average(known("force_mae_eV_A"), weights=weights)),
        "force_rmse_eV_A": float(np.sqrt(np.average(squared, weights=weights))),
        "max_force_error_eV_A": max(known("max_force_error_eV_A"), default=None),
    }


def _force_sample(errors: dict[str, Array], chosen: NDArray[np.bool_]) -> dict[str, list[float]]:
    values = ((key, errors[f"sample_{key}_eV_A"][chosen]) for key in ("true", "mean"))
    return {key: own.astype(float).round(4).tolist() for key, own in values}
