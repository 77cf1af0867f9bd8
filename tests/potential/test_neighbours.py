from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list

from alloop.potential.neighbours import adequate_sel, neighbour_counts


@pytest.mark.parametrize("cutoff_A", [3.0, 6.2])
def test_counts_agree_with_ase_neighbour_list_in_a_small_sheared_cell(cutoff_A: float) -> None:
    rng = np.random.default_rng(3)
    cell = 5.0 * np.eye(3) + rng.uniform(-1.5, 1.5, (3, 3))
    atoms = Atoms("Li4O8", cell=cell, pbc=True, positions=rng.uniform(-9, 9, (12, 3)))
    i, j = neighbor_list("ij", atoms, cutoff_A)
    is_oxygen = atoms.numbers[j] == 8
    expected = [np.bincount(i[kind], minlength=12).max() for kind in (~is_oxygen, is_oxygen)]
    assert neighbour_counts(atoms, ("Li", "O"), cutoff_A).tolist() == expected


def test_sel_suffices_for_the_compressed_crystal() -> None:
    salt = bulk("LiF", "rocksalt", a=4.03, cubic=True)
    sel = adequate_sel([salt], ("Li", "F", "O"), 6.0)
    denser = salt.copy()
    denser.set_cell(salt.cell.array * 0.96, scale_atoms=True)
    needed = neighbour_counts(denser, ("Li", "F", "O"), 6.0)
    assert (neighbour_counts(salt, ("Li", "F", "O"), 6.0) < needed).any()
    assert (sel[:2] >= needed[:2]).all() and sel[2] == 4
    assert all(n % 4 == 0 for n in sel)
    with pytest.raises(ValueError, match="no structures"):
        adequate_sel([], ("Li",), 6.0)
