"""SHIK: its terms against hand-computed values, finite differences, LAMMPS, and neutrality of every composition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units

from alloop.glass.composition import TABLE_1, stoichiometric_counts
from alloop.glass.melt_quench import random_start, run_lammps, write_lammps_data
from alloop.glass.pair_potential import lammps_pair_commands, write_lammps_table
from alloop.glass.shik import (
    CATION_CHARGES_E,
    COULOMB_CUTOFF_A,
    SHORT_CUTOFF_A,
    SHORT_RANGE,
    ShikCalculator,
    coulomb_energy_and_slope,
    oxygen_charge_e,
    shik_potential,
)

TYPES = {"B": 1, "Li": 2, "O": 3, "Si": 4}

# Short-range energies (eV) at bond-like distances (Å), evaluated once from the published form and numbers.
SHORT_RANGE_VALUES = [
    ("O", "O", 2.65, 0.449138),
    ("O", "Si", 1.62, -1.740358),
    ("O", "B", 1.37, -1.470934),
    ("O", "B", 1.47, -1.601470),
    ("O", "Li", 1.95, -0.282448),
    ("Si", "Si", 3.1, 0.003260),
    ("Si", "B", 2.8, -0.263226),
    ("Si", "Li", 3.1, 0.021558),
    ("B", "B", 2.5, -0.155209),
    ("B", "Li", 2.7, 0.004518),
    ("Li", "Li", 3.0, 0.018512),
]
# A (eV), B (1/Å), C (eV Å^6), D (eV Å^24), typed a second time: where D is small beside the rest no energy tells it.
COEFFICIENTS = {
    "O O": (1120.5, 2.8927, 26.132, 16800.0),
    "O Si": (23108.0, 5.0979, 139.7, 66.0),
    "O B": (16182.0, 5.6069, 59.203, 32.0),
    "O Li": (6745.2, 4.912, 41.221, 70.0),
    "Si Si": (2798.0, 4.4073, 0.0, 3423204.0),
    "Si B": (4798.0, 3.6703, 207.0, 16800.0),
    "Si Li": (17284.0, 4.3848, 0.0, 16800.0),
    "B B": (1805.5, 3.8228, 69.174, 6000.0),
    "B Li": (4148.6, 3.5726, 102.36, 16800.0),
    "Li Li": (2323.8, 3.9129, 0.0, 3240.0),
}
OXYGEN_CHARGES_E = {
    "LBS-20-60-20": -1.04971,
    "LBS-40-40-20": -1.01335,
    "LBS-10-50-40": -1.07062,
    "LBS-20-40-40": -1.05167,
    "LBS-30-30-40": -1.03072,
    "LBS-40-20-40": -1.00744,
    "LBS-50-10-40": -0.98143,
    "LBS-8-32-60": -1.08218,
    "LBS-15-25-60": -1.06658,
    "LBS-10-20-70": -1.08291,
    "LBS-5-35-60": -1.08848,
}


@pytest.mark.parametrize(("first", "second", "r_A", "expected_eV"), SHORT_RANGE_VALUES)
def test_short_range_terms_have_the_published_values(first: str, second: str, r_A: float, expected_eV: float) -> None:
    energy, _ = SHORT_RANGE[frozenset((first, second))].energy_and_slope(np.array([r_A]))
    assert energy[0] == pytest.approx(expected_eV, abs=1e-6)


def test_short_range_terms_have_the_published_coefficients() -> None:
    assert {frozenset(pair.split()): values for pair, values in COEFFICIENTS.items()} == {
        pair: (term.A_eV, term.B_1_A, term.C_eV_A6, term.D_eV_A24) for pair, term in SHORT_RANGE.items()
    }


@pytest.mark.parametrize(("name", "charge_e"), OXYGEN_CHARGES_E.items())
def test_oxygen_makes_the_glass_neutral(name: str, charge_e: float) -> None:
    counts = stoichiometric_counts(TABLE_1[name], 300)
    assert oxygen_charge_e(counts) == pytest.approx(charge_e, abs=1e-5)
    total = sum(CATION_CHARGES_E.get(element, oxygen_charge_e(counts)) * n for element, n in counts.items())
    assert total == pytest.approx(0.0, abs=1e-9)


def test_without_oxygen_or_with_a_foreign_element_nothing_is_calculated() -> None:
    with pytest.raises(ValueError, match="no oxygen"):
        oxygen_charge_e({"Si": 3})
    with pytest.raises(ValueError, match="no SHIK parameters for Na"):
        shik_potential({"Na": 1, "O": 2})


def test_slopes_are_those_of_the_energies_and_both_end_at_the_cutoff() -> None:
    potential = shik_potential({"Li": 2, "B": 4, "Si": 1, "O": 9})
    for first, second in [tuple(sorted(pair)) * (3 - len(pair)) for pair in SHORT_RANGE]:
        r_A = np.linspace(1.1, 9.999, 400)
        r_A = r_A[np.abs(r_A - SHORT_CUTOFF_A) > 1e-3]
        h = 1e-5
        _, slope = potential.pair_energy_and_slope(first, second, r_A)
        above, below = (potential.pair_energy_and_slope(first, second, r_A + sign * h)[0] for sign in (1, -1))
        np.testing.assert_allclose(slope, (above - below) / (2 * h), rtol=1e-5, atol=1e-6)
        end = potential.pair_energy_and_slope(first, second, np.array([COULOMB_CUTOFF_A]))
        assert [float(values[0]) for values in end] == [0.0, 0.0]


def test_coulomb_term_is_the_undamped_shifted_force_one() -> None:
    energy, slope = coulomb_energy_and_slope(np.array([2.0]))
    factor = np.exp(-0.04 / 64)
    assert energy[0] == pytest.approx(14.399645 * (0.5 - 0.1 - 0.08) * factor, rel=1e-9)
    assert slope[0] == pytest.approx(14.399645 * (0.01 - 0.25) * factor, rel=1e-2)


def test_forces_and_stress_are_derivatives_of_the_energy() -> None:
    rng = np.random.default_rng(3)
    atoms = random_start({"B": 3, "Li": 2, "O": 9, "Si": 2}, 6.1, rng)
    atoms.calc = ShikCalculator()
    forces = atoms.get_forces()
    for index, axis in ((0, 0), (5, 1), (13, 2)):
        moved = []
        for sign in (1, -1):
            other = atoms.copy()
            other.positions[index, axis] += sign * 1e-4
            other.calc = ShikCalculator()
            moved.append(other.get_potential_energy())
        assert forces[index, axis] == pytest.approx(-(moved[0] - moved[1]) / 2e-4, rel=1e-5, abs=1e-5)
    strained = []
    for sign in (1, -1):
        other: Atoms = atoms.copy()
        other.set_cell(atoms.cell * (1 + sign * 1e-5), scale_atoms=True)
        other.calc = ShikCalculator()
        strained.append(other.get_potential_energy())
    pressure = (strained[0] - strained[1]) / (2e-5 * 3 * atoms.get_volume())
    assert atoms.get_stress()[:3].mean() == pytest.approx(pressure, rel=1e-4)


@pytest.mark.parametrize("length_A", [9.0, 17.0])
def test_lammps_energy_forces_and_virial_equal_the_calculators(tmp_path: Path, length_A: float) -> None:
    rng = np.random.default_rng(11)
    counts = {"B": 12, "Li": 5, "O": 28, "Si": 5}
    atoms = random_start(counts, length_A, rng)
    atoms.positions += rng.normal(0, 0.1, size=(50, 3))
    potential = shik_potential(counts)
    atoms.calc = ShikCalculator()
    write_lammps_data(tmp_path / "cell.data", atoms, TYPES)
    write_lammps_table(tmp_path / "shik.table", potential, TYPES)
    (tmp_path / "one.in").write_text(
        f"""units metal
atom_style atomic
read_data cell.data
{lammps_pair_commands(TYPES, "shik.table", potential.cutoff_A)}
dump f all custom 1 forces.dump id fx fy fz
dump_modify f sort id format float %.12g
run 0
print "$(pe:%.15g) $(pxx:%.15g) $(pyy:%.15g) $(pzz:%.15g) $(pyz:%.15g) $(pxz:%.15g) $(pxy:%.15g)" file out.txt
"""
    )
    run_lammps(tmp_path, "one.in")
    energy, *pressure_bar = np.loadtxt(tmp_path / "out.txt").tolist()
    forces = np.loadtxt(tmp_path / "forces.dump", skiprows=9)[:, 1:]
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-6, abs=1e-4)
    np.testing.assert_allclose(forces, atoms.get_forces(), rtol=1e-4, atol=2e-3)
    np.testing.assert_allclose(-np.array(pressure_bar) * units.bar, atoms.get_stress(), rtol=1e-4, atol=1e-6)
