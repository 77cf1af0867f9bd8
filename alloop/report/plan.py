"""What a run would do: tasks, and the core-hours they take at the pace measured so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from alloop.campaign import Campaign
from alloop.config import BootstrapParam, Param
from alloop.cost import price_text
from alloop.decisions.exploration import trajectories
from alloop.decisions.probing import probe_chunks
from alloop.decisions.production import quench_chunks, quenched_samples
from alloop.decisions.quenching import quench_section
from alloop.decisions.relaxing import relaxed_glasses
from alloop.errors import InputError
from alloop.loop import limits
from alloop.policy import next_decision
from alloop.pool_params import pool_of, pool_slots
from alloop.report.cost import cost_record, shares_used
from alloop.tasks.sources import read_labelled, read_structures_file

_FILES_PER_TASK = 8


def build_plan(campaign: Campaign, param: Param, max_iterations: int) -> dict[str, Any]:
    """Return the tasks still to come, at most: as many iterations and labels as the configuration allows.

    What the guard of production may ask for is not among them: ``guard_labels_at_most`` tells it, of one quench.
    """
    state = campaign.state
    iterations = max(0, max_iterations - sum(kind == "verdict" for kind, _ in state.decisions))
    trainings = iterations + 1 - int(state.iteration >= 0 and not state.decided("verdict", state.iteration))
    chunks = len(trajectories(param)) * param.explore.chunks
    own = param.bootstrap
    melts = sum(len(entry.n_atoms) for entry in param.glasses) * own.trajectories
    new = not state.decided("bootstrap")
    quenched = state.decisions.get(("quench", state.iteration), {})
    closing = iterations > 0 or not quenched
    quenching = closing or quenched.get("section", "") not in ("", quench_section(param))
    final = param.train.models if quenching and param.quench and param.quench.final_training else 0
    relax = param.quench.relax if quenching and param.quench else None
    relaxed = quenched_samples(param) if relax else 0
    guarded = iterations > 0 and param.quench is not None and param.quench.guard_records > 0
    tasks = {
        "bootstrap": (melts + len(own.crystals) + len(own.structures) + len(own.data)) if new else 0,
        "label": iterations * param.select.max_labels + (bootstrap_labels(campaign.root, own, melts) if new else 0),
        "train": max(0, trainings) * param.train.models + final,
        "explore": iterations * chunks,
        "evaluate": 3 * iterations + (max_iterations + 1 if closing else 0),  # with describing and ranking
        "quench": iterations * probe_chunks(param) + (quench_chunks(param) if quenching else 0),
        "relax": (relaxed_glasses(param) if iterations else 0) + relaxed,
    }
    if param.label.foundation and (new or state.foundation_level):
        tasks["label"] += param.label.foundation.promote
        tasks["train"] += param.train.models
    wanted = [state.tasks[key].kind for key in [*state.waiting, *state.running]]
    rows: list[dict[str, Any]] = []
    for kind, count in tasks.items():
        spend = campaign.costs.of(kind, state.level)
        row: dict[str, Any] = {"kind": kind, "decided": wanted.count(kind), "at_most": count}
        row["core_hours"] = round(count * spend.all_core_seconds / spend.tasks / 3600, 3) if spend.tasks else None
        row["gpu_hours"] = round(count * spend.all_gpu_seconds / spend.tasks / 3600, 3) if spend.tasks else None
        rows.append(row)
    due_rows = [row for row in rows if row["at_most"]]
    due = next_decision(state, limits(param, max_iterations))
    return {
        "next": due[0] if isinstance(due, tuple) else "none before the open work ends" if due is None else "none",
        "iterations_left": iterations,
        "tasks": rows,
        "files_at_most": _FILES_PER_TASK * sum(tasks.values()),
        "core_hours": _sum(due_rows, "core_hours"),
        "gpu_hours": _sum(due_rows, "gpu_hours"),
        "core_hours_per_label": cost_record(campaign.costs, state.level)["core_hours_per_label"],
        "hours_on_slots": _hours_on_slots(campaign, param, tasks),
        "budget": shares_used(campaign.costs, param.budget),
        "single_points_at_most": quenched_samples(param, relax.largest_atoms) if relax else 0,
        "guard_labels_at_most": param.select.max_labels if guarded else 0,
    }


def _sum(rows: list[dict[str, Any]], key: str) -> float | None:
    """Return the sum over all rows, None if one of them is not known."""
    values = [row[key] for row in rows]
    return None if any(value is None for value in values) else round(sum(values), 3)


def _hours_on_slots(campaign: Campaign, param: Param, tasks: dict[str, int]) -> float | None:
    """Return how long the tasks take on the slots of their pools at the measured pace; the slowest pool decides."""
    load_s = dict.fromkeys(param.pools, 0.0)
    for kind, count in tasks.items():
        mean_s = campaign.costs.of(kind, campaign.state.level).mean_seconds
        if count and mean_s is None:
            return None
        load_s[pool_of(param.pools, kind)] += count * (mean_s or 0.0)
    return round(max(load / pool_slots(param.pools[name]) for name, load in load_s.items()) / 3600, 3)


def bootstrap_labels(root: Path, own: BootstrapParam, melts: int) -> int:
    """Return how many labels the bootstrap asks for at most; InputError for a file of one's own that is unusable."""
    try:
        structures = sum(len(read_structures_file(root / name)) for name in own.structures)
        given = sum(len(read_labelled(root / data.path, data.format)[:: data.every]) for data in own.data)
    except ValueError as error:
        raise InputError(f"{error}\n  see all problems with: alloop check") from None
    made = melts * (own.snapshots + own.strained_copies) + len(own.crystals) * own.crystal_copies * (
        1 + len(own.crystal_md_K)
    )
    return made + structures + given


def print_plan(plan: dict[str, Any], console: Console) -> None:
    """Print the plan as a table."""
    table = Table("kind of task", title="what a run would do, at most")
    for column in ("decided, open", "still to come", "core-hours", "GPU-hours"):
        table.add_column(column, justify="right")
    for row in plan["tasks"]:
        hours = [_hours(row["core_hours"], "unknown until measured"), _hours(row["gpu_hours"], "")]
        table.add_row(row["kind"], str(row["decided"]), str(row["at_most"]), *hours)
    console.print(table)
    total = "unknown until measured"
    if plan["core_hours"] is not None:
        total = f"{plan['core_hours']:.2f} core-hours, {plan['gpu_hours']:.2f} GPU-hours"
        total += f", {plan['hours_on_slots']:.2f} hours on the slots of its pools"
    console.print(
        f" next decision: {plan['next']}; at most {plan['iterations_left']} iteration(s), "
        f"about {plan['files_at_most']} files; cost {total}",
        highlight=False,
    )
    per_label = plan["core_hours_per_label"]
    told = "unknown until measured" if per_label is None else f"{price_text(per_label)} so far"
    console.print(f" a label costs: {told}", highlight=False)
    if plan["single_points_at_most"]:
        console.print(
            f" {plan['single_points_at_most']} of the relaxations are one energy each, of cells larger than "
            "quench.relax.largest_atoms",
            highlight=False,
        )
    if plan["guard_labels_at_most"]:
        console.print(
            f" not counted: if production leaves what a converged ensemble can be trusted in, up to "
            f"{plan['guard_labels_at_most']} labels more and all quenches again (quench.guard_records)",
            highlight=False,
        )
    for what, entry in plan["budget"].items():
        used = f"{entry['used']:g} of {entry['limit']:g} used so far"
        console.print(f" budget.{what}: {used}", highlight=False)


def _hours(value: float | None, unknown: str) -> str:
    return unknown if value is None else f"{value:.3f}"
