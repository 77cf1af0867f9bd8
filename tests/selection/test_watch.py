"""Every kind of event on structures made by hand, and all of them against a plain loop."""

from __future__ import annotations

import itertools
import timeit
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.selection.events import CONTACTS_A, KINDS, Watch

BOX_A = 12.0
LEGS = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)])
WIDE_A = {"Si": 2.0, "B": 1.875}


def boxed(symbols: list[str], positions: Any, at: Any = (0.0, 0.0, 0.0)) -> Atoms:
    """Atoms in a periodic cube, around a corner of it if nothing else is said, so that they meet across its faces."""
    places = np.array(positions, dtype=float) + at
    places[places < 0] += BOX_A  # without rounding of lengths like 0.25
    return Atoms(symbols, positions=places, cell=[BOX_A] * 3, pbc=True)


def star(centre: str, ligands: list[str], lengths_A: list[float]) -> Atoms:
    legs = LEGS[: len(ligands)] * np.array(lengths_A)[:, None]
    return boxed([centre, *ligands], [np.zeros(3), *legs])


def seen(atoms: Atoms, settings: dict[str, Any], **more: float) -> list[int]:
    return Watch({"it": settings}).look(atoms, **more).offending["it"].tolist()


# ---------------------------------------------------------------------------------------- pair distance


def near(below_A: dict[str, float], **more: Any) -> dict[str, Any]:
    return {"kind": "pair_distance", "below_A": below_A} | more


def test_partners_too_close_and_those_exactly_there_are_not():
    pair = boxed(["Li", "B", "O"], [(0, 0, 0), (-0.5, 0, 0), (1, 0, 0)])
    assert seen(pair, near({"B-O": 1.5})) == []
    assert seen(pair, near({"B-O": np.nextafter(1.5, 2)})) == [1, 2]
    assert seen(pair, near({"O-B": 1.75})) == [1, 2]
    assert seen(pair, near({"Li-X": 1.0})) == [0, 1]
    assert seen(pair, near({"Li-X": 1.25})) == [0, 1, 2]
    assert seen(pair, near({"any": 0.75})) == [0, 1]
    assert seen(pair, near({"any": 0.5})) == []
    assert seen(pair, near({"any": 2.0, "Li-X": 0.25, "B-O": 0.25})) == [], "named pairs go before any"


def test_partners_too_far_or_not_there():
    far = {"kind": "pair_distance", "above_A": {"Si-O": 2.0}}
    assert seen(star("Si", ["O"], [2.0]), far) == []
    assert seen(star("Si", ["O"], [np.nextafter(2.0, 3)]), far) == [0]
    assert seen(star("Si", ["O", "O"], [2.5, 1.5]), far) == [], "the nearest one counts"
    assert seen(star("Si", ["B"], [1.5]), far) == [], "without oxygen there is none to be near"
    assert seen(star("Si", ["O", "B"], [1.5, 3.5]), {"kind": "pair_distance", "above_A": {"O-Si": 1.0}}) == [1]
    lonely = {"kind": "pair_distance", "above_A": {"any": 2.0}}
    assert seen(star("Si", ["O", "B"], [1.5, 3.5]), lonely) == [2]
    assert seen(Atoms("Li"), lonely) == [], "a single atom has no partner to be far from"
    assert seen(Atoms("Li", cell=[3, 3, 3], pbc=True), lonely) == [0], "but its own image is one"


def test_a_gate_makes_the_frame_lost_and_says_which_pair():
    gate = near({"any": 1.5}, gate_A={"B-O": 1.0, "any": 0.5})
    frame = boxed(["Li", "B", "O"], [(5, 5, 5), (-0.5, 0, 0), (0.25, 0, 0)])
    found = Watch({"overlap": gate, "calm": near({"any": 0.1})}).look(frame)
    assert found.lost_reason == "B 1 and O 2 are 0.75 Å apart, closer than the hard gate of 1.00 Å"
    assert found.seen("overlap") and not found.seen("calm")
    assert found.min_distance_A == {"B-O": 0.75}
    frame.positions[2, 0] = 0.5
    found = Watch({"overlap": gate}).look(frame)
    assert found.lost_reason is None, "what is exactly at the gate is still inside"
    assert found.offending["overlap"].tolist() == [1, 2], "between gate and threshold it is asked for"
    assert Watch({"a": gate, "b": near({}, gate_A={"O-B": 1.25})}).look(frame).lost_reason is not None


def test_gate_names_the_pair_that_is_worst_for_its_gate():
    chain = Atoms("BOSiO", positions=[(0, 0, 0), (0.9, 0, 0), (0, 6, 0), (0, 6, 0.5)])
    gates = near({}, gate_A={"B-O": 1.0, "Si-O": 1.2})
    assert Watch({"g": gates}).look(chain).lost_reason == (
        "Si 2 and O 3 are 0.50 Å apart, closer than the hard gate of 1.20 Å"
    )


# ---------------------------------------------------------------------------------------- coordination


def counted(**bounds: int) -> dict[str, Any]:
    return {"kind": "coordination", "element": "Si", "by": ["O"], "cutoff_A": {"O": 2.0}} | bounds


@pytest.mark.parametrize("n", range(7))
def test_coordination_by_its_bounds(n):
    atoms = star("Si", ["O"] * n, [1.75] * n)
    assert seen(atoms, counted(at_least=5)) == [0] * (n >= 5)
    assert seen(atoms, counted(at_most=3)) == [0] * (n <= 3)
    assert seen(atoms, counted(at_least=2, at_most=4)) == [0] * (2 <= n <= 4)


def test_a_ligand_exactly_at_the_cutoff_is_not_bonded():
    four = [1.75, 1.75, 1.75, 1.75]
    assert seen(star("Si", ["O"] * 5, [*four, 2.0]), counted(at_least=5)) == []
    assert seen(star("Si", ["O"] * 5, [*four, np.nextafter(2.0, 0)]), counted(at_least=5)) == [0]


def test_coordination_by_several_elements_with_a_cutoff_each():
    tricluster = {"kind": "coordination", "element": "O", "by": ["B", "Si"], "cutoff_A": WIDE_A, "at_least": 3}
    assert seen(star("O", ["B", "B", "Si"], [1.5, 1.5, 1.9]), tricluster) == [0]
    assert seen(star("O", ["B", "B", "Si"], [1.5, 1.9, 1.9]), tricluster) == [], "1.9 Å is no B-O bond"
    assert seen(star("O", ["B", "B", "Li"], [1.5, 1.5, 1.5]), tricluster) == []


# ---------------------------------------------------------------------------------------- edge sharing, rings

EDGES: dict[str, Any] = {"kind": "edge_sharing", "formers": ["B", "Si"], "by": "O", "cutoff_A": WIDE_A}


def test_two_formers_that_share_one_two_or_three_oxygen_atoms():
    bridge = [(1.25, 1, 0), (1.25, -1, 0), (1.25, 0, 1)]
    for n in (1, 2, 3):
        atoms = boxed(["Li", "Si", "B", *["O"] * n], [(5, 5, 5), (0, 0, 0), (2.5, 0, 0), *bridge[:n]], at=(-1, 0, 0))
        assert seen(atoms, EDGES) == ([1, 2, *range(3, 3 + n)] if n > 1 else [])
        assert seen(atoms, EDGES | {"formers": ["Si"]}) == []
    apart = boxed(["Si", "B", "O", "O"], [(0, 0, 0), (3.75, 0, 0), (1.875, 0.25, 0), (1.875, -0.25, 0)])
    assert seen(apart, EDGES) == [], "1.89 Å is no B-O bond"


def test_no_shared_edge_where_the_two_bridges_lead_to_different_images():
    small = Atoms("SiBOO", positions=[(0, 0, 0), (3, 0, 0), (1.5, 0, 0), (4.5, 0, 0)], cell=[6, 6, 6], pbc=True)
    assert seen(small, EDGES) == []
    assert seen(small, EDGES | {"cutoff_A": {"B": 3.5, "Si": 3.5}}) == [], "a chain, whatever the cutoff below 4.5"
    folded = Atoms("SiOO", positions=[(0, 0, 0), (1.5, 1, 0), (1.5, -1, 0)], cell=[3, 6, 6], pbc=True)
    assert seen(folded, EDGES) == [0, 1, 2], "two bridges to one image of itself are an edge"


def test_rings_of_one_size():
    angle = np.pi * np.arange(6) / 3
    circle = 1.37 * np.column_stack([np.cos(angle), np.sin(angle), np.zeros(6)])  # bonds as long as its radius
    three = boxed(["Li", *["B", "O"] * 3], [(5, 5, 5), *circle])
    ring = {"kind": "ring", "formers": ["B"], "size": 3, "definition": "primitive", "cutoff_A": {"B": 1.9}}
    assert seen(three, ring) == [1, 2, 3, 4, 5, 6]
    assert seen(three, ring | {"size": 4}) == []
    assert seen(three, ring | {"formers": ["Si"], "cutoff_A": {"Si": 1.9}}) == []
    assert seen(three, ring | {"cutoff_A": {"B": 1.0}}) == []
    broken = three.copy()
    del broken[6]
    assert seen(broken, ring) == []


# ---------------------------------------------------------------------------------------- density, temperature


def test_density_out_of_bounds():
    water = Atoms("OHH", positions=np.eye(3), cell=[3.1043] * 3, pbc=True)  # 1.000 g/cm3
    assert seen(water, {"kind": "density", "lowest_g_cm3": 0.99, "highest_g_cm3": 1.01}) == []
    assert seen(water, {"kind": "density", "lowest_g_cm3": 1.01}) == [0, 1, 2]
    assert seen(water, {"kind": "density", "highest_g_cm3": 0.99}) == [0, 1, 2]
    assert seen(water, {"kind": "density", "highest_g_cm3": 9.0}) == [], "far below the only bound is no event"
    assert seen(water, {"kind": "density", "lowest_g_cm3": 0.1}) == [], "nor is far above"
    assert seen(Atoms("OHH"), {"kind": "density", "lowest_g_cm3": 1.01}) == [], "a cluster has no density"
    wider = water.copy()
    wider.set_cell(water.cell * 1.1 ** (1 / 3))  # a density of 1 / 1.1
    excursion = {"kind": "density", "relative_excursion": 0.1}
    assert Watch({"d": excursion}, start=water).look(wider).offending["d"].tolist() == []
    assert Watch({"d": excursion | {"relative_excursion": 0.09}}, start=water).look(wider).seen("d")
    assert not Watch({"d": excursion}).look(wider).seen("d"), "nothing to compare with"


def test_temperature_far_from_its_target():
    frame = Atoms("OO", positions=[(0, 0, 0), (0, 0, 2)])
    excursion = {"kind": "temperature", "excursion_K": 200.0}
    for temperature_K, expected in ((1800, []), (2200, []), (2200.5, [0, 1]), (1799, [0, 1])):
        assert seen(frame, excursion, temperature_K=temperature_K, target_temperature_K=2000.0) == expected
    assert seen(frame, excursion, temperature_K=float("nan"), target_temperature_K=2000.0) == [0, 1]
    assert seen(frame, excursion) == [], "no thermostat, no target"


# ---------------------------------------------------------------------------------------- all of them

ALL: dict[str, dict[str, Any]] = {
    "pairs": near({"B-O": 1.3, "Li-X": 1.0, "any": 0.8}, above_A={"Si-O": 2.2, "Li-X": 1.6}, gate_A={"any": 0.4}),
    "many": counted(at_least=3),
    "few": {"kind": "coordination", "element": "O", "by": ["Si", "B"], "cutoff_A": WIDE_A, "at_most": 1},
    "edges": EDGES,
    "ring": {"kind": "ring", "formers": ["Si", "B"], "size": 3, "definition": "primitive", "cutoff_A": WIDE_A},
    "density": {"kind": "density", "lowest_g_cm3": 1.0, "highest_g_cm3": 6.0},
    "hot": {"kind": "temperature", "excursion_K": 100.0},
}


def random_frame(seed: int, n: int, periodic: bool = True) -> Atoms:
    """Atoms anywhere, also outside a skew cell of 2 to 5 Å, less than the longest cutoffs."""
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(2, 5, 3)) + np.tril(rng.uniform(-1, 1, (3, 3)), -1)
    symbols = rng.choice(["Si", "B", "O", "O", "Li"], n)
    return Atoms(symbols, positions=rng.uniform(-1, 2, (n, 3)) @ cell, cell=cell, pbc=periodic)


def brute_force(atoms: Atoms) -> dict[str, list[int]]:
    """The events of `ALL` but for rings, density and temperature, atom by atom and image by image."""
    symbols = atoms.get_chemical_symbols()
    shifts = list(itertools.product(range(-9, 10), repeat=3)) if atoms.pbc.any() else [(0, 0, 0)]
    met: list[tuple[int, int, tuple[int, ...], float]] = []
    for i, j in itertools.product(range(len(atoms)), repeat=2):
        vectors = atoms.positions[j] + np.array(shifts) @ atoms.cell.array - atoms.positions[i]
        lengths = np.sqrt((vectors**2).sum(axis=1))
        met += [(i, j, shifts[k], lengths[k]) for k in np.flatnonzero(lengths < 3) if i != j or any(shifts[k])]
    pairs, bonded = set(), {i: set() for i in range(len(atoms))}
    for i, j, shift, length in met:
        two = {symbols[i], symbols[j]}
        limit = 1.3 if two == {"B", "O"} else 1.0 if "Li" in two else 0.8
        if length < limit:
            pairs.add(i)
        if symbols[i] in WIDE_A and symbols[j] == "O" and length < WIDE_A[symbols[i]]:
            bonded[i].add((j, *shift))
    for i, symbol in enumerate(symbols):
        of_i = [(symbols[j], length) for k, j, _, length in met if k == i]
        can = "O" in symbols if symbol == "Si" else symbol == "Li" and (len(atoms) > 1 or atoms.pbc.any())
        limit = 2.2 if symbol == "Si" else 1.6
        if can and not any(length <= limit for other, length in of_i if symbol == "Li" or other == "O"):
            pairs.add(i)
    formers = [sum(j == o for of in bonded.values() for j, *_ in of) for o in range(len(atoms))]
    edges = set()
    for one, other in itertools.product(range(len(atoms)), repeat=2):
        steps = {tuple(np.subtract(s, t)) for j, *s in bonded[one] for k, *t in bonded[other] if j == k}
        for step in steps - ({(0, 0, 0)} if one == other else set()):
            shared = bonded[one] & {(j, *np.add(t, step)) for j, *t in bonded[other]}
            if len(shared) >= 2:
                edges |= {one, other} | {j for j, *_ in shared}
    return {
        "pairs": sorted(pairs),
        "many": [i for i, symbol in enumerate(symbols) if symbol == "Si" and len(bonded[i]) >= 3],
        "few": [i for i, symbol in enumerate(symbols) if symbol == "O" and formers[i] <= 1],
        "edges": sorted(edges),
    }


def all_seen(atoms: Atoms) -> dict[str, list[int]]:
    found = Watch(ALL).look(atoms, temperature_K=900.0, target_temperature_K=1200.0)
    return {name: indices.tolist() for name, indices in found.offending.items()}


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 7), st.booleans())
def test_a_plain_loop_sees_the_same(seed, n, periodic):
    atoms = random_frame(seed, n, periodic)
    found = all_seen(atoms)
    for name, expected in brute_force(atoms).items():
        assert found[name] == expected, name


def test_the_random_frames_show_everything():
    found = [all_seen(random_frame(seed, 7)) for seed in range(60)]
    for name in ALL:
        assert any(one[name] for one in found), name
        assert name == "hot" or not all(one[name] for one in found), name


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 12))
def test_it_does_not_matter_how_the_frame_is_written(seed, n):
    atoms, rng = random_frame(seed, n), np.random.default_rng(seed)
    expected = all_seen(atoms)
    wrapped = atoms.copy()
    wrapped.wrap()
    moved = atoms.copy()
    moved.positions += rng.uniform(-5, 5, 3)
    turned = atoms.copy()
    turned.rotate(rng.uniform(0, 360), rng.normal(size=3), rotate_cell=True)
    for other in (wrapped, moved, turned):
        assert all_seen(other) == expected
    order = rng.permutation(n)
    place = np.argsort(order)
    shuffled = {name: sorted(place[indices].tolist()) for name, indices in expected.items()}
    assert all_seen(atoms[order]) == shuffled


def test_declared_events_do_not_change_the_nearest_distances():
    atoms = random_frame(3, 9)
    plain = Watch({}).look(atoms)
    assert Watch(ALL | {"far": {"kind": "pair_distance", "above_A": {"B-O": 4.5}}}).look(atoms).min_distance_A == (
        plain.min_distance_A
    )
    assert plain.min_distance_A and max(plain.min_distance_A.values()) < CONTACTS_A
    assert plain.offending == {} and plain.lost_reason is None


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_broken_frame_is_lost_and_nothing_else(broken):
    atoms = star("Si", ["O"] * 5, [1.0] * 5)
    atoms.positions[3, 2] = broken
    found = Watch(ALL).look(atoms)
    assert found.lost_reason == "O 3 has a position that is not finite"
    assert found.min_distance_A == {} and not any(found.seen(name) for name in ALL)
    atoms = star("Si", ["O"] * 5, [1.0] * 5)
    atoms.cell[0, 0] = broken
    assert Watch(ALL).look(atoms).lost_reason == "the cell holds numbers that are not finite"


def test_a_frame_without_atoms_is_refused():
    with pytest.raises(ValueError, match="holds no atoms"):
        Watch(ALL).look(Atoms(cell=[5, 5, 5], pbc=True))


def test_atoms_on_top_of_each_other():
    found = Watch(ALL).look(Atoms("SiO", positions=np.zeros((2, 3)), cell=[9, 9, 9], pbc=True))
    assert found.offending["pairs"].tolist() == [0, 1]
    assert "0.00 Å apart" in str(found.lost_reason)


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"kind": "colour"}, "'e' is of kind 'colour'; use one of pair_distance"),
        ({}, "of kind None"),
        ({"kind": "temperature"}, "'e' of kind temperature lacks 'excursion_K'"),
        ({"kind": "temperature", "excursion_K": 3, "quota": 2}, "has no quota; it takes excursion_K"),
        (near({"B": 1.0}), "'B' is no pair"),
        (near({"B-O": 1.0, "O-B": 2.0}), "a pair is given twice"),
        (near({}), "no below_A, above_A or gate_A"),
        ({"kind": "coordination", "element": "Si", "by": ["O"], "cutoff_A": {}, "at_least": 5}, "lacks 'O'"),
    ],
)
def test_definitions_that_cannot_be_meant(settings_, words):
    with pytest.raises(ValueError, match=words):
        Watch({"e": settings_})


def test_every_kind_was_tested_above():
    assert {definition["kind"] for definition in ALL.values()} == set(KINDS)


def test_fast_enough_to_run_between_md_steps():
    rng = np.random.default_rng(0)
    grid = np.array(list(itertools.product(range(7), range(7), range(6)))) * 2.2
    symbols = rng.choice(["Si", "B", "O", "O", "O", "Li"], len(grid))
    atoms = Atoms(symbols, positions=grid + rng.normal(0, 0.1, grid.shape), cell=[15.4, 15.4, 13.2], pbc=True)
    watch = Watch({name: settings for name, settings in ALL.items() if name != "ring"})
    ours, ase = (
        min(timeit.repeat(call, number=1, repeat=20))
        for call in (lambda: watch.look(atoms), lambda: neighbor_list("ijd", atoms, max(WIDE_A.values()) + 1.0))
    )
    assert ours < 2 * ase, "an MD step of any potential costs more than one neighbour list"
