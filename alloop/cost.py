"""What work took: core- and GPU-seconds, waits and failures, summed event by event and never walked through again."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_BINS_PER_DECADE = 20
_SHORTEST_S = 0.1


def allotment() -> dict[str, Any]:
    """Return what this process was given: pool, job, slot, threads, cores and GPUs of one task.

    ALLOOP_CORES counts all cores of a task, also those of a code started with ``mpirun -np N``; without it a task has
    as many as it has threads.
    """
    threads = _number("OMP_NUM_THREADS", 1)
    return {
        "pool": os.environ.get("ALLOOP_POOL"),
        "job": os.environ.get("ALLOOP_JOB"),
        "slot": _number("ALLOOP_SLOT", 0) if "ALLOOP_SLOT" in os.environ else None,
        "threads": threads,
        "cores": _number("ALLOOP_CORES", threads),
        "gpus": _number("ALLOOP_GPUS", 0),
    }


def _number(variable: str, default: int) -> int:
    try:
        return max(0, int(os.environ.get(variable, default)))
    except ValueError:
        return default


def _sum(total: float, more: float) -> float:
    """Return a sum of times to the microsecond, which does not depend on the order in which they are added."""
    return round(total + more, 6)


class Waits:
    """How long tasks waited, as a histogram over logarithmic bins: cheap to add to, quantiles good to 12 %."""

    def __init__(self, counts: Mapping[str, int] | None = None, total_s: float = 0.0) -> None:
        self.counts = {int(bin_): count for bin_, count in (counts or {}).items()}
        self.total_s = total_s

    def add(self, seconds: float) -> None:
        """Count one wait; what is shorter than 0.1 s falls into the first bin."""
        bin_ = max(0, math.ceil(_BINS_PER_DECADE * math.log10(max(seconds, _SHORTEST_S) / _SHORTEST_S)))
        self.counts[bin_] = self.counts.get(bin_, 0) + 1
        self.total_s = _sum(self.total_s, seconds)

    @property
    def mean_s(self) -> float | None:
        """Mean wait; None before the first."""
        count = sum(self.counts.values())
        return self.total_s / count if count else None

    def quantile_s(self, share: float) -> float | None:
        """Return the upper edge of the bin below which this share of the waits is; None before the first."""
        left = share * sum(self.counts.values())
        for bin_, count in sorted(self.counts.items()):
            left -= count
            if left <= 1e-9:
                return _SHORTEST_S * 10 ** (bin_ / _BINS_PER_DECADE) if bin_ else 0.0
        return None

    def to_json(self) -> list[Any]:
        """Return the histogram as JSON; ``Waits(*value)`` makes it again."""
        return [{str(bin_): count for bin_, count in self.counts.items()}, self.total_s]


@dataclass
class Spend:
    """What tasks of one sort took: those that ended well, and what was lost in attempts that failed."""

    tasks: int = 0
    seconds: float = 0.0
    core_seconds: float = 0.0
    gpu_seconds: float = 0.0
    failures: int = 0
    lost_core_seconds: float = 0.0
    lost_gpu_seconds: float = 0.0
    waits: Waits = field(default_factory=Waits)

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one finished task by the record of its manifest."""
        seconds = float(record["seconds"])
        self.tasks += 1
        self.seconds = _sum(self.seconds, seconds)
        self.core_seconds = _sum(self.core_seconds, seconds * cores_of(record))
        self.gpu_seconds = _sum(self.gpu_seconds, seconds * (record.get("gpus") or 0))
        self._waited(record)

    def add_failure(self, record: Mapping[str, Any]) -> None:
        """Count one failed attempt by its failure record; one of unknown length costs nothing."""
        seconds = float(record.get("seconds") or 0.0)
        self.failures += 1
        self.lost_core_seconds = _sum(self.lost_core_seconds, seconds * cores_of(record))
        self.lost_gpu_seconds = _sum(self.lost_gpu_seconds, seconds * (record.get("gpus") or 0))
        self._waited(record)

    def _waited(self, record: Mapping[str, Any]) -> None:
        if record.get("waited_s") is not None:
            self.waits.add(float(record["waited_s"]))

    @property
    def mean_seconds(self) -> float | None:
        """Seconds of a task that ended well, None before one has."""
        return self.seconds / self.tasks if self.tasks else None

    @property
    def core_hours_per_task(self) -> float | None:
        """Core-hours per task that ended well, those of failed attempts included; None before one has."""
        return self.all_core_seconds / self.tasks / 3600 if self.tasks else None

    @property
    def all_core_seconds(self) -> float:
        """Core-seconds spent, those of failed attempts included."""
        return self.core_seconds + self.lost_core_seconds

    @property
    def all_gpu_seconds(self) -> float:
        """GPU-seconds spent, those of failed attempts included."""
        return self.gpu_seconds + self.lost_gpu_seconds

    def to_json(self) -> dict[str, Any]:
        """Return all sums as JSON, from which `from_json` makes them again."""
        return {name: getattr(self, name) for name in _SUMS} | {"waits": self.waits.to_json()}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Spend:
        """Return the sums that `to_json` wrote."""
        return cls(**{name: record[name] for name in _SUMS}, waits=Waits(*record["waits"]))


_SUMS = (
    *("tasks", "seconds", "core_seconds", "gpu_seconds"),
    *("failures", "lost_core_seconds", "lost_gpu_seconds"),
)


def cores_of(record: Mapping[str, Any]) -> int:
    """Return the cores of a manifest's or failure's record; records without them tell the threads at least."""
    return int(record.get("cores") or record.get("threads") or 1)


def _spend_in(group: dict[str, Spend], what: str) -> Spend:
    found = group.get(what)
    if found is None:
        found = group[what] = Spend()
    return found


SHARED = "(shared)"
"""Where the cost of work for all glasses at once is counted."""


class Costs:
    """All cost of a campaign: per kind of task, per glass, and of labels per reason they were picked for.

    by_level: of labels per level of theory, those left out that came with imported data; paid_labels: how many labels
    that is in all.
    """

    def __init__(self) -> None:
        self.by_kind: dict[str, Spend] = {}
        self.by_glass: dict[str, Spend] = {}
        self.by_reason: dict[str, Spend] = {}
        self.by_level: dict[str, Spend] = {}
        self.paid_labels = 0

    def add(self, kind: str, glass: str | None, pick: Mapping[str, Any] | None, record: Mapping[str, Any]) -> None:
        """Count a finished task; pick: of a label, what it was picked for."""
        for spend in self._of(kind, glass, pick):
            spend.add(record)
        self.paid_labels += pick is not None and not pick.get("given")

    def add_failure(
        self, kind: str, glass: str | None, pick: Mapping[str, Any] | None, record: Mapping[str, Any]
    ) -> None:
        """Count a failed attempt."""
        for spend in self._of(kind, glass, pick):
            spend.add_failure(record)

    def _of(self, kind: str, glass: str | None, pick: Mapping[str, Any] | None) -> list[Spend]:
        found = [_spend_in(self.by_kind, kind), _spend_in(self.by_glass, glass or SHARED)]
        if pick is not None:
            found.append(_spend_in(self.by_reason, str(pick.get("reason"))))
            if not pick.get("given"):
                found.append(_spend_in(self.by_level, str(pick.get("level"))))
        return found

    def of(self, kind: str, level: str | None) -> Spend:
        """Return what tasks of a kind took; of labels those at one level of theory, without imported ones.

        A foundation's labels tell nothing of what those of the campaign's own labeler cost.
        """
        if kind == "label":
            return self.by_level.get(str(level), Spend())
        return self.by_kind.get(kind, Spend())

    @property
    def core_hours(self) -> float:
        """Core-hours spent on everything, failed attempts included."""
        return sum(spend.all_core_seconds for spend in self.by_kind.values()) / 3600

    @property
    def gpu_hours(self) -> float:
        """GPU-hours spent on everything, failed attempts included."""
        return sum(spend.all_gpu_seconds for spend in self.by_kind.values()) / 3600

    def to_json(self) -> dict[str, Any]:
        """Return all sums as JSON, from which `from_json` makes them again."""
        return {"paid_labels": self.paid_labels} | {
            name: {what: spend.to_json() for what, spend in getattr(self, name).items()} for name in _GROUPS
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Costs:
        """Return the sums that `to_json` wrote."""
        costs = cls()
        costs.paid_labels = int(record["paid_labels"])
        for name in _GROUPS:
            setattr(costs, name, {what: Spend.from_json(entry) for what, entry in record[name].items()})
        return costs


_GROUPS = ("by_kind", "by_glass", "by_reason", "by_level")


def price_text(core_hours: float) -> str:
    """Return what a label costs; in seconds below a minute of a core, which is a cheap labeler's."""
    return f"{3600 * core_hours:.2g} core-seconds" if core_hours < 1 / 60 else f"{core_hours:.3g} core-hours"
