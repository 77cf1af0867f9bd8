from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pytest
from calibration_kit import draw, pairs_of, some_pairs

from alloop.selection.calibration import AuditPair, fit_map
from alloop.selection.coverage import (
    UNCHANGED,
    Foretold,
    Widening,
    WideningRule,
    coverage,
    prequential,
    widened,
    widening,
)
from alloop.selection.record import plain


def campaign(seed: int, factors: list[float], count: int = 40) -> list[AuditPair]:
    """Pairs of one iteration for each factor that the errors are multiplied by."""
    rng = np.random.default_rng(seed)
    found = []
    for iteration, factor in enumerate(factors):
        deviation, error = draw(rng, count)
        found += pairs_of(deviation, factor * error, iteration=iteration)
    return found


def outcomes(errors_over_bound: list[float], iteration: int = 1, bound: float = 1.0) -> list[Foretold]:
    return [
        Foretold(pair, bound / 2, bound, bound, "all pairs", 1000)
        for pair in pairs_of(np.ones(len(errors_over_bound)), np.array(errors_over_bound), iteration=iteration)
    ]


def test_pairs_are_tested_before_they_join() -> None:
    """The first iteration has no map; the second is judged by the first alone, wherever its own errors lie."""
    pairs = campaign(1, [1.0, 100.0])
    found = prequential(pairs)
    first, second = found[:40], found[40:]
    assert not any(one.testable for one in first)
    alone = fit_map(pairs[:40])
    for one in second:
        assert one.bound_eV_A == alone.predict(one.pair.deviation_eV_A, "LBS", "2000K").bound_eV_A
    assert coverage(found, 0.9)[0].covered == 0


def test_a_map_has_the_pairs_that_were_known_when_its_iteration_began() -> None:
    pairs = campaign(5, [1.0, 30.0, 30.0])
    late = prequential(pairs, had={2: {0}})
    alone = fit_map(pairs[:40])
    for one in late[80:]:
        assert one.bound_eV_A == alone.predict(one.pair.deviation_eV_A, "LBS", "2000K").bound_eV_A
        assert one.issued_bound_eV_A == one.bound_eV_A, "that iteration 1 broke its promise was not known either"
    at_once = prequential(pairs)
    assert late[:80] == at_once[:80]
    assert all(one.issued_bound_eV_A > one.bound_eV_A for one in at_once[80:])


def test_the_order_of_the_pairs_does_not_matter() -> None:
    pairs = campaign(2, [1.0, 1.0, 2.0])
    shuffled = list(pairs)
    random.Random(1).shuffle(shuffled)
    assert prequential(shuffled) == prequential(pairs)


def test_exchangeable_pairs_keep_the_promise() -> None:
    """Over twenty campaigns: all together near 90 %, and rarely called broken (2.5 % by chance) or widened."""
    reports = [(found := prequential(campaign(seed, [1.0] * 6)), coverage(found, 0.9)[0]) for seed in range(20)]
    share = sum(report.covered for _, report in reports) / sum(report.tested for _, report in reports)
    assert 0.88 < share < 0.93
    assert sum(report.verdict == "broken" for _, report in reports) <= 2
    assert sum(widening(found, 0.9).active for found, _ in reports) <= 1


def test_exchangeability_broken_on_purpose_is_reported_and_widens() -> None:
    found = prequential(campaign(3, [1.0, 1.0, 1.0, 4.0]), rule=WideningRule(last_iterations=1))
    report = coverage(found, 0.9)[0]
    assert report.verdict == "broken" and "broken" in report.sentence
    wide = widening(found, 0.9, WideningRule(last_iterations=1))
    assert wide.bound_factor == pytest.approx(4, rel=0.4) and wide.expected_factor == pytest.approx(4, rel=0.4)
    assert "significantly less than 80%" in wide.reason


def test_widened_bounds_hold_at_once_and_narrow_again_when_the_map_is_right() -> None:
    rule = WideningRule(last_iterations=1)
    pairs = campaign(4, [1, 1, 1, 4, 4, 4, 4, 4, 4])
    found = prequential(pairs, rule=rule)
    by_iteration = [[one for one in found if one.pair.iteration == i] for i in range(9)]

    def share(tests: list[Foretold]) -> float:
        return sum(one.pair.error_eV_A <= one.issued_bound_eV_A for one in tests) / len(tests)

    assert share(by_iteration[3]) < 0.6
    assert share(by_iteration[4]) > 0.8
    factors = [tests[0].issued_bound_eV_A / tests[0].bound_eV_A for tests in by_iteration[1:]]
    assert factors[2] == 1 and factors[3] > 2
    assert factors[-1] < factors[3]


def test_a_group_that_breaks_the_promise_is_named() -> None:
    pairs = campaign(5, [1.0] * 4)
    for iteration, factor in enumerate([1.0, 6.0, 6.0, 6.0]):
        deviation, error = draw(np.random.default_rng(iteration), 12)
        pairs += pairs_of(deviation, factor * error, "odd", iteration=iteration)
    found = {(own.glass, own.band): own for own in coverage(prequential(pairs), 0.9)}
    assert found["odd", "2000K"].verdict == "broken"
    assert found["LBS", "2000K"].verdict in ("kept", "too wide")
    assert next(iter(found)) == (None, None)


@pytest.mark.parametrize(
    ("covered", "total", "active"), [(13, 20, False), (12, 20, True), (0, 1, False), (1, 3, False)]
)
def test_widening_needs_significance(covered: int, total: int, active: bool) -> None:
    """P(at most 12 of 20 at 80 %) = 0.032, at most 13: 0.087; 1 of 3: 0.104; 0 of 1: 0.2."""
    found = widening(outcomes([0.5] * covered + [2.0] * (total - covered)), 0.9)
    assert found.active == active
    assert found == UNCHANGED or found.bound_factor == pytest.approx(2)


def test_only_the_last_iterations_count_for_widening() -> None:
    old, new = outcomes([3.0] * 30, iteration=1), outcomes([0.5] * 30, iteration=5)
    assert not widening(old + new, 0.9).active
    assert widening(old, 0.9).active


def test_a_factor_is_limited_also_for_errors_that_are_no_numbers() -> None:
    assert widening(outcomes([1e9] * 20), 0.9, WideningRule(max_factor=8)).bound_factor == 8
    assert widening(outcomes([math.nan] * 20), 0.9, WideningRule(max_factor=8)).bound_factor == 8


def test_nothing_tested() -> None:
    assert prequential([]) == []
    assert widening([], 0.9) == UNCHANGED
    (only,) = coverage([], 0.9)
    assert (only.verdict, only.low, only.high) == ("untested", 0.0, 1.0)
    (first, *_) = coverage(prequential(some_pairs(1, 30)), 0.9)
    assert first.untested == 30 and "no bound has been tested yet" in first.sentence


def test_the_interval_is_clopper_and_pearson_s() -> None:
    """All of n: the lower end is (alpha/2)^(1/n)."""
    (report, *_) = coverage(outcomes([0.5] * 10), 0.9)
    assert report.low == pytest.approx(0.025**0.1) and report.high == 1
    (wide, *_) = coverage(outcomes([0.5] * 100), 0.9)
    assert wide.verdict == "too wide"


def test_a_widened_map_multiplies_errors_and_divides_levels() -> None:
    calibration = fit_map(some_pairs(6, 200))
    wide = widened(calibration, Widening(2.0, 3.0, "test"))
    one, other = (own.predict(0.1, "LBS", "2000K") for own in (calibration, wide))
    assert other.expected_eV_A == pytest.approx(2 * one.expected_eV_A)
    assert other.bound_eV_A == pytest.approx(3 * one.bound_eV_A)
    assert wide.deviation_at(0.3, "LBS", "2000K") < calibration.deviation_at(0.3, "LBS", "2000K")


@pytest.mark.parametrize(
    "wrong", [{"least_coverage": 0}, {"significance": 1}, {"last_iterations": 0}, {"max_factor": 0.5}]
)
def test_rules_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="found"):
        WideningRule(**wrong)


def test_reports_are_plain_json() -> None:
    found = prequential(campaign(7, [1.0, 1.0]))
    text = json.dumps(plain([coverage(found, 0.9), widening(found, 0.9), found[0]]), allow_nan=False)
    assert json.loads(text)[2]["bound_eV_A"] is None, "infinite"
