"""The page of `alloop report` from made-up records: what it lists as there is there, and lost runs are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from campaign_kit import content
from glass_kit import ended_with
from report_kit import begun, end_well, fail_once

from alloop.glass.composition import TABLE_1
from alloop.report.html.data import known_of_glasses
from alloop.report.html.page import CHECKLIST, Section, sections
from alloop.report.html.runs import unfinished_runs
from alloop.store import Task, make_task

SPEND = {"core_hours": 1.0, "gpu_hours": 0.0, "core_hours_per_label": None, "by_kind": {}, "by_glass": {}}
EMPTY: dict[str, Any] = {
    "status": {"missing": "", "errors": [], "audit": [], "config_changes": [], "iterations": [], "glasses": []},
    "statistics": {
        "iterations": [],
        "final_held_out": [],
        "calibration": {"coverage": []},
        "cost": SPEND | {"by_reason": {}},
    },
    "errors": None,
    "glasses": [],
    "unfinished": [],
    "relaxed": [],
    "relaxed_glasses": [],
    "energies": [],
    "transport": {"asked": 0, "runs": [], "glasses": []},
}


def told(report: dict[str, Any]) -> dict[str, str]:
    """The checklist: name and whether it is there."""
    (table,) = sections(EMPTY | report)[-1].tables
    return {name: here for name, _, here in table.rows}


def errors(glasses: dict[str, int]) -> dict[str, Any]:
    rows = [
        {
            "label": f"{name}{k}",
            "glass": name,
            "atoms": 60,
            "energy_eV_atom": -7.0,
            "composition": name,
            "energy_error_eV_atom": 0.01,
            "force_rmse_eV_A": 0.4,
            "force_mae_eV_A": 0.3,
            "max_force_error_eV_A": 2.5,
        }
        for name, count in glasses.items()
        for k in range(count)
    ]
    keys = ("energy_mae", "energy_max", "energy_offset", "energy_mae_without_offset", "energy_max_without_offset")
    own = {f"{key}_eV_atom": 0.004 for key in keys}
    own |= {"force_mae_eV_A": 0.3, "force_rmse_eV_A": 0.4, "max_force_error_eV_A": 2.5}
    sample = {"true": [0.0, 1.0, -2.0], "mean": [0.1, 0.8, -2.2]}
    return {
        "iteration": 2,
        "longer": False,
        "made_glasses": None,
        "rows": rows,
        "by_glass": [{"glass": name, "labels": count} | own for name, count in glasses.items()],
        "forces": dict.fromkeys(glasses, sample),
    }


def glass(name: str, atoms: int, **more: Any) -> dict[str, Any]:
    known = TABLE_1.get(name)
    cooling = {"times_ps": [0, 1], "temperatures_K": [900, 300], "three_rings": [0, 0], "survival": [], "shown": []}
    return {
        "run": f"{name}.n{atoms}.r0",
        "glass": name,
        "atoms": atoms,
        "density_g_cm3": 2.2,
        "cooling_rate_K_ps": 10.0,
        "driven_by": 0,
        "converged_ensemble": True,
        "frames": 3,
        "fraction_4B": 0.4,
        "fraction_4B_at_minimum": None,
        "fraction_5Si": None,
        "three_rings": 2.0,
        "fraction_boroxol": 0.1,
        "g": {},
        "cooling": cooling,
        "structure": None,
        "mole_fractions": dict(known.mole_fractions) if known else {"SiO2": 0.5, "Li2O": 0.5},
        "R": 0.5 if known else None,
        "K": 1.0 if known else None,
        "experimental_4B": known and known.experimental_4B,
        "experimental_density_g_cm3": known and known.density_g_cm3,
    } | more


def test_nothing_is_there_in_an_empty_campaign() -> None:
    found = told({})
    assert list(found) == [name for name, _, _ in CHECKLIST]
    assert all(here.startswith("no: ") for here in found.values())


def test_what_is_there_is_what_the_page_has() -> None:
    found = told({"errors": errors({"LBS-20-60-20": 3, "mine": 2})})
    yes = {name: here for name, here in found.items() if here.startswith("yes: ")}
    assert set(yes) == {"Fig. 1 energy", "Fig. 1 force", "Fig. S1 energy", "Fig. S1 force"}
    assert set(yes.values()) == {"yes: 5 labels, 1 of 11 glasses"}
    no_sample = errors({"mine": 1}) | {"forces": {"mine": {"true": [], "mean": []}}}
    assert told({"errors": no_sample})["Fig. 1 force"].startswith("no: ")
    small = told({"glasses": [glass("LBS-20-60-20", 294), glass("LBS-40-40-20", 304), glass("mine", 300)]})
    assert small["Table 1"] == small["Fig. 2a"] == "yes: 2 of 11 glasses"
    assert small["Fig. 3"].startswith("no: needs quenched cells of 600 atoms")
    assert small["Fig. 6"].startswith("yes: ") and small["Fig. 7e"].startswith("no: ")
    assert {small[f"Fig. 7{panel}"][:3] for panel in "abcd"} == {"no:"}
    relaxed = {"run": "mine.r0", "glass": "LBS-20-60-20", "cooling_rate_K_ps": 200.0}
    relaxed |= {side: {"fraction_4B": 0.4, "fraction_5Si": None, "three_rings": 1} for side in ("before", "after")}
    probed = told({"relaxed": [relaxed]})["Fig. 2b"]
    assert probed == "yes: 1 of 11 glasses, of short quenches (stop.probe, cooled at 200 K/ps)"


def test_glasses_have_errors_over_replicas_and_models() -> None:
    own = [glass("LBS-20-60-20", 294, fraction_4B=0.3 + 0.02 * k, driven_by=k, run=f"r{k}") for k in range(3)]
    section = part({"glasses": own}, "glasses")
    assert "it holds both the scatter between runs and that between models" in section.texts[0]
    _, table, single = section.tables
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["replicas"], row["4B %"], row["5Si %"]) == ("3", "32.0 ± 1.2 (2.0)", "-")
    assert single.rows[2] == ("r2", "2", "34.0", "-", "2.0")


def test_fourfold_boron_after_minimising_stands_beside_that_of_the_glass() -> None:
    own = [glass("LBS-20-60-20", 294, fraction_4B_at_minimum=low, run=f"r{k}") for k, low in enumerate((0.42, 0.44))]
    section = part({"glasses": own}, "glasses")
    table = section.tables[1]
    assert dict(zip(table.columns, table.rows[0], strict=True))["4B + Emin %"] == "43.0 ± 1.0"
    drawing = next(figure for figure in section.figures if figure.name == "4B_small")
    assert "Emin" in drawing.caption
    canvas = plt.figure()
    drawing.draw(canvas)
    labels = [text.get_text() for text in canvas.legends[0].get_texts()]
    heights = [float(bars.lines[0].get_ydata()[0]) for bars in canvas.axes[0].containers]
    plt.close(canvas)
    assert labels == ["LBS-20-60-20", "about 300 atoms, 10 K/ps", "at the minimum (Emin)"] and heights == pytest.approx(
        [0.4, 0.43]
    )


def test_composition_stands_beside_experiment_and_density_is_of_all_replicas() -> None:
    own = [glass("LBS-40-40-20", 304, density_g_cm3=2.2 + 0.03 * k, run=f"r{k}") for k in range(3)]
    own.append(glass("LBS-20-60-20", 300, experimental_4B=None, experimental_density_g_cm3=None, run="other_fractions"))
    section = part({"glasses": own}, "glasses")
    composition, table = section.tables[:2]
    assert composition.rows[1] == ("LBS-40-40-20", "40", "40", "20", "1.00", "0.50", "46.4", "2.26")
    assert composition.rows[0][-2:] == ("-", "-"), "a name of Table 1 with another composition has no experiment"
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["density g/cm³"], row["density exp."], row["4B exp. %"]) == ("2.230 ± 0.017", "2.26", "46.4")
    assert told({"glasses": own})["Table 1"] == told({"glasses": own})["Fig. 2a"] == "yes: 1 of 11 glasses"


def test_experiment_is_of_the_composition_not_of_the_name(tmp_path: Path) -> None:
    other = {"name": "LBS-20-60-20", "mole_fractions": {"SiO2": 0.3, "B2O3": 0.5, "Li2O": 0.2}}
    known = known_of_glasses(begun(tmp_path / "campaign", glasses=["LBS-40-40-20", other]))
    assert known["LBS-40-40-20"] == {
        "mole_fractions": pytest.approx({"SiO2": 0.4, "B2O3": 0.4, "Li2O": 0.2}),
        "R": pytest.approx(0.5),
        "K": pytest.approx(1.0),
        "experimental_4B": pytest.approx(0.464),
        "experimental_density_g_cm3": 2.26,
    }
    mine = known["LBS-20-60-20"]
    assert mine["experimental_4B"] is mine["experimental_density_g_cm3"] is None and mine["R"] == pytest.approx(0.4)


def test_the_watch_on_the_melt_quenches_is_told() -> None:
    row = {"run": "r0", "status": "done", "melting": {"temperature_K": 1800.0, "known": "rule"}}
    row |= {
        "max_force_deviation_eV_A": 0.313,
        "records_above_trust_high": 0.025,
        "events": {"five_Si": 3, "overlap": 0},
    }
    other = {"run": "r1", "status": "lost", "melting": None, "max_force_deviation_eV_A": None}
    other |= {"records_above_trust_high": None, "events": {}}
    section = part({"status": EMPTY["status"] | {"glasses": [row, other]}}, "glasses")
    (table,) = section.tables
    assert table.rows == [
        ("r0", "done", "1800 (rule)", "0.31", "2.5", "five Si 3"),
        ("r1", "lost", "-", "-", "-", "none"),
    ]


def part(report: dict[str, Any], anchor: str) -> Section:
    return next(section for section in sections(EMPTY | report) if section.anchor == anchor)


def test_error_table_has_mean_absolute_and_largest_errors() -> None:
    section = part({"errors": errors({"LBS-20-60-20": 3})}, "errors")
    (table,) = section.tables
    row = dict(zip(table.columns[-3:], table.rows[0][-3:], strict=True))
    assert row == {"force MAE": "0.300", "force RMSE": "0.400", "largest": "2.50"}
    parity = next(figure for figure in section.figures if figure.name == "force_parity")
    assert "3 force components" in parity.caption
    assert parity.as_uri().startswith("data:image/svg+xml;base64,")


def test_lost_runs_are_told_beside_glasses() -> None:
    lost = {"run": "LBS-20-60-20.n294.r1", "glass": "LBS-20-60-20", "status": "lost", "reason": "chunk 2 of 5: step 40"}
    section = part({"glasses": [glass("LBS-20-60-20", 294)], "unfinished": [lost]}, "glasses")
    assert section.texts[0] == "Of 2 melt-quenches 1 lost; no number or figure counts them."
    assert section.tables[-1].rows == [tuple(lost.values())]
    alone = part({"unfinished": [lost]}, "glasses")
    assert alone.texts == ["Of 1 melt-quenches 1 lost; no number or figure counts them."] and len(alone.tables) == 1


def chunks(run: str) -> list[Task]:
    names = [f"{run}.s{number:02d}-{stage}" for number, stage in enumerate(("melt", "cool", "final"))]
    return [make_task("quench", "production", name, {"glass": "LBS-20-60-20", "name": name}) for name in names]


def test_every_run_without_a_glass_is_found(tmp_path: Path) -> None:
    campaign = begun(tmp_path / "campaign")
    runs = {name: chunks(name) for name in ("fine", "lost", "given_up", "running", "stopped")}
    tasks = [task for own in runs.values() for task in own]
    records = [
        {"name": name, "glass": "LBS-20-60-20", "tasks": [task.key for task in own]} for name, own in runs.items()
    ]
    campaign.decide("quench", iteration=0, converged=True, runs=records, **content(tasks))

    def ended(task: Task, **summary: Any) -> None:
        folder = end_well(campaign, task.key)
        (folder / "result" / "summary.json").write_text(json.dumps({"status": "finished", "reason": ""} | summary))

    for task in runs["fine"]:
        ended(task)
    ended(runs["lost"][0])
    ended(runs["lost"][1], status="lost", reason="step 40: B-O 0.61 A")
    ended(runs["lost"][2], status="void", reason="the chunk before it was lost")
    fail_once(campaign, runs["given_up"][0].key)
    campaign.state.settle_quarantine(runs["given_up"][0].key, {"message": "it failed", "class": "numeric"})
    ended(runs["running"][0])
    ended(runs["stopped"][0])
    reason = "deviation above 0.4 eV/A in 3 records"
    ended_with(campaign, runs["stopped"][1], {"status": "stopped", "reason": reason}, steps=np.array([20, 40, 60]))
    ended(runs["stopped"][2], status="void", reason="the chunk before it was lost")
    listed = unfinished_runs(campaign)
    found = {run["run"]: (run["status"], run["reason"]) for run in listed}
    assert found == {
        "lost": ("lost", "chunk 2 of 3 (s01-cool): step 40: B-O 0.61 A"),
        "given_up": ("given up", "chunk 1 of 3 (s00-melt): it failed"),
        "running": ("running", "chunk 2 of 3 (s01-cool)"),
        "stopped": ("stopped", f"chunk 2 of 3 (s01-cool): after step 60: {reason}"),
    }
    assert {run["glass"] for run in listed} == {"LBS-20-60-20"}
    assert [(run["stage"], run["step"]) for run in listed if run["run"] == "stopped"] == [("cool", 60)]
    told_of = part({"unfinished": listed}, "glasses").texts[0]
    assert told_of == "Of 4 melt-quenches 1 lost, 1 given up, 1 running, 1 stopped; no number or figure counts them."


@pytest.mark.parametrize("many", [1, 4])
def test_force_parity_has_a_panel_for_each_glass(many: int, tmp_path: Path) -> None:
    section = part({"errors": errors({f"glass{k}": 1 for k in range(many)})}, "errors")
    parity = next(figure for figure in section.figures if figure.name == "force_parity")
    parity.write(tmp_path)
    assert np.isclose(parity.size_in[1], 3.4 * (1 if many < 4 else 2))
    assert (tmp_path / "force_parity.pdf").read_bytes().startswith(b"%PDF")
