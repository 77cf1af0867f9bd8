from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from alloop.selection.diversity import Environments, Known, Scale, extended, farthest_points, least_distances
from alloop.selection.frontier import select_farthest

OXYGEN, SI = 8, 14


def environments(vectors: np.ndarray, element: int = SI) -> Environments:
    return Environments(np.full(len(vectors), element, dtype=np.int16), np.asarray(vectors, dtype=np.float32))


def drawn(count: int, seed: int, width: int = 8, element: int = SI) -> Environments:
    return environments(np.random.default_rng(seed).normal(size=(count, width)), element)


def plain(width: int) -> Scale:
    """Distances are those of the vectors themselves."""
    spreads = np.full((3, width), width**-0.5, dtype=np.float32)
    return Scale(np.array([OXYGEN, SI], dtype=np.int16), np.zeros((3, width), dtype=np.float32), spreads)


# ---------------------------------------------------------------------------------------- the scale


def test_two_of_the_reference_are_the_root_of_two_apart() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(2000, 32)) * np.geomspace(0.1, 10, 32) + 7
    points = Scale.fit(environments(vectors)).apply(environments(vectors))
    distances = np.linalg.norm(points[:1000] - points[1000:], axis=1)
    assert np.sqrt(np.square(distances).mean()) == pytest.approx(2**0.5, rel=0.03)


def test_reference_in_any_order_gives_the_same_scale_up_to_rounding() -> None:
    reference = Environments.together([drawn(50, 1), drawn(40, 2, element=OXYGEN)])
    shuffled = reference[np.random.default_rng(3).permutation(90)]
    one, other = Scale.fit(reference), Scale.fit(shuffled)
    np.testing.assert_allclose(one.means, other.means, atol=1e-7)
    np.testing.assert_allclose(one.spreads, other.spreads, rtol=1e-6)


def test_what_does_not_vary_in_the_reference_is_no_novelty_but_for_its_rounding() -> None:
    vectors = np.random.default_rng(1).normal(size=(100, 4))
    vectors[:, 3] = 5.0
    spreads = Scale.fit(environments(vectors)).spreads[0]
    assert 0.005 < spreads[3] < 0.02 and (spreads[:3] > 0.5).all()


def test_element_missing_from_the_reference_is_measured_by_the_others() -> None:
    scale = Scale.fit(Environments.together([drawn(100, 1), environments(np.ones((3, 8)), element=5)]))
    np.testing.assert_array_equal(scale.spreads[0], scale.spreads[1])  # all of element 5 are equal
    np.testing.assert_array_equal(scale.spreads[2], scale.spreads[1])  # any other element
    far = scale.apply(environments(2 * np.ones((1, 8)), element=OXYGEN))
    assert np.linalg.norm(far) == pytest.approx(2.0, rel=0.3)
    empty = Scale.fit(drawn(0, 1))
    np.testing.assert_array_equal(empty.spreads, np.ones((1, 8)))


def test_reference_that_is_not_a_number_is_passed_over() -> None:
    vectors = np.random.default_rng(1).normal(size=(100, 4))
    broken = vectors.copy()
    broken[7, 2] = np.nan
    expected = Scale.fit(environments(np.delete(vectors, 7, axis=0)))
    np.testing.assert_array_equal(Scale.fit(environments(broken)).spreads, expected.spreads)


# ---------------------------------------------------------------------------------------- distances


@pytest.mark.parametrize("count", [1, 7, 3000])
def test_least_distances_are_those_of_all_pairs(count: int) -> None:
    rng = np.random.default_rng(count)
    queries, points = rng.normal(size=(300, 5)).astype(np.float32), rng.normal(size=(count, 5))
    found = least_distances(queries, extended(points))
    np.testing.assert_allclose(found, cdist(queries, points).min(axis=1), rtol=1e-9, atol=1e-7)
    np.testing.assert_array_less(least_distances(points.astype(np.float32), extended(points.astype(np.float32))), 1e-6)


def test_nothing_known_is_infinitely_far() -> None:
    assert np.isinf(least_distances(np.ones((2, 3)), np.zeros((0, 4)))).all()
    known = Known(plain(8))
    known.cover(drawn(5, 1, element=OXYGEN))
    assert np.isinf(known.novelty(drawn(2, 2))).all(), "elements are never compared with one another"
    assert np.isfinite(known.novelty(drawn(2, 2, element=OXYGEN))).all()


def test_what_is_not_a_number_is_neither_known_nor_new() -> None:
    known = Known(plain(3))
    known.cover(environments(np.array([[np.nan, 0, 0], [1.0, 0, 0]])))
    known.add(environments(np.array([[0, np.inf, 0]])))
    found = known.novelty(environments(np.array([[0, 0, 0], [np.nan, 0, 0], [0, -np.inf, 0]])))
    np.testing.assert_allclose(found, [1.0, np.nan, np.nan], rtol=1e-6)


# ---------------------------------------------------------------------------------------- thinning


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 9))
def test_farthest_points_are_chosen_greedily_and_cover_the_rest(count: int, wanted: int, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(count, 3))
    chosen, radius = farthest_points(points, wanted)
    assert len(set(chosen.tolist())) == min(count, wanted)
    assert chosen[0] == np.argmax(np.linalg.norm(points, axis=1))
    pairs = cdist(points, points)
    for number in range(1, len(chosen)):
        least = pairs[:, chosen[:number]].min(axis=1)
        assert least[chosen[number]] == pytest.approx(least.max(), abs=1e-7)
    assert pairs[:, chosen].min(axis=1).max() == pytest.approx(radius, abs=1e-6)


def test_equal_points_are_chosen_once_and_none_of_none() -> None:
    chosen, radius = farthest_points(np.array([[1.0, 0], [3.0, 0], [1.0, 0], [3.0, 0]]), 4)
    assert (chosen.tolist(), radius) == ([1, 0], 0.0)
    assert farthest_points(np.zeros((0, 2)), 3)[0].size == 0


def test_training_data_up_to_the_capacity_are_known_exactly_and_more_to_the_radius() -> None:
    few, many = drawn(50, 1), drawn(3000, 2)
    known = Known(plain(8), capacity=100)
    known.cover(few)
    assert known.radius(SI) == 0 and known.novelty(few).max() < 1e-6
    for start in range(0, 3000, 250):
        known.cover(many[np.arange(start, start + 250)])
    assert len(known.arrays()["points"]) <= 100
    everything = Environments.together([few, many])
    assert known.novelty(everything).max() < 3 * known.radius(SI)
    outside = environments(np.full((1, 8), 30.0))
    assert known.novelty(outside)[0] > 10 * known.radius(SI)


def test_order_within_training_data_does_not_matter() -> None:
    many, queries = drawn(500, 1), drawn(50, 2)
    one, other = Known(plain(8), capacity=64), Known(plain(8), capacity=64)
    one.cover(many)
    other.cover(many[np.random.default_rng(3).permutation(500)])
    np.testing.assert_array_equal(one.novelty(queries), other.novelty(queries))


def test_known_is_read_back_as_it_was_written() -> None:
    known = Known(Scale.fit(drawn(100, 1)), capacity=64)
    known.cover(Environments.together([drawn(500, 1), drawn(20, 2, element=OXYGEN)]))
    again = Known.from_arrays(known.arrays())
    queries = Environments.together([drawn(30, 5), drawn(30, 6, element=OXYGEN), drawn(2, 7, element=5)])
    np.testing.assert_allclose(again.novelty(queries), known.novelty(queries), atol=1e-6)
    assert again.radius(SI) == known.radius(SI) > 0
    empty = Known.from_arrays(Known(plain(8)).arrays())
    assert np.isinf(empty.novelty(queries)).all()


def test_what_was_added_can_be_taken_back() -> None:
    known = Known(plain(3))
    known.cover(environments(np.zeros((1, 3))))
    known.add(environments(np.array([[1.0, 0, 0]])))
    mark, queries = known.mark(), environments(np.array([[5.0, 0, 0]]))
    known.add(environments(np.array([[4.0, 0, 0]])))
    known.add(environments(np.array([[4.0, 0, 0]]), element=OXYGEN))
    assert known.novelty(queries)[0] == pytest.approx(1.0)
    known.cut(mark)
    assert known.novelty(queries)[0] == pytest.approx(4.0)


# ---------------------------------------------------------------------------------------- farthest first

numbers = st.integers(-4, 4)
frames_of_atoms = st.lists(st.lists(st.tuples(numbers, numbers), max_size=3), max_size=12)


def shown(atoms: list[tuple[int, int]]) -> Environments:
    return environments(np.array(atoms, dtype=float).reshape(-1, 2))


@settings(max_examples=200, deadline=None)
@given(frames_of_atoms, st.lists(st.tuples(numbers, numbers), max_size=4), st.integers(0, 8))
def test_each_choice_is_the_newest_frame_by_its_newest_atom(
    frames: list[list[tuple[int, int]]], training: list[tuple[int, int]], count: int
) -> None:
    known = Known(plain(2))
    known.cover(shown(training))
    chosen = select_farthest([shown(atoms) for atoms in frames], known, count)
    taken: list[tuple[int, int]] = list(training)

    def novelty(atoms: list[tuple[int, int]]) -> float:
        if not atoms:
            return 0.0
        return float(cdist(atoms, taken).min(axis=1).max()) if taken else np.inf

    for index in chosen:
        newest = max(novelty(atoms) for atoms in frames)
        assert novelty(frames[index]) == pytest.approx(newest) and newest > 0
        taken += frames[index]
    if len(chosen) < count:
        assert max((novelty(atoms) for atoms in frames), default=0.0) == 0.0, "only duplicates are left out"


def test_duplicate_of_a_training_frame_is_never_picked_however_large() -> None:
    """Largest of all as a vector, and equal to what was trained on: it teaches nothing."""
    rng = np.random.default_rng(1)
    pool = [environments(rng.normal(size=(2, 8))) for _ in range(20)]
    pool[7] = environments(100 * np.ones((2, 8)))
    known = Known(Scale.fit(Environments.together(pool)))
    known.cover(pool[7])
    chosen = select_farthest(pool, known, 20)
    assert 7 not in chosen and len(chosen) == 19


def test_duplicates_within_the_pool_are_picked_once() -> None:
    frames = [environments(np.full((1, 4), value)) for value in (1.0, 2.0, 1.0, 2.0, 1.0 + 1e-7)]
    assert select_farthest(frames, Known(plain(4)), 9) == [0, 1]


def test_rounding_of_float32_makes_no_frame_new() -> None:
    rng = np.random.default_rng(2)
    vectors = 50 + rng.normal(size=(200, 32))
    known = Known(Scale.fit(environments(vectors)))
    known.cover(environments(vectors))
    nearly = environments(vectors * (1 + 1e-7 * rng.choice([-1, 0, 1], size=vectors.shape)))
    assert select_farthest([nearly[np.array([n])] for n in range(200)], known, 200) == []


@pytest.mark.parametrize("seed", range(3))
def test_choice_does_not_depend_on_the_order_of_frames(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool = [environments(rng.normal(size=(rng.integers(1, 4), 8))) for _ in range(60)]
    order = rng.permutation(60)
    known, again = Known(Scale.fit(drawn(100, 9))), Known(Scale.fit(drawn(100, 9)))
    known.cover(drawn(100, 9))
    again.cover(drawn(100, 9))
    chosen = select_farthest(pool, known, 20)
    assert [int(order[index]) for index in select_farthest([pool[n] for n in order], again, 20)] == chosen


def test_nothing_to_choose_from() -> None:
    known = Known(plain(4))
    assert select_farthest([], known, 3) == select_farthest([drawn(0, 1, 4)], known, 3) == []
    assert select_farthest([environments(np.full((1, 4), np.nan))], known, 3) == []
    assert select_farthest([drawn(1, 1, 4)], known, 0) == []


def test_shapes_that_do_not_fit_are_told() -> None:
    with pytest.raises(ValueError, match="expected"):
        Environments(np.zeros(3, dtype=np.int16), np.zeros((2, 4), dtype=np.float32))
    with pytest.raises(ValueError, match="capacity"):
        Known(plain(4), capacity=0)
