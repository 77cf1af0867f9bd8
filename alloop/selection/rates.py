"""Whether an event is as frequent in the ensemble's dynamics as in the labeler's own, and seen in the same places.

A rate is an average over time in one replica: overlaps per ps, the share of silicon that is five-coordinated. Frames
of a replica are correlated, replicas are not: standard errors are those between replicas, sd / sqrt(R).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Replicas:
    """Time-averaged rate of each replica, all in one unit.

    exposures: what each replica offered to count events in (ps, atoms x independent frames, ...), so that rate x
    exposure is a number of independent events; without it nothing can be said of how rare an event not seen may be.
    ValueError for rates that are negative or not finite, or exposures of another number or not positive.
    """

    rates: tuple[float, ...]
    unit: str
    exposures: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not all(0 <= rate < math.inf for rate in self.rates):
            raise ValueError(f"rates are {self.rates} {self.unit}; expected finite numbers from 0 on")
        if self.exposures is not None and not (
            len(self.exposures) == len(self.rates) and all(0 < own < math.inf for own in self.exposures)
        ):
            raise ValueError(f"exposures are {self.exposures}; expected a positive one for each of {len(self.rates)}")

    @property
    def mean(self) -> float:
        """Mean rate over the replicas, NaN without any."""
        return float(np.mean(self.rates)) if self.rates else math.nan

    @property
    def never_seen(self) -> bool:
        """Tell whether no replica shows the event."""
        return bool(self.rates) and not any(self.rates)

    @property
    def upper_bound(self) -> float | None:
        """Rate that an event never seen stays below with 95 %; None if it was seen, or the exposure is not known.

        The rule of three, 3 / exposure: J. A. Hanley, A. Lippman-Hand, J. Am. Med. Assoc. 249, 1743 (1983).
        """
        return 3 / math.fsum(self.exposures) if self.never_seen and self.exposures else None

    @property
    def standard_error(self) -> float:
        """Standard error of the mean between replicas, NaN below two of them.

        With exposures it is at least that of independent (Poisson) events, sqrt(sum rate/exposure) / R: three replicas
        with one event each would seem to have none. Of an event never seen it is half the rule of three's bound.
        """
        count = len(self.rates)
        if count < 2:
            return math.nan
        between = float(np.std(self.rates, ddof=1)) / math.sqrt(count)
        if self.exposures is None:
            return between
        if (bound := self.upper_bound) is not None:
            return bound / 2
        poisson = math.sqrt(sum(rate / own for rate, own in zip(self.rates, self.exposures, strict=True))) / count
        return max(between, poisson)


def replicas_from_counts(counts: Sequence[float], exposures: Sequence[float], unit: str) -> Replicas:
    """Return the rates of counted events, counts / exposures. ValueError as `Replicas`, or for unequal lengths."""
    if len(counts) != len(exposures):
        raise ValueError(f"found {len(counts)} counts and {len(exposures)} exposures; expected one for each replica")
    if not all(0 < own < math.inf for own in exposures):
        raise ValueError(f"exposures are {tuple(exposures)}; expected positive numbers")
    return Replicas(tuple(n / own for n, own in zip(counts, exposures, strict=True)), unit, tuple(exposures))


@dataclass(frozen=True)
class RateComparison:
    """Rates of the ensemble and the labeler, their difference, and the verdict.

    standard_error: of the difference; noticeable: least difference that would have been called one, k times that.
    verdict: "agrees", "differs", "not resolved" (a larger difference than tolerated could hide) or "too few replicas".
    """

    event: str
    unit: str
    ensemble: float
    labeler: float
    difference: float
    standard_error: float
    k: float
    noticeable: float
    ensemble_upper_bound: float | None
    labeler_upper_bound: float | None
    verdict: str
    sentence: str


def compare_rates(
    event: str,
    ensemble: Replicas,
    labeler: Replicas,
    k: float = 2.0,
    least_replicas: int = 3,
    *,
    rarer_is_fine: bool = False,
    tolerance: float | None = None,
) -> RateComparison:
    """Tell whether two rates agree within `k` standard errors of their difference, sqrt(SE_1^2 + SE_2^2).

    rarer_is_fine: only an ensemble in which the event is more frequent differs. Agreement of rates that are poorly
    known says little: `noticeable` is how little, and with a `tolerance` (in the unit) agreement that could hide more
    is none. ValueError for different units, or fewer than two replicas to be content with.
    """
    if ensemble.unit != labeler.unit:
        raise ValueError(f"{event}: rates in {ensemble.unit!r} and {labeler.unit!r}; give both in one unit")
    if least_replicas < 2 or not k > 0:
        raise ValueError(f"expected least_replicas >= 2 and k > 0, found {least_replicas} and {k}")
    difference = ensemble.mean - labeler.mean
    error = math.hypot(ensemble.standard_error, labeler.standard_error)
    counts = len(ensemble.rates), len(labeler.rates)
    if min(counts) < least_replicas:
        verdict = "too few replicas"
        told = f"{counts[0]} replica(s) of the ensemble and {counts[1]} of the labeler, {least_replicas} of each needed"
    else:
        excess = difference if rarer_is_fine else abs(difference)
        verdict = "agrees" if excess <= k * error else "differs"
        hidden = difference + k * error if rarer_is_fine else k * error
        if verdict == "agrees" and tolerance is not None and hidden > tolerance:
            verdict = "not resolved"
        bounds = ((one.upper_bound, one.mean, one.standard_error) for one in (ensemble, labeler))
        both = [f"{m:.3g} +- {se:.2g}" if b is None else f"never seen, below {b:.2g} with 95 %" for b, m, se in bounds]
        told = f"ensemble {both[0]}, labeler {both[1]} {ensemble.unit}: {verdict}"
        told += f" within {k:g} standard errors" if abs(difference) <= k * error else ""
        told += ", being rarer" if verdict == "agrees" and abs(difference) > k * error else ""
        told += f" ({difference:+.2g}; {k * error:.2g} would be noticed"
        told += f", {tolerance:.2g} should be; more or longer trajectories tell)" if verdict == "not resolved" else ")"
    return RateComparison(
        event=event,
        unit=ensemble.unit,
        ensemble=ensemble.mean,
        labeler=labeler.mean,
        difference=difference,
        standard_error=error,
        k=k,
        noticeable=k * error,
        ensemble_upper_bound=ensemble.upper_bound,
        labeler_upper_bound=labeler.upper_bound,
        verdict=verdict,
        sentence=f"{event}: {told}",
    )


@dataclass(frozen=True)
class PairedAgreement:
    """How often two judges of the same things (ensemble and labeler; before and after relaxing) say the same.

    both, only_first, only_second, neither: counts; agreement: share in which they agree, with Wilson's interval;
    difference: share seen by the first less that by the second, with an interval; p_value: of McNemar's exact test
    that neither sees it more often. All NaN without things to judge.
    """

    event: str
    both: int
    only_first: int
    only_second: int
    neither: int
    agreement: float
    agreement_low: float
    agreement_high: float
    difference: float
    difference_low: float
    difference_high: float
    p_value: float
    confidence: float

    @property
    def judged(self) -> int:
        """How many things were judged."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def sentence(self) -> str:
        """What was found, for people."""
        if not self.judged:
            return f"{self.event}: nothing was compared yet"
        leaning = (
            "one of them sees it more often" if self.p_value < 1 - self.confidence else "neither leans to one side"
        )
        return (
            f"{self.event}: same answer in {self.both + self.neither} of {self.judged} ({self.agreement_low:.0%} to "
            f"{self.agreement_high:.0%}), {self.only_first} seen by the first only, {self.only_second} by the second "
            f"only: {leaning}"
        )


def paired_agreement(event: str, first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> PairedAgreement:
    """Compare what two judges say of the same things, two arrays of booleans of one shape. ValueError for other shapes.

    Exact test of the pairs that differ: Q. McNemar, Psychometrika 12, 153 (1947), binomial. Interval of the difference:
    Wald's with 1/2 added to each of the four counts (A. Agresti, Y. Min, Stat. Med. 24, 729 (2005)). Interval of the
    agreement: E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927). The things are taken as independent: atoms of one
    frame are not quite, give one answer per frame if that matters.
    """
    from scipy.stats import binomtest, norm

    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != other.shape:
        raise ValueError(
            f"{event}: answers of shape {one.shape} and {other.shape}; expected one of each for each thing"
        )
    both, neither = int((one & other).sum()), int((~one & ~other).sum())
    only_first, only_second = int((one & ~other).sum()), int((~one & other).sum())
    if not one.size:
        nothing = (math.nan,) * 7
        return PairedAgreement(event, 0, 0, 0, 0, *nothing, confidence)
    agreeing = binomtest(both + neither, one.size)
    interval = agreeing.proportion_ci(confidence, method="wilson")
    z, total = float(norm.ppf(0.5 + confidence / 2)), one.size + 2
    centre = (only_first - only_second) / total
    reach = z * math.sqrt(max(0.0, (only_first + only_second + 1) / total - centre**2) / total)
    apart = only_first + only_second
    return PairedAgreement(
        event,
        both,
        only_first,
        only_second,
        neither,
        agreement=float(agreeing.statistic),
        agreement_low=float(interval.low),
        agreement_high=float(interval.high),
        difference=(only_first - only_second) / one.size,
        difference_low=max(-1.0, centre - reach),
        difference_high=min(1.0, centre + reach),
        p_value=float(binomtest(only_first, apart, 0.5).pvalue) if apart else 1.0,
        confidence=confidence,
    )
