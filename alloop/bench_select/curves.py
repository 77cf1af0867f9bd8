"""How many labels a method needs to reach an error: read off its learning curve, with an interval over seeds."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
_LARGEST_ENUMERATED = 5  # 5^5 resamples at most are all made; of more seeds so many are drawn
_DRAWN = 4000


@dataclass(frozen=True)
class Estimate:
    """A number and its interval; inf stands for more labels than the largest size."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LabelsNeeded:
    """Labels with which a method reaches the target error, and their ratio to those random choice needs."""

    labels: Estimate
    ratio: Estimate


def labels_to_reach(sizes: np.ndarray, errors: np.ndarray, target: float) -> float:
    """Return the number of labels from which on a learning curve stays at or below the target.

    Between sizes the curve is a power law, a straight line in log-log. inf if the last error is above the target; the
    first size if no error is. A curve that dips below the target and comes back has not reached it at the dip.
    """
    above = np.flatnonzero(~(errors <= target))
    if not len(above):
        return float(sizes[0])
    last = int(above[-1])
    if last == len(sizes) - 1:
        return math.inf
    (x, x_next), (y, y_next) = np.log(sizes[last : last + 2]), np.log(errors[last : last + 2])
    return float(np.exp(x + (x_next - x) * (np.log(target) - y) / (y_next - y)))


def mean_curve(errors: np.ndarray) -> np.ndarray:
    """Return the geometric mean over seeds (S, sizes) of learning curves, (sizes,)."""
    return np.exp(np.log(errors).mean(axis=0))


def labels_needed(sizes: np.ndarray, method: np.ndarray, random: np.ndarray) -> LabelsNeeded:
    """Return the labels with which `method` reaches the final error of `random`, and their ratio to random's own.

    method, random: errors (S, sizes) of the same seeds, above zero. The interval is the percentile bootstrap over
    seeds (B. Efron, Ann. Stat. 7, 1 (1979)): seeds are drawn with replacement, the same for both, as both begin from
    the same labels; up to five seeds all draws are made. One seed has no interval: low and high equal the value.
    """
    sizes = np.asarray(sizes, dtype=float)

    def both(chosen: np.ndarray) -> tuple[float, float]:
        base = mean_curve(random[chosen])
        found = labels_to_reach(sizes, mean_curve(method[chosen]), float(base[-1]))
        return found, found / labels_to_reach(sizes, base, float(base[-1]))

    drawn = np.array([both(chosen) for chosen in resamples(len(random))])
    values = both(np.arange(len(random)))
    labels, ratio = (Estimate(value, *_interval(drawn[:, i])) for i, value in enumerate(values))
    return LabelsNeeded(labels, ratio)


def labels_for(sizes: np.ndarray, method: np.ndarray, target: float) -> Estimate:
    """Return the labels with which `method`, errors (S, sizes) above zero, reaches a given error.

    The interval is that of `labels_needed`.
    """
    sizes = np.asarray(sizes, dtype=float)
    drawn = [labels_to_reach(sizes, mean_curve(method[chosen]), target) for chosen in resamples(len(method))]
    return Estimate(labels_to_reach(sizes, mean_curve(method), target), *_interval(np.array(drawn)))


def resamples(count: int) -> np.ndarray:
    """Return draws with replacement of `count` seeds, (R, count): all of them, or thousands where there are more."""
    if count <= _LARGEST_ENUMERATED:
        return np.array(list(itertools.product(range(count), repeat=count)))
    return np.random.default_rng(0).integers(count, size=(_DRAWN, count))


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Return the percentiles that leave equal shares outside; no interpolation, as inf may be among the values."""
    ordered = np.sort(values)
    tail = (1 - CONFIDENCE) / 2
    ranks = [math.ceil(share * len(ordered)) - 1 for share in (tail, 1 - tail)]
    return float(ordered[max(0, ranks[0])]), float(ordered[ranks[1]])
