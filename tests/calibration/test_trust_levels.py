from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from calibration_kit import draw, pairs_of, some_pairs
from hypothesis import given
from hypothesis import strategies as st

from alloop.selection.calibration import fit_map
from alloop.selection.record import plain
from alloop.selection.trust import TrustLevels, TrustRule, limited_move, next_levels

HERE = ("LBS", "2000K")
RULE = TrustRule(low_error_eV_A=0.2, high_error_eV_A=1.0)
NOW = TrustLevels(0.1, 0.4)
RANGE = (0.02, 5.0)


def test_levels_come_to_where_the_expected_error_is_the_one_asked_for() -> None:
    calibration = fit_map(some_pairs(1, 400))
    levels = NOW
    for _ in range(20):
        levels = next_levels(calibration, *HERE, levels, RULE).levels
    low, high = calibration.predict([levels.low_eV_A, levels.high_eV_A], *HERE).expected_eV_A
    assert (low, high) == (pytest.approx(0.2), pytest.approx(1.0))


def test_by_the_bound_levels_are_stricter() -> None:
    calibration = fit_map(some_pairs(1, 400))
    strict = TrustRule(0.2, 1.0, kind="bound")
    assert (
        next_levels(calibration, *HERE, NOW, strict).wanted_low_eV_A
        < next_levels(calibration, *HERE, NOW, RULE).wanted_low_eV_A
    )
    assert "90% bound of the error" in next_levels(calibration, *HERE, NOW, strict).reason


def test_a_level_moves_by_a_factor_at_most_and_the_reason_says_so() -> None:
    calibration = fit_map(some_pairs(2, 400))
    far = TrustLevels(1.0, 4.0)
    move = next_levels(calibration, *HERE, far, RULE)
    assert (move.levels.low_eV_A, move.levels.high_eV_A) == (pytest.approx(0.8), pytest.approx(3.2))
    assert "what a step and the range allow" in move.reason


def test_beyond_what_was_measured_the_reason_says_so() -> None:
    deviation, error = draw(np.random.default_rng(3), 400)
    near = deviation < 0.15
    calibration = fit_map(pairs_of(deviation[near], error[near]))
    assert "nothing was measured" in next_levels(calibration, *HERE, NOW, RULE).reason


@pytest.mark.parametrize("count", [0, 1, 8])
def test_without_calibration_levels_stay(count: int) -> None:
    move = next_levels(fit_map(some_pairs(4, count)), *HERE, NOW, RULE)
    assert move.levels == NOW and not move.calibrated
    assert "not calibrated" in move.reason and "the trust levels stay" in move.reason
    assert math.isnan(move.wanted_low_eV_A)


def test_where_the_deviation_tells_nothing_levels_stay() -> None:
    _, error = draw(np.random.default_rng(5), 200)
    move = next_levels(fit_map(pairs_of(np.full(200, 0.2), error)), *HERE, NOW, RULE)
    assert move.levels == NOW and "does not rise with the deviation" in move.reason


def test_room_for_candidates_is_kept() -> None:
    deviation, _ = draw(np.random.default_rng(6), 400)
    steep = fit_map(pairs_of(deviation, deviation**6 * 1e5))
    levels = TrustLevels(0.1, 0.2)
    for _ in range(10):
        levels = next_levels(steep, *HERE, levels, RULE).levels
        assert levels.high_eV_A / levels.low_eV_A >= RULE.min_ratio * (1 - 1e-12)


def test_candidates_are_not_closed_out_where_the_error_is_largest() -> None:
    """Errors of nine deviations around 0.5 eV/A: by the map alone nearly all would be beyond trust, and never asked."""
    rng = np.random.default_rng(7)
    deviation = 0.5 * np.exp(rng.normal(0, 0.25, 40))
    calibration = fit_map(pairs_of(deviation, 9 * deviation * np.exp(rng.normal(0, 0.1, 40))))
    rule, levels, explored = TrustRule(0.8, 3.0), TrustLevels(0.25, 1.0), float(np.quantile(deviation, 0.9))
    for _ in range(12):
        move = next_levels(calibration, *HERE, levels, rule, explored)
        levels = move.levels
        assert levels.high_eV_A >= explored * (1 - 1e-12)
    assert levels.high_eV_A == pytest.approx(explored) and levels.low_eV_A < 0.12
    assert move.wanted_high_eV_A < 0.4 and f"90% of what was explored is below {explored:.3f} eV/A" in move.reason
    assert np.mean((levels.low_eV_A <= deviation) & (deviation < levels.high_eV_A)) > 0.85


def test_a_closed_window_opens_again_in_steps() -> None:
    calibration = fit_map(pairs_of(np.linspace(0.3, 0.7, 40), np.linspace(2.7, 6.3, 40)))
    move = next_levels(calibration, *HERE, TrustLevels(0.1, 0.35), TrustRule(0.8, 3.0), 0.6)
    assert move.levels.high_eV_A == pytest.approx(0.35 * 1.25)


def test_without_a_deviation_for_the_error_levels_stay() -> None:
    deviation = np.exp(np.random.default_rng(8).normal(-2, 0.7, 200))
    flat = fit_map(pairs_of(deviation, 5 * deviation**0.02))
    move = next_levels(flat, *HERE, NOW, TrustRule(0.8, 3.0), 0.3)
    assert flat.group(*HERE).informative
    assert move.levels == NOW and math.isnan(move.wanted_high_eV_A)
    assert "no deviation is small enough for an error of 3 eV/A; the trust levels stay" in move.reason


@pytest.mark.parametrize("start", [(0.8, 0.9), (0.1, 0.4), (0.02, 0.03), (3.0, 4.9), (0.21, 0.3)])
@pytest.mark.parametrize("wrong", [0.05, 1.0, 200.0])
def test_no_step_and_no_end_of_the_range_is_exceeded(start: tuple[float, float], wrong: float) -> None:
    deviation, _ = draw(np.random.default_rng(9), 400)
    calibration, levels = fit_map(pairs_of(deviation, wrong * deviation)), TrustLevels(*start)
    for _ in range(30):
        before, levels = levels, next_levels(calibration, *HERE, levels, RULE).levels
        for now, then in ((levels.low_eV_A, before.low_eV_A), (levels.high_eV_A, before.high_eV_A)):
            assert then / 1.2501 <= now <= then * 1.2501
            assert RANGE[0] * 0.999 <= now <= RANGE[1] * 1.001
    assert levels.high_eV_A / levels.low_eV_A >= RULE.min_ratio * (1 - 1e-12)


LEVEL = st.floats(0.02, 5)


@given(LEVEL, st.floats(0, 1e6) | st.just(math.inf), st.floats(0, 1e6), st.floats(1, 3))
def test_a_move_is_limited_and_monotone(now: float, one: float, other: float, factor: float) -> None:
    low, high = (limited_move(now, wanted, factor, RANGE) for wanted in sorted((one, other)))
    assert low <= high
    for found in (low, high):
        assert now / factor * (1 - 1e-12) <= found <= now * factor * (1 + 1e-12)
        assert RANGE[0] <= found <= RANGE[1]
    assert limited_move(now, now, factor, RANGE) == now


def test_nan_moves_nothing_and_a_level_out_of_range_comes_back_in_steps() -> None:
    assert limited_move(0.3, math.nan, 1.25, RANGE) == 0.3
    assert limited_move(10.0, 10.0, 1.25, RANGE) == 8.0
    assert limited_move(0.01, 0.0, 1.25, RANGE) == 0.0125


@pytest.mark.parametrize(
    "wrong",
    [
        {"low_error_eV_A": 1.0},
        {"low_error_eV_A": math.nan},
        {"max_factor": 0.9},
        {"min_ratio": 1.0},
        {"range_eV_A": (1.0, 1.1)},
        {"range_eV_A": (0.0, 1.0)},
        {"explored_share": 1.0},
    ],
)
def test_rules_that_contradict_themselves_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        TrustRule(**({"low_error_eV_A": 0.2, "high_error_eV_A": 1.0} | wrong))


@pytest.mark.parametrize("levels", [(0.4, 0.1), (0.1, 0.1), (0.0, 0.1), (0.1, math.inf), (math.nan, 1.0)])
def test_crossed_levels_are_refused(levels: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="0 < low < high"):
        TrustLevels(*levels)


def test_a_move_is_plain_json() -> None:
    move = next_levels(fit_map([]), *HERE, NOW, RULE)
    assert json.loads(json.dumps(plain(move), allow_nan=False))["wanted_low_eV_A"] is None
