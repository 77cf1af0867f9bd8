from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from calibration_kit import MEDIAN_FACTOR, POWER, draw, pairs_of, some_pairs, true_coverage
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.selection.calibration import (
    AuditPair,
    CalibrationMap,
    Line,
    MapSettings,
    conformal_quantile,
    fit_map,
    map_from_record,
    needed_scores,
)

INF, NAN = math.inf, math.nan
HERE = ("LBS", "2000K")


def pair(**changes: Any) -> AuditPair:
    about = {"identity": "a", "glass": "LBS", "band": "2000K", "iteration": 0, "deviation_eV_A": 0.1}
    return AuditPair(**(about | {"error_eV_A": 0.2, "reason": "audit"} | changes))


# ---- which pairs


@pytest.mark.parametrize("reason", ["candidate", "five_coordinated_Si", "before_loss", ""])
def test_only_labels_drawn_at_random_calibrate(reason: str) -> None:
    with pytest.raises(ValueError, match="only labels drawn at random calibrate"):
        pair(reason=reason)


@pytest.mark.parametrize("deviation", [NAN, INF, -0.1])
def test_a_deviation_that_is_none_is_refused(deviation: float) -> None:
    with pytest.raises(ValueError, match="expected a number from 0 on"):
        pair(deviation_eV_A=deviation)


def test_a_negative_error_is_refused() -> None:
    with pytest.raises(ValueError, match="error -1"):
        pair(error_eV_A=-1)


def test_what_is_no_pair_and_a_label_that_comes_twice_are_refused() -> None:
    with pytest.raises(TypeError, match="AuditPair"):
        fit_map([(0.1, 0.2)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="label a comes twice"):
        fit_map([pair(), pair(error_eV_A=0.3)])


@pytest.mark.parametrize("wrong", [{"level": 0}, {"level": 1.0}, {"group_scores": 0}, {"floor_eV_A": 0.0}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        MapSettings(**wrong)


# ---- the quantile


@pytest.mark.parametrize(("level", "count"), [(0.9, 9), (0.8, 4), (0.95, 19), (0.5, 1), (0.99, 99)])
def test_the_least_number_of_scores_is_free_of_rounding(level: float, count: int) -> None:
    assert needed_scores(level) == count
    assert conformal_quantile(np.arange(count), level) == count - 1
    assert conformal_quantile(np.arange(count - 1), level) == INF


def test_the_quantile_is_an_order_statistic() -> None:
    assert conformal_quantile(np.arange(1, 20), 0.9) == 18  # ceil(20 x 0.9)
    assert conformal_quantile([5.0] * 30, 0.9) == 5.0
    assert conformal_quantile([1.0] * 20 + [NAN], 0.9) == 1.0, "a NaN is the largest score"
    assert conformal_quantile([1.0] * 7 + [NAN, INF], 0.9) == INF


# ---- coverage


@pytest.mark.parametrize("count", [15, 60, 300])
def test_coverage_over_many_draws_lies_between_the_theorem_s_bounds(count: int) -> None:
    """Split conformal: level <= coverage <= level + 1 / (scores + 1), on average over draws."""
    rng = np.random.default_rng(count)
    test_deviation, _ = draw(rng, 1000)
    covered, scores = [], []
    for _ in range(150):
        calibration = fit_map(pairs_of(*draw(rng, count)))
        covered.append(true_coverage(test_deviation, calibration.predict(test_deviation, *HERE).bound_eV_A))
        scores.append(calibration.group(*HERE).scores)
    noise = 3.5 * float(np.std(covered)) / math.sqrt(len(covered))
    assert 0.9 - noise <= np.mean(covered) <= 0.9 + 1 / (min(scores) + 1) + noise
    assert noise < 0.03


def test_the_promise_holds_within_each_group_where_one_map_for_all_would_break_it() -> None:
    rng = np.random.default_rng(5)
    test_deviation, _ = draw(rng, 1000)
    own, pooled = [], []
    for _ in range(40):
        deviation, error = draw(rng, 100)
        hard, easy = pairs_of(deviation, 3 * error, "hard"), pairs_of(*draw(rng, 400), "easy")
        calibration = fit_map(hard + easy)
        assert calibration.group("hard", "2000K").name == "hard at 2000K"
        for glass, found in (("hard", own), ("neither", pooled)):
            bound = calibration.predict(test_deviation, glass, "2000K").bound_eV_A
            found.append(true_coverage(test_deviation, bound / 3))
    assert np.mean(own) > 0.885
    assert np.mean(pooled) < 0.75


def test_half_of_the_errors_stay_below_the_expected_one() -> None:
    calibration = fit_map(some_pairs(1, 2000))
    deviation = np.array([0.05, 0.1, 0.3])
    expected = calibration.predict(deviation, *HERE).expected_eV_A
    assert np.allclose(expected, MEDIAN_FACTOR * deviation**POWER, rtol=0.1)


def test_the_line_is_not_moved_by_wild_pairs() -> None:
    deviation, error = draw(np.random.default_rng(2), 800)
    error[::10] *= 100
    line = fit_map(pairs_of(deviation, error)).group(*HERE).line
    assert line.slope == pytest.approx(POWER, abs=0.12)


# ---- few pairs, and groups


def test_no_pair_and_one_pair_are_not_calibrated() -> None:
    for pairs in ([], [pair()]):
        calibration = fit_map(pairs)
        found = calibration.predict([0.1, 0.2], *HERE)
        assert not found.calibrated and found.source == "all pairs" and found.borrowed
        assert (found.bound_eV_A == INF).all()
        assert calibration.deviation_at(0.2, *HERE, "bound") == 0
    assert fit_map([pair()]).predict(0.2, *HERE).expected_eV_A == pytest.approx(0.4), "proportional"
    assert fit_map([]).predict(0.2, *HERE).expected_eV_A == INF
    assert fit_map([]).deviation_at(0.2, *HERE) == 0


def test_nine_pairs_make_a_bound_of_ninety_percent_and_eight_do_not() -> None:
    pairs = some_pairs(3, 9)
    assert not fit_map(pairs[:8]).predict(0.1, *HERE).calibrated
    found = fit_map(pairs).predict(0.1, *HERE)
    assert found.calibrated
    worst = max(own.error_eV_A / own.deviation_eV_A for own in pairs)
    assert found.bound_eV_A == pytest.approx(0.1 * worst), "the largest of nine scores"


def test_a_group_with_too_few_pairs_borrows_from_the_nearest() -> None:
    pairs = (
        some_pairs(1, 30, "A", "300K")
        + some_pairs(2, 19, "A", "2000K")
        + some_pairs(3, 10, "B", "300K")
        + some_pairs(4, 5, "C", "3000K")
    )
    calibration = fit_map(pairs)
    sources = {
        ("A", "300K"): "A at 300K",
        ("A", "2000K"): "A at all temperatures",
        ("A", "9000K"): "A at all temperatures",
        ("B", "300K"): "all glasses at 300K",
        ("D", "300K"): "all glasses at 300K",
        ("C", "3000K"): "all pairs",
        ("D", "9000K"): "all pairs",
    }
    for key, source in sources.items():
        found = calibration.predict(0.1, *key)
        assert (found.source, found.borrowed) == (source, source != "A at 300K")
        assert found.calibrated


def test_a_group_borrows_for_a_level_that_needs_more_scores_than_it_has() -> None:
    pairs = some_pairs(1, 30) + some_pairs(2, 80, "other")
    calibration = fit_map(pairs, MapSettings(level=0.98, group_scores=5))
    assert calibration.predict(0.1, *HERE).source == "all glasses at 2000K"
    assert calibration.predict(0.1, *HERE).calibrated


# ---- edges


def test_zeros_count_as_the_floor_and_stay_finite() -> None:
    deviation, error = draw(np.random.default_rng(6), 200)
    deviation[:40], error[30:60] = 0, 0
    found = fit_map(pairs_of(deviation, error)).predict([0.0, 1e-9, 1e-3], *HERE)
    assert np.isfinite(found.bound_eV_A).all() and (found.expected_eV_A > 0).all()
    assert len(set(found.bound_eV_A.tolist())) == 1, "below the floor all are alike"


def test_all_zero() -> None:
    calibration = fit_map(pairs_of(np.zeros(100), np.zeros(100)))
    found = calibration.predict(0.0, *HERE)
    assert found.bound_eV_A == found.expected_eV_A == pytest.approx(1e-3)


def test_ties_do_not_lower_coverage() -> None:
    deviation, error = draw(np.random.default_rng(7), 400)
    error = np.ceil(error * 4) / 4
    calibration = fit_map(pairs_of(np.round(deviation, 1), error))
    fresh, true = draw(np.random.default_rng(8), 4000)
    bound = calibration.predict(np.round(fresh, 1), *HERE).bound_eV_A
    assert np.mean(np.ceil(true * 4) / 4 <= bound) > 0.87


def test_a_deviation_that_is_no_number_promises_nothing() -> None:
    found = fit_map(some_pairs(1, 100)).predict([NAN, INF, -1.0, 0.1], *HERE)
    assert found.expected_eV_A[:3].tolist() == found.bound_eV_A[:3].tolist() == [INF] * 3
    assert found.extrapolated.tolist() == [True, True, True, False]
    assert np.isfinite(found.bound_eV_A[3])


def test_errors_that_are_no_numbers_count_as_infinite() -> None:
    deviation, error = draw(np.random.default_rng(9), 100)
    error[:5] = NAN
    few = fit_map(pairs_of(deviation, error)).predict(0.1, *HERE)
    error[:20] = INF
    many = fit_map(pairs_of(deviation, error)).predict(0.1, *HERE)
    assert np.isfinite(few.bound_eV_A) and many.bound_eV_A == INF
    assert many.calibrated and np.isfinite(many.expected_eV_A)


def test_a_constant_deviation_tells_one_error_and_is_not_informative() -> None:
    _, error = draw(np.random.default_rng(10), 200)
    calibration = fit_map(pairs_of(np.full(200, 0.2), error))
    assert not calibration.group(*HERE).informative
    assert calibration.predict(0.2, *HERE).expected_eV_A == pytest.approx(np.median(error), rel=0.15)
    assert calibration.predict(0.1, *HERE).expected_eV_A == calibration.predict(0.2, *HERE).expected_eV_A


def test_errors_that_fall_with_the_deviation_make_a_flat_line_never_a_falling_one() -> None:
    deviation, _ = draw(np.random.default_rng(11), 200)
    group = fit_map(pairs_of(deviation, 0.1 / deviation)).group(*HERE)
    assert group.line.slope == 0 and not group.informative


def test_beyond_what_was_measured_the_line_rises_at_least_in_proportion() -> None:
    deviation, _ = draw(np.random.default_rng(12), 200)
    calibration = fit_map(pairs_of(deviation, np.full(200, 0.3)))
    end = float(deviation.max())
    one, other = calibration.predict([2 * end, 4 * end], *HERE).expected_eV_A
    assert other / one == pytest.approx(2)
    assert calibration.predict([2 * end], *HERE).extrapolated.all()


# ---- the inverse


@pytest.mark.parametrize("kind", ["expected", "bound"])
@pytest.mark.parametrize("count", [30, 400])
def test_the_inverse_undoes_the_map(kind: Any, count: int) -> None:
    calibration = fit_map(some_pairs(13, count))
    deviation = np.geomspace(1e-3, 50, 40)
    found = calibration.predict(deviation, *HERE)
    errors = found.expected_eV_A if kind == "expected" else found.bound_eV_A
    back = [calibration.deviation_at(float(error), *HERE, kind) for error in errors]
    assert np.allclose(back, deviation, rtol=1e-9)


def test_an_error_below_all_is_reached_nowhere_and_an_infinite_one_everywhere() -> None:
    calibration = fit_map(some_pairs(14, 100))
    assert calibration.deviation_at(1e-9, *HERE) == 0
    assert calibration.deviation_at(INF, *HERE) == INF
    for wrong in (0.0, -1.0, NAN):
        with pytest.raises(ValueError, match="positive"):
            calibration.deviation_at(wrong, *HERE)


def test_a_flat_line_has_an_inverse_too() -> None:
    line = Line(0.0, math.log(0.3), 0.0)
    assert line.inverse(math.log(0.2)) == -INF
    assert line.inverse(math.log(0.6)) == pytest.approx(math.log(2))


# ---- invariants

VALUES = st.lists(
    st.tuples(st.floats(0, 20), st.floats(0, 50) | st.just(NAN) | st.just(INF), st.sampled_from("AB")),
    max_size=120,
)


def mapped(values: list[tuple[float, float, str]]) -> list[AuditPair]:
    return [
        pair(identity=str(n), deviation_eV_A=deviation, error_eV_A=error, glass=glass)
        for n, (deviation, error, glass) in enumerate(values)
    ]


EASY = MapSettings(level=0.7, group_scores=4, fit_pairs=5)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_of_the_pairs_does_not_matter(values: list[tuple[float, float, str]], random: Any) -> None:
    pairs = mapped(values)
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert fit_map(shuffled, EASY) == fit_map(pairs, EASY)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.lists(st.floats(0, 100), min_size=2, max_size=20), st.floats(1e-3, 100), st.floats(1e-3, 100))
def test_errors_never_fall_with_the_deviation_nor_levels_with_the_error(
    values: list[tuple[float, float, str]], deviations: list[float], one: float, other: float
) -> None:
    calibration = fit_map(mapped(values), EASY)
    for glass in "AC":
        found = calibration.predict(sorted(deviations), glass, "2000K")
        for errors in (found.expected_eV_A, found.bound_eV_A):
            assert not np.isnan(errors).any()
            assert (errors[1:] >= errors[:-1] * (1 - 1e-12)).all()
        assert (found.bound_eV_A >= found.expected_eV_A).all()
        low, high = (calibration.deviation_at(error, glass, "2000K") for error in sorted((one, other)))
        assert low <= high


def test_the_part_of_a_pair_never_changes_as_others_join() -> None:
    pairs = some_pairs(15, 300)
    before, after = fit_map(pairs[:200]).group(*HERE), fit_map(pairs).group(*HERE)
    assert before.pairs - before.scores <= after.pairs - after.scores
    assert 0.18 < 1 - after.scores / after.pairs < 0.32


# ---- on record


@pytest.mark.parametrize("count", [0, 1, 12, 300])
def test_a_map_is_read_back_from_json_as_it_was(count: int) -> None:
    calibration: CalibrationMap = fit_map(some_pairs(16, count))
    text = json.dumps(calibration.to_record(), allow_nan=False)
    assert map_from_record(json.loads(text)) == calibration
