from __future__ import annotations

import json

import ase.io
import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.glass.ring_history import (
    RingAtoms,
    by_temperature,
    event_structures,
    ring_history,
    ring_surroundings,
    structures_of_events,
)

BOX_A = 24.0


def boroxol_at(centre: np.ndarray, *, whole: bool = True, outer: bool = True) -> Atoms:
    """Flat B3O3 of 1.37 Å bonds with an O outside on each B; not whole: the last ring O is 1.5 Å out of the plane."""
    turn = np.pi * np.arange(6) / 3
    ring = 1.37 * np.column_stack([np.cos(turn), np.sin(turn), 0 * turn])
    positions = np.vstack([ring[::2], ring[1::2]])
    if not whole:
        positions[5] += (0, 0, 1.5)
    symbols = "B3O3"
    if outer:
        positions, symbols = np.vstack([positions, 2 * ring[::2]]), "B3O6"
    return Atoms(symbols, positions=positions + centre)


def frame(*whole: bool, extra: Atoms | None = None) -> Atoms:
    """Boroxol rings side by side in a periodic box, the first across its corner; a frame for each pattern of True."""
    atoms = Atoms(cell=[BOX_A] * 3, pbc=True)
    for k, is_whole in enumerate(whole):
        atoms += boroxol_at(np.array([0.0, 0.0, 6.0 * k]), whole=is_whole)
    if extra is not None:
        atoms += extra
    atoms.wrap()
    return atoms


def ring_atoms(k: int = 0) -> RingAtoms:
    return RingAtoms(tuple(range(9 * k, 9 * k + 3)), tuple(range(9 * k + 3, 9 * k + 6)))


def history(*patterns: str, step_ps: float = 0.1, start_K: float = 1000.0, rate_K_ps: float = 10.0, **options):
    """Run of rings with one pattern of "1" (whole) and "0" (broken) each, a character a frame."""
    n = len(patterns[0])
    times = step_ps * np.arange(n)
    frames = (frame(*(pattern[k] == "1" for pattern in patterns)) for k in range(n))
    return ring_history(frames, times_ps=times, temperatures_K=start_K - rate_K_ps * times, **options)


def told(found) -> list[tuple[str, int]]:
    return [(event.kind, event.frame) for event in found.events]


def test_forms_flickers_and_breaks_at_known_frames():
    #          0         1         2         3         4
    #          0123456789012345678901234567890123456789012345
    pattern = "0010000000111110111111011111110010000000000000"
    found = history(pattern)
    assert found.counts == tuple(int(c) for c in pattern)
    assert told(found) == [("formation", 10), ("decomposition", 30)]
    formed, broke = found.events
    assert formed.ring == broke.ring == ring_atoms()
    assert (formed.frame_before, formed.frame, formed.before.frame, formed.after.frame) == (9, 10, 9, 10)
    assert (formed.time_ps, formed.temperature_K) == pytest.approx((1.0, 990.0))
    assert (broke.time_ps, broke.temperature_K) == pytest.approx((3.0, 970.0))
    assert formed.lifetime_ps == broke.lifetime_ps == pytest.approx(2.0)
    assert formed.lifetime_complete and broke.lifetime_complete
    (life,) = found.lives
    assert (life.first_frame, life.end_frame, life.from_start) == (10, 30, False)


def test_persistence_of_zero_counts_every_change():
    found = history("0110100", persistence_ps=0.0)
    assert told(found) == [("formation", 1), ("decomposition", 3), ("formation", 4), ("decomposition", 5)]
    assert [event.lifetime_ps for event in found.events] == pytest.approx([0.2, 0.2, 0.1, 0.1])


def test_frames_a_persistence_apart_are_their_own_windows():
    events = told(history("0101100", step_ps=1.0))
    assert events == [("formation", 1), ("decomposition", 2), ("formation", 3), ("decomposition", 5)]


def test_share_is_of_the_window_and_the_edge_counts():
    eight_of_ten = "0" * 5 + "1110111011" + "1" * 10
    assert told(history(eight_of_ten, share=0.8)) == [("formation", 5)]
    assert told(history(eight_of_ten, share=0.85)) == [("formation", 9)]
    assert told(history(eight_of_ten, share=1.0)) == [("formation", 13)]


def test_a_ring_that_alternates_neither_forms_nor_breaks():
    assert told(history("10" * 30, share=0.51)) == []
    found = history("1" * 12 + "01" * 20, share=0.6)
    assert told(found) == []
    assert [(life.first_frame, life.end_frame, life.from_start) for life in found.lives] == [(0, None, True)]


def test_the_ends_of_the_run():
    """From the start: no formation event. What happens less than a persistence time before the end is undecided."""
    found = history("1" * 15 + "0" * 15)
    assert told(found) == [("decomposition", 15)]
    assert not found.events[0].lifetime_complete
    assert found.events[0].lifetime_ps == pytest.approx(1.5)
    assert told(history("0" * 15 + "1" * 10)) == []  # the window of frame 15 ends after the last frame
    assert told(history("0" * 15 + "1" * 11)) == [("formation", 15)]
    late = history("1" * 15 + "0" * 5)
    assert told(late) == []
    assert late.lives[0].end_frame is None
    assert late.lives[0].lifetime_ps == pytest.approx(1.9)
    short = history("11")
    assert short.lives[0].from_start and told(short) == []


def test_a_ring_may_live_twice():
    found = history("0" * 5 + "1" * 15 + "0" * 15 + "1" * 15)
    assert told(found) == [("formation", 5), ("decomposition", 20), ("formation", 35)]
    assert [life.lifetime_ps for life in found.lives] == pytest.approx([1.5, 1.4])
    assert [event.lifetime_complete for event in found.events] == [True, True, False]


def test_survival_of_the_final_rings():
    found = history("0" * 10 + "1" * 30, "0" * 20 + "1" * 20, "1" * 15 + "0" * 25, "0" * 39 + "1")
    final = found.survival()
    assert final.final_rings == (ring_atoms(0), ring_atoms(1))
    assert final.present == final.formed == (0.0,) * 10 + (0.5,) * 10 + (1.0,) * 20
    last_frame = found.survival(final_ps=0.0)
    assert last_frame.final_rings == (ring_atoms(0), ring_atoms(1), ring_atoms(3))
    assert last_frame.present[-2:] == pytest.approx((2 / 3, 1.0))
    assert last_frame.formed[-1] == pytest.approx(2 / 3)  # the newest has not lasted
    with pytest.raises(ValueError, match="last part"):
        found.survival(final_ps=-1.0)


def test_survival_sees_through_flicker_when_asked_for_formed():
    final = history("0" * 10 + "11111011111111111111").survival()
    assert final.present[15] == 0.0
    assert final.formed == (0.0,) * 10 + (1.0,) * 20


def test_counts_against_temperature():
    found = history("1" * 10 + "0" * 10, "1" * 20, rate_K_ps=100.0)  # 1000, 990, ... 810 K
    bins = found.counts_by_temperature()
    assert bins.temperature_K == tuple(np.arange(810.0, 1001.0, 10.0))
    assert bins.mean == (1.0,) * 10 + (2.0,) * 10
    wide = found.counts_by_temperature(100.0)  # 810-840, 850-940, 950-1000 K
    assert wide.temperature_K == (800.0, 900.0, 1000.0)
    assert wide.n_frames == (4, 10, 6)
    assert wide.mean == pytest.approx((1.0, 1.4, 2.0))  # 6 frames with one ring, 4 with two
    assert wide.std == pytest.approx((0.0, 0.24**0.5, 0.0), abs=1e-12)
    with pytest.raises(ValueError, match="one value per temperature"):
        by_temperature([300.0], [1.0, 2.0])


def test_coordination_lithium_and_links_before_and_after():
    """Boron 1 has a fourth O, with a Li at it, and both leave as the O between boron 0 and 2 closes the ring."""

    def step(closed: bool) -> Atoms:
        above = np.array([-0.685, 1.186, 4.0 if closed else 1.45])
        extra = Atoms("OLi", positions=[above, above + np.array([0.0, 0.0, 1.9])])
        return frame(closed, extra=extra)

    frames = [step(k >= 10) for k in range(25)]
    found = ring_history(frames, times_ps=0.1 * np.arange(25), temperatures_K=[800.0] * 25, lithium_radius_A=3.6)
    (event,) = found.events
    assert event.before.boron_coordination == (2, 4, 2)
    assert event.after.boron_coordination == (3, 3, 3)
    assert event.coordination_changes == {0: (2, 3), 1: (4, 3), 2: (2, 3)}
    assert (event.before.lithium, event.after.lithium) == ((10,), ())
    assert event.lithium_near
    assert (event.before.linked_pairs, event.after.linked_pairs) == (2, 3)


def test_a_four_ring_turns_into_a_three_ring():
    """B4O4 as a square; then its O 3 leaves boron 3 and closes the ring of boron 0, 1 and 2."""
    square = np.array([(1, 1, 0), (-1, 1, 0), (-1, -1, 0), (1, -1, 0)]) * 1.3
    oxygen = (square + np.roll(square, -1, axis=0)) / 2
    four = Atoms("B4O4", positions=np.vstack([square, oxygen]), cell=[BOX_A] * 3, pbc=True)
    three = four.copy()
    three.positions[6] = (0, 0, 1.0)  # oxygen between boron 2 and 3
    three.positions[2] = (-0.6, -0.6, 0.6)
    three.positions[0] = (0.6, 0.6, 0.6)
    three.positions[7] = (6.0, 6.0, 0)
    frames = [four if k < 5 else three for k in range(20)]
    found = ring_history(frames, times_ps=0.1 * np.arange(20), temperatures_K=[900.0] * 20)
    formation = [event for event in found.events if event.kind == "formation"]
    assert [event.ring for event in formation] == [RingAtoms((0, 1, 2), (4, 5, 6))]
    assert formation[0].before.in_four_ring
    assert not formation[0].after.in_four_ring
    assert formation[0].before.linked_pairs == 2


def test_a_four_ring_cut_by_a_bridge_is_none():
    """An O that comes between boron 0 and 2 of a B4O4 square makes two three-rings, and the square has a shortcut."""
    square = np.array([(1, 1, 0), (-1, 1, 0.6), (-1, -1, 0), (1, -1, 0.6)]) * 1.3
    oxygen = (square + np.roll(square, -1, axis=0)) / 2
    positions = [np.vstack([square, oxygen, [(0, 0, z)]]) for z in (9.0, 0.0)]
    frames = [Atoms("B4O5", positions=positions[k >= 5], cell=[BOX_A] * 3, pbc=True) for k in range(20)]
    found = ring_history(frames, times_ps=0.1 * np.arange(20), temperatures_K=[900.0] * 20)
    assert [event.ring.boron for event in found.events] == [(0, 1, 2), (0, 2, 3)]
    assert [(event.before.in_four_ring, event.after.in_four_ring) for event in found.events] == [(True, False)] * 2
    assert found.events[0].coordination_changes == {0: (2, 3), 2: (2, 3)}


PATTERNS = ("0" * 4 + "1" * 22, "1" * 12 + "0" * 14, "0101" * 6 + "00")


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000))
def test_permutation_and_translation_change_names_only(seed):
    rng = np.random.default_rng(seed)
    times = 0.1 * np.arange(26)
    frames = [frame(*(p[k] == "1" for p in PATTERNS)) for k in range(26)]
    order = rng.permutation(len(frames[0]))
    new_index = np.argsort(order)
    moved = []
    for atoms in frames:
        other = atoms[order]
        other.positions += rng.normal(size=3) * 30  # another origin in every frame
        other.wrap()
        moved.append(other)
    one = ring_history(frames, times_ps=times, temperatures_K=times)
    two = ring_history(moved, times_ps=times, temperatures_K=times)

    def renamed(ring: RingAtoms) -> RingAtoms:
        return RingAtoms(*(tuple(sorted(new_index[list(part)].tolist())) for part in (ring.boron, ring.oxygen)))

    assert one.counts == two.counts
    assert [{renamed(ring) for ring in rings} for rings in one.rings] == [set(rings) for rings in two.rings]
    names = sorted((event.kind, event.frame, renamed(event.ring), event.lifetime_ps) for event in one.events)
    assert names == sorted((event.kind, event.frame, event.ring, event.lifetime_ps) for event in two.events)
    assert one.survival().present == two.survival().present


def test_surroundings_are_brought_together_and_written(tmp_path):
    far = Atoms("LiSi", positions=[(23.0, 23.0, 2.0), (12.0, 12.0, 12.0)])
    atoms = frame(True, True, extra=far)
    cut = ring_surroundings(atoms, ring_atoms())
    assert str(cut.symbols) == "B3O6Li"
    assert cut.arrays["atom_id"].tolist() == [*range(9), 18]
    assert cut.arrays["in_ring"].tolist() == [1] * 6 + [0] * 4
    assert not cut.pbc.any()
    assert np.linalg.norm(cut.positions[:6], axis=1) == pytest.approx([1.37] * 6)  # unwrapped, from the centre
    assert cut.positions[9] == pytest.approx([-1.0, -1.0, 2.0])
    ase.io.write(tmp_path / "cut.extxyz", cut)
    back = ase.io.read(tmp_path / "cut.extxyz")
    assert back.arrays["atom_id"].tolist() == cut.arrays["atom_id"].tolist()
    with pytest.raises(ValueError, match="not three B and three O"):
        ring_surroundings(atoms, RingAtoms((0, 1, 3), (4, 5, 6)))
    with pytest.raises(ValueError, match="not three B and three O"):
        ring_surroundings(atoms, RingAtoms((0, 1, 2), (3, 4, 500)))


def test_event_structures_hold_the_same_atoms():
    frames = [frame(k >= 5, extra=Atoms("Li", positions=[(2.0, 2.0, 3.0 if k < 5 else 9.0)])) for k in range(20)]
    (event,) = ring_history(frames, times_ps=0.1 * np.arange(20), temperatures_K=[900.0] * 20).events
    before, after = event_structures(event, frames[event.frame_before], frames[event.frame])
    assert before.arrays["atom_id"].tolist() == after.arrays["atom_id"].tolist() == [*range(10)]
    assert (before.info["side"], after.info["side"]) == ("before", "after")
    assert before.info["kind"] == "formation"
    moved = np.linalg.norm(after.positions - before.positions, axis=1)
    assert moved[9] == pytest.approx(6.0, abs=0.3)
    assert moved[5] == pytest.approx(1.25)  # 1.5 Å less the sixth that the centre moves
    assert moved[:5] == pytest.approx([0.25] * 5)


def test_json():
    found = history("0" * 10 + "1" * 20, "1" * 30)
    plain = json.loads(json.dumps(found.as_dict()))
    assert plain["counts"] == list(found.counts)
    assert plain["survival"]["present"][0] == 0.5
    (event,) = plain["events"]
    assert event["ring"] == {"boron": [0, 1, 2], "oxygen": [3, 4, 5]}
    assert event["before"]["frame"] == 9
    assert plain["counts_by_temperature"]["n_frames"]


def test_a_run_without_boron_or_without_rings():
    silica = Atoms("SiO2", positions=[(0, 0, 0), (1.6, 0, 0), (0, 1.6, 0)], cell=[BOX_A] * 3, pbc=True)
    for atoms in (silica, frame(False)):
        found = ring_history([atoms] * 3, times_ps=[0, 1, 2], temperatures_K=[300] * 3)
        assert found.counts == (0, 0, 0)
        assert found.events == found.lives == ()
        assert found.survival().present == found.survival().final_rings == ()
        json.dumps(found.as_dict())


def test_one_frame_at_a_time_and_nothing_of_it_is_kept():
    import gc
    import weakref

    alive = []

    def frames():
        for k in range(12):
            atoms = frame(k % 2 == 0)
            alive.append(weakref.ref(atoms))
            yield atoms
            del atoms
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 1

    found = ring_history(frames(), times_ps=np.arange(12.0), temperatures_K=np.arange(12.0))
    assert len({id(ring) for rings in found.rings for ring in rings}) == 1  # one object for all frames


def test_refuses_a_run_that_cannot_be_followed():
    one = frame(True)
    with pytest.raises(ValueError, match="no frames"):
        ring_history([], times_ps=[], temperatures_K=[])
    with pytest.raises(ValueError, match="more frames than the 1"):
        ring_history([one, one], times_ps=[0.0], temperatures_K=[300.0])
    with pytest.raises(ValueError, match="1 frames came with 2 times"):
        ring_history([one], times_ps=[0.0, 1.0], temperatures_K=[300.0, 300.0])
    with pytest.raises(ValueError, match="one of each per frame"):
        ring_history([one], times_ps=[0.0], temperatures_K=[300.0, 310.0])
    with pytest.raises(ValueError, match=r"frame 1 is at 0\.0 ps"):
        ring_history([one] * 2, times_ps=[0.0, 0.0], temperatures_K=[300.0] * 2)
    with pytest.raises(ValueError, match=r"frame 0 is at 0\.0 ps and nan K"):
        ring_history([one] * 2, times_ps=[0.0, 1.0], temperatures_K=[np.nan, 300.0])
    with pytest.raises(ValueError, match="atoms of frame 1"):
        ring_history([one, one[::-1]], times_ps=[0.0, 1.0], temperatures_K=[300.0] * 2)
    for options in ({"share": 0.5}, {"share": 1.1}, {"persistence_ps": -1.0}, {"lithium_radius_A": 0.0}):
        with pytest.raises(ValueError, match="a share above"):
            ring_history([one], times_ps=[0.0], temperatures_K=[300.0], **options)


def test_structures_of_events_are_those_of_the_frames_around_them():
    patterns = ("0" * 12 + "1" * 30, "1" * 20 + "0" * 22)
    frames = [frame(*(pattern[k] == "1" for pattern in patterns)) for k in range(42)]
    found = history(*patterns)
    assert told(found) == [("formation", 12), ("decomposition", 20)]
    pairs = list(structures_of_events(found.events, iter(frames), radius_A=2.0))
    assert [event for event, _, _ in pairs] == list(found.events)
    for event, before, after in pairs:
        expected = event_structures(event, frames[event.frame - 1], frames[event.frame], radius_A=2.0)
        assert (before, after) == expected and before != after
    assert list(structures_of_events((), iter(frames))) == []
    with pytest.raises(ValueError, match="the run has no frame 20"):
        list(structures_of_events(found.events, iter(frames[:15])))
