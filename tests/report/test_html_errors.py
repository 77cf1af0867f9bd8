"""Errors on the page of `alloop report`: of the models that made the glasses, of single models, and by composition."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from campaign_kit import content
from glass_kit import chunk, decide_quench
from report_kit import begun, end_well
from test_html_page import part

from alloop.campaign import Campaign
from alloop.frames import write_arrays
from alloop.report.html.errors import held_out_errors
from alloop.store import Task, make_task

GLASS, ATOMS = "LBS-20-60-20", 10
LONGER = ["new0", "new1"]
SYMBOLS = {"quartz": ["Si", "O", "O"], "mine": ["Li", "Li", "O"], GLASS: ["B"] * ATOMS}


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return begun(tmp_path / "campaign")


def labelled(campaign: Campaign, trajectories: list[str]) -> list[str]:
    """Finished held-out labels, one of each trajectory."""
    source = next(iter(campaign.state.tasks))
    picks = [
        {
            "key": make_task("label", "", "", {"of": trajectory, "frame": number}).key,
            "name": f"{trajectory}.s{number:04d}",
            "source": {"task": source, "frame": number},
            "given": False,
            "level": campaign.level["name"],
            "trajectory": trajectory,
            "role": "held_out",
            "reason": "bootstrap",
            "temperature_K": 300.0,
        }
        for number, trajectory in enumerate(trajectories)
    ]
    campaign.decide("seed_labels", iteration=-1, level=campaign.level, picks=picks)
    for pick in picks:
        symbols = next(own for name, own in SYMBOLS.items() if name in str(pick["trajectory"]))
        zeros = np.zeros((len(symbols), 3)).tolist()
        structure = {"symbols": symbols, "cell_A": (9 * np.eye(3)).tolist(), "positions_A": zeros}
        label = {"structure": structure, "energy_eV": -7.0 * len(symbols), "forces_eV_A": zeros}
        folder = end_well(campaign, str(pick["key"]))
        (folder / "result" / "label.json").write_text(json.dumps(label | {"virial_eV": np.zeros((3, 3)).tolist()}))
    return [str(pick["key"]) for pick in picks]


def measurement(name: str, models: list[str]) -> Task:
    return make_task("evaluate", "production/assess", name, {"models": models, "sets": {}, "name": name})


def measure(campaign: Campaign, task: Task, labels: list[str], energy_error_eV_atom: Any, force_max: Any = 2.0) -> None:
    """The errors of two models on labels: of energy (L, 2) in eV/atom, and the largest of a force (L, 2)."""
    counts = np.array([len(json.loads(_label(campaign, key))["structure"]["symbols"]) for key in labels])
    ones = np.ones((len(labels), 2))
    table = {
        "label": np.array(labels),
        "n_atoms": counts,
        "force_se": ones,
        "force_abs": ones,
        "force_max": np.full(len(labels), 0.1),
        "model_force_max": ones * force_max,
        "energy_error_eV": ones * energy_error_eV_atom * counts[:, None],
        "sample_row": np.arange(len(labels)),
        "sample_true_eV_A": np.zeros(len(labels)),
        "sample_mean_eV_A": np.ones(len(labels)),
    }
    write_arrays(end_well(campaign, task.key) / "result" / "errors.npz", table)


def _label(campaign: Campaign, key: str) -> str:
    return (campaign.result(key) / "label.json").read_text()


def assessed(campaign: Campaign, labels: list[str], energy_error_eV_atom: Any, **more: Any) -> None:
    trained = [make_task("train", "iter.000000/train", f"model.{k:02d}", {"k": k}) for k in range(2)]
    campaign.decide("train", iteration=0, **content(trained, {"training": []}))
    for task in trained:
        end_well(campaign, task.key)
    task = measurement("ensemble.00", campaign.state.models(0))
    campaign.decide("assess", iteration=0, **content([task]))
    measure(campaign, task, labels, energy_error_eV_atom, **more)


def test_errors_are_of_single_models_not_of_their_mean(campaign: Campaign) -> None:
    labels = labelled(campaign, [f"{GLASS}.n63.t00"] * 2)
    assessed(campaign, labels, [[0.03, -0.03], [0.05, -0.01]], force_max=[[0.4, 3.5], [0.2, 0.1]])
    found = held_out_errors(campaign)
    assert found is not None
    own, total = found["by_glass"]
    assert own["energy_mae_eV_atom"] == pytest.approx(0.03), "their mean errs by 0.01 only"
    assert own["energy_max_eV_atom"] == pytest.approx(0.05) and own["energy_offset_eV_atom"] == pytest.approx(0.01)
    assert own["energy_mae_without_offset_eV_atom"] == pytest.approx(0.01), "each model less its own offset"
    assert (own["max_force_error_eV_A"], total["max_force_error_eV_A"]) == (3.5, 3.5), "not 0.1 of the mean force"
    assert "Errors are of single models" in part({"errors": found}, "errors").tables[0].caption


def test_offsets_are_those_of_each_composition_also_over_all(campaign: Campaign) -> None:
    """Offsets of opposite sign: one offset for all, or for all crystals together, would leave them in."""
    names = [f"{GLASS}.n63.t00", "crystal00.quartz", "structures00.mine"]
    labels = labelled(campaign, [name for name in names for _ in range(2)] + ["data01.mine_alone_quartz"])
    errors = [[0.1], [0.1], [-0.2], [-0.2], [0.05], [0.07], [0.5]]
    assessed(campaign, labels, np.repeat(errors, 2, axis=1))
    found = held_out_errors(campaign)
    assert found is not None
    by = {row["glass"]: row for row in found["by_glass"]}
    assert list(by) == [GLASS, "Li2O", "O2Si", "quartz", "all"], "own structures by formula"
    offsets = {name: row["energy_offset_eV_atom"] for name, row in by.items()}
    assert offsets == {
        GLASS: pytest.approx(0.1),
        "quartz": pytest.approx(-0.2),
        "Li2O": pytest.approx(0.06),
        "O2Si": pytest.approx(0.5),
        "all": None,
    }
    assert by["O2Si"]["energy_mae_without_offset_eV_atom"] is None, "one label has no offset of its own"
    assert by["all"]["energy_mae_without_offset_eV_atom"] == pytest.approx(2 * 0.01 / 6)
    assert by["all"]["energy_max_without_offset_eV_atom"] == pytest.approx(0.01)
    (table,) = part({"errors": found}, "errors").tables
    row = dict(zip(table.columns, table.rows[-1], strict=True))
    assert (row["mean offset"], row["MAE without it"]) == ("-", "3.3")


def test_the_errors_are_of_the_models_that_made_the_glasses(campaign: Campaign) -> None:
    labels = labelled(campaign, [f"{GLASS}.n63.t00"] * 2)
    assessed(campaign, labels, 0.02)
    told = held_out_errors(campaign)
    assert told is not None and (told["iteration"], told["longer"], told["made_glasses"]) == (0, False, None)
    check = [measurement("final.00", LONGER), measurement("ensemble.00.again", campaign.state.models(0))]
    campaign.decide("final_check", iteration=0, **content(check))
    task = chunk("run", 0, "glass", GLASS)
    common = {"events": {}, "models": LONGER}
    spec = {"spec": {**task.spec, **common}}
    records = [
        {"name": "run", "glass": GLASS, "atoms": 63, "replica": 0, "cooling_rate_K_ps": 1.0, "tasks": [task.key]}
    ]
    campaign.decide("quench", iteration=0, converged=True, runs=records, **content([task], common) | spec)
    before = held_out_errors(campaign)
    assert before is not None and before["made_glasses"] is False, "the final models are not measured yet"
    assert "NOT what made the glasses" in part({"errors": before}, "errors").tables[0].caption
    measure(campaign, check[0], labels, 0.005)
    measure(campaign, check[1], labels, 0.02)
    after = held_out_errors(campaign)
    assert after is not None and after["by_glass"][-1]["energy_mae_eV_atom"] == pytest.approx(0.005)
    caption = part({"errors": after}, "errors").tables[0].caption
    assert caption.startswith("Ensemble 0 trained longer (quench.final_training), whose models made the glasses")


def test_glasses_of_the_ensemble_itself_have_its_errors(campaign: Campaign) -> None:
    labels = labelled(campaign, [f"{GLASS}.n63.t00"] * 2)
    assessed(campaign, labels, 0.02)
    decide_quench(campaign, {"run": (GLASS, 1.0, [chunk("run", 0, "glass", GLASS)])})
    found = held_out_errors(campaign)
    assert found is not None and (found["longer"], found["made_glasses"]) == (False, True)


def test_many_compositions_of_own_structures_share_a_row_and_keep_their_offsets() -> None:
    from alloop.report.html.errors import OTHERS, OWN_SHOWN, _groups

    own = [(f"X{number}", True) for number in range(OWN_SHOWN + 3) for _ in range(2 if number else 1)]
    groups = _groups([("quartz", False), *own])
    assert groups[0] == "quartz" and groups.count(OTHERS) == 1 + 2 * 2 and len(set(groups)) == OWN_SHOWN + 2
