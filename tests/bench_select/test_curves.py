"""Labels to an error on curves whose answer is known, and intervals over seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloop.bench_select.curves import labels_for, labels_needed, labels_to_reach, mean_curve, resamples

SIZES = np.array([60.0, 120.0, 240.0, 480.0])


@given(st.floats(0.1, 2.0), st.floats(61, 479))
def test_a_power_law_is_read_exactly(slope: float, labels: float) -> None:
    target = 3.0 * labels**-slope
    assert labels_to_reach(SIZES, 3.0 * SIZES**-slope, target) == pytest.approx(labels, rel=1e-9)


def test_ends_of_a_curve() -> None:
    falling = np.array([0.8, 0.4, 0.2, 0.1])
    assert labels_to_reach(SIZES, falling, 0.1) == pytest.approx(480)
    assert labels_to_reach(SIZES, falling, 0.09) == math.inf
    assert labels_to_reach(SIZES, falling, 0.8) == 60
    assert labels_to_reach(SIZES, falling, 1.0) == 60
    assert labels_to_reach(SIZES, np.array([0.8, 0.4, 0.2, np.nan]), 0.1) == math.inf


def test_a_dip_that_does_not_last_does_not_count() -> None:
    assert labels_to_reach(SIZES, np.array([0.8, 0.1, 0.4, 0.1]), 0.2) == pytest.approx(240 * math.sqrt(2))
    assert labels_to_reach(SIZES, np.array([0.8, 0.1, 0.4, 0.3]), 0.2) == math.inf


def test_half_the_labels_is_a_ratio_of_a_half_with_no_interval_where_seeds_agree() -> None:
    random = np.tile(2.0 * SIZES**-0.5, (3, 1))
    needed = labels_needed(SIZES, 2.0 * (2 * SIZES) ** -0.5 * np.ones((3, 1)), random)
    assert needed.labels.value == pytest.approx(240)
    for value in (needed.ratio.value, needed.ratio.low, needed.ratio.high):
        assert value == pytest.approx(0.5)


def test_random_needs_what_it_was_given() -> None:
    rng = np.random.default_rng(0)
    random = SIZES**-0.5 * rng.uniform(0.95, 1.05, (3, 4))
    needed = labels_needed(SIZES, random, random)
    assert needed.labels.value == pytest.approx(480)
    assert needed.ratio.low == needed.ratio.value == needed.ratio.high == 1.0


def test_seeds_are_drawn_together_for_both() -> None:
    """Seeds differ tenfold, but in each the method needs half of what random does: the ratio is sure."""
    factor = np.array([[1.0], [10.0], [3.0]])
    needed = labels_needed(SIZES, factor * (2 * SIZES) ** -0.5, factor * SIZES**-0.5)
    assert needed.ratio.low == pytest.approx(0.5)
    assert needed.ratio.high == pytest.approx(0.5)


def test_interval_tells_of_a_method_that_may_never_reach_it() -> None:
    random = np.tile(SIZES**-0.5, (3, 1))
    needed = labels_needed(SIZES, random * np.array([[0.8], [0.9], [1.2]]), random)
    assert needed.labels.value < 480
    assert needed.labels.low < needed.labels.value
    assert needed.labels.high == needed.ratio.high == math.inf


def test_labels_for_an_error_that_was_named() -> None:
    errors = np.array([[0.8], [1.0], [1.25]]) * SIZES**-0.5
    found = labels_for(SIZES, errors, 0.1)
    assert found.value == pytest.approx(100) and found.low == pytest.approx(64) and found.high == pytest.approx(156.25)
    assert labels_for(SIZES, errors, 0.01).low == math.inf


def test_one_seed_has_no_interval() -> None:
    needed = labels_needed(SIZES, (SIZES * 1.5)[None] ** -0.5, SIZES[None] ** -0.5)
    assert needed.labels.low == needed.labels.value == needed.labels.high


def test_resamples_are_all_of_few_seeds_and_many_of_many() -> None:
    assert len(resamples(3)) == 27
    assert resamples(12).shape[1] == 12
    assert resamples(12).max() == 11


def test_mean_of_curves_is_geometric() -> None:
    assert mean_curve(np.array([[1.0, 4.0], [4.0, 16.0]])) == pytest.approx([2.0, 8.0])
