"""Tables handed in by a user: Teter's, written out and read back, and every way in which they may be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from alloop.glass.bmp import bmp_potential
from alloop.glass.composition import TABLE_1, stoichiometric_counts
from alloop.glass.force_field import CHARGES_E, TeterCalculator, coulomb_energy_and_slope, teter_parameters
from alloop.glass.melt_quench import MeltQuench, melt_quench, random_start, run_lammps, write_lammps_data
from alloop.glass.pair_potential import PairPotential, ThreeBodyPotential, write_lammps_potential, write_lammps_table
from alloop.glass.user_table import UserTableCalculator, read_user_table

GLASS = TABLE_1["LBS-20-60-20"]
COUNTS = stoichiometric_counts(GLASS, 42)
TYPES = {"B": 1, "Li": 2, "O": 3, "Si": 4}
TETER = teter_parameters(GLASS)
WHOLE = 'name = "Mine"\ntables = "my.table"\ncutoff_A = 8.0\ncoulomb = "in tables"\n'
CHARGED = """tables = "my.table"
cutoff_A = 8.0
[coulomb]
charges_e = { O = -1.2, Si = 2.4, B = 1.8, Li = 0.6 }
cutoff_A = 8.0
damping_1_A = 0.25
"""
SHORT = MeltQuench(melt_ps=0.05, cooling_rate_K_ps=32000.0, n_snapshots=2)


def handed_in(directory: Path, settings: str = WHOLE) -> Path:
    """Teter's tables, Coulomb term included, and settings."""
    write_lammps_table(directory / "my.table", TETER, TYPES)
    (directory / "my.toml").write_text(settings)
    return directory / "my.toml"


def melt(seed: int = 5) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = random_start(COUNTS, 8.0, rng)
    atoms.positions += rng.normal(0, 0.1, size=atoms.positions.shape)
    return atoms


def short_range_only(path: Path, *, spaced: str) -> None:
    """Teter's short-range terms by hand, at distances of one's own or evenly in R, with sections named backwards."""
    r = np.linspace(0.5, 8.0, 1500)
    parts = ["# DATE: 2020-01-01 UNITS: metal\n"]
    for first, second in [("O", "B"), ("O", "Li"), ("O", "O"), ("Si", "O")]:
        energy, slope = TETER.pairs[second if first == "O" else first, "O"].shifted_energy_and_slope(r)
        rows = "\n".join(
            f"{k} {x:.10f} {e:.12g} {-s:.12g}" for k, (x, e, s) in enumerate(zip(r, energy, slope, strict=True), 1)
        )
        parts.append(f"# {first} and {second}\n{first}-{second}\nN {len(r)} {spaced}\n\n{rows}\n")
    zeros = "\n".join(f"{k} {x:.10f} 0 0" for k, x in enumerate(r, 1))
    parts += [f"{pair}\nN {len(r)}\n\n{zeros}\n" for pair in ("B-B", "B-Li", "Si-B", "Li-Li", "Li-Si", "Si-Si")]
    path.write_text("\n".join(parts))


def assert_teter(atoms: Atoms, settings: Path) -> None:
    table = read_user_table(settings, COUNTS)
    atoms.calc = TeterCalculator(TETER)
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    atoms.calc = UserTableCalculator(table)
    assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-7)
    np.testing.assert_allclose(atoms.get_forces(), forces, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(atoms.get_stress(), stress, rtol=1e-5, atol=1e-6)


def test_tables_written_from_teter_are_teter(tmp_path: Path) -> None:
    assert_teter(melt(), handed_in(tmp_path))


@pytest.mark.parametrize("spaced", ["", "R 0.5 8.0"])
def test_charges_beside_short_range_tables_are_teter(tmp_path: Path, spaced: str) -> None:
    settings = handed_in(tmp_path, CHARGED)
    short_range_only(tmp_path / "my.table", spaced=spaced)
    assert_teter(melt(), settings)


def test_coulomb_term_is_the_one_of_the_other_force_fields_and_ends_at_its_own_cutoff(tmp_path: Path) -> None:
    settings = handed_in(tmp_path, CHARGED.replace("cutoff_A = 8.0\ndamping", "cutoff_A = 10.0\ndamping"))
    short_range_only(tmp_path / "my.table", spaced="")
    table = read_user_table(settings, COUNTS)
    assert table.cutoff_A == 10.0
    energy, slope = table.pair_energy_and_slope("Si", "Li", np.array([8.5, 10.0, 11.0]))
    assert energy[0] > 0 > slope[0]
    assert [*energy[1:], *slope[1:]] == [0, 0, 0, 0]
    settings.write_text(CHARGED)
    r_A = np.linspace(0.6, 8.0, 50)
    own = read_user_table(settings, COUNTS).pair_energy_and_slope("Si", "Li", r_A)
    for values, teter in zip(own, coulomb_energy_and_slope(r_A), strict=True):
        np.testing.assert_allclose(values, CHARGES_E["Si"] * CHARGES_E["Li"] * teter, rtol=1e-12, atol=1e-12)


def test_melt_quench_takes_them_and_agrees_with_teter(tmp_path: Path) -> None:
    table = read_user_table(handed_in(tmp_path), COUNTS)
    assert isinstance(table, ThreeBodyPotential)
    potentials: dict[str, PairPotential] = {"mine": table, "teter": TETER}
    mine, teter = (
        melt_quench(GLASS, COUNTS, SHORT, seed=1, directory=tmp_path / name, potential=potential)
        for name, potential in potentials.items()
    )
    assert len(mine) == len(teter) == 2
    start = melt()
    energies = []
    for name, potential in potentials.items():
        folder = tmp_path / name
        write_lammps_data(folder / "cell.data", start, TYPES)
        commands = write_lammps_potential(folder, potential, TYPES)
        text = f"units metal\natom_style atomic\nread_data cell.data\n{commands}\nrun 0\n"
        (folder / "one.in").write_text(text + 'print "$(pe:%.15g)" file out.txt\n')
        run_lammps(folder, "one.in")
        energies.append(float((folder / "out.txt").read_text()))
    assert energies[0] == pytest.approx(energies[1], rel=1e-7)


def test_three_body_file_is_laid_over_the_tables_in_lammps_and_refused_by_the_calculator(tmp_path: Path) -> None:
    settings = handed_in(tmp_path, WHOLE + '[three_body]\nstyle = "nb3b/screened"\nfile = "my.nb3b"\n')
    term = bmp_potential(GLASS).lammps_three_body(TYPES)
    assert term is not None
    (tmp_path / "my.nb3b").write_text(term.text)
    table = read_user_table(settings, COUNTS)
    assert table.three_body is not None
    assert table.three_body.elements == {"B", "O", "Si"}
    assert table.lammps_three_body({"Li"}) is None
    commands = write_lammps_potential(tmp_path, table, TYPES)
    assert commands.splitlines()[0].split()[1:] == ["hybrid/overlay", "table", "spline", "5000", "nb3b/screened"]
    assert commands.splitlines()[-1].split() == [
        *("pair_coeff", "*", "*", "nb3b/screened", "three_body.txt"),
        *("B", "NULL", "O", "Si"),
    ]
    assert len(melt_quench(GLASS, COUNTS, SHORT, seed=1, directory=tmp_path / "run", potential=table)) == 2
    with pytest.raises(ValueError, match=r"three-body term.*run it in LAMMPS"):
        UserTableCalculator(table)


def column(text: str, section: str, change: Callable[[list[str]], list[str]]) -> str:
    """The text with the rows of one section changed."""
    lines = text.splitlines()
    start = lines.index(section) + 3
    return "\n".join([*lines[:start], *change(lines[start : start + 5000]), *lines[start + 5000 :]])


def scaled(name: str, factor: float, rows: slice = slice(None)) -> Callable[[list[str]], list[str]]:
    k = ["index", "r", "energy", "force"].index(name)

    def change(lines: list[str]) -> list[str]:
        words = [line.split() for line in lines]
        for row in words[rows]:
            row[k] = repr(float(row[k]) * factor)
        return [" ".join(row) for row in words]

    return change


def swapped(lines: list[str]) -> list[str]:
    return [*lines[:99], lines[100], lines[99], *lines[101:]]


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("B-O", scaled("force", -1.0), r"section B-O: at r = .* the fourth column must be -dE/dr"),
        ("B-O", scaled("force", 1.05), r"section B-O: at r = .* the fourth column must be -dE/dr"),
        ("O-Si", scaled("energy", 23.06), r"section O-Si: at r = .*-dE/dr"),
        ("O-O", scaled("energy", 1.01, slice(2500, 2501)), r"section O-O: at r = .*-dE/dr"),
        ("Li-O", swapped, r"section Li-O: r falls or stands still at row 101"),
        ("Li-O", lambda rows: rows[:-1], "has 4999 rows of the 5000 announced"),
        ("Li-O", lambda rows: [*rows[:-1], "5000 8.0 zero 0.0"], "not made of index, r, energy and force"),
        ("Li-O", lambda rows: [*rows[:-1], "5000 8.0 0.0"], "not made of index, r, energy and force"),
        ("Li-O", lambda rows: [*rows[:-1], "5000 8.0 nan 0.0"], "not finite"),
        ("B-B", scaled("r", 1.001), "its r are not those of RSQ 0.2 8.0"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(
    tmp_path: Path, section: str, change: Callable[[list[str]], list[str]], message: str
) -> None:
    settings = handed_in(tmp_path)
    table = tmp_path / "my.table"
    table.write_text(column(table.read_text(), section, change))
    with pytest.raises(ValueError, match=message):
        read_user_table(settings, COUNTS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\nB-O\n", "\nSi-Al\n", "no table for B-O"),
        ("\nB-O\n", "\nO-Li\n", "two sections for"),
        ("\nB-O\n", "\nBO\n", "'BO' is not named after two elements"),
        ("N 5000 RSQ", "N 5000 BITMAP", "rows by BITMAP"),
        ("N 5000 RSQ 0.2 8.0", "M 5000", "its second line is 'M 5000'|not named after two elements"),
        ("# Teter", "# UNITS: real", "its units are real"),
    ],
)
def test_table_files_that_cannot_be_read_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    settings = handed_in(tmp_path)
    text = (tmp_path / "my.table").read_text()
    assert old in text
    (tmp_path / "my.table").write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_user_table(settings, COUNTS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (WHOLE.replace("8.0", "8.5"), r"ends at 8 Å, before the cutoff of 8.5 Å"),
        (WHOLE.replace("8.0", "5.0"), r"at the cutoff of 5 Å energy and slope are"),
        (WHOLE.replace("8.0", "-8.0"), r"cutoff_A is -8.0; give a number > 0"),
        (WHOLE.replace('coulomb = "in tables"\n', ""), r'no coulomb; it must be given; write coulomb = "in tables"'),
        (WHOLE.replace("in tables", "none"), r"coulomb is 'none'"),
        (WHOLE + "cutof_A = 3\n", r"unknown setting cutof_A; use .*cutoff_A"),
        (CHARGED.replace("Si = 2.4", "Si = 2.3"), r"net charge of -0.2 e"),
        (CHARGED.replace("Si = 2.4, ", ""), r"no charge for Si"),
        (CHARGED.replace("damping_1_A = 0.25", ""), r"\[coulomb\]: no damping_1_A"),
        (CHARGED.replace("-1.2", '"-1.2"'), r"charges_e is .*give a table such as"),
        (WHOLE + '[three_body]\nstyle = "tersoff"\nfile = "x"\n', r"style is 'tersoff'; use one of nb3b/screened"),
        (WHOLE + '[three_body]\nstyle = "sw"\nfile = "my.toml"\n', r"names no elements"),
    ],
)
def test_settings_that_are_wrong_are_refused(tmp_path: Path, settings: str, message: str) -> None:
    path = handed_in(tmp_path, settings)
    with pytest.raises(ValueError, match=message):
        read_user_table(path, COUNTS)


def test_cells_that_the_tables_do_not_fit_are_refused(tmp_path: Path) -> None:
    settings = handed_in(tmp_path, CHARGED)
    short_range_only(tmp_path / "my.table", spaced="")
    table = read_user_table(settings, COUNTS)
    for symbols, distance_A, message in [
        ("SiO", 2.0, "net charge of 1.2 e"),
        ("NaO", 2.0, "no table for Na-Na"),
        ("Li2O", 0.3, "are 0.3 Å apart and their table begins at 0.5 Å"),
    ]:
        positions = [[4 + distance_A * k, 4, 4] for k in range(len(Atoms(symbols)))]
        atoms = Atoms(symbols, positions, cell=[20] * 3, pbc=True, calculator=UserTableCalculator(table))
        with pytest.raises(ValueError, match=message):
            atoms.get_potential_energy()
