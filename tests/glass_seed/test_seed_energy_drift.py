"""Total energy of a borosilicate melt at constant volume in LAMMPS, with each force field as it is written for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alloop.glass.bmp import BmpPotential, bmp_potential
from alloop.glass.composition import TABLE_1, cell_length_A, stoichiometric_counts
from alloop.glass.force_field import teter_parameters
from alloop.glass.melt_quench import random_start, run_lammps, write_lammps_data
from alloop.glass.pair_potential import PairPotential, write_lammps_potential
from alloop.glass.shik import shik_potential

GLASS = TABLE_1["LBS-20-60-20"]
COUNTS = stoichiometric_counts(GLASS, 84)
INPUT = """units metal
atom_style atomic
read_data start.data
neighbor 1.0 bin
neigh_modify delay 0 every 1 check yes
timestep 0.0005
pair_style soft 2.0
pair_coeff * * 20.0
minimize 1.0e-6 1.0e-6 200 2000
{commands}
minimize 1.0e-6 1.0e-4 500 5000
velocity all create 2000 4711 mom yes dist gaussian
fix capped all nve/limit 0.05
fix heat all langevin 2000 2000 0.1 815
run 1000
unfix heat
unfix capped
velocity all zero linear
fix nve all nve
run 200
variable step equal step
variable total equal etotal
fix log all print 20 "${{step}} ${{total}}" file energy.txt screen no
run {steps}
"""


def drift_eV_per_atom_ps(potential: PairPotential, directory: Path, ps: float) -> tuple[float, float]:
    """Slope of the total energy at 2000 K and its largest departure from the straight line (eV/atom)."""
    types = {element: number for number, element in enumerate(sorted(COUNTS), start=1)}
    start = random_start(COUNTS, cell_length_A(COUNTS, GLASS.density_g_cm3), np.random.default_rng(2))
    write_lammps_data(directory / "start.data", start, types)
    commands = write_lammps_potential(directory, potential, types)
    (directory / "nve.in").write_text(INPUT.format(commands=commands, steps=round(ps * 2000)))
    run_lammps(directory, "nve.in")
    step, total = np.loadtxt(directory / "energy.txt").T
    time_ps, per_atom = (step - step[0]) * 0.0005, total / len(start)
    line = np.polyfit(time_ps, per_atom, 1)
    return float(line[0]), float(np.abs(per_atom - np.polyval(line, time_ps)).max())


@pytest.mark.parametrize("name", ["Teter", "SHIK"])
def test_energy_is_conserved(tmp_path: Path, name: str) -> None:
    potential = teter_parameters(GLASS) if name == "Teter" else shik_potential(COUNTS)
    slope, wobble = drift_eV_per_atom_ps(potential, tmp_path, 2.0)
    # measured, time step 0.5 fs: 3e-6 (Teter) and -1e-6 eV/atom/ps (SHIK), wobble 1e-4 eV/atom
    assert abs(slope) < 3e-5
    assert wobble < 5e-4


def test_broken_off_three_body_term_of_bmp_heats_and_its_pairs_do_not(tmp_path: Path) -> None:
    published = bmp_potential(GLASS)
    slopes = {}
    for cutoff_A in (0.0, published.three_body_cutoff_A):
        folder = tmp_path / f"{cutoff_A}"
        folder.mkdir()
        potential = BmpPotential(published.d_bo_eV, cutoff_A)
        slopes[cutoff_A], _ = drift_eV_per_atom_ps(potential, folder, 1.0)
    # measured over 2 ps: -7e-8 without the term, so the pairs conserve energy; 0.19 as published
    assert abs(slopes[0.0]) < 3e-5
    assert 0.05 < slopes[3.30] < 0.5
