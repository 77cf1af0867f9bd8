from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list

from alloop.glass.crystals import CRYSTALS, crystal, perturbed, supercell_near

BOND_CUTOFFS_A = {("B", "O"): 1.9, ("Si", "O"): 2.0, ("Li", "O"): 2.5}
# name: atoms per cell, density (g/cm3), coordination of each cation by oxygen, shortest and longest B-O or Si-O (A)
EXPECTED = {
    "B2O3-I": (15, 2.554, {"B": 3}, (1.357, 1.375)),
    "B2O3-II": (10, 3.010, {"B": 4}, (1.385, 1.527)),
    "Li2O": (12, 1.972, {"Li": 4}, None),
    "Li2Si2O5": (36, 2.466, {"Si": 4, "Li": 4}, (1.562, 1.685)),
    "Li2SiO3": (12, 2.438, {"Si": 4, "Li": 4}, (1.611, 1.703)),
    "LiBSiO4": (7, 2.666, {"B": 4, "Si": 4, "Li": 4}, (1.481, 1.645)),
    "gamma-LiBO2": (8, 2.797, {"B": 4, "Li": 4}, (1.495, 1.495)),
    "alpha-quartz": (9, 2.646, {"Si": 4}, (1.605, 1.614)),  # Levien et al. (1980)
    "alpha-cristobalite": (12, 2.357, {"Si": 4}, (1.600, 1.617)),
}


def density_g_cm3(atoms: Atoms) -> float:
    return atoms.get_masses().sum() * 1.66053907 / atoms.get_volume()


def test_every_crystal_is_checked() -> None:
    assert set(CRYSTALS) == set(EXPECTED)


@pytest.mark.parametrize("name", CRYSTALS)
def test_formula_density_and_coordination(name: str) -> None:
    atoms = crystal(name)
    n_atoms, density, coordination, bonds = EXPECTED[name]
    counts = {element: atoms.get_chemical_symbols().count(element) for element in ("Si", "B", "Li", "O")}
    assert len(atoms) == n_atoms
    assert atoms.pbc.all()
    assert 4 * counts["Si"] + 3 * counts["B"] + counts["Li"] == 2 * counts["O"]
    assert density_g_cm3(atoms) == pytest.approx(density, abs=1.5e-3)
    i, d = neighbor_list("id", atoms, BOND_CUTOFFS_A)
    symbols = np.array(atoms.get_chemical_symbols())
    neighbours = np.bincount(i, minlength=len(atoms))
    for element, number in coordination.items():
        assert (neighbours[symbols == element] == number).all()
    if bonds:
        former = np.isin(symbols[i], ["B", "Si"])
        assert (d[former].min(), d[former].max()) == pytest.approx(bonds, abs=2e-3)


def test_unknown_crystal_is_refused_with_the_names() -> None:
    with pytest.raises(ValueError, match="LiBSiO4"):
        crystal("coesite")


@pytest.mark.parametrize("name", CRYSTALS)
def test_supercells_are_near_the_size_and_compact(name: str) -> None:
    atoms = supercell_near(crystal(name), 90)
    assert abs(len(atoms) - 90) <= 22.5
    heights = 1 / np.linalg.norm(np.linalg.inv(np.asarray(atoms.cell)), axis=0)
    assert heights.min() > 5
    assert density_g_cm3(atoms) == pytest.approx(EXPECTED[name][1], abs=1.5e-3)


def test_a_cell_larger_than_asked_for_stays_one_cell() -> None:
    assert len(supercell_near(crystal("Li2Si2O5"), 5)) == 36


def test_perturbed_copies_strain_and_rattle_as_asked() -> None:
    atoms = supercell_near(crystal("alpha-quartz"), 700)
    before = atoms.copy()
    strained = perturbed(atoms, rattle_A=0.0, max_strain=0.05, rng=np.random.default_rng(0))
    strain = np.linalg.solve(np.asarray(atoms.cell), np.asarray(strained.cell)) - np.eye(3)
    np.testing.assert_allclose(strain, strain.T, atol=1e-12)
    assert 0.005 < np.abs(strain).max() <= 0.05
    assert np.unique(np.round(strain, 12)).size == 6
    np.testing.assert_allclose(
        strained.get_scaled_positions(wrap=False), atoms.get_scaled_positions(wrap=False), atol=1e-10
    )
    rattled = perturbed(atoms, rattle_A=0.1, max_strain=0.0, rng=np.random.default_rng(0))
    assert np.std(rattled.positions - atoms.positions) == pytest.approx(0.1, rel=0.06)
    assert np.array_equal(rattled.cell, atoms.cell)
    again = perturbed(atoms, rattle_A=0.1, max_strain=0.0, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(rattled.positions, again.positions)
    assert atoms == before


@pytest.mark.parametrize(("rattle_A", "max_strain"), [(-0.1, 0.0), (0.1, -0.01), (0.1, 0.5)])
def test_impossible_perturbations_are_refused(rattle_A: float, max_strain: float) -> None:
    with pytest.raises(ValueError, match=r"max_strain between 0 and 0\.3"):
        perturbed(crystal("Li2O"), rattle_A=rattle_A, max_strain=max_strain, rng=np.random.default_rng(0))
