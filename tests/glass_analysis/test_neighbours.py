from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.glass.neighbours import (
    canonical_lengths_A,
    neighbour_list,
    pair_minima_A,
    pair_name,
    parse_pair,
)


def random_frame(seed: int, n: int, flags: tuple[bool, bool, bool]) -> Atoms:
    """Random triclinic cell of 2-6 Å edges, atoms inside and far outside of it."""
    rng = np.random.default_rng(seed)
    while True:
        cell = rng.normal(size=(3, 3))
        cell *= rng.uniform(2.0, 6.0, size=3)[:, None] / np.linalg.norm(cell, axis=1)[:, None]
        if abs(np.linalg.det(cell)) > 6.0:
            break
    return Atoms(
        rng.choice(["Li", "B", "O", "Si"], size=n), positions=rng.uniform(-12, 12, (n, 3)), cell=cell, pbc=flags
    )


def as_set(first, second, shifts) -> set[tuple[int, ...]]:
    return {(int(i), int(j), *map(int, s)) for i, j, s in zip(first, second, shifts, strict=True)}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 12),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.floats(0.5, 7.0),
)
def test_equals_ase_on_small_triclinic_cells(seed, n, flags, cutoff):
    atoms = random_frame(seed, n, flags)
    mine = neighbour_list(atoms, cutoff)
    i, j, d, shifts = primitive_neighbor_list("ijdS", atoms.pbc, atoms.cell.array, atoms.positions, cutoff)
    assert as_set(mine.first, mine.second, mine.shifts) == as_set(i, j, shifts)
    assert len(mine.first) == len(i)
    np.testing.assert_allclose(np.sort(mine.distances_A), np.sort(d), atol=1e-9)


def test_equals_brute_force_over_images():
    cell = [[3.0, 0.2, 0.0], [-1.1, 2.6, 0.0], [0.7, 1.2, 3.4]]
    atoms = Atoms("LiB2O4Si2", positions=np.random.default_rng(5).uniform(-4, 4, (9, 3)), cell=cell, pbc=True)
    cutoff = 5.0
    found = set()
    steps = np.arange(-12, 13)
    shifts = np.array(np.meshgrid(steps, steps, steps, indexing="ij")).reshape(3, -1).T
    for i in range(len(atoms)):
        for j in range(len(atoms)):
            d = np.linalg.norm(atoms.positions[j] + shifts @ atoms.cell.array - atoms.positions[i], axis=1)
            near = (d < cutoff) & ((i != j) | shifts.any(axis=1))
            found |= {(i, j, *map(int, s)) for s in shifts[near]}
    mine = neighbour_list(atoms, cutoff)
    assert as_set(mine.first, mine.second, mine.shifts) == found


def test_vectors_follow_from_shifts_and_pairs_are_mirrored():
    atoms = random_frame(3, 10, (True, True, False))
    mine = neighbour_list(atoms, 4.0)
    vectors = atoms.positions[mine.second] + mine.shifts @ atoms.cell.array - atoms.positions[mine.first]
    np.testing.assert_allclose(mine.vectors_A, vectors, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), mine.distances_A, atol=1e-12)
    half = len(mine.first) // 2
    assert half > 0
    assert (mine.vectors_A[:half] == -mine.vectors_A[half:]).all()


def test_pair_at_the_cutoff_is_in_both_directions_or_in_none():
    for cell in (4.0, 4.1, 3.7):
        atoms = Atoms("O", positions=[(0.1, 0.3, 0.7)], cell=[cell] * 3, pbc=True)
        mine = neighbour_list(atoms, cell)
        assert len(mine.first) in (0, 2, 4, 6)
        assert mine.shifts.sum() == 0
        assert len(neighbour_list(atoms, cell + 1e-6).first) == 6


def test_coincident_atoms_are_a_pair_at_distance_zero():
    atoms = Atoms("BO", positions=[(1, 1, 1), (1, 1, 1)], cell=[9, 9, 9], pbc=True)
    mine = neighbour_list(atoms, 1.0)
    assert mine.distances_A.tolist() == [0.0, 0.0]
    assert sorted(mine.first.tolist()) == [0, 1]


def test_without_a_cell_a_frame_is_a_cluster_even_with_pbc_set():
    atoms = Atoms("O2", positions=[(0, 0, 0), (0, 0, 1.2)], pbc=True)
    assert len(neighbour_list(atoms, 50.0).first) == 2


def test_crystal_shells(crystals):
    li2o = neighbour_list(crystals["Li2O"], 2.2)
    assert len(li2o.bonds("O", "Li", 2.1)) == 4 * 8
    assert len(li2o.bonds("Li", "O", 2.1)) == 8 * 4
    np.testing.assert_allclose(li2o.distances_A, 4.6515 * np.sqrt(3) / 4, rtol=1e-12)
    assert len(li2o.bonds("B", "O", 2.1)) == 0


def test_a_list_does_not_answer_beyond_its_cutoff(crystals):
    with pytest.raises(ValueError, match=r"2\.5 Å was asked .* built for 2\.2"):
        neighbour_list(crystals["Li2O"], 2.2).bonds("O", "Li", 2.5)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.nan, np.inf])
def test_refuses_cutoffs_that_are_no_lengths(cutoff):
    with pytest.raises(ValueError, match="positive number"):
        neighbour_list(Atoms("O"), cutoff)


def test_refuses_broken_frames():
    with pytest.raises(ValueError, match="no atoms"):
        neighbour_list(Atoms(), 2.0)
    with pytest.raises(ValueError, match=r"atom 1 \(Si\).*nan"):
        neighbour_list(Atoms("OSi", positions=[(0, 0, 0), (0, np.nan, 0)]), 2.0)
    with pytest.raises(ValueError, match="one plane"):
        neighbour_list(Atoms("O", cell=[[1, 0, 0], [0, 1, 0], [1, 1, 0]], pbc=True), 2.0)
    with pytest.raises(ValueError, match="not finite"):
        neighbour_list(Atoms("O", cell=[np.inf, 1, 1], pbc=True), 2.0)


def test_pair_names():
    assert pair_name("O", "B") == pair_name("B", "O") == "B-O"
    assert pair_name("Si", "Li") == "Li-Si"
    assert pair_name("O", "O") == "O-O"
    assert parse_pair(" O - Si ") == "Si-O"
    for text in ("BO", "B-", "B-Q", "Li-X", "B-O-B"):
        with pytest.raises(ValueError, match="not a pair of elements"):
            parse_pair(text)


def test_lengths_by_pair():
    assert canonical_lengths_A({"O-B": 2, "Si-Si": 3.1}, "cutoff") == {"B-O": 2.0, "Si-Si": 3.1}
    with pytest.raises(ValueError, match="given twice"):
        canonical_lengths_A({"O-B": 2.0, "B-O": 1.9}, "cutoff")
    for value in (0, -1.0, np.nan, np.inf, "1.9", True):
        with pytest.raises(ValueError, match="positive length"):
            canonical_lengths_A({"B-O": value}, "cutoff")


def test_pair_minima(crystals):
    minima = pair_minima_A(neighbour_list(crystals["alpha_quartz"], 2.8))
    assert set(minima) == {"Si-O", "O-O"}  # Si-Si is 3.06 Å, beyond the list
    assert minima["Si-O"] == pytest.approx(1.605, abs=0.01)
