"""What further labels would bring: a power law through the error of each ensemble against its number of labels.

error(n) = a n^-b + c: learning curves of regression fall as powers of the number of samples (C. Cortes et al., Adv.
Neural Inf. Process. Syst. 6, 327 (1994); of forces and energies: B. Huang, O. A. von Lilienfeld, J. Chem. Phys. 145,
161102 (2016)). c is what no number of labels removes; it is fitted only if it explains enough (AICc: C. M. Hurvich,
C.-L. Tsai, Biometrika 76, 297 (1989)). Residuals are those of ln error. Intervals are quantiles of parameters drawn
from Student's distribution around the fit, with its covariance and degrees of freedom: for c = 0 the textbook's
intervals of a straight line. Errors of all ensembles should be of one held-out set; what its choice adds to all of
them alike does not touch b.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 4000
LEAST_POINTS = 3
LEAST_POINTS_WITH_FLOOR = 6


@dataclass(frozen=True)
class Interval:
    """A value and where it lies with the confidence asked for; what is infinite is out of reach."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LearningCurve:
    """error(n) = a n^-b + c, eV/Å, through (labels, errors).

    exponent: b with its interval; floor_eV_A: c; scatter: of the errors about the curve, as a share. verdict: "falling"
    (b > 0 at the confidence), "noise exceeds the trend" (b may as well be 0), "rising", or "too few points" (then the
    parameters are NaN and every answer too). covariance: that of (ln a, b, c), zeros for a c that is not fitted;
    freedom: degrees of freedom.
    """

    labels: tuple[float, ...]
    errors_eV_A: tuple[float, ...]
    prefactor_eV_A: float
    exponent: Interval
    floor_eV_A: float
    scatter: float
    verdict: str
    confidence: float
    covariance: tuple[tuple[float, ...], ...]
    freedom: int
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
        floor = f", floor {self.floor_eV_A:.3f} eV/A" if self.floor_eV_A else ""
        return f"learning curve: {power}{floor}, scatter {self.scatter:.0%}: {self.verdict}"

    def error_at(self, labels: float) -> Interval:
        """Return the error with this many labels, eV/Å; the interval is that of the curve, not of one more ensemble."""
        return self._answer(lambda a, b, c: a * np.power(float(labels), -b) + c)

    def gain(self, more: float) -> Interval:
        """Return by how much (eV/Å) the error falls with `more` labels than the last ensemble had."""
        last = self.labels[-1] if self.labels else 1.0
        return self._answer(lambda a, b, c: a * (last**-b - (last + more) ** -b))

    def last_improvement(self, labels: float) -> Interval:
        """Return the share by which the last so many labels lowered the error, by the curve; 0.04 is 4 %.

        As many as the curve has been followed for at most: before its first point nothing was measured.
        """
        last = self.labels[-1] if self.labels else 1.0
        before = max(last - labels, self.labels[0] if self.labels else 1.0)
        return self._answer(lambda a, b, c: 1 - (a * last**-b + c) / (a * before**-b + c))

    def labels_to_reach(self, error_eV_A: float) -> Interval:
        """Return how many labels beyond the last ensemble's bring the error to this, 0 if it is there already.

        Infinite where the curve never gets there: it does not fall, or its floor is higher.
        """
        last = self.labels[-1] if self.labels else 1.0

        def more(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
            reachable = (error_eV_A > c) & (b > 0)
            exponent = np.log(a / np.where(reachable, error_eV_A - c, 1.0)) / np.where(reachable, b, 1.0)
            needed = np.exp(np.minimum(exponent, 700.0)) - last
            there = a * last**-b + c <= error_eV_A
            return np.where(there, 0.0, np.where(reachable, np.maximum(needed, 0.0), np.inf))

        return self._answer(more)

    @cached_property
    def _draws(self) -> tuple[NDArray[np.float64], ...]:
        """Parameters (a, b, c), each (DRAWS,), the fit itself first."""
        from scipy.stats import multivariate_t

        best = np.array([math.log(self.prefactor_eV_A), self.exponent.value, self.floor_eV_A])
        law = multivariate_t(best, np.array(self.covariance), df=self.freedom, allow_singular=True)
        drawn = np.atleast_2d(law.rvs(DRAWS, random_state=np.random.default_rng(self.seed)))
        drawn = np.vstack([best, drawn])
        return np.exp(np.clip(drawn[:, 0], -700, 700)), np.clip(drawn[:, 1], -20, 20), np.maximum(drawn[:, 2], 0)

    def _answer(self, question: Callable[..., NDArray[np.float64]]) -> Interval:
        if self.verdict == "too few points":
            return Interval(math.nan, math.nan, math.nan)
        found = question(*self._draws)
        tails = [0.5 - self.confidence / 2, 0.5 + self.confidence / 2]
        low, high = np.quantile(found[1:], tails, method="inverted_cdf")
        return Interval(float(found[0]), float(min(low, found[0])), float(max(high, found[0])))


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
    given = standard_errors_eV_A if standard_errors_eV_A is not None else [math.nan] * len(labels)
    if not len(labels) == len(errors_eV_A) == len(given):
        raise ValueError(
            f"found {len(labels)} numbers of labels, {len(errors_eV_A)} errors, {len(given)} errors of them"
        )
    if standard_errors_eV_A is not None and not all(0 < own < math.inf for own in given):
        raise ValueError(f"standard errors are {tuple(given)} eV/A; expected positive ones, or None for unknown")
    points = sorted(
        (float(n), float(e), float(se))
        for n, e, se in zip(labels, errors_eV_A, given, strict=True)
        if 0 < n < math.inf and 0 < e < math.inf
    )
    n, errors, deviations = (np.array(column) for column in zip(*points, strict=True)) if points else (np.zeros(0),) * 3
    about: dict[str, Any] = {"labels": tuple(n.tolist()), "errors_eV_A": tuple(errors.tolist())}
    about |= {"confidence": confidence, "seed": seed}
    if len(np.unique(n)) < LEAST_POINTS:
        none = Interval(math.nan, math.nan, math.nan)
        return LearningCurve(
            **about,
            prefactor_eV_A=math.nan,
            exponent=none,
            floor_eV_A=math.nan,
            scatter=math.nan,
            verdict="too few points",
            covariance=(),
            freedom=0,
        )
    sigma = np.ones(len(n)) if standard_errors_eV_A is None else deviations / errors
    fit = _straight(n, errors, sigma, standard_errors_eV_A is not None)
    if len(np.unique(n)) >= LEAST_POINTS_WITH_FLOOR:
        bent = _with_floor(n, errors, sigma, standard_errors_eV_A is not None, fit)
        fit = bent if bent is not None and bent.aicc < fit.aicc else fit
    return _curve(fit, about, confidence)


@dataclass(frozen=True)
class _Fit:
    parameters: NDArray[np.float64]
    """ln a, b, c"""
    covariance: NDArray[np.float64]
    freedom: int
    scatter: float
    aicc: float


def _curve(fit: _Fit, about: dict[str, Any], confidence: float) -> LearningCurve:
    from scipy.stats import t as student

    log_a, b, c = fit.parameters.tolist()
    reach = float(student.ppf(0.5 + confidence / 2, fit.freedom)) * math.sqrt(max(0.0, fit.covariance[1, 1]))
    verdict = "falling" if b - reach > 0 else "rising" if b + reach < 0 else "noise exceeds the trend"
    return LearningCurve(
        **about,
        prefactor_eV_A=math.exp(min(log_a, 700.0)),
        exponent=Interval(b, b - reach, b + reach),
        floor_eV_A=c,
        scatter=fit.scatter,
        verdict=verdict,
        covariance=tuple(tuple(row) for row in fit.covariance.tolist()),
        freedom=fit.freedom,
    )


def _judged(
    residuals: NDArray[np.float64],
    jacobian: NDArray[np.float64],
    sigma: NDArray[np.float64],
    parameters: ArrayLike,
    known: bool,
) -> _Fit:
    """A fit from its residuals (n,) and jacobian (n, p), both divided by sigma; p = 2, or 3 with a floor."""
    count, size = jacobian.shape
    freedom = count - size
    chi_squared = float(residuals @ residuals)
    scale = chi_squared / freedom
    scale = max(scale, 1.0) if known else scale
    covariance = np.zeros((3, 3))
    covariance[:size, :size] = scale * np.linalg.pinv(jacobian.T @ jacobian)
    fitted = size + 1  # the scatter is a parameter too
    spare = count - fitted - 1
    information = count * math.log(max(chi_squared / count, 1e-24)) + 2 * fitted
    aicc = information + 2 * fitted * (fitted + 1) / spare if spare > 0 else math.inf
    scatter = float(np.std(residuals * sigma)) * math.sqrt(count / freedom)
    return _Fit(np.array(parameters, dtype=float), covariance, freedom, scatter, aicc)


def _straight(n: NDArray[np.float64], errors: NDArray[np.float64], sigma: NDArray[np.float64], known: bool) -> _Fit:
    """Weighted straight line of ln error against ln n."""
    jacobian = np.column_stack([np.ones(len(n)), -np.log(n)]) / sigma[:, None]
    (log_a, b), *_ = np.linalg.lstsq(jacobian, np.log(errors) / sigma)
    residuals = jacobian @ np.array([log_a, b]) - np.log(errors) / sigma
    return _judged(residuals, jacobian, sigma, [log_a, b, 0.0], known)


def _with_floor(
    n: NDArray[np.float64], errors: NDArray[np.float64], sigma: NDArray[np.float64], known: bool, start: _Fit
) -> _Fit | None:
    """The same with c in [0, smallest error); None if the search fails or ends at c = 0."""
    from scipy.optimize import least_squares

    def model(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(np.clip(p[0] - p[1] * np.log(n), -700, 700)) + p[2]

    top = float(errors.min())
    guess = np.array([start.parameters[0], max(start.parameters[1], 0.05), 0.5 * top])
    found = least_squares(
        lambda p: (np.log(model(p)) - np.log(errors)) / sigma,
        guess,
        bounds=([-np.inf, 0.0, 0.0], [np.inf, 5.0, top]),
        x_scale=[1.0, 0.1, top],
    )
    if not found.success or found.x[2] < 1e-3 * top or found.x[1] > 4.99:
        return None
    return _judged(found.fun, found.jac, sigma, found.x, known)
