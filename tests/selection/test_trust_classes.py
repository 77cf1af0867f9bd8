from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from alloop.selection.classes import CLASSES, class_codes, classify

INF, NAN = math.inf, math.nan


def test_boundaries_belong_to_the_higher_class() -> None:
    """As in DP-GEN: accurate below the low level, candidate from there to below the high one, failed from there."""
    below_low, below_high = np.nextafter(0.25, 0), np.nextafter(1.0, 0)
    found = classify(np.array([0.0, below_low, 0.25, below_high, 1.0, 50.0]), 0.25, 1.0)
    assert found.tolist() == ["accurate", "accurate", "candidate", "candidate", "failed", "failed"]


def test_what_is_not_finite_is_failed() -> None:
    assert classify(np.array([NAN, INF]), 0.25, 1.0).tolist() == ["failed", "failed"]


def test_numbers_of_classes_are_one_byte_each() -> None:
    deviations = np.array([0.1, 0.5, 3.0, NAN, INF, -INF])
    codes = class_codes(deviations.astype(np.float32), 0.25, 1.0)
    assert codes.dtype == np.int8
    assert [CLASSES[code] for code in codes] == ["accurate", "candidate", "failed", "failed", "failed", "failed"]
    assert classify(deviations, 0.25, 1.0).tolist() == [CLASSES[code] for code in codes]


def test_levels_are_compared_with_as_they_are_without_a_sign_removed() -> None:
    """Only a fault makes a deviation negative; that must not look like a large one."""
    assert classify(np.array([-5.0, 5.0]), 0.25, 1.0).tolist() == ["accurate", "failed"]


def test_no_frame_and_a_single_number() -> None:
    assert classify(np.array([]), 0.25, 1.0).shape == (0,)
    assert classify(np.array(0.3), 0.25, 1.0).item() == "candidate"


@given(st.lists(st.floats(0, 5) | st.just(NAN)), st.floats(0.01, 1), st.floats(1.01, 4))
def test_classes_are_a_partition_in_order_of_deviation(values: list[float], low: float, high: float) -> None:
    found = classify(np.array(values), low, high)
    assert set(found) <= {"accurate", "candidate", "failed"}
    for value, name in zip(values, found, strict=True):
        expected = "accurate" if value < low else "candidate" if low <= value < high else "failed"
        assert name == expected
