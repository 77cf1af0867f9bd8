"""The script that makes a labelled pool: what it plans, and a small real trajectory."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import alloop
from alloop.bench_select.events import lost_reason
from alloop.bench_select.pool import make_pool, read_folder
from alloop.glass.crystals import crystal

SCRIPT = Path(alloop.__file__).resolve().parents[1] / "benchmarks" / "labelled_pool.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("labelled_pool", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_plan_is_large_enough_uniform_in_temperature_and_apart(script: ModuleType) -> None:
    plan = script.specs(1, 72, {"pool": 6, "test": 3})
    frames = {
        role: sum(2 * ramp + 1 for spec in plan if spec["set"] == role) for role, ramp in script.FRAMES_PER_RAMP.items()
    }
    assert frames["pool"] >= 1560
    assert 380 <= frames["test"] <= 420
    assert all(60 <= sum(spec["counts"].values()) <= 90 for spec in plan)
    assert len({spec["seed"] for spec in plan}) == len({spec["name"] for spec in plan}) == len(plan)
    assert all(spec["every"] * script.TIMESTEP_FS >= 50 for spec in plan)
    steps = np.arange(0, 2 * script.RAMP_STEPS + 1, script.RAMP_STEPS // 44)
    temperatures_K = [script.ramp_temperature_K(step, script.RAMP_STEPS) for step in steps]
    counts, _ = np.histogram(temperatures_K, np.linspace(300, 3500, 9))
    assert counts.max() - counts.min() <= 2
    assert script.specs(1, 72, {"pool": 1}) == script.specs(1, 72, {"pool": 1})
    assert script.specs(2, 72, {"pool": 1})[0]["seed"] != script.specs(1, 72, {"pool": 1})[0]["seed"]


def test_frames_past_a_hard_gate_are_left_out(script: ModuleType) -> None:
    sound = crystal("alpha-quartz") * (2, 2, 2)
    lost = sound.copy()
    lost.positions[1] = lost.positions[0] + [0.5, 0.0, 0.0]
    assert lost_reason(lost)
    spec = {"name": "t", "glass": "g", "ramp_steps": 100, "copies": [0.0, 0.0, 0.0], "seed": 1}
    found = script.labelled(spec, [(0, sound), (10, lost), (20, sound)])
    assert [atoms.info["time_ps"] for atoms in found] == [0.0, 0.02]
    assert not any(atoms.info["strained"] for atoms in found)
    assert np.isfinite(found[0].get_stress()).all()


@pytest.mark.slow
def test_a_short_trajectory_for_real(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "RAMP_STEPS", 440)
    monkeypatch.setattr(script, "MELT_STEPS", 100)
    (tmp_path / "parts").mkdir()
    plan = script.specs(1, 63, {"pool": 1, "test": 1})[::3]
    for spec in plan:
        script.make_part(tmp_path, spec)
    found = script.gather(tmp_path, plan)
    assert found["pool"]["frames"] + found["test"]["frames"] > 100
    pool = read_folder(tmp_path)
    assert pool.frames[0].temperature_K == 3500.0
    assert {frame.glass for frame in pool.test} == {"LBS-20-60-20"}
    assert make_pool(pool.frames, pool.test, "again").key == pool.key
    assert not list((tmp_path / "parts").glob(".*"))
