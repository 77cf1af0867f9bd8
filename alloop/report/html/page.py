"""The page: sections of texts, tables and figures, rendered into one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from jinja2 import Environment, PackageLoader

from alloop import __version__
from alloop.cost import price_text
from alloop.report.html.errors import models_text
from alloop.report.html.figures import Figure, campaign_figures, covered_glasses, error_figures
from alloop.report.html.glass_figures import (
    LARGE_ATOMS,
    distribution_figures,
    glass_figures,
    relaxed_figures,
    transport_figures,
)
from alloop.report.html.relaxed import MODELS
from alloop.report.html.replicas import told_error
from alloop.report.html.runs import Tell
from alloop.report.html.structures import glass_drawings, ring_figures
from alloop.report.html.tables import (
    PageTable,
    composition_table,
    energy_table,
    glass_table,
    probed_table,
    relaxation_text,
    relaxed_table,
    single_runs_table,
    transport_table,
    watch_table,
)
from alloop.report.html.transport import STAGE
from alloop.report.status_text import number

_QUENCH = "needs a melt-quench that came to its end"
_BOTH = "needs held-out labels, measured at the end of a run"
_RELAX = "needs quench.relax, which relaxes the glasses with the labeler"
_TRANSPORT = f"not run: no melt-quench here has a stage named {STAGE}, as those of urata2022 have"
CHECKLIST = (
    ("Table 1", "the glasses: composition, density, fourfold boron of experiment", _QUENCH),
    ("Fig. 1 energy", "energies of labels that were not trained on, by glass", _BOTH),
    ("Fig. 1 force", "forces of labels that were not trained on, by glass", _BOTH),
    ("Fig. 2a", "fourfold boron against experiment, small cells", f"needs quenched cells below {LARGE_ATOMS} atoms"),
    ("Fig. 2b", "fourfold boron and fivefold silicon before and after relaxing with the labeler", _RELAX),
    ("Fig. 3", "fourfold boron against experiment, large cells", f"needs quenched cells of {LARGE_ATOMS} atoms"),
    ("Fig. 4a", "three-membered boron rings at room temperature", _QUENCH),
    ("Fig. 4b-e", "structures of four glasses, three-membered rings in bold", "no glass here has such a ring"),
    ("Fig. 5", "energies of the glasses by the labeler, beside classical ones", _RELAX),
    ("Fig. 6", "three-membered boron rings while cooling", _QUENCH),
    ("Fig. 7a", "a three-membered ring forms from a four-membered one", "none was seen to"),
    ("Fig. 7b", "a three-membered ring forms from boron in no ring of four", "none was seen to"),
    ("Fig. 7c", "a three-membered ring breaks", "none was seen to"),
    ("Fig. 7d", "a three-membered ring that lasts", "none was there at the end"),
    ("Fig. 7e", "survival of the final rings", "none was there at the end"),
    ("Fig. 8", "number density times diffusion coefficient of lithium at 500 K", _TRANSPORT),
    ("Fig. S1 energy", "mean and largest absolute errors of energy", _BOTH),
    ("Fig. S1 force", "mean and largest absolute errors of force", _BOTH),
)
"""Tables and figures of S. Urata's work on boroxol rings in lithium borosilicate glasses (2022): what each shows, and
what it means if its counterpart is not there."""


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
    return [*parts, _checklist(parts, _why_missing(report))]


def render(report: dict[str, Any], tell: Tell) -> str:
    """Return the page as HTML."""
    status = report["status"]
    environment = Environment(loader=PackageLoader("alloop.report.html", ""), autoescape=True, trim_blocks=True)
    shown = []
    for section in sections(report):
        if section.figures:
            tell(f"figures: {section.title.lower()}")
        figures = [vars(figure) | {"uri": figure.as_uri()} for figure in section.figures]
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
    texts += status["errors"] + status["audit"]
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
        total += f", {price_text(cost['core_hours_per_label'])} per label"
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
                number(row[key] if row[key] is None else 1000 * row[key], 1)
                for key in (
                    "energy_mae_eV_atom",
                    "energy_max_eV_atom",
                    "energy_offset_eV_atom",
                    "energy_mae_without_offset_eV_atom",
                    "energy_max_without_offset_eV_atom",
                )
            ),
            number(row["force_mae_eV_A"]),
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
        "force MAE",
        "force RMSE",
        "largest",
    )
    caption = (
        f"{models_text(errors)}, on held-out labels. Errors are of single models, as one drives the dynamics: energies "
        "in meV/atom, mean absolute error over models and labels and the largest of any model, with and without the "
        "mean offset that a model has for the composition (of a single label it is not known); forces in eV/Å, MAE and "
        "RMSE of components and the largest error vector of an atom by any model."
    )
    covered = f"{len(errors['rows'])} labels, {covered_glasses(errors['forces'])}"
    table = PageTable(caption, columns, rows, {"Fig. S1 energy": covered, "Fig. S1 force": covered})
    return Section("errors", "Errors of the potential", [], [table], list(error_figures(report)))


def _glasses(report: dict[str, Any]) -> Section:
    glasses, unfinished = report["glasses"], report["unfinished"]
    texts, tables = [], []
    if not glasses and not unfinished:
        texts.append("No melt-quench was asked for yet: add a quench section to param.json, or run alloop quench.")
    texts += [f"{line[0].upper()}{line[1:]}." for line in report["status"].get("production", ())]
    if unfinished:
        counts = Counter(run["status"] for run in unfinished)
        told = ", ".join(f"{count} {status}" for status, count in counts.items())
        texts.append(f"Of {len(glasses) + len(unfinished)} melt-quenches {told}; no number or figure counts them.")
    if glasses:
        if not all(own["converged_ensemble"] for own in glasses):
            texts.append("The ensemble that made these glasses was NOT converged; read them as a rehearsal.")
        rates = sorted({own["cooling_rate_K_ps"] for own in glasses if own["cooling_rate_K_ps"] is not None})
        texts.append(f"Cooled at {', '.join(f'{rate:g}' for rate in rates)} K/ps. {told_error(glasses)}")
        tables += [composition_table(glasses), glass_table(glasses), single_runs_table(glasses)]
    if report["status"]["glasses"]:
        tables.append(watch_table(report["status"]["glasses"]))
    texts += _afterwards_texts(report)
    if unfinished:
        rows = [tuple(run[key] for key in ("run", "glass", "status", "reason")) for run in unfinished]
        tables.append(PageTable("Melt-quenches without a glass.", ("run", "glass", "status", "where and why"), rows))
    if report["relaxed"]:
        tables.append(probed_table(report["relaxed"]))
    tables += _afterwards(report)
    drawn = (
        glass_figures(report),
        relaxed_figures(report),
        transport_figures(report),
        glass_drawings(glasses),
        ring_figures(glasses),
        distribution_figures(report),
    )
    return Section("glasses", "The glasses", texts, tables, list(chain(*drawn)))


def _afterwards_texts(report: dict[str, Any]) -> list[str]:
    """Say what was relaxed, and where diffusion is not known."""
    relaxed = report["relaxed_glasses"]
    untold = [run for run in report["transport"]["runs"] if run["problem"]]
    texts = [f"Diffusion in {run['run']} is not known: {run['problem']}." for run in untold]
    return [relaxation_text(relaxed), *texts] if relaxed else texts


def _afterwards(report: dict[str, Any]) -> list[PageTable]:
    """Return the tables of what came of the glasses afterwards: relaxed with the labeler, and held for transport."""
    tables = []
    done = [own for own in report["relaxed_glasses"] if own["status"] == "done" and own["driver"] == MODELS]
    if done:
        measured = {own["glass"]: own["experimental_4B"] for own in report["glasses"]}
        tables.append(relaxed_table(done, measured))
    if report["energies"]:
        tables.append(energy_table(report["energies"]))
    if report["transport"]["glasses"]:
        tables.append(transport_table(report["transport"]["glasses"]))
    return tables


def _why_missing(report: dict[str, Any]) -> dict[str, str]:
    """Return, by name, why counterparts are missing that were asked for."""
    found = {}
    if report["relaxed_glasses"]:
        found = dict.fromkeys(("Fig. 2b", "Fig. 5"), relaxation_text(report["relaxed_glasses"]))
        if report["energies"]:
            found["Fig. 5"] = "no glass of a force field has an energy by the labeler"
    transport = report["transport"]
    if transport["runs"]:
        found["Fig. 8"] = f"not known: {transport['runs'][0]['problem']}"
    elif transport["asked"]:
        found["Fig. 8"] = f"not run to its end in any of the {transport['asked']} melt-quenches with it"
    return found


def _checklist(parts: list[Section], why_missing: dict[str, str]) -> Section:
    """Say of every table and figure of the model work whether its counterpart is on this page, and how much of it."""
    there = {
        name: extent
        for part in parts
        for counterparts in (*(t.counterparts for t in part.tables), *(f.counterparts for f in part.figures))
        for name, extent in counterparts.items()
    }
    rows = [
        (name, what, f"yes: {there[name]}" if name in there else f"no: {why_missing.get(name, missing)}")
        for name, what, missing in CHECKLIST
    ]
    text = "What S. Urata's study of these glasses (2022) shows, and whether this campaign has its counterpart above."
    return Section("checklist", "Beside the literature", [text], [PageTable("", ("there", "what", "here"), rows)])
