from __future__ import annotations

import numpy as np
import pytest

from alloop.selection.convergence import curve_criterion
from alloop.selection.curves import FACTOR, Curves, curve_stability, distance

X = np.linspace(0.0, 5.0, 101)
WEIGHTS = [0.5, 0.3, 0.2]


def replicas(at: float, seed: int, count: int = 3, shift: float = 0.0, noise: float = 0.1) -> Curves:
    """Three curves with a peak each, bins with noise of their own; shift: in A, of the first curve's peak."""
    rng = np.random.default_rng(seed)
    peaks = np.array([2 * np.exp(-(((X - at_A) / 0.3) ** 2)) for at_A in (1.5 + shift, 2.5, 3.5)])
    return Curves(at, peaks + noise * rng.normal(size=(count, 3, len(X))))


def judged(*ensembles: Curves, along: str = "iterations") -> str:
    return curve_stability("g(r) of glass", "A", ensembles, X, WEIGHTS, along=along).verdict


def test_the_distance_is_the_weighted_area_between_curves() -> None:
    flat = np.zeros((3, len(X)))
    assert distance(flat, np.add(flat, [[1.0], [-2.0], [0.0]]), X, WEIGHTS) == pytest.approx(
        5 * (0.5 + 2 * 0.3), rel=0.02
    )


def test_chance_alone_makes_the_distance_it_is_said_to_make() -> None:
    """Two, three and five replicas of one and the same ensemble: the ratio is about one."""
    for count in (2, 3, 5):
        found = [
            curve_stability("g", "A", [replicas(0, 2 * n, count), replicas(1, 2 * n + 1, count + 1)], X, WEIGHTS)
            for n in range(40)
        ]
        ratios = [one.distance / one.by_chance for one in found]
        assert np.mean(ratios) == pytest.approx(1.0, abs=0.1) and max(ratios) < FACTOR


def test_a_peak_that_has_moved_or_grown_is_a_difference() -> None:
    same = [replicas(n, n) for n in range(3)]
    assert judged(*same) == "stable"
    assert judged(*same, replicas(3, 3, shift=0.4)) == "differs"
    assert judged(replicas(3, 3, shift=0.4, noise=3.0), *[replicas(n, n, noise=3.0) for n in range(3)]) == "stable"
    grown = Curves(3, same[0].values * 1.8)
    told = curve_stability("g(r) of glass", "A", [*same, grown], X, WEIGHTS)
    assert told.verdict == "differs" and told.pair is not None and 3 in told.pair
    assert curve_criterion(told).state == "unmet" and "apart" in told.sentence


def test_noise_is_no_stability() -> None:
    def found(tolerance: float, *ensembles: Curves) -> str:
        told = curve_stability("g", "A", ensembles, X, WEIGHTS, tolerance=tolerance)
        states = {"stable": "met", "differs": "unmet", "not resolved": "unknown"}
        assert curve_criterion(told).state == states[told.verdict]
        assert f"{tolerance:g} allowed" in told.sentence
        return told.verdict

    quiet, noisy = ([replicas(n, n, noise=noise) for n in range(2)] for noise in (0.1, 3.0))
    assert found(1.0, *quiet) == "stable"
    assert found(1.0, *noisy) == "not resolved"
    assert found(1.0, *quiet, noisy[1]) == "not resolved", "one noisy ensemble is enough"
    moved = replicas(3, 3, shift=0.4)
    assert found(0.2, *quiet, moved) == "differs"
    assert found(2.0, *quiet, moved) == "stable", "significant, but allowed"


def test_what_is_of_no_weight_decides_nothing() -> None:
    one, other = replicas(0, 0), replicas(1, 1, shift=0.5)
    assert curve_stability("g", "A", [one, other], X, [0.0, 0.5, 0.5]).verdict == "stable"


def test_too_little_tells_nothing() -> None:
    for ensembles in ([], [replicas(0, 0)], [replicas(0, 0), replicas(1, 1, count=1)]):
        assert curve_criterion(curve_stability("g", "A", ensembles, X, WEIGHTS)).state == "unknown"
    broken = replicas(1, 1)
    broken.values[0, 0, 0] = np.nan
    assert judged(replicas(0, 0), broken) == "unknown"


def test_equal_curves_without_spread_are_equal() -> None:
    assert judged(replicas(0, 0, noise=0.0), replicas(1, 1, noise=0.0)) == "stable"
