"""`alloop check --live`: one tiny label per labeler, on the path the labels of a campaign take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vasp_double import double_command, make_potcar_library

from alloop import config
from alloop.rehearsal import tiny_cell

OWN_GLASS = {"name": "own", "mole_fractions": {"B2O3": 0.7, "Li2O": 0.3}, "density_g_cm3": 2.1}


@pytest.fixture
def live(campaign, alloop_main):
    """Check a campaign live; return the exit code, what was tried, and the folder."""

    def run(plan: dict[str, Any] | None = None, label: dict[str, Any] | None = None, **changes: Any) -> Any:
        vasp = {"potcar_library": "potcars", "potcars": {"Li": "Li_sv"}} | changes.pop("vasp", {})
        folder = campaign()
        file = None if plan is None else folder / "plan.json"
        if file:
            file.write_text(json.dumps(plan))
        section = {"labeler": "vasp", "vasp": vasp, "run": {"command": double_command(plan=file)} | changes}
        folder = campaign(label=label or section)
        make_potcar_library(folder / "potcars")
        outcome = alloop_main("check", "-C", folder, "--live", "--json")
        return outcome.code, json.loads(outcome.out), folder

    return run


def test_the_double_labels_a_tiny_cell(live):
    code, found, folder = live()
    (record,) = found["live"]
    assert code == 0
    assert record["labelled"]
    assert (record["labeler"], record["version"]) == ("vasp", "vasp 6.3.2")
    assert record["level"] == found["level"]["name"]
    assert record["formula"] == "B2Li2O6Si"
    assert record["seconds"] > 0
    assert np.isfinite(record["energy_eV"])
    assert not (folder / "iterations").exists(), "nothing is left behind"


def test_foundation_and_both_commands_are_tried(live):
    """Cells of the campaign run vasp_gam, the tiny one with its many k-points would not."""
    code, found, folder = live(
        label={
            "labeler": "vasp",
            "vasp": {"potcar_library": "potcars", "potcars": {"Li": "Li_sv"}, "kpoint_spacing_inv_A": 0.8},
            "run": {"command": double_command(), "command_gamma": double_command("5.4.4")},
            "foundation": {"labeler": "teter-rehearsal"},
        }
    )
    assert code == 0
    assert [record["labeler"] for record in found["live"]] == ["teter-rehearsal", "vasp", "vasp"]
    versions = [record["version"] for record in found["live"]]
    assert versions[0].startswith("alloop ")
    assert versions[1].startswith("vasp 6.3.2")
    assert versions[2].startswith("vasp 5.4.4")
    assert not (folder / "iterations").exists()


def test_calculator_is_tried(live):
    code, found, _ = live(label={"labeler": "teter-rehearsal"})
    assert code == 0
    assert [record["labelled"] for record in found["live"]] == [True]


def test_a_crash_is_told_with_the_end_of_its_log(live):
    code, found, folder = live(plan={"always": "crash"})
    (record,) = found["live"]
    assert code == 2
    assert not record["labelled"]
    assert record["class"] == "crash"
    assert "vasp: crash" in record["message"]
    assert "SIGSEGV, segmentation fault occurred" in record["log"]
    task = Path(record["folder"])
    assert task.is_relative_to(folder / "iterations" / "run")
    assert list(task.glob("attempts/*/work/run.0/INCAR")), "its files stay to be looked at"


def test_a_missing_binary_is_told(live):
    code, found, _ = live(command="vasp_that_is_nowhere", modules=["no_module_of_this_name"])
    (record,) = found["live"]
    assert code == 2
    assert found["problems"] == []
    assert record["class"] in ("crash", "empty")
    assert "vasp_that_is_nowhere" in record["log"]


def test_failure_for_a_person(live, alloop_main):
    _, _, folder = live(plan={"always": "edddav_forever"})
    outcome = alloop_main("check", "-C", folder, "--live")
    assert outcome.code == 2
    assert "labelling a tiny cell with vasp-" in outcome.out
    assert "x vasp-" in outcome.out
    assert "edddav" in outcome.out
    assert "-> mend what it says; all files are in" in outcome.out
    assert "no problem found" not in outcome.out


def test_success_for_a_person(live, alloop_main):
    _, _, folder = live()
    outcome = alloop_main("check", "-C", folder, "--live")
    assert outcome.code == 0
    assert "B2Li2O6Si: " in outcome.out
    assert "vasp 6.3.2" in outcome.out
    assert "no problem found" in outcome.out


def test_nothing_is_tried_while_there_are_problems(live):
    code, found, folder = live(vasp={"potcars": {}})
    assert code == 2
    assert [problem["where"] for problem in found["problems"]] == ["param.json: label.vasp.potcars.Li"]
    assert found["live"] == []
    assert not (folder / "iterations").exists()


@pytest.mark.parametrize(
    ("glasses", "elements", "formula"),
    [
        (["LBS-20-60-20"], ["Li", "B", "O", "Si"], "B2Li2O6Si"),
        ([OWN_GLASS], ["Li", "B", "O"], "B2Li2O4"),
        ([OWN_GLASS], ["Na", "Li", "B", "O"], "B2Li2Na2O4"),
    ],
)
def test_tiny_cell_holds_all_elements_well_apart(glasses, elements, formula):
    param = config.parse({"name": "a", "glasses": glasses, "elements": elements})
    atoms = tiny_cell(param)
    assert atoms.get_chemical_formula() == formula
    assert len(atoms) <= 12
    distances = atoms.get_all_distances(mic=True)[~np.eye(len(atoms), dtype=bool)]
    assert distances.min() > 1.0
    np.testing.assert_array_equal(atoms.positions, tiny_cell(param).positions)
