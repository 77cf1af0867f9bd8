"""Accurate, candidate, failed: the class of a frame by the trust levels on its largest force deviation."""

from __future__ import annotations

import numpy as np

CLASSES = ("accurate", "candidate", "failed")
ACCURATE, CANDIDATE, FAILED = range(3)


def class_codes(max_deviation_eV_A: np.ndarray, low_eV_A: float, high_eV_A: float) -> np.ndarray:
    """Return the class of each frame as an index into `CLASSES`, int8: below low accurate, below high candidate.

    A deviation that is not finite is failed: nothing is known of such a frame.
    """
    deviation = np.asarray(max_deviation_eV_A)
    codes = np.full(deviation.shape, FAILED, dtype=np.int8)
    codes[deviation < high_eV_A] = CANDIDATE
    codes[deviation < low_eV_A] = ACCURATE
    codes[~np.isfinite(deviation)] = FAILED
    return codes


def classify(max_deviation_eV_A: np.ndarray, low_eV_A: float, high_eV_A: float) -> np.ndarray:
    """Return the class name of each frame, in the shape of the deviations; see `class_codes`."""
    return np.array(CLASSES, dtype="U9")[class_codes(max_deviation_eV_A, low_eV_A, high_eV_A)]
