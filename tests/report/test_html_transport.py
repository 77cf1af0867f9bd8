"""Lithium's diffusion on the page of `alloop report`: chunks of a stage joined, replicas together, windows told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from glass_kit import campaign_of_glasses, chunk, condition, decide_quench, ended, ended_with
from test_html_page import EMPTY, part, told

from alloop.campaign import Campaign
from alloop.glass.transport import diffusion
from alloop.report.html.transport import fitted_part, transport
from alloop.store import Task

EVERY, CHUNKS, FRAMES = 500, 3, 20  # steps between frames, chunks of a stage, frames of a chunk
SHORT_PS = CHUNKS * FRAMES * EVERY / 1000
NAMES = ("LBS-20-60-20", "LBS-10-50-40")


def walk(seed: int, step_A: float = 0.25) -> list[Atoms]:
    """Lithium that walks at random through a network that drifts, wrapped into its cell."""
    rng = np.random.default_rng(seed)
    count = CHUNKS * FRAMES
    moved = np.cumsum(rng.normal(0, step_A, (count, 12, 3)), axis=0)
    moved[:, 8:] = 0.0
    moved += 0.1 * np.arange(count)[:, None, None]
    start = rng.uniform(0, 12, (12, 3))
    frames = [Atoms("Li8O4", positions=start + own, cell=[12.0] * 3, pbc=True) for own in moved]
    for atoms in frames:
        atoms.wrap()
    return frames


def run_of(name: str, glass: str, driven_by: int = 0, **spec: Any) -> list[Task]:
    stages = ["glass", *["transport"] * CHUNKS]
    heat = {"condition": condition(500, 500, FRAMES * EVERY)}
    own = [heat if stage == "transport" else {} for stage in stages]
    return [
        chunk(name, k, stage, glass, driven_by=driven_by, **more, **spec)
        for k, (stage, more) in enumerate(zip(stages, own, strict=True))
    ]


def end_run(campaign: Campaign, tasks: list[Task], frames: list[Atoms], steps: Any = None) -> None:
    ended(campaign, tasks[0])
    for k, task in enumerate(tasks[1:]):
        own = frames[k * FRAMES : (k + 1) * FRAMES]
        ended(campaign, task, own, step=EVERY * np.arange(1, FRAMES + 1) if steps is None else steps)


@pytest.fixture
def held(tmp_path: Path) -> Campaign:
    """Three runs of one glass by two models, one of another, one of uneven frames, one that was lost, one without."""
    campaign = campaign_of_glasses(tmp_path)
    runs = {f"a{k}": (NAMES[0], rate, run_of(f"a{k}", NAMES[0], k % 2)) for k, rate in enumerate((10.0, 2.0, 2.0))}
    runs |= {name: (NAMES[1], 10.0, run_of(name, NAMES[1])) for name in ("b", "uneven", "lost")}
    runs["without"] = (NAMES[1], 10.0, [chunk("without", 0, "glass", NAMES[1])])
    decide_quench(campaign, runs)
    for k in range(3):
        end_run(campaign, runs[f"a{k}"][2], walk(k))
    end_run(campaign, runs["b"][2], walk(7, 0.1))
    end_run(campaign, runs["uneven"][2], walk(8), steps=EVERY * np.arange(1, FRAMES + 1) ** 2 / FRAMES)
    for task in runs["lost"][2][:-1]:
        ended(campaign, task, walk(9)[:1], step=[EVERY])
    ended_with(campaign, runs["lost"][2][-1], {"status": "lost", "reason": "step 40: Li-O 0.5 A"})
    ended(campaign, runs["without"][2][0])
    return campaign


def test_a_stage_is_analysed_as_one_trajectory_without_drift(held: Campaign) -> None:
    rows = {row["run"]: row for row in transport(held, lambda text: None)["runs"]}
    assert list(rows) == ["a0", "a1", "a2", "b", "uneven"]
    drop, window = fitted_part(SHORT_PS, 0.5)
    whole = diffusion(walk(7, 0.1), time_step_ps=0.5, drop_ps=drop, window_ps=window)
    found = rows["b"]["diffusion"]
    assert found["D_cm2_s"]["value"] == pytest.approx(whole.D_cm2_s.value, rel=1e-9)
    assert found["D_cm2_s"]["high_95"] == pytest.approx(whole.D_cm2_s.high, rel=1e-9)
    assert whole.D_A2_ps.value == pytest.approx(0.1**2 / 2 / 0.5, rel=0.5), "that of the walk, not of the drift"
    assert found["window_ps"] == [5.0, 15.0] and rows["b"]["stage_ps"] == SHORT_PS == 30.0
    assert rows["b"]["temperature_K"] == 500 and rows["b"]["li2o"] == pytest.approx(0.4)
    assert "not evenly spaced" in rows["uneven"]["problem"] and rows["uneven"]["diffusion"] is None


def test_runs_of_a_glass_are_taken_together_over_rates_and_models(held: Campaign) -> None:
    found = transport(held, lambda text: None)
    assert found["asked"] == 6
    first, second = found["glasses"]
    single = [row["diffusion"]["D_cm2_s"]["value"] for row in found["runs"][:3]]
    assert first["diffusion"]["D_cm2_s"]["value"] == pytest.approx(np.mean(single))
    assert (first["diffusion"]["replicas"], second["diffusion"]["replicas"]) == (3, 1)
    assert first["cooling_rates_K_ps"] == [2.0, 10.0] and first["models"] == 2
    means = [np.mean(single[::2]), single[1]]
    half = max(
        4.302653 * np.std(single, ddof=1) / np.sqrt(3),
        12.7062 * np.std(means, ddof=1) / np.sqrt(2),
    )
    interval = first["diffusion"]["number_density_times_D_1_cm_s"]
    density = interval["value"] / np.mean(single)
    assert density == pytest.approx(8 / 12**3 * 1e24)
    assert (interval["high_95"] - interval["low_95"]) / 2 == pytest.approx(half * density, rel=1e-4)


def branched(folder: Path, runs: dict[str, tuple[float, int]]) -> tuple[dict[str, Any], list[float]]:
    """The record of one glass's runs, by name with rate and model, and what each shows by itself."""
    campaign = campaign_of_glasses(folder)
    asked = {name: (NAMES[0], rate, run_of(name, NAMES[0], model)) for name, (rate, model) in runs.items()}
    decide_quench(campaign, asked)
    for seed, (_, _, tasks) in enumerate(asked.values()):
        end_run(campaign, tasks, walk(seed))
    found = transport(campaign, lambda text: None)
    (together,) = found["glasses"]
    return together, [row["diffusion"]["D_cm2_s"]["value"] for row in found["runs"]]


def test_branches_of_one_melt_are_no_replicas(tmp_path: Path) -> None:
    names = [f"g.n294.{label}" for label in ("10Kps", "2Kps.200ps", "2Kps.400ps")]
    one, single = branched(tmp_path / "one", {f"{name}.r0": (10.0 if "10K" in name else 2.0, 0) for name in names})
    found = one["diffusion"]["D_cm2_s"]
    assert found["value"] == pytest.approx(np.mean(single)) and one["melts"] == 1
    assert (found["low_95"], found["high_95"]) == (None, None), "no interval from what is not independent"
    assert found["sd_of_branches"] == pytest.approx(np.std(single, ddof=1))
    density = one["diffusion"]["number_density_times_D_1_cm_s"]
    assert density["sd_of_branches"] / density["value"] == pytest.approx(found["sd_of_branches"] / found["value"])
    section = part({"transport": {"asked": 3, "runs": [], "glasses": [one]}}, "glasses")
    row = dict(zip(section.tables[0].columns, section.tables[0].rows[0], strict=True))
    assert row["runs"] == "3 branches of one melt" and "(sd " in row["D cm²/s"]
    section.figures[0].write(tmp_path)

    runs = {f"{name}.r{k}": (2.0, k) for name in names[1:] for k in range(2)}
    two, single = branched(tmp_path / "two", runs)
    means = [np.mean(single[k::2]) for k in range(2)]
    found = two["diffusion"]["D_cm2_s"]
    assert two["melts"] == two["models"] == 2 and "sd_of_branches" not in found
    half = 12.7062 * np.std(means, ddof=1) / np.sqrt(2)
    assert (found["high_95"] - found["low_95"]) / 2 == pytest.approx(half, rel=1e-4), "two replicas, not four"


def test_the_usual_window_needs_its_length() -> None:
    assert fitted_part(300.0, 0.5) == (50.0, (50.0, 150.0))
    assert fitted_part(201.0, 0.5) == (50.0, (50.0, 150.0))
    assert fitted_part(150.0, 0.5) == (25.0, (25.0, 75.0))


def test_page_says_what_is_there_of_it(held: Campaign, tmp_path: Path) -> None:
    assert told({})["Fig. 8"].startswith("no: not run: no melt-quench here has a stage named transport")
    asked = EMPTY["transport"] | {"asked": 3}
    assert told({"transport": asked})["Fig. 8"] == "no: not run to its end in any of the 3 melt-quenches with it"
    found = {"transport": transport(held, lambda text: None)}
    assert told(found)["Fig. 8"] == "yes: 2 of 11 glasses, at 500 K, lags of 5 to 15 ps"
    section = part(found, "glasses")
    assert "Diffusion in uneven is not known: frames are not evenly spaced" in section.texts[-1]
    (table,) = section.tables
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["Li₂O %"], row["runs"], row["K/ps"], row["lags, ps"]) == ("20", "3", "2, 10", "5 to 15 of 30")
    assert "(" in row["σ S/cm"]
    (figure,) = section.figures
    figure.write(tmp_path)
    assert "5 to 15 ps" in figure.caption and (tmp_path / "transport.svg").exists()
