"""Whether an observable still moves: over iterations, or over cell sizes.

All comparisons are of values that come with a standard error (between replicas). Nothing but a difference larger than
its error counts as one, and nothing but a small enough error allows to call values equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Measurement:
    """An observable's value with its standard error, and where it was measured: an iteration, a number of atoms.

    replicas: how many the error was found from, None if it is known well; few make it uncertain itself.
    """

    at: float
    value: float
    standard_error: float
    replicas: int | None = None


@dataclass(frozen=True)
class Stability:
    """The pair of measurements that differs most, in standard errors of the difference, and the verdict.

    critical: how many standard errors chance alone reaches there with a probability of 1 - confidence over all pairs;
    noticeable: the largest critical x standard error among pairs, what could have gone unnoticed. verdict: "stable",
    "differs", "not resolved" (a tolerance is given and errors are too large for it) or "unknown".
    """

    observable: str
    unit: str
    pair: tuple[float, float] | None
    difference: float
    standardised: float
    critical: float
    noticeable: float
    verdict: str
    sentence: str


def stability(
    observable: str,
    unit: str,
    measurements: Sequence[Measurement],
    *,
    along: str = "iterations",
    tolerance: float | None = None,
    confidence: float = 0.95,
) -> Stability:
    """Compare every two measurements, |x_i - x_j| / sqrt(SE_i^2 + SE_j^2).

    The critical value of M pairs is Sidak's, t((1 + confidence^(1/M)) / 2) (Z. Sidak, J. Am. Stat. Assoc. 62, 626
    (1967)), with the degrees of freedom that the numbers of replicas leave (B. L. Welch, Biometrika 34, 28 (1947)).
    With a `tolerance` (in the unit) values differ only if beyond it too, and are stable only if every difference plus
    its critical error lies within it. A measurement that is not finite, of a single replica, or with a
    negative error makes the verdict "unknown"; so do fewer than two.
    """
    known = all(math.isfinite(own.value) and 0 <= own.standard_error < math.inf for own in measurements)
    known = known and all(own.replicas is None or own.replicas > 1 for own in measurements)
    if len(measurements) < 2 or not known:
        what = "a value or its standard error is not known" if not known else f"{len(measurements)} value(s), 2 needed"
        return Stability(observable, unit, None, *(math.nan,) * 4, "unknown", f"{observable}: unknown, {what}")
    measurements = sorted(measurements, key=lambda own: own.at)
    at, value = (np.array([getattr(own, name) for own in measurements]) for name in ("at", "value"))
    first, second = np.triu_indices(len(measurements), 1)
    differences = value[second] - value[first]
    errors, critical = _errors(measurements, first, second, confidence)
    with np.errstate(divide="ignore", invalid="ignore"):
        standardised = np.where(differences == 0, 0.0, np.abs(differences) / errors)
    worst = int(np.lexsort((np.abs(differences), standardised / critical))[-1])
    differs = standardised > critical
    if tolerance is None:
        verdict = "differs" if differs.any() else "stable"
    elif (differs & (np.abs(differences) > tolerance)).any():
        verdict = "differs"
    else:
        verdict = "stable" if (np.abs(differences) + critical * errors <= tolerance).all() else "not resolved"
    noticeable = float((critical * errors).max())
    pair = (float(at[first[worst]]), float(at[second[worst]]))
    allowed = "" if tolerance is None else f", {tolerance:g} allowed"
    remedy = "; more replicas or larger cells would tell" if verdict == "not resolved" else ""
    sentence = (
        f"{observable} over {along} {min(at):g} to {max(at):g}: {verdict}; largest change {differences[worst]:+.3g} "
        f"{unit} from {pair[0]:g} to {pair[1]:g}, {standardised[worst]:.1f} standard errors "
        f"({critical[worst]:.1f} by chance; up to {noticeable:.2g} {unit} could go unnoticed{allowed}){remedy}"
    )
    return Stability(
        observable=observable,
        unit=unit,
        pair=pair,
        difference=float(differences[worst]),
        standardised=float(standardised[worst]),
        critical=float(critical[worst]),
        noticeable=noticeable,
        verdict=verdict,
        sentence=sentence,
    )


def _errors(
    measurements: Sequence[Measurement], first: NDArray[np.int64], second: NDArray[np.int64], confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard error of each pair's difference, and how many of them chance reaches over all pairs, (M,)."""
    from scipy.stats import t as student

    variance = np.square([own.standard_error for own in measurements])
    freedom = np.array([math.inf if own.replicas is None else own.replicas - 1 for own in measurements])
    total = variance[first] + variance[second]
    spread = np.square(variance) / freedom
    with np.errstate(divide="ignore", invalid="ignore"):
        pairs = np.square(total) / (spread[first] + spread[second])
    quantile = (1 + confidence ** (1 / len(first))) / 2
    return np.sqrt(total), student.ppf(quantile, np.where(np.isnan(pairs), math.inf, pairs))


@dataclass(frozen=True)
class Drift:
    """Slope of an observable along the last measurements, unit per step of `at`; verdict: drifts, no drift, unknown."""

    observable: str
    unit: str
    points: int
    slope: float
    standard_error: float
    p_value: float
    verdict: str
    sentence: str


def drift(
    observable: str, unit: str, measurements: Sequence[Measurement], last: int = 4, significance: float = 0.05
) -> Drift:
    """Test whether the last `last` measurements lie on a line that rises or falls.

    Least squares with weights 1/SE^2 and the errors taken as known (P. R. Bevington, D. K. Robinson, Data Reduction and
    Error Analysis, 3rd ed., section 6.4); two-sided test of slope / SE by the normal distribution. Errors that are zero
    for all are replaced by the scatter about the line and Student's t. "unknown" below three measurements, all at one
    place, values that are not finite, or errors known for some only. ValueError for fewer than three to be looked at.
    """
    if last < 3:
        raise ValueError(f"last is {last}; a trend needs at least 3 measurements")
    own = sorted(measurements, key=lambda one: one.at)[-last:]
    at, value, error = (np.array([getattr(one, name) for one in own]) for name in ("at", "value", "standard_error"))
    finite = np.isfinite(value).all() and np.isfinite(error).all() and np.isfinite(at).all()
    sound = finite and ((error > 0).all() or (error == 0).all())
    if len(own) < 3 or not sound or np.ptp(at) == 0:
        why = f"{len(own)} measurement(s), 3 needed" if len(own) < 3 else "values, errors or places do not allow a line"
        return Drift(observable, unit, len(own), *(math.nan,) * 3, "unknown", f"{observable}: drift unknown, {why}")
    from scipy.stats import norm
    from scipy.stats import t as student

    weight = np.where(error > 0, 1 / np.square(np.where(error > 0, error, 1.0)), 1.0)
    centred = at - np.average(at, weights=weight)
    spread = float((weight * centred**2).sum())
    slope = float((weight * centred * value).sum() / spread)
    if (error > 0).all():
        standard_error = 1 / math.sqrt(spread)
        p_value = float(2 * norm.sf(abs(slope) / standard_error))
    else:
        residuals = value - value.mean() - slope * centred
        standard_error = math.sqrt(float(residuals @ residuals) / (len(own) - 2) / spread)
        standardised = math.inf if standard_error == 0 else abs(slope) / standard_error
        p_value = 1.0 if slope == 0 else float(2 * student.sf(standardised, len(own) - 2))
    verdict = "drifts" if p_value < significance else "no drift"
    sentence = (
        f"{observable}: {verdict} over the last {len(own)} measurements "
        f"({slope:+.2g} +- {standard_error:.1g} {unit} per step, p = {p_value:.2g})"
    )
    return Drift(observable, unit, len(own), slope, standard_error, p_value, verdict, sentence)
