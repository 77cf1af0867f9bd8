"""Audit pairs of known distributions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from alloop.selection.calibration import AuditPair

MEDIAN_FACTOR, POWER = 2.0, 0.8
"""The median error is MEDIAN_FACTOR deviation^POWER, eV/Å."""


def log_spread(deviation_eV_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation of ln error: larger where the ensemble agrees, as far as the map can tell."""
    return 0.2 + 0.6 * np.exp(-5 * deviation_eV_A)


def draw(rng: np.random.Generator, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Deviations and errors (count,), heteroscedastic."""
    deviation = np.exp(rng.normal(-2, 0.7, count))
    error = MEDIAN_FACTOR * deviation**POWER * np.exp(log_spread(deviation) * rng.normal(size=count))
    return deviation, error


def true_coverage(deviation_eV_A: NDArray[np.float64], bound_eV_A: NDArray[np.float64]) -> float:
    """Probability that an error is within its bound, over these deviations."""
    centred = np.log(bound_eV_A) - np.log(MEDIAN_FACTOR * deviation_eV_A**POWER)
    return float(norm.cdf(centred / log_spread(deviation_eV_A)).mean())


def pairs_of(
    deviation_eV_A: NDArray[np.float64],
    error_eV_A: NDArray[np.float64],
    glass: str = "LBS",
    band: str = "2000K",
    iteration: int = 0,
) -> list[AuditPair]:
    return [
        AuditPair(f"{glass}.{band}.{iteration}.{i}", glass, band, iteration, float(d), float(e), "audit")
        for i, (d, e) in enumerate(zip(deviation_eV_A, error_eV_A, strict=True))
    ]


def some_pairs(seed: int, count: int, glass: str = "LBS", band: str = "2000K", iteration: int = 0) -> list[AuditPair]:
    return pairs_of(*draw(np.random.default_rng(seed), count), glass, band, iteration)
