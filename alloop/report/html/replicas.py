"""Replicas: runs alike in glass, cell size and rate of cooling, with the mean of what they show and its error."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Place = tuple[str, int, float | None]
"""Glass, atoms and rate of cooling (K/ps): runs alike in all three are replicas."""


def place_of(own: dict[str, Any]) -> Place:
    """Return what the record of a run is a replica of."""
    return own["glass"], own["atoms"], own["cooling_rate_K_ps"]


@dataclass(frozen=True)
class Replicas:
    """What replicas show: values (n,), and which model of the ensemble drove each (n,)."""

    values: NDArray[np.float64]
    models: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """Mean over the replicas."""
        return float(self.values.mean())

    @property
    def model_means(self) -> NDArray[np.float64]:
        """Mean over the replicas of each model (m,)."""
        return np.array([self.values[self.models == model].mean() for model in np.unique(self.models)])

    @property
    def model_deviation(self) -> float | None:
        """Standard deviation of the models' means, None if one model drove all."""
        means = self.model_means
        return float(means.std(ddof=1)) if len(means) > 1 else None

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean over replicas, or over models if that is larger; None for a single run.

        Replicas of one model are not independent in what is that model's own, so that with fewer models than replicas
        the scatter of the latter alone would tell too small an error.
        """
        if len(self.values) < 2:
            return None
        return max(error for error, _ in self._errors())

    @property
    def half95(self) -> float | None:
        """Half of the mean's 95 % interval by Student's t, over replicas or over models, whichever is wider."""
        if len(self.values) < 2:
            return None
        return max(float(stats.t.ppf(0.975, freedom)) * error for error, freedom in self._errors())

    def _errors(self) -> list[tuple[float, int]]:
        """Standard error and degrees of freedom, of the replicas and, if there are several, of the models' means."""
        samples = (self.values, self.model_means)
        return [(float(own.std(ddof=1)) / math.sqrt(len(own)), len(own) - 1) for own in samples if len(own) > 1]


def replicas(records: Iterable[dict[str, Any]], *keys: str) -> dict[Place, Replicas]:
    """Return what the replicas of each place show under a key, or a key of a key; those without a value are left out.

    A record holds glass, atoms, cooling_rate_K_ps and driven_by.
    """
    found: dict[Place, list[tuple[float, int]]] = {}
    for own in records:
        value: Any = own
        for key in keys:
            value = value[key]
        if value is not None:
            found.setdefault(place_of(own), []).append((value, own["driven_by"]))
    return {
        place: Replicas(np.array([value for value, _ in seen], dtype=float), np.array([model for _, model in seen]))
        for place, seen in found.items()
    }


def model_of(chunks: Iterable[dict[str, Any]]) -> int:
    """Return which model of the ensemble drove the chunks of a run, by its index."""
    return next((entry["spec"]["driven_by"] for entry in chunks if "driven_by" in entry["spec"]), 0)


def told(own: Replicas | None, factor: float = 1.0, digits: int = 1) -> str:
    """Return mean ± standard error and, in brackets, the deviation between models, as text; a dash for None."""
    if own is None:
        return "-"
    text = f"{factor * own.mean:.{digits}f}"
    if own.standard_error is not None:
        text += f" ± {factor * own.standard_error:.{digits}f}"
    return text if own.model_deviation is None else f"{text} ({factor * own.model_deviation:.{digits}f})"


def told_error(records: Iterable[dict[str, Any]]) -> str:
    """Say in a sentence what the error of the means over these runs holds."""
    seen: dict[Place, list[int]] = {}
    for own in records:
        seen.setdefault(place_of(own), []).append(own["driven_by"])
    if all(len(models) < 2 for models in seen.values()):
        return "There is one run of each, and so no error of what it shows."
    if any(len(set(models)) > 1 for models in seen.values()):
        return (
            "± is the standard error over replicas, or over the means of the models if that is larger; as models of "
            "the ensemble drove the replicas in turn, it holds both the scatter between runs and that between models, "
            "whose standard deviation stands in brackets."
        )
    return "± is the standard error over replicas; one model drove all of them, so that it holds no scatter of models."
