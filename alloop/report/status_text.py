"""The morning view as text: what `status.build_status` found, for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alloop.report.cost import budget_text, cost_text, eta_text
from alloop.report.status import first_line


def print_status(status: dict[str, Any], console: Console) -> None:
    """Print the morning view."""
    if status["campaign"] is None:
        console.print(status["reason"])
        return
    labels, cost = status["labels"], status["cost"]
    console.print(f"[bold]{status['campaign']}[/bold]   driver: {status['driver']}   iteration {status['iteration']}")
    verdict = "[green]yes[/green]" if status["converged"] else "[yellow]no[/yellow]"
    said = status["reason"] if status["converged"] or not status["missing"] else status["missing"]
    console.print(f" converged? {verdict}: {said}", highlight=False)
    for line in status["errors"]:
        console.print(f" errors     {line}", highlight=False)
    if status.get("learning"):
        console.print(f" learning   {status['learning']}", highlight=False)
    for line in status["audit"]:
        console.print(f" audit      {line}", highlight=False)
    console.print(f" labels     {_labels_text(labels)}", highlight=False)
    console.print(f" level      {_level_text(status)}", markup=False, highlight=False)
    for warning in status["warnings"]:
        console.print(f" [yellow]warning[/yellow]    {escape(warning)}", highlight=False)
    for entry in status["flagged"]:
        text = f" flagged    {entry['count']} with {entry['flag']}; look with: alloop show {entry['example']}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(f" cost       {cost_text(cost)}   remaining: {eta_text(status['eta_hours'])}", highlight=False)
    if status["budget"]:
        console.print(f" budget     {budget_text(status['budget'])}", highlight=False)
    for kind, counts in status["tasks"].items():
        text = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        console.print(f" {kind:<10} {text}", highlight=False)
    for entry in status["running"][:10]:
        console.print(f" running    {entry['kind']} {entry['task']}: {100 * entry['done']:.0f} %", highlight=False)
    for line in quarantine_lines(status["quarantined"]):
        console.print(f" [red]quarantined[/red] {escape(line)}", highlight=False, soft_wrap=True)
    if status["quarantined"]:
        text = " " * 13 + "mend the cause, then: alloop retry --class CLASS, or --all"
        console.print(text, highlight=False)
    for change in status["config_changes"]:
        console.print(f" changed    {change}", highlight=False)
    for row in [row for row in status["iterations"] if row.get("events")][-1:]:
        text = ", ".join(f"{name} {e['seen']} ({e['labelled']})" for name, e in row["events"].items())
        console.print(f" events     {text}: frames (labels) of iteration {row['iteration']}", highlight=False)
    if status["iterations"]:
        console.print(_iteration_table(status["iterations"]))
    if status["final_held_out"]:
        console.print(_final_table(status["final_held_out"]))
    for line in status.get("production", ()):
        console.print(f" quench     {line}", highlight=False)
    if status["glasses"]:
        console.print(glass_text_table(status["glasses"]))


def _labels_text(labels: dict[str, int]) -> str:
    parts = [f"{labels['training']} training", f"{labels['held_out']} held out"]
    parts += [f"{labels['excluded']} excluded"] * bool(labels["excluded"])
    text = f"{labels['done']} done ({', '.join(parts)}), "
    text += f"{labels['in_flight']} in flight, {labels['waiting']} waiting, {labels['quarantined']} quarantined"
    return text + "".join(f", {labels[what]} {what}" for what in ("pretraining", "superseded") if labels[what])


def _level_text(status: dict[str, Any]) -> str:
    codes = ", ".join(f"{code} ({count})" for code, count in status["codes"].items())
    text = str(status["level"]) + (f", by {codes}" if codes else "")
    now = status["level_now"]
    return text if now == status["level"] else f"{text}; labels are now asked for at {now}"


def quarantine_lines(quarantined: list[dict[str, Any]]) -> list[str]:
    """Return one line per kind and class of work given up, the commonest first: how many, and one of the messages."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in quarantined:
        groups.setdefault((entry["kind"], str(entry["class"])), []).append(entry)
    return [
        f"{len(entries)} {kind}, {group}: such as {entries[0]['task']}: {first_line(entries[0]['message'])}"
        for (kind, group), entries in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as text, a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def new_label_text(row: dict[str, Any]) -> str:
    """Return an iteration's force error on new labels, and in brackets that of labels near collapse."""
    near = row.get("near_collapse_force_rmse_eV_A")
    return number(row.get("new_label_force_rmse_eV_A")) + (f" ({number(near)})" if near is not None else "")


def _iteration_table(iterations: list[dict[str, Any]]) -> Table:
    table = Table("iter", "trained on", "accurate", "candidate", "failed", "lost", "labels", title="iterations")
    for column in ("F-RMSE new", "audit", "held out"):
        table.add_column(column, justify="right")
    table.caption = "force RMSE in eV/Å; of new labels before training on them, in brackets of those near collapse"
    for row in iterations:
        counts = [str(row.get(key, "-")) for key in ("accurate", "candidate", "failed", "lost_chunks", "labels")]
        errors = (number(row.get(key)) for key in ("audit_force_rmse_eV_A", "test_force_rmse_eV_A"))
        new = new_label_text(row)
        table.add_row(str(row["iteration"]), str(row["training_labels"]), *counts, new, *errors)
    return table


def _final_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "ensemble",
        "labels",
        "force RMSE eV/Å",
        "energy RMSE meV/atom",
        title="all ensembles on the final held-out sets",
    )
    for row in rows:
        energy = row["energy_rmse_eV_atom"]
        table.add_row(
            str(row["iteration"]),
            str(row["labels"]),
            number(row["force_rmse_eV_A"]),
            number(energy and 1000 * energy, 1),
        )
    return table


def glass_text_table(rows: list[dict[str, Any]]) -> Table:
    """Return the glasses beside experiment; an ensemble that is not converged is marked."""
    table = Table("glass", "status", "4B", "4B exp.", "5Si", "3-rings B", "boroxol", "max dev. eV/Å", "> trust_high")
    table.title = "quenched glasses"
    if not all(row["converged_ensemble"] for row in rows):
        table.title += " (ensemble NOT converged)"
    rates = sorted({row["cooling_rate_K_ps"] for row in rows if row["cooling_rate_K_ps"] is not None})
    cooled = f"cooled at {', '.join(f'{rate:g}' for rate in rates)} K/ps; " if rates else ""
    table.caption = f"{cooled}means over the analysed end"
    table.caption += _melting_text({row["glass"]: row["melting"] for row in rows if row["melting"]})
    table.caption += "".join(
        f"\n{row['run']} {row['status']} at {row['lost_reason']}" for row in rows if row["lost_reason"]
    )
    table.caption += "".join(
        f"\n{row['run']} was not minimised: {row['unconverged_minimum']}" for row in rows if row["unconverged_minimum"]
    )
    for row in rows:
        seen = ", ".join(f"{event} {count}" for event, count in row["events"].items() if count)
        table.caption += f"\n{row['run']} records with {seen}" if seen else ""
    for row in rows:
        above = row["records_above_trust_high"]
        table.add_row(
            row["run"],
            row["status"],
            number(row["fraction_4B"]),
            number(row["experimental_4B"]),
            number(row["fraction_5Si"]),
            number(row["three_membered_rings_B"], 1),
            number(row["boroxol_rings"], 1),
            number(row["max_force_deviation_eV_A"], 2),
            "-" if above is None else f"{100 * above:.0f} %",
        )
    return table


def _melting_text(melting: dict[str, dict[str, Any]]) -> str:
    """Return a line about each glass whose melting temperature was not given."""
    lines = []
    for glass, found in melting.items():
        if found["known"] == "given":
            continue
        moved = ", ".join(
            f"{element} {length:.1f} Å" for element, length in found["rms_displacement_A"].items() if element in "BSi"
        )
        found_K = f"{found['temperature_K']:g} K"
        told = f"melts at {found_K} by the rule" if found["known"] == "rule" else f"no melt by the rule up to {found_K}"
        taken = "" if found["known"] == "rule" else ", which was taken; give quench.melting_temperature_K to choose"
        lines.append(f"\n{glass}: {told} (moved in 20 ps: {moved}){taken}")
    return "".join(lines)
