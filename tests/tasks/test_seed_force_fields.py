"""Seeds from several force fields in turn, a person's own tables among them, and crystals at high temperature."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from alloop import config
from alloop.attempt import TaskError
from alloop.campaign import Campaign
from alloop.decisions.seeding import decide_bootstrap
from alloop.frames import read_columns, read_structure
from alloop.glass.bmp import bmp_potential
from alloop.glass.composition import TABLE_1, stoichiometric_counts
from alloop.glass.crystal_md import crystal_md
from alloop.glass.crystals import crystal, supercell_near
from alloop.glass.force_field import TeterParameters, teter_parameters
from alloop.glass.melt_quench import Snapshot
from alloop.glass.pair_potential import write_lammps_table
from alloop.glass.seed_force_fields import seed_potential
from alloop.glass.user_table import table_hash
from alloop.structure import from_record
from alloop.tasks import bootstrap

GLASS = TABLE_1["LBS-20-60-20"]
COUNTS = stoichiometric_counts(GLASS, 63)
SETTINGS = 'name = "Mine"\ntables = "my.table"\ncutoff_A = 8.0\ncoulomb = "in tables"\n'


def tables(folder: Path) -> Path:
    """Teter's tables as a person's own."""
    folder.mkdir(exist_ok=True)
    write_lammps_table(folder / "my.table", teter_parameters(GLASS), COUNTS)
    (folder / "my.toml").write_text(SETTINGS)
    return folder / "my.toml"


def decided(root: Path, **own: Any) -> list[dict[str, Any]]:
    """Entries of the bootstrap's tasks."""
    param = config.parse({"name": "own", "glasses": ["LBS-20-60-20", "LBS-40-40-20"], "bootstrap": own})
    return decide_bootstrap(Campaign(root), param, -1)["tasks"]


def fields(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["spec"]["force_field"]["name"] for entry in entries if "force_field" in entry["spec"]]


def test_runs_take_the_force_fields_in_turn_over_all_glasses(tmp_path: Path) -> None:
    assert fields(decided(tmp_path)) == ["teter"] * 4
    tables(tmp_path)
    found = decided(tmp_path, force_fields=["bmp-shrm", "my.toml", "shik"])
    assert fields(found) == ["bmp-shrm", "Mine", "shik", "bmp-shrm"]
    assert [entry.get("files") for entry in found] == [None, {"force_field": "my.toml"}, None, None]


def test_tables_enter_the_key_by_their_content_alone(tmp_path: Path) -> None:
    tables(tmp_path)

    def keys(file: str) -> list[str]:
        return [entry["key"] for entry in decided(tmp_path, force_fields=[file])]

    before = keys("my.toml")
    shutil.copytree(tmp_path, tmp_path / "moved", ignore=lambda *_: ["moved"])
    assert keys("moved/my.toml") == before
    with (tmp_path / "my.table").open("a") as table:
        table.write("# as of today\n")
    assert not set(keys("my.toml")) & set(before)


class Context(SimpleNamespace):
    spec: dict[str, Any]


def melt_spec(force_field: Mapping[str, str]) -> dict[str, Any]:
    glass = {"name": GLASS.name, "mole_fractions": dict(GLASS.mole_fractions), "density_g_cm3": GLASS.density_g_cm3}
    common = {"strained_copies": 0, "max_strain": 0.0, "rattle_A": 0.0, "template": "", "schedule": {}, "seed": 1}
    return common | {"source": "melt-quench", "glass": glass, "counts": COUNTS, "force_field": dict(force_field)}


def test_the_run_uses_the_force_field_of_its_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def fake(*_: Any, potential: Any, **__: Any) -> list[Snapshot]:
        used.append(potential)
        return [Snapshot(crystal("Li2O"), 300.0, 0)]

    monkeypatch.setattr(bootstrap, "melt_quench", fake)
    path = tables(tmp_path)
    specs = [{"name": name} for name in ("teter", "bmp-shrm", "shik")] + [{"name": "Mine", "sha256": table_hash(path)}]
    for spec in specs:
        context = Context(spec=melt_spec(spec), out=tmp_path, work=tmp_path, files={"force_field": path})
        bootstrap.run(context)  # type: ignore[arg-type]
    assert [potential.name for potential in used] == ["Teter", "BMP-shrm", "SHIK", "Mine"]
    (tmp_path / "my.table").write_text((tmp_path / "my.table").read_text() + "# another\n")
    with pytest.raises(TaskError, match="put them back"):
        bootstrap.run(context)  # type: ignore[arg-type]
    path.unlink()
    with pytest.raises(TaskError, match="put them back"):
        bootstrap.run(context)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TABLE_1)
def test_potentials_of_counts_are_those_of_the_glass(name: str) -> None:
    counts = stoichiometric_counts(TABLE_1[name], 100)
    teter, bmp = seed_potential("teter", counts), seed_potential("bmp-shrm", counts)
    assert isinstance(teter, TeterParameters)
    assert teter.a_bo_eV == pytest.approx(teter_parameters(TABLE_1[name]).a_bo_eV)
    assert bmp.d_bo_eV == pytest.approx(bmp_potential(TABLE_1[name]).d_bo_eV)  # type: ignore[attr-defined]


def test_a_crystal_without_boron_has_a_potential() -> None:
    for name in ("teter", "bmp-shrm", "shik"):
        seed_potential(name, Counter(crystal("Li2Si2O5").symbols))
    with pytest.raises(ValueError, match=r"'tetr' is neither one of .*; did you mean teter"):
        seed_potential("tetr", COUNTS)
    with pytest.raises(ValueError, match="Al"):
        seed_potential("shik", {"Al": 2, "O": 3})


@pytest.mark.parametrize(("name", "field"), [("LiBSiO4", "bmp-shrm"), ("B2O3-I", "teter")])
def test_dynamics_of_a_skewed_crystal_begin_at_its_sites(name: str, field: str, tmp_path: Path) -> None:
    """At 1 K and after femtoseconds the distances are those of the crystal, however LAMMPS turns its cell."""
    ideal = supercell_near(crystal(name), 60)
    counts = Counter(ideal.symbols)
    (frame,) = crystal_md(ideal, 1.0, seed_potential(field, counts), ps=0.004, frames=1, seed=3, directory=tmp_path)
    assert frame.get_chemical_symbols() == ideal.get_chemical_symbols()
    assert frame.cell.cellpar() == pytest.approx(ideal.cell.cellpar(), abs=1e-5)
    distances = [atoms.get_all_distances(mic=True) for atoms in (frame, ideal)]
    np.testing.assert_allclose(*distances, atol=0.03)


def test_crystals_at_temperature_are_frames_of_the_bootstrap(tmp_path: Path) -> None:
    spec = {
        "source": "crystal",
        "crystal": "alpha-quartz",
        "n_atoms": 72,
        "copies": 3,
        "max_strain": 0.0,
        "rattle_A": 0.0,
        "seed": 7,
        "md_K": [300.0, 1500.0],
        "md_ps": 0.6,
        "force_field": {"name": "teter"},
    }
    bootstrap.run(Context(spec=spec, out=tmp_path, work=tmp_path / "work", files={}))  # type: ignore[arg-type]
    assert read_columns(tmp_path)["temperature_K"].tolist() == [0.0] * 3 + [300.0] * 3 + [1500.0] * 3
    frames: list[Atoms] = [from_record(read_structure(tmp_path, k)) for k in range(9)]
    ideal = frames[0].get_all_distances(mic=True)
    moved = [float(np.sqrt(((frame.get_all_distances(mic=True) - ideal) ** 2).mean())) for frame in frames]
    assert moved[:3] == pytest.approx([0.0] * 3, abs=1e-6)
    cold, hot = moved[3:6], moved[6:]
    assert min(cold) > 0.03 and max(cold) < min(hot) < 0.8  # warmer atoms move more, and the lattice holds
    assert len({round(value, 6) for value in moved[3:]}) == 6


def test_crystals_without_dynamics_need_no_force_field(tmp_path: Path) -> None:
    crystals = {"crystals": ["alpha-quartz", "Li2O"], "force_fields": ["shik", "teter"], "trajectories": 2}
    plain = decided(tmp_path, **crystals)[-2:]
    assert fields(plain) == [] and [entry["spec"]["md_K"] for entry in plain] == [[], []]
    warm = decided(tmp_path, **crystals, crystal_md_K=[900])[-2:]
    assert fields(warm) == ["shik", "teter"] and [entry["spec"]["md_K"] for entry in warm] == [[900.0], [900.0]]
