"""Selection statistics per iteration, glass and temperature, and event: as a table, as JSON, and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from alloop.campaign import Campaign
from alloop.decisions.calibration import (
    LEAST_AUDIT_LABELS,
    LEAST_AUDIT_TRAJECTORIES,
    audit_pairs,
    calibrate,
)
from alloop.errors import InputError
from alloop.report.cost import cost_record, eta_hours, eta_text, print_costs
from alloop.report.status import final_errors, open_kinds
from alloop.report.status_text import number
from alloop.selection.bands import coldest_first
from alloop.selection.calibration import AuditPair, CalibrationMap, GroupMap
from alloop.selection.deviation import DeviationStatistics
from alloop.selection.record import plain

_EDGES = np.geomspace(0.01, 100.0, 33)  # eight per decade: each is between two bins of `DeviationStatistics`
_TOLD_AT_EV_A = (0.1, 0.3, 1.0)  # deviations whose errors the table of calibration tells


def build_statistics(campaign: Campaign) -> dict[str, Any]:
    """Return per iteration: classes, strata, events, labels by reason, trust levels and why they are what they are,
    histogram; the calibration, cost and time needed.
    """
    state = campaign.state
    config = state.starts[-1]["config"] if state.starts else None
    iterations = []
    for number_ in range(state.iteration + 1):
        select = state.decisions.get(("select", number_))
        if select is None:
            continue
        keys = ("classes", "strata", "events", "reasons", "lost_chunks", "failed_chunks", "trust_levels_eV_A")
        iterations.append(
            {"iteration": number_}
            | {key: select[key] for key in keys}
            | {key: select.get(key, 0) for key in ("missed_records", "withdrawn_chunks")}
            | {"limits": select.get("limits", {})}
            | {"trust": state.decisions.get(("explore", number_), {}).get("trust", [])}
            | _deviations(campaign, number_)
            | {"audit": state.decisions.get(("verdict", number_), {}).get("audit")}
        )
    return {
        "campaign": state.identity.get("name"),
        "histogram_edges_eV_A": _EDGES.tolist(),
        "iterations": iterations,
        "final_held_out": final_errors(campaign),
        "calibration": calibration_record(campaign),
        "cost": cost_record(campaign.costs, state.level),
        "eta_hours": eta_hours(campaign.costs, config, open_kinds(state), state.level),
    }


def calibration_record(campaign: Campaign) -> dict[str, Any]:
    """Return the audit pairs, the curves of all of them together and of each group of the map, and the coverage.

    pairs: iteration, deviation, true error (eV/Å), glass, band; curve: deviations with the error to expect and the
    bound, None where it is infinite (too few pairs), empty without pairs; groups: the same of each glass, band, and
    glass and band with labels enough for a map of its own, with the errors at `_TOLD_AT_EV_A` (``told``).
    """
    found = calibrate(campaign)
    pairs = audit_pairs(campaign)
    groups = [_group_record(found.map, own, pairs) for own in found.map.groups] if pairs else []
    whole = next((own for own in groups if own["glass"] is own["band"] is None), None)
    return {
        "pairs": [[pair.iteration, pair.deviation_eV_A, pair.error_eV_A, pair.glass, pair.band] for pair in pairs],
        "curve": whole["curve"] if whole else [],
        "all": whole,
        "groups": [own for own in groups if own["glass"] is not None or own["band"] is not None],
        "level": found.map.settings.level,
        "coverage": [one.sentence for one in found.coverage if one.tested or one.glass is one.band is None],
        "widened": found.widening.reason,
    }


def _group_record(map_: CalibrationMap, group: GroupMap, pairs: list[AuditPair]) -> dict[str, Any]:
    """Return the curve of one group of the map over the deviations of its pairs."""
    own = [
        pair.deviation_eV_A for pair in pairs if group.glass in (None, pair.glass) and group.band in (None, pair.band)
    ]
    at = np.geomspace(max(min(own), 1e-3), max(*own, 1e-2), 40)

    def curve(deviations: Any) -> Any:
        told = map_.predict(deviations, group.glass or "", group.band or "")
        return plain(list(zip(deviations, told.expected_eV_A, told.bound_eV_A, strict=True)))

    about = {"glass": group.glass, "band": group.band, "name": group.name, "pairs": group.pairs}
    return about | {"curve": curve(at), "told": curve(np.array(_TOLD_AT_EV_A))}


def _deviations(campaign: Campaign, iteration: int) -> dict[str, Any]:
    """Return a histogram of the largest force deviations of all recorded frames, and the ranges of force and virial.

    Chunks are counted one after the other. Frames beyond the histogram are in its first and last bin; a range is None
    without any finite value.
    """
    force, virial = DeviationStatistics(), DeviationStatistics()
    for entry in campaign.state.decisions["explore", iteration]["tasks"]:
        if entry["key"] in campaign.state.done:
            with np.load(campaign.result(entry["key"]) / "table.npz") as table:
                force.add(table["max_force_deviation_eV_A"])
                virial.add(table["max_virial_deviation_eV"])
    ranges = [[one.minimum, one.maximum] if one.counts.any() else None for one in (force, virial)]
    names = ("deviation_range_eV_A", "virial_deviation_range_eV")
    return {"deviation_histogram": force.histogram(_EDGES).tolist()} | dict(zip(names, ranges, strict=True))


def print_statistics(statistics: dict[str, Any], console: Console) -> None:
    """Print one table per iteration, and what all of it cost."""
    if not statistics["iterations"]:
        console.print("no selection has been made yet")
    for record in statistics["iterations"]:
        _print_iteration(record, console)
    pairs = statistics["calibration"]["pairs"]
    console.print(f" calibration by {len(pairs)} labels drawn at random", highlight=False)
    if statistics["calibration"]["all"]:
        console.print(_calibration_table(statistics["calibration"]))
    for sentence in filter(None, [*statistics["calibration"]["coverage"], statistics["calibration"]["widened"]]):
        console.print(f"   {sentence}", highlight=False)
    for row in statistics["final_held_out"]:
        console.print(
            f" ensemble {row['iteration']} on the final held-out sets: "
            f"force RMSE {number(row['force_rmse_eV_A'])} eV/Å",
            highlight=False,
        )
    print_costs(statistics["cost"], console)
    console.print(f" remaining: {eta_text(statistics['eta_hours'])}", highlight=False)


def _print_iteration(record: dict[str, Any], console: Console) -> None:
    console.print(_strata_table(record))
    if record["events"]:
        console.print(_events_table(record["events"]))
    if record["audit"] and record["audit"]["errors"]:
        console.print(_audit_table(record["audit"], [(own["glass"], own["band"]) for own in record["trust"]]))
    if record["deviation_range_eV_A"] and record["virial_deviation_range_eV"]:
        largest = record["deviation_range_eV_A"][1], record["virial_deviation_range_eV"][1]
        told = "largest deviation: force {:.3g} eV/Å, virial {:.3g} eV/atom (not chosen by)".format(*largest)
        console.print(f" {told}", highlight=False)
    for line in _trust_lines(record["trust"]):
        console.print(f" trust:  {line}", highlight=False)
    console.print(f" labels: {_reasons_text(record['reasons'], record['limits'])}", highlight=False)
    for line in _missed_lines(record):
        console.print(f" missed: {line}", highlight=False)
    console.print()


def _reasons_text(reasons: dict[str, int], limits: dict[str, int]) -> str:
    """Return how many labels were asked for by each reason, of how many where the reason or all have a limit."""
    own = {name: limit for name, limit in limits.items() if name != "all"}
    counts = dict.fromkeys(sorted(own), 0) | reasons
    told = [f"{counts[name]}{f' of {own[name]}' if name in own else ''} {name}" for name in sorted(counts)]
    whole = [f"{sum(reasons.values())} of at most {limits['all']} in all"] if limits else []
    return ", ".join(told + whole) or "none"


def _strata_table(record: dict[str, Any]) -> Table:
    """Return a table of an iteration's records by trust class, and labels, of every glass and temperature."""
    table = Table("glass and temperature", title=f"iteration {record['iteration']}")
    for column in ("accurate", "candidate", "failed", "lost chunks", "labels", "trust levels"):
        table.add_column(column, justify="right")
    table.caption = "records by largest force deviation; trust levels in eV/Å: accurate below, failed from"
    for name, entry in record["strata"].items():
        counts = (str(entry[key]) for key in ("accurate", "candidate", "failed", "lost", "labels"))
        levels = entry.get("trust_levels_eV_A", record["trust_levels_eV_A"])
        table.add_row(name, *counts, " ".join(f"{level:.3g}" for level in levels))
    table.add_section()
    totals = [record["classes"][name] for name in ("accurate", "candidate", "failed")]
    labels = sum(record["reasons"].values())
    table.add_row("all", *map(str, totals), str(record["lost_chunks"]), str(labels), "")
    return table


def _audit_table(audit: dict[str, Any], explored: list[tuple[str, str]]) -> Table:
    """Return a table of the audit's force errors: a row per glass, a column per temperature band.

    Of a glass in a band it is the error that is judged, of this audit and of as many before as that needs.
    """
    found = {(one["glass"], one["band"]): one for one in [*audit["errors"], *audit.get("groups", ())]}
    glasses = sorted({glass for glass, _ in [*found, *explored] if glass is not None})
    bands = coldest_first({band for _, band in [*found, *explored] if band is not None})
    table = Table("audit", *(band or "all temperatures" for band in (None, *bands)))
    for glass in (None, *glasses):
        table.add_row(glass or "all glasses", *(_error_cell(found.get((glass, band))) for band in (None, *bands)))
        if glass is None:
            table.add_section()
    table.caption = (
        "force RMSE in eV/Å (labels) and its 95 % interval; of a glass in a band with earlier audits, as far back as "
        f"{LEAST_AUDIT_LABELS} labels of {LEAST_AUDIT_TRAJECTORIES} trajectories need"
    )
    return table


def _error_cell(error: dict[str, Any] | None) -> str:
    if error is None:
        return "-"
    interval = "" if error["low_eV_A"] is None else f"\n{error['low_eV_A']:.2f}-{error['high_eV_A']:.2f}"
    return f"{number(error['rmse_eV_A'])} ({error['labels']}){interval}"


def _trust_lines(entries: list[dict[str, Any]]) -> list[str]:
    """Return why trust levels are what they are, once for all glasses and bands of the same reason; none if fixed."""
    who: dict[str, list[str]] = {}
    for entry in entries:
        if entry["reason"] != "fixed":
            who.setdefault(entry["reason"], []).append(f"{entry['glass']} at {entry['band']}")
    everywhere = f"all {len(entries)} glasses and temperature bands"
    return [
        f"{everywhere if 2 < len(groups) == len(entries) else ', '.join(groups)}: {reason}"
        for reason, groups in who.items()
    ]


def _missed_lines(record: dict[str, Any]) -> list[str]:
    """Return what an iteration did not see of what it was to explore."""
    counts = {
        "record(s) that lost trajectories never made": record["missed_records"],
        "chunk(s) withdrawn before they began": record["withdrawn_chunks"],
        "chunk(s) that could not be run": record["failed_chunks"],
    }
    return [f"{count} {what}" for what, count in counts.items() if count]


def _calibration_table(record: dict[str, Any]) -> Table:
    """Return a table of what some deviations stand for, by glass and temperature band with labels enough."""
    table = Table("largest force deviation of", caption=f"error to expect ({record['level']:.0%} bound), eV/Å")
    table.add_column("labels", justify="right")
    for deviation_eV_A in _TOLD_AT_EV_A:
        table.add_column(f"{deviation_eV_A:g} eV/Å", justify="right")
    for group in [record["all"], *record["groups"]]:
        errors = (f"{number(expected)} ({number(bound)})" for _, expected, bound in group["told"])
        table.add_row(group["name"], str(group["pairs"]), *errors)
    return table


def _events_table(events: dict[str, dict[str, Any]]) -> Table:
    """Return a table of the declared events: frames that showed each, and labels asked for because of it, by band."""
    table = Table("event and temperature band", caption="quota: labels per band; 0 watches without asking")
    for column in ("frames", "labels", "quota"):
        table.add_column(column, justify="right")
    for name, entry in events.items():
        table.add_row(name, str(entry["seen"]), str(entry["labelled"]), str(entry.get("quota", "")))
        for band, counts in entry.get("bands", {}).items():
            quota = f"{counts['labelled']} of {entry['quota']}" if entry.get("quota") else "0"
            table.add_row(f"  {band}", str(counts["seen"]), str(counts["labelled"]), quota, style="dim")
    return table


def plot_statistics(statistics: dict[str, Any], file: Path) -> None:
    """Draw classes per iteration, deviation histograms and the errors; the suffix decides the format."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    records = statistics["iterations"]
    if not records:
        raise InputError("nothing to plot yet: no selection has been made; run the campaign first (alloop run)")
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), constrained_layout=True)
    draw_classes(axes[0, 0], records)
    draw_histograms(axes[0, 1], records, np.array(statistics["histogram_edges_eV_A"]))
    _draw_errors(axes[1, 0], statistics["final_held_out"])
    draw_calibration(axes[1, 1], statistics["calibration"])
    figure.suptitle(str(statistics["campaign"]))
    try:
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write the plot to {file}: {error}") from None
    finally:
        plt.close(figure)


def draw_classes(axes: Any, records: list[dict[str, Any]]) -> None:
    """Draw the shares of the trust classes of each iteration's records."""
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


def draw_histograms(axes: Any, records: list[dict[str, Any]], edges: np.ndarray) -> None:
    """Draw how often each largest deviation was seen, by iteration, with the newest trust levels."""
    for record in records:
        axes.stairs(record["deviation_histogram"], edges, label=f"iteration {record['iteration']}")
    levels = {tuple(entry.get("trust_levels_eV_A", ())) for entry in records[-1]["strata"].values()} - {()}
    for level in sorted({level for pair in levels for level in pair} or set(records[-1]["trust_levels_eV_A"])):
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


def draw_calibration(axes: Any, record: dict[str, Any]) -> None:
    """Draw the audit's pairs and the curves of a `calibration_record`, by glass and band with a map of its own."""
    axes.set(xlabel="largest force deviation (eV/Å)", ylabel="largest force error (eV/Å)", title="calibration")
    if not record["pairs"]:
        axes.text(0.5, 0.5, "no label of the random audit yet", ha="center", transform=axes.transAxes)
        return
    groups = [own for own in record["groups"] if own["glass"] is not None and own["band"] is not None]
    for number_, group in enumerate(groups):
        points = np.array([pair[1:3] for pair in record["pairs"] if pair[3:] == [group["glass"], group["band"]]])
        axes.plot(points[:, 0], points[:, 1], ".", color=f"C{number_ % 10}")
        _draw_curve(axes, group["curve"], f"C{number_ % 10}", group["name"])
    known = [[group["glass"], group["band"]] for group in groups]
    others = [pair for pair in record["pairs"] if pair[3:] not in known]
    for number_, iteration in enumerate(sorted({pair[0] for pair in others})):
        own = np.array([pair[1:3] for pair in others if pair[0] == iteration])
        colour = "grey" if groups else f"C{number_ % 10}"
        axes.plot(own[:, 0], own[:, 1], ".", color=colour, label=None if groups else f"iteration {iteration}")
    _draw_curve(axes, record["curve"], "black", "all pairs")
    axes.plot([], [], "-", color="black", label="expected")
    axes.plot([], [], "--", color="black", label=f"{record['level']:.0%} bound")
    axes.set(xscale="log", yscale="log")
    axes.legend(fontsize="x-small" if groups else "small")


def _draw_curve(axes: Any, values: list[list[float]], colour: str, name: str) -> None:
    """Draw the error to expect and the bound of one group, each where it is finite."""
    curve = np.array(values, dtype=float)
    for column, style, label in ((1, "-", name), (2, "--", None)):
        if np.isfinite(curve[:, column]).all():
            axes.plot(curve[:, 0], curve[:, column], style, color=colour, linewidth=1, label=label)
