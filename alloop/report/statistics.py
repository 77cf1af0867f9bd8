"""Selection statistics per iteration, glass and temperature, and event: as a table, as JSON, and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from alloop.campaign import Campaign
from alloop.errors import InputError
from alloop.report.cost import cost_record, print_costs
from alloop.report.status import final_errors, number

_EDGES = np.geomspace(0.01, 100.0, 41)


def build_statistics(campaign: Campaign) -> dict[str, Any]:
    """Return per iteration: classes, strata, events, labels by reason, trust levels, deviation histogram; and cost."""
    state = campaign.state
    iterations = []
    for number_ in range(state.iteration + 1):
        select = state.decisions.get(("select", number_))
        if select is None:
            continue
        keys = ("classes", "strata", "events", "reasons", "lost_chunks", "failed_chunks", "trust_levels_eV_A")
        counts, range_eV_A = _histogram(campaign, number_)
        iterations.append(
            {"iteration": number_}
            | {key: select[key] for key in keys}
            | {"deviation_histogram": counts, "deviation_range_eV_A": range_eV_A}
        )
    return {
        "campaign": state.identity.get("name"),
        "histogram_edges_eV_A": _EDGES.tolist(),
        "iterations": iterations,
        "final_held_out": final_errors(campaign),
        "cost": cost_record(campaign.costs),
    }


def _histogram(campaign: Campaign, iteration: int) -> tuple[list[int], list[float] | None]:
    """Return counts of the largest force deviation of every recorded frame, and its range; frames beyond clip in."""
    values = []
    for entry in campaign.state.decisions["explore", iteration]["tasks"]:
        if entry["key"] in campaign.state.done:
            with np.load(campaign.result(entry["key"]) / "table.npz") as table:
                values.append(table["max_force_deviation_eV_A"])
    found = np.concatenate(values) if values else np.array([])
    found = found[np.isfinite(found)]
    counts = np.histogram(np.clip(found, _EDGES[0], _EDGES[-1]), _EDGES)[0].tolist()
    return counts, [float(found.min()), float(found.max())] if found.size else None


def print_statistics(statistics: dict[str, Any], console: Console) -> None:
    """Print one table per iteration, and what all of it cost."""
    if not statistics["iterations"]:
        console.print("no selection has been made yet")
    for record in statistics["iterations"]:
        low, high = record["trust_levels_eV_A"]
        table = Table("glass and temperature", title=f"iteration {record['iteration']}")
        for column in ("accurate", "candidate", "failed", "lost chunks", "labels"):
            table.add_column(column, justify="right")
        table.caption = (
            f"records by largest force deviation: accurate < {low:g} <= candidate < {high:g} <= failed (eV/Å)"
        )
        for name, entry in record["strata"].items():
            table.add_row(name, *(str(entry[key]) for key in ("accurate", "candidate", "failed", "lost", "labels")))
        total = record["classes"]
        table.add_section()
        labels = sum(record["reasons"].values())
        table.add_row(
            "all",
            str(total["accurate"]),
            str(total["candidate"]),
            str(total["failed"]),
            str(record["lost_chunks"]),
            str(labels),
        )
        console.print(table)
        if record["events"]:
            console.print(_events_table(record["events"]))
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(record["reasons"].items())) or "none"
        console.print(f" labels: {reasons}\n", highlight=False)
    for row in statistics["final_held_out"]:
        console.print(
            f" ensemble {row['iteration']} on the final held-out sets: "
            f"force RMSE {number(row['force_rmse_eV_A'])} eV/Å",
            highlight=False,
        )
    print_costs(statistics["cost"], console)


def _events_table(events: dict[str, dict[str, Any]]) -> Table:
    """Return a table of the declared events: frames that showed each, and labels asked for because of it, by band."""
    table = Table("event and temperature band", caption="quota: labels per band; 0 watches without asking")
    for column in ("frames", "labels", "quota"):
        table.add_column(column, justify="right")
    for name, entry in events.items():
        table.add_row(name, str(entry["seen"]), str(entry["labelled"]), str(entry.get("quota", "")))
        for band, counts in entry.get("bands", {}).items():
            table.add_row(f"  {band}", str(counts["seen"]), str(counts["labelled"]), "", style="dim")
    return table


def plot_statistics(statistics: dict[str, Any], file: Path) -> None:
    """Draw classes per iteration, deviation histograms and the errors; the suffix decides the format."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    records = statistics["iterations"]
    if not records:
        raise InputError("nothing to plot yet: no selection has been made; run the campaign first (alloop run)")
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4), constrained_layout=True)
    _draw_classes(left, records)
    _draw_histograms(middle, records, np.array(statistics["histogram_edges_eV_A"]))
    _draw_errors(right, statistics["final_held_out"])
    figure.suptitle(str(statistics["campaign"]))
    try:
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write the plot to {file}: {error}") from None
    finally:
        plt.close(figure)


def _draw_classes(axes: Any, records: list[dict[str, Any]]) -> None:
    positions = np.arange(len(records))
    bottom = np.zeros(len(records))
    for name, colour in (("accurate", "tab:green"), ("candidate", "tab:orange"), ("failed", "tab:red")):
        totals = [max(sum(record["classes"].values()), 1) for record in records]
        share = np.array([record["classes"][name] for record in records]) / totals
        axes.bar(positions, share, bottom=bottom, color=colour, label=name)
        bottom += share
    axes.set(xlabel="iteration", ylabel="share of recorded frames", ylim=(0, 1))
    axes.set_xticks(positions, [record["iteration"] for record in records])
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)


def _draw_histograms(axes: Any, records: list[dict[str, Any]], edges: np.ndarray) -> None:
    for record in records:
        axes.stairs(record["deviation_histogram"], edges, label=f"iteration {record['iteration']}")
    for level in records[-1]["trust_levels_eV_A"]:
        axes.axvline(level, color="grey", linestyle="--", linewidth=1)
    axes.set(xscale="log", xlabel="largest force deviation (eV/Å)", ylabel="frames", title="model deviation")
    axes.legend()


def _draw_errors(axes: Any, rows: list[dict[str, Any]]) -> None:
    axes.set(xlabel="ensemble", ylabel="force RMSE (eV/Å)", title="on the final held-out sets")
    if rows:
        axes.plot([row["iteration"] for row in rows], [row["force_rmse_eV_A"] for row in rows], "o-")
        axes.set_xticks([row["iteration"] for row in rows])
        axes.set_ylim(bottom=0)
    else:
        axes.text(0.5, 0.5, "measured at the end of the run", ha="center", transform=axes.transAxes)
