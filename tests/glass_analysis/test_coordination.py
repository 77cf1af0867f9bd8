from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from alloop.glass.coordination import (
    coordination,
    fraction_with,
    min_distances_A,
    oxygen_by_formers,
    qn_species,
    resolve_cutoffs_A,
)
from alloop.glass.neighbours import neighbour_list

CUTOFFS = resolve_cutoffs_A()


@pytest.mark.parametrize(
    ("name", "expected", "oxygen", "qn"),
    [
        ("alpha_quartz", {"Si": {"4": 3}}, {"0": 0, "1": 0, "2": 6, "3": 0}, {"Si": {"4": 3}}),
        ("alpha_cristobalite", {"Si": {"4": 4}}, {"0": 0, "1": 0, "2": 8, "3": 0}, {"Si": {"4": 4}}),
        ("B2O3_I", {"B": {"3": 6}}, {"0": 0, "1": 0, "2": 9, "3": 0}, {"B": {"3": 6}}),
        # BO4 tetrahedra need 3 B per O for two thirds of the O: 4 x 4 = 4 x 3 + 2 x 2
        ("B2O3_II", {"B": {"4": 4}}, {"0": 0, "1": 0, "2": 2, "3": 4}, {"B": {"4": 4}}),
        ("Li2O", {"Li": {"4": 8}}, {"0": 4, "1": 0, "2": 0, "3": 0}, {}),
    ],
)
def test_crystals(crystals, name, expected, oxygen, qn):
    neighbours = neighbour_list(crystals[name], 2.6)
    assert coordination(neighbours, CUTOFFS) == expected
    assert oxygen_by_formers(neighbours, CUTOFFS) == oxygen
    assert qn_species(neighbours, CUTOFFS) == qn


def test_qn_of_a_chain_end_and_of_an_isolated_tetrahedron(crystals):
    quartz = crystals["alpha_quartz"]
    silicon = int(np.flatnonzero(quartz.symbols == "Si")[0])
    near = neighbour_list(quartz, 2.0)
    bonds = near.bonds("Si", "O", 2.0)
    vectors = near.vectors_A[bonds][near.first[bonds] == silicon]
    assert len(vectors) == 4
    tetrahedron = Atoms("SiO4", positions=np.vstack([np.zeros(3), vectors]))
    alone = neighbour_list(tetrahedron, 2.6)
    assert qn_species(alone, CUTOFFS) == {"Si": {"0": 1}}
    assert oxygen_by_formers(alone, CUTOFFS) == {"0": 0, "1": 4, "2": 0, "3": 0}
    # Si2O7: a second tetrahedron, the first one inverted through their common O
    bridge = vectors[0]
    other = 2 * bridge - np.vstack([np.zeros(3), vectors[1:]])
    dimer = neighbour_list(tetrahedron + Atoms("SiO3", positions=other), 2.6)
    assert qn_species(dimer, CUTOFFS) == {"Si": {"1": 2}}
    assert oxygen_by_formers(dimer, CUTOFFS) == {"0": 0, "1": 6, "2": 1, "3": 0}


def test_cutoffs_override_in_any_order_and_extend(crystals):
    assert resolve_cutoffs_A({"O-B": 2.1, "Na-O": 3.0}) == {"B-O": 2.1, "Si-O": 2.0, "Li-O": 2.6, "Na-O": 3.0}
    cutoffs = resolve_cutoffs_A({"O-B": 1.2})
    assert coordination(neighbour_list(crystals["B2O3_I"], 2.6), cutoffs) == {"B": {"0": 6}}


def test_fractions():
    assert fraction_with({"3": 1, "4": 3}, 4) == 0.75
    assert fraction_with({"3": 2}, 4) == 0.0
    assert fraction_with(None, 4) is None


def test_min_distances_of_every_pair_however_far():
    atoms = Atoms("LiSiO2", positions=[(0, 0, 0), (11, 0, 0), (11, 1.6, 0), (11, 0, 4.2)], cell=[30, 30, 30], pbc=True)
    found = min_distances_A(atoms)
    assert list(found) == sorted(found)
    assert found == pytest.approx(
        {
            "Li-Li": 30.0,  # images count
            "Li-Si": 11.0,
            "Li-O": np.hypot(11, 1.6),
            "Si-Si": 30.0,
            "Si-O": 1.6,
            "O-O": np.hypot(1.6, 4.2),
        }
    )
    atoms.pbc = False
    assert set(min_distances_A(atoms)) == {"Li-Si", "Li-O", "Si-O", "O-O"}
