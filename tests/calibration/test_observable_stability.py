from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress

from alloop.selection.record import plain
from alloop.selection.stability import Measurement, drift, stability

NAN = math.nan


def series(*values: float, error: float = 0.01) -> list[Measurement]:
    return [Measurement(i, value, error) for i, value in enumerate(values)]


def test_two_values_by_hand() -> None:
    found = stability("4B", "of B", [Measurement(100, 0.30, 0.03), Measurement(300, 0.40, 0.04)], along="atoms")
    assert found.difference == pytest.approx(0.10) and found.standardised == pytest.approx(2.0)
    assert found.critical == pytest.approx(1.959964) and found.verdict == "differs"
    assert "over atoms 100 to 300" in found.sentence and found.pair == (100, 300)


def test_with_more_values_chance_reaches_further() -> None:
    found = stability("4B", "of B", series(0.40, 0.41, 0.40, 0.428))
    assert found.critical == pytest.approx(2.631, abs=0.001), "Sidak, six pairs"
    assert found.standardised == pytest.approx(0.028 / 0.01 / math.sqrt(2)) and found.verdict == "stable"


def test_equal_values_rarely_differ_and_no_more_often_than_said() -> None:
    rng = np.random.default_rng(1)
    found = [stability("x", "", series(*rng.normal(0, 0.01, 4))).verdict for _ in range(400)]
    assert 0 < found.count("differs") / 400 <= 0.07


def test_errors_of_few_replicas_are_uncertain_themselves() -> None:
    """Two means of three replicas, equally spread: Student's t of 4 degrees of freedom, 2.776 for 1.960."""
    own = [Measurement(0, 0.30, 0.03, 3), Measurement(1, 0.40, 0.03, 3)]
    assert stability("4B", "of B", own).critical == pytest.approx(2.7764, abs=1e-4)
    assert stability("4B", "of B", own).verdict == "stable"
    known = [Measurement(m.at, m.value, m.standard_error) for m in own]
    assert stability("4B", "of B", known).verdict == "differs"
    assert stability("4B", "of B", [own[0], Measurement(1, 0.4, 0.03, 1)]).verdict == "unknown"
    assert stability("4B", "of B", [Measurement(i, 0.4, 0.0, 3) for i in range(2)]).verdict == "stable"


def test_three_replicas_of_equal_glasses_rarely_differ() -> None:
    rng = np.random.default_rng(3)
    verdicts = []
    for _ in range(400):
        drawn = rng.normal(0.4, 0.02, (3, 3))
        errors = drawn.std(axis=1, ddof=1) / math.sqrt(3)
        own = [Measurement(i, m, e, 3) for i, (m, e) in enumerate(zip(drawn.mean(axis=1), errors, strict=True))]
        verdicts.append(stability("4B", "of B", own).verdict)
    assert verdicts.count("differs") / 400 <= 0.06


def test_a_tolerance_asks_for_errors_small_enough() -> None:
    assert stability("4B", "of B", series(0.40, 0.41), tolerance=0.02).verdict == "not resolved"
    assert stability("4B", "of B", series(0.40, 0.41, error=0.001), tolerance=0.02).verdict == "stable"
    assert stability("4B", "of B", series(0.40, 0.45, error=0.001), tolerance=0.02).verdict == "differs"
    assert stability("4B", "of B", series(0.40, 0.41, error=0.001)).verdict == "differs", "without tolerance"


@pytest.mark.parametrize("values", [[], series(0.4), series(0.4, NAN), series(0.4, 0.4, error=NAN)])
def test_nothing_to_compare_is_unknown(values: list[Measurement]) -> None:
    found = stability("4B", "of B", values)
    assert found.verdict == "unknown" and found.pair is None
    json.dumps(plain(found), allow_nan=False)
    assert stability("4B", "of B", [Measurement(0, 1, -1), Measurement(1, 1, 1)]).verdict == "unknown"


def test_values_without_errors() -> None:
    assert stability("4B", "of B", series(0.4, 0.4, error=0)).verdict == "stable"
    found = stability("4B", "of B", series(0.4, 0.5, 0.4, error=0))
    assert found.verdict == "differs" and math.isinf(found.standardised)
    json.dumps(plain(found), allow_nan=False)


def test_the_drift_of_a_line_by_hand() -> None:
    found = drift("4B", "of B", series(0.9, 0.30, 0.32, 0.34), last=3)
    assert found.slope == pytest.approx(0.02) and found.standard_error == pytest.approx(0.01 / math.sqrt(2))
    assert found.points == 3 and found.verdict == "drifts"
    assert drift("4B", "of B", series(0.30, 0.305, 0.30), last=3).verdict == "no drift"


def test_without_errors_the_scatter_decides() -> None:
    values = [0.30, 0.33, 0.35, 0.36]
    found, line = drift("4B", "of B", series(*values, error=0)), linregress(range(4), values)
    assert found.slope == pytest.approx(line.slope) and found.p_value == pytest.approx(line.pvalue)
    assert drift("4B", "of B", series(0.3, 0.3, 0.3, error=0)).verdict == "no drift"
    assert drift("4B", "of B", series(0.25, 0.5, 0.75, error=0)).verdict == "drifts"


def test_measurements_weigh_by_their_errors() -> None:
    own = [*series(0.3, 0.3, 0.3, error=0.001), Measurement(3, 0.9, 10.0)]
    assert drift("4B", "of B", own).verdict == "no drift"


def test_no_drift_is_called_drift_as_rarely_as_said() -> None:
    rng = np.random.default_rng(2)
    found = [drift("x", "", series(*rng.normal(0, 0.01, 4))).verdict for _ in range(400)]
    assert 0.02 <= found.count("drifts") / 400 <= 0.08


def test_what_allows_no_line_is_unknown() -> None:
    mixed = [*series(0.3, 0.4), Measurement(2, 0.5, 0.0)]
    same_place = [Measurement(1, 0.3, 0.1)] * 3
    for own in ([], series(0.1, 0.2), series(0.1, NAN, 0.2), mixed, same_place):
        found = drift("4B", "of B", own)
        assert found.verdict == "unknown" and math.isnan(found.slope)
        json.dumps(plain(found), allow_nan=False)
    with pytest.raises(ValueError, match="at least 3"):
        drift("4B", "of B", series(0.1, 0.2, 0.3), last=2)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.floats(-10, 10), st.floats(0.01, 1)), min_size=3, max_size=8),
    st.integers(0, 99),
    st.floats(-5, 5),
)
def test_order_and_a_common_shift_do_not_matter(values: list[tuple[float, float]], seed: int, shift: float) -> None:
    own = [Measurement(i, value, error) for i, (value, error) in enumerate(values)]
    shuffled = list(own)
    random.Random(seed).shuffle(shuffled)
    assert drift("x", "", shuffled) == drift("x", "", own)
    assert stability("x", "", shuffled).standardised == pytest.approx(stability("x", "", own).standardised)
    moved = [Measurement(m.at, m.value + shift, m.standard_error) for m in own]
    assert drift("x", "", moved).slope == pytest.approx(drift("x", "", own).slope, abs=1e-9)
    assert stability("x", "", moved).standardised == pytest.approx(stability("x", "", own).standardised, abs=1e-9)
