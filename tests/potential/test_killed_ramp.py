"""A melt-quench killed in the middle of its cooling, with true models in LAMMPS, and the force field as the driver."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alloop.decisions import quenching
from alloop.decisions.force_fields import ForceField
from alloop.decisions.production import decide_melting
from alloop.decisions.quenching import Sample, packed_start, quench_chains
from alloop.frames import read_columns, read_structure, write_frames
from alloop.glass.composition import TABLE_1
from alloop.glass.protocol import Stage, temperature_K
from alloop.glass.shik import ShikCalculator
from alloop.potential.environment import md_environment
from alloop.quench_params import MeltQuenchParam
from alloop.state import State
from alloop.store import Store, Task, begin_attempt, make_task, publish, read_json, write_json
from alloop.structure import from_record

pytestmark = pytest.mark.slow

GLASS = TABLE_1["LBS-20-60-20"]
OWN = MeltQuenchParam(chunk_ps=0.4, deviation_every=10, frame_every_ps=0.05)
STAGES = (
    Stage("melt", "hold", 900.0, ps=0.1),
    Stage("cool", "ramp", 300.0, rate_K_ps=500.0),
    Stage("glass", "hold", 300.0, ps=0.2, analyse_ps=0.1),
    Stage("minimum", "minimise"),
)


def start(*folders: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "alloop.attempt", *map(str, folders)]
    return subprocess.Popen(command, env=os.environ | md_environment(1), start_new_session=True)


def finish(*folders: Path) -> None:
    running = start(*folders)
    try:
        assert running.wait(timeout=200) == 0
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)


def given(store: Store, name: str, files: dict[str, Any]) -> Task:
    """A finished task that others start from: files are copied, JSON is written, frames are saved."""
    task = make_task("bootstrap", "given", name, {"name": name})
    attempt = begin_attempt(store.prepare(task, "test", {}))
    for file, value in files.items():
        if isinstance(value, Path):
            shutil.copy(value, attempt.out / file)
        elif isinstance(value, dict):
            write_json(attempt.out / file, value)
        else:
            write_frames(attempt.out / file, value)
    assert publish(attempt, task.key, {"seconds": 1.0, "threads": 1})
    return task


def prepared(store: Store, tasks: list[Task], inputs: list[Task], models: tuple[str, ...] = ()) -> list[Path]:
    folders = {task.key: task.folder for task in [*inputs, *tasks]}
    places = []
    for task in tasks:
        needed = task.inputs if "force_field" in task.spec else (*models, *task.inputs)
        whole = make_task(task.kind, task.group, task.name, task.spec, needed)
        places.append(store.prepare(whole, "test", {key: folders[key] for key in needed}))
    return places


def given_models(store: Store, trained: Path) -> list[Task]:
    return [
        given(store, name, {"model.pb": trained / name / "model-compressed.pb", "summary.json": {"model": "model.pb"}})
        for name in ("first", "second")
    ]


def common_to_all(models: list[Task]) -> dict[str, Any]:
    common = {"models": [model.key for model in models], "engine": "lammps", "type_map": ["Li", "B", "O", "Si"]}
    return common | {"deviation_every": 10, "frame_every": 50, "events": {}, "lost_eV_A": 1e6}


def test_a_ramp_killed_half_way_ends_as_if_nothing_had_happened(
    trained: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from .conftest import random_glass

    monkeypatch.setattr(quenching, "_MINIMISE", {"force_eV_A": 0.5, "steps": 40})
    store = Store(tmp_path)
    glass = random_glass({"Li": 4, "B": 8, "O": 20, "Si": 4}, seed=7)
    begun = given(store, "start", {"frames.npz": [glass]})
    models = given_models(store, trained[0])
    common = common_to_all(models)
    sample = Sample(GLASS, 36, 0, {"task": begun.key, "frame": 0}, (1, 0))
    tasks, _ = quench_chains(OWN, common, sample, {"": STAGES}, "production", lambda *_: (0.2, 1.0))
    assert [task.spec["stage"] for task in tasks] == ["melt", "cool", "cool", "cool", "glass", "minimum"]
    folders = prepared(store, tasks, [begun, *models], tuple(model.key for model in models))

    running, deadline = start(*folders), time.monotonic() + 200
    while records_of(folders[2]) < 8:
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not (folders[2] / "result").exists(), "it was to be killed in the middle of the second piece of the ramp"
    done = {place: place.stat().st_mtime_ns for folder in folders[:2] for place in (folder / "result").iterdir()}
    finish(*folders)
    attempts = [len(list((folder / "attempts").iterdir())) for folder in folders]
    assert attempts == [1, 1, 2, 1, 1, 1], "only what was killed is done again"
    assert done == {place: place.stat().st_mtime_ns for place in done}, "what was done stays"

    steps, begun_ps, frames = 0, 0.0, 0
    for task, folder in zip(tasks[:-1], folders, strict=False):
        assert read_json(folder / "result" / "summary.json")["status"] == "finished"
        with np.load(folder / "result" / "table.npz") as table:
            step, target_K = table["step"], table["target_temperature_K"]
        assert step.tolist() == list(range(10, task.spec["condition"]["n_steps"] + 1, 10))
        expected = [temperature_K(STAGES, begun_ps + count / 1000) for count in step]
        np.testing.assert_allclose(target_K, expected, rtol=1e-9)
        steps, begun_ps = steps + int(step[-1]), begun_ps + step[-1] / 1000
        frames += len(read_columns(folder / "result")["step"])
    assert (steps, frames) == (1500, 30)
    assert len(read_json(folders[4] / "result" / "analysis.json")) == 2, "0.1 of 0.2 ps"
    goes_on = [read_json(folder / "result" / "restart.json")["end"] for folder in folders[4:]]
    np.testing.assert_allclose(goes_on[0]["positions_A"], goes_on[1]["positions_A"], atol=1e-9)
    assert goes_on[0]["velocities_ase"] == goes_on[1]["velocities_ase"]
    summary = read_json(folders[5] / "result" / "summary.json")
    assert summary["converged"] or summary["steps"] == 40
    minimum = from_record(read_structure(folders[5] / "result", 0))
    assert np.abs(minimum.positions - np.array(goes_on[0]["positions_A"])).max() > 0.01


def test_a_guarded_run_stops_beyond_trust_and_models_drive_replicas_in_turn(
    trained: tuple[Path, Any], tmp_path: Path
) -> None:
    from .conftest import random_glass

    store = Store(tmp_path)
    glass = random_glass({"Li": 4, "B": 8, "O": 20, "Si": 4}, seed=7)
    begun, models = given(store, "start", {"frames.npz": [glass]}), given_models(store, trained[0])
    guard = {"guard_records": 3, "frames_per_chunk": 4, "audit_frames": 0}
    stages, folders = (Stage("melt", "hold", 900.0, ps=0.1), Stage("glass", "hold", 300.0, ps=0.1)), {}
    for replica, high_eV_A, common in (
        (0, 1e-6, common_to_all(models) | guard),
        (0, 1e-6, common_to_all(models)),
        (1, 1e5, common_to_all(models) | guard),
        (0, 1e5, common_to_all(models[::-1]) | guard),
    ):
        sample = Sample(GLASS, 36, replica, {"task": begun.key, "frame": 0}, (1, 0))
        tasks, _ = quench_chains(OWN, common, sample, {"": stages}, "g", lambda *_, high=high_eV_A: (0.0, high))  # type: ignore[misc]
        tasks = [make_task(t.kind, t.group, t.name, t.spec | {"seed": 11}, t.inputs) for t in tasks[:1]] + tasks[1:]
        whole = prepared(store, tasks[:1], [begun, *models], tuple(model.key for model in models))
        folders[replica, high_eV_A, "guard_records" in common] = whole[0]
    finish(*folders.values())
    stopped, watched, other, swapped = (folder / "result" for folder in folders.values())
    summary = read_json(stopped / "summary.json")
    assert summary["status"] == "stopped" and summary["records"] == 3 and "step 30" in summary["reason"]
    assert read_json(stopped / "restart.json")["end"] is None, "nothing goes on from it"
    found = read_columns(stopped)
    assert dict(zip(found["step"].tolist(), found["kept_for"].tolist(), strict=True)) == {30: "beyond_trust"}
    assert all(found["content"]) and set(found["trust_class"]) == {"failed"}
    summary = read_json(watched / "summary.json")
    assert summary["status"] == "finished" and summary["classes"]["failed"] == 10, "without a guard it is told only"
    assert not any(read_columns(watched)["kept_for"])
    tables = [np.load(folder / "table.npz")["potential_energy_eV"] for folder in (watched, other, swapped)]
    assert not np.allclose(tables[0], tables[1], rtol=1e-6), "another model drives the other replica"
    np.testing.assert_allclose(tables[1], tables[2], rtol=1e-9)


def records_of(folder: Path) -> int:
    """How many records LAMMPS has written in the attempt that runs."""
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("attempts/*/work/model_devi.out"))


def test_the_force_field_packs_drives_and_finds_where_a_glass_melts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stages = (
        Stage("pack", "hold", 1500.0, ps=0.1, driver="force_field"),
        Stage("cool", "ramp", 900.0, rate_K_ps=2000.0, driver="force_field"),
    )
    sample = Sample(GLASS, 42, 0, packed_start(GLASS, 42), (1, 0), ForceField({"name": "shik"}, {}))
    tasks, _ = quench_chains(OWN, {}, sample, {"": stages}, "production")
    melting = melting_task()
    folders = prepared(store, [*tasks, melting], [])
    finish(*folders)
    for folder in folders[:2]:
        with np.load(folder / "result" / "table.npz") as table:
            energy_eV, deviation = table["potential_energy_eV"][-1], table["max_force_deviation_eV_A"]
        assert not deviation.any(), "no models, no spread"
        assert read_json(folder / "result" / "summary.json")["classes"] == {"accurate": 0, "candidate": 0, "failed": 0}
        atoms = from_record(read_json(folder / "result" / "restart.json")["end"])
        atoms.calc = ShikCalculator()
        assert energy_eV == pytest.approx(atoms.get_potential_energy(), abs=1e-3)
    assert (
        dict(zip(*np.unique(atoms.get_chemical_symbols(), return_counts=True), strict=True))
        == (tasks[0].spec["start"]["packed"]["counts"])
    )
    cold, hot = read_json(folders[2] / "result" / "summary.json")["displacements"]
    assert (cold["temperature_K"], hot["temperature_K"]) == (300, 6000), "once it has melted nothing hotter is tried"
    assert cold["rms_displacement_A"].keys() == {"Li", "B", "O", "Si"}
    assert max(cold["rms_displacement_A"].values()) < 2.0 < hot["rms_displacement_A"]["Si"] < 20


def melting_task() -> Task:
    """The task that production asks for, with shorter times, and temperatures that melt nothing and anything."""
    from alloop.config import parse

    param = parse(
        {"name": "t", "glasses": [{"name": "LBS-20-60-20", "n_atoms": [42]}], "quench": {"protocol": "urata2022"}}
    )
    campaign: Any = SimpleNamespace(state=State(), root=Path())
    (entry,) = decide_melting(campaign, param, 0)["tasks"]
    changes = {"temperatures_K": [300.0, 6000.0, 7000.0], "melt_ps": 0.2, "equilibrate_ps": 0.2, "ps": 3.0}
    return make_task("quench", "production/melting", "melting", entry["spec"] | changes)
