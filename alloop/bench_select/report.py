"""What a comparison found: labels each method needs for random's final error, as a record, a table and a plot."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from alloop.bench_select.curves import Estimate, labels_for, labels_needed, mean_curve
from alloop.bench_select.errors import meaning, unit
from alloop.bench_select.pool import Pool
from alloop.errors import InputError

BASE = "random"
TARGETED = "forces"
"""The kind of error that a person may name a target for."""


def describe_pool(pool: Pool) -> dict[str, Any]:
    """Return what a pool holds: frames, atoms, trajectories, glasses and events of both sides.

    ``past_gate``: how many further frames are not chosen from because they are past a hard gate.
    """
    sides = {"choose": (pool.frames, pool.events), "test": (pool.test, pool.test_events)}
    return {"key": pool.key, "type_map": list(pool.type_map), "past_gate": pool.past_gate} | {
        side: {
            "frames": len(frames),
            "atoms": sum(len(frame.label.atoms) for frame in frames),
            "trajectories": len({frame.trajectory for frame in frames}),
            "glasses": dict(Counter(frame.glass for frame in frames)),
            "events": {event: sum(event in found for found in events) for event in pool.ruleset.events},
        }
        for side, (frames, events) in sides.items()
    }


def compare(records: Sequence[dict[str, Any]], target_eV_A: float | None = None) -> dict[str, Any]:
    """Return per kind of error and method the learning curve and the labels needed for random's final error.

    records: of every method, seed and size (see `Experiment.to_json`). A kind of error that the test set cannot show is
    left out. ``labels`` and ``ratio`` are {value, low, high}, null for more labels than the largest size. With a target
    the force error has it as ``target_eV_A``, and each method beside the others ``labels_to_target``.
    """
    methods = list(dict.fromkeys(record["method"] for record in records))
    sizes = sorted({record["labels"] for record in records})
    kinds = [kind for kind in records[0]["errors"] if all(record["errors"][kind] is not None for record in records)]
    found: dict[str, dict[str, Any]] = {}
    for kind in kinds:
        tables = {method: _errors(records, kind, method, sizes) for method in methods}
        rows: dict[str, dict[str, Any]] = {}
        for method, errors in tables.items():
            needed = labels_needed(np.array(sizes), errors, tables[BASE])
            rows[method] = {
                "mean": mean_curve(errors).tolist(),
                "by_seed": errors.tolist(),
                "labels": _plain(needed.labels),
                "ratio": _plain(needed.ratio),
            }
        found[kind] = {"unit": unit(kind), "meaning": meaning(kind), "methods": rows}
        if kind == TARGETED and target_eV_A is not None:
            found[kind]["target_eV_A"] = target_eV_A
            for method, errors in tables.items():
                rows[method]["labels_to_target"] = _plain(labels_for(np.array(sizes), errors, target_eV_A))
    return {"sizes": sizes, "errors": found}


def _errors(records: Sequence[dict[str, Any]], kind: str, method: str, sizes: Sequence[int]) -> np.ndarray:
    """Return the errors of one kind of a method, (seeds, sizes)."""
    own = [record for record in records if record["method"] == method]
    by = {(record["seed"], record["labels"]): record["errors"][kind] for record in own}
    return np.array([[by[seed, size] for size in sizes] for seed in sorted({seed for seed, _ in by})])


def _plain(estimate: Estimate) -> dict[str, float | None]:
    values = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def print_comparison(comparison: dict[str, Any], console: Console) -> None:
    """Print errors by size, and the labels each method needs, one section per kind of error."""
    sizes = comparison["sizes"]
    table = Table("error on the test set", "method", title="errors by number of labels, mean over seeds")
    for size in sizes:
        table.add_column(str(size), justify="right")
    table.add_column("labels needed", justify="right")
    table.add_column("ratio to random", justify="right")
    for kind, entry in comparison["errors"].items():
        for number, (method, row) in enumerate(entry["methods"].items()):
            name = f"{kind}, {entry['unit']}" if number == 0 else ""
            errors = [f"{value:.3g}" for value in row["mean"]]
            labels, ratio = _interval(row["labels"], sizes, ".0f"), _interval(row["ratio"], None, ".2f")
            table.add_row(name, method, *errors, labels, ratio)
        table.add_section()
    table.caption = (
        f"labels needed: for random's error at {sizes[-1]} labels, with the 95 % interval over seeds; "
        f">{sizes[-1]}: not reached"
    )
    console.print(table)
    _print_target(comparison, console)


def _print_target(comparison: dict[str, Any], console: Console) -> None:
    """Print the labels each method needs for the force error that was named, if one was."""
    sizes, entry = comparison["sizes"], comparison["errors"].get(TARGETED, {})
    if "target_eV_A" not in entry:
        return
    table = Table("method")
    table.add_column(f"labels needed for a force RMSE of {entry['target_eV_A']:g} {entry['unit']}", justify="right")
    for method, row in entry["methods"].items():
        table.add_row(method, _interval(row["labels_to_target"], sizes, ".0f"))
    console.print(table)


def _interval(estimate: dict[str, float | None], sizes: Sequence[int] | None, style: str) -> str:
    """Return an estimate as ``215 [180, 260]``; beyond the sizes as ``>480``, at their first as ``<=60``."""

    def text(value: float | None) -> str:
        if value is None:
            return f">{sizes[-1]}" if sizes else "-"
        return f"<={value:{style}}" if sizes and value <= sizes[0] else f"{value:{style}}"

    return f"{text(estimate['value'])} [{text(estimate['low'])}, {text(estimate['high'])}]"


def plot_comparison(comparison: dict[str, Any], file: Path) -> None:
    """Draw the learning curves, one panel per kind of error; the suffix decides the format. InputError if it cannot."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kinds = comparison["errors"]
    columns = min(len(kinds), 4)
    rows = math.ceil(len(kinds) / columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 3.4 * rows), constrained_layout=True, squeeze=False
    )
    for axes in grid.flat[len(kinds) :]:
        axes.set_axis_off()
    for axes, (kind, entry) in zip(grid.flat, kinds.items(), strict=False):
        _draw(axes, kind, entry, comparison["sizes"])
    handles, names = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    try:
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write the plot to {file}: {error}") from None
    finally:
        plt.close(figure)


def _draw(axes: Any, kind: str, entry: dict[str, Any], sizes: Sequence[int]) -> None:
    from matplotlib.ticker import NullFormatter

    for number, (method, row) in enumerate(entry["methods"].items()):
        errors, mean = np.array(row["by_seed"]), np.array(row["mean"])
        spread = np.abs(np.stack([errors.min(axis=0), errors.max(axis=0)]) - mean)
        axes.errorbar(sizes, mean, yerr=spread, fmt="o-", color=f"C{number}", capsize=2, label=method, markersize=4)
    axes.axhline(entry["methods"][BASE]["mean"][-1], color="grey", linestyle="--", linewidth=1)
    if "target_eV_A" in entry:
        axes.axhline(entry["target_eV_A"], color="black", linestyle=":", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="labels", ylabel=entry["unit"], title=kind.replace("_", " "))
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_formatter(NullFormatter())
