"""Whether a set of curves, such as the partial g(r) of a glass, is the same over iterations or cell sizes.

Two ensembles of replicas are as far apart as the mean curves of their replicas: the integral of the absolute
difference, summed over the curves of a set by their weights. Replicas of one ensemble are apart as well. Were nothing
but their spread between the ensembles, the means of R_1 and R_2 replicas would be sqrt((1/R_1 + 1/R_2) / 2) times as
far apart as two single replicas of one ensemble, whatever the noise of a bin: normal deviations only differ in width.
That is the distance by chance, and what is beyond `FACTOR` times it differs; what is larger could go unnoticed where
that is more than what is tolerated. In simulations of three ensembles of three
replicas, chance alone went beyond it in 5 % of cases where the noise had five independent parts, in 1 % where it had
ten, in none of 1500 where it had thirty. A g(r) has hundreds of bins, but its peaks vary as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

FACTOR = 2.0
"""So many times the distance by chance is a difference."""


@dataclass(frozen=True)
class Curves:
    """The curves of one ensemble's replicas, and where they were measured: an iteration, a number of atoms.

    values: (replicas, curves, points), replicas >= 2.
    """

    at: float
    values: NDArray[np.float64]


@dataclass(frozen=True)
class CurveStability:
    """The two ensembles that are farthest apart by chance's measure: distance and that by chance, in the unit.

    verdict: "stable", "differs", "not resolved" (a tolerance is given, replicas are too far apart for it) or "unknown".
    """

    what: str
    unit: str
    pair: tuple[float, float] | None
    distance: float
    by_chance: float
    verdict: str
    sentence: str


def distance(
    one: NDArray[np.float64], other: NDArray[np.float64], x: NDArray[np.float64], weights: Sequence[float]
) -> float:
    """Return the weighted sum over curves of the integral of |one - other| over x; both (curves, points)."""
    return float(np.dot(weights, np.abs(one - other) @ np.gradient(x)))


def curve_stability(
    what: str,
    unit: str,
    measured: Sequence[Curves],
    x: NDArray[np.float64],
    weights: Sequence[float],
    *,
    along: str = "iterations",
    tolerance: float | None = None,
) -> CurveStability:
    """Compare the curves of every two ensembles on points x (points,); weights: one per curve.

    With a `tolerance` (in the unit) ensembles differ only if they are farther apart than that too, and are stable only
    if no larger distance could be chance. Fewer than two ensembles, one of a single replica, or a value that is not
    finite make the verdict "unknown".
    """
    if len(measured) < 2 or not all(len(own.values) > 1 and np.isfinite(own.values).all() for own in measured):
        told = f"{what}: unknown, {len(measured)} ensemble(s); two are needed, of two replicas or more each"
        return CurveStability(what, unit, None, math.nan, math.nan, "unknown", told)
    found = []
    for one, other in combinations(measured, 2):
        within = [
            distance(first, second, x, weights) for own in (one, other) for first, second in combinations(own.values, 2)
        ]
        shrinks = math.sqrt((1 / len(one.values) + 1 / len(other.values)) / 2)
        apart = distance(one.values.mean(axis=0), other.values.mean(axis=0), x, weights)
        found.append((apart, float(np.mean(within)) * shrinks, (one.at, other.at)))
    differ = [own for own in found if own[0] > max(FACTOR * own[1], tolerance or 0.0)]
    hidden = [own for own in found if tolerance is not None and FACTOR * own[1] > tolerance]
    verdict = "differs" if differ else "not resolved" if hidden else "stable"
    apart, chance, pair = max(differ or hidden or found, key=lambda own: (own[0] - FACTOR * own[1], own[0]))
    allowed = "" if tolerance is None else f", {tolerance:g} allowed"
    remedy = "; more replicas or larger cells would tell" if verdict == "not resolved" else ""
    sentence = (
        f"{what} over {along}: {verdict}; {pair[0]:g} and {pair[1]:g} are {apart:.3g} {unit} apart, "
        f"{chance:.3g} by the spread between replicas (up to {FACTOR:g} times that is chance{allowed}){remedy}"
    )
    return CurveStability(what, unit, pair, apart, chance, verdict, sentence)
