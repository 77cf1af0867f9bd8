"""Pair tables of one's own as a labeler: named in `param.json` by their file, known to labels by their content."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alloop.attempt import TaskError
from alloop.errors import InputError
from alloop.glass.composition import TABLE_1
from alloop.glass.crystals import crystal
from alloop.glass.force_field import TeterCalculator, teter_parameters
from alloop.glass.pair_potential import write_lammps_table
from alloop.label_params import FoundationParam, LabelParam
from alloop.labelers.levels import foundation_level, level_troubles, run_settings, target_level
from alloop.store import write_json
from alloop.tasks.label import labelled

ELEMENTS = ["Li", "B", "O", "Si"]
TETER = teter_parameters(TABLE_1["LBS-40-40-20"])
LABEL = LabelParam(labeler="table-rehearsal", options={"table": "tables/my.toml"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tables = tmp_path / "campaign" / "tables"
    tables.mkdir(parents=True)
    write_lammps_table(tables / "my.table", TETER, ELEMENTS)
    (tables / "my.toml").write_text('tables = "my.table"\ncutoff_A = 8.0\ncoulomb = "in tables"\n')
    return tables.parent


def context(root: Path, label: LabelParam = LABEL) -> Any:
    write_json(root / "labels.json", run_settings(label, ELEMENTS, root))
    return SimpleNamespace(label_settings=root / "labels.json")


def test_labels_are_of_the_tables_and_know_them_by_their_content(folder: Path) -> None:
    level = target_level(LABEL, ELEMENTS, folder)
    assert level.content["options"].keys() == {"sha256"} and level.name.startswith("table-rehearsal-")
    atoms = crystal("LiBSiO4")
    atoms.rattle(0.05, seed=3)
    frame, _ = labelled(context(folder), level.content, atoms)
    atoms.calc = TeterCalculator(TETER)
    assert frame.energy_eV == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    np.testing.assert_allclose(frame.forces_eV_A, atoms.get_forces(), atol=1e-3)
    elsewhere = folder.with_name("moved")
    shutil.copytree(folder, elsewhere)
    assert target_level(LABEL, ELEMENTS, elsewhere) == level
    first = LabelParam(foundation=FoundationParam(labeler="table-rehearsal", options=LABEL.options))
    assert foundation_level(first.foundation, folder) == level
    assert run_settings(first, ELEMENTS, folder) == run_settings(LABEL, ELEMENTS, folder)


def test_tables_that_changed_make_another_level_and_no_label_of_the_old_one(folder: Path) -> None:
    level, told = target_level(LABEL, ELEMENTS, folder), context(folder)
    with (folder / "tables" / "my.table").open("a") as table:
        table.write("# as of today\n")
    assert target_level(LABEL, ELEMENTS, folder) != level
    with pytest.raises(TaskError, match="are not those this label was asked with; put them back"):
        labelled(told, level.content, crystal("Li2O"))
    with pytest.raises(TaskError, match="are not there"):
        labelled(context(folder), level.content, crystal("Li2O"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "name the file of the tables"),
        ({"table": "none.toml"}, "none.toml"),
        ({"table": "tables/my.table"}, "mend the tables"),
        ({"table": "three.toml"}, "has a three-body term"),
    ],
)
def test_what_makes_no_labeler_is_told_before_any_work(options: dict[str, str], words: str, folder: Path) -> None:
    (folder / "three.nb3b").write_text("O B B 1.0 109.47 1.0 3.3\n")
    settings = 'tables = "tables/my.table"\ncutoff_A = 8.0\ncoulomb = "in tables"\n'
    settings += '[three_body]\nstyle = "nb3b/screened"\nfile = "three.nb3b"\n'
    (folder / "three.toml").write_text(settings)
    label = LabelParam(labeler="table-rehearsal", options=options)
    (trouble,) = level_troubles(label, ELEMENTS, folder)
    assert trouble.where == "param.json: label.options" and words in f"{trouble.found} -> {trouble.remedy}"
    with pytest.raises(InputError):
        target_level(label, ELEMENTS, folder)
