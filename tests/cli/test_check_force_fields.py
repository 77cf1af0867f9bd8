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


RICH = {"name": "LBS-90-8-2", "mole_fractions": {"SiO2": 90, "B2O3": 8, "Li2O": 2}, "density_g_cm3": 2.2}
"""K = [SiO2]/[B2O3] = 11.25, beyond what Teter's B-O term is fitted for."""
BEGIN = [{"name": "mix", "kind": "hold", "temperature_K": 2000, "ps": 5}]
CLASSICAL = [{"name": "pack", "kind": "hold", "temperature_K": 3000, "ps": 5, "driver": "force_field"}, *BEGIN]


@pytest.mark.parametrize(
    ("quench", "uses"),
    [
        ({"protocol": "urata2022"}, "stages classical-melt, classical-cool, classical-glass; the search for where it "),
        ({"protocol": CLASSICAL}, "(stage pack; packing 316 atoms)"),
        ({"protocol": "short", "n_atoms": [632]}, "(packing 632 atoms)"),
        ({"protocol": "short", "n_atoms": [316]}, None),
        ({"protocol": BEGIN}, None),
    ],
)
def test_a_glass_beyond_the_force_field_is_told_before_any_work_whatever_needs_it(campaign, alloop_main, quench, uses):
    glasses = ["LBS-20-60-20", RICH | {"n_atoms": [316]}]

    def found(own: dict[str, Any], seeds: str) -> str:
        changes = {"glasses": glasses, "quench": quench | own, "bootstrap": {"force_fields": [seeds]}}
        return " ".join(alloop_main("check", "-C", campaign(**changes)).text.split())

    for own, seeds in (({}, "shik"), ({"force_field": "shik"}, "shik"), ({"force_field": "bmp-shrm"}, "shik")):
        assert "no problem found" in found(own, seeds)
    text = found({"force_field": "teter"}, "shik")
    if uses is None:
        assert "no problem found" in text
        return
    assert "quench.force_field: for LBS-90-8-2 teter is needed" in text and uses in text
    assert "K = [SiO2]/[B2O3] = 11.25 is outside 0 to 8" in text
    assert "set it to one that knows this glass (teter, bmp-shrm, shik, or the file of tables of your own)" in text
    assert "for LBS-20-60-20" not in text
    assert "'none.toml' is neither one of" in found({"force_field": "none.toml"}, "shik")
