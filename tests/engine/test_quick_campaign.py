"""Whole campaigns with doubles of the tasks: `alloop run` from the first label to the verdict, in seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from engine_kit import prepared_label
from quick_kit import PYTHON, quick_environment
from simulated_campaign import Simulation
from simulated_record import replayed

from alloop.campaign import Campaign
from alloop.errors import DONE, NOT_CONVERGED
from alloop.frames import read_structure
from alloop.glass.analysis import analyze_frame
from alloop.report.html.rings import cooling_part
from alloop.report.status import glass_table
from alloop.state import quench_runs
from alloop.store import read_json

TINY: dict[str, Any] = {
    "name": "quick",
    "seed": 5,
    "glasses": [{"name": "LBS-20-60-20", "n_atoms": [42]}],
    "bootstrap": {"trajectories": 3, "snapshots": 4, "strained_copies": 1, "held_out_fraction": 0.3},
    "explore": {"temperatures_K": [300, 1000, 2000], "ramps": [], "chunk_ps": 1.0, "chunks": 2, "trajectories": 2},
    "select": {"max_labels": 8, "audit": 2, "min_separation_ps": 0.02, "held_out_fraction": 0.4},
    "label": {"labeler": "teter-rehearsal", "per_process": 4},
    "stop": {"max_iterations": 4},
    "quench": {"melt_ps": 1, "cooling_rate_K_ps": 1000, "final_ps": 1, "chunk_ps": 1},
    "pools": {"local": {"slots": 2, "python": PYTHON}},
}


def run(folder: Path, changes: dict[str, Any], *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    (folder / "param.json").write_text(json.dumps(TINY | changes))
    environment = os.environ | quick_environment(folder / "quick.json", **settings)
    command = [sys.executable, "-m", "alloop", *arguments, "-C", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def status(folder: Path) -> dict[str, Any]:
    return json.loads(run(folder, {}, "status", "--json").stdout)


@pytest.mark.slow
def test_campaign_converges_when_deviation_and_error_fall(tmp_path: Path) -> None:
    told = {"candidates": [0.4, 0.1, 0.0]}
    notify = {"notify": {"command": 'echo "$ALLOOP_EVENT|$ALLOOP_CAMPAIGN|$ALLOOP_MESSAGE" >> "$ALLOOP_FOLDER/told"'}}
    done = run(tmp_path, notify, "run", explore=told, evaluate=told | {"force_rmse_eV_A": [0.5, 0.3, 0.1]})
    assert done.returncode == DONE, done.stdout + done.stderr
    (end,) = (tmp_path / "told").read_text().splitlines()
    assert end.startswith("converged|quick|") and end.rpartition("|")[2] in done.stdout, "once, in the words printed"
    found = status(tmp_path)
    assert found["converged"]
    assert found["iteration"] in (2, 3)
    assert found["labels"]["quarantined"] == 0
    assert found["final_held_out"][-1]["force_rmse_eV_A"] == pytest.approx(0.1, rel=0.05)
    assert [row["status"] for row in found["glasses"]] == ["done"]
    assert found["glasses"][0]["fraction_4B"] == pytest.approx(0.5, abs=0.1)
    reported_as_found(tmp_path, found)


def reported_as_found(folder: Path, found: dict[str, Any]) -> None:
    """The report tells of forces by component, of the rings while cooling, and of no lost run."""
    told = run(folder, {}, "report", "--json")
    assert told.returncode == DONE, told.stdout + told.stderr
    report = json.loads(told.stdout)
    (total,) = [row for row in report["errors"]["by_glass"] if row["glass"] == "all"]
    assert total["force_rmse_eV_A"] == pytest.approx(found["final_held_out"][-1]["force_rmse_eV_A"])
    assert total["force_mae_eV_A"] < total["force_rmse_eV_A"] < 2 * total["force_mae_eV_A"]
    sample = report["errors"]["forces"]["LBS-20-60-20"]
    misses = np.array(sample["mean"]) - np.array(sample["true"])
    assert len(misses) > 100 and 0 < np.abs(misses).mean() < total["force_rmse_eV_A"]
    assert report["unfinished"] == []
    (glass,) = report["glasses"]
    assert glass["cooling_rate_K_ps"] == 1000
    assert glass["cooling"]["temperatures_K"][0] < 2000 and glass["cooling"]["temperatures_K"][-1] == 300
    page = (folder / "report.html").read_text()
    for name in ("Fig. 1 force", "Fig. S1 force", "Fig. 6"):
        assert f'<span class="tag">{name}</span>' in page
        assert f"<td>{name}</td>" in page


@pytest.mark.slow
def test_half_done_campaign_moved_elsewhere_ends_there_without_repeating_work(tmp_path: Path) -> None:
    """A disk is full, a project folder is renamed: nothing on record may hold on to where it was."""
    old, new = tmp_path / "old", tmp_path / "elsewhere" / "new"
    told = {"candidates": [0.4, 0.0]}
    settings = {"explore": told, "evaluate": told | {"force_rmse_eV_A": [0.5, 0.1]}}
    explore = {"temperatures_K": [300, 1000], "ramps": [], "chunk_ps": 1.0, "chunks": 1, "trajectories": 2}
    bootstrap = TINY["bootstrap"] | {"trajectories": 2}
    small = {"bootstrap": bootstrap, "explore": explore, "train": {"models": 2}, "quench": None}
    stopped = run(old, small | {"budget": {"labels": 13}}, "run", **settings)
    assert stopped.returncode == NOT_CONVERGED and "budget of 13 labels" in stopped.stdout
    state = Campaign(old).load()
    assert state.waiting or not state.decided("select", 0), "in the midst of an iteration"
    before = finished(old)
    assert {"bootstrap", "label", "train", "explore"} <= {record["kind"] for record in before.values()}
    new.parent.mkdir()
    old.rename(new)
    done = run(new, small, "run", **settings)
    assert done.returncode == DONE, done.stdout + done.stderr
    after = finished(new)
    assert {name: after.get(name) for name in before} == before, "each by the same attempt as before"
    assert len(after) > len(before)
    assert Campaign(new).load().quarantined == {} and not old.exists()
    mentions = [file for file in new.glob("iterations/decisions/*.json") if str(old) in file.read_text()]
    assert mentions == []


def finished(root: Path) -> dict[str, Any]:
    """By folder of every finished task: its kind, the attempt that made the result, and all attempts there were."""
    found = {}
    for manifest in root.glob("iterations/**/result/MANIFEST.json"):
        task, record = manifest.parents[1], json.loads(manifest.read_text())["record"]
        attempts = sorted(path.name for path in (task / "attempts").iterdir())
        kind = json.loads((task / "task.json").read_text())["kind"]
        about = {"kind": kind, "attempt": record["attempt"], "attempts": attempts}
        found[str(task.relative_to(root))] = about | {"modified": manifest.stat().st_mtime_ns}
    return found


@pytest.mark.slow
def test_probe_compares_the_glasses_of_ensembles_and_of_cell_sizes(tmp_path: Path) -> None:
    probe = {"melt_ps": 1, "cooling_rate_K_ps": 1000, "final_ps": 1, "chunk_ps": 1, "iterations": 2}
    changes = {"stop": {"max_iterations": 2, "probe": probe | {"supercells": [[1, 1, 1], [2, 1, 1]]}}, "quench": None}
    told = {"candidates": 0.0}
    done = run(tmp_path, changes, "run", "--barrier", explore=told, evaluate=told | {"force_rmse_eV_A": 0.1})
    assert done.returncode == NOT_CONVERGED, done.stdout + done.stderr
    state = Campaign(tmp_path).load()
    first, second = state.decisions["verdict", 0], state.decisions["verdict", 1]
    assert any("1 of 2 values are known" in own["sentence"] for own in first["criteria"])
    assert {entry["atoms"] for entry in second["glasses"]} == {42, 84}
    assert {entry["replicas"] for entry in second["glasses"]} == {3}
    states = {
        f"{own['name']}, {own['sentence'].split(' over ')[-1].split()[0]}": own["state"] for own in second["criteria"]
    }
    assert states["stability of 4B of LBS-20-60-20, iterations"] == "met"
    assert states["stability of 4B of LBS-20-60-20, atoms"] == "met"
    rings = "stability of 3-membered rings of LBS-20-60-20, "
    assert states[f"{rings}iterations"] == "met"
    assert states[f"{rings}atoms"] == "unmet", "the made-up glass has two rings whatever its size"


@pytest.mark.slow
@pytest.mark.parametrize(("five_coordinated", "code"), [(0.0, DONE), (0.25, NOT_CONVERGED)])
def test_what_the_probe_made_is_relaxed_with_the_labeler_before_anything_is_called_converged(
    tmp_path: Path, five_coordinated: float, code: int
) -> None:
    probe = {"melt_ps": 1, "cooling_rate_K_ps": 1000, "final_ps": 1, "chunk_ps": 1, "iterations": 2}
    changes = {"stop": {"max_iterations": 2, "probe": probe, "relax": {}}, "quench": None}
    told = {"candidates": 0.0}
    more = {"explore": told, "evaluate": told | {"force_rmse_eV_A": 0.1}}
    done = run(tmp_path, changes, "run", "--barrier", relax={"five_coordinated": five_coordinated}, **more)
    assert done.returncode == code, done.stdout + done.stderr
    state = Campaign(tmp_path).load()
    assert state.decisions["relax", 0]["tasks"] == [], "with one ensemble the probe is not known to be stable"
    assert len(state.decisions["relax", 1]["tasks"]) == 3
    verdict = state.decisions["verdict", 1]
    assert len(verdict["relaxed"]) == 3
    (own,) = [one for one in verdict["criteria"] if one["name"].startswith("5Si") and "relaxing" in one["name"]]
    assert own["state"] == ("met" if code == DONE else "unmet"), own


@pytest.mark.slow
def test_campaign_that_does_not_improve_ends_at_the_limit(tmp_path: Path) -> None:
    changes = {"stop": {"max_iterations": 2}}
    told = {"candidates": 0.4, "lost": 0.3}
    done = run(tmp_path, changes, "run", explore=told, evaluate={"force_rmse_eV_A": 0.5})
    assert done.returncode == NOT_CONVERGED, done.stdout + done.stderr
    assert not status(tmp_path)["converged"]


@pytest.mark.slow
def test_labels_told_to_fail_are_given_up_and_cost_themselves_only(tmp_path: Path) -> None:
    changes = {"stop": {"max_iterations": 1}}
    label = {"failing": 0.2, "failing_as": "crash"}
    done = run(tmp_path, changes, "run", label=label, evaluate={"force_rmse_eV_A": 0.5})
    assert done.returncode == NOT_CONVERGED, done.stdout + done.stderr
    found = status(tmp_path)
    assert 0 < found["labels"]["quarantined"] < found["labels"]["done"]
    assert {entry["class"] for entry in found["quarantined"]} == {"crash"}
    assert_record_can_be_simulated(tmp_path, found["labels"]["quarantined"])


def assert_record_can_be_simulated(folder: Path, lost: int) -> None:
    world, real = replayed(folder)
    assert real["failures"].keys() == {"label"} and real["failures"]["label"]["crash"] >= lost
    assert real["slots"] == {"local": 2} and real["queue_waits"] == {}
    assert world.labels + world.seed_labels == real["labels"]
    for barrier in (True, False):
        simulation = Simulation(world, barrier=barrier, seed=0)
        simulation.run()
        assert simulation.result()["labels"] > 0.6 * real["labels"]


def attempt(python: str, folder: Path, environment: dict[str, str]) -> Path:
    command = [python, "-m", "alloop.attempt", str(folder)]
    subprocess.run(command, env=os.environ | environment, check=True, timeout=60)
    return folder / "result"


def test_label_of_the_double_has_the_form_of_a_true_one(tmp_path: Path) -> None:
    environment = quick_environment(tmp_path / "quick.json")
    records = []
    for place, python in (("true", sys.executable), ("double", PYTHON)):
        result = attempt(python, prepared_label(tmp_path / place, 1)[1], environment)
        records.append(json.loads((result / "label.json").read_text()))
    true, double = records
    assert double.keys() == true.keys()
    for key in ("structure", "level"):
        assert double[key] == true[key]
    for key in ("forces_eV_A", "virial_eV"):
        assert np.shape(double[key]) == np.shape(true[key])


def test_analysis_of_the_double_has_the_form_of_a_true_one() -> None:
    from quick_quench import analysis

    atoms = Atoms("BOOSiOOLi", positions=np.arange(21).reshape(7, 3) / 2.0, cell=[12.0] * 3, pbc=True)
    true, double = analyze_frame(atoms), analysis(atoms)
    assert double.keys() == true.keys()
    for key in ("rings", "boroxol"):
        assert double[key].keys() == true[key].keys()


def test_attempt_of_a_double_sleeps_as_told(tmp_path: Path) -> None:
    environment = quick_environment(tmp_path / "quick.json", label={"seconds": 1.5})
    began = time.monotonic()
    attempt(PYTHON, prepared_label(tmp_path, 1)[1], environment)
    assert time.monotonic() - began > 1.5


def test_turns_give_every_campaign_the_same_durations(tmp_path: Path) -> None:
    taken = []
    for place, first in (("one", 10), ("other", 20)):
        turns = tmp_path / place / "turns"
        turns.mkdir(parents=True)
        told = {"turns": str(turns), "seed": 4, "label": {"seconds": [0.05, 0.04]}}
        environment = quick_environment(tmp_path / place / "quick.json", **told)
        results = [attempt(PYTHON, prepared_label(tmp_path / place, first + n)[1], environment) for n in range(3)]
        taken.append([json.loads((result / "label.json").read_text())["seconds"] for result in results])
    assert taken[0] == taken[1]
    assert len(set(taken[0])) == 3


STAGES: list[dict[str, Any]] = [
    {"name": "pack", "kind": "hold", "temperature_K": 1000, "ps": 1, "driver": "force_field"},
    {"name": "heat", "kind": "ramp", "temperature_K": 2000, "rate_K_ps": 1000},
    {"name": "cool", "kind": "ramp", "temperature_K": 300, "rate_K_ps": 850},
    {"name": "glass", "kind": "hold", "temperature_K": 300, "ps": 2, "analyse_ps": 1},
    {"name": "minimum", "kind": "minimise"},
    {"name": "transport", "kind": "hold", "temperature_K": 500, "ps": 1, "ensemble": "npt"},
]


def quenched(folder: Path) -> tuple[Campaign, list[dict[str, Any]]]:
    campaign = Campaign(folder)
    campaign.load()
    return campaign, glass_table(campaign)


@pytest.mark.slow
def test_a_quench_that_leaves_trust_is_stopped_and_learnt_from_before_the_next(tmp_path: Path) -> None:
    """The first ensemble is found converged, but not so in production: frames of it are labelled, and all goes on."""
    production = {"melt_ps": 1, "cooling_rate_K_ps": 1000, "final_ps": 1, "chunk_ps": 1, "replicas": 2}
    production |= {"final_training": {"steps": 7}, "relax": {}}
    changes = {"stop": {"max_iterations": 3}, "quench": production}
    calm = {"candidates": 0.0}
    told = {
        "explore": calm,
        "evaluate": calm | {"force_rmse_eV_A": 0.1},
        "quench": {"candidates": 0.0, "failed": [1.0, 0.0]},
    }
    done = run(tmp_path, changes, "run", **told)
    assert done.returncode == DONE, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert "2 of 2 production runs were stopped or lost" in said and "the longer training is" in said
    campaign = Campaign(tmp_path)
    state = campaign.load()
    guard, quench = state.decisions["guard", 0], state.decisions["quench", 0]
    assert {own["status"] for own in guard["stopped"]} == {"stopped"}
    assert all("3 records in a row beyond the trust level of 1 eV/A" in own["reason"] for own in guard["stopped"])
    stopped = campaign.state.tasks[guard["stopped"][0]["task"]]
    with np.load(campaign.result(stopped.key) / "table.npz") as table:
        assert len(table["step"]) == 3, "no step more than it takes to be sure"
    picks = guard["picks"]
    assert picks and {pick["reason"] for pick in picks} == {"production"} and not state.quarantined
    assert {pick["trajectory"] for pick in picks} == {run["name"] for run in quench["runs"]}, "runs take turns"
    assert {pick["key"] for pick in picks} <= set(state.decisions["train", 1]["common"]["training"])
    (first, _), (later, _) = (quench_runs(state.decisions["quench", i]) for i in (0, 1))
    assert [entry["spec"]["driven_by"] for entry in first["chunks"]] == [0] * 4
    assert quench_runs(quench)[1]["chunks"][0]["spec"]["driven_by"] == 1, "models drive replicas in turn"
    assert all(campaign.summary(entry["key"])["status"] == "void" for entry in first["chunks"][1:])
    assert all(campaign.summary(entry["key"])["status"] == "finished" for entry in later["chunks"])
    final = state.decisions["quench", 1]["final_training"]
    used = state.decisions["quench", 1]["common"]["models"]
    trained = [entry["key"] for entry in state.decisions["final_train", 1]["tasks"]]
    assert used == (trained if final["used"] else state.models(1))
    assert state.decisions["final_train", 1]["common"]["steps"] == 7
    measured = [final[key] for key in ("force_rmse_eV_A", "energy_rmse_eV_atom")]
    worse = [name for errors in measured for name, (old, new) in errors.items() if new > old]
    assert final["used"] == (not worse), final
    relaxed = state.decisions["relax_glass", 1]["tasks"]
    assert {entry["name"] for entry in relaxed} == {run["name"] for run in quench_runs(state.decisions["quench", 1])}
    assert all(entry["key"] in state.done for entry in relaxed) and not state.decided("relax_glass", 0)
    found = status(tmp_path)
    assert found["production"][0].startswith("the longer training is") and len(found["production"]) == 2
    assert "no production run left" in found["production"][1]
    assert found["converged"] and [row["status"] for row in found["glasses"]] == ["done", "done"]
    why, shown = (run(tmp_path, changes, command, picks[0]["name"], **told) for command in ("why", "show"))
    assert "was met in production" in " ".join(why.stderr.split()), why.stdout + why.stderr
    assert shown.returncode == DONE and "driven by the ensemble:" in " ".join(shown.stdout.split()), shown.stdout


@pytest.mark.slow
def test_the_papers_protocol_and_then_one_of_own_stages(tmp_path: Path) -> None:
    """Two runs that share their beginning, from where the glass melts; then param.json asks for something else."""
    folder = tmp_path / "c"
    paper = {"when": "always", "protocol": "urata2022", "runs": ["10Kps", "2Kps.200ps"], "chunk_ps": 300}
    paper |= {"frame_every_ps": 50, "deviation_every": 10000}
    changes = {"stop": {"max_iterations": 1}, "quench": paper}
    ended = run(folder, changes, "run", "--barrier", quench={"records": 8})
    assert ended.returncode == NOT_CONVERGED, ended.stdout + ended.stderr
    assert "melts at 1700 K by the rule" in " ".join(ended.stdout.split())
    campaign, rows = quenched(folder)
    assert [(row["run"], row["status"], row["cooling_rate_K_ps"]) for row in rows] == [
        ("LBS-20-60-20.n42.10Kps.r0", "done", 10),
        ("LBS-20-60-20.n42.2Kps.200ps.r0", "done", 2),
    ]
    fast, slow = quench_runs(campaign.state.decisions["quench", campaign.state.iteration])
    shared = [key for key in fast["tasks"] if key in slow["tasks"]]
    assert shared == fast["tasks"][: len(shared)]
    assert campaign.state.tasks[shared[-1]].name == f"LBS-20-60-20.n42.r0.s{len(shared) - 1:02d}-mix"
    heat = next(entry["spec"]["condition"] for entry in fast["chunks"] if entry["spec"]["stage"] == "heat")
    assert heat["temperature_end_K"] == 1700

    own = {"when": "always", "chunk_ps": 1, "frame_every_ps": 0.2, "protocol": STAGES, "n_atoms": [63, 84]}
    ended = run(folder, changes | {"quench": own}, "run", "--barrier")
    assert ended.returncode == NOT_CONVERGED, ended.stdout + ended.stderr
    campaign, rows = quenched(folder)
    assert [(row["atoms"], row["status"], row["frames"], row["cooling_rate_K_ps"]) for row in rows] == [
        (63, "done", 5, 850),
        (84, "done", 5, 850),
    ], "only the last of two picoseconds is analysed, and not the minimum or the stay at 500 K"
    assert rows[0]["fraction_4B_at_minimum"] is not None
    first, *_ = quench_runs(campaign.state.decisions["quench", campaign.state.iteration])
    stages = [entry["spec"]["stage"] for entry in first["chunks"]]
    assert stages == ["pack", "heat", "cool", "cool", "glass", "glass", "minimum", "transport"]
    pack = campaign.state.tasks[first["tasks"][0]]
    assert "models" not in pack.spec and pack.inputs == (), "what the force field drives depends on no ensemble"
    results = [campaign.result(key) for key in first["tasks"]]
    before, at, after = (np.array(read_json(result / "restart.json")["end"]["positions_A"]) for result in results[5:])
    np.testing.assert_allclose(before, at, atol=1e-9, err_msg="the run goes on from where it was, not the minimum")
    assert not np.allclose(at, after)
    minimum = read_structure(results[6], 0)["positions_A"]
    assert not np.allclose(minimum, at, atol=0.05)
    moving = [entry["spec"] for entry in first["chunks"] if entry["spec"]["stage_kind"] != "minimise"]
    dynamics = [(spec["condition"], Path(spec["stage"])) for spec in moving]
    assert [str(stage) for _, (_, stage) in cooling_part(dynamics)] == ["cool", "cool", "glass", "glass"]
    shown = run(folder, changes | {"quench": own}, "analyze", str(results[5].parent), "--json").stdout
    assert len(shown.splitlines()) == 5
