"""`alloop check` of the seeds' force fields: unknown names, bad tables, and compositions they do not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alloop.glass.composition import TABLE_1
from alloop.glass.force_field import teter_parameters
from alloop.glass.pair_potential import write_lammps_table

SETTINGS = 'tables = "my.table"\ncutoff_A = 8.0\ncoulomb = "in tables"\n'


@pytest.fixture
def checked(campaign, alloop_main):
    def check(prepare=lambda folder: None, **own: Any) -> tuple[int, str]:
        folder: Path = campaign(bootstrap=own)
        write_lammps_table(folder / "my.table", teter_parameters(TABLE_1["LBS-20-60-20"]), ("B", "Li", "O", "Si"))
        (folder / "my.toml").write_text(SETTINGS)
        prepare(folder)
        outcome = alloop_main("check", "-C", folder)
        return outcome.code, " ".join(outcome.text.split())

    return check


def test_built_in_ones_and_sound_tables_pass(checked):
    code, text = checked(
        force_fields=["teter", "bmp-shrm", "shik", "my.toml"], crystals=["B2O3-I", "Li2O"], crystal_md_K=[600]
    )
    assert code == 0 and "no problem found" in text


def cut(folder: Path) -> None:
    lines = (folder / "my.table").read_text().splitlines()
    (folder / "my.table").write_text("\n".join(lines[:-10]) + "\n")


@pytest.mark.parametrize(
    ("prepare", "own", "words"),
    [
        (
            lambda folder: None,
            {"force_fields": ["shik", "tetr"]},
            "force_fields[1]: for LBS-20-60-20: 'tetr' is neither",
        ),
        (cut, {"force_fields": ["my.toml"]}, "section Si-Si: has 4990 rows of the 5000 announced"),
        (lambda folder: (folder / "my.table").unlink(), {"force_fields": ["my.toml"]}, "my.table"),
        (lambda folder: (folder / "my.toml").write_text("tables = "), {"force_fields": ["my.toml"]}, "Invalid value"),
        (lambda folder: None, {"force_fields": []}, "bootstrap.force_fields"),
        (lambda folder: None, {"force_fields": ["shik", "shik"]}, "shik is given twice"),
        (lambda folder: None, {"crystal_md_K": [600]}, "there are no crystals; name some in crystals"),
    ],
)
def test_what_is_wrong_is_named(checked, prepare, own, words):
    code, text = checked(prepare, **own)
    assert code == 2
    assert words in text
    assert "Traceback" not in text


def test_a_crystal_the_force_field_does_not_know(checked):
    def corundum(folder: Path) -> None:
        from ase import Atoms
        from ase.io import write

        atoms = Atoms(
            "Al2O3", positions=[(0, 0, 0), (2, 0, 0), (1, 1, 0), (3, 1, 0), (2, 2, 1)], cell=[5] * 3, pbc=True
        )
        write(folder / "al.cif", atoms)

    own = {"crystals": ["al.cif"], "crystal_md_K": [600], "force_fields": ["teter"]}
    code, text = checked(corundum, **own)
    assert code == 2
    assert "bootstrap.force_fields[0]: for al.cif: no Teter parameters for Al" in text
