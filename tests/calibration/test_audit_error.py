from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.selection.audit_error import LEAST_FOR_BOOTSTRAP, AuditLabel, audit_error, audit_errors, stratum_weights
from alloop.selection.record import plain


def label(trajectory: str, rmse: float, components: int = 300, **about: Any) -> AuditLabel:
    return AuditLabel(**({"glass": "LBS", "band": "300K"} | about), **of(trajectory, rmse, components))


def of(trajectory: str, rmse: float, components: int) -> dict[str, Any]:
    return {"trajectory": trajectory, "squared_error_eV2_A2": rmse**2 * components, "components": components}


def clustered(rng: np.random.Generator, trajectories: int, each: int = 3) -> list[AuditLabel]:
    """Labels whose mean squared errors vary between trajectories more than within; 0.04 (eV/Å)² in the mean."""
    found = []
    for t in range(trajectories):
        own = 0.04 * rng.gamma(4, 1 / 4)
        found += [label(f"t{t}", math.sqrt(own * rng.gamma(20, 1 / 20))) for _ in range(each)]
    return found


def test_the_error_is_that_over_all_components() -> None:
    found = audit_error([label("a", 0.1, 300), label("b", 0.2, 900)])
    assert found.rmse_eV_A == pytest.approx(math.sqrt((0.01 * 300 + 0.04 * 900) / 1200))
    assert (found.labels, found.trajectories) == (2, 2)


def test_one_trajectory_has_no_interval_and_says_so() -> None:
    found = audit_error([label("a", 0.1), label("a", 0.2), label("a", 0.3)])
    assert found.low_eV_A is None and found.high_eV_A is None
    assert "one trajectory" in found.sentence and found.rmse_eV_A > 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_an_error_that_is_no_number_has_no_interval(wrong: float) -> None:
    found = audit_error([label(f"t{n}", 0.1) for n in range(40)] + [label("x", wrong)])
    assert not math.isfinite(found.rmse_eV_A) and found.low_eV_A is None
    assert "not a finite number" in found.reason
    json.dumps(plain(found), allow_nan=False)


@pytest.mark.parametrize("count", [5, 60])
def test_errors_that_do_not_vary_have_an_interval_of_no_width(count: int) -> None:
    found = audit_error([label(f"t{n}", 0.1) for n in range(count)])
    assert found.low_eV_A == pytest.approx(0.1) and found.high_eV_A == pytest.approx(0.1)
    zero = audit_error([label(f"t{n}", 0.0) for n in range(count)])
    assert (zero.rmse_eV_A, zero.low_eV_A, zero.high_eV_A) == (0, 0, 0)


def test_all_error_in_one_of_two_trajectories() -> None:
    found = audit_error([label("a", 0.0), label("b", 0.3)])
    assert found.low_eV_A is not None and found.high_eV_A is not None
    assert found.low_eV_A < found.rmse_eV_A < found.high_eV_A, "wide, and no warning"


@pytest.mark.parametrize("trajectories", [6, 30, 60])
def test_intervals_hold_the_truth_as_often_as_they_say(trajectories: int) -> None:
    """Nominal 90 %; with labels taken as independent the intervals would hold it in two of three draws."""
    rng = np.random.default_rng(trajectories)
    draws = 200
    found = [audit_error(clustered(rng, trajectories), confidence=0.9, seed=n) for n in range(draws)]
    assert {own.method for own in found} == {"bca" if trajectories >= LEAST_FOR_BOOTSTRAP else "jackknife"}
    held = sum((own.low_eV_A or 0) <= 0.2 <= (own.high_eV_A or 0) for own in found) / draws
    assert 0.83 <= held <= 0.96


def test_trajectories_not_labels_decide_the_width() -> None:
    rng = np.random.default_rng(3)
    base = [label(f"t{n}", 0.2 * rng.gamma(4, 1 / 4)) for n in range(55)]
    one, tenfold = audit_error(base), audit_error(base * 10)
    assert (tenfold.low_eV_A, tenfold.high_eV_A) == (pytest.approx(one.low_eV_A), pytest.approx(one.high_eV_A))
    assert tenfold.labels == 550 and tenfold.trajectories == 55


def test_trajectories_of_one_name_in_two_glasses_are_two() -> None:
    assert audit_error([label("t0", 0.1, glass="A"), label("t0", 0.2, glass="B")]).trajectories == 2


def test_groups_are_all_then_by_band_by_glass_and_both() -> None:
    labels = [label(f"t{n}", 0.1 + n / 10, glass="AB"[n % 2], band=("300K", "2000K")[n // 2]) for n in range(4)]
    found = {(own.glass, own.band): own for own in audit_errors(labels)}
    assert next(iter(found)) == (None, None)
    assert len(found) == 9
    assert found["A", "300K"].rmse_eV_A == pytest.approx(0.1) and found["B", "2000K"].rmse_eV_A == pytest.approx(0.4)
    assert found["A", None].labels == 2
    assert audit_errors([]) == []


def test_weights_undo_an_unequal_draw() -> None:
    """900 easy frames and 100 hard ones, 10 labels of each: the error is that of all frames, not that of the labels."""
    strata = ["easy"] * 10 + ["hard"] * 10
    weights, missing = stratum_weights(strata, {"easy": 900, "hard": 100})
    assert missing == [] and set(weights) == {90.0, 10.0}
    labels = [
        label(f"t{n}", 0.1 if stratum == "easy" else 0.5, weight=weight)
        for n, (stratum, weight) in enumerate(zip(strata, weights, strict=True))
    ]
    assert audit_error(labels).rmse_eV_A == pytest.approx(math.sqrt(0.9 * 0.01 + 0.1 * 0.25))


def test_strata_without_a_label_are_named_and_labels_without_frames_refused() -> None:
    assert stratum_weights(["a"], {"a": 5, "b": 7, "c": 0}) == ([5.0], ["b"])
    assert stratum_weights([], {"a": 5}) == ([], ["a"])
    with pytest.raises(ValueError, match="labels of 'z', of which no frame was seen"):
        stratum_weights(["z"], {"a": 5})


def test_what_is_no_label_is_refused() -> None:
    with pytest.raises(ValueError, match="no labels"):
        audit_error([])
    for wrong in ({"components": 0}, {"weight": 0.0}, {"weight": math.nan}):
        with pytest.raises(ValueError, match="components"):
            AuditLabel(
                **({"components": 3} | {"trajectory": "a", "glass": "", "band": ""} | wrong), squared_error_eV2_A2=1.0
            )


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 70), st.integers(0, 1000))
def test_the_order_of_labels_and_a_common_weight_do_not_matter(count: int, seed: int) -> None:
    labels = clustered(np.random.default_rng(seed), count)
    shuffled = list(labels)
    random.Random(seed).shuffle(shuffled)
    assert audit_error(shuffled, seed=seed) == audit_error(labels, seed=seed)
    heavier = [AuditLabel(**{**vars(own), "weight": 4.0}) for own in labels]
    assert audit_error(heavier, seed=seed).high_eV_A == pytest.approx(audit_error(labels, seed=seed).high_eV_A)
