"""Glasses relaxed with the labeler, on the page of `alloop report`: before and after, and energies beside classical."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from campaign_kit import content
from glass_kit import GLASSES, campaign_of_glasses, chunk, condition, decide_quench, ended, ended_with
from report_kit import end_well, fail_once
from test_html_page import part, told

from alloop.campaign import Campaign
from alloop.report.html.glass_figures import relaxed_figures
from alloop.report.html.relaxed import FORCE_FIELD, MODELS, glass_energies, relaxed_glasses
from alloop.report.html.tables import relaxed_table
from alloop.store import Task, make_task

FIRST, OTHER = GLASSES
SNAPSHOTS = 3


def seen(fraction_4B: float, rings: int, energy_eV: float | None, atoms: int = 294) -> dict[str, Any]:
    energy = None if energy_eV is None else energy_eV * atoms
    return {"fraction_4B": fraction_4B, "fraction_5Si": 0.1, "three_rings": rings, "energy_eV": energy}


def relaxation(name: str, source: Task, level: dict[str, Any]) -> Task:
    spec = {"glass": source.spec["glass"], "start": {"task": source.key, "frame": -1}, "level": level, "relax": {}}
    return make_task("relax", "production/relax", name, spec, (source.key,))


def label_bootstrap(campaign: Campaign) -> None:
    """A labelled melt-quench of each glass: snapshots at 3000, 1500 and 300 K, and a strained copy of the last."""
    tasks = [
        make_task(
            "bootstrap",
            "bootstrap/seed",
            f"{glass}.n84.t00",
            {
                "source": "melt-quench",
                "glass": {"name": glass},
                "counts": {"Li": 28, "O": 56},
                "schedule": {"n_snapshots": SNAPSHOTS, "cooling_rate_K_ps": 250.0},
                "force_field": {"name": "shik"},
            },
        )
        for glass in GLASSES
    ]
    campaign.decide("bootstrap", iteration=-1, **content(tasks), trajectories={t.name: "training" for t in tasks})
    for task in tasks:
        end_well(campaign, task.key)
    picks = [
        {
            "key": make_task("label", "", "", {"frame": frame, "of": task.name}).key,
            "name": f"{task.name}.s{frame:04d}",
            "source": {"task": task.key, "frame": frame},
            "given": False,
            "level": campaign.level["name"],
            "trajectory": task.name,
            "role": "training",
            "reason": "bootstrap",
            "temperature_K": temperature_K,
        }
        for task in tasks
        for frame, temperature_K in enumerate((3000.0, 1500.0, 300.0, 300.0))
    ]
    campaign.decide("seed_labels", iteration=-1, level=campaign.level, picks=picks)
    for pick in picks:
        folder = end_well(campaign, pick["key"])
        structure = {
            "symbols": ["O"] * 84,
            "cell_A": [[9, 0, 0], [0, 9, 0], [0, 0, 9]],
            "positions_A": [[0, 0, 0]] * 84,
        }
        label = {"structure": structure, "forces_eV_A": [[0, 0, 0]] * 84, "virial_eV": [[0, 0, 0]] * 3}
        (folder / "result" / "label.json").write_text(
            json.dumps(label | {"energy_eV": 84 * (-6.8 + pick["source"]["frame"])})
        )


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Campaign, dict[str, Task]]:
    """Two replicas of one glass by two models, one of another that begins with a classical stage; not relaxed yet."""
    campaign = campaign_of_glasses(tmp_path)
    label_bootstrap(campaign)
    cool = condition(1300, 300, 1000)
    field = {"force_field": {"name": "teter"}, "driven_by": 0}
    runs: dict[str, tuple[str, float, list[Task]]] = {}
    for k in range(2):
        name = f"{FIRST}.n294.r{k}"
        runs[name] = (FIRST, 10.0, [chunk(name, 0, "glass", FIRST, driven_by=k, analyse_from_step=0)])
    name = f"{OTHER}.n320.r0"
    classical = [
        chunk(name, 0, "classical-cool", OTHER, stage_kind="ramp", condition=cool, **field),
        chunk(name, 1, "classical-glass", OTHER, **field),
    ]
    last = chunk(name, 2, "glass", OTHER, analyse_from_step=0, driven_by=0)
    runs[name] = (OTHER, 10.0, [*classical, last])
    decide_quench(campaign, runs)
    for _, _, own in runs.values():
        for task in own:
            ended(campaign, task)
    sources = {run: own[-1] for run, (_, _, own) in runs.items()} | {"classical": classical[-1]}
    return campaign, sources


def relax(campaign: Campaign, sources: dict[str, Task], **names: str) -> dict[str, Task]:
    tasks = {name: relaxation(name, source, campaign.level["content"]) for name, source in sources.items()}
    campaign.decide("relax_glass", iteration=0, **content(list(tasks.values())))
    return tasks


def test_nothing_is_told_without_the_decision(made: tuple[Campaign, dict[str, Task]]) -> None:
    campaign, _ = made
    assert relaxed_glasses(campaign) == [] and glass_energies(campaign) == []
    assert (
        told({})["Fig. 2b"]
        == told({})["Fig. 5"]
        == "no: needs quench.relax, which relaxes the glasses with the labeler"
    )


def report_of(campaign: Campaign) -> dict[str, Any]:
    return {"relaxed_glasses": relaxed_glasses(campaign), "energies": glass_energies(campaign)}


def test_before_and_after_beside_the_bootstrap(made: tuple[Campaign, dict[str, Task]], tmp_path: Path) -> None:
    campaign, sources = made
    tasks = relax(campaign, {name: task for name, task in sources.items() if name != "classical"})
    waiting = report_of(campaign)
    assert told(waiting)["Fig. 2b"] == "no: Of 3 glasses to relax with the labeler 0 were, 3 waiting."
    first, second, third = tasks.values()
    ended_with(
        campaign, first, {"relaxed_from": "last frame", "before": seen(0.30, 4, -7.0), "after": seen(0.34, 5, -7.1)}
    )
    ended_with(
        campaign, second, {"relaxed_from": "last frame", "before": seen(0.36, 6, -7.02), "after": seen(0.38, 6, -7.1)}
    )
    fail_once(campaign, third.key)
    campaign.state.settle_quarantine(third.key, {"message": "not relaxed after 200 steps", "class": "unrelaxed"})
    found = report_of(campaign)
    row, _, lost = found["relaxed_glasses"]
    assert row["run"] == f"{FIRST}.n294.r0" and (row["atoms"], row["driver"], row["driven_by"]) == (294, "models", 0)
    assert row["before"]["energy_eV_atom"] == pytest.approx(-7.0)
    assert row["change"] == pytest.approx(
        {"fraction_4B": 0.04, "fraction_5Si": 0, "three_rings": 1, "energy_eV_atom": -0.1}
    )
    assert lost["status"] == "given up" and lost["before"]["fraction_4B"] is None
    classical = [own for own in found["energies"] if own["driver"] == "force field"]
    assert [own["energy_eV_atom"] for own in classical] == [pytest.approx(-6.8 + SNAPSHOTS - 1)], "the last, unstrained"
    assert classical[0]["made_by"] == "shik, 250 K/ps" and classical[0]["glass"] == FIRST
    here = told(found)
    assert (
        here["Fig. 2b"] == "yes: 1 of 11 glasses, of the melt-quenches"
        and here["Fig. 5"] == "yes: 1 of 11 glasses, small cells; force fields' as made, not relaxed"
    )
    section = part(found, "glasses")
    assert section.texts[-1] == (
        f"Of 3 glasses to relax with the labeler 2 were, 1 given up; {OTHER}.n320.r0: not relaxed after 200 steps."
    )
    changes, energies = section.tables
    cells = dict(zip(changes.columns, changes.rows[0], strict=True))
    assert cells["relaxed"] == "2" and cells["4B %"] == "33.0 ± 3.0 (4.2) → 36.0 ± 2.0 (2.8)"
    assert cells["3-rings of B"] == "5.0 ± 1.0 (1.4) → 5.5 ± 0.5 (0.7)"
    assert cells["4B exp. %"] == "-", "nothing is known of experiment without a glass on record"
    known = relaxed_table(found["relaxed_glasses"][:2], {FIRST: 0.281})
    assert dict(zip(known.columns, known.rows[0], strict=True))["4B exp. %"] == "28.1"
    assert changes.rows[0][6] == "+3.0 ± 1.0 (1.4)"
    by = {row[2]: row[3:] for row in energies.rows}
    assert by["models, 10 K/ps"] == ("300", "2", "-7.0100 ± 0.0100 (0.0141)", "-7.1000 ± 0.0000 (0.0000)")
    assert by["shik, 250 K/ps"] == ("300", "1", "-4.8000", "-")
    assert "cooled at another rate" in energies.caption
    for figure in section.figures:
        figure.write(tmp_path)
    assert [figure.name for figure in section.figures] == ["relaxed", "energies"]


def test_what_the_quench_s_own_force_field_made_goes_before_the_bootstrap(
    made: tuple[Campaign, dict[str, Task]], tmp_path: Path
) -> None:
    campaign, sources = made
    tasks = relax(campaign, sources)
    atoms = GLASSES[OTHER]
    for name, energy in ((f"{OTHER}.n320.r0", -7.0), ("classical", -6.9)):
        sides = {
            "relaxed_from": "last frame",
            "before": seen(0.4, 3, energy, atoms),
            "after": seen(0.4, 3, energy - 0.1, atoms),
        }
        ended_with(campaign, tasks[name], sides)
    found = report_of(campaign)
    (own,) = [row for row in found["relaxed_glasses"] if row["driver"] == "force field"]
    assert (own["glass"], own["atoms"], own["made_by"], own["temperature_K"]) == (OTHER, 320, "teter, 1e+03 K/ps", 300)
    assert {one["made_by"] for one in found["energies"]} == {"models, 10 K/ps", "teter, 1e+03 K/ps"}
    section = part(found, "glasses")
    assert [row[0] for row in section.tables[0].rows] == [OTHER] and len(section.tables[0].rows) == 1
    by = {row[2]: row[5:] for row in section.tables[1].rows}
    assert by["teter, 1e+03 K/ps"] == ("-6.9000", "-7.0000")
    assert told(found)["Fig. 2b"] == "yes: 1 of 11 glasses, of the melt-quenches"
    assert told(found)["Fig. 5"].startswith("yes: 1 of 11 glasses") and "as made" not in told(found)["Fig. 5"]


def test_energies_of_another_level_are_not_compared(made: tuple[Campaign, dict[str, Task]]) -> None:
    campaign, sources = made
    tasks = relax(campaign, {f"{FIRST}.n294.r0": sources[f"{FIRST}.n294.r0"]})
    ended_with(
        campaign,
        *tasks.values(),
        {"relaxed_from": "last frame", "before": seen(0.3, 4, -7.0), "after": seen(0.3, 4, None)},
    )
    assert len(glass_energies(campaign)) == 2
    campaign.state.levels[campaign.level["name"]] = {"labeler": "another"}
    found = report_of(campaign)
    assert [own["driver"] for own in found["energies"]] == ["models"]
    assert told(found)["Fig. 5"] == "no: no glass of a force field has an energy by the labeler"


@pytest.mark.parametrize(
    ("models_K", "field_K", "told"),
    [
        (
            None,
            300.0,
            ", among structures in one state: those of a minimum are compared with frames at up to 300 K",
        ),
        (300.0, 300.0, ""),
        (300.0, 500.0, ""),
        (None, None, ""),
    ],
)
def test_energies_of_frames_and_of_minima_are_not_passed_off_as_alike(models_K, field_K, told) -> None:
    made = {"glass": "A", "atoms": 84, "relaxed": False, "energy_eV_atom": -7.0, "driven_by": 0, "run": "r"}
    energies = [
        made | {"driver": MODELS, "made_by": "models", "temperature_K": models_K},
        made | {"driver": FORCE_FIELD, "made_by": "teter", "temperature_K": field_K},
    ]
    (figure,) = relaxed_figures({"relaxed_glasses": [], "energies": energies})
    assert f"below zero is more stable{told}" in figure.caption
    assert ("about 0.039 eV/atom (3/2 k_B T) is motion" in figure.caption) == bool(told)
