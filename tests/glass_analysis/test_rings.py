from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import make_supercell
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.glass.rings import RING_DEFINITIONS, find_boroxol, find_rings, planarity_A, ring_counts

QUARTZ = {"guttman": {"6": 1}, "primitive": {"6": 1, "8": 5}, "king": {"6": 1, "8": 7}}


def per_former(atoms: Atoms, former: str, definition: str, max_ring: int) -> dict[str, float]:
    rings = find_rings(atoms, formers=(former,), definition=definition, max_ring=max_ring)
    n = int((atoms.symbols == former).sum())
    return {size: count / n for size, count in ring_counts(rings).items()}


# Published ring statistics per former of the infinite crystals; B2O3-I has no ring below 10 by any definition.
@pytest.mark.parametrize("repeat", [(1, 1, 1), (2, 2, 2), (3, 1, 2)])
@pytest.mark.parametrize("definition", RING_DEFINITIONS)
def test_reference_crystals_in_any_cell(crystals, definition, repeat):
    assert per_former(crystals["alpha_quartz"] * repeat, "Si", definition, 12) == QUARTZ[definition]
    assert per_former(crystals["B2O3_I"] * repeat, "B", definition, 11) == {"10": 0.5}


@pytest.mark.parametrize("definition", RING_DEFINITIONS)
def test_reference_crystals_in_cells_wide_enough_for_any_counter(crystals, definition):
    assert per_former(crystals["alpha_quartz"] * (6, 6, 5), "Si", definition, 10) == QUARTZ[definition]
    assert per_former(crystals["B2O3_I"] * (7, 7, 3), "B", definition, 11) == {"10": 0.5}


# The same lattice from another corner (determinant 1), strained by shear, and turned: no bond changes.
OTHER_CELLS = [((1, 1, 0), (0, 1, 0), (0, 0, 1)), ((1, 0, 0), (0, 2, 1), (0, 1, 1)), ((2, 0, 1), (0, 1, 0), (1, 0, 1))]


@pytest.mark.parametrize("cell", OTHER_CELLS)
@pytest.mark.parametrize("repeat", [(1, 1, 1), (2, 2, 2), (3, 1, 2)])
def test_sheared_and_rotated_crystals_have_the_same_rings(crystals, cell, repeat):
    for name, former, max_ring in (("alpha_quartz", "Si", 8), ("B2O3_I", "B", 10)):
        atoms = make_supercell(crystals[name], cell) * repeat
        shear = np.eye(3) + 0.02 * np.array([(0, 1, -1), (0, 0, 1), (0, 0, 0)])
        atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
        atoms.rotate(37, (1, 2, 3), rotate_cell=True)
        for definition in RING_DEFINITIONS:
            expected = QUARTZ[definition] if name == "alpha_quartz" else {"10": 0.5}
            assert per_former(atoms, former, definition, max_ring) == expected, (name, definition)


def test_atoms_hundreds_of_cells_apart_are_refused(boron_ring):
    atoms = boron_ring(4)
    atoms.set_cell([12.0] * 3)
    atoms.pbc = True
    atoms.positions[0] += (12.0 * 1000, 0, 0)
    with pytest.raises(ValueError, match="wrap the positions"):
        find_rings(atoms)
    atoms.wrap()
    assert ring_counts(find_rings(atoms)) == {"4": 1}


def test_a_network_larger_than_the_first_room(crystals):
    """The compiled search begins with a small room and starts again with a larger one."""
    cubic = Atoms("BO3", scaled_positions=[(0, 0, 0), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)], cell=[2.8] * 3, pbc=True)
    assert per_former(cubic, "B", "guttman", 16) == {"4": 3}  # a ball of 8 links holds 833 images


def test_primitive_rings_equal_an_independent_counter(crystals):
    matscipy_rings = pytest.importorskip("matscipy.rings")
    borate = crystals["B2O3_I"] * (7, 7, 3)
    boron = borate[borate.symbols == "B"]
    counted = matscipy_rings.ring_statistics(boron, 2.8, maxlength=13)  # B-B links are 2.5 Å; sizes below 13
    mine = ring_counts(find_rings(borate, definition="primitive", max_ring=12))
    assert mine == {str(size): int(n) for size, n in enumerate(counted) if n}
    assert mine["12"] == 1.5 * len(boron)


def test_cristobalite_has_six_rings_only(crystals):
    for definition in RING_DEFINITIONS:
        counts = per_former(crystals["alpha_cristobalite"], "Si", definition, 10)
        assert counts == {"6": 2}, definition  # diamond network: 2 six-rings per node


@pytest.mark.parametrize("repeat", [1, 2, 7])
def test_simple_cubic_network_even_with_one_former_in_the_cell(repeat):
    """Every link of the one-former cell goes to an image of itself. Per node: 3 squares, 4 hexagons around cubes."""
    middle = [(0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)]
    cubic = Atoms("BO3", scaled_positions=[(0, 0, 0), *middle], cell=[2.8] * 3, pbc=True)
    cubic *= (repeat, repeat, repeat)
    assert per_former(cubic, "B", "guttman", 6) == {"4": 3}
    assert per_former(cubic, "B", "primitive", 6) == {"4": 3, "6": 4}
    assert per_former(cubic, "B", "king", 5) == {"4": 3}


def periodic_chain(n: int) -> Atoms:
    """n boron in a straight chain bridged by O that closes through the periodic box only."""
    along = 1.4 * np.arange(2 * n)
    positions = np.column_stack([along, np.zeros(2 * n), np.zeros(2 * n)])
    return Atoms(["B", "O"] * n, positions=positions, cell=[2.8 * n, 12, 12], pbc=True)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
@pytest.mark.parametrize("definition", RING_DEFINITIONS)
def test_a_chain_through_the_box_is_no_ring(n, definition):
    assert find_rings(periodic_chain(n), definition=definition) == []


@pytest.mark.parametrize("n", [3, 4, 7, 12])
@pytest.mark.parametrize("definition", RING_DEFINITIONS)
def test_a_single_ring_is_found_once(boron_ring, n, definition):
    for cell in (None, 40.0):
        atoms = boron_ring(n)
        if cell:
            atoms.set_cell([cell] * 3)
            atoms.pbc = True
            atoms.positions += 39.0  # across the corner of the box
            atoms.wrap()
        (ring,) = find_rings(atoms, definition=definition, max_ring=12)
        assert ring.size == n
        assert sorted(ring.formers) == list(range(n))
        assert sorted(ring.oxygens) == list(range(n, 2 * n))
        brought_together = ring.positions_A(atoms)
        step = np.linalg.norm(brought_together[:n] - brought_together[n:], axis=1)
        np.testing.assert_allclose(step, 1.37, atol=1e-9)
        back = np.linalg.norm(np.roll(brought_together[:n], -1, axis=0) - brought_together[n:], axis=1)
        np.testing.assert_allclose(back, 1.37, atol=1e-9)


def test_max_ring_limits(boron_ring):
    for definition in RING_DEFINITIONS:
        assert find_rings(boron_ring(5), definition=definition, max_ring=4) == []
        assert len(find_rings(boron_ring(5), definition=definition, max_ring=5)) == 1


def test_two_formers_sharing_two_oxygen_are_a_two_ring():
    atoms = Atoms("B2O2", positions=[(0, 0, 0), (2.0, 0, 0), (1, 0.95, 0), (1, -0.95, 0)])
    for definition in RING_DEFINITIONS:
        (ring,) = find_rings(atoms, definition=definition, max_ring=6)
        assert (ring.formers, sorted(ring.oxygens)) == ((0, 1), [2, 3])


def test_a_ring_over_an_edge_sharing_pair_counts_for_each_oxygen(boron_ring):
    ring = boron_ring(4)
    bridge = int(np.argmin(np.linalg.norm(ring.positions[4:8] - ring.positions[:2].mean(axis=0), axis=1))) + 4
    ring.positions[bridge] += (0, 0, 0.5)
    twin = ring.positions[bridge] - (0, 0, 1.0)
    ring += Atoms("O", positions=[twin])
    rings = find_rings(ring, definition="primitive", max_ring=6, cutoffs_A={"B-O": 1.6})
    assert ring_counts(rings) == {"2": 1, "4": 2}
    assert len({ring.formers for ring in rings if ring.size == 4}) == 1
    assert len({frozenset(ring.oxygens) for ring in rings if ring.size == 4}) == 2


@pytest.mark.parametrize("definition", RING_DEFINITIONS)
def test_an_oxygen_tricluster_is_no_ring(definition):
    angle = 2 * np.pi * np.arange(3) / 3
    around = 1.4 * np.column_stack([np.cos(angle), np.sin(angle), np.zeros(3)])
    atoms = Atoms("OB3", positions=np.vstack([np.zeros(3), around]))
    assert find_rings(atoms, definition=definition) == []


def square_of_rings() -> Atoms:
    """Two 4-rings of boron that share a link: the outer 6-cycle has a shortcut."""
    corner = 2.6 * np.array([(x, y, 0) for y in (0, 1) for x in (0, 1, 2)], dtype=float)
    links = [(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)]
    oxygen = [(corner[a] + corner[b]) / 2 for a, b in links]
    return Atoms(["B"] * 6 + ["O"] * 7, positions=np.vstack([corner, oxygen]))


def test_definitions_differ_where_they_should():
    # King takes the way from 0 to 2 past their common neighbour 1, the outer 6-cycle; it has the shortcut 1-4.
    assert ring_counts(find_rings(square_of_rings(), definition="guttman")) == {"4": 2}
    assert ring_counts(find_rings(square_of_rings(), definition="primitive")) == {"4": 2}
    assert ring_counts(find_rings(square_of_rings(), definition="king")) == {"4": 2, "6": 1}


def all_cycles(bonded: np.ndarray, max_ring: int) -> set[tuple[int, ...]]:
    """Every cycle former-oxygen-former-... without repeated atoms, from its lowest former, in one direction."""
    cycles = set()

    def extend(path: list[int]) -> None:
        axis_bonds = bonded[path[-1]] if len(path) % 2 else bonded[:, path[-1]]
        for atom in np.flatnonzero(axis_bonds):
            if len(path) % 2:  # from a former to an oxygen
                if atom not in path[1::2]:
                    extend([*path, int(atom)])
            elif atom == path[0] and len(path) >= 4:
                back = (path[0], *path[:0:-1])
                cycles.add(min(tuple(path), back))
            elif atom > path[0] and atom not in path[::2] and len(path) < 2 * max_ring:
                extend([*path, int(atom)])

    for former in range(len(bonded)):
        extend([former])
    return cycles


def by_definition(bonded: np.ndarray, definition: str, max_ring: int) -> list[int]:
    """Sizes of the rings of a cluster, picked from all its cycles by the words of the definition."""
    cycles = all_cycles(bonded, max_ring)
    if definition == "primitive":
        links = (bonded.astype(int) @ bonded.T.astype(int) > 0) | np.eye(len(bonded), dtype=bool)
        distance = np.where(links, 1, len(bonded))
        np.fill_diagonal(distance, 0)
        for k in range(len(bonded)):
            distance = np.minimum(distance, distance[:, [k]] + distance[[k]])
        keep = set()
        for cycle in cycles:
            around = np.arange(len(cycle) // 2)
            apart = np.abs(around[:, None] - around)
            formers = np.array(cycle[::2])
            if (distance[np.ix_(formers, formers)] >= np.minimum(apart, len(around) - apart)).all():
                keep.add(cycle)
        return sorted(len(cycle) // 2 for cycle in keep)
    parts: dict[tuple, list[tuple[int, ...]]] = {}
    for cycle in cycles:
        n = len(cycle)
        for k in range(0, n, 2):
            if definition == "guttman":  # former, oxygen, former
                part = (cycle[k], cycle[k + 1], cycle[(k + 2) % n])
            else:  # former, oxygen, former, oxygen, former
                part = tuple(cycle[(k + step) % n] for step in range(-2, 3))
            parts.setdefault(min(part, part[::-1]), []).append(cycle)
    shortest = {c for group in parts.values() for c in group if len(c) == min(map(len, group))}
    return sorted(len(cycle) // 2 for cycle in shortest)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 8), st.integers(4, 11), st.floats(1.5, 2.2))
def test_rings_equal_those_picked_from_all_cycles(seed, n_boron, n_oxygen, cutoff):
    """Random clusters have every oddity: triclusters, shared edges, cut vertices, parallel ways."""
    positions = np.random.default_rng(seed).uniform(0, 4.0, (n_boron + n_oxygen, 3))
    atoms = Atoms(["B"] * n_boron + ["O"] * n_oxygen, positions=positions)
    bonded = atoms.get_all_distances()[:n_boron, n_boron:] < cutoff
    for definition in RING_DEFINITIONS:
        rings = find_rings(atoms, definition=definition, max_ring=5, cutoffs_A={"B-O": cutoff})
        assert sorted(ring.size for ring in rings) == by_definition(bonded, definition, 5), definition


def test_formers_are_selectable(boron_ring):
    mixed = boron_ring(4)
    mixed.symbols[0] = "Si"
    assert find_rings(mixed, formers=("B",)) == []
    assert ring_counts(find_rings(mixed, formers=("B", "Si"))) == {"4": 1}
    assert find_rings(mixed, formers=("Si",)) == []


def test_translation_rotation_permutation_wrapping_change_nothing(crystals):
    base = crystals["B2O3_II"] * (2, 1, 2)
    rng = np.random.default_rng(1)
    base.rattle(0.05, seed=2)
    for definition in RING_DEFINITIONS:
        expected = ring_counts(find_rings(base, definition=definition, max_ring=6))
        assert expected
        moved = base.copy()
        moved.positions += (1.7, -33.0, 5.2)
        moved.rotate(37, (1, 2, 3), rotate_cell=True)
        moved.wrap()
        moved = moved[rng.permutation(len(moved))]
        moved.positions += rng.integers(-3, 4, (len(moved), 3)) @ moved.cell.array  # atoms in other images
        assert ring_counts(find_rings(moved, definition=definition, max_ring=6)) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"definition": "strong"}, "not a ring definition; use one of guttman, king, primitive"),
        ({"formers": ()}, "distinct elements"),
        ({"formers": "B"}, "distinct elements"),
        ({"formers": ("B", "B")}, "distinct elements"),
        ({"formers": ("O",)}, "distinct elements"),
        ({"formers": ("Ge",)}, "no Ge-O bond cutoff is known"),
        ({"max_ring": 1}, "2 or more"),
        ({"max_ring": 6.5}, "2 or more"),
    ],
)
def test_refuses_unknown_options(boron_ring, options, message):
    with pytest.raises(ValueError, match=message):
        find_rings(boron_ring(3), **options)


def test_boroxol_ring_is_planar(boron_ring):
    flat = find_boroxol(boron_ring(3))
    assert (len(flat.rings), len(flat.three_rings), flat.fraction_B) == (1, 1, 1.0)
    puckered = find_boroxol(boron_ring(3, pucker_A=0.2))
    assert (len(puckered.rings), len(puckered.three_rings), puckered.fraction_B) == (0, 1, 0.0)
    assert find_boroxol(boron_ring(4)).three_rings == ()
    assert find_boroxol(Atoms("SiO")).fraction_B is None


def test_boroxol_needs_three_coordinated_boron_and_oxygen_of_two_formers(boron_ring):
    ring = boron_ring(3)
    above = ring.positions[0] + (0, 0, 1.45)
    four_coordinated = find_boroxol(ring + Atoms("O", positions=[above]))
    assert (len(four_coordinated.rings), len(four_coordinated.three_rings)) == (0, 1)
    outward = ring.positions[3] * (1 + 1.6 / np.linalg.norm(ring.positions[3]))
    tricluster = find_boroxol(ring + Atoms("Si", positions=[outward]))
    assert (len(tricluster.rings), len(tricluster.three_rings)) == (0, 1)


def test_boroxol_across_the_box_and_fraction(boron_ring):
    ring = boron_ring(3)
    ring.set_cell([12, 13, 14])
    ring.pbc = True
    ring += Atoms("B", positions=[(6, 6.5, 7)])
    ring.wrap()
    found = find_boroxol(ring)
    assert (len(found.rings), found.fraction_B) == (1, 0.75)


def test_planarity_is_the_rms_distance_from_the_plane(boron_ring):
    points = boron_ring(3, pucker_A=0.2).positions[:6]
    assert planarity_A(points) == pytest.approx(0.2)
    assert planarity_A(np.array([points, points - 5])) == pytest.approx([0.2, 0.2])
