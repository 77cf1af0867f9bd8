"""What further labels would bring: a power law through the error of each ensemble against its number of labels.

error(n) = a n^-b + c: learning curves of regression fall as powers of the number of samples (C. Cortes et al., Adv.
Neural Inf. Process. Syst. 6, 327 (1994); of forces and energies: B. Huang, O. A. von Lilienfeld, J. Chem. Phys. 145,
161102 (2016)). c is the floor that no number of labels removes. A few points rarely show whether there is one, and a
straight line through a curve that levels off foretells too much with too much confidence. So both are averaged
over (J. A. Hoeting et al., Stat. Sci. 14, 382 (1999)): half of the prior weight is on c = 0, half spread evenly over c
between 0 and the smallest error; the weight of each c is its likelihood with the best a and b, S^(-(n-2)/2) where S is
the sum of squared residuals of ln error; around those, ln a and b are drawn from Student's distribution of n - 2
degrees of freedom. Values are medians of such draws, intervals their quantiles. Below `LEAST_POINTS_WITH_FLOOR`
points c = 0 is all that can be fitted, and intervals are those of a straight line.

Errors of all ensembles should be of one held-out set; what its choice adds to all of them alike does not touch b.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
FLOORS = 60
"""On so many floors, evenly spaced, curves are fitted."""

LEAST_POINTS = 3
LEAST_POINTS_WITH_FLOOR = 5

Draw = NDArray[np.float64]
"""One parameter in DRAWS curves: a n^-b at the last ensemble's n, b, or c."""


@dataclass(frozen=True)
class Interval:
    """A value and where it lies with the confidence asked for; what is infinite is out of reach."""

    value: float
    low: float
    high: float


NOTHING_KNOWN = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class LearningCurve:
    """error(n) = a n^-b + c, eV/Å, through (labels, errors), each (points,), ordered.

    relative_errors: standard errors as a share of the errors, None if unknown; exponent: b; floor_eV_A: c; scatter: of
    the errors about the curve, as a share. verdict: "falling" (b > 0 at the confidence), "noise exceeds the trend" (b
    may as well be 0), "rising", or "too few points" (then every number is NaN).
    """

    labels: tuple[float, ...]
    errors_eV_A: tuple[float, ...]
    relative_errors: tuple[float, ...] | None
    exponent: Interval
    floor_eV_A: Interval
    scatter: float
    verdict: str
    confidence: float
    seed: int = field(default=0, repr=False)

    @property
    def usable(self) -> bool:
        """Tell whether there is a curve that falls beyond doubt: what it foretells means something."""
        return self.verdict == "falling"

    @property
    def sentence(self) -> str:
        """What was found, for people."""
        if self.verdict == "too few points":
            return f"learning curve: {len(self.labels)} ensemble(s) are too few for a trend, {LEAST_POINTS} needed"
        power = f"error ~ n^-{self.exponent.value:.2f} ({self.exponent.low:.2f} to {self.exponent.high:.2f})"
        floor = f", floor {self.floor_eV_A.value:.3f} eV/A" if self.floor_eV_A.value else ""
        return f"learning curve: {power}{floor}, scatter {self.scatter:.0%}: {self.verdict}"

    def error_at(self, labels: float) -> Interval:
        """Return the error with this many labels, eV/Å; the interval is that of the curve, not of one more ensemble."""
        return self._answer(lambda at_last, b, c: at_last * (labels / self._last) ** -b + c)

    def gain(self, more: float) -> Interval:
        """Return by how much (eV/Å) the error falls with `more` labels than the last ensemble had."""
        return self._answer(lambda at_last, b, c: at_last * (1 - (1 + more / self._last) ** -b))

    def last_improvement(self, labels: float) -> Interval:
        """Return the share by which the last so many labels lowered the error, by the curve; 0.04 is 4 %.

        As many as the curve has been followed for at most: before its first point nothing was measured.
        """

        def share(at_last: Draw, b: Draw, c: Draw) -> Draw:
            before = max(self._last - labels, self.labels[0])
            return 1 - (at_last + c) / (at_last * (before / self._last) ** -b + c)

        return self._answer(share)

    def labels_to_reach(self, error_eV_A: float) -> Interval:
        """Return how many labels beyond the last ensemble's bring the error to this, 0 if it is there already.

        Infinite where the curve never gets there: it does not fall, or its floor is higher.
        """

        def more(at_last: Draw, b: Draw, c: Draw) -> Draw:
            reachable = (error_eV_A > c) & (b > 0)
            exponent = np.log(at_last / np.where(reachable, error_eV_A - c, 1.0)) / np.where(reachable, b, 1.0)
            needed = self._last * np.expm1(np.clip(exponent, 0.0, 500.0))
            return np.where(at_last + c <= error_eV_A, 0.0, np.where(reachable, needed, np.inf))

        return self._answer(more)

    @property
    def _last(self) -> float:
        return self.labels[-1]

    def _answer(self, question: Callable[[Draw, Draw, Draw], Draw]) -> Interval:
        if self.verdict == "too few points":
            return NOTHING_KNOWN
        draws = _draw(self.labels, self.errors_eV_A, self.relative_errors, self.seed)[0]
        return _interval(question(*draws), self.confidence)


def fit_learning_curve(
    labels: Sequence[float],
    errors_eV_A: Sequence[float],
    standard_errors_eV_A: Sequence[float] | None = None,
    *,
    confidence: float = 0.9,
    seed: int = 0,
) -> LearningCurve:
    """Return the learning curve through the errors of ensembles trained on so many labels, in whatever order.

    standard_errors_eV_A weigh the points; the scatter about the curve decides the intervals unless it is smaller than
    they are. Points whose error is not finite or not positive, or without labels, are left out. Fewer than three
    different numbers of labels give no curve. ValueError for lists of different lengths or errors' errors not positive.
    """
    given = standard_errors_eV_A if standard_errors_eV_A is not None else [1.0] * len(labels)
    if not len(labels) == len(errors_eV_A) == len(given):
        raise ValueError(
            f"found {len(labels)} numbers of labels, {len(errors_eV_A)} errors, {len(given)} errors of them"
        )
    if not all(0 < own < math.inf for own in given):
        raise ValueError(f"standard errors are {tuple(given)} eV/A; expected positive ones, or None for unknown")
    points = sorted(
        (float(n), float(error), float(own / error))
        for n, error, own in zip(labels, errors_eV_A, given, strict=True)
        if 0 < n < math.inf and 0 < error < math.inf
    )
    sizes, errors, shares = (tuple(point[column] for point in points) for column in range(3))
    known = None if standard_errors_eV_A is None else shares
    if len(set(sizes)) < LEAST_POINTS:
        unknown = (NOTHING_KNOWN, NOTHING_KNOWN, math.nan, "too few points")
        return LearningCurve(sizes, errors, known, *unknown, confidence, seed)
    (_, b, c), scatter = _draw(sizes, errors, known, seed)
    exponent, floor = _interval(b, confidence), _interval(c, confidence)
    verdict = "falling" if exponent.low > 0 else "rising" if exponent.high < 0 else "noise exceeds the trend"
    return LearningCurve(sizes, errors, known, exponent, floor, scatter, verdict, confidence, seed)


def _interval(draws: Draw, confidence: float) -> Interval:
    wanted = [0.5, 0.5 - confidence / 2, 0.5 + confidence / 2]
    return Interval(*np.quantile(draws, wanted, method="inverted_cdf").tolist())


@lru_cache(maxsize=16)
def _draw(
    labels: tuple[float, ...], errors: tuple[float, ...], relative_errors: tuple[float, ...] | None, seed: int
) -> tuple[tuple[Draw, Draw, Draw], float]:
    """Curves in accord with the points, and the scatter about the best of them."""
    n, e = np.array(labels), np.array(errors)
    sigma = np.ones(len(n)) if relative_errors is None else np.array(relative_errors)
    bent = len(np.unique(n)) >= LEAST_POINTS_WITH_FLOOR
    step = e.min() / FLOORS
    floors = np.concatenate([[0.0], step * (np.arange(FLOORS) + 0.5)]) if bent else np.zeros(1)
    prior = np.array([0.5] + [0.5 / FLOORS] * FLOORS) if bent else np.ones(1)
    best, roots, squares = _fit_all(np.log(n / n[-1]), e, sigma, floors)
    freedom = len(n) - 2
    scale = np.maximum(squares, 1e-24) / freedom
    log_weight = np.log(prior) - freedom / 2 * np.log(scale)
    if relative_errors is not None and (least := float(scale.min())) < 1:  # scatter by chance below the known errors
        log_weight, scale = np.log(prior) - (squares - squares.min()) / 2, np.maximum(scale, 1.0)
    else:
        least = float(scale.min())
    weight = np.exp(log_weight - log_weight.max())
    rng = np.random.default_rng(seed)
    row = rng.choice(len(floors), DRAWS, p=weight / weight.sum())
    spread = np.sqrt(scale[row] * freedom / rng.chisquare(freedom, DRAWS))
    moved = best[row] + spread[:, None] * np.einsum("dij,dj->di", roots[row], rng.normal(size=(DRAWS, 2)))
    floor = np.where(row > 0, floors[row] + step * (rng.random(DRAWS) - 0.5), 0.0)
    scatter = math.sqrt(least) * float(np.sqrt(np.mean(np.square(sigma))))
    return (np.exp(np.clip(moved[:, 0], -100, 100)), np.clip(moved[:, 1], -20, 20), floor), scatter


def _fit_all(
    log_n: NDArray[np.float64], errors: NDArray[np.float64], sigma: NDArray[np.float64], floors: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Best (ln a n_last^-b, b) for each of F floors (F, 2), roots of their covariances (F, 2, 2), sums of squares (F,).

    Residuals are (ln error - ln(a n^-b + c)) / sigma. Gauss and Newton's steps, shortened, from the straight line
    through ln(error - c) with the weights that make it the same to first order.
    """

    def model(parameters: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        power = np.exp(np.clip(parameters[:, :1] - parameters[:, 1:] * log_n, -300, 300))
        share = power / (power + floors[:, None]) / sigma
        residuals = (np.log(errors) - np.log(power + floors[:, None])) / sigma
        return residuals, np.stack([share, -share * log_n], axis=-1)

    def solve(jacobian: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.einsum("fij,fj->fi", np.linalg.pinv(jacobian), target)

    above = errors - floors[:, None]
    weight = above / errors / sigma
    best = solve(np.stack([weight, -weight * log_n], axis=-1), weight * np.log(above))
    for _ in range(30):
        residuals, jacobian = model(best)
        step = solve(jacobian, residuals)
        best = best + step / np.maximum(1.0, np.abs(step).max(axis=1, keepdims=True) / 0.5)
    residuals, jacobian = model(best)
    normal = np.einsum("fpi,fpj->fij", jacobian, jacobian)
    values, vectors = np.linalg.eigh(normal)
    root = vectors / np.sqrt(np.maximum(values, 1e-12 * values[:, 1:]))[:, None, :]
    return best, root, np.square(residuals).sum(axis=1)
