from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson

from alloop.selection.convergence import rate_criterion
from alloop.selection.rates import Replicas, compare_rates, paired_agreement, replicas_from_counts
from alloop.selection.record import plain

PS = (20.0, 20.0, 20.0)


def share(*rates: float) -> Replicas:
    return Replicas(rates, "of Si")


def test_the_error_of_a_difference_is_that_between_replicas() -> None:
    found = compare_rates("5Si", share(0.10, 0.12, 0.14), share(0.08, 0.10, 0.12))
    assert found.difference == pytest.approx(0.02)
    assert found.standard_error == pytest.approx(math.sqrt(2 * 0.02**2 / 3))
    assert found.verdict == "agrees" and found.noticeable == pytest.approx(2 * found.standard_error)
    assert "would be noticed" in found.sentence


def test_beyond_k_errors_rates_differ() -> None:
    first, second = share(0.10, 0.12, 0.14), share(0.05, 0.07, 0.09)
    assert compare_rates("5Si", first, second).verdict == "differs"
    assert compare_rates("5Si", first, second, k=4).verdict == "agrees"


def test_of_some_events_fewer_are_fine() -> None:
    few, many = share(0.0, 0.0, 0.0), share(0.02, 0.025, 0.03)
    assert compare_rates("overlap", few, many).verdict == "differs"
    found = compare_rates("overlap", few, many, rarer_is_fine=True)
    assert found.verdict == "agrees" and "agrees, being rarer" in found.sentence
    assert compare_rates("overlap", many, few, rarer_is_fine=True).verdict == "differs"


def test_agreement_that_could_hide_too_much_is_not_resolved() -> None:
    noisy, none = share(0.0, 0.1, 0.2), share(0.0, 0.0, 0.0)
    found = compare_rates("5Si", noisy, none, tolerance=0.05)
    assert found.verdict == "not resolved" and "more or longer trajectories" in found.sentence
    assert rate_criterion(found).state == "unknown"
    assert compare_rates("5Si", noisy, none, tolerance=0.12).verdict == "agrees"
    assert compare_rates("5Si", none, noisy, tolerance=0.05, rarer_is_fine=True).verdict == "agrees", "surely rarer"
    assert compare_rates("5Si", share(0.3, 0.31, 0.32), none, tolerance=0.05).verdict == "differs"


@pytest.mark.parametrize("few", [(), (0.1,), (0.1, 0.1)])
def test_too_few_replicas_of_either(few: tuple[float, ...]) -> None:
    enough = share(0.1, 0.2, 0.3)
    for pair in ((share(*few), enough), (enough, share(*few))):
        found = compare_rates("5Si", *pair)
        assert found.verdict == "too few replicas" and "3 of each needed" in found.sentence
        json.dumps(plain(found), allow_nan=False)


def test_two_replicas_do_if_told_so() -> None:
    assert compare_rates("5Si", share(0.1, 0.2), share(0.1, 0.2), least_replicas=2).verdict == "agrees"


def test_an_event_never_seen_is_bounded_by_the_rule_of_three() -> None:
    never = replicas_from_counts([0, 0, 0], PS, "per ps")
    assert never.upper_bound == pytest.approx(3 / 60)
    assert poisson.pmf(0, never.upper_bound * 60) == pytest.approx(0.05, abs=0.001)
    found = compare_rates("overlap", never, never)
    assert found.verdict == "agrees" and "never seen, below 0.05" in found.sentence
    assert found.ensemble_upper_bound == found.labeler_upper_bound == pytest.approx(0.05)
    assert found.noticeable > 0, "never seen is not never"


@pytest.mark.parametrize(("events", "verdict"), [(3, "agrees"), (6, "differs"), (30, "differs")])
def test_seen_by_one_only(events: int, verdict: str) -> None:
    """Exact test of 0 against N events in equal times: p = 2^(1-N), 0.25 for three and 0.03 for six."""
    counts = [events // 3] * 3
    never, often = replicas_from_counts([0, 0, 0], PS, "per ps"), replicas_from_counts(counts, PS, "per ps")
    assert compare_rates("overlap", never, often).verdict == verdict
    assert compare_rates("overlap", often, never).verdict == verdict


def test_equal_counts_are_not_known_exactly() -> None:
    """One event in each of three replicas: no spread between them, but the error of three independent events."""
    found = replicas_from_counts([1, 1, 1], PS, "per ps")
    assert found.standard_error == pytest.approx(math.sqrt(3) / 60)


def test_without_exposure_nothing_is_said_of_rarity() -> None:
    never = share(0, 0, 0)
    assert never.upper_bound is None and never.standard_error == 0
    assert compare_rates("5Si", never, never).verdict == "agrees"
    assert compare_rates("5Si", never, share(0.01, 0.01, 0.01)).verdict == "differs"


def test_counts_of_one_rate_agree_about_as_often_as_two_errors_should() -> None:
    rng = np.random.default_rng(1)
    verdicts = [
        compare_rates(
            "overlap",
            *(replicas_from_counts(rng.poisson(8, 5).tolist(), [20.0] * 5, "per ps") for _ in range(2)),
        ).verdict
        for _ in range(400)
    ]
    assert 0.93 <= verdicts.count("agrees") / 400 <= 0.99


@pytest.mark.parametrize(
    "wrong",
    [
        {"rates": (0.1, -0.1)},
        {"rates": (math.nan,)},
        {"rates": (0.1,), "exposures": (1.0, 2.0)},
        {"rates": (0.1,), "exposures": (0.0,)},
    ],
)
def test_rates_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Replicas(**wrong, unit="per ps")


def test_counts_without_their_exposures_and_different_units_are_refused() -> None:
    with pytest.raises(ValueError, match="2 counts and 1 exposures"):
        replicas_from_counts([1, 2], [1.0], "per ps")
    with pytest.raises(ValueError, match="positive"):
        replicas_from_counts([1], [0.0], "per ps")
    with pytest.raises(ValueError, match="one unit"):
        compare_rates("x", share(0.1), Replicas((0.1,), "per ps"))
    with pytest.raises(ValueError, match="least_replicas"):
        compare_rates("x", share(0.1), share(0.1), least_replicas=1)


# ---- the same things judged twice


def answers(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    pairs = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither
    return [a for a, _ in pairs], [b for _, b in pairs]


def test_mcnemar_s_exact_test() -> None:
    """2 against 10 of 12 that differ: twice the binomial tail, 2 (1 + 12 + 66) / 2^12."""
    found = paired_agreement("5Si", *answers(40, 2, 10, 48))
    assert found.p_value == pytest.approx(2 * 79 / 4096)
    assert (found.both, found.only_first, found.only_second, found.neither) == (40, 2, 10, 48)
    assert found.agreement == pytest.approx(0.88) and found.difference == pytest.approx(-0.08)
    assert "one of them sees it more often" in found.sentence


def test_the_interval_of_the_difference_by_hand() -> None:
    """Half a count added to each: (2.5 - 10.5) / 102, variance (13/102 - (8/102)^2) / 102."""
    found = paired_agreement("5Si", *answers(40, 2, 10, 48))
    reach = 1.959964 * math.sqrt((13 / 102 - (8 / 102) ** 2) / 102)
    assert found.difference_low == pytest.approx(-8 / 102 - reach, rel=1e-6)
    assert found.difference_high == pytest.approx(-8 / 102 + reach, rel=1e-6)


@pytest.mark.parametrize("counts", [(5, 0, 0, 5), (0, 0, 0, 7), (1, 0, 0, 0), (0, 3, 3, 0), (0, 1, 0, 0)])
def test_no_leaning(counts: tuple[int, int, int, int]) -> None:
    found = paired_agreement("5Si", *answers(*counts))
    assert found.p_value == 1
    assert -1 <= found.difference_low <= found.difference <= found.difference_high <= 1
    assert 0 <= found.agreement_low <= found.agreement <= found.agreement_high <= 1
    assert "neither leans" in found.sentence


def test_nothing_compared_and_unequal_shapes() -> None:
    found = paired_agreement("5Si", [], [])
    assert found.judged == 0 and math.isnan(found.p_value) and "nothing was compared yet" in found.sentence
    json.dumps(plain(found), allow_nan=False)
    with pytest.raises(ValueError, match="one of each for each thing"):
        paired_agreement("5Si", [True], [True, False])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_swapping_the_judges_turns_the_sign(pairs: list[Any], random: Any) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)
    found = paired_agreement("x", *zip(*pairs, strict=True))
    assert paired_agreement("x", *zip(*shuffled, strict=True)) == found
    swapped = paired_agreement("x", *[[own[i] for own in pairs] for i in (1, 0)])
    assert swapped.p_value == found.p_value and swapped.difference_low == pytest.approx(-found.difference_high)
