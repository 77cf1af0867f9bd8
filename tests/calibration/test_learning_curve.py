from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress
from scipy.stats import t as student

from alloop.selection.learning_curve import LearningCurve, fit_learning_curve
from alloop.selection.record import plain

LABELS = np.array([50, 100, 200, 400, 800, 1600])


def curve(noise: float, seed: int = 0, power: float = 0.3, floor: float = 0.0, labels: Any = LABELS) -> LearningCurve:
    rng = np.random.default_rng(seed)
    errors = (1.5 * np.asarray(labels, dtype=float) ** -power + floor) * np.exp(noise * rng.normal(size=len(labels)))
    return fit_learning_curve(labels, errors, seed=seed)


def test_an_exact_power_law_is_found() -> None:
    found = curve(0)
    assert found.exponent.value == pytest.approx(0.3)
    assert found.verdict == "falling" and found.floor_eV_A.value == 0
    assert found.error_at(3200).value == pytest.approx(1.5 * 3200**-0.3)
    assert found.gain(1600).value == pytest.approx(1.5 * (1600**-0.3 - 3200**-0.3))
    assert found.last_improvement(800).value == pytest.approx(1 - 2**-0.3)
    target = 1.5 * 4000**-0.3
    assert found.labels_to_reach(target).value == pytest.approx(2400)


def test_the_interval_of_the_exponent_is_that_of_a_straight_line() -> None:
    found = curve(0.05, labels=LABELS[:4])
    line = linregress(np.log(found.labels), np.log(found.errors_eV_A))
    reach = student.ppf(0.95, 2) * line.stderr
    assert found.exponent.low == pytest.approx(-line.slope - reach, abs=0.1 * reach)
    assert found.exponent.high == pytest.approx(-line.slope + reach, abs=0.1 * reach)


def test_an_exact_floor_is_found_and_what_lies_below_is_out_of_reach() -> None:
    found = curve(0, power=0.6, floor=0.05)
    assert found.floor_eV_A.value == pytest.approx(0.05, abs=0.001)
    assert found.labels_to_reach(0.04).value == math.inf
    assert 0 < found.labels_to_reach(0.06).value < math.inf


def test_a_floor_is_not_made_up_from_noise_but_never_excluded_by_a_few_points() -> None:
    found = [curve(0.05, seed).floor_eV_A for seed in range(40)]
    assert sum(own.value > 0 for own in found) <= 16
    assert all(own.high > 0 for own in found)


@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_the_gain_is_foretold_with_and_without_a_floor(floor: float) -> None:
    """Nominal 90 %, six points; a straight line through those with a floor would hold the gain in none."""
    power = 0.6 if floor else 0.3
    truth = 1.5 * (1600**-power - 3200**-power)
    gains = [curve(0.04, seed, power=power, floor=floor).gain(1600) for seed in range(80)]
    assert sum(own.low <= truth <= own.high for own in gains) / 80 >= 0.8


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Nominal 90 %, four points, no floor: exponent, gain of 400 labels and improvement by the last 200."""
    labels = LABELS[:4]
    truth = {
        "exponent": 0.3,
        "gain": 1.5 * (400**-0.3 - 800**-0.3),
        "last": 1 - 2**-0.3,
    }
    held = dict.fromkeys(truth, 0)
    for seed in range(150):
        found = curve(0.08, seed, labels=labels)
        answers = {"exponent": found.exponent, "gain": found.gain(400), "last": found.last_improvement(200)}
        for name, interval in answers.items():
            held[name] += interval.low <= truth[name] <= interval.high
    for count in held.values():
        assert 0.85 <= count / 150 <= 0.95


def test_noise_above_the_trend_is_called_so() -> None:
    found = curve(0.3, seed=1, power=0.02)
    assert found.verdict == "noise exceeds the trend" and not found.usable
    gain = found.gain(1000)
    assert gain.low < 0 < gain.high
    assert found.labels_to_reach(0.01).high == math.inf


def test_flat_curves_are_rarely_called_falling_or_rising() -> None:
    verdicts = [curve(0.1, seed, power=0.0, labels=LABELS[:5]).verdict for seed in range(80)]
    assert verdicts.count("noise exceeds the trend") >= 68


def test_a_rising_error_is_called_so() -> None:
    found = curve(0.01, power=-0.3)
    assert found.verdict == "rising"
    assert found.labels_to_reach(0.1).value == math.inf
    assert found.last_improvement(800).high < 0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_points(count: int) -> None:
    found = curve(0, labels=LABELS[:count])
    assert found.verdict == "too few points" and "3 needed" in found.sentence
    for answer in (found.gain(10), found.error_at(10), found.last_improvement(10), found.labels_to_reach(0.1)):
        assert math.isnan(answer.value) and math.isnan(answer.high)
    json.dumps(plain(found), allow_nan=False)


def test_many_ensembles_of_one_size_are_no_curve() -> None:
    assert fit_learning_curve([100] * 6, [0.3] * 6).verdict == "too few points"


def test_what_is_no_error_is_left_out() -> None:
    labels, errors = [50, 100, 200, 400, 0, 800, 900], [0.4, 0.3, 0.2, 0.15, 0.1, math.nan, 0.0]
    assert fit_learning_curve(labels, errors) == fit_learning_curve(labels[:4], errors[:4])


def test_the_order_of_points_does_not_matter() -> None:
    labels, errors = [50, 100, 200, 400], [0.4, 0.31, 0.2, 0.15]
    assert fit_learning_curve(labels[::-1], errors[::-1]) == fit_learning_curve(labels, errors)


def test_points_weigh_by_their_errors_which_also_bound_the_intervals() -> None:
    labels, errors = [50, 100, 200, 400], [0.4, 0.2, 0.1, 0.2]
    blind = fit_learning_curve(labels, errors, [0.001, 0.001, 0.001, 10.0])
    assert blind.exponent.value == pytest.approx(1.0, abs=0.01)
    exact = 1.5 * np.array(labels, dtype=float) ** -0.3
    known = fit_learning_curve(labels, exact, 0.1 * exact)
    assert known.exponent.high - known.exponent.low > 0.1, "points on a line by chance"


def test_an_error_reached_already_needs_no_label() -> None:
    assert curve(0).labels_to_reach(1.0).value == 0


def test_the_improvement_is_not_followed_beyond_the_first_point() -> None:
    found = curve(0)
    assert found.last_improvement(1e9) == found.last_improvement(1550)


def test_lists_of_different_lengths_and_errors_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="2 numbers of labels, 1 errors"):
        fit_learning_curve([1, 2], [0.1])
    with pytest.raises(ValueError, match="positive"):
        fit_learning_curve([1, 2, 3], [0.1] * 3, [0.1, 0.0, 0.1])


ERRORS = st.lists(
    st.tuples(st.integers(1, 10**6), st.floats(1e-4, 1e3)), min_size=3, max_size=12, unique_by=lambda p: p[0]
)


@settings(max_examples=40, deadline=None)
@given(ERRORS, st.floats(1e-4, 10), st.booleans())
def test_whatever_the_errors_answers_are_ordered_and_never_nan(
    points: list[tuple[int, float]], target: float, known: bool
) -> None:
    labels, errors = zip(*points, strict=True)
    found = fit_learning_curve(labels, errors, [0.1 * error for error in errors] if known else None)
    answers = [found.error_at(1000), found.gain(100), found.last_improvement(100), found.labels_to_reach(target)]
    for own in [*answers, found.exponent, found.floor_eV_A]:
        assert own.low <= own.value <= own.high
    assert found.labels_to_reach(target).low >= 0


def test_a_curve_is_plain_json() -> None:
    text = json.dumps(plain(curve(0.05)), allow_nan=False)
    assert json.loads(text)["exponent"].keys() == {"value", "low", "high"}
