"""The presets mean what their names say, on crystals and on stars of atoms, and run fast with all of them."""

from __future__ import annotations

import timeit

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list

from alloop.event_params import definitions
from alloop.glass.coordination import DEFAULT_CUTOFFS_A
from alloop.glass.events import BOND_CUTOFFS_A, HARD_GATES_A, NEAR_OVERLAP_A, ON_BY_DEFAULT, PRESETS
from alloop.select_params import SelectParam
from alloop.selection.events import FrameEvents, Watch
from alloop.selection.pair_lengths import length_matrix_A

ALL = definitions(SelectParam(events={name: {} for name in PRESETS}).events)


def look(atoms: Atoms) -> FrameEvents:
    return Watch(ALL).look(atoms)


def shown(atoms: Atoms) -> dict[str, list[int]]:
    found = look(atoms).offending
    return {name: atoms_.tolist() for name, atoms_ in found.items() if len(atoms_)}


def star(centre: str, ligands: list[str], length_A: float) -> Atoms:
    legs = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1)])[: len(ligands)]
    return Atoms(["Li", centre, *ligands], positions=np.vstack([(6, 6, 6), np.zeros(3), length_A * legs]))


def test_cutoffs_are_those_of_the_analysis():
    assert {f"{former}-O": length for former, length in BOND_CUTOFFS_A.items()}.items() <= DEFAULT_CUTOFFS_A.items()


def test_the_first_two_are_on_by_default():
    assert list(SelectParam().events) == list(ON_BY_DEFAULT) == list(PRESETS)[:2]
    assert {event.quota for event in SelectParam().events.values()} == {5}


@pytest.mark.parametrize(
    ("atoms", "events"),
    [
        (star("Si", ["O"] * 4, 1.75), {}),
        (star("Si", ["O"] * 5, 1.75), {"five_coordinated_Si": [1]}),
        (star("Si", ["O"] * 3, 1.75), {"under_coordinated_Si": [1]}),
        (star("B", ["O"] * 4, 1.4), {}),
        (star("B", ["O"] * 5, 1.4), {"five_coordinated_B": [1]}),
        (star("B", ["O"] * 2, 1.4), {"under_coordinated_B": [1]}),
        (star("O", ["Si", "Si", "Si"], 1.9), {"oxygen_tricluster": [1], "under_coordinated_Si": [2, 3, 4]}),
        (Atoms("BO", positions=[(0, 0, 0), (1.1, 0, 0)]), {"overlap": [0, 1], "under_coordinated_B": [0]}),
    ],
)
def test_presets_on_stars(atoms, events):
    assert shown(atoms) == events


def test_edge_sharing_tetrahedra():
    angle = np.deg2rad(54.75)
    bridge = 1.65 * np.array([(np.cos(angle), np.sin(angle), 0), (np.cos(angle), -np.sin(angle), 0)])
    outer = 1.65 * np.array([(-np.cos(angle), 0, np.sin(angle)), (-np.cos(angle), 0, -np.sin(angle))])
    other = np.array([2 * bridge[0][0], 0, 0])
    positions = np.vstack([np.zeros(3), other, bridge, outer, other - outer])
    assert shown(Atoms("Si2O6", positions=positions)) == {"edge_sharing_tetrahedra": [0, 1, 2, 3]}


def dimer(symbols: str, distance_A: float) -> Atoms:
    """Two atoms that meet across the box, and a third one far from both."""
    positions = [(0.05, 5, 5), (0.05 - distance_A, 5, 5), (5, 0.1, 0.2)]
    atoms = Atoms(f"{symbols}Si", positions=positions, cell=[10, 10, 10], pbc=True)
    atoms.wrap()
    return atoms


@pytest.mark.parametrize(
    ("symbols", "gate"), [("BO", 1.0), ("SiO", 1.2), ("OO", 1.7), ("LiO", 1.2), ("LiB", 1.2), ("BB", 0.8), ("BSi", 0.8)]
)
def test_hard_gates(symbols, gate):
    assert look(dimer(symbols, gate + 0.01)).lost_reason is None
    reason = look(dimer(symbols, gate - 0.01)).lost_reason
    assert reason is not None
    assert f"{gate - 0.01:.2f} Å" in reason
    assert f"gate of {gate:.2f} Å" in reason


@pytest.mark.parametrize(("symbols", "near"), [("BO", 1.15), ("SiO", 1.30), ("OO", 1.85), ("LiLi", 1.30), ("BB", 1.50)])
def test_near_overlap(symbols, near):
    assert look(dimer(symbols, near + 0.01)).offending["overlap"].tolist() == []
    assert look(dimer(symbols, near - 0.01)).offending["overlap"].tolist() == [0, 1]


def test_thresholds_lie_between_gates_and_bonds():
    elements = ("Li", "B", "O", "Si")
    gates, near = length_matrix_A(elements, HARD_GATES_A), length_matrix_A(elements, NEAR_OVERLAP_A)
    assert (near > gates).all()
    # shortest usual first-neighbour distances of the glasses at room temperature
    for one, other, bond_A in (("Li", "O", 1.95), ("B", "O", 1.36), ("O", "O", 2.38), ("Si", "O", 1.61)):
        assert near[elements.index(one), elements.index(other)] < bond_A - 0.2


def test_crystals_at_rest_show_nothing(crystals):
    for name, atoms in crystals.items():
        assert look(atoms).lost_reason is None, name
        known = {"oxygen_tricluster"} if name == "B2O3_II" else set()  # its O of three B is what it is known for
        assert shown(atoms).keys() == known, name


def test_all_presets_are_fast(crystals):
    atoms = crystals["alpha_quartz"] * (4, 4, 2)  # 288 atoms
    watch = Watch(ALL)
    ours, ase = (
        min(timeit.repeat(call, number=1, repeat=20))
        for call in (lambda: watch.look(atoms), lambda: neighbor_list("ijd", atoms, 3.0))
    )
    assert ours < 2 * ase, "an MD step of any potential costs more than one neighbour list"
