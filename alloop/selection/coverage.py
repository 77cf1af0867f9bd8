"""Whether a calibration keeps its promise: every pair is tested against the map made before the pair was known.

The order is that of the iterations: the pairs of an iteration are tested against the map it began with, of all earlier
ones or of those that had been measured by then, and then join (prequential testing: A. P. Dawid, J. R. Stat. Soc. A
147, 278 (1984)). A shortfall says that frames are no longer exchangeable with those calibrated on: a new ensemble,
other temperatures, dynamics that went somewhere else.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from alloop.selection.calibration import (
    DEFAULT_SETTINGS,
    AuditPair,
    CalibrationMap,
    MapSettings,
    conformal_quantile,
    fit_map,
    needed_scores,
)


@dataclass(frozen=True)
class WideningRule:
    """When bounds are widened: coverage below `least_coverage` at `significance`, over the last few iterations.

    max_factor: errors are never multiplied by more than this. ValueError for shares outside (0, 1), fewer than one
    iteration or a factor below 1.
    """

    least_coverage: float = 0.8
    significance: float = 0.05
    last_iterations: int = 3
    max_factor: float = 10.0

    def __post_init__(self) -> None:
        if not (0 < self.least_coverage < 1 and 0 < self.significance < 1):
            raise ValueError(f"least_coverage and significance must lie between 0 and 1, found {self}")
        if self.last_iterations < 1 or not 1 <= self.max_factor < math.inf:
            raise ValueError(f"expected last_iterations >= 1 and a finite max_factor >= 1, found {self}")


@dataclass(frozen=True)
class Widening:
    """Factors (>= 1) on the expected errors and the bounds of a map, and why, in a sentence."""

    expected_factor: float
    bound_factor: float
    reason: str

    @property
    def active(self) -> bool:
        """Tell whether anything is widened."""
        return self.expected_factor > 1 or self.bound_factor > 1


UNCHANGED = Widening(1.0, 1.0, "")
DEFAULT_RULE = WideningRule()


@dataclass(frozen=True)
class Foretold:
    """One pair and what was foretold of it, eV/Å: by the map, and by the map as widened then.

    source: whose scores it rests on; scores: how many.
    """

    pair: AuditPair
    expected_eV_A: float
    bound_eV_A: float
    issued_bound_eV_A: float
    source: str
    scores: int

    @property
    def testable(self) -> bool:
        """Tell whether there was a finite bound."""
        return math.isfinite(self.bound_eV_A)


@dataclass(frozen=True)
class Coverage:
    """How many of a group's errors were within their bounds; glass or band None: all of them.

    low, high: Clopper-Pearson interval, at `confidence`, of the share that these maps cover; untested: pairs that came
    before there was a calibration. p_value: probability that maps of so few scores cover so little (or less) of
    exchangeable frames. verdict: "kept", "broken" (p_value below (1 - confidence) / 2: the frames are others than those
    calibrated on), "too wide" (the same at the other end), "untested". Of many groups a few are called so by chance.
    """

    glass: str | None
    band: str | None
    level: float
    tested: int
    covered: int
    untested: int
    low: float
    high: float
    confidence: float
    p_value: float
    verdict: str

    @property
    def sentence(self) -> str:
        """What was found, for people."""
        who = f"{self.glass or 'all glasses'} at {self.band or 'all temperatures'}"
        if not self.tested:
            return f"{who}: no bound has been tested yet ({self.untested} labels came before there was one)"
        found = f"{self.covered} of {self.tested} errors within their {self.level:.0%} bounds"
        return f"{who}: {found} ({self.low:.1%} to {self.high:.1%}): {self.verdict}"


def widened(calibration: CalibrationMap, widening: Widening) -> CalibrationMap:
    """Return a map whose errors are multiplied by the factors of a widening."""
    by_expected, by_bound = math.log(widening.expected_factor), math.log(widening.bound_factor)
    groups = (
        replace(own, expected_offset=own.expected_offset + by_expected, bound_offset=own.bound_offset + by_bound)
        for own in calibration.groups
    )
    return replace(calibration, groups=tuple(groups))


def prequential(
    pairs: Sequence[AuditPair],
    settings: MapSettings = DEFAULT_SETTINGS,
    rule: WideningRule = DEFAULT_RULE,
    had: Mapping[int, Collection[int]] | None = None,
) -> list[Foretold]:
    """Return every pair tested against the map its iteration began with, ordered by iteration and identity.

    had: by iteration, of which iterations that map had the pairs; all earlier ones where it is not told. The
    order in which pairs are given does not matter. Raises what `fit_map` raises.
    """
    fit_map(pairs, settings)
    ordered = sorted(pairs, key=lambda pair: (pair.iteration, pair.identity))
    tested: list[Foretold] = []
    for iteration in sorted({pair.iteration for pair in pairs}):
        known = (had or {}).get(iteration, range(iteration))
        calibration = fit_map([pair for pair in ordered if pair.iteration in known], settings)
        before = [one for one in tested if one.pair.iteration in known]
        factor = widening(before, settings.level, rule).bound_factor
        tested += [_test(calibration, factor, pair) for pair in ordered if pair.iteration == iteration]
    return tested


def _test(calibration: CalibrationMap, factor: float, pair: AuditPair) -> Foretold:
    found = calibration.predict(pair.deviation_eV_A, pair.glass, pair.band)
    bound = float(found.bound_eV_A)
    scores = calibration.group(pair.glass, pair.band).scores
    return Foretold(pair, float(found.expected_eV_A), bound, bound * factor, found.source, scores)


def widening(tested: Sequence[Foretold], level: float, rule: WideningRule = DEFAULT_RULE) -> Widening:
    """Return by how much a map's errors must be widened; unchanged unless coverage is significantly too low.

    Looked at are pairs with a finite bound of the last `rule.last_iterations` iterations. Their coverage is too low if
    an exact one-sided binomial test rejects that it is at least `rule.least_coverage`. The factor is then the
    conformal quantile, at the level, of error / bound among them (of error / expected error at one half): what would
    have kept the promise. It is found from the map itself, not from widened bounds, and so falls back to 1 once the
    map is right again.
    """
    from scipy.stats import binomtest

    newest = max((one.pair.iteration for one in tested), default=0)
    recent = [one for one in tested if one.testable and one.pair.iteration > newest - rule.last_iterations]
    covered = sum(one.pair.error_eV_A <= one.bound_eV_A for one in recent)
    if not recent:
        return UNCHANGED
    if binomtest(covered, len(recent), rule.least_coverage, alternative="less").pvalue >= rule.significance:
        return UNCHANGED
    to_bound = conformal_quantile([one.pair.error_eV_A / one.bound_eV_A for one in recent], level)
    to_expected = conformal_quantile([one.pair.error_eV_A / one.expected_eV_A for one in recent], 0.5)
    reason = (
        f"{covered} of the last {len(recent)} errors were within their {level:.0%} bounds, significantly less than "
        f"{rule.least_coverage:.0%}: the map is widened"
    )
    factors = [min(max(1.0, factor), rule.max_factor) for factor in (to_expected, to_bound)]
    return Widening(factors[0], factors[1], reason)


def coverage(tested: Sequence[Foretold], level: float, confidence: float = 0.95) -> list[Coverage]:
    """Return the coverage of the bounds as issued: in all, by glass, by temperature band, by both.

    Intervals: C. J. Clopper, E. S. Pearson, Biometrika 26, 404 (1934). With nothing tested they are (0, 1). The verdict
    allows for the luck of the calibration: what a map of n scores covers is itself drawn, from Beta(k, n + 1 - k) with
    k = ceil((n + 1) level) (V. Vovk, Proc. Mach. Learn. Res. 25, 475 (2012)), so that counts follow the beta-binomial
    law. All tests are taken as of one map, with the harmonic mean of their numbers of scores: maps that follow each
    other share most of their pairs. ValueError for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a share between 0 and 1, such as 0.9")
    keys: dict[tuple[str | None, str | None], list[Foretold]] = {(None, None): []}
    for one in tested:
        glass, band = one.pair.glass, one.pair.band
        for key in ((None, None), (glass, None), (None, band), (glass, band)):
            keys.setdefault(key, []).append(one)
    order = sorted(keys, key=lambda key: (key[0] is not None, key[0] or "", key[1] is not None, key[1] or ""))
    return [_coverage(key, keys[key], level, confidence) for key in order]


def _coverage(
    key: tuple[str | None, str | None], tested: Sequence[Foretold], level: float, confidence: float
) -> Coverage:
    from scipy.stats import betabinom, binomtest, hmean

    judged = [one for one in tested if one.testable]
    covered = sum(one.pair.error_eV_A <= one.issued_bound_eV_A for one in judged)
    low, high, p_value, verdict = 0.0, 1.0, 1.0, "untested"
    if judged:
        interval = binomtest(covered, len(judged)).proportion_ci(confidence, method="exact")
        low, high = float(interval.low), float(interval.high)
        scores = max(needed_scores(level), round(hmean([one.scores for one in judged])))
        rank = math.ceil(round((scores + 1) * level, 9))
        law = betabinom(len(judged), rank, scores + 1 - rank)
        p_value, tail = float(law.cdf(covered)), (1 - confidence) / 2
        verdict = "broken" if p_value < tail else "too wide" if law.sf(covered - 1) < tail else "kept"
    return Coverage(
        *key, level, len(judged), covered, len(tested) - len(judged), low, high, confidence, p_value, verdict
    )
