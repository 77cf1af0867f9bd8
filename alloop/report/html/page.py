"""The page: sections of texts, tables and figures, rendered into one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader

from alloop import __version__
from alloop.glass.composition import TABLE_1
from alloop.report.html.data import Tell
from alloop.report.html.figures import Figure, campaign_figures, error_figures, glass_figures, place_of, replicas
from alloop.report.status import number

CHECKLIST = (
    ("Table 1", "the glasses: composition, density, fourfold boron of experiment"),
    ("Fig. 1", "energies and forces on labels that were not trained on, by glass"),
    ("Fig. 2a", "fourfold boron against experiment, small cells"),
    ("Fig. 2b", "fourfold boron and fivefold silicon before and after relaxing with the labeler"),
    ("Fig. 3", "fourfold boron against experiment, large cells"),
    ("Fig. 4a", "three-membered boron rings at room temperature"),
    ("Fig. 5", "energies of the glasses by the labeler, before and after relaxing, beside classical ones"),
    ("Fig. 6", "three-membered boron rings while cooling"),
    ("Fig. 7e", "survival of the final rings"),
    ("Fig. 8", "number density times diffusion coefficient of lithium at 500 K"),
    ("Fig. S1", "mean and largest errors of energy and force"),
)
"""The tables and figures of S. Urata's work on boroxol rings in lithium borosilicate glasses (2022)."""


@dataclass(frozen=True)
class PageTable:
    """A table of texts with its caption, and its counterpart in Urata (2022), if there is one."""

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    counterpart: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    anchor: str
    title: str
    texts: list[str] = field(default_factory=list)
    tables: list[PageTable] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)


def sections(report: dict[str, Any]) -> list[Section]:
    """Return the parts of the page for a record of `data.build_report`."""
    parts = [_story(report), _cost(report), _errors(report), _glasses(report)]
    return [*parts, _checklist(parts)]


def render(report: dict[str, Any], tell: Tell) -> str:
    """Return the page as HTML."""
    status = report["status"]
    environment = Environment(loader=PackageLoader("alloop.report.html", ""), autoescape=True, trim_blocks=True)
    shown = []
    for section in sections(report):
        if section.figures:
            tell(f"figures: {section.title.lower()}")
        figures = [
            {"uri": figure.as_uri(), "caption": figure.caption, "counterpart": figure.counterpart}
            for figure in section.figures
        ]
        shown.append({**vars(section), "figures": figures})
    converged = status["converged"]
    return environment.get_template("page.html").render(
        title=f"{status['campaign']}",
        subtitle=f"{status['time']} · alloop {__version__} · labels by {status['level']} · {_labels(status['labels'])}",
        verdict=f"{'Converged' if converged else 'Not converged'}: {status['reason']}",
        converged=converged,
        warnings=status["warnings"],
        sections=shown,
    )


def _labels(labels: dict[str, int]) -> str:
    return f"{labels['done']} labels done ({labels['training']} to train on, {labels['held_out']} held out)"


def _story(report: dict[str, Any]) -> Section:
    status = report["status"]
    texts = [status["missing"]] if status["missing"] else []
    texts += status["audit"]
    texts += [f"Changed since the campaign began: {change}." for change in status["config_changes"]]
    columns: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
        ("iteration", lambda row: str(row["iteration"])),
        ("trained on", lambda row: str(row["training_labels"])),
        ("accurate", lambda row: str(row.get("accurate", "-"))),
        ("candidate", lambda row: str(row.get("candidate", "-"))),
        ("failed", lambda row: str(row.get("failed", "-"))),
        ("lost runs", lambda row: str(row.get("lost_chunks", "-"))),
        ("labels", lambda row: str(row.get("labels", "-"))),
        ("new labels", lambda row: number(row.get("new_label_force_rmse_eV_A"))),
        ("audit", lambda row: number(row.get("audit_force_rmse_eV_A"))),
        ("held out", lambda row: number(row.get("test_force_rmse_eV_A"))),
    )
    rows = [tuple(cell(row) for _, cell in columns) for row in status["iterations"]]
    table = PageTable(
        "Iterations: explored records by trust class, labels asked for, and force RMSE in eV/Å.",
        tuple(name for name, _ in columns),
        rows,
    )
    events = [
        (f"{record['iteration']}", name.replace("_", " "), str(entry["seen"]), str(entry["labelled"]))
        for record in report["statistics"]["iterations"]
        for name, entry in record["events"].items()
    ]
    tables = [table] if rows else []
    if events:
        caption = "Structural events: frames that showed each, and labels asked for because of it."
        tables.append(PageTable(caption, ("iteration", "event", "frames", "labels"), events))
    texts += report["statistics"]["calibration"]["coverage"]
    return Section("campaign", "The campaign", texts, tables, list(campaign_figures(report)))


def _cost(report: dict[str, Any]) -> Section:
    cost = report["statistics"]["cost"]
    total = f"{cost['core_hours']:.2f} core-hours and {cost['gpu_hours']:.2f} GPU-hours in all"
    if cost["core_hours_per_label"] is not None:
        total += f", {cost['core_hours_per_label']:.2g} core-hours per label"
    columns = ("", "tasks", "core-hours", "GPU-hours", "waited (mean, s)", "failures", "core-hours lost")
    tables = []
    for key, what in (("by_kind", "kind of task"), ("by_glass", "glass"), ("by_reason", "reason for a label")):
        rows = [
            (
                name,
                str(spend["tasks"]),
                f"{spend['core_hours']:.3f}",
                f"{spend['gpu_hours']:.3f}",
                number(spend["waited_mean_s"], 1),
                str(spend["failures"]),
                f"{spend['failed_core_hours']:.3f}",
            )
            for name, spend in cost[key].items()
        ]
        if rows:
            tables.append(PageTable(f"Cost by {what}.", (what, *columns[1:]), rows))
    return Section("cost", "What it cost", [f"{total}; failed attempts are part of it."], tables)


def _errors(report: dict[str, Any]) -> Section:
    errors = report["errors"]
    if errors is None:
        text = "The errors on the final held-out labels are measured at the end of a run (alloop run)."
        return Section("errors", "Errors of the potential", [text])
    rows = [
        (
            row["glass"],
            str(row["labels"]),
            *(
                f"{1000 * row[key]:.1f}"
                for key in (
                    "energy_mae_eV_atom",
                    "energy_max_eV_atom",
                    "energy_offset_eV_atom",
                    "energy_mae_without_offset_eV_atom",
                    "energy_max_without_offset_eV_atom",
                )
            ),
            number(row["force_rmse_eV_A"]),
            number(row["max_force_error_eV_A"], 2),
        )
        for row in errors["by_glass"]
    ]
    columns = (
        "glass",
        "labels",
        "energy MAE",
        "largest",
        "mean offset",
        "MAE without it",
        "largest without it",
        "force RMSE",
        "largest",
    )
    caption = (
        f"Ensemble {errors['iteration']} on held-out labels: energies of the ensemble's mean in meV/atom, with and "
        "without the glass's mean offset; forces in eV/Å, RMSE of one model and largest error of the mean."
    )
    table = PageTable(caption, columns, rows, "Fig. S1")
    return Section("errors", "Errors of the potential", [], [table], list(error_figures(report)))


def _glasses(report: dict[str, Any]) -> Section:
    glasses = report["glasses"]
    if not glasses:
        text = "No melt-quench has ended yet: add a quench section to param.json, or run alloop quench."
        return Section("glasses", "The glasses", [text])
    texts = []
    if not all(own["converged_ensemble"] for own in glasses):
        texts.append("The ensemble that made these glasses was NOT converged; read them as a rehearsal.")
    rates = sorted({own["cooling_rate_K_ps"] for own in glasses if own["cooling_rate_K_ps"] is not None})
    texts.append(f"Cooled at {', '.join(f'{rate:g}' for rate in rates)} K/ps; ± is the deviation between replicas.")
    keys = ("fraction_4B", "fraction_5Si", "three_rings", "fraction_boroxol")
    values = {key: replicas(glasses, key) for key in keys}
    rows = []
    for place in dict.fromkeys(map(place_of, glasses)):
        known = TABLE_1.get(place[0])
        runs = [own for own in glasses if place_of(own) == place]
        experiment = "-" if known is None or known.experimental_4B is None else f"{100 * known.experimental_4B:.1f}"
        rows.append(
            (
                place[0],
                str(place[1]),
                "-" if place[2] is None else f"{place[2]:g}",
                str(len(runs)),
                number(runs[0]["density_g_cm3"], 2),
                experiment,
                *(_with_spread(values[key].get(place), 1 if key == "three_rings" else 100) for key in keys),
            )
        )
    columns = (
        "glass",
        "atoms",
        "K/ps",
        "replicas",
        "density g/cm³",
        "4B exp. %",
        "4B %",
        "5Si %",
        "3-rings of B",
        "B in boroxol %",
    )
    caption = "The quenched glasses over their analysed end, beside the fourfold boron of experiment (NMR)."
    table = PageTable(caption, columns, rows, "Table 1")
    return Section("glasses", "The glasses", texts, [table], list(glass_figures(report)))


def _with_spread(values: np.ndarray | None, factor: float) -> str:
    if values is None:
        return "-"
    mean = f"{factor * values.mean():.1f}"
    return mean if len(values) < 2 else f"{mean} ± {factor * values.std(ddof=1):.1f}"


def _checklist(parts: list[Section]) -> Section:
    """Say of every table and figure of the model work whether its counterpart is on this page."""
    there = {
        name.strip()
        for part in parts
        for counterpart in (*(t.counterpart for t in part.tables), *(f.counterpart for f in part.figures))
        for name in counterpart.split(",")
    }
    rows = [(name, what, "yes" if name in there else "not yet") for name, what in CHECKLIST]
    text = "What S. Urata's study of these glasses (2022) shows, and whether this campaign has its counterpart above."
    return Section("checklist", "Beside the literature", [text], [PageTable("", ("there", "what", "here"), rows)])
