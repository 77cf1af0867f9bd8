"""What a finished campaign tells: status, statistics, plan, deviations as defined, the analysed glass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from harness import Outcome, alloop, assert_counts_add_up, assert_nothing_ran_twice

from alloop.campaign import Campaign
from alloop.decisions.calibration import audit_pairs
from alloop.decisions.selection import newest_known
from alloop.potential.environment import md_environment
from alloop.report.provenance import build_provenance
from alloop.tasks.describe import read_environments

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def campaign(reference: Path) -> Campaign:
    opened = Campaign(reference)
    opened.load()
    return opened


def test_says_what_it_is(reference: Path, reference_outcome: Outcome) -> None:
    output = (reference / "run.out").read_text()
    assert "not converged" in output
    assert "NOT converged" in output  # the mark on the glass table
    assert_nothing_ran_twice(reference)
    status = assert_counts_add_up(reference)
    assert status["converged"] is False
    assert [row["iteration"] for row in status["final_held_out"]] == [0, 1, 2]
    assert status["driver"] == "not running"
    assert status["iterations"][0]["accurate"] + status["iterations"][0]["candidate"] > 0
    assert status["labels"]["done"] == sum(
        len(keys) for (kind, _), keys in reference_outcome.keys.items() if kind == "label"
    )
    assert all((reference / model).is_file() for model in status["models"])


def test_every_label_is_accounted_for_and_held_out_by_trajectory(campaign: Campaign) -> None:
    state = campaign.state
    used = set(state.decisions["train", 2]["common"]["training"])
    held = set(state.decisions["train", 2]["common"]["held_out"])
    labels = {key for key in state.done if state.tasks[key].kind == "label"}
    assert used | held == labels
    assert not used & held
    roles: dict[str, set[str]] = {}
    for pick in state.picks.values():
        roles.setdefault(pick["trajectory"], set()).add(pick["role"])
    assert all(len(found) == 1 for found in roles.values())
    assert {"training", "held_out"} == set().union(*roles.values())


def test_seeds_are_unique(campaign: Campaign) -> None:
    tasks = campaign.state.tasks.values()
    seeds = [task.spec["seed"] for task in tasks if "seed" in task.spec]
    assert len(seeds) == len(set(seeds))


def test_warm_start_and_learning_curves(campaign: Campaign) -> None:
    for number, expected in ((0, "scratch"), (1, "warm start")):
        for key in campaign.state.models(number):
            assert campaign.summary(key)["started_from"] == expected
            steps = np.loadtxt(campaign.result(key) / "lcurve.out")[:, 0]
            assert steps[-1] == campaign.state.tasks[key].spec["steps"]


_DEVIATION = """
import json, sys
import numpy as np
from pathlib import Path
from alloop.campaign import Campaign
from alloop.frames import read_columns, read_structures
from alloop.structure import from_record
from alloop.potential.ensemble import Ensemble

campaign = Campaign(Path(sys.argv[1])); state = campaign.load()
worst, frames = 0.0, 0
for key, task in state.tasks.items():
    if task.kind != "explore" or key not in state.done:
        continue
    files = [campaign.result(m) / campaign.summary(m)["model"] for m in task.spec["models"]]
    ensemble = Ensemble(files)
    columns = read_columns(campaign.result(key))
    count = len(columns["n_atoms"])
    for index, record in enumerate(read_structures(campaign.result(key), range(count))):
        forces = ensemble.evaluate(from_record(record)).forces_eV_A
        own = np.sqrt(((forces - forces.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0))
        worst = max(worst, np.abs(own / columns["force_deviation_eV_A"][index] - 1).max())
        assert abs(own.max() / columns["max_force_deviation_eV_A"][index] - 1) < 1e-5
        frames += 1
    if frames > 20:
        break
print(json.dumps({"frames": frames, "worst": worst}))
"""


def test_recorded_deviation_is_that_of_the_models_forces_by_definition(reference: Path) -> None:
    import os

    done = subprocess.run(
        [sys.executable, "-c", _DEVIATION, str(reference)],
        capture_output=True,
        text=True,
        env=os.environ | md_environment(1),
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found["frames"] > 5
    assert found["worst"] < 1e-5


def test_frames_are_compared_with_the_training_data_by_one_models_descriptor(campaign: Campaign) -> None:
    state = campaign.state
    describer = state.models(0)[0]
    assert state.describer == describer
    for iteration in (0, 1):
        decision = state.decisions["describe", iteration]
        assert decision["tasks"][0]["key"] in state.done and decision["labels"]
        for entry in state.decisions["explore", iteration]["tasks"]:
            assert state.tasks[entry["key"]].spec["describer"] == describer
    known = newest_known(campaign)
    assert known is not None
    kept = [
        environments["candidate"]
        for entry in state.decisions["explore", 0]["tasks"]
        for environments in read_environments(campaign.result(entry["key"]))
    ]
    assert len(kept) > 5 and all(np.isfinite(known.novelty(one)).all() for one in kept)


def test_verdict_lists_its_criteria_and_status_says_what_is_missing(reference: Path, campaign: Campaign) -> None:
    verdict = campaign.state.decisions["verdict", 1]
    states = {own["name"]: own["state"] for own in verdict["criteria"]}
    assert any(name.startswith("accurate fraction") for name in states), "of lost trajectories it is told there"
    assert "force RMSE on held-out exploration labels" in states
    assert verdict["converged"] == (set(states.values()) == {"met"})
    assert [labels for labels, _ in verdict["learning"]] == sorted(labels for labels, _ in verdict["learning"])
    status = json.loads(alloop(reference, "status", "--json").stdout)
    unmet = [own["sentence"] for own in verdict["criteria"] if own["state"] == "unmet"]
    assert status["missing"] and all(sentence in status["missing"] for sentence in unmet)


def test_audit_is_a_sample_of_what_was_explored_and_its_pairs_are_the_labels_errors(campaign: Campaign) -> None:
    drawn = [key for number in (0, 1) for key in campaign.state.decisions["select", number]["audit"]]
    pairs = audit_pairs(campaign)
    assert pairs and {pair.identity for pair in pairs} <= set(drawn)
    first = campaign.state.decisions["verdict", 0]
    assert first["calibration"]["pairs"] == sum(pair.iteration == 0 for pair in pairs)
    assert first["audit"]["errors"][0]["labels"] == first["calibration"]["pairs"]
    for entry in campaign.state.decisions["explore", 1]["trust"]:
        assert 0 < entry["low_eV_A"] < entry["high_eV_A"] and entry["reason"]


def test_fate_of_frames_that_were_labelled_and_that_were_not(campaign: Campaign, reference: Path) -> None:
    pick = next(pick for pick in campaign.state.picks_in[0] if pick["key"] in campaign.state.done)
    told = json.loads(alloop(reference, "why", pick["name"], "--json").stdout)
    assert told["frame"] == pick["name"] and told["label"]["reason"] == pick["reason"]
    assert told["trust_class"] == pick["trust_class"]
    novelty = told["novelty"]
    assert novelty["ensemble"] == 0 and novelty["stratum"] == pick["stratum"]
    assert novelty["reasons"]["candidate"]["value"] >= novelty["reasons"]["candidate"]["beside_picks"] > 0
    by_key = json.loads(alloop(reference, "why", pick["key"], "--json").stdout)
    assert by_key == told
    entry = next(own for own in campaign.state.decisions["explore", 0]["tasks"] if own["key"] in campaign.state.done)
    with np.load(campaign.result(entry["key"]) / "table.npz") as table:
        steps = table["step"].tolist()
    picked = {(own["source"]["task"], own["step"]) for own in campaign.state.picks_in[0]}
    step = next(step for step in steps if (entry["key"], step) not in picked)
    shown = alloop(reference, "why", f"{entry['name']}.s{step:04d}")
    assert shown.returncode == 0 and "not asked for: " in shown.stdout
    assert "from the training data of ensemble 0" in shown.stdout or "a chunk describes only" in shown.stdout
    wrong = alloop(reference, "why", f"{entry['name']}.s9999")
    assert wrong.returncode == 2 and "no record at step 9999" in wrong.stderr
    bootstrap = next(pick["name"] for pick in campaign.state.picks.values() if pick["iteration"] < 0)
    assert "bootstrap" in alloop(reference, "why", bootstrap).stderr


def test_statistics_and_plot(reference: Path, tmp_path: Path) -> None:
    plot = tmp_path / "stats.png"
    shown = alloop(reference, "stats", "--plot", str(plot))
    assert shown.returncode == 0, shown.stderr
    assert "300K" in shown.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    record = json.loads(alloop(reference, "stats", "--json").stdout)
    for iteration in record["iterations"]:
        assert sum(iteration["deviation_histogram"]) == sum(iteration["classes"].values())
        for name in ("accurate", "candidate", "failed"):
            assert sum(entry[name] for entry in iteration["strata"].values()) == iteration["classes"][name]
        assert sum(entry["labels"] for entry in iteration["strata"].values()) == sum(iteration["reasons"].values())
    assert record["calibration"]["pairs"] and len(record["calibration"]["curve"][0]) == 3
    assert "calibration by" in shown.stdout


def test_plan_knows_measured_times(reference: Path) -> None:
    plan = json.loads(alloop(reference, "plan", "--json").stdout)
    assert plan["core_hours"] is not None
    assert plan["next"] == "none"
    assert all(row["at_most"] == row["decided"] == 0 for row in plan["tasks"])


def test_glass_is_analysed_from_the_final_hold(reference: Path, campaign: Campaign) -> None:
    status = json.loads(alloop(reference, "status", "--json").stdout)
    (glass,) = status["glasses"]
    assert glass["status"] == "done", glass
    assert glass["converged_ensemble"] is False
    assert glass["experimental_4B"] == pytest.approx(0.367)
    assert glass["frames"] >= 4
    assert 0.0 <= glass["fraction_4B"] <= 1.0
    names = [task.name for task in campaign.state.tasks.values() if task.kind == "quench"]
    assert [name.rsplit("-", 1)[1] for name in names] == ["melt", "cool", "final"]
    tables = [
        np.load(campaign.store.result(t) / "table.npz") for t in campaign.state.tasks.values() if t.kind == "quench"
    ]
    assert all((table["max_force_deviation_eV_A"] > 0).all() for table in tables)
    melt, cooling, final = (table["temperature_K"] for table in tables)
    assert melt.mean() > final[-20:].mean() + 100  # 42 atoms: one record fluctuates by 45 K, a mean of 20 by 10 K
    assert np.polyfit(np.arange(len(cooling)), cooling, 1)[0] < 0


def test_running_a_finished_campaign_again_changes_nothing_but_its_starts(reference: Path) -> None:
    again = alloop(reference, "run")
    assert again.returncode == 3
    assert "iteration limit" in again.stdout
    assert "train" not in again.stdout.split("campaign")[1].split("tiny")[0]


def test_every_label_can_be_shown_and_all_are_handed_out(campaign: Campaign, reference: Path, tmp_path: Path) -> None:
    import dpdata

    out = tmp_path / "out"
    done = alloop(reference, "export", str(out), "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    state = campaign.state
    assert record["labels"]["training"] == len(state.labels("training"))
    assert record["labels"]["held_out"] == len(state.labels("held_out"))
    systems = [dpdata.LabeledSystem(str(out / name), fmt="deepmd/npy") for name in record["written"]["npy"]]
    assert sum(len(system) for system in systems) == record["labels"]["all"]
    assert record["converged"] is False and (out / "models" / "NOT_CONVERGED.txt").is_file()
    assert all((out / model).is_file() for model in record["ensemble"]["models"])
    assert record["ensemble"]["iteration"] == state.iteration
    explored = next(key for key, pick in state.picks.items() if pick["iteration"] >= 0)
    found = json.loads(alloop(reference, "show", explored, "--json").stdout)
    assert found["origin"]["models"] == state.models(found["origin"]["ensemble_iteration"])
    assert [attempt["class"] for attempt in found["attempts"]] == ["done"]
    assert found["cost"]["core_hours"] > 0
    assert bool(found["trained_in"]) == (found["role"] == "training")
    for key in state.picks:
        assert build_provenance(campaign, key)["status"] == "done"
