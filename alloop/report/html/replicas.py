"""Replicas: runs alike in glass, cell size and rate of cooling, with the mean of what they show and its error.

Runs of one replica are branches of one melt: they share heating and mixing, and one model drives them. They are no
independent samples, so that their mean counts as one value where an error is formed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Place = tuple[str, int, float | None]
"""Glass, atoms and rate of cooling (K/ps): runs alike in all three are replicas, or branches of one."""


def place_of(own: dict[str, Any]) -> Place:
    """Return what the record of a run is a replica of."""
    return own["glass"], own["atoms"], own["cooling_rate_K_ps"]


def melt_of(own: dict[str, Any]) -> str:
    """Return what the runs of one replica have in common and no other replica of their glass and cell size has.

    It is how the name of a melt-quench ends; what else has a name is a replica by itself.
    """
    name = str(own["run"]).removesuffix(".force-field")
    last = name.rpartition(".")[2]
    return last if re.fullmatch(r"r\d+", last) else name


@dataclass(frozen=True)
class Replicas:
    """What independent replicas show: values (n,), each the mean over the branches of its melt.

    models: which model of the ensemble drove each (n,); runs: what every branch shows (r,), r >= n.
    """

    values: NDArray[np.float64]
    models: NDArray[np.int64]
    runs: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Mean over the replicas."""
        return float(self.values.mean())

    @property
    def branch_deviation(self) -> float | None:
        """Standard deviation of the branches of the one melt there is; None if there is one run, or several melts."""
        return float(self.runs.std(ddof=1)) if len(self.values) == 1 < len(self.runs) else None

    @property
    def bar(self) -> float:
        """What a bar in a figure stands for: the standard error, else the deviation of branches, else nothing."""
        return self.standard_error or self.branch_deviation or 0.0

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
        """Standard error of the mean over replicas, or over models if that is larger; None for one melt.

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


def together(seen: Iterable[tuple[float, str, int]]) -> Replicas:
    """Return what runs show together, each with its value, its melt, and the model that drove it."""
    runs: list[float] = []
    melts: dict[str, list[float]] = {}
    models: dict[str, int] = {}
    for value, melt, model in seen:
        runs.append(value)
        melts.setdefault(melt, []).append(value)
        models.setdefault(melt, model)
    values = np.array([np.mean(own) for own in melts.values()], dtype=float)
    return Replicas(values, np.array(list(models.values())), np.array(runs, dtype=float))


def replicas(records: Iterable[dict[str, Any]], *keys: str) -> dict[Place, Replicas]:
    """Return what the replicas of each place show under a key, or a key of a key; those without a value are left out.

    A record holds run, glass, atoms, cooling_rate_K_ps and driven_by.
    """
    found: dict[Place, list[tuple[float, str, int]]] = {}
    for own in records:
        value: Any = own
        for key in keys:
            value = value[key]
        if value is not None:
            found.setdefault(place_of(own), []).append((value, melt_of(own), own["driven_by"]))
    return {place: together(seen) for place, seen in found.items()}


def model_of(chunks: Iterable[dict[str, Any]]) -> int:
    """Return which model of the ensemble drove the chunks of a run, by its index."""
    return next((entry["spec"]["driven_by"] for entry in chunks if "driven_by" in entry["spec"]), 0)


def told(own: Replicas | None, factor: float = 1.0, digits: int = 1) -> str:
    """Return mean ± standard error and, in brackets, the deviation between models, as text; a dash for None.

    Branches of one melt have a standard deviation, which is named so.
    """
    if own is None:
        return "-"
    text = f"{factor * own.mean:.{digits}f}"
    if own.branch_deviation is not None:
        return f"{text} (sd {factor * own.branch_deviation:.{digits}f})"
    if own.standard_error is not None:
        text += f" ± {factor * own.standard_error:.{digits}f}"
    return text if own.model_deviation is None else f"{text} ({factor * own.model_deviation:.{digits}f})"


def counted(records: Iterable[dict[str, Any]]) -> str:
    """Return how many independent replicas there are, and of how many branches if some are of one melt."""
    melts = [melt_of(own) for own in records]
    count = len(set(melts))
    return str(count) if count == len(melts) else f"{count} ({len(melts)} branches)"


def told_error(records: Iterable[dict[str, Any]]) -> str:
    """Say in a sentence or two what the error of the means over these runs holds."""
    seen: dict[Place, list[tuple[str, int]]] = {}
    for own in records:
        seen.setdefault(place_of(own), []).append((melt_of(own), own["driven_by"]))
    if all(len(runs) < 2 for runs in seen.values()):
        return "There is one run of each, and so no error of what it shows."
    replicated = [{model for _, model in runs} for runs in seen.values() if len({melt for melt, _ in runs}) > 1]
    told = []
    if any(len(models) > 1 for models in replicated):
        told.append(
            "± is the standard error over replicas, or over the means of the models if that is larger; as models of "
            "the ensemble drove the replicas in turn, it holds both the scatter between runs and that between models, "
            "whose standard deviation stands in brackets."
        )
    elif replicated:
        told.append(
            "± is the standard error over replicas; one model drove all of them, so that it holds no scatter of models."
        )
    told += _told_branches(seen.values())
    return " ".join(told)


def _told_branches(places: Collection[list[tuple[str, int]]]) -> list[str]:
    """Say what branches of one melt count as, where there are any; places: melt and model of each run."""
    branched = [(len(runs), melts) for runs in places if len(runs) > (melts := len({melt for melt, _ in runs}))]
    told = []
    if alone := sorted({count for count, melts in branched if melts == 1}):
        told.append(
            f"sd is the standard deviation of {' or '.join(map(str, alone))} branches of one melt: they share heating "
            "and mixing, so that it is no error of the mean, which needs a quench.replicas of 2 or more."
        )
    if any(melts > 1 for _, melts in branched):
        told.append("Branches of one melt are no independent replicas: their mean counts as one.")
    return told
