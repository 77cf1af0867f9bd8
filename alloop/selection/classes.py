"""Accurate, candidate, failed: the class of a frame by the trust levels on its largest force deviation."""

from __future__ import annotations

import numpy as np


def classify(max_deviation_eV_A: np.ndarray, low_eV_A: float, high_eV_A: float) -> np.ndarray:
    """Return the class name of each frame, shape (F,): below low accurate, below high candidate, else failed.

    A deviation that is not finite is failed: nothing is known of such a frame.
    """
    deviation = np.asarray(max_deviation_eV_A, dtype=float)
    classes = np.full(deviation.shape, "failed", dtype="U9")
    classes[deviation < high_eV_A] = "candidate"
    classes[deviation < low_eV_A] = "accurate"
    return classes
