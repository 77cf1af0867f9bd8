"""Ways of choosing on synthetic pools: what each must take, and what none may."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloop.bench_select import command, strategies
from alloop.bench_select.selector import farthest_first
from alloop.bench_select.strategies import METHODS, choose
from alloop.bench_select.view import PoolView

Views = Callable[..., PoolView]


def test_command_line_knows_the_same_methods() -> None:
    assert tuple(METHODS) == command.METHODS


@pytest.mark.parametrize("method", METHODS)
def test_every_method_returns_open_frames_once_and_repeats_itself(method: str, make_view: Views) -> None:
    labelled = np.arange(60) % 4 == 0
    view = make_view(labelled=labelled, events=[{"overlap": np.array([1])}] * 30 + [{}] * 30)
    chosen, own = choose(method, view, 20, seed=5)
    assert len(set(chosen.tolist())) == len(chosen) == 20
    assert not labelled[chosen].any()
    assert 0 < own <= 20
    again, _ = choose(method, view, 20, seed=5)
    assert chosen.tolist() == again.tolist()


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_can_be_used_up(method: str, make_view: Views) -> None:
    chosen, _ = choose(method, make_view(10), 10, seed=0)
    assert chosen.tolist() == list(range(10))
    with pytest.raises(ValueError, match="11 labels wanted, 10 frames are left"):
        choose(method, make_view(10), 11, seed=0)


def test_random_takes_another_set_with_another_seed(make_view: Views) -> None:
    first, second = (choose("random", make_view(), 20, seed)[0].tolist() for seed in (1, 2))
    assert first != second


def test_dpgen_stays_within_the_trust_levels_and_the_rest_is_filled_up(make_view: Views) -> None:
    deviation = np.array([0.1, 0.5, 1.49, 1.5, 3.0, np.nan])
    view = make_view(6, max_deviation_eV_A=deviation)
    assert sorted(METHODS["dpgen"](view, 6, 0).tolist()) == [1, 2]  # low counts, high does not, nor what is no number
    chosen, own = choose("dpgen", view, 4, seed=0)
    assert own == 2
    assert len(chosen) == 4
    assert {1, 2} <= set(chosen.tolist())


def test_top_deviation_takes_the_largest_and_never_what_is_no_number(make_view: Views) -> None:
    view = make_view(6, max_deviation_eV_A=np.array([0.1, np.nan, 3.0, np.inf, 2.0, 0.3]))
    assert METHODS["top_deviation"](view, 3, 0).tolist() == [2, 4, 5]


def test_diversity_goes_where_no_label_is(make_view: Views) -> None:
    near_label = np.arange(20) < 10
    centres = np.where(near_label, 0.0, 10.0)
    rng = np.random.default_rng(1)
    descriptors = np.repeat(centres, 4)[:, None] + rng.normal(scale=0.1, size=(80, 3))
    view = make_view(20, descriptors=descriptors.astype(np.float32), labelled=np.arange(20) == 0)
    assert METHODS["diversity"](view, 1, 0)[0] >= 10


def test_an_answer_that_is_none_is_refused(make_view: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    view = make_view(10, labelled=np.arange(10) == 3)
    for answer in ([3], [1, 1], [1, 2, 4], [10]):
        monkeypatch.setitem(strategies.METHODS, "full", lambda *_, answer=answer: np.array(answer))
        with pytest.raises(ValueError, match="full chose frames"):
            choose("full", view, 2, seed=0)


# ---------------------------------------------------------------------------------------- the full selector


def full(view: PoolView, n: int, seed: int = 0) -> list[int]:
    return METHODS["full"](view, n, seed).tolist()


def test_events_are_chosen_where_the_ensemble_agrees_and_within_their_quota(make_view: Views) -> None:
    events = [{"overlap": np.array([2])} if index % 2 else {} for index in range(100)]
    view = make_view(100, events=events, max_deviation_eV_A=np.full(100, 0.1))
    chosen = full(view, 40)
    assert sum(bool(events[index]) for index in chosen) >= 4  # a tenth by the quota
    assert len(chosen) <= 8  # and a tenth of audit: all is accurate, nothing else is worth a label


def test_audit_is_of_all_frames_and_failed_ones_are_left_otherwise(make_view: Views) -> None:
    deviation = np.repeat([0.1, 1.0, 9.0], 40)
    view = make_view(120, max_deviation_eV_A=deviation)
    counts: Counter[float] = Counter()
    for seed in range(8):
        chosen = Counter(deviation[full(view, 30, seed)].tolist())
        assert chosen.total() == 30 and chosen[0.1] + chosen[9.0] <= 3 and chosen[1.0] >= 27
        counts += chosen
    assert counts[0.1] and counts[9.0]


def test_a_trajectory_never_fills_a_batch(make_view: Views) -> None:
    """One trajectory holds most candidates; it gives no more than twice its share."""
    trajectory = np.array(["long"] * 50 + [f"t{index}" for index in range(9)] * 2)
    view = make_view(68, trajectory=trajectory, time_ps=np.arange(68) * 1.0, max_deviation_eV_A=np.full(68, 1.0))
    chosen = trajectory[full(view, 20)]
    assert (chosen == "long").sum() <= math.ceil(2 * 20 / 10) + 2, "two of the audit, which must stay random"


def test_frames_close_in_time_are_not_both_chosen(make_view: Views) -> None:
    times = np.repeat(np.arange(30) * 1.0, 2) + np.tile([0.0, 0.01], 30)
    view = make_view(60, trajectory=np.array(["t"] * 60), time_ps=times, max_deviation_eV_A=np.full(60, 1.0))
    chosen = np.sort(times[full(view, 20)])
    assert min(b - a for a, b in pairwise(chosen)) >= 0.05


def test_frames_without_a_time_are_near_none_in_time(make_view: Views) -> None:
    columns = {"trajectory": np.array(["t"] * 60), "max_deviation_eV_A": np.full(60, 1.0)}
    view = make_view(60, time_ps=np.full(60, np.nan), **columns)
    chosen, own = choose("full", view, 20, seed=0)
    assert len(chosen) == own == 20, "none is filled up at random"


def test_a_copy_of_a_labelled_frame_is_not_chosen(make_view: Views) -> None:
    identity = np.array(["same", "same", *(f"frame{index}" for index in range(18))])
    view = make_view(20, identity=identity, labelled=np.arange(20) == 0, max_deviation_eV_A=np.full(20, 1.0), seed=4)
    assert 1 not in full(view, 19)


def test_the_offending_atom_counts_not_the_frame(make_view: Views) -> None:
    """All frames look alike on average, two have an offending atom no label has; those are chosen first."""
    descriptors = np.zeros((40, 4, 3), dtype=np.float32)
    descriptors[:, :, 0] = [-1.0, 1.0, -1.0, 1.0]
    for index in (21, 33):
        descriptors[index, :, 0] = [9.0 + 0.1 * index, -9.0 - 0.1 * index, 0.0, 0.0]
    view = make_view(
        40,
        descriptors=descriptors.reshape(-1, 3),
        labelled=np.arange(40) < 5,
        offending_atom=np.zeros(40, dtype=int),
        max_deviation_eV_A=np.full(40, 1.0),
        trajectory=np.arange(40).astype(str),
    )
    assert np.ptp(view.frame_means()[:, 0]) < 1e-6
    assert set(full(view, 4)) == {21, 33}, "and so few labels that none is drawn at random"


def test_the_event_atom_most_unlike_the_labels_stands_for_its_frame(make_view: Views) -> None:
    descriptors = np.zeros((30, 4, 3), dtype=np.float32)
    descriptors[17, 3] = 5.0
    events = [{"overlap": np.array([0, 3])} if 15 <= index < 18 else {} for index in range(30)]
    view = make_view(
        30,
        descriptors=descriptors.reshape(-1, 3),
        labelled=np.arange(30) < 5,
        events=events,
        max_deviation_eV_A=np.full(30, 9.0),
        trajectory=np.arange(30).astype(str),
    )
    for seed in range(5):
        assert full(view, 4, seed) == [17]  # the rest of them teach nothing new


# ---------------------------------------------------------------------------------------- farthest first


def test_farthest_first_on_a_line() -> None:
    points = np.arange(11.0)[:, None]
    assert farthest_first(points, np.array([[0.0]]), 3).tolist() == [10, 5, 2]
    assert farthest_first(points, np.zeros((0, 1)), 3).tolist() == [0, 10, 5]


def test_farthest_first_takes_nothing_that_is_there_already() -> None:
    points = np.array([[1.0], [1.0], [2.0], [2.0]])
    assert farthest_first(points, np.array([[1.0]]), 4).tolist() == [2]
    assert farthest_first(np.zeros((0, 1)), points, 4).tolist() == []


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_farthest_first_is_no_matter_of_order_and_gaps_shrink(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    points, known = rng.normal(size=(30, 2)), rng.normal(size=(5, 2))
    chosen = farthest_first(points, known, n)
    order = rng.permutation(30)
    assert order[farthest_first(points[order], known, n)].tolist() == chosen.tolist()
    seen = [np.vstack([known, points[chosen[:count]]]) for count in range(n)]
    gaps = [np.linalg.norm(part - points[new], axis=1).min() for part, new in zip(seen, chosen, strict=True)]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(gaps))
