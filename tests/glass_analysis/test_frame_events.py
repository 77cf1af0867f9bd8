from __future__ import annotations

import time

import numpy as np
import pytest
from ase import Atoms

from alloop.glass.events import (
    HARD_GATES_A,
    NEAR_OVERLAP_A,
    frame_events,
    lost,
    near_overlap,
    over_coordinated,
    pair_limits_A,
)
from alloop.glass.neighbours import neighbour_list


def dimer(symbols: str, distance_A: float) -> Atoms:
    """Two atoms that meet across the box, and a third one far from both."""
    positions = [(0.05, 5, 5), (0.05 - distance_A, 5, 5), (5, 0.1, 0.2)]
    atoms = Atoms(f"{symbols}Si", positions=positions, cell=[10, 10, 10], pbc=True)
    atoms.wrap()
    return atoms


def silicon_with(n_oxygen: int, distance_A: float = 1.75) -> Atoms:
    legs = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)])[:n_oxygen]
    return Atoms(["Li", "Si"] + ["O"] * n_oxygen, positions=np.vstack([(4, 4, 4), np.zeros(3), distance_A * legs]))


def test_limits_by_precedence():
    matrix = pair_limits_A(("Li", "B", "O"), {"any": 0.8, "X-Li": 1.2, "O-Li": 1.5, "B-X": 1.3})
    assert matrix.tolist() == [[1.2, 1.3, 1.5], [1.3, 1.3, 1.3], [1.5, 1.3, 0.8]]
    assert pair_limits_A(("Li", "O"), {"B-O": 1.0}).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    "limits", [{"B": 1.0}, {"X-X": 1.0}, {"Q-X": 1.0}, {"B-O": 0.0}, {"any": np.nan}, {"B-O": 1.0, "O-B": 1.1}, {}]
)
def test_refuses_limits_that_are_none(limits):
    with pytest.raises(ValueError, match=r"pair|length|limit"):
        near_overlap(dimer("BO", 2.0), limits)
    with pytest.raises(ValueError, match=r"pair|length|limit"):
        lost(dimer("BO", 2.0), limits)


@pytest.mark.parametrize(
    ("symbols", "gate"), [("BO", 1.0), ("SiO", 1.2), ("OO", 1.7), ("LiO", 1.2), ("LiB", 1.2), ("BB", 0.8), ("BSi", 0.8)]
)
def test_hard_gates(symbols, gate):
    assert lost(dimer(symbols, gate + 0.01)) is None
    reason = lost(dimer(symbols, gate - 0.01))
    assert reason is not None
    assert f"{gate - 0.01:.2f} Å" in reason
    assert f"gate of {gate:.2f} Å" in reason


def test_lost_names_the_worst_pair_and_positions_that_are_not_finite():
    chain = Atoms("BOSiO", positions=[(0, 0, 0), (0.9, 0, 0), (0, 6, 0), (0, 6, 0.5)])
    assert lost(chain) == "Si 2 and O 3 are 0.50 Å apart, closer than the hard gate of 1.20 Å"
    chain.positions[3] = np.inf
    assert lost(chain) == "O 3 has a position that is not finite"


@pytest.mark.parametrize(("symbols", "near"), [("BO", 1.15), ("SiO", 1.30), ("OO", 1.85), ("LiLi", 1.30), ("BB", 1.50)])
def test_near_overlap(symbols, near):
    assert near_overlap(dimer(symbols, near + 0.01)).tolist() == []
    assert near_overlap(dimer(symbols, near - 0.01)).tolist() == [0, 1]
    assert near_overlap(dimer(symbols, 1.0), {"any": 1.1}).tolist() == [0, 1]


def test_thresholds_lie_between_gates_and_bonds():
    elements = ("Li", "B", "O", "Si")
    gates, near = pair_limits_A(elements, HARD_GATES_A), pair_limits_A(elements, NEAR_OVERLAP_A)
    assert (near > gates).all()
    # shortest usual first-neighbour distances of the glasses at room temperature
    for one, other, bond_A in (("Li", "O", 1.95), ("B", "O", 1.36), ("O", "O", 2.38), ("Si", "O", 1.61)):
        assert near[elements.index(one), elements.index(other)] < bond_A - 0.2


def test_over_coordinated():
    assert over_coordinated(silicon_with(4)).tolist() == []
    assert over_coordinated(silicon_with(5)).tolist() == [1]
    assert over_coordinated(silicon_with(6)).tolist() == [1]
    assert over_coordinated(silicon_with(5, 2.05)).tolist() == []
    assert over_coordinated(silicon_with(5, 2.05), cutoff_A=2.1).tolist() == [1]
    assert over_coordinated(silicon_with(3), n_min=3).tolist() == [1]
    assert over_coordinated(silicon_with(5), centre="B").tolist() == []


def test_one_list_answers_everything_and_a_short_one_is_refused():
    atoms = silicon_with(5)
    neighbours = neighbour_list(atoms, 3.0)
    assert near_overlap(neighbours).tolist() == near_overlap(atoms).tolist()
    assert over_coordinated(neighbours).tolist() == [1]
    assert lost(neighbours) is None
    short = neighbour_list(atoms, 1.0)
    for ask in (near_overlap, over_coordinated, lost):
        with pytest.raises(ValueError, match="built for 1 Å"):
            ask(short)


def test_frame_events_is_the_sum_of_its_parts():
    atoms = silicon_with(5)
    atoms += Atoms("BO", positions=[(8, 0, 0), (8, 0.95, 0)])
    events = frame_events(atoms)
    assert events.five_coordinated_Si_atoms.tolist() == [1]
    assert events.overlap_atoms.tolist() == [7, 8]
    assert events.lost_reason == "B 7 and O 8 are 0.95 Å apart, closer than the hard gate of 1.00 Å"
    assert events.min_distance_A == pytest.approx({"B-O": 0.95, "O-O": 1.75 * np.sqrt(2), "Si-O": 1.75})
    calm = frame_events(silicon_with(4))
    assert calm.lost_reason is None
    assert len(calm.overlap_atoms) == len(calm.five_coordinated_Si_atoms) == 0


def test_frame_events_takes_other_limits():
    atoms = silicon_with(5)
    assert frame_events(atoms, gates_A={"any": 1.8}).lost_reason is not None
    assert len(frame_events(atoms, near_overlap_A={"Si-O": 1.8}).overlap_atoms) == 6
    assert len(frame_events(atoms, si_o_cutoff_A=1.7).five_coordinated_Si_atoms) == 0
    assert "Li-O" not in frame_events(atoms).min_distance_A
    assert "Li-O" in frame_events(atoms, reach_A=6.5).min_distance_A


def test_a_broken_frame_is_lost_and_nothing_else():
    atoms = silicon_with(5)
    atoms.positions[1, 2] = np.nan
    events = frame_events(atoms)
    assert events.lost_reason == "Si 1 has a position that is not finite"
    assert events.min_distance_A == {}
    assert len(events.overlap_atoms) == len(events.five_coordinated_Si_atoms) == 0


def test_crystals_at_rest_have_no_events(crystals):
    for name, atoms in crystals.items():
        events = frame_events(atoms)
        assert events.lost_reason is None, name
        assert len(events.overlap_atoms) == len(events.five_coordinated_Si_atoms) == 0, name


def test_fast_enough_to_run_between_md_steps(crystals):
    atoms = crystals["alpha_quartz"] * (3, 3, 1)
    durations_s = []
    for _ in range(20):
        start = time.perf_counter()
        frame_events(atoms)
        durations_s.append(time.perf_counter() - start)
    assert min(durations_s) < 0.02  # about 2 ms on an idle core; the fastest call says least about other work
