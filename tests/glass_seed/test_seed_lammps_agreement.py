"""The calculator and the tables written for LAMMPS are one potential, and its Coulomb term is LAMMPS's coul/dsf."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import units

from alloop.glass.composition import TABLE_1
from alloop.glass.force_field import (
    CHARGES_E,
    CUTOFF_A,
    TeterCalculator,
    coulomb_energy_and_slope,
    teter_parameters,
)
from alloop.glass.melt_quench import random_start, run_lammps, write_lammps_data
from alloop.glass.pair_potential import lammps_pair_commands, write_lammps_table

TYPES = {"B": 1, "Li": 2, "O": 3, "Si": 4}


@pytest.mark.parametrize("length_A", [6.5, 8.0, 17.0])
def test_lammps_energy_forces_and_virial_equal_the_calculators(tmp_path: Path, length_A: float) -> None:
    rng = np.random.default_rng(11)
    atoms = random_start({"B": 12, "Li": 5, "O": 28, "Si": 5}, length_A, rng)
    atoms.positions += rng.normal(0, 0.15, size=(50, 3))
    parameters = teter_parameters(TABLE_1["LBS-40-40-20"])
    atoms.calc = TeterCalculator(parameters)
    write_lammps_data(tmp_path / "cell.data", atoms, TYPES)
    write_lammps_table(tmp_path / "teter.table", parameters, TYPES)
    (tmp_path / "one.in").write_text(
        f"""units metal
atom_style atomic
read_data cell.data
{lammps_pair_commands(TYPES, "teter.table", CUTOFF_A)}
thermo_style custom pe pxx pyy pzz pyz pxz pxy
dump f all custom 1 forces.dump id fx fy fz
dump_modify f sort id format float %.12g
run 0
print "$(pe:%.15g) $(pxx:%.15g) $(pyy:%.15g) $(pzz:%.15g) $(pyz:%.15g) $(pxz:%.15g) $(pxy:%.15g)" file out.txt
"""
    )
    run_lammps(tmp_path, "one.in")
    energy, *pressure_bar = np.loadtxt(tmp_path / "out.txt").tolist()
    forces = np.loadtxt(tmp_path / "forces.dump", skiprows=9)[:, 1:]
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-7, abs=1e-6)
    # a distance next to r0, where the third derivative jumps, meets the largest error of the table's spline
    error = np.abs(forces - atoms.get_forces())
    assert error.max() < 1e-3
    assert np.median(error) < 1e-6
    np.testing.assert_allclose(-np.array(pressure_bar) * units.bar, atoms.get_stress(), rtol=1e-5, atol=1e-7)


def test_coulomb_term_is_coul_dsf_without_its_self_energy(tmp_path: Path) -> None:
    distances_A = [0.9, 1.6, 3.3, 6.1, 7.9, 8.5]
    text = """units metal
atom_style charge
atom_modify map yes
region box block 0 30 0 30 0 30
create_box 2 box
create_atoms 1 single 5 5 5
create_atoms 2 single 5 5 6
mass * 1.0
set type 1 charge -1.2
set type 2 charge 2.4
pair_style coul/dsf 0.25 8.0
pair_coeff * *
print "" file out.txt
"""
    for r in distances_A:
        text += f'set type 2 z {5 + r}\nrun 0\nprint "$(pe:%.15g) $(fz[2]:%.15g)" append out.txt\n'
    (tmp_path / "two.in").write_text(text)
    run_lammps(tmp_path, "two.in")
    energy, force = np.loadtxt(tmp_path / "out.txt").T
    own_energy, own_slope = coulomb_energy_and_slope(np.array(distances_A[:-1]))
    product = CHARGES_E["O"] * CHARGES_E["Si"]
    # coul/dsf uses a polynomial for erfc that is good to 1.5e-7
    np.testing.assert_allclose(energy[:-1] - energy[-1], product * own_energy, atol=2e-5)
    np.testing.assert_allclose(force[:-1], -product * own_slope, atol=2e-5)
    assert force[-1] == 0
