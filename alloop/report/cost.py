"""What a campaign has cost and may cost: the record for status, tables for stats, the budget, the time still needed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.console import Console
from rich.table import Table

from alloop.cost import Costs, Spend, price_text
from alloop.state import State

if TYPE_CHECKING:
    from alloop.config import BudgetParam

WARN_FROM = 0.8
"""Share of the budget from which status warns."""


@dataclass(frozen=True)
class RecordedBudget:
    """The budget as a start's configuration records it."""

    core_hours: float | None = None
    gpu_hours: float | None = None
    labels: int | None = None
    free_disk_GB: float = 1.0
    when_used_up: str = "stop"


Budget: TypeAlias = "BudgetParam | RecordedBudget"

_UNITS = {"core_hours": "core-hours", "gpu_hours": "GPU-hours", "labels": "labels"}


def recorded_budget(config: Mapping[str, Any] | None) -> RecordedBudget:
    """Return the budget of a recorded configuration; one without limits if it has none."""
    return RecordedBudget(**((config or {}).get("budget") or {}))


def shares_used(costs: Costs, budget: Budget, labels_under_way: int = 0) -> dict[str, dict[str, float]]:
    """Return limit, what is used and its share, for each limit of the budget that is set."""
    used = {
        "core_hours": round(costs.core_hours, 4),
        "gpu_hours": round(costs.gpu_hours, 4),
        "labels": costs.paid_labels + labels_under_way,
    }
    limits = {what: getattr(budget, what) for what in used}
    return {
        what: {"limit": limit, "used": used[what], "share": round(used[what] / limit, 4)}
        for what, limit in limits.items()
        if limit is not None
    }


def used_up(costs: Costs, state: State, budget: Budget) -> str | None:
    """Return which limit of the budget is reached, as a sentence, or None; labels under way count as made.

    Core- and GPU-hours of running work are not known before it ends, so that a campaign may exceed these limits by
    what runs when they are reached.
    """
    for what, entry in shares_used(costs, budget, labels_under_way(state)).items():
        if entry["used"] >= entry["limit"]:
            return (
                f"the budget of {entry['limit']:g} {_UNITS[what]} is used up ({entry['used']:g}); raise budget.{what}"
            )
    return None


def labels_under_way(state: State) -> int:
    """Return how many labels that count against the budget run: all but imported ones."""
    labels = (key for key in state.running if state.tasks[key].kind == "label")
    return sum(not state.picks[key].get("given") for key in labels)


def labels_left(costs: Costs, state: State, budget: Budget) -> float:
    """Return how many more labels the budget lets begin; infinity without a limit, or one that only warns."""
    if budget.labels is None or budget.when_used_up != "stop":
        return math.inf
    return max(0, budget.labels - costs.paid_labels - labels_under_way(state))


def budget_record(config: Mapping[str, Any] | None, costs: Costs) -> dict[str, Any] | None:
    """Return limits, use and shares for status; None without a budget in the recorded configuration."""
    budget = recorded_budget(config)
    found = shares_used(costs, budget)
    return found | {"when_used_up": budget.when_used_up} if found else None


def budget_warnings(record: dict[str, Any] | None) -> list[str]:
    """Return a line for each limit of which 80 % are used."""
    return [
        f"{100 * entry['share']:.0f} % of the budget used: {entry['used']:g} of {entry['limit']:g} {_UNITS[what]}"
        for what, entry in (record or {}).items()
        if isinstance(entry, dict) and entry["share"] >= WARN_FROM
    ]


# ---------------------------------------------------------------------------------------- what it has cost


def cost_record(costs: Costs, level: str | None) -> dict[str, Any]:
    """Return all cost so far, for status and stats: totals, per label, and per kind, glass and label reason.

    level: of theory, of the labels that are asked for now; the price of a label is that of one at this level.
    """
    per_label = costs.of("label", level).core_hours_per_task
    core_s = sum(spend.all_core_seconds for spend in costs.by_kind.values())
    lost_s = sum(spend.lost_core_seconds for spend in costs.by_kind.values())
    return {
        "core_hours": round(core_s / 3600, 4),
        "gpu_hours": round(costs.gpu_hours, 4),
        "failed_share": round(lost_s / core_s, 4) if core_s else 0.0,
        "core_hours_per_label": None if per_label is None else round(per_label, 6),
        "by_kind": {kind: spend_record(spend) for kind, spend in costs.by_kind.items()},
        "by_glass": {glass: spend_record(spend) for glass, spend in sorted(costs.by_glass.items())},
        "by_reason": {reason: spend_record(spend) for reason, spend in sorted(costs.by_reason.items())},
    }


def spend_record(spend: Spend) -> dict[str, Any]:
    """Return one row: seconds are of finished tasks, hours of all attempts; waits are for a slot, None if unknown."""
    mean, p90 = spend.waits.mean_s, spend.waits.quantile_s(0.9)
    return {
        "tasks": spend.tasks,
        "seconds": round(spend.seconds, 1),
        "core_hours": round(spend.all_core_seconds / 3600, 4),
        "gpu_hours": round(spend.all_gpu_seconds / 3600, 4),
        "waited_mean_s": None if mean is None else round(mean, 2),
        "waited_p90_s": None if p90 is None else round(p90, 2),
        "failures": spend.failures,
        "failed_core_hours": round(spend.lost_core_seconds / 3600, 4),
    }


def cost_text(cost: dict[str, Any]) -> str:
    """Return the cost as one line for status."""
    parts = [f"{cost['core_hours']:.2f} core-hours"]
    parts += [f"{cost['gpu_hours']:.2f} GPU-hours"] * bool(cost["gpu_hours"])
    if cost["core_hours_per_label"] is not None:
        parts.append(f"{price_text(cost['core_hours_per_label'])} per label")
    if cost["failed_share"]:
        parts.append(f"{100 * cost['failed_share']:.1f} % of it in failed attempts")
    return ", ".join(parts)


def budget_text(record: dict[str, Any]) -> str:
    """Return the share used of each limit as one line."""
    used = [
        f"{100 * entry['share']:.0f} % of {entry['limit']:g} {_UNITS[what]}"
        for what, entry in record.items()
        if isinstance(entry, dict)
    ]
    return ", ".join(used) + {"stop": " (the run ends there)", "warn": ""}[record["when_used_up"]]


_TABLES = (("kind of task", "by_kind"), ("glass", "by_glass"), ("reason of the label", "by_reason"))


def print_costs(cost: dict[str, Any], console: Console) -> None:
    """Print cost, waits and failures per kind of task, per glass, and of labels per reason."""
    for first, name in _TABLES:
        if not cost[name]:
            continue
        table = Table(first, title=f"cost by {first}")
        for column in ("done", "core-h", "GPU-h", "mean s", "wait s", "p90", "failed", "lost core-h"):
            table.add_column(column, justify="right")
        for what, row in cost[name].items():
            mean = f"{row['seconds'] / row['tasks']:.1f}" if row["tasks"] else "-"
            waits = ["-" if row[key] is None else f"{row[key]:.0f}" for key in ("waited_mean_s", "waited_p90_s")]
            hours = f"{row['core_hours']:.3f}", f"{row['gpu_hours']:.2f}", mean
            table.add_row(
                what, str(row["tasks"]), *hours, *waits, str(row["failures"]), f"{row['failed_core_hours']:.3f}"
            )
        console.print(table)
    console.print(f" cost: {cost_text(cost)}", highlight=False)


# ---------------------------------------------------------------------------------------- what is still to come


def eta_hours(
    costs: Costs, config: Mapping[str, Any] | None, open_kinds: Mapping[str, int], level: str | None
) -> float | None:
    """Return the hours the open tasks, so many of each kind, still need; None while a kind of them is unmeasured.

    level: of theory, of the labels that are asked for now.

    Every pool of the recorded configuration works its tasks off at their kinds' mean durations on all its slots; the
    slowest pool decides.
    """
    if config is None:
        return None
    pools = config.get("pools") or {}
    load_s: dict[str, float] = {}
    for kind, count in open_kinds.items():
        mean_s = costs.of(kind, level).mean_seconds
        if mean_s is None:
            return None
        pool = recorded_pool_of(pools, kind)
        load_s[pool] = load_s.get(pool, 0.0) + count * mean_s
    hours = (load / recorded_slots(pools.get(name) or {}) / 3600 for name, load in load_s.items())
    return round(max(hours, default=0.0), 4)


def eta_text(hours: float | None) -> str:
    """Return the time still needed as text; None is not measured yet."""
    return "unknown until measured" if hours is None else f"{hours:.2f} h for the work decided so far"


def recorded_pool_of(pools: dict[str, Any], kind: str) -> str:
    """Return which pool of a recorded configuration runs a kind of task, as `pool_params.pool_of` does."""
    wanted = "label" if kind == "relax" else kind
    return next((name for name, pool in pools.items() if wanted in (pool.get("tasks") or ())), "local")


def recorded_slots(pool: dict[str, Any]) -> int:
    """Return how many tasks a pool of a recorded configuration runs at once, as `pool_params.pool_slots` does."""
    if "jobs" in pool:
        return int(pool["jobs"]) * int(pool.get("slots_per_job") or 1)
    return int(pool.get("slots") or len(os.sched_getaffinity(0)))
